"""How fast and how exact the experiment statistics are: assignment, recomputing, agreement, replay.

python -m bench.experiments [--quick] [--seed 7]
"""

import argparse
import random
import time
from collections.abc import Callable

import numpy as np

from bench.output import emit
from engine.experiments.analysis import analyse
from engine.experiments.assignment import Assigner, AssignmentPlan, Hashing, Phase
from engine.experiments.estimates import difference, mean_estimate, relative_lift
from engine.experiments.moments import EMPTY, Moments, Observation
from engine.experiments.plan import ExperimentPlan, Kind, MetricPlan, PhaseSnapshot, Role, Snapshot

BENCH = "experiments"
ARMS = ("control", "b", "c", "d")


def fastest_s(work: Callable[[], object], repeats: int) -> float:
    """The shortest of several timings: what the work costs when nothing interferes."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def report_assignment(learners: int) -> bool:
    """Assignments a second on one core, by hashing scheme; only the default has a bar."""
    ids = [f"learner-{i:08d}" for i in range(learners)]
    held = True
    for hashing in Hashing:
        phases = (Phase(weights=(0.5, 0.5)),)
        plan = AssignmentPlan(seed="exp-1", arms=("old", "new"), phases=phases, hashing=hashing)
        assigner = Assigner(plan, now_s=0.0)
        seconds = fastest_s(lambda a=assigner: [a.index_of(learner) for learner in ids], 5)  # type: ignore[misc]
        bar = ">= 200000" if hashing is Hashing.BLAKE2B else ""
        held &= emit(BENCH, f"assignments_per_s_{hashing.value}", round(learners / seconds), bar=bar)
    return held


def large_experiment(
    rng: np.random.Generator, *, metrics: int, learners: int
) -> tuple[ExperimentPlan, Snapshot]:
    """An experiment of four arms with every kind and role of metric, covariates and unequal means."""
    roles = [Role.PRIMARY] + [Role.GUARDRAIL] * 4 + [Role.SECONDARY] * metrics
    plans = tuple(
        MetricPlan(name=f"metric-{i}", role=roles[i], kind=tuple(Kind)[i % 3], use_covariate=i % 2 == 0)
        for i in range(metrics)
    )
    moments = {}
    for metric in plans:
        arms = []
        for arm in range(len(ARMS)):
            x = rng.normal(10.0, 3.0, learners)
            y = x + rng.normal(0.2 * arm, 3.0, learners)
            if metric.kind is Kind.PROPORTION:
                y = (y > 10.0).astype(np.float64)
            d = rng.poisson(5.0, learners) + 1.0
            arms.append(Moments.of(list(zip(y.tolist(), d.tolist(), x.tolist(), strict=True))))
        moments[metric.name] = arms
    plan = ExperimentPlan(
        name="large",
        arms=ARMS,
        metrics=plans,
        planned_sample=4000,
        target_improvement=0.1,
        duration_days=30.0,
    )
    counts = [learners] * len(ARMS)
    phase = PhaseSnapshot(weights=[0.25] * 4, exposed=counts, assigned=counts, moments=moments)
    return plan, Snapshot(phases=[phase], elapsed_days=10.0)


def report_recompute(rng: np.random.Generator, repeats: int) -> bool:
    """Milliseconds for one look at 20 metrics in 4 arms: the fastest, and the median beside it."""
    plan, snapshot = large_experiment(rng, metrics=20, learners=500)
    times = [fastest_s(lambda: analyse(plan, snapshot), 1) for _ in range(repeats)]
    median = round(1e3 * float(np.median(times)), 3)
    return emit(
        BENCH, "recompute_ms_20_metrics_4_arms", median, bar="<= 2", fastest_ms=round(1e3 * min(times), 3)
    )


def report_agreement(rng: np.random.Generator, sets: int) -> bool:
    """Largest relative disagreement with tea-tasting over random pairs of arms."""
    try:
        import tea_tasting
    except ImportError:
        emit(BENCH, "tea_tasting_skipped", 1, reason="not installed: pip install tea-tasting")
        return True
    n = rng.integers(2, 100_000, (2, sets))
    mean = rng.gamma(3.0, 2.0, (2, sets))
    variance = mean**2 * rng.gamma(2.0, 0.5, (2, sets))
    arms = [mean_estimate(n=n[arm], mean=mean[arm], variance=variance[arm]) for arm in (0, 1)]
    diff, lift = difference(*arms), relative_lift(*arms)
    ours = np.stack(
        [diff.effect, diff.lower, diff.upper, diff.p, lift.lift, lift.log_lower, lift.log_upper], axis=1
    )
    metric, theirs = tea_tasting.Mean("v"), np.empty_like(ours)
    for i in range(sets):
        pair = [
            tea_tasting.aggr.Aggregates(
                count_=int(n[arm, i]), mean_={"v": float(mean[arm, i])}, var_={"v": float(variance[arm, i])}
            )
            for arm in (0, 1)
        ]
        found = metric.analyze_aggregates(*pair)
        theirs[i] = (
            found.effect_size, found.effect_size_ci_lower, found.effect_size_ci_upper, found.pvalue,
            found.rel_effect_size, found.rel_effect_size_ci_lower, found.rel_effect_size_ci_upper,
        )  # fmt: skip
    # Log bounds are compared as ratios of means, which is what both sides compute.
    ours[:, 4:] += 1.0
    theirs[:, 4:] += 1.0
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        apart = np.where(ours == theirs, 0.0, np.abs(ours - theirs) / np.abs(theirs))
    worst = float(np.max(apart))
    return emit(BENCH, "tea_tasting_relative_difference", worst, bar="<= 1e-9", sets=sets)


def report_replay(seed: int, learners: int) -> bool:
    """Reports shuffled, late, corrected and delivered twice: largest difference of any moment."""
    rng = random.Random(seed)
    final: list[Observation] = [
        (rng.expovariate(1 / 30), float(rng.randint(1, 9)), rng.gauss(40.0, 10.0)) for _ in range(learners)
    ]
    straight = Moments.of(final).row()
    worst = 0.0
    for _ in range(3):
        current: dict[int, tuple[int, Observation]] = {}
        moments = EMPTY
        # Three reports a learner, numbered; each twice, in any order. The highest number counts.
        reports = [(i, step) for i in range(learners) for step in (1, 2, 3)] * 2
        rng.shuffle(reports)
        for learner, step in reports:
            v, d, x = final[learner]
            news = (v * step / 3 if step < 3 else v, d, x)
            before = current.get(learner)
            if before is None:
                moments = moments.add(news[0], denominator=news[1], covariate=news[2])
            elif step > before[0]:
                moments = moments.replace(before[1], news)
            else:
                continue
            current[learner] = (step, news)
        worst = max(
            worst, *(abs(a - b) / (abs(b) or 1.0) for a, b in zip(moments.row(), straight, strict=True))
        )
    return emit(BENCH, "replay_relative_difference", worst, bar="<= 1e-12", learners=learners)


def main() -> int:
    """Run every measurement; 0 when all bars hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a smaller version for every commit")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    quick = options.quick
    held = [
        report_assignment(20_000 if quick else 200_000),
        report_recompute(rng, 50 if quick else 500),
        report_agreement(rng, 500 if quick else 10_000),
        report_replay(options.seed, 300 if quick else 5_000),
    ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    raise SystemExit(main())

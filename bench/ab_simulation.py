"""Do the experiment's promises hold? Experiments with a known truth, looked at after every single event.

For six kinds of outcome it plays A/A experiments (share that ever rejects, by the always-valid sequence, by
the hybrid rule and, for contrast, by naive peeking), A/B experiments at 1, 1.5 and 2 times the detectable
effect (power and stopping time), then CUPED and guardrails. All decisions come from `engine.experiments`;
this program only draws the learners.

    python -m bench.ab_simulation [--quick] [--runs 8000] [--learners 4000] [--seed 7]
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from bench.output import emit
from engine.experiments.analysis import GUARDRAIL_FOCUS
from engine.experiments.estimates import (
    MeanEstimate,
    adjusted_variance,
    difference,
    linearised_variance,
    margin_contrast,
    mean_estimate,
)
from engine.experiments.planning import detectable_effect, sample_size_per_arm
from engine.experiments.sequential import HybridRule, always_valid_p, one_sided_p

Array = NDArray[np.float64]
Draw = Callable[[np.random.Generator, tuple[int, int], Array], tuple[Array, Array]]
Verdicts = NDArray[Any]
BENCH = "ab_simulation"
BATCH = 50
ALPHA = 0.05
GUARDRAIL_ALPHA = 0.01
RULE = HybridRule()


@dataclass(frozen=True)
class Outcome:
    """A kind of metric: `draw(rng, shape, lift)` gives values and denominators, lift by learner."""

    name: str
    draw: Draw
    ratio: bool = False


@dataclass(frozen=True)
class Options:
    """How much to simulate: experiments a setting, learners of both arms together, and the seed.

    False positives and the power ratio are read off 8,000 experiments by default. With 2,000 the 95 %
    bound lies about a per cent above the share, which at a true share near .05 leaves a bar of .06 to
    the seed; `--runs 2000` shows that reading.
    """

    runs: int
    learners: int
    seed: int


@dataclass(frozen=True)
class Looks:
    """Both arms after every event, arrays of shape (runs, learners)."""

    control: MeanEstimate
    treatment: MeanEstimate
    n_control: Array
    n_treatment: Array

    @property
    def ready(self) -> NDArray[np.bool_]:
        """Looks that the rule's minimum lets speak."""
        return np.minimum(self.n_control, self.n_treatment) >= RULE.minimum_per_arm


def _normal(rng: np.random.Generator, shape: tuple[int, int], lift: Array) -> tuple[Array, Array]:
    return 30.0 * (1.0 + lift) + rng.normal(0.0, 10.0, shape), np.ones(1)


def _returned(rng: np.random.Generator, shape: tuple[int, int], lift: Array) -> tuple[Array, Array]:
    return (rng.random(shape) < 0.3 * (1.0 + lift)).astype(np.float64), np.ones(1)


def _exponential(rng: np.random.Generator, shape: tuple[int, int], lift: Array) -> tuple[Array, Array]:
    return rng.exponential(30.0, shape) * (1.0 + lift), np.ones(1)


def _lognormal(rng: np.random.Generator, shape: tuple[int, int], lift: Array) -> tuple[Array, Array]:
    return rng.lognormal(3.0, 1.0, shape) * (1.0 + lift), np.ones(1)


def _mostly_zero(rng: np.random.Generator, shape: tuple[int, int], lift: Array) -> tuple[Array, Array]:
    active = rng.random(shape) < 0.3
    return np.where(active, rng.gamma(2.0, 20.0, shape) * (1.0 + lift), 0.0), np.ones(1)


def _clicks(rng: np.random.Generator, shape: tuple[int, int], lift: Array) -> tuple[Array, Array]:
    shown = 1.0 + rng.poisson(6.0, shape).astype(np.float64)
    taste = rng.beta(2.0, 6.0, shape)
    return rng.binomial(shown.astype(np.int64), np.minimum(taste * (1.0 + lift), 1.0)).astype(
        np.float64
    ), shown


OUTCOMES = (
    Outcome("normal", _normal),
    Outcome("bernoulli", _returned),
    Outcome("exponential", _exponential),
    Outcome("lognormal", _lognormal),
    Outcome("zero_inflated", _mostly_zero),
    Outcome("click_ratio", _clicks, ratio=True),
)


def play(outcome: Outcome, rng: np.random.Generator, *, runs: int, learners: int, lift: float) -> Looks:
    """Draw experiments, one learner an event, arms by a fair coin, and accumulate both arms."""
    treated = rng.random((runs, learners)) < 0.5
    value, denominator = outcome.draw(rng, (runs, learners), np.where(treated, lift, 0.0))
    n_t = np.cumsum(treated, axis=1, dtype=np.float64)
    n_c = np.arange(1.0, learners + 1.0) - n_t
    # Sums are taken about a typical value, so that squares keep their digits.
    off_value, off_d = float(value[:8].mean()), float(denominator[:8].mean())
    value = value - off_value
    total = [value, value * value]
    if outcome.ratio:
        d = denominator - off_d
        total += [d, d * d, value * d]
    everyone = [np.cumsum(column, axis=1) for column in total]
    in_treatment = [np.cumsum(column * treated, axis=1) for column in total]
    in_control = [a - t for a, t in zip(everyone, in_treatment, strict=True)]
    return Looks(
        control=_estimate(n_c, in_control, off_value, off_d),
        treatment=_estimate(n_t, in_treatment, off_value, off_d),
        n_control=n_c,
        n_treatment=n_t,
    )


def _estimate(n: Array, sums: list[Array], off_value: float, off_d: float) -> MeanEstimate:
    """An arm at every look from its sums about the offsets."""
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums[0] / n
        variance = np.maximum(sums[1] - sums[0] * mean, 0.0) / (n - 1.0)
        if len(sums) == 2:
            return mean_estimate(n=n, mean=mean + off_value, variance=variance)
        mean_d = sums[2] / n
        ratio = (mean + off_value) / (mean_d + off_d)
        spread = linearised_variance(
            ratio=ratio,
            mean_d=mean_d + off_d,
            var_m=variance,
            var_d=(sums[3] - sums[2] * mean_d) / (n - 1.0),
            cov_md=(sums[4] - sums[0] * mean_d) / (n - 1.0),
        )
        return mean_estimate(n=n, mean=ratio, variance=spread)


def batches(runs: int) -> Iterator[int]:
    """Sizes of batches that make up `runs`."""
    for start in range(0, runs, BATCH):
        yield min(BATCH, runs - start)


def last(arm: MeanEstimate) -> MeanEstimate:
    """The arm at the last look only."""
    return MeanEstimate(mean=arm.mean[:, -1], error_variance=arm.error_variance[:, -1], df=arm.df[:, -1])


def judge(looks: Looks, target: float) -> dict[str, Verdicts]:
    """What each rule says of each run, and after which share of N* the hybrid rule was done.

    `hybrid` ignores early stops for futility, so that its false positives are not flattered by them;
    `decided` is what the verdict does: it stops when an improvement of `target` is ruled out.
    """
    learners = looks.n_control.shape[1]
    with np.errstate(invalid="ignore", divide="ignore"):
        effect = looks.treatment.mean - looks.control.mean
        se = np.sqrt(looks.treatment.error_variance + looks.control.error_variance)
        naive = np.asarray((np.abs(effect) > 1.959964 * se) & looks.ready)
    n = looks.n_control + looks.n_treatment
    valid = np.asarray(always_valid_p(effect, se, n, alpha=ALPHA, planned=learners) <= ALPHA)
    early = always_valid_p(effect, se, n, alpha=RULE.sequential_alpha, planned=learners)
    early_stop = (early <= RULE.sequential_alpha) & looks.ready
    fixed_p = difference(last(looks.control), last(looks.treatment)).p
    stopped = early_stop.any(axis=1)
    short, short_se = margin_contrast(looks.control, looks.treatment, sign=1.0, margin=-target)
    hopeless = one_sided_p(short, short_se, n, alpha=RULE.sequential_alpha, planned=learners)
    futile = (hopeless <= RULE.sequential_alpha) & looks.ready
    never = learners + 1
    shown_at = np.where(stopped, early_stop.argmax(axis=1) + 1, never)
    futile_at = np.where(futile.any(axis=1), futile.argmax(axis=1) + 1, never)
    hybrid = stopped | (fixed_p <= RULE.final_alpha)
    return {
        "always_valid": (valid & looks.ready).any(axis=1),
        "always_valid_without_minimum": valid.any(axis=1),
        "hybrid": hybrid,
        "decided": hybrid & (futile_at >= np.minimum(shown_at, learners)),
        "naive_peeking": naive.any(axis=1),
        "fixed": fixed_p <= ALPHA,
        "stopping_time": np.minimum(np.minimum(shown_at, futile_at) / learners, 1.0),
    }


def simulate(outcome: Outcome, options: Options, *, lift: float, target: float) -> dict[str, Verdicts]:
    """All runs of one outcome and lift."""
    rng = np.random.default_rng([options.seed, OUTCOMES.index(outcome), round(1e6 * lift)])
    parts = [
        judge(play(outcome, rng, runs=size, learners=options.learners, lift=lift), target)
        for size in batches(options.runs)
    ]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def upper_bound(rejections: int, runs: int) -> float:
    """One-sided 95 % upper bound of a share (Clopper & Pearson 1934)."""
    return float(stats.beta.ppf(0.95, rejections + 1, runs - rejections)) if rejections < runs else 1.0


def typical(outcome: Outcome, options: Options) -> tuple[float, float]:
    """Mean and variance a learner of an outcome, from a large sample."""
    rng = np.random.default_rng([options.seed, 99, OUTCOMES.index(outcome)])
    looks = play(outcome, rng, runs=1, learners=400_000, lift=0.0)
    variance = float(looks.control.error_variance[0, -1] * looks.n_control[0, -1])
    return float(looks.control.mean[0, -1]), variance


def detectable_lift(outcome: Outcome, options: Options) -> float:
    """The lift that a fixed test of the planned sample finds with power 0.8."""
    mean, variance = typical(outcome, options)
    half = options.learners / 2.0
    effect = detectable_effect(
        n_control=half, n_treatment=half, variance_control=variance, variance_treatment=variance, alpha=ALPHA
    )
    return effect / mean


def planned_sample(outcome: Outcome, options: Options, lift: float) -> int:
    """Learners of both arms for a fixed test to find `lift` with power 0.8."""
    mean, variance = typical(outcome, options)
    an_arm = sample_size_per_arm(
        effect=lift * mean, variance_control=variance, variance_treatment=variance, alpha=ALPHA
    )
    return 2 * round(an_arm)


def report_null(outcome: Outcome, options: Options) -> bool:
    """A/A: shares that ever reject."""
    runs = options.runs
    found = simulate(outcome, options, lift=0.0, target=detectable_lift(outcome, options))
    held = True
    for rule, bar in (("always_valid", "<= 0.05"), ("hybrid", "<= 0.06")):
        rejections = int(found[rule].sum())
        upper = round(upper_bound(rejections, runs), 4)
        held &= emit(
            BENCH, f"aa_upper_{rule}_{outcome.name}", upper, bar=bar, share=rejections / runs, runs=runs
        )
    stopping = round(float(found["stopping_time"].mean()), 3)
    emit(BENCH, f"aa_mean_stopping_share_{outcome.name}", stopping, runs=runs)
    for rule in ("always_valid_without_minimum", "naive_peeking", "fixed"):
        emit(BENCH, f"aa_share_{rule}_{outcome.name}", float(found[rule].mean()), runs=runs)
    return held


def report_effect(outcome: Outcome, options: Options) -> bool:
    """A/B at multiples of the detectable effect: power and stopping time."""
    unit = detectable_lift(outcome, options)
    held = True
    for multiple in (1.0, 1.5, 2.0):
        setting = options if multiple == 1.0 else replace(options, runs=options.runs // 4)
        found = simulate(outcome, setting, lift=multiple * unit, target=unit)
        hybrid, fixed = float(found["decided"].mean()), float(found["fixed"].mean())
        facts = {"hybrid": hybrid, "fixed": fixed, "lift": round(multiple * unit, 4), "runs": setting.runs}
        bar = ">= 0.97" if multiple == 1.0 else ""
        name = f"ab_power_ratio_{multiple:g}x_{outcome.name}"
        held &= emit(BENCH, name, round(hybrid / fixed, 4), bar=bar, **facts)
        stopping = round(float(found["stopping_time"].mean()), 3)
        emit(BENCH, f"ab_mean_stopping_share_{multiple:g}x_{outcome.name}", stopping, runs=setting.runs)
    return held


def report_covariate(options: Options, *, correlation: float = 0.7) -> bool:
    """CUPED at a known correlation: learners needed for the same error, by the truth and by the estimate."""
    rng = np.random.default_rng([options.seed, 700])
    half = options.learners // 2
    plain, adjusted, claimed = [], [], []
    for size in batches(2 * options.runs):
        x = rng.normal(0.0, 1.0, (2, size, half))
        y = correlation * x + np.sqrt(1.0 - correlation**2) * rng.normal(0.0, 1.0, (2, size, half))
        centred_x = x - x.mean(axis=(0, 2), keepdims=True)
        centred_y = y - y.mean(axis=(0, 2), keepdims=True)
        theta = (centred_x * centred_y).sum(axis=(0, 2)) / (centred_x**2).sum(axis=(0, 2))
        plain.append(y[1].mean(axis=1) - y[0].mean(axis=1))
        adjusted.append(plain[-1] - theta * (x[1].mean(axis=1) - x[0].mean(axis=1)))
        var_x, var_y = x.var(axis=2, ddof=1), y.var(axis=2, ddof=1)
        both = (x - x.mean(axis=2, keepdims=True)) * (y - y.mean(axis=2, keepdims=True))
        after = adjusted_variance(var_y=var_y, var_x=var_x, cov_yx=both.sum(axis=2) / (half - 1), theta=theta)
        claimed.append(1.0 - after.sum(axis=0) / var_y.sum(axis=0))
    true = 1.0 - float(np.concatenate(adjusted).var() / np.concatenate(plain).var())
    facts = {"correlation": correlation, "runs": 2 * options.runs}
    held = emit(BENCH, "cuped_fewer_learners_observed", round(true, 4), bar=">= 0.45", **facts)
    estimated = round(float(np.concatenate(claimed).mean()), 4)
    return emit(BENCH, "cuped_fewer_learners_estimated", estimated, bar=">= 0.45", **facts) and held


def report_guardrail(outcome: Outcome, options: Options, *, margin: float, detectable: float) -> bool:
    """A guardrail harmed by a fifth, unharmed, and exactly at its margin, in a sample planned for `detectable`."""
    learners = planned_sample(outcome, options, detectable)
    focus = learners * GUARDRAIL_FOCUS
    facts = {
        "planned_sample": learners,
        "margin": margin,
        "detectable_lift": detectable,
        "runs": options.runs,
    }
    held = True
    for truth, lift, end in (
        ("harm", -0.2, round(focus)),
        ("no_effect", 0.0, learners),
        ("at_margin", -margin, learners),
    ):
        rng = np.random.default_rng([options.seed, 800 + OUTCOMES.index(outcome), round(1e6 * (lift + 1.0))])
        back = []
        for size in batches(options.runs):
            looks = play(outcome, rng, runs=size, learners=end, lift=lift)
            value, se = margin_contrast(looks.control, looks.treatment, sign=1.0, margin=margin)
            n = looks.n_control + looks.n_treatment
            p = one_sided_p(value, se, n, alpha=GUARDRAIL_ALPHA, planned=focus)
            back.append(((p <= GUARDRAIL_ALPHA) & looks.ready).any(axis=1))
        share = float(np.concatenate(back).mean())
        bar = ">= 0.95" if truth == "harm" else "<= 0.01"
        held &= emit(BENCH, f"guardrail_rollback_{truth}_{outcome.name}", share, bar=bar, **facts)
    return held


def main() -> int:
    """Run every simulation; 0 when all bars hold."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a smaller version for every commit")
    parser.add_argument("--runs", type=int, default=8000, help="of A/A and of A/B at the planned effect")
    parser.add_argument("--learners", type=int, default=4000, help="planned sample, both arms")
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args()
    # Fewer runs would make the upper bounds too wide for their bars; smaller experiments keep it quick.
    options = Options(
        runs=2000 if chosen.quick else chosen.runs,
        learners=1000 if chosen.quick else chosen.learners,
        seed=chosen.seed,
    )
    outcomes = OUTCOMES[1:3] if chosen.quick else OUTCOMES
    fewer = replace(options, runs=options.runs // 4)
    held = [report_null(outcome, options) for outcome in outcomes]
    held += [report_effect(outcome, options) for outcome in outcomes]
    held.append(report_covariate(fewer))
    held += [
        report_guardrail(outcome, fewer, margin=0.02, detectable=0.05)
        for outcome in OUTCOMES[: 1 if chosen.quick else 2]
    ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    raise SystemExit(main())

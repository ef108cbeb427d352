"""Is the value of a policy, told from another policy's log, what it truly is? Intervals against a known truth.

python -m bench.off_policy [--quick] [--seed 5] [--report DIR]. Contexts are simulated learners before the engine's own
candidates, so chances are those that serving logs. What is earned by showing a question is a chance made up here, which
neither estimator knows. The truth is exact: the mean over the contexts of Σ π(a|x)·chance. A run draws contexts anew,
logs under one policy, and estimates another.
"""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from bench.engine_world import NOW, learner, serving
from bench.output import emit
from engine.hindsight import Options, options
from engine.off_policy import Estimate, cross_fitted, doubly_robust, self_normalised
from engine.policy import BUILT_IN, Policy, load_policies
from engine.recommend import RecommendQuery
from engine.scoring import ZONE
from engine.types import F8, I8

T = TypeVar("T", bound=np.generic)

BENCH = "off_policy"
LEVEL = 0.95
COVERED = 0.93
WARNED = 0.95

SETTINGS: dict[str, dict[str, object]] = {
    "warm": {"based_on": "hybrid_v1", "temperature": 0.1},
    "even": {"based_on": "hybrid_v1", "temperature": 100.0},
    "zone": {
        "based_on": "hybrid_v1",
        "temperature": 0.05,
        "weights": {"zone": 0.6, "gain": 0.0, "retention": 0.0},
    },
    "gain": {"based_on": "hybrid_v1", "temperature": 0.05, "weights": {"gain": 0.8, "zone": 0.0}},
}
"""Policies with the candidates of `hybrid_v1`: warmer, at random, and with other weights."""

PAIRS = (
    ("even", "hybrid_v1"),
    ("even", "zone"),
    ("warm", "hybrid_v1"),
    ("warm", "zone"),
    ("warm", "gain"),
    ("warm", "even"),
)
"""(logged, judged); the log could show whatever the judged policy would."""

APART = ("random_v1", "hybrid_v1")
"""Here it could not: the estimate must say so."""


class World(NamedTuple):
    """Every context with the candidates of one policy; padded with candidates of chance 0."""

    rows: I8
    """(contexts, most) question rows, −1 where there is none."""
    features: F8
    """(contexts, most, k) what a model of the reward may use."""
    earned: F8
    """(contexts, most) chance that showing it earns 1."""
    chances: dict[str, F8]
    """(contexts, most) by the name of a policy with the same candidates."""
    mean_features: dict[str, F8]
    """(contexts, k) means over what each policy would show."""


def reward(found: Options, context: int, rng: np.random.Generator, fancy: F8) -> F8:
    """Return (n,) the chance that each candidate earns 1, if shown: what is near the learner's level, in part, but also
    a mood of the learner and a liking for single questions, of which no policy knows.
    """
    mood = rng.normal(0.0, 0.5)
    zone = found.values[:, ZONE].astype(np.float64)
    level = -1.5 + 2.0 * zone**3 + mood + fancy[found.rows]
    return np.asarray(1.0 / (1.0 + np.exp(-level)))


def world(policies: list[Policy], contexts: int, seed: int, *, small: bool) -> World:
    """Return contexts with the candidates that these policies share."""
    served = serving(20 if small else 60, 400 if small else 3000, seed)
    rng = np.random.default_rng(seed)
    fancy = rng.normal(0.0, 0.7, served.catalog.question_count)
    rows: list[I8] = []
    features: list[F8] = []
    earned: list[F8] = []
    by_policy: dict[str, list[F8]] = {policy.name: [] for policy in policies}
    for context in range(contexts):
        state = learner(served, seed + context, answers=20 + context % 60)
        query = RecommendQuery(seed=seed + context, limit=5)
        found = options(query, state, served, policies[0], now=NOW)
        rows.append(found.rows.astype(np.int64))
        features.append(found.values.astype(np.float64))
        earned.append(reward(found, context, rng, fancy))
        for policy in policies:
            own = found.values.astype(np.float64) @ policy.signed
            by_policy[policy.name].append(dataclasses.replace(found, scores=own).first(policy))
    most = max(map(len, rows))
    held = _padded(features, most, 0.0)
    chances = {name: _padded(parts, most, 0.0) for name, parts in by_policy.items()}
    means = {name: np.einsum("ca,cak->ck", chance, held) for name, chance in chances.items()}
    return World(_padded(rows, most, -1), held, _padded(earned, most, 0.0), chances, means)


def _padded(parts: "Sequence[npt.NDArray[T]]", most: int, filling: float) -> "npt.NDArray[T]":
    whole = np.full((len(parts), most, *parts[0].shape[1:]), filling, parts[0].dtype)
    for place, part in enumerate(parts):
        whole[place, : len(part)] = part
    return whole


class Run(NamedTuple):
    """One log and what was estimated from it."""

    normalised: Estimate
    robust: Estimate


def run(logged: World, log: str, judged: World, policy: str, size: int, rng: np.random.Generator) -> Run:
    """Log `size` rewards under one policy and estimate the value of another."""
    context = rng.integers(0, len(logged.rows), size)
    p = logged.chances[log][context]
    picked = np.minimum((p.cumsum(axis=1) < rng.random((size, 1))).sum(axis=1), p.shape[1] - 1)
    place = np.arange(size)
    earned = (rng.random(size) < logged.earned[context, picked]).astype(np.float64)
    row = logged.rows[context, picked]
    same = judged.rows[context] == row[:, np.newaxis]
    weights = (judged.chances[policy][context] * same).sum(axis=1) / p[place, picked]
    features = logged.features[context, picked]
    mean_features = judged.mean_features[policy][context]
    # The model is linear: its mean over what the policy would do is its value at the mean features.
    predicted = cross_fitted(features, earned, place, np.vstack((features, mean_features)), np.tile(place, 2))
    return Run(
        self_normalised(weights, earned, level=LEVEL),
        doubly_robust(weights, earned, predicted[:size], predicted[size:], level=LEVEL),
    )


def truth(judged: World, policy: str) -> float:
    """Return the true value of a policy."""
    return float((judged.chances[policy] * judged.earned).sum(axis=1).mean())


def report_pair(
    found: World,
    log: str,
    policy: str,
    size: int,
    runs: int,
    seed: int,
    rows: list[list[str]],
    *,
    judged: bool,
) -> bool:
    """Report bias, width and coverage of both estimators; whether the bars hold."""
    value = truth(found, policy)
    rng = np.random.default_rng(seed)
    done = [run(found, log, found, policy, size, rng) for _ in range(runs)]
    held = True
    for name in Run._fields:
        estimates: list[Estimate] = [getattr(one, name) for one in done]
        inside = float(np.mean([e.low <= value <= e.high for e in estimates]))
        bias = float(np.mean([e.value for e in estimates]) - value)
        half = float(np.mean([(e.high - e.low) / 2.0 for e in estimates]))
        effective = float(np.median([e.effective_size for e in estimates]))
        warned = float(np.mean([e.few or e.uncovered for e in estimates]))
        facts = {"truth": round(value, 4), "bias": round(bias, 5), "half_width": round(half, 4)}
        bar = f">= {COVERED}" if judged else ""
        metric = f"{log}_judges_{policy}.{name}.coverage"
        held &= emit(
            BENCH, metric, round(inside, 4), bar=bar, **facts,
            log_size=size, effective_size=round(effective), warned=round(warned, 3), runs=runs,
        )  # fmt: skip
        rows.append(
            [
                log,
                policy,
                name,
                f"{value:.3f}",
                f"{bias:+.4f}",
                f"{half:.3f}",
                f"{inside:.3f}",
                f"{effective:.0f}",
            ]
        )
    return held


def report_apart(seed: int, contexts: int, size: int, runs: int, *, small: bool) -> bool:
    """Report how often an estimate says that the log could not have shown what the policy would."""
    log, policy = (BUILT_IN[name] for name in APART)
    logged, judged = (world([one], contexts, seed, small=small) for one in (log, policy))
    rng = np.random.default_rng(seed)
    done = [run(logged, log.name, judged, policy.name, size, rng) for _ in range(runs)]
    told = float(np.mean([one.normalised.uncovered or one.normalised.few for one in done]))
    mean = float(np.mean([one.normalised.mean_weight for one in done]))
    metric = f"{log.name}_judges_{policy.name}.warned"
    bar = "" if small else f">= {WARNED}"
    return emit(BENCH, metric, told, bar=bar, mean_weight=round(mean, 3), runs=runs)


def main() -> None:
    """Run it and report; the exit code is 1 when a bar does not hold."""
    options_ = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options_.add_argument(
        "--quick", action="store_true", help="few contexts and runs; coverage is not judged"
    )
    options_.add_argument("--seed", type=int, default=5)
    options_.add_argument("--report", type=Path, help="folder for a table")
    asked = options_.parse_args()
    contexts, size, runs = (30, 500, 20) if asked.quick else (400, 2000, 2000)
    policies = load_policies(SETTINGS)
    shared = [policies[name] for name in ("hybrid_v1", *SETTINGS)]
    found = world(shared, contexts, asked.seed, small=asked.quick)
    held, rows = True, list[list[str]]()
    for place, (log, policy) in enumerate(PAIRS):
        held &= report_pair(found, log, policy, size, runs, asked.seed + place, rows, judged=not asked.quick)
    held &= report_apart(asked.seed, contexts, size, runs // 5, small=asked.quick)
    if asked.report is not None:
        asked.report.mkdir(parents=True, exist_ok=True)
        head = "| log | judged | estimator | truth | bias | half-width | coverage | effective size |"
        lines = [head, "|---|---|---|---|---|---|---|---|", *("| " + " | ".join(row) + " |" for row in rows)]
        (asked.report / "off_policy.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    raise SystemExit(0 if held else 1)


if __name__ == "__main__":
    main()

"""Fitting FSRS-6 weights to a tenant's reviews. Knows reviews by card only: a card is one learner's one concept."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
from scipy.optimize import minimize

from engine.jit import kernel
from engine.learner.memory import DEFAULT_WEIGHTS, SECONDS_A_DAY, retrievability, review
from engine.learner.metrics import log_loss
from engine.learner.rows import TrainingLog, ranges
from engine.types import F8, I8, U1

LOWER: Final = np.array(
    [0.001] * 4
    + [1.0, 0.001, 0.001, 0.001, 0.0, 0.0, 0.001, 0.001, 0.001, 0.001, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.1]
)
UPPER: Final = np.array(
    [100.0] * 4 + [10.0, 4.0, 4.0, 0.75, 4.5, 0.8, 3.5, 5.0, 0.25, 0.9, 4.0, 1.0, 6.0, 2.0, 2.0, 0.8, 0.8]
)
"""Published bounds of the weights."""

FEWEST_REVIEWS = 400
"""With fewer counted reviews the published defaults stay."""
MOST_REVIEWS = 200_000
HOLD = 2.0
"""Pull of the defaults: a weight that moves by half of itself costs what this many reviews gain at 1/8 nat each."""
HELD_OUT = 0.2


class Reviews(NamedTuple):
    """Reviews card by card, each card's in order of time."""

    offsets: I8
    """(cards+1,)"""
    grade: U1
    """(n,) 1 to 4; 1 is a failure to recall."""
    at: F8
    """(n,) epoch seconds."""

    @classmethod
    def of_log(cls, log: TrainingLog) -> Reviews:
        """Return the own practice of every learner and concept as a card's reviews."""
        a = log.answers
        own = a.weight >= 1.0
        answer = np.repeat(np.arange(a.size), np.diff(a.offsets))[own]
        key = log.learner_of()[answer] << 32 | a.concept[own]
        order = np.lexsort((np.arange(len(key)), key))
        edges = (
            np.flatnonzero(np.concatenate(([True], np.diff(key[order]) != 0)))
            if len(key)
            else np.zeros(0, np.int64)
        )
        at = answer[order]
        return cls(np.concatenate((edges, [len(key)])).astype(np.int64), a.grade[at], a.answered_at[at])

    def counted(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Return which reviews (n,) say something of forgetting: a day or more after the one before."""
        days = np.zeros(len(self.grade))
        days[1:] = np.floor(np.diff(self.at) / SECONDS_A_DAY)
        days[self.offsets[:-1][np.diff(self.offsets) > 0]] = 0
        return days >= 1

    def sample(self, most: int, rng: np.random.Generator) -> Reviews:
        """Return all reviews of as many random cards as fit in `most` reviews."""
        sizes = np.diff(self.offsets)
        cards = rng.permutation(len(sizes))
        kept = np.sort(cards[np.cumsum(sizes[cards]) <= most])
        rows = ranges(self.offsets[kept], sizes[kept])
        offsets = np.concatenate(([0], np.cumsum(sizes[kept]))).astype(np.int64)
        return Reviews(offsets, self.grade[rows], self.at[rows])


@kernel
def recalls(reviews: Reviews, w: F8, out: F8) -> None:
    """Fill out (n,) with retrievability just before each review by whole days, NaN at a card's first."""
    for card in range(reviews.offsets.shape[0] - 1):
        s = 0.0
        d = 0.0
        for i in range(reviews.offsets[card], reviews.offsets[card + 1]):
            days = 0.0
            out[i] = math.nan
            if s > 0.0:
                days = math.floor((reviews.at[i] - reviews.at[i - 1]) / SECONDS_A_DAY)
                out[i] = retrievability(days, s, w[20])
            s, d = review(s, d, days, int(reviews.grade[i]), w)


def recall_of(reviews: Reviews, weights: F8) -> F8:
    """Return retrievability (n,) just before each review, NaN at a card's first."""
    out = np.empty(len(reviews.grade))
    recalls(reviews, np.ascontiguousarray(weights, np.float64), out)
    return out


def fit_memory(reviews: Reviews, *, seed: int, until: float = math.inf) -> tuple[F8, dict[str, float]]:
    """Return FSRS-6 weights (21,) fitted to reviews before `until` (epoch seconds), with metrics.

    The last fifth of those reviews in time decides whether the fitted weights are any better than the published
    defaults; if so they are fitted again to all, if not, or with too little data, the defaults come back (metric
    "fitted" is 1 or 0). Weights stay within the published bounds and are pulled to the defaults.
    """
    part = reviews
    if len(reviews.grade) > MOST_REVIEWS:
        part = reviews.sample(MOST_REVIEWS, np.random.default_rng(seed))
    counted = part.counted() & (part.at < until)
    metrics = {"reviews": float(counted.sum()), "fitted": 0.0}
    if counted.sum() < FEWEST_REVIEWS:
        return DEFAULT_WEIGHTS, metrics
    target = (part.grade > 1).astype(np.float64)
    cut = np.quantile(part.at[counted], 1.0 - HELD_OUT)
    late = counted & (part.at >= cut)
    trial = _fit(part, counted & ~late, target)
    metrics["log_loss"] = log_loss(target[late], recall_of(part, trial)[late])
    metrics["default_log_loss"] = log_loss(target[late], recall_of(part, DEFAULT_WEIGHTS)[late])
    if metrics["log_loss"] >= metrics["default_log_loss"]:
        return DEFAULT_WEIGHTS, metrics
    metrics["fitted"] = 1.0
    return _fit(part, counted, target), metrics


def _fit(reviews: Reviews, use: np.ndarray[tuple[int], np.dtype[np.bool_]], target: F8) -> F8:
    """Minimise log loss on the reviews `use`, weights measured in their own size from the defaults."""
    size = np.maximum(np.abs(DEFAULT_WEIGHTS), 0.05)

    def loss(u: F8) -> float:
        p = recall_of(reviews, np.clip(DEFAULT_WEIGHTS + size * u, LOWER, UPPER))
        return log_loss(target[use], p[use]) * float(use.sum()) + HOLD * float(u @ u) / 2.0

    bounds = list(zip((LOWER - DEFAULT_WEIGHTS) / size, (UPPER - DEFAULT_WEIGHTS) / size, strict=True))
    found = minimize(loss, np.zeros(21), method="L-BFGS-B", bounds=bounds, options={"maxiter": 60})
    return np.asarray(np.clip(DEFAULT_WEIGHTS + size * np.asarray(found.x), LOWER, UPPER), np.float64)

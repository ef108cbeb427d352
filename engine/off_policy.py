"""What another policy would have earned, from rewards logged with propensities. Knows neither policies nor slates.

A log holds contexts x, actions a drawn with known chances p(a|x), and rewards r. The value of a policy with chances
π(a|x) is E[Σ_a π(a|x)·E[r|x, a]]. Both estimators weight a logged reward by w = π(a|x)/p(a|x), and are sound only where
the log could have shown what the policy would: see `Estimate.mean_weight`.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from engine.types import F8, I8

LEAST_EFFECTIVE = 100.0
"""Below this effective size, an interval says more than is known: a few weights decide it. A customary caution."""

MEAN_WEIGHT_SLACK = 4.0
"""Standard errors by which the mean weight may miss 1."""

RIDGE = 1.0


class Estimate(NamedTuple):
    """A value with its interval, and how far it may be trusted."""

    value: float
    low: float
    high: float
    standard_error: float
    effective_size: float
    """(Σw)²/Σw², of groups where there are any: about as many rewards seen under the policy itself say as much (Kish
    1965)."""
    mean_weight: float
    """Near 1 where the log covers the policy; less by what the policy would do and the log never could."""
    weight_error: float
    """Standard error of `mean_weight`."""
    rewards: int
    """How many the estimate rests on."""

    @property
    def few(self) -> bool:
        """Whether the effective size is too small to rely on the interval."""
        return not self.effective_size >= LEAST_EFFECTIVE

    @property
    def uncovered(self) -> bool:
        """Whether the log lacks what the policy would do: then the value is that of another, cut-down policy."""
        return not abs(self.mean_weight - 1.0) <= MEAN_WEIGHT_SLACK * self.weight_error + 0.02


def self_normalised(weights: F8, rewards: F8, groups: I8 | None = None, *, level: float = 0.95) -> Estimate:
    """Return Σwr/Σw (Swaminathan and Joachims 2015, "The self-normalized estimator for counterfactual learning").

    `weights` and `rewards` are (n,). Rewards of one of the `groups` (n,), such as a learner, may depend on each other.
    The interval is that of a ratio, from residuals w(r − value) as if each group had been left out (the HC3 of
    MacKinnon and White 1985), with Student's t at the effective size less 1.

    Raises:
        ValueError: arrays of different lengths, a weight that is negative or not finite, or nothing to weigh.
    """
    _check(weights, rewards)
    total = weights.sum()
    if total <= 0.0:
        return _nothing(weights, groups)
    value = float(weights @ rewards / total)
    residual = _by_group(weights * (rewards - value), groups)
    share = _by_group(weights, groups) / total
    kept = np.maximum(1.0 - share, 1e-9)
    error = float(np.sqrt(np.sum((residual / total / kept) ** 2)))
    return _estimate(value, error, weights, groups, level)


def doubly_robust(
    weights: F8,
    rewards: F8,
    predicted: F8,
    expected: F8,
    groups: I8 | None = None,
    *,
    level: float = 0.95,
) -> Estimate:
    """Return the mean of expected + w(r − predicted) (Dudík, Langford and Li 2011, "Doubly robust policy evaluation").

    `predicted` (n,) is a model's reward of the logged action, `expected` (n,) its mean over what the policy would do:
    Σ_a π(a|x)·model(x, a). The model must not have seen the reward it predicts (`cross_fitted`). Right when either the
    chances or the model are; the closer the model, the narrower. Interval and errors as in `self_normalised`.
    """
    _check(weights, rewards)
    if predicted.shape != rewards.shape or expected.shape != rewards.shape:
        raise ValueError("predicted and expected rewards must be as many as rewards")
    if weights.sum() <= 0.0:
        return _nothing(weights, groups)
    terms = expected + weights * (rewards - predicted)
    value = float(terms.mean())
    residual = _by_group(terms - value, groups)
    error = float(np.sqrt(np.sum(residual**2)) / terms.shape[0])
    error *= np.sqrt(residual.shape[0] / max(residual.shape[0] - 1, 1))
    return _estimate(value, error, weights, groups, level)


def cross_fitted(features: F8, rewards: F8, groups: I8, asked: F8, asked_groups: I8, *, parts: int = 5) -> F8:
    """Return (m,) rewards predicted for `asked` (m, k) by ridge regression that saw nothing of the same part of groups.

    `features` (n, k) and `rewards` (n,) are of logged actions, `groups` (n,) theirs; `asked_groups` (m,) say whose the
    questions are. Groups fall into parts by their number. A constant is added and not shrunk; a part without any
    other to learn from gets the mean reward.
    """
    found = np.full(asked.shape[0], rewards.mean() if rewards.size else 0.0)
    rest = np.column_stack((np.ones(features.shape[0]), features))
    wanted = np.column_stack((np.ones(asked.shape[0]), asked))
    penalty = RIDGE * np.eye(rest.shape[1])
    penalty[0, 0] = 1e-9
    for part in range(parts):
        seen = groups % parts != part
        own = asked_groups % parts == part
        if seen.any() and own.any():
            known = rest[seen]
            fit = np.linalg.solve(known.T @ known + penalty, known.T @ rewards[seen])
            found[own] = wanted[own] @ fit
    return found


def chances(scores: F8, sameness: F8, penalty: float, temperature: float) -> F8:
    """Return (n,) with which chance each candidate is drawn next: what `engine.draw.draw` draws with.

    `scores` (n,) before, and `sameness` (n,) the values of `diversity`, whose signed weight is `penalty`; NaN scores
    are taken already. Temperature 0 takes the best, the first of equals.
    """
    final = scores + penalty * sameness
    left = np.isfinite(final)
    found = np.zeros(final.shape[0])
    if not left.any():
        return found
    best = final[left].max()
    if temperature <= 0.0:
        found[np.flatnonzero(left & (final == best))[0]] = 1.0
        return found
    mass = np.exp((final[left] - best) / temperature)
    found[left] = mass / mass.sum()
    return found


def _check(weights: F8, rewards: F8) -> None:
    if weights.shape != rewards.shape or weights.ndim != 1:
        raise ValueError(f"weights {weights.shape} and rewards {rewards.shape} must be one to one")
    if weights.size < 2:
        raise ValueError("an estimate needs two rewards at least")
    if not (np.isfinite(weights).all() and (weights >= 0.0).all() and np.isfinite(rewards).all()):
        raise ValueError("weights and rewards must be finite, weights not negative")


def _by_group(values: F8, groups: I8 | None) -> F8:
    """Return the sums by group, the values themselves without groups."""
    if groups is None:
        return values
    place: npt.NDArray[np.intp] = np.unique(groups, return_inverse=True)[1]
    return np.asarray(np.bincount(place, values), np.float64)


def _estimate(value: float, error: float, weights: F8, groups: I8 | None, level: float) -> Estimate:
    grouped = _by_group(weights, groups)
    size = float(grouped.sum() ** 2 / np.sum(grouped**2))
    wide = error * float(-stdtrit(max(size - 1.0, 1.0), 0.5 * (1.0 - level)))
    low, high = float(value - wide), float(value + wide)
    return Estimate(value, low, high, float(error), size, *_mean_weight(weights, groups))


def _mean_weight(weights: F8, groups: I8 | None) -> tuple[float, float, int]:
    mean = float(weights.mean())
    residual = _by_group(weights - mean, groups)
    return mean, float(np.sqrt(np.sum(residual**2)) / weights.size), int(weights.size)


def _nothing(weights: F8, groups: I8 | None) -> Estimate:
    """Return what is known when the policy would never have done what was logged: nothing."""
    return Estimate(np.nan, np.nan, np.nan, np.nan, 0.0, *_mean_weight(weights, groups))

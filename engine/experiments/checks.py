"""Is the data sound, and how many questions were asked of it? Sample ratios, multiplicity, skewness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Array = NDArray[np.float64]

SEQUENTIAL_SRM_CONCENTRATION = 1e4
"""Prior weight of the Dirichlet in the sequential sample-ratio test, in learners."""

SKEW_FACTOR = 355.0
"""Learners an arm needs a unit of squared skewness for a normal mean (Kohavi et al. 2014)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRatio:
    """Sample-ratio mismatch: χ² at this look, and a p-value that holds at every look at once."""

    chi2: float
    df: int
    p: float
    sequential_p: float


def require_share(name: str, value: float) -> None:
    """Raise ValueError unless 0 < value < 1."""
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must be between 0 and 1, both excluded, got {value}")


def sample_ratio(counts: Sequence[Sequence[int]], weights: Sequence[Sequence[float]]) -> SampleRatio:
    """Compare counts of exposed learners with the planned split, phase by phase.

    `counts` and `weights` have shape (phases, arms). An arm of weight 0 takes no part in its phase.
    χ² and its degrees of freedom (active arms − 1) add over phases. The sequential p-value is the
    inverse Bayes factor of a Dirichlet(10⁴·share) alternative (Lindon & Malek 2020), whose product over
    phases is again valid at every look. Raises ValueError on shapes, negative counts or weights.
    """
    if len(counts) != len(weights):
        raise ValueError(f"counts has {len(counts)} phases but weights has {len(weights)}")
    chi2, df, log_bayes = 0.0, 0, 0.0
    for seen_row, weight_row in zip(counts, weights, strict=True):
        seen, weight = np.asarray(seen_row, dtype=np.float64), np.asarray(weight_row, dtype=np.float64)
        if seen.shape != weight.shape or seen.ndim != 1:
            raise ValueError(f"counts of a phase have shape {seen.shape} but weights {weight.shape}")
        if (seen < 0).any() or not (weight >= 0).all() or not weight.sum() > 0:
            raise ValueError(
                f"counts must be at least 0 and weights at least 0 with a positive sum, "
                f"got {list(seen_row)} and {list(weight_row)}"
            )
        active = weight > 0
        seen, share = seen[active], weight[active] / weight[active].sum()
        total = float(seen.sum())
        if total == 0.0 or share.size < 2:
            continue
        expected = total * share
        chi2 += float(((seen - expected) ** 2 / expected).sum())
        df += int(share.size) - 1
        log_bayes += _log_bayes_factor(seen, share)
    return SampleRatio(
        chi2=chi2,
        df=df,
        p=float(special.chdtrc(df, chi2)) if df else 1.0,
        sequential_p=float(np.exp(min(0.0, -log_bayes))),
    )


def _log_bayes_factor(seen: Array, share: Array) -> float:
    """Dirichlet-multinomial marginal against the planned multinomial, natural logarithm."""
    prior = SEQUENTIAL_SRM_CONCENTRATION * share
    total, k = float(seen.sum()), SEQUENTIAL_SRM_CONCENTRATION
    marginal = special.gammaln(k) - special.gammaln(k + total)
    marginal += float((special.gammaln(prior + seen) - special.gammaln(prior)).sum())
    return float(marginal - float((seen * np.log(share)).sum()))


def unequal_exposure_p(exposed: ArrayLike, assigned: ArrayLike) -> float:
    """χ² p-value for one share of the assigned being exposed in every arm; 1 when it cannot differ.

    Both of shape (arms,). Raises ValueError when more learners are exposed than assigned.
    """
    seen, given = np.asarray(exposed, dtype=np.float64), np.asarray(assigned, dtype=np.float64)
    if (seen > given).any():
        raise ValueError(f"exposed must be at most assigned, got {seen.tolist()} of {given.tolist()}")
    seen, given = seen[given > 0], given[given > 0]
    if given.size < 2 or seen.sum() in (0.0, given.sum()):
        return 1.0
    share = seen.sum() / given.sum()
    chi2 = float(((seen - given * share) ** 2 / (given * share * (1.0 - share))).sum())
    return float(special.chdtrc(given.size - 1, chi2))


def holm(p: ArrayLike) -> Array:
    """Holm (1979) adjusted p-values of shape (tests,): any true null rejected with at most alpha."""
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    scaled = raw[order] * np.arange(raw.size, 0, -1)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted


def benjamini_hochberg(p: ArrayLike) -> Array:
    """Benjamini & Hochberg (1995) adjusted p-values of shape (tests,): false discovery rate."""
    raw = np.asarray(p, dtype=np.float64)
    order = np.argsort(raw, kind="stable")
    scaled = raw[order] * raw.size / np.arange(1, raw.size + 1)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted


def learners_for_skew(skewness: ArrayLike) -> Array:
    """Learners an arm below which a fixed test of so skewed a metric should not be trusted."""
    return np.asarray(SKEW_FACTOR * np.asarray(skewness, dtype=np.float64) ** 2)

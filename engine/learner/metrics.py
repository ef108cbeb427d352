"""How good predictions of right and wrong are. Knows nothing of how they were made."""

import numpy as np

from engine.types import F8

HELD = 1e-6
"""Probabilities are held to HELD..1-HELD in the log loss."""


def auc(target: F8, p: F8) -> float:
    """Area under the ROC curve, by ranks with ties shared (Mann-Whitney U); NaN when only one outcome occurs."""
    positive = int(np.sum(target))
    negative = len(target) - positive
    if positive == 0 or negative == 0:
        return float("nan")
    _, place, counts = np.unique(p, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    rank = (ends - (counts - 1) / 2.0)[place]
    return float(
        (rank[np.asarray(target) > 0].sum() - positive * (positive + 1) / 2.0) / (positive * negative)
    )


def log_loss(target: F8, p: F8) -> float:
    """Mean negative log likelihood, in nats."""
    held = np.clip(p, HELD, 1.0 - HELD)
    return float(-np.mean(np.where(np.asarray(target) > 0, np.log(held), np.log1p(-held))))


def rmse(target: F8, p: F8) -> float:
    """Root mean squared difference between outcome and probability."""
    return float(np.sqrt(np.mean(np.square(np.asarray(target, np.float64) - p))))


def calibration(target: F8, p: F8, bins: int = 15) -> tuple[F8, F8, F8]:
    """Return (mean prediction, share right, count), each (bins,), over equal-width bins; NaN means where empty."""
    place = np.minimum((np.asarray(p) * bins).astype(int), bins - 1)
    count = np.bincount(place, minlength=bins).astype(np.float64)
    with np.errstate(invalid="ignore"):
        said = np.bincount(place, weights=p, minlength=bins) / count
        seen = np.bincount(place, weights=target, minlength=bins) / count
    return said, seen, count


def calibration_error(target: F8, p: F8, bins: int = 15) -> float:
    """Expected calibration error: mean |prediction - share right| over equal-width bins, by count (Naeini 2015)."""
    said, seen, count = calibration(target, p, bins)
    used = count > 0
    return float(np.sum(np.abs(said - seen)[used] * count[used]) / np.sum(count))

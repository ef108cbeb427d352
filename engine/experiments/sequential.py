"""Tests that may be looked at after every event. Knows nothing of metrics or verdicts.

Asymptotic confidence sequences for a mean, from Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2021,
"Time-uniform central limit theory and asymptotic confidence sequences"): eq. 9 two-sided, and their
one-sided boundary. They are asymptotic: with a handful of skewed values the variance itself is not known
yet, which is why `HybridRule` asks for a minimum of learners an arm before it concludes anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.experiments.checks import require_share

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class HybridRule:
    """Spend alpha twice: a little at every look, the rest once at the planned end.

    `sequential_alpha` pays for looking after every event, `final_alpha` for one fixed test when the
    planned sample is in. Nothing is concluded from a sequence before `minimum_per_arm` learners are in
    each arm. The two alphas do not add up: stopping at the planned end uses only part of the first, and
    most paths that cross early would also fail the last test. Simulated false positives of the defaults
    are .042 to .051 over six kinds of outcome (`bench/ab_simulation.py`, `docs/experiments.md`).
    """

    sequential_alpha: float = 0.01
    final_alpha: float = 0.045
    minimum_per_arm: int = 100

    def __post_init__(self) -> None:
        """Refuse shares outside (0, 1) and a minimum below two."""
        require_share("sequential_alpha", self.sequential_alpha)
        require_share("final_alpha", self.final_alpha)
        if self.minimum_per_arm < 2:
            raise ValueError(f"minimum_per_arm must be at least 2, got {self.minimum_per_arm}")


def mixture_precision(*, alpha: float, planned: float) -> float:
    """ρ² = (−2 ln α + ln(1 − 2 ln α))/N*, which makes the sequence tightest near N* = `planned` learners.

    Raises ValueError when alpha is not in (0, 1) or planned is not positive.
    """
    require_share("alpha", alpha)
    if not planned > 0:
        raise ValueError(f"planned must be positive, got {planned}")
    return (-2.0 * math.log(alpha) + math.log(1.0 - 2.0 * math.log(alpha))) / planned


def half_width(se: ArrayLike, n: ArrayLike, *, alpha: float, planned: float) -> Array:
    """Half-width se·√(2k/(nρ²)·ln(√k/α)), k = nρ² + 1, of the two-sided sequence.

    `se` is the standard error of the estimate now, `n` the learners in both arms. Infinite while the
    error is unknown or zero. Raises as `mixture_precision`.
    """
    s, nr, k = _terms(se, n, alpha, planned)
    with np.errstate(divide="ignore", invalid="ignore"):
        width = s * np.sqrt(2.0 * k / nr * (0.5 * np.log(k) - math.log(alpha)))
    return np.where(s > 0, width, np.inf)


def always_valid_p(effect: ArrayLike, se: ArrayLike, n: ArrayLike, *, alpha: float, planned: float) -> Array:
    """Two-sided p = min(1, √k·exp(−nρ²z²/2k)), z = effect/se; at most alpha where the sequence excludes 0.

    1 while the error is unknown or zero. Raises as `mixture_precision`.
    """
    s, nr, k = _terms(se, n, alpha, planned)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z = np.asarray(effect, dtype=np.float64) / s
        log_p = 0.5 * np.log(k) - nr * z * z / (2.0 * k)
    return np.where(s > 0, np.exp(np.minimum(log_p, 0.0)), 1.0)


def one_sided_half_width(se: ArrayLike, n: ArrayLike, *, alpha: float, planned: float) -> Array:
    """Distance of the one-sided bound: se·√(2k/(nρ²)·ln(1 + √k/(2α))), ρ tuned for 2α.

    Raises as `mixture_precision`, and when alpha is not below 0.5.
    """
    s, nr, k = _terms(se, n, 2.0 * alpha, planned)
    with np.errstate(divide="ignore", invalid="ignore"):
        width = s * np.sqrt(2.0 * k / nr * np.log1p(np.sqrt(k) / (2.0 * alpha)))
    return np.where(s > 0, width, np.inf)


def one_sided_p(effect: ArrayLike, se: ArrayLike, n: ArrayLike, *, alpha: float, planned: float) -> Array:
    """p against "the effect is at least 0", small when it is clearly negative; at most alpha where the
    upper one-sided bound is below 0. 1 while the error is unknown, or the effect not negative.

    Raises as `one_sided_half_width`.
    """
    s, nr, k = _terms(se, n, 2.0 * alpha, planned)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        z = np.asarray(effect, dtype=np.float64) / s
        p = np.sqrt(k) / (2.0 * np.expm1(nr * z * z / (2.0 * k)))
    return np.where((s > 0) & (z < 0), np.minimum(p, 1.0), 1.0)


def _terms(se: ArrayLike, n: ArrayLike, alpha: float, planned: float) -> tuple[Array, Array, Array]:
    """Standard error, nρ² and k as arrays."""
    nr = np.asarray(n, dtype=np.float64) * mixture_precision(alpha=alpha, planned=planned)
    return np.asarray(se, dtype=np.float64), nr, nr + 1.0

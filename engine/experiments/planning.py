"""How many learners, for how long, to see which effect. Plans only: reads no results."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special

from engine.experiments.checks import require_share
from engine.experiments.moments import Moments


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePlan:
    """What an experiment needs before it starts.

    `planned_sample` counts learners of control and one treatment together (N* of the sequence);
    `days` until the slower of those two has its share; `detectable_lift` is the smallest relative
    effect found with the planned power in `duration_days`.
    """

    planned_sample: int
    days: float
    detectable_lift: float
    enough_time: bool


def sample_size_per_arm(
    *,
    effect: float,
    variance_control: float,
    variance_treatment: float,
    alpha: float = 0.05,
    power: float = 0.8,
    correlation: float = 0.0,
) -> float:
    """n an arm = (z₁₋α/₂ + z₁₋β)²(σ²c + σ²t)/δ², times 1 − ρ² with CUPED. Not rounded.

    `correlation` is that of metric and covariate. Raises ValueError when a number is out of bounds.
    """
    _require_positive("variance_control", variance_control)
    _require_positive("variance_treatment", variance_treatment)
    if not (math.isfinite(effect) and effect != 0.0):
        raise ValueError(f"effect must be finite and other than 0, got {effect}")
    reach = _reach(alpha, power)
    return reach**2 * (variance_control + variance_treatment) * _unexplained(correlation) / effect**2


def sample_size_t_test(*, d: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """n an arm for Cohen's d by the exact power of the two-sample t test. Not rounded.

    Raises ValueError when d is 0 or a share is out of bounds.
    """
    if not (math.isfinite(d) and d != 0.0):
        raise ValueError(f"d must be finite and other than 0, got {d}")
    _reach(alpha, power)
    return _solve(lambda n: power_of_t_test(d=d, n_per_arm=n, alpha=alpha) - power, 2.0)


def power_of_t_test(*, d: float, n_per_arm: float, alpha: float = 0.05) -> float:
    """Power of the two-sided two-sample t test with `n_per_arm` learners in each arm (noncentral t).

    Raises ValueError when n_per_arm is below 2 or alpha is out of bounds.
    """
    require_share("alpha", alpha)
    if not n_per_arm >= 2.0:
        raise ValueError(f"n_per_arm must be at least 2, got {n_per_arm}")
    df, noncentrality = 2.0 * n_per_arm - 2.0, abs(d) * math.sqrt(n_per_arm / 2.0)
    critical = special.stdtrit(df, 1.0 - alpha / 2.0)
    above = 1.0 - float(special.nctdtr(df, noncentrality, critical))
    return above + float(special.nctdtr(df, noncentrality, -critical))


def detectable_effect(
    *,
    n_control: float,
    n_treatment: float,
    variance_control: float,
    variance_treatment: float,
    alpha: float = 0.05,
    power: float = 0.8,
    correlation: float = 0.0,
) -> float:
    """Smallest absolute effect found with `power`: (z₁₋α/₂ + z₁₋β)·√((σ²c/nc + σ²t/nt)(1 − ρ²)).

    Raises ValueError when a number is out of bounds.
    """
    _require_positive("n_control", n_control)
    _require_positive("n_treatment", n_treatment)
    error = variance_control / n_control + variance_treatment / n_treatment
    return _reach(alpha, power) * math.sqrt(error * _unexplained(correlation))


def plan_sample(
    history: Moments,
    *,
    target_lift: float,
    learners_per_day: float,
    duration_days: float,
    share_control: float = 0.5,
    share_treatment: float = 0.5,
    comparisons: int = 1,
    alpha: float = 0.05,
    power: float = 0.8,
    use_covariate: bool = False,
) -> SamplePlan:
    """Plan control against one treatment from what the metric looked like before.

    `history` holds past learners of the metric (a ratio's denominator and the covariate included);
    `learners_per_day` newly exposed over all arms; shares are of those. With several treatments,
    `comparisons`, alpha is divided among them. Raises ValueError when the history cannot tell a
    variance or a mean, or a number is out of bounds.
    """
    _require_positive("learners_per_day", learners_per_day)
    _require_positive("duration_days", duration_days)
    require_share("share_control", share_control)
    require_share("share_treatment", share_treatment)
    if share_control + share_treatment > 1.0 + 1e-9:
        raise ValueError(f"shares must sum to at most 1, got {share_control} + {share_treatment}")
    if comparisons < 1:
        raise ValueError(f"comparisons must be at least 1, got {comparisons}")
    if not (math.isfinite(target_lift) and target_lift != 0.0):
        raise ValueError(f"target_lift must be finite and other than 0, got {target_lift}")
    mean, variance, correlation = _unit_statistics(history)
    explained = correlation if use_covariate else 0.0
    alpha /= comparisons
    # Unequal shares need the error of the difference, not the equal-arms formula, to meet the target.
    error = _reach(alpha, power) ** 2 * variance * _unexplained(explained) / (target_lift * mean) ** 2
    both = share_control + share_treatment
    total = error * both * (1.0 / share_control + 1.0 / share_treatment)
    n_per_day = learners_per_day * both
    days = total / n_per_day
    detectable = detectable_effect(
        n_control=learners_per_day * share_control * duration_days,
        n_treatment=learners_per_day * share_treatment * duration_days,
        variance_control=variance,
        variance_treatment=variance,
        alpha=alpha,
        power=power,
        correlation=explained,
    )
    return SamplePlan(
        planned_sample=math.ceil(total),
        days=days,
        detectable_lift=abs(detectable / mean),
        enough_time=days <= duration_days,
    )


def _unit_statistics(history: Moments) -> tuple[float, float, float]:
    """Mean, variance a learner (linearised for a ratio) and correlation with the covariate."""
    if history.n < 2:
        raise ValueError(f"history needs at least 2 learners, got {history.n}")
    c = history.centred()
    if c.mean_d == 0.0 or c.mean_v == 0.0:
        raise ValueError(f"history needs a mean other than 0, got {c.mean_v} over {c.mean_d}")
    ratio = c.mean_v / c.mean_d
    spread = (c.s_vv - 2.0 * ratio * c.s_vd + ratio**2 * c.s_dd) / c.mean_d**2
    _require_positive("variance of history", spread)
    shared = (c.s_vx - ratio * c.s_dx) / c.mean_d
    correlation = shared / math.sqrt(spread * c.s_xx) if c.s_xx > 0.0 else 0.0
    return ratio, spread / (history.n - 1), float(np.clip(correlation, -0.999, 0.999))


def _reach(alpha: float, power: float) -> float:
    """z₁₋α/₂ + z₁₋β."""
    require_share("alpha", alpha)
    require_share("power", power)
    return float(special.ndtri(1.0 - alpha / 2.0) + special.ndtri(power))


def _unexplained(correlation: float) -> float:
    if not -1.0 < correlation < 1.0:
        raise ValueError(f"correlation must be between -1 and 1, both excluded, got {correlation}")
    return 1.0 - correlation**2


def _require_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0.0):
        raise ValueError(f"{name} must be positive and finite, got {value}")


def _solve(rising: Callable[[float], float], low: float) -> float:
    """The zero of a rising function above `low`, by doubling and halving."""
    if rising(low) >= 0.0:
        return low
    high = 2.0 * low
    while rising(high) < 0.0:
        low, high = high, 2.0 * high
    for _ in range(100):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if rising(middle) < 0.0 else (low, middle)
    return 0.5 * (low + high)

"""Estimates at one fixed look: means, differences, lifts, effect sizes. Knows nothing of peeking.

Every function takes scalars or arrays of one shape and answers in that shape, so the same code serves
one comparison, all comparisons of an experiment and a simulation of many looks. Where a quantity is
not estimable (fewer than two learners, no variation yet) it is NaN, its interval unbounded and its
p-value 1: absence of evidence, never an error.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from engine.experiments.checks import require_share

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanEstimate:
    """An arm's mean with the squared standard error of that mean and its degrees of freedom."""

    mean: Array
    error_variance: Array
    df: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Treatment minus control with a two-sided interval, in the metric's unit."""

    effect: Array
    se: Array
    df: Array
    p: Array
    lower: Array
    upper: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Lift:
    """Relative difference (0.1 is ten per cent) by the delta method and on the log scale."""

    lift: Array
    se: Array
    p: Array
    lower: Array
    upper: Array
    log_lower: Array
    log_upper: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectSize:
    """Standardised differences: Cohen's d and the unbiased Hedges g with its interval."""

    d: Array
    g: Array
    g_lower: Array
    g_upper: Array


def mean_estimate(*, n: ArrayLike, mean: ArrayLike, variance: ArrayLike) -> MeanEstimate:
    """An arm's mean from its count, mean and the variance of one learner."""
    count = np.asarray(n, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.asarray(variance, dtype=np.float64) / count
    return MeanEstimate(
        mean=np.asarray(mean, dtype=np.float64),
        error_variance=np.where(count > 1, error, np.nan),
        df=count - 1.0,
    )


def linearised_variance(
    *, ratio: ArrayLike, mean_d: ArrayLike, var_m: ArrayLike, var_d: ArrayLike, cov_md: ArrayLike
) -> Array:
    """Variance a learner of the ratio R = m/d: (s²m − 2R·s_md + R²·s²d)/d̄² (delta method)."""
    r, d = np.asarray(ratio, dtype=np.float64), np.asarray(mean_d, dtype=np.float64)
    v: Array = (np.asarray(var_m) - 2.0 * r * np.asarray(cov_md) + r * r * np.asarray(var_d)) / (d * d)
    return np.maximum(v, 0.0)


def adjusted_variance(*, var_y: ArrayLike, var_x: ArrayLike, cov_yx: ArrayLike, theta: ArrayLike) -> Array:
    """Variance of Y − θX, V = s²Y + θ²s²X − 2θ·s_XY (CUPED: Deng, Xu, Kohavi & Walker 2013)."""
    t = np.asarray(theta, dtype=np.float64)
    v: Array = np.asarray(var_y) + t * t * np.asarray(var_x) - 2.0 * t * np.asarray(cov_yx)
    return np.maximum(v, 0.0)


def difference(control: MeanEstimate, treatment: MeanEstimate, *, alpha: float = 0.05) -> Difference:
    """Welch's two-sided t test and interval (Welch 1947). Raises ValueError when alpha is not in (0, 1)."""
    require_share("alpha", alpha)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        a, b = control.error_variance, treatment.error_variance
        effect = treatment.mean - control.mean
        se = np.sqrt(a + b)
        df = _welch_df(a, b, control.df, treatment.df)
        half = special.stdtrit(df, 1.0 - alpha / 2.0) * se
        p = 2.0 * special.stdtr(df, -np.abs(effect / se))
    return Difference(
        effect=effect,
        se=se,
        df=df,
        p=_or(se > 0, p, 1.0),
        lower=_or(se > 0, effect - half, -np.inf),
        upper=_or(se > 0, effect + half, np.inf),
    )


def margin_contrast(
    control: MeanEstimate, treatment: MeanEstimate, *, sign: ArrayLike, margin: ArrayLike
) -> tuple[Array, Array]:
    """Improvement plus `margin` of control's size, and its standard error; below 0 is worse than allowed.

    T = s·(mt − mc) + margin·|mc| with s = 1 where higher is better, −1 where lower is. It is linear in
    both means, so a relative margin needs no delta method. A negative margin asks for an improvement.
    """
    s = np.asarray(sign, dtype=np.float64)
    slope = s - np.asarray(margin, dtype=np.float64) * np.sign(control.mean)
    value = s * treatment.mean - slope * control.mean
    return value, np.sqrt(treatment.error_variance + slope**2 * control.error_variance)


def relative_lift(control: MeanEstimate, treatment: MeanEstimate, *, alpha: float = 0.05) -> Lift:
    """Lift mt/mc − 1 with the delta-method interval, and the interval of its logarithm.

    Delta-method variance B/mc² + A·mt²/mc⁴ with the degrees of freedom of the absolute test; the log
    interval is exp(ln(mt/mc) ± t·√(B/mt² + A/mc²)) − 1 with Welch's degrees of freedom on that scale,
    and needs means of one sign. Its p-value describes the interval only: decide by `difference`.
    Raises ValueError when alpha is not in (0, 1).
    """
    require_share("alpha", alpha)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        a, b, mc, mt = control.error_variance, treatment.error_variance, control.mean, treatment.mean
        lift = mt / mc - 1.0
        se = np.sqrt(b / mc**2 + a * mt**2 / mc**4)
        df = _welch_df(a, b, control.df, treatment.df)
        half = special.stdtrit(df, 1.0 - alpha / 2.0) * se
        p = 2.0 * special.stdtr(df, -np.abs(lift / se))
        relative_a, relative_b = a / mc**2, b / mt**2
        log_df = _welch_df(relative_a, relative_b, control.df, treatment.df)
        log_half = special.stdtrit(log_df, 1.0 - alpha / 2.0) * np.sqrt(relative_a + relative_b)
        known = np.isfinite(lift) & (se > 0)
        known_log = known & (mt / mc > 0)
        return Lift(
            lift=_or(mc != 0, lift, np.nan),
            se=se,
            p=_or(known, p, 1.0),
            lower=_or(known, lift - half, -np.inf),
            upper=_or(known, lift + half, np.inf),
            log_lower=_or(known_log, (lift + 1.0) * np.exp(-log_half) - 1.0, -1.0),
            log_upper=_or(known_log, (lift + 1.0) * np.exp(log_half) - 1.0, np.inf),
        )


def effect_size(
    *,
    effect: ArrayLike,
    var_c: ArrayLike,
    var_t: ArrayLike,
    n_c: ArrayLike,
    n_t: ArrayLike,
    alpha: float = 0.05,
) -> EffectSize:
    """Cohen's d = D/s_pooled and Hedges g = J·d with J exact (Hedges 1981), interval by the noncentral t.

    The interval holds the noncentralities that put the observed t at the two tail probabilities
    (Steiger & Fouladi 1997), with ν = nc + nt − 2 and λ = d·√(nc·nt/(nc + nt)).
    Raises ValueError when alpha is not in (0, 1).
    """
    require_share("alpha", alpha)
    d_raw, vc, vt, nc, nt = (np.asarray(a, dtype=np.float64) for a in (effect, var_c, var_t, n_c, n_t))
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        nu = nc + nt - 2.0
        d = d_raw / np.sqrt(((nc - 1.0) * vc + (nt - 1.0) * vt) / nu)
        root = np.sqrt(nc * nt / (nc + nt))
        small_sample = np.exp(special.gammaln(nu / 2.0) - special.gammaln((nu - 1.0) / 2.0)) / np.sqrt(
            nu / 2.0
        )
        known = np.isfinite(d) & (nu > 1.0)
        t = np.where(known, d * root, 0.0)
        safe_nu = np.where(known, nu, 2.0)
        tails = np.array([1.0 - alpha / 2.0, alpha / 2.0]).reshape(2, *(1,) * t.ndim)
        low, high = noncentrality(t, safe_nu, tails)
        return EffectSize(
            d=_or(known, d, np.nan),
            g=_or(known, small_sample * d, np.nan),
            g_lower=_or(known, small_sample * low / root, -np.inf),
            g_upper=_or(known, small_sample * high / root, np.inf),
        )


def noncentrality(t: ArrayLike, df: ArrayLike, probability: ArrayLike) -> Array:
    """The λ at which the noncentral t distribution function of `t` equals `probability`.

    Starts from the normal approximation of Johnson & Welch (1940), whose error falls as 1/ν, and
    corrects on the normal scale by the secant method. Where scipy's distribution function gives no
    number to correct by (a handful of learners and |t| beyond about 30) the approximation stands,
    which is far on the wide side there.
    """
    seen, nu, goal = np.broadcast_arrays(
        np.asarray(t, dtype=np.float64), df, special.ndtri(np.asarray(probability, dtype=np.float64))
    )
    shape = seen.shape
    seen, nu, goal = seen.ravel(), np.asarray(nu, dtype=np.float64).ravel(), goal.ravel()
    spread = np.sqrt(1.0 + seen * seen / (2.0 * nu))
    start: Array = np.asarray(seen * (1.0 - 1.0 / (4.0 * nu)) - goal * spread)
    best = start
    gap = _gap(seen, nu, best, goal)
    step = np.where(np.isfinite(gap), -gap * spread, 0.0)
    for _ in range(12):
        best = best - step
        # A step leaves less than a thousandth of itself to correct, so smaller ones end the search.
        open_ = np.abs(step) >= 1e-4
        if not open_.any():
            break
        old_gap, gap = gap, gap.copy()
        gap[open_] = _gap(seen[open_], nu[open_], best[open_], goal[open_])
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.where(open_, gap * step / (old_gap - gap), 0.0)
        step = np.where(np.isfinite(step) & (np.abs(step) < 10.0 * spread), step, 0.0)
    return np.where(np.isfinite(gap) & (np.abs(step) < 1e-4), best, start).reshape(shape)


def _gap(t: Array, nu: Array, lam: Array, goal: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        gap: Array = special.ndtri(special.nctdtr(nu, lam, t)) - goal
    return gap


def _welch_df(a: Array, b: Array, df_a: Array, df_b: Array) -> Array:
    df: Array = (a + b) ** 2 / (a * a / df_a + b * b / df_b)
    return df


def _or(known: NDArray[np.bool_] | np.bool_ | bool, value: Array, otherwise: float) -> Array:
    return np.where(known, value, otherwise)

"""From moments of all phases, metrics and arms to one estimate an arm and pair. Arrays only.

Axes are h (phases), m (metrics), a (arms, control first) and t (treatments). A pair's phases are
weighted by nc·nt/(nc + nt), the weight that gives a common effect the smallest error, so that a phase
with three treated learners says little; with one phase it is the plain comparison. Estimates within
phases cannot be confounded by a split that changed between them (Simpson's paradox).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.experiments.estimates import MeanEstimate, adjusted_variance, linearised_variance
from engine.experiments.moments import EMPTY, Moments
from engine.experiments.plan import ExperimentPlan, Kind, Snapshot

Array = NDArray[np.float64]
N, MEAN_V, MEAN_D, MEAN_X, S_VV, S_DD, S_XX, S_VD, S_VX, S_DX, S_VVV = range(11)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Control and each treatment, every array of shape (metrics, treatments).

    `spread_*` is the unadjusted variance of one learner, `saved` the share of squared error removed by
    the covariate, `left_out` the learners of phases in which the other arm has fewer than two.
    """

    control: MeanEstimate
    treatment: MeanEstimate
    n_control: Array
    n_treatment: Array
    spread_control: Array
    spread_treatment: Array
    saved: Array
    left_out: Array


@dataclass(frozen=True, slots=True)
class _Kinds:
    """Which metrics are ratios, proportions and covariate-adjusted: masks of shape (m, 1)."""

    ratio: Array
    proportion: NDArray[np.bool_]
    covariate: NDArray[np.bool_]

    @classmethod
    def of(cls, plan: ExperimentPlan) -> _Kinds:
        return cls(
            np.array([[1.0 if metric.kind is Kind.RATIO else 0.0] for metric in plan.metrics]),
            np.array([[metric.kind is Kind.PROPORTION] for metric in plan.metrics]),
            np.array([[metric.use_covariate] for metric in plan.metrics]),
        )

    def denominator(self, mean_d: Array) -> Array:
        """The mean denominator of ratio metrics, 1 for others."""
        return np.where(self.ratio > 0, mean_d, 1.0)

    def below(self, n: Array) -> Array:
        """What a variance divides by: a proportion's is p(1 − p), with n below the line."""
        return np.where(self.proportion, n, n - 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Arms:
    """Both sides of every pair, shape (m, 2t)."""

    mean: Array
    error_variance: Array
    df: Array
    n: Array
    spread: Array
    raw_error: Array

    def estimate(self, side: slice) -> MeanEstimate:
        return MeanEstimate(
            mean=self.mean[:, side], error_variance=self.error_variance[:, side], df=self.df[:, side]
        )


def blocks(plan: ExperimentPlan, snapshot: Snapshot) -> tuple[Array, Array]:
    """Rows of moments: by phase, shape (h, m, a, 11), and of all phases together, shape (m, a, 11).

    Raises ValueError when a phase names an unplanned metric or not one entry an arm.
    """
    arms, names = len(plan.arms), [metric.name for metric in plan.metrics]
    for number, phase in enumerate(snapshot.phases):
        counts = [("weights", phase.weights), ("exposed", phase.exposed)]
        counts += [("assigned", phase.assigned)] if phase.assigned is not None else []
        for name, per_arm in [*counts, *phase.moments.items()]:
            if len(per_arm) != arms:
                raise ValueError(f"{name} of phase {number} must have {arms} entries, got {len(per_arm)}")
        if unknown := set(phase.moments) - set(names):
            raise ValueError(f"phase {number} has metrics that are not planned: {sorted(unknown)}")
    nobody = (EMPTY,) * arms
    held = [[phase.moments.get(name, nobody) for name in names] for phase in snapshot.phases]
    rows = np.array([[[arm.row() for arm in metric] for metric in phase] for phase in held], dtype=np.float64)
    if not held:
        return np.zeros((0, len(names), arms, 11)), np.zeros((len(names), arms, 11))
    if len(held) == 1:
        return rows, rows[0]
    together = [
        [_merged([phase[m][a] for phase in held]).row() for a in range(arms)] for m in range(len(names))
    ]
    return rows, np.array(together, dtype=np.float64)


def compare_pairs(plan: ExperimentPlan, by_phase: Array) -> Pairs:
    """Every treatment against control, stratified by phase, covariate-adjusted where planned."""
    n = by_phase[..., N]
    n_c, n_t = n[:, :, :1], n[:, :, 1:]
    usable = (n_c >= 2) & (n_t >= 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        weight = np.where(usable, n_c * n_t / (n_c + n_t), 0.0)
        weight = weight / weight.sum(axis=0)
    weight = np.where(usable, weight, 0.0)
    kinds, mean_x = _Kinds.of(plan), _together_mean(by_phase, MEAN_X)
    theta, covariate = _theta(kinds, by_phase, mean_x), _weighted(weight, mean_x)
    # Both sides of every pair in one go: controls first, then treatments, along the last axis but one.
    pairs = weight.shape[2]
    sides = np.concatenate((np.repeat(by_phase[:, :, :1], pairs, axis=2), by_phase[:, :, 1:]), axis=2)
    both, two_covariates = np.concatenate((weight, weight), axis=2), np.concatenate((covariate,) * 2, axis=1)
    arms = _arms(kinds, sides, both, theta, two_covariates)
    with np.errstate(divide="ignore", invalid="ignore"):
        adjusted = arms.error_variance[:, :pairs] + arms.error_variance[:, pairs:]
        saved = 1.0 - adjusted / (arms.raw_error[:, :pairs] + arms.raw_error[:, pairs:])
    return Pairs(
        control=arms.estimate(slice(None, pairs)),
        treatment=arms.estimate(slice(pairs, None)),
        n_control=arms.n[:, :pairs],
        n_treatment=arms.n[:, pairs:],
        spread_control=arms.spread[:, :pairs],
        spread_treatment=arms.spread[:, pairs:],
        saved=np.where(np.isfinite(saved), saved, 0.0),
        left_out=np.where(usable, 0.0, n_c + n_t).sum(axis=0),
    )


def plain_means(plan: ExperimentPlan, together: Array) -> tuple[Array, Array]:
    """Mean and its squared standard error, unadjusted, of shape (m, a)."""
    kinds = _Kinds.of(plan)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_d = kinds.denominator(together[..., MEAN_D])
        mean = together[..., MEAN_V] / mean_d
        spread = _spread(kinds, together, mean, mean_d)
        return mean, spread / together[..., N]


def _arms(kinds: _Kinds, rows: Array, weight: Array, theta: Array, covariate: Array) -> _Arms:
    """Both sides of every pair from rows of shape (h, m, 2t, 11) and phase weights (h, m, 2t)."""
    n = rows[..., N]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean_d = kinds.denominator(_weighted(weight, rows[..., MEAN_D]))
        ratio = _weighted(weight, rows[..., MEAN_V]) / mean_d
        spread = _spread(kinds, rows, ratio, mean_d)
        below = kinds.below(n)
        shared = (rows[..., S_VX] - ratio * rows[..., S_DX] * kinds.ratio) / (below * mean_d)
        adjusted = adjusted_variance(var_y=spread, var_x=rows[..., S_XX] / below, cov_yx=shared, theta=theta)
        share = weight * weight / n
        pieces = np.where(weight > 0, share * adjusted, 0.0)
        error = pieces.sum(axis=0)
        df = error**2 / np.where(weight > 0, pieces**2 / (n - 1.0), 0.0).sum(axis=0)
        raw_error = np.where(weight > 0, share * spread, 0.0).sum(axis=0)
        freedom = np.where(weight > 0, n - 1.0, 0.0)
        pooled = np.where(weight > 0, freedom * spread, 0.0).sum(axis=0) / freedom.sum(axis=0)
        mean = ratio - theta * (_weighted(weight, rows[..., MEAN_X]) - covariate)
    known = (weight > 0).any(axis=0)
    return _Arms(
        mean=np.where(known, mean, np.nan),
        error_variance=np.where(known, error, np.nan),
        df=df,
        n=np.where(weight > 0, n, 0.0).sum(axis=0),
        spread=pooled,
        raw_error=raw_error,
    )


def _theta(kinds: _Kinds, by_phase: Array, mean_x: Array) -> Array:
    """θ = cov(Y, X)/var(X) of shape (m, 1), pooled over arms within each phase; 0 where not planned."""
    mean_v, plain_d = _together_mean(by_phase, MEAN_V), _together_mean(by_phase, MEAN_D)
    mean_d = kinds.denominator(plain_d)
    with np.errstate(divide="ignore", invalid="ignore"):
        n = by_phase[..., N]
        off_x = by_phase[..., MEAN_X] - mean_x
        s_xx = by_phase[..., S_XX] + n * off_x * off_x
        s_vx = by_phase[..., S_VX] + n * off_x * (by_phase[..., MEAN_V] - mean_v)
        s_dx = by_phase[..., S_DX] + n * off_x * (by_phase[..., MEAN_D] - plain_d)
        s_yx = (s_vx - mean_v / mean_d * s_dx * kinds.ratio) / mean_d
        theta = np.nansum(s_yx, axis=(0, 2)) / s_xx.sum(axis=(0, 2))
    return np.where(kinds.covariate & np.isfinite(theta)[:, None], theta[:, None], 0.0)


def _spread(kinds: _Kinds, rows: Array, ratio: Array, mean_d: Array) -> Array:
    """Variance of one learner, linearised for a ratio; `mean_d` is 1 for other metrics."""
    below = kinds.below(rows[..., N])
    return linearised_variance(
        ratio=ratio,
        mean_d=mean_d,
        var_m=rows[..., S_VV] / below,
        var_d=kinds.ratio * rows[..., S_DD] / below,
        cov_md=kinds.ratio * rows[..., S_VD] / below,
    )


def _weighted(weight: Array, per_phase: Array) -> Array:
    total: Array = (weight * per_phase).sum(axis=0)
    return total


def _together_mean(by_phase: Array, which: int) -> Array:
    """Mean over all arms of a phase, shape (h, m, 1); 0 where nobody is in."""
    n = by_phase[..., N]
    total = (n * by_phase[..., which]).sum(axis=2, keepdims=True)
    return np.asarray(total / np.maximum(n.sum(axis=2, keepdims=True), 1.0))


def _merged(parts: Sequence[Moments]) -> Moments:
    total = EMPTY
    for part in parts:
        total = total.merge(part)
    return total

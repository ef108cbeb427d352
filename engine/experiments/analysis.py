"""One look at an experiment: from a snapshot of moments to results. The door to this package's statistics.

All metrics and arms go through the array functions of `estimates` and `sequential` at once; values are
cut into small objects only at the end. What to conclude is `verdict`'s business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from engine.experiments import verdict
from engine.experiments.checks import (
    benjamini_hochberg,
    holm,
    learners_for_skew,
    sample_ratio,
    unequal_exposure_p,
)
from engine.experiments.estimates import (
    Difference,
    EffectSize,
    Lift,
    difference,
    effect_size,
    margin_contrast,
    relative_lift,
)
from engine.experiments.pairs import S_VV, S_VVV, N, Pairs, blocks, compare_pairs, plain_means
from engine.experiments.plan import ExperimentPlan, MetricArm, MetricPlan, Role, Running, Snapshot
from engine.experiments.results import ArmMean, Caution, Comparison, Concern, ExperimentResults, Interval
from engine.experiments.sequential import always_valid_p, half_width, one_sided_p

Array = NDArray[np.float64]

GUARDRAIL_FOCUS = 1.0 / 3.0
"""Share of the planned sample at which the guardrails' sequence is tightest: harm should be seen early."""

STEADY_CONTROL = 3.0
"""Standard errors the control mean must keep from 0 for a relative lift to mean anything."""

LEAST_DAYS_FOR_RATE = 1.0
"""How long learners must have been coming in before a rate is made of it: hours of the day differ."""


@dataclass(frozen=True, slots=True)
class _Sequences:
    width: Array
    lift_width: Array
    p: Array
    running: Running


def analyse(plan: ExperimentPlan, snapshot: Snapshot) -> ExperimentResults:
    """Estimates, checks and a verdict from moments alone.

    Pass the `running` of the previous look (inside the snapshot) or the always-valid p-values start
    anew. Raises ValueError when the snapshot does not fit the plan.
    """
    by_phase, together = blocks(plan, snapshot)
    pairs = compare_pairs(plan, by_phase)
    diff = difference(pairs.control, pairs.treatment, alpha=plan.alpha)
    lift = relative_lift(pairs.control, pairs.treatment, alpha=plan.alpha)
    size = effect_size(
        effect=diff.effect,
        var_c=pairs.spread_control,
        var_t=pairs.spread_treatment,
        n_c=pairs.n_control,
        n_t=pairs.n_treatment,
        alpha=plan.alpha,
    )
    ratio = sample_ratio(
        [phase.exposed for phase in snapshot.phases], [phase.weights for phase in snapshot.phases]
    )
    sequences = _sequences(plan, snapshot, pairs, diff, lift, ratio.sequential_p)
    comparisons = _comparisons(plan, pairs, diff, lift, size, sequences, _cautions(plan, together, pairs))
    sample = int((pairs.n_control + pairs.n_treatment)[plan.metrics.index(plan.primary)].min())
    evidence = verdict.Evidence(
        comparisons=comparisons,
        running=sequences.running,
        sample=sample,
        elapsed_days=snapshot.elapsed_days,
        sample_ratio=ratio,
        ended=snapshot.ended,
    )
    return ExperimentResults(
        decision=snapshot.standing or verdict.decide(plan, evidence),
        sample=sample,
        planned_sample=plan.planned_sample,
        days_to_decision=_days_left(plan, sample, snapshot.elapsed_days),
        arm_means=_arm_means(plan, together),
        comparisons=comparisons,
        sample_ratio=ratio,
        cautions=_experiment_cautions(plan, snapshot, ratio.sequential_p, ratio.p),
        running=sequences.running,
    )


def _sequences(
    plan: ExperimentPlan, snapshot: Snapshot, pairs: Pairs, diff: Difference, lift: Lift, srm_p: float
) -> _Sequences:
    """Always-valid widths and p-values, shape (m, t), and their minima over this and earlier looks."""
    alpha, planned = plan.rule.sequential_alpha, float(plan.planned_sample)
    n = pairs.n_control + pairs.n_treatment
    closed = np.array([[not metric.open_ended] for metric in plan.metrics])
    ready = closed & (np.minimum(pairs.n_control, pairs.n_treatment) >= plan.rule.minimum_per_arm)
    p = np.where(ready, always_valid_p(diff.effect, diff.se, n, alpha=alpha, planned=planned), 1.0)
    margin = np.array([[metric.margin] for metric in plan.metrics])
    target = np.full_like(margin, -plan.target_improvement)
    focus = max(planned * GUARDRAIL_FOCUS, 1.0)
    sign = np.array([[1.0 if metric.higher_is_better else -1.0] for metric in plan.metrics])
    harm_value, harm_se = margin_contrast(pairs.control, pairs.treatment, sign=sign, margin=margin)
    harm = one_sided_p(harm_value, harm_se, n, alpha=plan.guardrail_alpha, planned=focus)
    short_value, short_se = margin_contrast(pairs.control, pairs.treatment, sign=sign, margin=target)
    short = one_sided_p(short_value, short_se, n, alpha=alpha, planned=planned)
    before = snapshot.running
    guardrails = [m.role is Role.GUARDRAIL for m in plan.metrics]
    primary = [m.role is Role.PRIMARY for m in plan.metrics]
    return _Sequences(
        width=np.where(ready, half_width(diff.se, n, alpha=alpha, planned=planned), np.inf),
        lift_width=np.where(ready, half_width(lift.se, n, alpha=alpha, planned=planned), np.inf),
        p=p,
        running=Running(
            effect=_minimum(plan, before.effect, p, [True] * len(plan.metrics)),
            harm=_minimum(plan, before.harm, np.where(ready, harm, 1.0), guardrails),
            futility=_minimum(plan, before.futility, np.where(ready, short, 1.0), primary),
            sample_ratio=min(before.sample_ratio, srm_p),
        ),
    )


def _minimum(plan: ExperimentPlan, before: Any, p: Array, kept: list[bool]) -> dict[MetricArm, float]:
    return {
        (metric.name, arm): min(before.get((metric.name, arm), 1.0), value)
        for metric, row, keep in zip(plan.metrics, p.tolist(), kept, strict=True)
        if keep
        for arm, value in zip(plan.arms[1:], row, strict=True)
    }


def _adjusted(plan: ExperimentPlan, p: Array) -> Array:
    """Fixed p-values corrected within each role: Holm, for secondary metrics Benjamini-Hochberg."""
    adjusted = np.ones_like(p)
    for role in Role:
        of_role = np.array([metric.role is role for metric in plan.metrics])
        if of_role.any():
            correct = benjamini_hochberg if role is Role.SECONDARY else holm
            adjusted[of_role] = correct(p[of_role].ravel()).reshape(-1, p.shape[1])
    return adjusted


def _comparisons(
    plan: ExperimentPlan,
    pairs: Pairs,
    diff: Difference,
    lift: Lift,
    size: EffectSize,
    sequences: _Sequences,
    cautions: dict[MetricArm, tuple[Caution, ...]],
) -> tuple[Comparison, ...]:
    seq_low, seq_high = _around(diff.effect, sequences.width)
    lift_seq_low, lift_seq_high = _around(lift.lift, sequences.lift_width)
    columns = np.stack(
        [
            pairs.n_control, pairs.n_treatment, pairs.control.mean, pairs.treatment.mean,
            diff.effect, diff.se, diff.df, diff.lower, diff.upper, diff.p, _adjusted(plan, diff.p),
            lift.lift, lift.lower, lift.upper, lift.log_lower, lift.log_upper,
            seq_low, seq_high, lift_seq_low, lift_seq_high,
            sequences.p, size.d, size.g, size.g_lower, size.g_upper, pairs.saved,
        ],
        axis=-1,
    ).tolist()  # fmt: skip
    found = []
    for metric, rows in zip(plan.metrics, columns, strict=True):
        for arm, row in zip(plan.arms[1:], rows, strict=True):
            found.append(
                _comparison(metric, arm, row, sequences.running, cautions.get((metric.name, arm), ()))
            )
    return tuple(found)


def _comparison(
    metric: MetricPlan, arm: str, row: list[float], running: Running, cautions: tuple[Caution, ...]
) -> Comparison:
    (n_c, n_t, mean_c, mean_t, effect, se, df, low, high, p, p_adjusted, lift, lift_low, lift_high,
     log_low, log_high, seq_low, seq_high, lift_seq_low, lift_seq_high, sequential_p, d, g, g_low, g_high,
     saved) = row  # fmt: skip
    key = (metric.name, arm)
    return Comparison(
        metric.name, arm, metric.role, int(n_c), int(n_t), mean_c, mean_t, effect, se, df,
        Interval(low, high), p, p_adjusted, lift, Interval(lift_low, lift_high),
        Interval(log_low, log_high), Interval(seq_low, seq_high), Interval(lift_seq_low, lift_seq_high),
        sequential_p, running.effect[key], running.harm.get(key), d, g, Interval(g_low, g_high), saved,
        cautions,
    )  # fmt: skip


def _around(middle: Array, half: Array) -> tuple[Array, Array]:
    """Bounds of an interval; infinite where its middle or width is not known."""
    known = np.isfinite(middle) & np.isfinite(half)
    with np.errstate(invalid="ignore"):
        return np.where(known, middle - half, -np.inf), np.where(known, middle + half, np.inf)


def _arm_means(plan: ExperimentPlan, together: Array) -> tuple[ArmMean, ...]:
    mean, error = plain_means(plan, together)
    with np.errstate(invalid="ignore"):
        t: Array = np.asarray(special.stdtrit(together[..., N] - 1.0, 1.0 - plan.alpha / 2.0))
    numbers = np.stack([together[..., N], mean, *_around(mean, t * np.sqrt(error))], axis=-1).tolist()
    return tuple(
        ArmMean(metric.name, arm, int(n), value, Interval(low, high))
        for metric, rows in zip(plan.metrics, numbers, strict=True)
        for arm, (n, value, low, high) in zip(plan.arms, rows, strict=True)
    )


def _cautions(plan: ExperimentPlan, together: Array, pairs: Pairs) -> dict[MetricArm, tuple[Caution, ...]]:
    """Concerns of each comparison that has any."""
    n = together[..., N]
    with np.errstate(divide="ignore", invalid="ignore"):
        skewness = np.sqrt(n) * together[..., S_VVV] / together[..., S_VV] ** 1.5
        needed = np.where(together[..., S_VV] > 0, learners_for_skew(skewness), 0.0)
        steady = np.abs(pairs.control.mean) >= STEADY_CONTROL * np.sqrt(pairs.control.error_variance)
    found: dict[MetricArm, list[Caution]] = {}

    def note(m: int, t: int, concern: Concern, sentence: str) -> None:
        found.setdefault((plan.metrics[m].name, plan.arms[t + 1]), []).append(Caution(concern, sentence))

    few = np.maximum(needed[:, :1] - n[:, :1], needed[:, 1:] - n[:, 1:]) > 0
    for m, t in zip(*(axis.tolist() for axis in np.nonzero(few & (n[:, 1:] > 1))), strict=True):
        want = int(np.ceil(max(needed[m, 0], needed[m, t + 1])))
        note(m, t, Concern.SMALL_FOR_SKEW, f"The metric is so skewed that about {want} learners an arm are "
             "needed before its intervals can be taken at their word.")  # fmt: skip
    for m, t in zip(*(axis.tolist() for axis in np.nonzero(~steady & (n[:, 1:] > 1))), strict=True):
        note(m, t, Concern.LIFT_UNSTABLE, "Control's mean is too near 0 for a relative lift; read the "
             "absolute effect.")  # fmt: skip
    for m, t in zip(*(axis.tolist() for axis in np.nonzero(pairs.left_out > 0)), strict=True):
        note(m, t, Concern.PHASE_LEFT_OUT, f"{int(pairs.left_out[m, t])} learners of phases without two "
             "learners in each arm are left out.")  # fmt: skip
    for m, metric in enumerate(plan.metrics):
        for t in range(len(plan.arms) - 1 if metric.open_ended else 0):
            note(m, t, Concern.OPEN_ENDED, "The metric has no fixed window: its value changes after it was "
                 "counted, so no sequential statement is made.")  # fmt: skip
    return {key: tuple(cautions) for key, cautions in found.items()}


def _experiment_cautions(
    plan: ExperimentPlan, snapshot: Snapshot, sequential_p: float, p: float
) -> tuple[Caution, ...]:
    found = []
    if min(p, sequential_p) <= plan.sample_ratio_alpha:
        found.append(
            Caution(Concern.SAMPLE_RATIO, f"Arms are not filled as planned (p = {min(p, sequential_p):.2g}).")
        )
    for number, phase in enumerate(snapshot.phases):
        if phase.assigned is None:
            continue
        unequal = unequal_exposure_p(phase.exposed, phase.assigned)
        if unequal <= plan.sample_ratio_alpha:
            found.append(
                Caution(
                    Concern.UNEQUAL_EXPOSURE,
                    f"In phase {number} the share of assigned learners who were exposed differs between "
                    f"arms (p = {unequal:.2g}): who is seen depends on the arm.",
                )
            )
    return tuple(found)


def _days_left(plan: ExperimentPlan, sample: int, elapsed_days: float) -> float | None:
    """Days until the planned end at the rate so far, at most what is left; None before a rate is known."""
    left = max(plan.duration_days - elapsed_days, 0.0)
    if sample >= plan.planned_sample or left == 0.0:
        return 0.0
    if elapsed_days < LEAST_DAYS_FOR_RATE:
        return None
    return min((plan.planned_sample - sample) * elapsed_days / sample, left) if sample else left

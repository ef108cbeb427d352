"""What to do now, from estimates already made. Computes no statistic of its own.

In this order: harm to a guardrail rolls back (safety does not wait for clean data), a broken sample
ratio makes everything else void, then the hybrid rule speaks on the primary metric: its sequence at any
look, its fixed test once at the planned end, which is when the planned sample is in or the time is up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine.experiments.checks import SampleRatio, holm
from engine.experiments.plan import Decision, ExperimentPlan, MetricArm, Role, Running, Verdict
from engine.experiments.results import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a verdict is reached from: this look's comparisons and the minima over all looks."""

    comparisons: Sequence[Comparison]
    running: Running
    sample: int
    elapsed_days: float
    sample_ratio: SampleRatio
    ended: bool = False


def decide(plan: ExperimentPlan, evidence: Evidence) -> Decision:
    """The verdict of one look with its sentence."""
    at_end = evidence.sample >= plan.planned_sample or evidence.elapsed_days >= plan.duration_days
    return (
        _guardrails(plan, evidence)
        or _soundness(plan, evidence, at_end)
        or _shown(plan, evidence)
        or (_planned_end(plan, evidence) if at_end else None)
        or _hopeless(plan, evidence)
        or _go_on(plan, evidence)
    )


def _guardrails(plan: ExperimentPlan, evidence: Evidence) -> Decision | None:
    adjusted = _holm_of(evidence.running.harm)
    broken = [key for key, p in adjusted.items() if p <= plan.guardrail_alpha]
    if not broken:
        return None
    metric, arm = min(broken, key=lambda key: adjusted[key])
    margin = next(m.margin for m in plan.metrics if m.name == metric)
    beyond = f"by more than the {_percent(margin)} allowed" if margin else "beyond doubt"
    found = _find(evidence, metric, arm)
    return Decision(
        verdict=Verdict.ROLLED_BACK,
        arm=arm,
        sentence=f"Rolled back to {plan.arms[0]}: {arm} harms {metric} {beyond} "
        f"(now {_signed(found.lift)}, adjusted always-valid p = {adjusted[metric, arm]:.2g}).",
    )


def _soundness(plan: ExperimentPlan, evidence: Evidence, at_end: bool) -> Decision | None:
    # The plain chi-square may be looked at once only, so it joins at the planned end.
    p = min(evidence.running.sample_ratio, evidence.sample_ratio.p if at_end else 1.0)
    if p > plan.sample_ratio_alpha:
        return None
    return Decision(
        verdict=Verdict.INVALID,
        sentence=f"Invalid: the arms are not filled in the planned ratio (p = {p:.2g}), so who is in which "
        "arm is not left to chance. Find the cause before reading any effect.",
    )


def _shown(plan: ExperimentPlan, evidence: Evidence) -> Decision | None:
    """Ship or stop for harm on what may be looked at at any time."""
    if plan.primary.open_ended:
        return None
    alpha = plan.rule.sequential_alpha
    adjusted = _holm_of({k: p for k, p in evidence.running.effect.items() if k[0] == plan.primary.name})
    shown = {arm: p <= alpha for (_, arm), p in adjusted.items()}
    return _significant(plan, evidence, shown, _any_time(plan), at_end=False)


def _hopeless(plan: ExperimentPlan, evidence: Evidence) -> Decision | None:
    """Stop when no arm can still bring the improvement that the experiment was planned for."""
    if not all(p <= plan.rule.sequential_alpha for p in evidence.running.futility.values()):
        return None
    return Decision(
        verdict=Verdict.STOP_FUTILE,
        sentence=f"Stop: an improvement of {_percent(plan.target_improvement)} in {plan.primary.name} is "
        f"ruled out ({_listing(plan, evidence, _any_time(plan), at_end=False)}).",
    )


def _planned_end(plan: ExperimentPlan, evidence: Evidence) -> Decision:
    """The one fixed test."""
    alpha = plan.rule.final_alpha
    tests = {c.arm: c.p_adjusted <= alpha for c in _primaries(plan, evidence)}
    level = f"{_percent(1.0 - plan.alpha)} interval"
    ending = _significant(plan, evidence, tests, level, at_end=True)
    return ending or Decision(
        verdict=Verdict.STOP_FUTILE,
        sentence=f"Stop: the planned end is reached and no arm is shown to improve {plan.primary.name} "
        f"({_listing(plan, evidence, level, at_end=True)}).",
    )


def _significant(
    plan: ExperimentPlan, evidence: Evidence, shown: Mapping[str, bool], level: str, *, at_end: bool
) -> Decision | None:
    """Ship the best arm shown to improve; stop for harm when every arm is shown to be worse."""
    sign = 1.0 if plan.primary.higher_is_better else -1.0
    tested = [c for c in _primaries(plan, evidence) if shown.get(c.arm, False)]
    better = [c for c in tested if sign * c.effect > 0.0]
    if better:
        best = max(better, key=lambda c: sign * c.effect)
        return Decision(
            verdict=Verdict.SHIP,
            arm=best.arm,
            sentence=f"Ship {best.arm}: {plan.primary.name} is {_told(best, level, at_end)} "
            f"against {plan.arms[0]}.",
        )
    if tested and len(tested) == len(plan.arms) - 1:
        worst = min(tested, key=lambda c: sign * c.effect)
        return Decision(
            verdict=Verdict.STOP_HARM,
            arm=worst.arm,
            sentence=f"Stop and keep {plan.arms[0]}: {plan.primary.name} is "
            f"{_told(worst, level, at_end)} with {worst.arm}.",
        )
    return None


def _go_on(plan: ExperimentPlan, evidence: Evidence) -> Decision:
    if evidence.ended:
        return Decision(
            verdict=Verdict.CONTINUE,
            sentence=f"Ended before anything was shown: {evidence.sample} of {plan.planned_sample} learners were in.",
        )
    missing = plan.planned_sample - evidence.sample
    return Decision(
        verdict=Verdict.CONTINUE,
        sentence=f"Continue: {evidence.sample} of {plan.planned_sample} learners are in, {missing} to go, "
        "and nothing is shown yet.",
    )


def _any_time(plan: ExperimentPlan) -> str:
    return f"always-valid {_percent(1.0 - plan.rule.sequential_alpha)} interval"


def _primaries(plan: ExperimentPlan, evidence: Evidence) -> list[Comparison]:
    return [c for c in evidence.comparisons if c.role is Role.PRIMARY and c.metric == plan.primary.name]


def _find(evidence: Evidence, metric: str, arm: str) -> Comparison:
    return next(c for c in evidence.comparisons if c.metric == metric and c.arm == arm)


def _holm_of(p: Mapping[MetricArm, float]) -> dict[MetricArm, float]:
    return dict(zip(p, holm(list(p.values())).tolist(), strict=True))


def _listing(plan: ExperimentPlan, evidence: Evidence, level: str, *, at_end: bool) -> str:
    return "; ".join(f"{c.arm} {_told(c, level, at_end)}" for c in _primaries(plan, evidence))


def _told(c: Comparison, level: str, at_end: bool) -> str:
    interval = c.lift_interval if at_end else c.lift_sequence
    return f"{_signed(c.lift)} ({level} {_signed(interval.lower)} to {_signed(interval.upper)})"


def _signed(share: float) -> str:
    return f"{100.0 * share:+.1f} %"


def _percent(share: float) -> str:
    return f"{100.0 * share:.4g} %"

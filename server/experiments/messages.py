"""Experiments and their results as messages. Reads no store, computes no statistic."""

import math
from collections.abc import Sequence
from typing import Any

from engine.experiments.assignment import Hashing
from engine.experiments.plan import Kind, PhaseSnapshot, Role, Verdict
from engine.experiments.results import Caution, Comparison, Concern, ExperimentResults, Interval
from genie.v1 import experiment_pb2 as resources
from genie.v1 import experiment_results_pb2 as results_pb
from genie.v1 import experiment_service_pb2 as pb
from server import convert
from store.experiment_reports import ReportRecord
from store.experiments import (
    DRAFT,
    ROLLED_BACK,
    RUNNING,
    STOPPED,
    ExperimentRecord,
    HistoryPoint,
    MetricRecord,
)

DAY_SECONDS = 86_400.0

STATES = {
    DRAFT: resources.EXPERIMENT_STATE_DRAFT,
    RUNNING: resources.EXPERIMENT_STATE_RUNNING,
    STOPPED: resources.EXPERIMENT_STATE_STOPPED,
    ROLLED_BACK: resources.EXPERIMENT_STATE_ROLLED_BACK,
}
_KINDS = {
    Kind.MEAN: resources.METRIC_KIND_MEAN,
    Kind.PROPORTION: resources.METRIC_KIND_PROPORTION,
    Kind.RATIO: resources.METRIC_KIND_RATIO,
}
_ROLES = {
    Role.PRIMARY: resources.METRIC_ROLE_PRIMARY,
    Role.SECONDARY: resources.METRIC_ROLE_SECONDARY,
    Role.GUARDRAIL: resources.METRIC_ROLE_GUARDRAIL,
}
_HASHINGS = {
    Hashing.BLAKE2B: resources.ASSIGNMENT_HASHING_BLAKE2B,
    Hashing.GROWTHBOOK_V2: resources.ASSIGNMENT_HASHING_GROWTHBOOK_V2,
    Hashing.GROWTHBOOK_V1: resources.ASSIGNMENT_HASHING_GROWTHBOOK_V1,
}
_BASES = {
    "request": resources.SAMPLE_PLAN_BASIS_REQUEST,
    "history": resources.SAMPLE_PLAN_BASIS_HISTORY,
    "assumed": resources.SAMPLE_PLAN_BASIS_ASSUMED,
}
_VERDICTS = {
    Verdict.CONTINUE: results_pb.EXPERIMENT_VERDICT_CONTINUE,
    Verdict.SHIP: results_pb.EXPERIMENT_VERDICT_SHIP,
    Verdict.STOP_FUTILE: results_pb.EXPERIMENT_VERDICT_STOP_FUTILE,
    Verdict.STOP_HARM: results_pb.EXPERIMENT_VERDICT_STOP_HARM,
    Verdict.ROLLED_BACK: results_pb.EXPERIMENT_VERDICT_ROLLED_BACK,
    Verdict.INVALID: results_pb.EXPERIMENT_VERDICT_INVALID,
}
_CONCERNS = {
    Concern.SMALL_FOR_SKEW: results_pb.CAUTION_KIND_SMALL_FOR_SKEW,
    Concern.OPEN_ENDED: results_pb.CAUTION_KIND_OPEN_ENDED,
    Concern.UNEQUAL_EXPOSURE: results_pb.CAUTION_KIND_UNEQUAL_EXPOSURE,
    Concern.SAMPLE_RATIO: results_pb.CAUTION_KIND_SAMPLE_RATIO,
    Concern.PHASE_LEFT_OUT: results_pb.CAUTION_KIND_PHASE_LEFT_OUT,
    Concern.LIFT_UNSTABLE: results_pb.CAUTION_KIND_LIFT_UNSTABLE,
}


def state_name(state: str) -> str:
    """A stored state as callers know it: `RUNNING`."""
    return state.upper()


def experiment_message(record: ExperimentRecord) -> resources.Experiment:
    """An experiment as it stands."""
    sample = record.sample
    message = resources.Experiment(
        experiment_id=record.experiment_id,
        name=record.name,
        hypothesis=record.hypothesis,
        state=STATES[record.state],
        arms=[
            resources.ExperimentArm(name=name, algorithm=algorithm)
            for name, algorithm in zip(record.arms, record.algorithms, strict=True)
        ],
        metrics=map(_metric_message, record.metrics),
        target_improvement_percent=record.target_improvement * 100.0,
        duration_days=record.duration_days,
        sample_plan=resources.SamplePlan(
            planned_sample=sample.planned_sample,
            detectable_improvement_percent=sample.detectable_lift * 100.0 if sample.detectable_lift else None,
            # A duration ends after some ten thousand years; a hopeless plan may need longer.
            needed_duration=convert.known_duration(min(sample.days, 3e6) * DAY_SECONDS),
            basis=_BASES[sample.basis],
        ),
        hashing=_HASHINGS[record.hashing],
        seed=record.seed,
        create_time=convert.known_time(record.created_at),
        start_time=convert.known_time(record.started_at),
        end_time=convert.known_time(record.ended_at),
        end_reason=record.end_reason,
    )
    for phase in record.phases:
        message.phases.add(
            weights=phase.weights,
            ramp=[
                resources.RampStep(after_start=convert.duration(after), coverage=coverage)
                for after, coverage in phase.ramp
            ],
            start_time=convert.known_time(phase.started_at),
        )
    if record.layer is not None:
        name, start, end = record.layer
        message.layer.CopyFrom(resources.ExperimentLayer(name=name, start=start, end=end))
    return message


def _metric_message(metric: MetricRecord) -> resources.ExperimentMetric:
    open_ended = math.isinf(metric.window_s)
    return resources.ExperimentMetric(
        definition=resources.MetricDefinition(
            name=metric.name,
            kind=_KINDS[metric.kind],
            source=metric.source,
            window_start=convert.known_duration(metric.window_start_s),
            window_length=None if open_ended else convert.duration(metric.window_s),
            open_ended=open_ended,
            count_when_complete=metric.when_complete,
            lower_is_better=not metric.higher_is_better,
            use_covariate=metric.use_covariate,
        ),
        role=_ROLES[metric.role],
        margin_percent=metric.margin * 100.0,
    )


def report_message(record: ExperimentRecord, learner_id: str, report: ReportRecord) -> pb.Report:
    """A report as it was sent, as far as the experiment keeps it."""
    message = pb.Report(
        report_id=report.report_id,
        learner_id=learner_id,
        event_time=convert.timestamp(report.at),
        correlation_id=report.correlation_id,
    )
    if report.source:
        message.metric_value.CopyFrom(
            pb.MetricValue(source=report.source, value=report.value, denominator=report.denominator)
        )
    else:
        message.exposure.CopyFrom(
            pb.Exposure(
                experiment_id=record.experiment_id,
                arm=record.arms[report.arm],
                phase=report.phase,
                assigned_only=report.assigned_only,
                covariates=report.covariates,
            )
        )
    return message


def results_message(
    record: ExperimentRecord, results: ExperimentResults, phases: Sequence[PhaseSnapshot], now: float
) -> results_pb.ExperimentResults:
    """One look at an experiment."""
    left, ratio = results.days_to_decision, results.sample_ratio
    message = results_pb.ExperimentResults(
        experiment_id=record.experiment_id,
        state=STATES[record.state],
        look_time=convert.timestamp(now),
        verdict=_VERDICTS[results.decision.verdict],
        verdict_sentence=results.decision.sentence,
        verdict_arm=results.decision.arm or "",
        sample=results.sample,
        planned_sample=results.planned_sample,
        time_to_decision=None if left is None else convert.duration(left * DAY_SECONDS),
        comparisons=map(_comparison_message, results.comparisons),
        sample_ratio=results_pb.SampleRatioCheck(
            chi_squared=ratio.chi2,
            degrees_of_freedom=ratio.df,
            p_value=ratio.p,
            always_valid_p_value=min(ratio.sequential_p, results.running.sample_ratio),
        ),
        cautions=map(_caution_message, results.cautions),
    )
    for place, (name, algorithm) in enumerate(zip(record.arms, record.algorithms, strict=True)):
        message.arms.add(
            arm=name,
            algorithm=algorithm,
            assigned_count=sum((phase.assigned or phase.exposed)[place] for phase in phases),
            exposed_count=sum(phase.exposed[place] for phase in phases),
            means=[
                results_pb.ArmMean(
                    metric=mean.metric,
                    learners_count=mean.n,
                    mean=known(mean.mean) if mean.n else None,
                    interval=interval_message(mean.interval),
                )
                for mean in results.arm_means
                if mean.arm == name
            ],
        )
    return message


def _comparison_message(c: Comparison) -> results_pb.MetricComparison:
    return results_pb.MetricComparison(
        metric=c.metric,
        arm=c.arm,
        role=_ROLES[c.role],
        control_count=c.n_control,
        treatment_count=c.n_treatment,
        control_mean=known(c.mean_control),
        treatment_mean=known(c.mean_treatment),
        effect=known(c.effect),
        effect_interval=interval_message(c.interval),
        effect_always_valid_interval=interval_message(c.sequence),
        lift=known(c.lift),
        lift_interval=interval_message(c.lift_interval),
        lift_log_interval=interval_message(c.lift_log_interval),
        lift_always_valid_interval=interval_message(c.lift_sequence),
        p_value=c.p,
        adjusted_p_value=c.p_adjusted,
        always_valid_p_value=c.running_p,
        harm_p_value=c.harm_p,
        cohens_d=known(c.cohens_d),
        hedges_g=known(c.hedges_g),
        hedges_g_interval=interval_message(c.hedges_g_interval),
        variance_saved=known(c.variance_saved) or 0.0,
        cautions=map(_caution_message, c.cautions),
    )


def _caution_message(caution: Caution) -> results_pb.Caution:
    return results_pb.Caution(kind=_CONCERNS[caution.concern], sentence=caution.sentence)


def point_message(point: HistoryPoint) -> results_pb.ResultPoint:
    """What an earlier look said."""
    lifts = [
        results_pb.LiftPoint(
            lift=known(lift),
            interval=interval_message(Interval(low, high)),
            always_valid_interval=interval_message(Interval(seq_low, seq_high)),
        )
        for lift, low, high, seq_low, seq_high in point.lifts
    ]
    return results_pb.ResultPoint(
        look_time=convert.timestamp(point.at), exposed_counts=point.exposed, lifts=lifts
    )


def known(number: float) -> float | None:
    """The number; None for one that is not finite."""
    return number if math.isfinite(number) else None


def interval_message(interval: Interval) -> results_pb.ResultInterval:
    """An interval, unbounded sides left unset."""
    return results_pb.ResultInterval(lower=known(interval.lower), upper=known(interval.upper))


def same_results(a: Any, b: Any) -> bool:
    """Whether two looks say the same, whenever they were taken."""
    first, second = results_pb.ExperimentResults(), results_pb.ExperimentResults()
    first.CopyFrom(a)
    second.CopyFrom(b)
    for message in (first, second):
        message.ClearField("look_time")
        message.ClearField("time_to_decision")
    return first == second

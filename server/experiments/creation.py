"""From a request to an experiment written down: checks, metrics, arms and the sample plan. Stores nothing."""

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

from engine.experiments.assignment import Hashing
from engine.experiments.moments import Moments
from engine.experiments.plan import Kind, Role
from engine.experiments.planning import plan_sample
from genie.v1 import experiment_pb2 as resources
from genie.v1 import experiment_service_pb2 as pb
from server.experiments.errors import UnknownAlgorithm, UnknownMetric
from server.idempotency import fingerprint
from server.validate import Violations
from store.experiments import ExperimentRecord, MetricRecord, PhaseRecord, SampleRecord, experiment_id_of

DAY_SECONDS = 86_400.0
WEEK_SECONDS = 7.0 * DAY_SECONDS
MOST_ARMS = 8
MOST_METRICS = 32
MOST_DAYS = 365
MOST_STEPS = 32
MOST_SAMPLE = 1_000_000_000
MOST_NAME = 64
MOST_TEXT = 4_000
SPLIT_TOLERANCE = 1e-6
"""How far a split's sum may be from 1: it is scaled to sum to it exactly."""

BUILT_IN = {
    metric.name: metric
    for metric in (
        MetricRecord(
            name="practice_minutes",
            source="practice_minutes",
            role=Role.SECONDARY,
            kind=Kind.MEAN,
            window_s=WEEK_SECONDS,
            use_covariate=True,
        ),
        MetricRecord(
            name="mastery_gain",
            source="mastery_gain",
            role=Role.SECONDARY,
            kind=Kind.MEAN,
            window_s=WEEK_SECONDS,
            use_covariate=True,
        ),
        MetricRecord(
            name="click_through",
            source="click_through",
            role=Role.SECONDARY,
            kind=Kind.RATIO,
            window_s=WEEK_SECONDS,
        ),
        MetricRecord(
            name="accuracy",
            source="accuracy",
            role=Role.SECONDARY,
            kind=Kind.RATIO,
            window_s=WEEK_SECONDS,
            use_covariate=True,
        ),
        *(
            MetricRecord(
                name=f"retention_day_{day}",
                source="activity",
                role=Role.SECONDARY,
                kind=Kind.PROPORTION,
                window_start_s=day * DAY_SECONDS,
                window_s=DAY_SECONDS,
                when_complete=True,
                use_covariate=True,
            )
            for day in (1, 7)
        ),
    )
}
"""What the recommender feeds: a week from the first exposure, or whether the learner came back on that day."""

_KINDS = {
    resources.METRIC_KIND_UNSPECIFIED: Kind.MEAN,
    resources.METRIC_KIND_MEAN: Kind.MEAN,
    resources.METRIC_KIND_PROPORTION: Kind.PROPORTION,
    resources.METRIC_KIND_RATIO: Kind.RATIO,
}
_HASHINGS = {
    resources.ASSIGNMENT_HASHING_UNSPECIFIED: Hashing.BLAKE2B,
    resources.ASSIGNMENT_HASHING_BLAKE2B: Hashing.BLAKE2B,
    resources.ASSIGNMENT_HASHING_GROWTHBOOK_V2: Hashing.GROWTHBOOK_V2,
    resources.ASSIGNMENT_HASHING_GROWTHBOOK_V1: Hashing.GROWTHBOOK_V1,
}


class History(NamedTuple):
    """What a metric looked like in an earlier experiment's control arm."""

    moments: Moments
    learners_per_day: float


def digest_of(request: pb.CreateExperimentRequest) -> bytes:
    """A digest of what the request asks for, whatever its id."""
    bare = pb.CreateExperimentRequest()
    bare.CopyFrom(request)
    bare.request_id = ""
    return fingerprint(bare)


def drafted(
    request: pb.CreateExperimentRequest, known_algorithms: Collection[str], *, now: float
) -> ExperimentRecord:
    """The experiment as asked for, its sample still to be planned. Raises with all violations at once."""
    check = Violations()
    check.identifier("name", request.name)
    check.text("hypothesis", request.hypothesis, most=MOST_TEXT)
    check.identifier("seed", request.seed, required=False)
    check.identifier("request_id", request.request_id, required=False)
    check.enum("hashing", request.hashing, resources.AssignmentHashing)
    check.whole("duration_days", request.duration_days, least=1, most=MOST_DAYS)
    check.number("target_improvement_percent", request.target_improvement_percent, least=1e-3, most=1_000.0)
    if request.planned_sample:
        check.whole("planned_sample", request.planned_sample, least=4, most=MOST_SAMPLE)
    if request.HasField("baseline"):
        _check_baseline(check.part("baseline"), request.baseline)
    algorithms = _algorithms(check, request)
    metrics, unknown_metrics = _metrics(check, request)
    weights = _weights(check, request.traffic_split, len(algorithms), least=1e-6)
    ramp = _ramp(check, request)
    layer = _layer(check.part("layer"), request.layer) if request.HasField("layer") else None
    unknown = {field: name for field, name in algorithms.items() if name and name not in known_algorithms}
    _refuse(check, unknown, unknown_metrics, known_algorithms, request)
    experiment_id = experiment_id_of(request.name)
    return ExperimentRecord(
        experiment_id=experiment_id,
        name=request.name,
        hypothesis=request.hypothesis,
        arms=arm_names(list(algorithms.values())),
        algorithms=tuple(algorithms.values()),
        metrics=metrics,
        target_improvement=request.target_improvement_percent / 100.0,
        duration_days=request.duration_days,
        sample=SampleRecord(planned_sample=4, basis="assumed"),
        phases=(PhaseRecord(weights=weights, ramp=ramp),),
        seed=request.seed or experiment_id,
        hashing=_HASHINGS[request.hashing],
        layer=layer,
        created_at=now,
        request_digest=digest_of(request),
    )


def arm_names(algorithms: Sequence[str]) -> tuple[str, ...]:
    """The algorithms, with a number behind those that an earlier arm has as well."""
    counts = [algorithms[: place + 1].count(name) for place, name in enumerate(algorithms)]
    return tuple(
        name if count == 1 else f"{name} ({count})" for name, count in zip(algorithms, counts, strict=True)
    )


def split_from(check: Violations, weights: Sequence[float], arms: int) -> tuple[float, ...]:
    """A new split of a running experiment; an arm may be closed by a weight of 0."""
    check.size("traffic_split", len(weights), least=arms, most=arms)
    return _weights(check, weights, arms, least=0.0)


def planned(
    record: ExperimentRecord, request: pb.CreateExperimentRequest, history: History | None
) -> SampleRecord:
    """How many learners the experiment needs, from the best that is known."""
    basis, known = "history", history
    if request.HasField("baseline"):
        basis, known = "request", _baseline(request.baseline)
    assumed = known is None
    if known is None:
        basis = "assumed"
        known = _baseline(resources.MetricBaseline(mean=1.0, standard_deviation=1.0, learners_per_day=1.0))
    weights = record.phases[0].weights
    primary = record.metrics[0]
    try:
        plan = plan_sample(
            known.moments,
            target_lift=record.target_improvement,
            learners_per_day=known.learners_per_day,
            duration_days=float(record.duration_days),
            share_control=weights[0],
            share_treatment=min(weights[1:]),
            comparisons=len(record.arms) - 1,
            use_covariate=primary.use_covariate,
        )
    except ValueError:
        # An earlier control arm that never varied tells nothing.
        return planned(record, request, None)
    sample = min(max(plan.planned_sample, 4), MOST_SAMPLE)
    if request.planned_sample:
        sample, basis = request.planned_sample, "request"
    return SampleRecord(
        planned_sample=sample,
        basis=basis,
        days=0.0 if assumed else plan.days * sample / plan.planned_sample,
        detectable_lift=0.0 if assumed else plan.detectable_lift,
    )


def _baseline(baseline: resources.MetricBaseline) -> History:
    n, mean, sd = 1_000, baseline.mean, baseline.standard_deviation
    squares = (n - 1) * sd**2 + n * mean**2
    moments = Moments.from_sums(n=n, total=n * mean, total_of_squares=squares)
    return History(moments, baseline.learners_per_day)


def _check_baseline(check: Violations, baseline: resources.MetricBaseline) -> None:
    check.number("mean", baseline.mean, least=-1e6, most=1e6)
    if abs(baseline.mean) < 1e-6:
        check.add("mean", "must not be 0: an improvement is relative to it")
    check.number("standard_deviation", baseline.standard_deviation, least=1e-6, most=1e6)
    check.number("learners_per_day", baseline.learners_per_day, least=1e-3, most=1e9)


def _algorithms(check: Violations, request: pb.CreateExperimentRequest) -> dict[str, str]:
    """Field → algorithm, control first."""
    for field in ("control_algorithm", "treatment_algorithm"):
        check.text(field, getattr(request, field), most=MOST_NAME, required=True)
    check.texts(
        "more_treatment_algorithms",
        request.more_treatment_algorithms,
        most=MOST_ARMS - 2,
        most_characters=MOST_NAME,
    )
    found = {
        "control_algorithm": request.control_algorithm,
        "treatment_algorithm": request.treatment_algorithm,
    }
    for place, name in enumerate(request.more_treatment_algorithms[: MOST_ARMS - 2]):
        found[f"more_treatment_algorithms[{place}]"] = name
    return found


def _metrics(
    check: Violations, request: pb.CreateExperimentRequest
) -> tuple[tuple[MetricRecord, ...], dict[str, str]]:
    """The metrics, primary first, and field → name of those that are not known."""
    check.size("metric_definitions", len(request.metric_definitions), most=MOST_METRICS)
    known = dict(BUILT_IN)
    own: set[str] = set()
    for place, definition in enumerate(request.metric_definitions[:MOST_METRICS]):
        item = check.item("metric_definitions", place)
        if definition.name in own:
            item.add("name", "is defined twice")
        own.add(definition.name)
        known[definition.name] = _definition(item, definition)
    wanted: list[tuple[str, str, Role, float]] = []
    check.text("primary_metric", request.primary_metric, most=MOST_NAME, required=True)
    wanted.append(("primary_metric", request.primary_metric, Role.PRIMARY, 0.0))
    for place, guardrail in enumerate(request.guardrails[:MOST_METRICS]):
        item = check.item("guardrails", place)
        item.number("margin_percent", guardrail.margin_percent, least=0.0, most=99.9)
        margin = guardrail.margin_percent / 100.0
        wanted.append((f"guardrails[{place}].metric", guardrail.metric, Role.GUARDRAIL, margin))
    for place, name in enumerate(request.secondary_metrics[:MOST_METRICS]):
        wanted.append((f"secondary_metrics[{place}]", name, Role.SECONDARY, 0.0))
    total = 1 + len(request.guardrails) + len(request.secondary_metrics)
    if total > MOST_METRICS:
        check.add("secondary_metrics", f"make {total} metrics in all; at most {MOST_METRICS} are allowed")
    found: dict[str, MetricRecord] = {}
    unknown: dict[str, str] = {}
    for field, name, role, margin in wanted:
        if name in found:
            check.add(field, f"repeats {name}")
        elif name in known:
            found[name] = _in_role(known[name], role, margin)
        elif name:
            unknown[field] = name
        elif field != "primary_metric":
            check.add(field, "must not be empty")
    return tuple(found.values()), unknown


def _in_role(metric: MetricRecord, role: Role, margin: float) -> MetricRecord:
    return MetricRecord(
        name=metric.name,
        source=metric.source,
        role=role,
        kind=metric.kind,
        window_start_s=metric.window_start_s,
        window_s=metric.window_s,
        when_complete=metric.when_complete,
        higher_is_better=metric.higher_is_better,
        use_covariate=metric.use_covariate,
        margin=margin,
    )


def _definition(check: Violations, definition: resources.MetricDefinition) -> MetricRecord:
    check.text("name", definition.name, most=MOST_NAME, required=True)
    check.text("source", definition.source, most=MOST_NAME)
    check.enum("kind", definition.kind, resources.MetricKind)
    most = MOST_DAYS * DAY_SECONDS
    start, length = 0.0, WEEK_SECONDS
    if definition.HasField("window_start"):
        start = check.duration("window_start", definition.window_start, most_seconds=most)
    if definition.HasField("window_length"):
        length = check.duration(
            "window_length", definition.window_length, most_seconds=most, least_seconds=1.0
        )
    if definition.open_ended:
        length = math.inf
        if definition.HasField("window_length"):
            check.add("window_length", "must be unset for a metric that is open-ended")
        if definition.count_when_complete:
            check.add("count_when_complete", "must be unset for a metric that is open-ended")
    return MetricRecord(
        name=definition.name,
        source=definition.source or definition.name,
        role=Role.SECONDARY,
        kind=_KINDS.get(definition.kind, Kind.MEAN),
        window_start_s=start,
        window_s=length,
        when_complete=definition.count_when_complete,
        higher_is_better=not definition.lower_is_better,
        use_covariate=definition.use_covariate,
    )


def _weights(check: Violations, given: Sequence[float], arms: int, *, least: float) -> tuple[float, ...]:
    if not given:
        return (1.0 / arms,) * arms
    if len(given) != arms:
        check.add("traffic_split", f"has {len(given)} entries; there are {arms} arms")
        return (1.0 / arms,) * arms
    for place, weight in enumerate(given):
        check.number(f"traffic_split[{place}]", weight, least=least, most=1.0)
    total = math.fsum(given)
    if not abs(total - 1.0) <= SPLIT_TOLERANCE:
        check.add("traffic_split", f"sums to {total:g}; must sum to 1")
        return (1.0 / arms,) * arms
    if sum(weight > 0.0 for weight in given) < 2:
        check.add("traffic_split", "must leave at least 2 arms open")
    return tuple(weight / total for weight in given)


def _ramp(check: Violations, request: pb.CreateExperimentRequest) -> tuple[tuple[float, float], ...]:
    check.size("ramp", len(request.ramp), most=MOST_STEPS)
    found: list[tuple[float, float]] = []
    for place, step in enumerate(request.ramp[:MOST_STEPS]):
        item = check.item("ramp", place)
        after = item.duration("after_start", step.after_start, most_seconds=MOST_DAYS * DAY_SECONDS)
        coverage = item.number("coverage", step.coverage, least=0.0, most=1.0)
        if found and after <= found[-1][0]:
            item.add("after_start", "must be later than the step before")
        if found and coverage < found[-1][1]:
            item.add("coverage", "must not be below the step before")
        found.append((after, coverage))
    return tuple(found)


def _layer(check: Violations, layer: resources.ExperimentLayer) -> tuple[str, float, float]:
    check.text("name", layer.name, most=MOST_NAME, required=True)
    check.number("start", layer.start, least=0.0, most=1.0)
    check.number("end", layer.end, least=0.0, most=1.0)
    if layer.end <= layer.start:
        check.add("end", f"is {layer.end:g}; must be above start, which is {layer.start:g}")
    return layer.name, layer.start, layer.end


def _refuse(
    check: Violations,
    algorithms: dict[str, str],
    metrics: dict[str, str],
    known_algorithms: Collection[str],
    request: pb.CreateExperimentRequest,
) -> None:
    """Raise for whatever is wrong: a reason of its own when names are all there is, else all as violations."""
    kinds = bool(check.found) + bool(algorithms) + bool(metrics)
    if kinds > 1:
        for field, name in algorithms.items():
            check.add(field, f"{name} is no known algorithm")
        for field, name in metrics.items():
            check.add(field, f"{name} is no known metric")
    check.check()
    if algorithms:
        raise UnknownAlgorithm(
            fields=tuple(algorithms),
            algorithms=", ".join(dict.fromkeys(algorithms.values())),
            known_algorithms=", ".join(sorted(known_algorithms)),
        )
    if metrics:
        known = sorted({*BUILT_IN, *(definition.name for definition in request.metric_definitions)})
        raise UnknownMetric(
            fields=tuple(metrics),
            metrics=", ".join(dict.fromkeys(metrics.values())),
            known_metrics=", ".join(known),
        )

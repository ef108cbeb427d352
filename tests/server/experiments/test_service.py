"""The experiment service over a real port: the life of experiments, reports, results, watching."""

import time

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from engine.experiments.assignment import Assigner
from genie.v1 import experiment_pb2 as resources
from genie.v1 import experiment_service_pb2 as pb
from tests.server.experiments.world import NAME, Lab
from tests.server.serving import detail, failure, reason


def violations(error: grpc.Call) -> list[str]:
    bad = detail(error, error_details_pb2.BadRequest())
    assert bad is not None
    return [violation.field for violation in bad.field_violations]


def facts(error: grpc.Call) -> dict[str, str]:
    info = detail(error, error_details_pb2.ErrorInfo())
    assert info is not None
    return dict(info.metadata)


def test_the_original_design_s_experiment_is_created_as_written(own: Lab) -> None:
    made = own.create()
    assert made.state == resources.EXPERIMENT_STATE_DRAFT
    assert [arm.algorithm for arm in made.arms] == ["content_based_v1", "collaborative_filtering_v2"]
    assert made.metrics[0].definition.name == "practice_minutes"
    assert made.metrics[0].definition.window_length.seconds == 7 * 86_400
    assert (made.target_improvement_percent, made.duration_days) == (15.0, 30)
    assert made.sample_plan.basis == resources.SAMPLE_PLAN_BASIS_ASSUMED
    # (1.96 + 0.84)² · 2 · 1 / 0.15² an arm, when the standard deviation equals the mean.
    assert made.sample_plan.planned_sample == pytest.approx(2 * 697.7, abs=2)
    assert own.create() == made


def test_unknown_algorithms_are_refused_with_the_known_ones(own: Lab) -> None:
    error = failure(lambda: own.create(control_algorithm="content_based_v9", treatment_algorithm="magic"))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason(error) == "UNKNOWN_ALGORITHM"
    known = facts(error)
    assert known["algorithms"] == "content_based_v9, magic"
    assert "content_based_v1" in known["known_algorithms"]
    assert violations(error) == ["control_algorithm", "treatment_algorithm"]


def test_unknown_metrics_are_refused_with_the_known_ones(own: Lab) -> None:
    error = failure(lambda: own.create(primary_metric="smiles"))
    assert reason(error) == "UNKNOWN_METRIC"
    assert "practice_minutes" in facts(error)["known_metrics"]


def test_all_violations_come_at_once(own: Lab) -> None:
    error = failure(
        lambda: own.create(
            name="",
            treatment_algorithm="magic",
            primary_metric="smiles",
            target_improvement_percent=-1.0,
            duration_days=0,
            traffic_split=[0.5, 0.4],
            guardrails=[resources.Guardrail(metric="accuracy", margin_percent=100.0)],
            secondary_metrics=["accuracy"],
            ramp=[resources.RampStep(coverage=0.5), resources.RampStep(coverage=0.2)],
            layer=resources.ExperimentLayer(name="home", start=0.5, end=0.5),
            baseline=resources.MetricBaseline(
                mean=0.0, standard_deviation=1.0, learners_per_day=float("nan")
            ),
            metric_definitions=[resources.MetricDefinition(open_ended=True, count_when_complete=True)],
        )
    )
    assert reason(error) == "INVALID_FIELD"
    assert {
        "name",
        "treatment_algorithm",
        "primary_metric",
        "target_improvement_percent",
        "duration_days",
        "traffic_split",
        "guardrails[0].margin_percent",
        "secondary_metrics[0]",
        "ramp[1].after_start",
        "ramp[1].coverage",
        "layer.end",
        "baseline.mean",
        "baseline.learners_per_day",
        "metric_definitions[0].name",
        "metric_definitions[0].count_when_complete",
    } == set(violations(error))


def test_a_name_means_one_experiment(own: Lab) -> None:
    own.create(request_id="r-1")
    error = failure(lambda: own.create(duration_days=20))
    assert reason(error) == "EXPERIMENT_NAME_TAKEN"
    assert facts(error)["name"] == NAME
    error = failure(lambda: own.create(name="Another", request_id="r-1"))
    assert reason(error) == "IDEMPOTENCY_KEY_REUSED"


def test_a_baseline_plans_the_sample(own: Lab) -> None:
    baseline = resources.MetricBaseline(mean=20.0, standard_deviation=10.0, learners_per_day=100.0)
    made = own.create(baseline=baseline)
    plan = made.sample_plan
    assert plan.basis == resources.SAMPLE_PLAN_BASIS_REQUEST
    assert plan.planned_sample == pytest.approx(2 * 7.849 * 2 * 0.25 / 0.15**2, abs=2)
    assert plan.needed_duration.seconds == pytest.approx(plan.planned_sample / 100 * 86_400, rel=0.01)
    assert plan.detectable_improvement_percent == pytest.approx(
        100 * (7.849 * 0.25 * 2 / 1500) ** 0.5, rel=0.01
    )


def test_states_follow_each_other(own: Lab) -> None:
    made = own.create()
    error = failure(lambda: own.stop(made.experiment_id))
    assert (reason(error), facts(error)["state"]) == ("EXPERIMENT_STATE", "DRAFT")
    started = own.start(made.experiment_id, request_id="s-1")
    assert started.state == resources.EXPERIMENT_STATE_RUNNING
    assert own.start(made.experiment_id, request_id="s-1") == started
    assert reason(failure(lambda: own.start(made.experiment_id))) == "EXPERIMENT_STATE"
    stopped = own.stop(made.experiment_id, reason="Enough.")
    assert (stopped.state, stopped.end_reason) == (resources.EXPERIMENT_STATE_STOPPED, "Enough.")
    assert reason(failure(lambda: own.start("x-none"))) == "EXPERIMENT_NOT_FOUND"
    assert reason(failure(lambda: own.results("x-none"))) == "EXPERIMENT_NOT_FOUND"


def test_lists_filter_and_turn_pages(own: Lab) -> None:
    ids = sorted(own.create(name=f"Number {number}").experiment_id for number in range(5))
    own.start(ids[2])
    request = pb.ListExperimentsRequest(page_size=2)
    found = []
    while True:
        reply = own.stub.ListExperiments(request, metadata=own.metadata)
        found += [experiment.experiment_id for experiment in reply.experiments]
        if not reply.next_page_token:
            break
        request.page_token = reply.next_page_token
    assert found == ids
    active = own.stub.ListExperiments(pb.ListExperimentsRequest(active_only=True), metadata=own.metadata)
    assert [experiment.experiment_id for experiment in active.experiments] == [ids[2]]
    drafts = pb.ListExperimentsRequest(state=resources.EXPERIMENT_STATE_DRAFT)
    assert len(own.stub.ListExperiments(drafts, metadata=own.metadata).experiments) == 4


def test_variants_are_those_of_the_hash_and_need_a_start(own: Lab) -> None:
    made = own.create()
    ask = pb.AssignVariantRequest(experiment_id=made.experiment_id, learner_id="ada")
    assert not own.stub.AssignVariant(ask, metadata=own.metadata).in_experiment
    own.start(made.experiment_id)
    reply = own.stub.AssignVariant(ask, metadata=own.metadata)
    assigned = Assigner(own.record(made.experiment_id).assignment(), now_s=time.time()).assign("ada")
    assert (reply.in_experiment, reply.arm, reply.algorithm) == (True, assigned.arm, assigned.arm)


def test_an_exposed_learner_keeps_the_arm_when_the_split_changes(own: Lab) -> None:
    made = own.create()
    own.start(made.experiment_id)
    record = own.record(made.experiment_id)
    assigner = Assigner(record.assignment(), now_s=time.time())
    treated = next(f"learner-{n}" for n in range(99) if assigner.index_of(f"learner-{n}") == 1)
    own.report(own.exposure(made.experiment_id, treated))
    changed = own.split(made.experiment_id, 0.999, 0.001)
    assert len(changed.phases) == 2

    def variant(learner: str) -> pb.AssignVariantResponse:
        ask = pb.AssignVariantRequest(experiment_id=made.experiment_id, learner_id=learner)
        return own.stub.AssignVariant(ask, metadata=own.metadata)

    assert (variant(treated).arm, variant(treated).phase) == ("collaborative_filtering_v2", 0)
    assert variant("somebody-else").phase == 1
    error = failure(lambda: own.split(made.experiment_id, 0.5, 0.6))
    assert violations(error) == ["traffic_split"]


def test_a_ramp_lets_few_in_at_first(own: Lab) -> None:
    later = Duration(seconds=86_400)
    ramp = [resources.RampStep(coverage=0.1), resources.RampStep(after_start=later, coverage=1.0)]
    made = own.create(ramp=ramp)
    own.start(made.experiment_id)
    inside = 0
    for number in range(200):
        ask = pb.AssignVariantRequest(experiment_id=made.experiment_id, learner_id=f"learner-{number}")
        inside += own.stub.AssignVariant(ask, metadata=own.metadata).in_experiment
    assert 5 <= inside <= 40


def test_a_layer_s_stretch_belongs_to_one_running_experiment(own: Lab) -> None:
    def made(name: str, start: float, end: float) -> str:
        layer = resources.ExperimentLayer(name="home", start=start, end=end)
        return own.create(name=name, layer=layer).experiment_id

    first, second, third = made("a", 0.0, 0.5), made("b", 0.4, 1.0), made("c", 0.5, 1.0)
    own.start(first)
    error = failure(lambda: own.start(second))
    assert (reason(error), facts(error)["experiment_id"]) == ("EXPERIMENT_LAYER_TAKEN", first)
    own.start(third)
    for number in range(50):
        inside = [
            own.stub.AssignVariant(
                pb.AssignVariantRequest(experiment_id=experiment_id, learner_id=f"learner-{number}"),
                metadata=own.metadata,
            ).in_experiment
            for experiment_id in (first, third)
        ]
        assert sum(inside) == 1, "everybody is in exactly one of two that share a layer out"

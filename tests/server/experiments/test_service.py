"""The experiment service over a real port: the life of experiments, reports, results, watching."""

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2

from engine.experiments.assignment import Assigner
from genie.v1 import experiment_pb2 as resources
from genie.v1 import experiment_results_pb2 as results_pb
from genie.v1 import experiment_service_pb2 as pb
from tests.server.core import info_of
from tests.server.experiments.world import NAME, Lab, creation, lab
from tests.server.serving import detail, failure, reason


@pytest.fixture(scope="module")
def shared() -> Iterator[Lab]:
    with lab() as running:
        yield running


@pytest.fixture
def own(shared: Lab, request: pytest.FixtureRequest) -> Lab:
    """The shared service, seen by a tenant of the test's own."""
    name = request.node.name.replace("[", "-").replace("]", "").replace("_", "-")[:60]
    return Lab(shared.genie, shared.port, shared.store, shared.channel, tenant=name)


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


def test_reports_count_once_and_the_refused_say_why(own: Lab) -> None:
    made = own.create()
    own.start(made.experiment_id)
    exposure = own.exposure(made.experiment_id, "ada")
    minutes = own.value("ada", "practice_minutes", 12.5, report_id="m-1")
    changed = own.value("ada", "practice_minutes", 13.5, report_id="m-1", at=time.time() + 0.1)
    other = {
        "content_based_v1": "collaborative_filtering_v2",
        "collaborative_filtering_v2": "content_based_v1",
    }
    wrong_arm = own.exposure(made.experiment_id, "bob")
    wrong_arm.exposure.arm = other[wrong_arm.exposure.arm]
    reply = own.report(
        exposure,
        minutes,
        minutes,
        changed,
        wrong_arm,
        own.value("ada", "smiles", 1.0),
        own.value("", "practice_minutes", float("nan"), report_id="bad"),
        own.exposure(made.experiment_id, "cem", report_id="lost", arm="nobody's"),
        own.value("ada", "practice_minutes", 1.0, experiment_id="x-none", report_id="nowhere"),
        pb.Report(report_id="empty", learner_id="ada"),
        size=3,
    )
    counts = (reply.recorded_count, reply.duplicate_count, reply.ignored_count, reply.rejected_count)
    assert counts == (2, 1, 1, 6)
    told = {error.report_id: info_of(error.error).reason for error in reply.errors}
    assert told == {
        "m-1": "IDEMPOTENCY_KEY_REUSED",
        wrong_arm.report_id: "INVALID_FIELD",
        "bad": "INVALID_FIELD",
        "lost": "INVALID_FIELD",
        "nowhere": "EXPERIMENT_NOT_FOUND",
        "empty": "INVALID_FIELD",
    }
    results = own.results(made.experiment_id).results
    assert sum(arm.exposed_count for arm in results.arms) == 1
    assert max(arm.means[0].mean for arm in results.arms) == 12.5


def run_experiment(
    own: Lab, experiment_id: str, learners: int, minutes: Any, seed: int = 0
) -> list[pb.Report]:
    """Reports of learners whose minutes are `minutes(rng, treated)`."""
    rng = random.Random(seed)
    assigner = Assigner(own.record(experiment_id).assignment(), now_s=time.time())
    reports = []
    for number in range(learners):
        learner = f"learner-{number}"
        reports.append(own.exposure(experiment_id, learner, report_id="e"))
        value = minutes(rng, assigner.index_of(learner) == 1)
        reports.append(own.value(learner, "practice_minutes", value, report_id="m"))
    rng.shuffle(reports)
    return reports


def test_a_clear_improvement_is_shipped_and_told_to_watchers_within_a_second(own: Lab) -> None:
    made = own.create(planned_sample=800)
    own.start(made.experiment_id)
    stream = own.watch(made.experiment_id)
    assert next(stream).results.verdict == results_pb.EXPERIMENT_VERDICT_CONTINUE
    reports = run_experiment(
        own, made.experiment_id, 800, lambda rng, treated: rng.gauss(24.0 if treated else 20.0, 6.0)
    )
    own.report(*reports, size=1_000)
    sent = time.monotonic()
    last = None
    for message in stream:
        last = message.results
        if sum(arm.exposed_count for arm in last.arms) == 800:
            break
    assert time.monotonic() - sent < 1.0
    stream.cancel()
    assert last is not None
    assert last.verdict == results_pb.EXPERIMENT_VERDICT_SHIP
    assert last.verdict_arm == "collaborative_filtering_v2"
    assert "Ship collaborative_filtering_v2" in last.verdict_sentence
    primary = last.comparisons[0]
    assert primary.lift == pytest.approx(0.2, abs=0.06)
    assert primary.lift_interval.lower < primary.lift < primary.lift_interval.upper
    assert primary.lift_always_valid_interval.lower < primary.lift_interval.lower
    reply = own.results(made.experiment_id, include_history=True)
    assert reply.results.verdict == results_pb.EXPERIMENT_VERDICT_SHIP
    assert sum(reply.history[-1].exposed_counts) <= 800


def test_shuffled_and_repeated_reports_end_in_the_same_results(own: Lab) -> None:
    made = own.create()
    own.start(made.experiment_id)
    reports = run_experiment(own, made.experiment_id, 60, lambda rng, _: rng.expovariate(0.1))
    own.report(*reports, size=7)
    first = own.results(made.experiment_id).results
    again = own.report(*reversed(reports), *reports, size=50)
    assert (again.recorded_count, again.duplicate_count) == (0, 240)
    assert own.results(made.experiment_id).results.comparisons == first.comparisons


def test_a_harmed_guardrail_rolls_back_without_a_person(own: Lab) -> None:
    made = own.create(
        primary_metric="accuracy",
        guardrails=[resources.Guardrail(metric="practice_minutes", margin_percent=2.0)],
        planned_sample=2_000,
    )
    own.start(made.experiment_id)
    stream = own.watch(made.experiment_id)
    next(stream)
    reports = run_experiment(
        own, made.experiment_id, 600, lambda rng, treated: rng.gauss(14.0 if treated else 20.0, 3.0)
    )
    own.report(*reports, size=1_000)
    last = list(stream)[-1].results
    assert last.verdict == results_pb.EXPERIMENT_VERDICT_ROLLED_BACK
    assert last.state == resources.EXPERIMENT_STATE_ROLLED_BACK
    assert "practice_minutes" in last.verdict_sentence
    kept = own.record(made.experiment_id)
    assert kept.end_reason == last.verdict_sentence
    for number in range(20):
        ask = pb.AssignVariantRequest(experiment_id=made.experiment_id, learner_id=f"learner-{number}")
        assert own.stub.AssignVariant(ask, metadata=own.metadata).arm == "content_based_v1"
    let_go = own.stop(made.experiment_id)
    assert let_go.state == resources.EXPERIMENT_STATE_STOPPED
    assert (let_go.end_reason, let_go.end_time.seconds) == (last.verdict_sentence, int(kept.ended_at))
    assert not own.stub.AssignVariant(ask, metadata=own.metadata).in_experiment


def test_late_reports_of_a_stopped_experiment_still_count(own: Lab) -> None:
    made = own.create()
    own.start(made.experiment_id)
    before = time.time()
    own.report(own.exposure(made.experiment_id, "ada"))
    own.stop(made.experiment_id)
    reply = own.report(
        own.value("ada", "practice_minutes", 5.0, at=before + 0.001),
        own.value("ada", "practice_minutes", 5.0, at=time.time() + 60),
    )
    assert (reply.recorded_count, reply.ignored_count) == (1, 1)


def test_history_of_an_earlier_experiment_plans_the_next(own: Lab) -> None:
    made = own.create()
    own.start(made.experiment_id)
    reports = run_experiment(own, made.experiment_id, 100, lambda rng, _: rng.gauss(20.0, 5.0))
    own.report(*reports)
    later = own.create(name="The next one")
    assert later.sample_plan.basis == resources.SAMPLE_PLAN_BASIS_HISTORY
    assert 50 < later.sample_plan.planned_sample < 300
    assert later.sample_plan.detectable_improvement_percent > 0.0


def test_covariates_and_custom_metrics(own: Lab) -> None:
    definition = resources.MetricDefinition(
        name="smiles", kind=resources.METRIC_KIND_MEAN, use_covariate=True
    )
    made = own.create(primary_metric="smiles", metric_definitions=[definition])
    own.start(made.experiment_id)
    rng = random.Random(3)
    reports = []
    for number in range(200):
        before = rng.gauss(10.0, 3.0)
        reports.append(
            own.exposure(made.experiment_id, f"learner-{number}", covariates={"smiles": before, "other": 1.0})
        )
        reports.append(own.value(f"learner-{number}", "smiles", before + rng.gauss(0.0, 1.0)))
    own.report(*reports)
    assert own.results(made.experiment_id).results.comparisons[0].variance_saved > 0.8


def test_tenants_do_not_see_each_other(own: Lab) -> None:
    made = own.create()
    stranger = Lab(own.genie, own.port, own.store, own.channel, tenant="stranger")
    assert reason(failure(lambda: stranger.results(made.experiment_id))) == "EXPERIMENT_NOT_FOUND"
    assert not stranger.stub.ListExperiments(
        pb.ListExperimentsRequest(), metadata=stranger.metadata
    ).experiments


def test_watchers_leave_room_for_reports() -> None:
    with lab(max_streams=27) as own:
        made = own.create()
        own.start(made.experiment_id)
        streams = [own.watch(made.experiment_id) for _ in range(3)]
        for stream in streams:
            next(stream)
        error = failure(lambda: next(own.watch(made.experiment_id)))
        assert reason(error) == "TOO_MANY_STREAMS"
        assert own.report(own.exposure(made.experiment_id, "ada")).recorded_count == 1
        for stream in streams:
            assert sum(arm.exposed_count for arm in next(stream).results.arms) == 1
            stream.cancel()


def test_a_drain_ends_watches(own: Lab) -> None:
    ended = threading.Event()
    with lab() as lab_of_its_own:
        made = lab_of_its_own.create()
        stream = lab_of_its_own.watch(made.experiment_id)
        next(stream)

        def wait() -> None:
            error = failure(lambda: next(stream))
            assert reason(error) == "SERVER_DRAINING"
            ended.set()

        thread = threading.Thread(target=wait)
        thread.start()
        lab_of_its_own.genie.runtime.drain.begin()
        thread.join(5.0)
    assert ended.is_set()


def test_creation_is_what_the_issue_writes() -> None:
    request = creation()
    assert (request.control_algorithm, request.treatment_algorithm) == (
        "content_based_v1",
        "collaborative_filtering_v2",
    )

"""Reports, looks and watching through a real port: what counts, what is decided, and who is told."""

import random
import threading
import time
from typing import Any

import pytest

from engine.experiments.assignment import Assigner
from genie.v1 import experiment_pb2 as resources
from genie.v1 import experiment_results_pb2 as results_pb
from genie.v1 import experiment_service_pb2 as pb
from server.experiments import intake
from store.memory_store import MemoryStore
from tests.server.core import info_of
from tests.server.experiments.world import Lab, creation, lab
from tests.server.serving import failure, reason
from tests.waiting import PATIENCE_SECONDS


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
        pb.Report(report_id="empty", learner_id="ada", correlation_id="call-1"),
        pb.Report(report_id="odd", learner_id="ada", correlation_id="x" * 129),
        size=3,
    )
    counts = (reply.recorded_count, reply.duplicate_count, reply.ignored_count, reply.rejected_count)
    assert counts == (2, 1, 1, 7)
    told = {error.report_id: info_of(error.error).reason for error in reply.errors}
    assert told == {
        "m-1": "IDEMPOTENCY_KEY_REUSED",
        wrong_arm.report_id: "INVALID_FIELD",
        "bad": "INVALID_FIELD",
        "lost": "INVALID_FIELD",
        "nowhere": "EXPERIMENT_NOT_FOUND",
        "empty": "INVALID_FIELD",
        "odd": "INVALID_FIELD",
    }
    assert {error.correlation_id for error in reply.errors if error.report_id == "empty"} == {"call-1"}
    results = own.results(made.experiment_id).results
    assert sum(arm.exposed_count for arm in results.arms) == 1
    assert max(arm.means[0].mean for arm in results.arms) == 12.5


def test_reports_of_a_learner_are_listed_by_time_and_with_their_calls(own: Lab) -> None:
    made = own.create()
    own.start(made.experiment_id)
    now = time.time()
    sent = [own.exposure(made.experiment_id, "ada", at=now + 1.0, covariates={"practice_minutes": 2.5})]
    sent += [own.value("ada", "practice_minutes", n + 0.5, at=now + n) for n in (4.0, 2.0, 3.0)]
    for number, report in enumerate(sent):
        report.correlation_id = f"call-{number}"
    own.report(*sent, own.value("bob", "practice_minutes", 1.0))
    request = pb.ListReportsRequest(experiment_id=made.experiment_id, learner_id="ada", page_size=3)
    first = own.stub.ListReports(request, metadata=own.metadata)
    request.page_token = first.next_page_token
    second = own.stub.ListReports(request, metadata=own.metadata)
    assert [*first.reports, *second.reports] == sorted(sent, key=lambda r: r.event_time.ToMicroseconds())
    assert (len(first.reports), second.next_page_token) == (3, "")
    request.learner_id = "bob"
    error = failure(lambda: own.stub.ListReports(request, metadata=own.metadata))
    assert reason(error) == "INVALID_PAGE_TOKEN", "another learner's page"
    nobody = pb.ListReportsRequest(experiment_id=made.experiment_id, learner_id="nobody")
    assert not own.stub.ListReports(nobody, metadata=own.metadata).reports


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


def test_a_clear_improvement_is_shipped_and_told_to_watchers(own: Lab) -> None:
    made = own.create(planned_sample=800)
    own.start(made.experiment_id)
    stream = own.watch(made.experiment_id)
    assert next(stream).results.verdict == results_pb.EXPERIMENT_VERDICT_CONTINUE
    reports = run_experiment(
        own, made.experiment_id, 800, lambda rng, treated: rng.gauss(24.0 if treated else 20.0, 6.0)
    )
    own.report(*reports, size=1_000)
    last = None
    for message in stream:
        last = message.results
        if sum(arm.exposed_count for arm in last.arms) == 800:
            break
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
        thread.join(PATIENCE_SECONDS)
    assert ended.is_set()


def test_creation_is_what_the_issue_writes() -> None:
    request = creation()
    assert (request.control_algorithm, request.treatment_algorithm) == (
        "content_based_v1",
        "collaborative_filtering_v2",
    )


def test_tenants_that_were_asked_about_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "DIRECTORY_SECONDS", 0.0)
    monkeypatch.setattr(intake, "MOST_TENANTS", 10)
    directory = intake.Directory(MemoryStore())
    for number in range(100):
        assert directory.of(f"made-up-{number}") == []
    assert len(directory._held) <= 10

"""Recommendations and experiments together: policies by arm, exposures, metrics, and a service that may be away."""

import random
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration

from genie.v1 import experiment_pb2 as resources
from genie.v1 import experiment_results_pb2 as results_pb
from genie.v1 import learner_service_pb2 as learner_pb
from genie.v1 import practice_service_pb2 as practice_pb
from genie.v1 import recommendation_service_pb2 as recommendation_pb
from server.experiments.junction import SNAPSHOTS
from server.experiments.spool import SPOOL
from store.api import Partition, Transaction
from store.experiment_reports import list_reports
from store.lmdb_store import LmdbStore
from store.stores import memory_stores
from tests.server.core import Core
from tests.server.experiments.world import Lab, lab, school
from tests.waiting import eventually

CONTROL, TREATMENT = "content_based_v1", "random_v1"


def known_to(core: Core, experiment_id: str, directory: Path) -> None:
    """Wait until the worker has heard of the experiment."""
    core.recommend("somebody-first", policy=CONTROL)
    path = directory / SNAPSHOTS / "tenant-default.experiments"
    core.recommend("somebody-else")
    eventually(lambda: path.exists() and experiment_id.encode() in path.read_bytes())


def begin(own: Lab, **fields: object) -> str:
    made = own.create(treatment_algorithm=TREATMENT, **fields)
    own.start(made.experiment_id)
    return made.experiment_id


def exposed(own: Lab, experiment_id: str) -> int:
    return sum(arm.exposed_count for arm in own.results(experiment_id).results.arms)


def practise(core: Core, learner: str, minutes: float, slate: recommendation_pb.Recommendation) -> None:
    """Answer the slate's first question; it takes `minutes`."""
    took = Duration()
    took.FromMilliseconds(round(minutes * 60e3))
    answer = practice_pb.Answer(
        answer_id=f"{learner}-{slate.recommendation_id}",
        learner_id=learner,
        question_id=slate.items[0].question_id,
        correct=True,
        duration=took,
    )
    reply = core.record(answer, answer)
    assert (reply.recorded_count, reply.duplicate_count) == (1, 1)


def test_learners_get_the_policy_of_their_arm_and_are_counted_once(tmp_path: Path) -> None:
    with lab() as own, school(tmp_path, f"127.0.0.1:{own.port}") as core:
        core.chain("counting", "adding")
        experiment_id = begin(own)
        known_to(core, experiment_id, tmp_path)
        seen = set()
        before = exposed(own, experiment_id)
        for number in range(20):
            slate = core.recommend(f"learner-{number}")
            again = core.recommend(f"learner-{number}")
            assert slate.policy == again.policy
            seen.add(slate.policy)
            assert core.recommend(f"learner-{number}", policy="popularity_v1").policy == "popularity_v1"
        assert seen == {CONTROL, TREATMENT}
        eventually(lambda: exposed(own, experiment_id) - before >= 20)
        core.recommend("named-only", policy=CONTROL)
        eventually(lambda: exposed(own, experiment_id) - before <= 21)
        own.stop(experiment_id)
        eventually(lambda: core.recommend("learner-1").policy == "hybrid_v1")


def test_feedback_and_answers_become_metrics(tmp_path: Path) -> None:
    with lab() as own, school(tmp_path, f"127.0.0.1:{own.port}") as core:
        core.chain("counting", "adding")
        metrics = ["accuracy", "click_through", "mastery_gain", "retention_day_1"]
        experiment_id = begin(own, secondary_metrics=metrics)
        known_to(core, experiment_id, tmp_path)
        slate = core.recommend("ada")
        practise(core, "ada", 3.0, slate)
        kinds = (recommendation_pb.FEEDBACK_KIND_SHOWN, recommendation_pb.FEEDBACK_KIND_CLICKED)
        events = [
            recommendation_pb.FeedbackEvent(
                event_id=f"{kind}-{item.rank}",
                learner_id="ada",
                recommendation_id=slate.recommendation_id,
                question_id=item.question_id,
                kind=kind,
            )
            for item in slate.items[:4]
            for kind in kinds[: 2 if item.rank == 1 else 1]
        ]
        core.recommendations.RecordFeedback(recommendation_pb.RecordFeedbackRequest(events=events))

        def means() -> dict[str, float]:
            results = own.results(experiment_id).results
            arm = next(arm for arm in results.arms if arm.algorithm == slate.policy)
            return {mean.metric: mean.mean * mean.learners_count for mean in arm.means}

        eventually(lambda: means()["click_through"] > 0.0 and means()["mastery_gain"] > 0.0)
        found = means()
        others = sum(arm.exposed_count for arm in own.results(experiment_id).results.arms) - 1
        assert found["practice_minutes"] == 3.0
        assert found["mastery_gain"] > 0.0
        assert others >= 0
        assert found["retention_day_1"] == 0.0, "nobody's second day has passed"


def test_reports_carry_the_correlation_id_of_the_call_behind_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with lab() as own, school(tmp_path, f"127.0.0.1:{own.port}") as core:
        core.chain("counting", "adding")
        experiment_id = begin(own, secondary_metrics=["click_through"])
        known_to(core, experiment_id, tmp_path)
        slate = core.recommendations.Recommend(
            recommendation_pb.RecommendRequest(learner_id="ada"), metadata=(("x-correlation-id", "show"),)
        ).recommendation
        question_id = slate.items[0].question_id
        answer = practice_pb.Answer(answer_id="a", learner_id="ada", question_id=question_id, correct=True)
        event = recommendation_pb.FeedbackEvent(
            event_id="e",
            learner_id="ada",
            recommendation_id=slate.recommendation_id,
            question_id=question_id,
            kind=recommendation_pb.FEEDBACK_KIND_CLICKED,
        )
        for correlation_id in ("tell", "tell again"):
            metadata = (("x-correlation-id", correlation_id),)
            core.practice.RecordAnswers(practice_pb.RecordAnswersRequest(answers=[answer]), metadata=metadata)
            core.recommendations.RecordFeedback(
                recommendation_pb.RecordFeedbackRequest(events=[event]), metadata=metadata
            )

        def told() -> dict[str, str]:
            with own.store.read(Partition("default", experiment_id)) as reader:
                reports = list_reports(reader, "ada")
            return {report.source: report.correlation_id for report in reports}

        eventually(lambda: len(told()) == 3)
        assert told() == {"": "show", "practice_minutes": "tell", "click_through": "tell"}
        eventually(lambda: not list((tmp_path / SPOOL).glob("*.spool")))
        refused = [record for record in caplog.records if "refused" in record.getMessage()]
        assert not refused, "what is told again is told in the same words, the time included"


def test_an_exposure_tells_what_was_before(tmp_path: Path) -> None:
    with lab() as own, school(tmp_path, f"127.0.0.1:{own.port}") as core:
        core.chain("counting", "adding")
        practise(core, "ada", 4.0, core.recommend("ada", policy=CONTROL))
        more = resources.MetricDefinition(name="days", source="activity", use_covariate=True)
        bare = resources.MetricDefinition(name="bare", source="activity")
        metrics = ["accuracy", "days", "bare", "click_through"]
        experiment_id = begin(own, secondary_metrics=metrics, metric_definitions=[more, bare])
        known_to(core, experiment_id, tmp_path)
        core.recommend("ada")
        core.recommend("bob")

        def told(learner: str) -> list[dict[str, float]]:
            with own.store.read(Partition("default", experiment_id)) as reader:
                return [report.covariates for report in list_reports(reader, learner) if not report.source]

        eventually(lambda: len(told("ada")) == len(told("bob")) == 1)
        assert told("ada") == [{"practice_minutes": 4.0, "accuracy": 2 / 3, "days": 1.0}]
        assert told("bob") == [{"practice_minutes": 0.0, "accuracy": 0.5, "days": 0.0}]


def test_an_erased_learner_is_gone_from_experiments_too(tmp_path: Path) -> None:
    with lab() as own, school(tmp_path, f"127.0.0.1:{own.port}") as core:
        core.chain("counting", "adding")
        experiment_id = begin(own)
        known_to(core, experiment_id, tmp_path)
        before = exposed(own, experiment_id)
        practise(core, "ada", 3.0, core.recommend("ada"))
        practise(core, "bob", 2.0, core.recommend("bob"))
        eventually(lambda: exposed(own, experiment_id) == before + 2)
        own.stop(experiment_id)
        core.learners.DeleteLearner(learner_pb.DeleteLearnerRequest(learner_id="ada"))
        eventually(lambda: exposed(own, experiment_id) == before + 1)
        with own.store.read(Partition("default", experiment_id)) as reader:
            assert list_reports(reader, "ada") == []
            assert len(list_reports(reader, "bob")) == 2
        again = own.value("ada", "practice_minutes", 9.0, experiment_id=experiment_id, at=time.time() - 60.0)
        assert own.report(again).ignored_count == 1, "what was on its way comes too late"


def test_an_answer_that_comes_while_its_learner_is_erased_leaves_no_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = memory_stores()
    with lab() as own, school(tmp_path, f"127.0.0.1:{own.port}", stores=stores) as core:
        core.chain("counting", "adding")
        experiment_id = begin(own)
        known_to(core, experiment_id, tmp_path)
        slate = core.recommend("ada")
        submit = stores.state.submit

        def slow(partition: Partition, operation: Callable[[Transaction], object]) -> "Future[object]":
            # The call to erase has come; nothing is erased yet.
            practise(core, "ada", 3.0, slate)
            return submit(partition, operation)

        monkeypatch.setattr(stores.state, "submit", slow)
        core.learners.DeleteLearner(learner_pb.DeleteLearnerRequest(learner_id="ada"))
        eventually(lambda: not list((tmp_path / SPOOL).glob("*.spool")))
        with own.store.read(Partition("default", experiment_id)) as reader:
            assert list_reports(reader, "ada") == []


def test_the_recommender_works_on_without_the_service_and_delivers_later(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    kept = tmp_path / "kept"
    with lab(store=LmdbStore(kept), port=port) as own:
        experiment_id = begin(own)
        with school(tmp_path, f"127.0.0.1:{port}") as core:
            core.chain("counting", "adding")
            known_to(core, experiment_id, tmp_path)
    with school(tmp_path, f"127.0.0.1:{port}") as core:
        core.chain("counting", "adding")
        policies = {core.recommend(f"learner-{number}").policy for number in range(20)}
        assert policies == {CONTROL, TREATMENT}, "assigned from the snapshot on disk"
        practise(core, "learner-3", 2.5, core.recommend("learner-3"))
    spool = tmp_path / "experiment_spool"
    assert list(spool.glob("*.spool"))
    with school(tmp_path, f"127.0.0.1:{port}"), lab(store=LmdbStore(kept), port=port) as own:
        eventually(lambda: exposed(own, experiment_id) == 20)
        results = own.results(experiment_id).results
        assert sum(arm.means[0].mean * arm.means[0].learners_count for arm in results.arms) == 2.5
        eventually(lambda: not list(spool.glob("*.spool")))


def test_a_rolled_back_experiment_gives_everybody_control(tmp_path: Path) -> None:
    with lab() as own, school(tmp_path, f"127.0.0.1:{own.port}") as core:
        core.chain("counting", "adding")
        guardrail = resources.Guardrail(metric="practice_minutes", margin_percent=1.0)
        experiment_id = begin(own, primary_metric="accuracy", guardrails=[guardrail], planned_sample=1_500)
        known_to(core, experiment_id, tmp_path)
        harm(own, experiment_id)
        eventually(lambda: {core.recommend(f"late-{n}").policy for n in range(12)} == {CONTROL})


def harm(own: Lab, experiment_id: str) -> None:
    """Reports by which the treatment costs half of the practice."""
    rng = random.Random(5)
    reports = []
    for number in range(500):
        exposure = own.exposure(experiment_id, f"reported-{number}")
        treated = exposure.exposure.arm == TREATMENT
        reports += [
            exposure,
            own.value(f"reported-{number}", "practice_minutes", rng.gauss(8.0 if treated else 16.0, 2.0)),
        ]
    own.report(*reports, size=1_000)


def test_a_simulated_classroom_is_decided_by_the_service(tmp_path: Path) -> None:
    """Learners practise a third longer with one of the policies, which only the simulation knows."""
    rng = random.Random(11)
    with lab() as own, school(tmp_path, f"127.0.0.1:{own.port}") as core:
        core.chain("counting", "adding", "taking")
        experiment_id = begin(own, planned_sample=240, secondary_metrics=["accuracy"])
        known_to(core, experiment_id, tmp_path)
        for number in range(250):
            learner = f"pupil-{number}"
            slate = core.recommend(learner)
            liking = 1.33 if slate.policy == TREATMENT else 1.0
            practise(core, learner, max(rng.gauss(12.0 * liking, 4.0), 0.1), slate)
        decided = None
        for message in own.watch(experiment_id):
            decided = message.results
            if decided.verdict != results_pb.EXPERIMENT_VERDICT_CONTINUE and decided.sample >= 250:
                break
        assert decided is not None
        assert decided.verdict == results_pb.EXPERIMENT_VERDICT_SHIP, decided.verdict_sentence
        assert decided.verdict_arm == TREATMENT
        primary = decided.comparisons[0]
        assert primary.lift_interval.lower < 0.33 < primary.lift_interval.upper
        assert decided.sample_ratio.p_value > 0.001

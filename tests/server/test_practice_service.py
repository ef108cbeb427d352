"""PracticeService through a real port: answers and what they do."""

import time
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from genie.v1 import learner_service_pb2 as learner_pb
from genie.v1 import practice_service_pb2 as pb
from genie.v1 import progress_pb2, resources_pb2
from tests.server.core import LEARNER, Core, at, core, fields_of, info_of, lasting
from tests.server.serving import detail, failure, reason

DAY = 86_400.0
RECORDED, DUPLICATE, REJECTED = (
    pb.ANSWER_STATUS_RECORDED,
    pb.ANSWER_STATUS_DUPLICATE,
    pb.ANSWER_STATUS_REJECTED,
)


def test_a_right_answer_raises_mastery(world: Core) -> None:
    reply = world.record(world.answer("add-1", duration=lasting(12), hints_used=1))
    assert (reply.recorded_count, reply.duplicate_count, reply.rejected_count) == (1, 0, 0)
    result = reply.results[0]
    assert (result.answer_id, result.status, result.late) == ("answer-1", RECORDED, False)
    assert 0.0 < result.predicted_success < 1.0
    own = result.mastery_changes[0]
    assert (own.concept_id, own.weight) == ("add", 1.0)
    assert own.mastery_before < own.mastery_after
    assert own.next_review_time.seconds > time.time()
    assert (result.streak.current_days, result.streak.practised_today) == (1, True)
    stats = world.stats()
    assert (stats.answers_count, stats.correct_count, stats.practice_duration.seconds) == (1, 1, 12)
    held = {mastery.concept_id: mastery.mastery for mastery in world.mastery()}
    assert held["add"] == pytest.approx(own.mastery_after, abs=1e-3)


def test_a_wrong_answer_lowers_mastery(world: Core) -> None:
    change = world.record(world.answer("add-1", correct=False)).results[0].mastery_changes[0]
    assert change.mastery_after < change.mastery_before


def test_a_repeat_changes_nothing_and_returns_the_earlier_result(world: Core) -> None:
    sent = world.answer("count-1", answered_at=at(time.time() - 60), session_id="s", device=2)
    first = world.record(sent).results[0]
    world.record(world.answer("count-2", correct=False))
    before = world.mastery()
    reply = world.record(sent)
    assert (reply.recorded_count, reply.duplicate_count) == (0, 1)
    again = reply.results[0]
    assert again.status == DUPLICATE
    assert again.answered_at == first.answered_at
    assert again.predicted_success == first.predicted_success
    for one, other in zip(again.mastery_changes, first.mastery_changes, strict=True):
        assert (one.mastery_before, one.mastery_after) == (other.mastery_before, other.mastery_after)
    assert world.stats().answers_count == 2
    assert [m.attempts_count for m in world.mastery()] == [m.attempts_count for m in before]


def test_a_repeat_without_a_time_is_a_repeat_whenever_it_comes(world: Core) -> None:
    sent = world.answer("count-1")
    first = world.record(sent).results[0]
    again = world.record(sent).results[0]
    assert (again.status, again.answered_at) == (DUPLICATE, first.answered_at)


def test_answers_that_were_exported_are_repeats_when_sent_again(world: Core) -> None:
    fine = [
        world.answer(
            "count-1", answered_at=Timestamp(seconds=int(time.time()) - 60 + i, nanos=i * 137_137_137)
        )
        for i in range(1, 8)
    ]
    world.record(*fine)
    for _ in range(8):
        world.record(world.answer("count-2"))
    told = world.learners.ExportLearner(
        learner_pb.ExportLearnerRequest(learner_id=LEARNER), metadata=world.metadata
    )
    answers = [one.answer.answer for one in told if one.WhichOneof("record") == "answer"]
    reply = world.record(*answers)
    assert (len(answers), reply.duplicate_count, reply.rejected_count) == (15, 15, 0)
    assert [result.answered_at for result in reply.results] == [answer.answered_at for answer in answers]
    assert world.record(*fine).duplicate_count == 7


def test_twice_in_one_call_counts_once(world: Core) -> None:
    sent = world.answer("count-1")
    reply = world.record(sent, world.answer("count-2"), sent)
    assert [result.status for result in reply.results] == [RECORDED, RECORDED, DUPLICATE]
    assert world.stats().answers_count == 2


@pytest.mark.parametrize(
    "other",
    [{"correct": False}, {"question_id": "count-2"}, {"hints_used": 1}, {"device": 1}, {"session_id": "x"}],
    ids=str,
)
def test_an_id_with_other_content_is_refused(world: Core, other: dict[str, object]) -> None:
    world.record(world.answer("count-1", answer_id="a"))
    reply = world.record(world.answer(**({"question_id": "count-1", "answer_id": "a"} | other)))  # type: ignore[arg-type]
    info = info_of(reply.results[0].error)
    assert reply.results[0].status == REJECTED
    assert (info.reason, dict(info.metadata)) == ("IDEMPOTENCY_KEY_REUSED", {"field": "answer_id", "id": "a"})
    assert world.stats().answers_count == 1


def test_the_same_answer_id_of_two_learners_is_two_answers(world: Core) -> None:
    reply = world.record(
        world.answer("count-1", answer_id="a", learner_id="ada"),
        world.answer("count-1", answer_id="a", learner_id="grace", correct=False),
    )
    assert [result.status for result in reply.results] == [RECORDED, RECORDED]
    assert [world.stats(name).correct_count for name in ("ada", "grace")] == [1, 0]


def test_answers_stand_alone(world: Core) -> None:
    reply = world.record(
        world.answer("count-1"),
        world.answer("nothing"),
        world.answer("count-2", learner_id=""),
        world.answer("count-3", learner_id="grace"),
        pb.Answer(answer_id="open", learner_id=LEARNER, question_id="count-1"),
    )
    assert [r.status for r in reply.results] == [RECORDED, REJECTED, REJECTED, RECORDED, REJECTED]
    assert (reply.recorded_count, reply.rejected_count) == (2, 3)
    unknown = info_of(reply.results[1].error)
    assert (unknown.reason, dict(unknown.metadata)) == ("QUESTION_NOT_FOUND", {"question_id": "nothing"})
    assert fields_of(reply.results[2].error) == ["answers[2].learner_id"]
    assert fields_of(reply.results[4].error) == ["answers[4].correct"]


def test_a_repeat_is_one_after_its_question_and_concept_are_gone(world: Core) -> None:
    world.chain("gone")
    sent = world.answer("gone-9", correct=False, answered_at=at(time.time() - 60), duration=lasting(7))
    first = world.record(sent).results[0]
    world.forget("gone", questions=10)
    again = world.record(sent, world.answer("gone-9"), world.answer("count-1"))
    assert [result.status for result in again.results] == [DUPLICATE, REJECTED, RECORDED]
    assert (again.recorded_count, again.duplicate_count, again.rejected_count) == (1, 1, 1)
    assert again.results[0].answered_at == first.answered_at
    assert again.results[0].predicted_success == first.predicted_success
    assert info_of(again.results[1].error).reason == "QUESTION_NOT_FOUND"
    for name, value in (("question_id", "gone-8"), ("hints_used", 1), ("answered_at", at(5.0))):
        other = pb.Answer()
        other.CopyFrom(sent)
        other.MergeFrom(pb.Answer(**{name: value}))  # type: ignore[arg-type]
        assert info_of(world.record(other).results[0].error).reason == "IDEMPOTENCY_KEY_REUSED"
    assert world.stats().answers_count == 2


def test_late_answers_lead_to_the_same_learner_as_answers_in_time(world: Core) -> None:
    base = time.time() - 20 * DAY
    sent = [
        ("count-1", True, base),
        ("add-1", False, base + 0.5 * DAY),
        ("count-2", True, base + 3 * DAY),
        ("add-2", True, base + 3.1 * DAY),
        ("multiply-1", True, base + 9 * DAY),
        ("count-1", False, base + 9.5 * DAY),
        ("add-3", True, base + 15 * DAY),
    ]

    def answers(learner_id: str, order: list[int]) -> list[pb.Answer]:
        return [
            world.answer(q, correct, answer_id=f"a-{i}", learner_id=learner_id, answered_at=at(when))
            for i in order
            for q, correct, when in [sent[i]]
        ]

    for answer in answers("in-time", [0, 1, 2, 3, 4, 5, 6]):
        assert not world.record(answer).results[0].late
    late = [world.record(answer).results[0].late for answer in answers("late", [6, 2, 0, 5, 1, 4, 3])]
    assert late == [False, True, True, True, True, True, True]
    world.record(*answers("at-once", [3, 6, 0, 5, 2, 1, 4]))
    expected = world.mastery("in-time")
    assert len(expected) == 3
    for learner_id in ("late", "at-once"):
        for one, other in zip(world.mastery(learner_id), expected, strict=True):
            # The moments of the calls differ, and forgetting goes on between them.
            assert one.mastery == pytest.approx(other.mastery, abs=1e-5)
            assert one.stability == other.stability
            assert one.next_review_time == other.next_review_time
            assert (one.attempts_count, one.correct_count) == (other.attempts_count, other.correct_count)


def test_an_answer_makes_its_learner(world: Core) -> None:
    world.record(world.answer("count-1", learner_id="nobody-yet"))
    learner = world.learners.GetLearner(
        learner_pb.GetLearnerRequest(learner_id="nobody-yet"), metadata=world.metadata
    ).learner
    assert (learner.time_zone, learner.display_name) == ("UTC", "")


def test_days_are_days_of_the_learners_own_time_zone(world: Core) -> None:
    tokyo = ZoneInfo("Asia/Tokyo")
    recently = datetime.now(tokyo) - timedelta(minutes=5)
    midnight = recently.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()
    world.create("in-tokyo", time_zone="Asia/Tokyo")
    world.create("in-london", time_zone="UTC")
    for learner_id, days in (("in-tokyo", 2), ("in-london", 1)):
        reply = world.record(
            world.answer("count-1", learner_id=learner_id, answered_at=at(midnight - 60)),
            world.answer("count-2", learner_id=learner_id, answered_at=at(midnight + 60)),
        )
        assert reply.results[0].streak.current_days == days
        assert world.stats(learner_id).streak.current_days == days


def test_a_streak_of_three_days_is_a_milestone(world: Core) -> None:
    now = time.time()
    results = [
        world.record(world.answer("count-1", answered_at=at(now - back * DAY))).results[0]
        for back in (2, 1, 0)
    ]
    assert [len(result.milestones) for result in results] == [0, 0, 1]
    milestone = results[2].milestones[0]
    assert (milestone.kind, milestone.threshold) == (resources_pb2.MILESTONE_KIND_STREAK_DAYS, 3)
    assert (milestone.reward.badge_id, milestone.reward.freezes_count) == ("streak-3", 0)
    assert world.record(world.answer("count-2")).results[0].milestones == []


def test_a_wrong_answer_names_the_gap_and_the_prerequisite_behind_it(world: Core) -> None:
    world.chain("dig", "plant", "reap", hard=True)
    now = time.time() - 7_200

    def give(concept: str, number: int, correct: bool, minute: int) -> pb.AnswerResult:
        question = f"{concept}-{number}"
        return world.record(world.answer(question, correct, answered_at=at(now + 60 * minute))).results[0]

    assert not give("dig", 0, False, 0).learning_gaps
    assert not give("dig", 1, True, 1).learning_gaps
    assert not give("reap", 0, False, 2).learning_gaps
    (gap,) = give("reap", 1, False, 3).learning_gaps
    assert (gap.concept_id, gap.attempts_count, gap.recent_wrong_count) == ("reap", 2, 2)
    assert gap.mastery < 0.7
    (cause,) = gap.causes
    assert (cause.concept_id, cause.kind) == ("dig", progress_pb2.GAP_CAUSE_KIND_NOT_LEARNED)
    assert list(cause.path_concept_ids) == ["dig", "plant", "reap"]
    assert not give("reap", 2, True, 4).learning_gaps
    # Wrong elsewhere: only the question's own concept is spoken of.
    assert not give("plant", 0, False, 5).learning_gaps
    sent = [
        world.answer(f"reap-{number}", number == 4, answered_at=at(now + 600 + number))
        for number in (3, 4, 5)
    ]
    found = [[gap.concept_id for gap in result.learning_gaps] for result in world.record(*sent).results]
    assert found == [["reap"], [], ["reap"]]
    again = world.record(sent[2]).results[0]
    assert again.status == pb.ANSWER_STATUS_DUPLICATE
    assert [gap.concept_id for gap in again.learning_gaps] == ["reap"]


def test_mastery_is_earned_once_and_lost_once(world: Core) -> None:
    base = time.time() - 10 * DAY
    steps = [(True, number) for number in range(40)] + [(False, number) for number in range(40, 80)]
    events = []
    for correct, number in steps:
        answer = world.answer(f"count-{number % 10}", correct, answered_at=at(base + 600 * number))
        change = world.record(answer).results[0].mastery_changes[0]
        if change.event:
            events.append(change.event)
            if change.event == resources_pb2.MASTERY_EVENT_MASTERED:
                assert change.mastery_after >= 0.85
            else:
                assert change.mastery_after < 0.7
    assert events == [resources_pb2.MASTERY_EVENT_MASTERED, resources_pb2.MASTERY_EVENT_LOST]


def test_answers_from_the_future(world: Core) -> None:
    now = time.time()
    reply = world.record(
        world.answer("count-1", answered_at=at(now + 0.9 * DAY)),
        world.answer("count-2", answered_at=at(now + 1.1 * DAY), answer_id="a"),
    )
    assert [result.status for result in reply.results] == [RECORDED, REJECTED]
    info = info_of(reply.results[1].error)
    assert (info.reason, info.metadata["answer_id"]) == ("ANSWER_FROM_FUTURE", "a")


def test_a_thousand_answers_and_no_more(world: Core) -> None:
    answers = [world.answer(f"count-{n % 10}", learner_id=f"l-{n % 7}") for n in range(1_001)]
    error = failure(lambda: world.record(*answers))
    assert reason(error) == "BATCH_TOO_LARGE"
    info = detail(error, error_details_pb2.ErrorInfo())
    assert info is not None
    assert dict(info.metadata) == {"field": "answers", "size": "1001", "limit": "1000"}
    assert reason(failure(world.record)) == "INVALID_FIELD"
    assert world.record(*answers[:1_000]).recorded_count == 1_000


def test_a_store_that_is_gone_is_told_as_such() -> None:
    with core(log_level="error") as running:
        running.chain("count")
        running.stores.state.close()
        for call in (
            lambda: running.record(running.answer("count-1")),
            lambda: running.recommend(),
        ):
            error = failure(call)
            assert (error.code(), reason(error)) == (grpc.StatusCode.UNAVAILABLE, "STORE_UNAVAILABLE")
            assert detail(error, error_details_pb2.RetryInfo()) is not None

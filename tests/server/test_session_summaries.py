"""Which answers the summary of a session counts, and for how long, on stores in memory."""

import pytest

from genie.v1 import practice_service_pb2 as pb
from server.convert import duration, timestamp
from store import learners
from store.api import Partition
from tests.server.learner_world import World
from tests.server.service_calls import NOW, a_call


def record(world: World, at: float, session_id: str, *, seconds: float = 0.0) -> None:
    """One answer given and received at `at`; of unknown duration when `seconds` is 0."""
    world.given += 1
    answer = pb.Answer(
        answer_id=f"a{world.given}",
        learner_id="ada",
        question_id=f"count-{world.given % 10}",
        correct=True,
        answered_at=timestamp(at),
        session_id=session_id,
    )
    if seconds:
        answer.duration.CopyFrom(duration(seconds))
    reply = world.practice.record_answers(pb.RecordAnswersRequest(answers=[answer]), a_call(now=at))
    assert pb.RecordAnswersResponse.FromString(reply.SerializeToString()).recorded_count == 1


def start(world: World, at: float) -> None:
    request = pb.StartSessionRequest(learner_id="ada", session_id="s-1", start_time=timestamp(at))
    world.practice.start_session(request, a_call(now=at))


def summary(world: World, at: float) -> pb.SessionSummary:
    request = pb.EndSessionRequest(learner_id="ada", session_id="s-1")
    call = a_call(now=at, method="/genie.v1.PracticeService/EndSession")
    return world.practice.end_session(request, call).session.summary


def test_answers_that_came_before_the_session_was_opened_count() -> None:
    world = World()
    record(world, NOW - 1_000, "s-0")
    record(world, NOW, "s-1")
    record(world, NOW + 1, "s-0")
    record(world, NOW + 2, "s-1")
    start(world, NOW + 3)
    record(world, NOW + 4, "s-1")
    record(world, NOW + 5, "")
    record(world, NOW + 6, "s-1")
    told = summary(world, NOW + 7)
    assert (told.answers_count, told.correct_count, told.accuracy) == (4, 4, 1.0)


def test_the_look_back_ends_after_many_answers_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners, "LOOK_BACK_ANSWERS", 3)
    world = World()
    names = ["s-1", "", "", "s-1", "", "s-11", "s-1", "s-1", ""]
    first = []
    for number, name in enumerate(names):
        record(world, NOW + number, name)
        with world.store.read(Partition("default", "ada")) as reader:
            first.append(learners.first_of_session(reader, "s-1"))
    # Two others in a row hide nothing, a third does.
    assert first == [1] * len(names)
    record(world, NOW + 10, "")
    record(world, NOW + 11, "")
    with world.store.read(Partition("default", "ada")) as reader:
        assert learners.first_of_session(reader, "s-1") == 12
        assert learners.first_of_session(reader, "s-9") == 12
    with world.store.read(Partition("default", "nobody")) as reader:
        assert learners.first_of_session(reader, "s-1") == 1


def test_practice_time_is_that_of_the_statistics() -> None:
    world = World()
    start(world, NOW)
    record(world, NOW, "s-1")
    record(world, NOW + 60, "s-1")
    record(world, NOW + 100, "s-1", seconds=25.0)
    record(world, NOW + 1_000, "s-1")
    record(world, NOW + 1_200, "s-1")
    told = summary(world, NOW + 1_300)
    assert told.practice_duration.seconds == 60 + 25 + 200
    assert told.practice_duration == world.stats("ada", now=NOW + 1_300).practice_duration

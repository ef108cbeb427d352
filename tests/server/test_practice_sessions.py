"""PracticeService through a real port: streams of answers, and sessions."""

import queue
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from genie.v1 import learner_service_pb2 as learner_pb
from genie.v1 import practice_service_pb2 as pb
from genie.v1 import resources_pb2
from tests.server.core import LEARNER, Core, at, core, fields_of, lasting
from tests.server.serving import detail, failure, reason
from tests.waiting import PATIENCE_SECONDS

RECORDED, DUPLICATE = pb.ANSWER_STATUS_RECORDED, pb.ANSWER_STATUS_DUPLICATE


def start(world: Core, session_id: str = "s-1", **more: object) -> pb.Session:
    request = pb.StartSessionRequest(learner_id=LEARNER, session_id=session_id, **more)  # type: ignore[arg-type]
    return world.practice.StartSession(request, metadata=world.metadata).session


def end(world: Core, session_id: str = "s-1", **more: object) -> pb.Session:
    request = pb.EndSessionRequest(
        **({"learner_id": LEARNER, "session_id": session_id} | more)  # type: ignore[arg-type]
    )
    return world.practice.EndSession(request, metadata=world.metadata).session


class Stream:
    """An open StreamAnswers."""

    def __init__(self, world: Core) -> None:
        self._sent: queue.Queue[pb.Answer | None] = queue.Queue()
        self.call = world.practice.StreamAnswers(
            self._requests(), metadata=world.metadata, timeout=PATIENCE_SECONDS
        )

    def _requests(self) -> Iterator[pb.StreamAnswersRequest]:
        while (answer := self._sent.get()) is not None:
            yield pb.StreamAnswersRequest(answer=answer)

    def send(self, *answers: pb.Answer) -> None:
        for answer in answers:
            self._sent.put(answer)

    def close(self) -> None:
        self._sent.put(None)

    def take(self) -> pb.AnswerResult:
        return next(self.call).result


def test_a_stream_is_acknowledged_in_order_after_the_commit(world: Core) -> None:
    stream = Stream(world)
    for number in range(5):
        stream.send(world.answer("count-1"))
        assert stream.take().status == RECORDED
        assert world.stats().answers_count == number + 1
    answers = [world.answer("add-1", learner_id=f"l-{n % 3}") for n in range(300)]
    answers[17] = world.answer("nothing")
    stream.send(*answers)
    stream.close()
    results = [message.result for message in stream.call]
    assert [result.answer_id for result in results] == [answer.answer_id for answer in answers]
    assert [n for n, result in enumerate(results) if result.status != RECORDED] == [17]
    assert fields_of(results[17].error) == []
    assert world.stats("l-1").answers_count == 100


def test_after_a_broken_stream_everything_can_be_sent_again(world: Core) -> None:
    answers = [world.answer(f"count-{n}") for n in range(10)]
    stream = Stream(world)
    stream.send(*answers[:5])
    assert {stream.take().status for _ in range(5)} == {RECORDED}
    stream.call.cancel()
    stream.close()
    again = Stream(world)
    again.send(*answers)
    again.close()
    assert [m.result.status for m in again.call] == [DUPLICATE] * 5 + [RECORDED] * 5
    assert world.stats().answers_count == 10


def test_a_stream_with_a_message_that_is_none_ends_with_the_reason(world: Core) -> None:
    call: Any = world.channel.stream_stream("/genie.v1.PracticeService/StreamAnswers")
    error = failure(
        lambda: list(call(iter([b"\xff\xff"]), metadata=world.metadata, timeout=PATIENCE_SECONDS))
    )
    assert reason(error) == "MALFORMED_REQUEST"


def test_a_session_is_opened_once(world: Core) -> None:
    first = start(world, device=resources_pb2.DEVICE_TABLET, available_duration=lasting(900))
    assert first.start_time.seconds == pytest.approx(time.time(), abs=60)
    assert not first.HasField("end_time")
    assert not first.HasField("summary")
    same = start(world, device=resources_pb2.DEVICE_TABLET, available_duration=lasting(900))
    assert same == first
    error = failure(lambda: start(world, device=resources_pb2.DEVICE_PHONE, available_duration=lasting(900)))
    assert (error.code(), reason(error)) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_KEY_REUSED")
    assert world.stats().answers_count == 0


def test_a_session_is_summed_up(world: Core) -> None:
    start(world)
    own: dict[str, Any] = {"session_id": "s-1", "duration": lasting(30)}
    world.record(
        world.answer("count-1", **own),
        world.answer("add-1", correct=False, **own),
        world.answer("add-2", **own),
        world.answer("multiply-1", duration=lasting(500)),
    )
    summary = end(world).summary
    assert (summary.answers_count, summary.correct_count) == (3, 2)
    assert summary.accuracy == pytest.approx(2 / 3)
    assert summary.practice_duration.seconds == 90
    assert list(summary.practised_concept_ids) == ["count", "add"]
    assert summary.streak.current_days == 1
    assert 0.0 < summary.daily_goal.progress <= 1.0
    world.record(world.answer("count-2", **own))
    exported = world.learners.ExportLearner(
        learner_pb.ExportLearnerRequest(learner_id=LEARNER), metadata=world.metadata
    )
    assert [m.session.summary.answers_count for m in exported if m.HasField("session")] == [3]


def test_a_session_without_answers_has_no_accuracy(world: Core) -> None:
    start(world)
    assert not end(world).summary.HasField("accuracy")


def test_a_session_ends_once(world: Core) -> None:
    start(world)
    ended = end(world, request_id="r")
    assert end(world, request_id="r") == ended
    assert reason(failure(lambda: end(world, request_id="r", end_time=at(time.time())))) == (
        "IDEMPOTENCY_KEY_REUSED"
    )
    for more in ({}, {"request_id": "r2"}):
        error = failure(lambda more=more: end(world, **more))  # type: ignore[misc]
        assert reason(error) == "SESSION_ALREADY_ENDED"
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_sessions_that_cannot_be_ended(world: Core) -> None:
    assert reason(failure(lambda: end(world, learner_id="nobody"))) == "LEARNER_NOT_FOUND"
    start(world)
    assert reason(failure(lambda: end(world, "s-2"))) == "SESSION_NOT_FOUND"
    error = failure(lambda: end(world, end_time=at(time.time() - 3600)))
    bad = detail(error, error_details_pb2.BadRequest())
    assert bad is not None
    assert [violation.field for violation in bad.field_violations] == ["end_time"]


def test_a_session_of_a_store_that_is_gone_is_told_as_such() -> None:
    with core(log_level="error") as running:
        running.stores.state.close()
        assert reason(failure(lambda: start(running))) == "STORE_UNAVAILABLE"

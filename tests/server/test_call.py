"""Calls wait inside a stream for as long as somebody waits for them."""

import threading
from collections.abc import Iterator

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from server import errors
from server.rpc import Call
from tests.server.echo import Echo
from tests.server.serving import failure, serving
from tests.waiting import PATIENCE_SECONDS, eventually


class Paused:
    """Streams that send one message and then pause for an hour, and what they ended with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[Call] = []
        self.paused = 0
        self.ended: list[type[errors.GenieError]] = []
        monkeypatch.setattr(Echo, "count_up", lambda _, request, call: self._stream(request, call))

    def _stream(self, request: StringValue, call: Call) -> Iterator[StringValue]:
        self.calls.append(call)
        call.pause(0.0)
        yield request
        self.paused += 1
        try:
            call.pause(3_600.0)
        except errors.GenieError as error:
            self.ended.append(type(error))
            raise


def test_a_caller_who_goes_wakes_the_stream_that_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    paused = Paused(monkeypatch)
    with serving(max_streams=2) as running:
        for number in range(6):
            stream = running.client.count_up(StringValue(value="x"))
            assert next(stream).value == "x"
            eventually(lambda expected=number: paused.paused > expected)  # type: ignore[misc]
            stream.cancel()
            eventually(lambda: running.genie.runtime.stream_pool.unfinished == 0)
    assert paused.ended == [errors.CallCancelled] * 6


def test_a_drain_and_a_deadline_wake_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    paused = Paused(monkeypatch)
    with serving(drain_seconds=PATIENCE_SECONDS) as running:
        late = failure(lambda: list(running.client.count_up(StringValue(value="x"), timeout=0.3)))
        assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        eventually(lambda: running.genie.runtime.stream_pool.unfinished == 0)
        stream = running.client.count_up(StringValue(value="x"))
        assert next(stream).value == "x"
        eventually(lambda: paused.paused == 2)
        drain = threading.Thread(target=running.genie.drain, kwargs={"notice": False})
        drain.start()
        assert failure(lambda: next(stream)).code() is grpc.StatusCode.UNAVAILABLE
        drain.join()
    assert paused.ended[-1] is errors.ServerDraining


def test_pauses_of_a_call_leave_one_thing_to_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    """gRPC keeps every callback until the call ends, which for who watches may be never."""
    paused = Paused(monkeypatch)
    with serving() as running:
        stream = running.client.count_up(StringValue(value="x"))
        eventually(lambda: paused.paused == 1)
        registered = paused.calls[0]._context._state.callbacks  # type: ignore[attr-defined]
        before = len(registered)
        for _ in range(5):
            paused.calls[0].pause(0.0)
        assert len(registered) == before
        stream.cancel()

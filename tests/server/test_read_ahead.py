"""Calls whose message is read ahead end as all others do, whatever the caller sends or fails to send."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc import _server

from server import read_ahead
from tests.server.serving import Running, failure, reason, serving
from tests.waiting import PATIENCE_SECONDS, eventually

SAY = "/genie.tests.Echo/Say"


@pytest.fixture(params=["ahead", "too many wait", "an unknown grpcio"])
def running(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    if request.param == "too many wait":
        monkeypatch.setattr(read_ahead, "MOST_AHEAD", 0)
    elif request.param == "an unknown grpcio":
        monkeypatch.setattr(read_ahead, "_RECEIVING", None)
    with serving(brief=frozenset({SAY}), threads=2) as found:
        yield found


def say(text: str) -> StringValue:
    return StringValue(value=text)


def test_replies_and_errors_are_the_same(running: Running) -> None:
    client = running.client
    assert client.say(say("hello")).value == "hello"
    assert client.say(say("")).value == ""
    assert client.say(say("x" * 1_000_000)).value == "x" * 1_000_000
    assert reason(failure(lambda: client.say(say("missing u-1")))) == "LEARNER_NOT_FOUND"
    assert reason(failure(lambda: client.raw_say(b"\xff\xff"))) == "MALFORMED_REQUEST"
    assert [client.say.future(say(str(number))).result().value for number in range(50)] == [
        *map(str, range(50))
    ]


def test_a_caller_who_sends_no_message_is_told_so(running: Running) -> None:
    no_message: Any = running.channel.stream_unary(SAY, StringValue.SerializeToString)
    error = failure(lambda: no_message(iter([]), timeout=PATIENCE_SECONDS))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert error.details() == f"{SAY} requires exactly one request message."
    assert running.client.say(say("again")).value == "again"


def test_calls_that_are_cancelled_while_they_wait_leave_nothing_behind(
    running: Running, tmp_path: Path
) -> None:
    held = [running.client.say.future(say(f"hold {tmp_path}")) for _ in range(2)]
    eventually(lambda: len(list(tmp_path.iterdir())) == 2)
    waiting = [running.client.say.future(say(f"wait {number}")) for number in range(5)]
    pool = running.genie._brief
    eventually(lambda: pool.unfinished == 7)
    for call in waiting[:3]:
        call.cancel()
    (tmp_path / "go").touch()
    assert [call.result().value for call in held] == [f"hold {tmp_path}"] * 2
    assert [call.result().value for call in waiting[3:]] == ["wait 3", "wait 4"]
    eventually(lambda: pool.unfinished == 0)


def test_a_message_is_asked_for_on_the_thread_that_delivers_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    ask = _server._RequestIterator._raise_or_start_receive_message

    def noted(requests: Any) -> None:
        threads.append(threading.current_thread().name)
        ask(requests)

    monkeypatch.setattr(_server._RequestIterator, "_raise_or_start_receive_message", noted)
    with serving(brief=frozenset({SAY})) as running:
        assert running.client.say(say("hello")).value == "hello"
    assert len(threads) == 1
    assert not threads[0].startswith("brief")

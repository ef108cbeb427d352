"""Callers who send nothing or read nothing hold up others only so long, and fill no memory."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.wrappers_pb2 import StringValue

from server import app, direct, intake
from server.admission import CallPool, InlineQueue, Waiting
from server.app import Assembly, Genie
from server.config import Settings
from server.intake import Intake
from server.rpc import Call
from tests.server.echo import Echo
from tests.server.raw_caller import RawCaller
from tests.server.serving import failure, reason, serving
from tests.waiting import PATIENCE_SECONDS, eventually

SAY = "/genie.tests.Echo/Say"


class Pair:
    """Two unary methods: one brief, one on threads."""

    def brief(self, request: StringValue, _: Call) -> StringValue:
        return request

    def other(self, request: StringValue, _: Call) -> StringValue:
        return request


def _pair() -> Any:
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/pair.proto",
        package="genie.tests",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    service = file.service.add(name="Pair")
    for name in ("Brief", "Other"):
        string = ".google.protobuf.StringValue"
        service.method.add(name=name, input_type=string, output_type=string)
    found = descriptor_pool.Default().AddSerializedFile(file.SerializeToString())
    return found.services_by_name["Pair"]


def silent(channel: grpc.Channel, path: str, until: threading.Event) -> Any:
    """A call whose message does not come."""

    def messages() -> Iterator[StringValue]:
        until.wait(PATIENCE_SECONDS)
        yield StringValue(value="too late")

    call: Any = channel.stream_unary(path, StringValue.SerializeToString)
    return call.future(messages())


def test_a_thread_that_always_has_calls_to_serve_still_gives_up_those_who_send_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    saturated, ended = threading.Event(), threading.Event()

    class Saturated(InlineQueue):
        """A queue in which more calls wait than a round serves, all the time."""

        def __len__(self) -> int:
            return 17 if saturated.is_set() else super().__len__()

        def serve_next(self, most: int, serve: Callable[[Sequence[Waiting]], object]) -> None:
            if self._waiting:
                super().serve_next(most, serve)

    monkeypatch.setattr(app, "InlineQueue", Saturated)
    monkeypatch.setattr(direct, "InlineQueue", Saturated)
    monkeypatch.setattr(intake, "_MOST_READ", 2)
    monkeypatch.setattr(intake, "_SEND_SECONDS", 0.2)
    assembly = Assembly(services=[(_pair(), Pair())], brief=frozenset({"/genie.tests.Pair/Brief"}))
    genie = Genie(Settings(port=0, threads=1, max_queue_ms=60_000), lambda *_: assembly)
    port = genie.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            calls = [silent(channel, "/genie.tests.Pair/Other", ended) for _ in range(2)]
            eventually(lambda: genie._direct is not None and genie._direct.open == 2)
            saturated.set()
            other: Any = channel.unary_unary(
                "/genie.tests.Pair/Other", StringValue.SerializeToString, StringValue.FromString
            )
            assert other(StringValue(value="x"), timeout=PATIENCE_SECONDS / 2).value == "x"
            assert all(call.code() is grpc.StatusCode.CANCELLED for call in calls)
            ended.set()
    finally:
        saturated.clear()
        ended.set()
        genie.drain(notice=False)


@pytest.mark.parametrize("brief", [frozenset({SAY}), frozenset[str]()])
def test_calls_behind_those_who_send_nothing_are_refused_as_soon_as_others(
    brief: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_MOST_READ", 2)
    monkeypatch.setattr(intake, "_SEND_SECONDS", 3_600.0)
    ended = threading.Event()
    with serving(brief=brief, max_queue_ms=50) as running:
        calls = [silent(running.channel, SAY, ended) for _ in range(2)]
        eventually(lambda: running.genie._direct is not None and running.genie._direct.open == 2)
        for _ in range(3):
            error = failure(lambda: running.client.say(StringValue(value="x"), timeout=PATIENCE_SECONDS))
            assert reason(error) == "SERVER_OVERLOADED"
        assert not any(call.done() for call in calls), "nobody is cut off who may still send"
        ended.set()
        assert {StringValue.FromString(call.result()).value for call in calls} == {"too late"}
        eventually(lambda: running.genie._direct is not None and running.genie._direct.open == 0)
        assert running.client.say(StringValue(value="x")).value == "x"


class Delivered:
    """A call that notes what becomes of it."""

    def __init__(self) -> None:
        self.fate = "waits"

    def read(self) -> None:
        self.fate = "is read"

    def give_up(self) -> None:
        self.fate = "is given up"

    def turn_away(self) -> None:
        self.fate = "is refused"


def test_where_calls_are_served_those_behind_wait_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_MOST_READ", 2)
    pool = CallPool(threads=1, limit=10, name="test", queue_seconds=1.0)
    found = Intake(pool)
    calls = [Delivered() for _ in range(4)]
    for call in calls:
        found.take(call)
    later = time.monotonic() + 5.0
    found.received(calls[0])
    found.give_up_late(later)
    assert [call.fate for call in calls] == ["is read", "is read", "waits", "waits"], "one is being served"
    found.replied(calls[0], 0)
    found.give_up_late(time.monotonic())
    assert [call.fate for call in calls] == ["is read", "is read", "is read", "waits"]
    assert (pool.unread, pool.full) == (1, False)
    pool.unread_since -= 5.0
    assert pool.full
    found.give_up_late(later)
    assert [call.fate for call in calls] == ["is read", "is read", "is read", "is refused"]
    assert (pool.unread, pool.full) == (0, False)


@pytest.mark.parametrize("brief", [frozenset({SAY}), frozenset[str]()])
def test_replies_that_nobody_reads_are_bounded(
    brief: frozenset[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def say(_: Echo, request: StringValue, call: Call) -> StringValue:
        return StringValue(value=request.value * 100_000)

    monkeypatch.setattr(Echo, "say", say)
    monkeypatch.setattr(direct, "_MOST_UNSENT", 650_000)
    with serving(brief=brief, max_queue_ms=60_000) as running, RawCaller(running.port, window=0) as stalled:
        calls = running.genie._direct
        assert calls is not None
        for _ in range(4):
            stalled.call(SAY, StringValue(value="x").SerializeToString())
        eventually(lambda: calls._overfull)
        error = failure(lambda: running.client.say(StringValue(value="x"), timeout=PATIENCE_SECONDS))
        assert reason(error) == "SERVER_OVERLOADED"
        eventually(lambda: calls.open == 4)
        monkeypatch.setattr(intake, "_REPLY_SECONDS", 0.0)
        eventually(lambda: not calls._overfull)
        eventually(lambda: calls.open == 0)
        reply = running.client.say(StringValue(value="x"), timeout=PATIENCE_SECONDS)
        assert len(reply.value) == 100_000

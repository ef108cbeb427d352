"""Calls that are taken from gRPC's core directly end as all others do, whatever the caller sends or fails to send."""

import contextlib
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from server import direct, intake
from server.admission import CallPool, InlineQueue, Waiting, WouldWait
from server.app import Assembly, Genie
from server.config import Settings
from server.rpc import Call
from tests.server.echo import ECHO, Echo
from tests.server.raw_caller import RawCaller
from tests.server.serving import Running, failure, reason, serving
from tests.waiting import PATIENCE_SECONDS, eventually

SAY = "/genie.tests.Echo/Say"


DIRECT = ["by the thread that polls", "on threads"]


@pytest.fixture(params=[*DIRECT, "an unknown grpcio"])
def running(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Running]:
    brief = frozenset({SAY}) if request.param == "by the thread that polls" else frozenset[str]()
    if request.param == "an unknown grpcio":
        monkeypatch.setattr(direct, "cygrpc", object())
    with serving(brief=brief, threads=2, max_message_bytes=1 << 20, max_queue_ms=60_000) as found:
        assert (found.genie._direct is None) == (request.param == "an unknown grpcio")
        yield found


def say(text: str) -> StringValue:
    return StringValue(value=text)


def held(running: Running, directory: Path, count: int = 1) -> list[Any]:
    """Calls that wait in their handler until `go` is there."""
    calls = [running.client.say.future(say(f"hold {directory}")) for _ in range(count)]
    eventually(lambda: len(list(directory.iterdir())) == count)
    return calls


def test_replies_and_errors_are_the_same(running: Running) -> None:
    client = running.client
    assert client.say(say("hello")).value == "hello"
    assert client.say(say("")).value == ""
    assert client.say(say("x" * 1_000_000)).value == "x" * 1_000_000
    assert reason(failure(lambda: client.say(say("missing u-1")))) == "LEARNER_NOT_FOUND"
    assert reason(failure(lambda: client.raw_say(b"\xff\xff"))) == "MALFORMED_REQUEST"
    broken = failure(lambda: client.say(say("broken")))
    assert (broken.code(), reason(broken)) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    too_long = failure(lambda: client.say(say("x" * 2_000_000)))
    assert too_long.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert client.say(say("again")).value == "again"


def test_headers_come_and_go(running: Running) -> None:
    _, call = running.client.say.with_call(say("x"), metadata=[("x-correlation-id", "c-7")], timeout=60.0)
    assert ("x-correlation-id", "c-7") in call.trailing_metadata()
    error = failure(lambda: running.client.say(say("missing u-1"), metadata=[("x-correlation-id", "c-8")]))
    assert ("x-correlation-id", "c-8") in error.trailing_metadata()
    assert 0.0 < running.echo.calls[0].remaining() < 61.0
    assert running.echo.calls[1].remaining() > 1e6, "no deadline"


def test_many_calls_at_once_each_get_their_own_reply(running: Running) -> None:
    futures = [running.client.say.future(say(f"{number} {'x' * (number % 50)}")) for number in range(100)]
    replies = [call.result().value for call in futures]
    assert replies == [f"{number} {'x' * (number % 50)}" for number in range(100)]
    unary = running.genie.runtime.unary_pool
    eventually(lambda: unary.unfinished == running.genie._brief.unfinished == 0)


def test_a_caller_who_sends_no_message_is_told_so(running: Running) -> None:
    no_message: Any = running.channel.stream_unary(SAY, StringValue.SerializeToString)
    error = failure(lambda: no_message(iter([]), timeout=PATIENCE_SECONDS))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "requires exactly one request message" in error.details()
    assert running.client.say(say("again")).value == "again"


def test_a_caller_who_takes_long_to_send_holds_nobody_up(running: Running) -> None:
    go = threading.Event()

    def slowly() -> Iterator[StringValue]:
        go.wait(PATIENCE_SECONDS)
        yield say("at last")

    slow: Any = running.channel.stream_unary(SAY, StringValue.SerializeToString, StringValue.FromString)
    # gRPC alone gives such a call a thread, of which there are two.
    calls = [slow.future(slowly()) for _ in range(8 if running.genie._direct is not None else 1)]
    assert running.client.say(say("meanwhile"), timeout=PATIENCE_SECONDS).value == "meanwhile"
    go.set()
    assert {call.result().value for call in calls} == {"at last"}


def test_only_some_messages_are_read_before_their_turn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(intake, "_MOST_READ", 3)
    with serving(threads=1, max_concurrent_calls=10, max_queue_ms=60_000) as running:
        pool = running.genie.runtime.unary_pool
        (first,) = held(running, tmp_path)
        others = [running.client.say.future(say(f"wait {number}")) for number in range(9)]
        eventually(lambda: (pool.unfinished, pool.unread) == (3, 7))
        assert reason(failure(lambda: running.client.say(say("x")))) == "SERVER_OVERLOADED"
        others[7].cancel()
        (tmp_path / "go").touch()
        assert first.result().value == f"hold {tmp_path}"
        kept = [call.result().value for call in others if not call.cancelled()]
        assert kept == [f"wait {number}" for number in range(9) if number != 7]
        eventually(lambda: (pool.unfinished, pool.unread) == (0, 0))


def test_callers_who_never_send_make_room_for_others_however_busy_the_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "_MOST_READ", 2)
    monkeypatch.setattr(intake, "_SEND_SECONDS", 0.3)
    never = threading.Event()
    with serving(threads=1, max_concurrent_calls=1, max_queue_ms=60_000) as running:

        def silent() -> Iterator[StringValue]:
            never.wait(PATIENCE_SECONDS)
            yield say("too late")

        slow: Any = running.channel.stream_unary(SAY, StringValue.SerializeToString)
        calls = [slow.future(silent()) for _ in range(2)]
        genie = running.genie
        eventually(lambda: genie._direct is not None and genie._direct.open == 2)
        waiting = running.client.say.future(say("x"))
        eventually(lambda: genie.runtime.unary_pool.unread == 1)
        until = time.monotonic() + PATIENCE_SECONDS / 2
        while not waiting.done() and time.monotonic() < until:
            # Refused, which the thread that polls hears of: it is never without an event for long.
            with contextlib.suppress(grpc.RpcError):
                running.client.say(say("busy"))
        assert waiting.done()
        assert waiting.result().value == "x"
        assert any(call.done() for call in calls)
        never.set()


def test_calls_that_are_cancelled_leave_nothing_behind(running: Running, tmp_path: Path) -> None:
    pools = running.genie.runtime.unary_pool, running.genie._brief
    at_once = 1 if isinstance(pools[1], InlineQueue) and running.genie._assembly.brief else 2
    first = held(running, tmp_path, at_once)
    waiting = [running.client.say.future(say(f"wait {number}")) for number in range(5)]
    for call in waiting[:3]:
        call.cancel()
    (tmp_path / "go").touch()
    assert [call.result().value for call in first] == [f"hold {tmp_path}"] * at_once
    assert [call.result().value for call in waiting[3:]] == ["wait 3", "wait 4"]
    eventually(lambda: sum(pool.unfinished for pool in pools) == 0)


def test_a_call_on_a_thread_learns_that_its_caller_has_gone(tmp_path: Path) -> None:
    with serving(threads=1) as running:
        (call,) = held(running, tmp_path)
        assert running.echo.calls[0].is_active()
        call.cancel()
        eventually(lambda: not running.echo.calls[0].is_active())
        (tmp_path / "go").touch()


@pytest.mark.parametrize("brief", [frozenset({SAY}), frozenset[str]()])
def test_a_drain_serves_every_call_that_has_been_delivered(brief: frozenset[str], tmp_path: Path) -> None:
    with serving(brief=brief, threads=1, drain_seconds=PATIENCE_SECONDS) as running:
        first = held(running, tmp_path)
        behind = [running.client.say.future(say(f"behind {number}")) for number in range(20)]
        assert running.genie._direct is not None
        eventually(lambda: brief or running.genie.runtime.unary_pool.unfinished == 21)
        time.sleep(0.2)
        threading.Timer(0.5, (tmp_path / "go").touch).start()
        assert running.genie.drain(notice=False)
        assert [call.result().value for call in first + behind] == [
            f"hold {tmp_path}",
            *(f"behind {number}" for number in range(20)),
        ]
        assert running.genie._direct.open == 0
        assert not running.genie._direct.alive


@pytest.mark.parametrize("brief", [frozenset({SAY}), frozenset[str]()])
def test_a_drain_finishes_calls_and_cuts_off_those_that_take_too_long(
    brief: frozenset[str], tmp_path: Path
) -> None:
    with serving(brief=brief, threads=1, drain_seconds=PATIENCE_SECONDS) as running:
        (call,) = held(running, tmp_path)
        threading.Timer(0.1, (tmp_path / "go").touch).start()
        assert running.genie.drain(notice=False)
        assert call.result().value == f"hold {tmp_path}"
    (tmp_path / "again").mkdir()
    with serving(brief=brief, threads=1, drain_seconds=0.05) as running:
        (call,) = held(running, tmp_path / "again")
        assert not running.genie.drain(notice=False)
        assert failure(call.result).code() in {grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE}
        # Its handler ends after everything else has: its reply goes nowhere, and nothing breaks.
        (tmp_path / "again" / "go").touch()
        eventually(lambda: running.genie._brief.unfinished + running.genie._unary.unfinished == 0)
        assert running.genie._direct is not None
        ending = running.genie._direct
        eventually(lambda: not ending.alive)


def test_a_server_that_never_started_can_be_closed() -> None:
    never = Genie(Settings(port=0), lambda *_: Assembly(services=[(ECHO, Echo())]))
    assert never.drain(notice=False)


def test_the_grpcio_that_is_installed_is_known() -> None:
    assert direct.core_of(grpc.server(ThreadPoolExecutor(1))) is not None


def test_calls_that_wait_for_the_polling_thread_are_bounded_by_their_wait() -> None:
    served: list[bytes] = []

    def slow(waiting: Sequence[Waiting]) -> None:
        served.extend(message for _, message in waiting)
        time.sleep(0.01 * len(waiting))

    queue = InlineQueue(CallPool(threads=1, limit=1, name="later"), limit=10, queue_seconds=0.025)
    for number in range(9):
        queue.put(None, bytes([number]))
    assert (len(queue), queue.unfinished, queue.full) == (9, 9, False), (
        "how long a call takes is not known yet"
    )
    queue.serve_next(1, slow)
    queue.serve_next(2, slow)
    assert queue.full, "six wait, of 10 ms each"
    queue.serve_next(5, slow)
    assert (len(queue), queue.full) == (1, False)
    queue.serve_next(8, slow)
    assert served == [bytes([number]) for number in range(9)]
    for _ in range(10):
        queue.put(None, b"")
    assert queue.full, "as many as are taken at all"


@pytest.mark.parametrize("running", DIRECT, indirect=True)
@pytest.mark.parametrize("wrong", [ZeroDivisionError, SystemExit])
def test_a_handler_that_fails_unexpectedly_fails_its_own_call_only(
    wrong: type[BaseException], running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running.genie.runtime.counters, "count", Mock(side_effect=wrong("no memory")))
    error = failure(lambda: running.client.say(say("x"), timeout=PATIENCE_SECONDS))
    assert error.code() is grpc.StatusCode.UNKNOWN
    monkeypatch.undo()
    assert running.client.say(say("again"), timeout=PATIENCE_SECONDS).value == "again"
    eventually(lambda: _open(running) == 0)


@pytest.mark.parametrize("running", DIRECT, indirect=True)
def test_a_refusal_that_fails_ends_its_call(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running.genie._brief, "limit", 0)
    monkeypatch.setattr(running.genie.runtime.unary_pool, "limit", 0)
    monkeypatch.setattr(running.genie.runtime.counters, "shed", Mock(side_effect=RuntimeError))
    error = failure(lambda: running.client.say(say("x"), timeout=PATIENCE_SECONDS))
    assert error.code() is grpc.StatusCode.UNKNOWN
    eventually(lambda: _open(running) == 0)


def test_a_call_that_would_wait_is_served_on_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    where: list[tuple[str, bool]] = []

    def wait(_: Echo, request: StringValue, call: Call) -> StringValue:
        where.append((threading.current_thread().name, call.may_wait))
        if not call.may_wait:
            raise WouldWait
        return request

    monkeypatch.setattr(Echo, "say", wait)
    with serving(brief=frozenset({SAY})) as running:
        assert running.client.say(say("x")).value == "x"
        eventually(lambda: _open(running) == running.genie._brief.unfinished == 0)
    assert where == [("direct", False), ("brief_0", True)]


def test_calls_that_would_wait_leave_room_for_those_that_would_not(monkeypatch: pytest.MonkeyPatch) -> None:
    hold = threading.Event()

    def wait(_: Echo, request: StringValue, call: Call) -> StringValue:
        if request.value == "at once":
            return request
        if not call.may_wait:
            raise WouldWait
        assert hold.wait(PATIENCE_SECONDS)
        return request

    monkeypatch.setattr(Echo, "say", wait)
    with serving(brief=frozenset({SAY}), max_concurrent_calls=8) as running, ThreadPoolExecutor(4) as callers:
        waiting = [callers.submit(running.client.say, say("x"), timeout=PATIENCE_SECONDS) for _ in range(4)]
        eventually(lambda: running.genie._brief.unfinished == 4)
        error = failure(lambda: running.client.say(say("x"), timeout=PATIENCE_SECONDS))
        assert reason(error) == "SERVER_OVERLOADED"
        assert running.client.say(say("at once"), timeout=PATIENCE_SECONDS).value == "at once"
        hold.set()
        assert [one.result().value for one in waiting] == ["x"] * 4
        eventually(lambda: _open(running) == running.genie._brief.unfinished == 0)


def test_callers_who_do_not_read_their_replies_hold_nobody_up(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "_MOST_READ", 2)
    with RawCaller(running.port, window=0) as stalled:
        for _ in range(4):
            stalled.call(SAY, say("never read").SerializeToString())
        eventually(lambda: len(running.echo.calls) == 4)
        assert running.client.say(say("x"), timeout=PATIENCE_SECONDS).value == "x"
    eventually(lambda: _open(running) == 0)


def test_streams_that_are_reset_at_any_moment_leave_nothing_behind(running: Running) -> None:
    luck = random.Random(7)
    for _ in range(20):
        with RawCaller(running.port, window=luck.choice([0, 1, 65_535])) as caller:
            for _ in range(luck.randrange(1, 20)):
                stream = caller.call(SAY, say("x").SerializeToString(), ended=luck.random() < 0.7)
                if luck.random() < 0.5:
                    caller.reset(stream)
    assert running.client.say(say("still here"), timeout=PATIENCE_SECONDS).value == "still here"
    eventually(lambda: _open(running) == 0)


def _open(running: Running) -> int:
    return 0 if running.genie._direct is None else running.genie._direct.open

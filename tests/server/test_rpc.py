"""The wrapper around every method, through a real server: headers, errors, deadlines, streams, admission."""

import json
import logging
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from genie.v1 import (
    catalog_service_pb2,
    learner_service_pb2,
    practice_service_pb2,
    recommendation_service_pb2,
)
from server import rpc
from server.admission import Drain
from server.errors import ServerDraining
from server.logs import JsonFormatter
from server.metrics import calls_of
from server.request_stream import MOST_BUFFERED_BYTES
from tests.server.echo import ECHO, Echo
from tests.server.serving import Running, detail, failure, reason, serving
from tests.waiting import PATIENCE_SECONDS, eventually


def say(text: str) -> StringValue:
    return StringValue(value=text)


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving() as found:
        yield found


def test_the_four_kinds_of_methods(running: Running) -> None:
    client = running.client
    assert client.say(say("hello")).value == "hello"
    assert [reply.value for reply in client.count_up(say("3"))] == ["0", "1", "2"]
    assert client.gather(iter([say("a"), say("b")])).value == "a b"
    assert [reply.value for reply in client.chat(iter([say("a"), say("b")]))] == ["A", "B"]


def test_empty_messages_and_empty_streams(running: Running) -> None:
    client = running.client
    assert client.say(say("")).value == ""
    assert list(client.count_up(say("0"))) == []
    assert client.gather(iter([])).value == ""
    assert client.gather(iter([say(""), say("")])).value == " "
    assert list(client.chat(iter([]))) == []


def test_the_correlation_id_is_echoed(running: Running) -> None:
    for method, request in ((running.client.say, say("x")), (running.client.gather, iter([say("x")]))):
        _, call = method.with_call(request, metadata=[("x-correlation-id", "abc-1")])
        assert dict(call.trailing_metadata())["x-correlation-id"] == "abc-1"
    stream = running.client.count_up(say("1"), metadata=[("x-correlation-id", "abc-2")])
    list(stream)
    assert dict(stream.trailing_metadata())["x-correlation-id"] == "abc-2"
    error = failure(lambda: running.client.say(say("missing u-1"), metadata=[("x-correlation-id", "abc-3")]))
    assert dict(error.trailing_metadata())["x-correlation-id"] == "abc-3"


@pytest.mark.parametrize("sent", [[], [("x-correlation-id", "")], [("x-correlation-id", "x" * 129)]])
def test_a_correlation_id_is_made_up_for_those_without_a_usable_one(
    running: Running, sent: list[tuple[str, str]]
) -> None:
    found = set()
    for _ in range(2):
        _, call = running.client.say.with_call(say("x"), metadata=sent)
        found.add(dict(call.trailing_metadata())["x-correlation-id"])
    assert len(found) == 2
    assert all(len(made) == 16 for made in found)


def test_the_call_tells_tenant_time_and_deadline(running: Running) -> None:
    running.client.say(say("x"), metadata=[("x-tenant-id", "north_school.1")], timeout=900.0)
    call = running.echo.calls[-1]
    assert call.tenant == "north_school.1"
    assert abs(call.now - time.time()) < PATIENCE_SECONDS
    assert 800.0 < call.remaining() < 901.0
    assert call.method == "/genie.tests.Echo/Say"
    running.client.say(say("x"))
    call = running.echo.calls[-1]
    assert call.tenant == "default"
    assert call.remaining() > 1e6


@pytest.mark.parametrize("tenant", ["", "a/b", "x" * 65, "a b", ". "])
def test_an_impossible_tenant_is_refused(running: Running, tenant: str) -> None:
    headers = [("x-tenant-id", tenant)]
    calls = [
        lambda: running.client.say(say("x"), metadata=headers),
        lambda: list(running.client.count_up(say("1"), metadata=headers)),
        lambda: running.client.gather(iter([]), metadata=headers),
        lambda: list(running.client.chat(iter([]), metadata=headers)),
    ]
    for call in calls:
        error = failure(call)
        assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_TENANT")


@pytest.mark.parametrize("raw", [b"\xff\xff\xff", b"\x0a\x05ab", b"\x0a\x02\xff\xfe"])
def test_undecodable_bytes_are_the_callers_fault(running: Running, raw: bytes) -> None:
    for call in (lambda: running.client.raw_say(raw), lambda: running.client.raw_gather(iter([raw]))):
        error = failure(call)
        assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_REQUEST")


def test_a_typed_error_arrives_whole(running: Running) -> None:
    error = failure(lambda: running.client.say(say("missing u-42")))
    assert error.code() is grpc.StatusCode.NOT_FOUND
    assert error.details() == "Learner u-42 does not exist."
    info = detail(error, error_details_pb2.ErrorInfo())
    assert info is not None
    assert (info.reason, info.domain) == ("LEARNER_NOT_FOUND", "genie.v1")
    assert dict(info.metadata) == {"learner_id": "u-42"}


def test_a_fault_of_ours_is_logged_and_not_told(running: Running, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "genie"):
        error = failure(
            lambda: running.client.say(say("broken"), metadata=[("x-correlation-id", "quote-me")])
        )
        eventually(lambda: len(caplog.records) >= 2)
    assert (error.code(), reason(error)) == (grpc.StatusCode.INTERNAL, "INTERNAL")
    assert "secret" not in str(error)
    info = detail(error, error_details_pb2.ErrorInfo())
    assert info is not None
    assert info.metadata["correlation_id"] == "quote-me"
    stacks = [record for record in caplog.records if record.exc_info]
    assert len(stacks) == 1
    assert "secret detail" in JsonFormatter(None).format(stacks[0])


def test_every_call_is_logged_with_what_it_was(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "genie.access"), serving() as running:
        running.client.say(say("x"), metadata=[("x-tenant-id", "t1")])
        failure(lambda: running.client.say(say("missing u-1")))
        eventually(lambda: len(caplog.records) >= 2)
    facts = [vars(record)["facts"] for record in caplog.records if record.name == "genie.access"]
    assert [fact["code"] for fact in facts] == ["OK", "NOT_FOUND"]
    assert facts[1]["reason"] == "LEARNER_NOT_FOUND"
    assert all(fact["duration_ms"] >= 0.0 for fact in facts)


def test_failed_and_slow_calls_are_logged_even_when_the_rest_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with (
        caplog.at_level(logging.INFO, "genie.access"),
        serving(access_log_ratio=0.0, slow_call_ms=60_000.0) as running,
    ):
        running.client.say(say("x"))
        running.client.say(say("old 100"))
        failure(lambda: running.client.say(say("missing u-1")))
    events = [record.getMessage() for record in caplog.records if record.name == "genie.access"]
    assert events == ["slow call", "call"]


def test_calls_are_counted_by_method_and_code() -> None:
    with serving() as running:
        for _ in range(3):
            running.client.say(say("x"))
        failure(lambda: running.client.say(say("missing u-1")))
        list(running.client.count_up(say("2")))
        eventually(lambda: running.genie.runtime.stream_pool.unfinished == 0)
        sums = running.genie.runtime.counters.meter.read().totals
    assert calls_of(sums) == {
        ("genie.tests.Echo/Say", "OK"): 3,
        ("genie.tests.Echo/Say", "NOT_FOUND"): 1,
        ("genie.tests.Echo/CountUp", "OK"): 1,
    }
    timed = {key: values for key, values in sums.items() if key[0] == "genie_call_duration_seconds"}
    assert {key[1] for key in timed} == {"genie.tests.Echo/Say"}, "how long a stream lasts says nothing"
    assert all(0.0 < values[0] < PATIENCE_SECONDS for values in timed.values())


def test_a_deadline_that_has_passed_costs_no_work(tmp_path: Path) -> None:
    with serving(threads=1) as running:
        blocking = running.client.say.future(say(f"hold {tmp_path}"))
        eventually(lambda: running.echo.calls)
        error = failure(lambda: running.client.say(say("late"), timeout=0.05))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        (tmp_path / "go").touch()
        blocking.result()
        running.client.say(say("next"))
        assert len(running.echo.calls) == 2


def test_overload_is_refused_at_once_and_says_when_to_come_back(tmp_path: Path) -> None:
    with serving(threads=1, max_concurrent_calls=2) as running:
        taken = [running.client.say.future(say(f"hold {tmp_path}")) for _ in range(2)]
        eventually(lambda: running.genie.runtime.unary_pool.full)
        error = failure(lambda: running.client.say(say("x")))
        assert not any(call.done() for call in taken), "refused without waiting"
        assert (error.code(), reason(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER_OVERLOADED")
        assert detail(error, error_details_pb2.RetryInfo()) is not None
        (tmp_path / "go").touch()
        assert [call.result().value for call in taken] == [f"hold {tmp_path}"] * 2
        eventually(lambda: not running.genie.runtime.unary_pool.full)
        assert running.client.say(say("x")).value == "x"


def test_streams_are_bounded_and_leave_unary_calls_their_threads() -> None:
    with serving(threads=1, max_streams=2) as running:
        hold = threading.Event()
        requests = [_held(hold) for _ in range(2)]
        streams = [running.client.chat(held) for held in requests]
        assert [next(stream).value for stream in streams] == ["A", "A"]
        for refused in (
            lambda: list(running.client.count_up(say("1"))),
            lambda: running.client.gather(iter([say("x")])),
        ):
            error = failure(refused)
            assert (error.code(), reason(error)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
        assert running.client.say(say("still here")).value == "still here"
        hold.set()
        assert [reply.value for stream in streams for reply in stream] == []
        eventually(lambda: not running.genie.runtime.stream_pool.full)
        assert [reply.value for reply in running.client.count_up(say("1"))] == ["0"]


def _held(hold: threading.Event) -> Iterator[StringValue]:
    yield say("a")
    hold.wait(PATIENCE_SECONDS)


def test_a_stream_whose_caller_has_gone_ends() -> None:
    with serving() as running:
        stream = running.client.count_up(say("100000"))
        assert next(stream).value == "0"
        stream.cancel()
        assert running.echo.stream_ended.wait(PATIENCE_SECONDS)
        eventually(lambda: running.genie.runtime.stream_pool.unfinished == 0)
        calls = calls_of(running.genie.runtime.counters.meter.read().totals)
        assert {code for _, code in calls} == {"CANCELLED"}
        chat = running.client.chat(_held(threading.Event()))
        assert next(chat).value == "A"
        chat.cancel()
        eventually(lambda: running.genie.runtime.stream_pool.unfinished == 0)


def test_a_drain_finishes_unary_calls_and_ends_idle_streams(tmp_path: Path) -> None:
    with serving() as running:
        slow = running.client.say.future(say(f"hold {tmp_path}"))
        chat = running.client.chat(_held(threading.Event()))
        watch = running.client.count_up(say("100000"))
        assert next(chat).value == "A"
        assert next(watch).value == "0"
        eventually(lambda: running.echo.calls)
        running.genie.runtime.drain.listen((tmp_path / "go").touch)
        assert running.genie.drain(notice=False)
        assert slow.result().value == f"hold {tmp_path}"
        for stream in (chat, watch):
            error = failure(partial(list, stream))
            assert (error.code(), reason(error)) == (grpc.StatusCode.UNAVAILABLE, "SERVER_DRAINING")


def test_a_call_that_outlives_the_drain_is_cut_off_and_said_so(tmp_path: Path) -> None:
    with serving(drain_seconds=0.1) as running:
        stuck = running.client.say.future(say(f"hold {tmp_path}"))
        eventually(lambda: running.echo.calls)
        assert not running.genie.drain(notice=False)
        (tmp_path / "go").touch()
        assert failure(stuck.result).code() is grpc.StatusCode.UNAVAILABLE


def test_requests_that_arrived_before_the_drain_are_still_handed_out() -> None:
    drain = Drain()
    hold = threading.Event()

    def raw() -> Iterator[bytes]:
        yield from (say(word).SerializeToString() for word in ("a", "b"))
        hold.wait(PATIENCE_SECONDS)

    requests = rpc.Requests(raw(), StringValue.FromString, drain)
    eventually(lambda: len(requests._arrived) == 2)
    drain.begin()
    assert [request.value for request in requests.take(10)] == ["a", "b"]
    with pytest.raises(ServerDraining):
        requests.take(10)
    requests.close()
    hold.set()


def test_requests_are_read_ahead_only_up_to_a_bound() -> None:
    size = MOST_BUFFERED_BYTES // 4
    read = []

    def raw() -> Iterator[bytes]:
        for number in range(20):
            read.append(number)
            yield StringValue(value="x" * size).SerializeToString()

    requests = rpc.Requests(raw(), StringValue.FromString, Drain())
    time.sleep(0.05)
    assert len(read) < 6
    assert len(list(requests)) == 20


def test_a_service_without_all_its_methods_is_refused_at_start() -> None:
    class Half:
        def say(self) -> None: ...

    with serving() as running, pytest.raises(TypeError, match="count_up, gather, chat"):
        rpc.bind(ECHO, Half(), running.genie.runtime)


def test_every_rpc_of_the_wire_api_can_be_bound() -> None:
    modules = (catalog_service_pb2, learner_service_pb2, practice_service_pb2, recommendation_service_pb2)

    class Anything(Echo):
        def __getattr__(self, name: str) -> object:
            assert name == name.lower()
            return lambda request, call: None

    with serving() as running:
        for module in modules:
            for service in module.DESCRIPTOR.services_by_name.values():
                routes = rpc.bind(service, Anything(), running.genie.runtime)
                assert set(routes) == {f"/{service.full_name}/{name}" for name in service.methods_by_name}


def test_reflection_lists_the_services(running: Running) -> None:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(running.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (reply,) = stub.ServerReflectionInfo(iter([request]))
    names = {service.name for service in reply.list_services_response.service}
    assert names == {"genie.tests.Echo", "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="genie.tests.Echo")
    (reply,) = stub.ServerReflectionInfo(iter([request]))
    assert reply.file_descriptor_response.file_descriptor_proto


def test_reflection_can_be_off() -> None:
    with serving(reflection=False) as running:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(running.channel)
        error = failure(lambda: list(stub.ServerReflectionInfo(iter([]))))
        assert error.code() is grpc.StatusCode.UNIMPLEMENTED


def test_a_log_line_holds_the_call_it_belongs_to(caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(JsonFormatter(3).format(record))

    handler = Keep()
    logger = logging.getLogger("genie.access")
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, "genie.access"), serving() as running:
            running.client.say(say("x"), metadata=[("x-correlation-id", "c-1"), ("x-tenant-id", "t-1")])
            eventually(lambda: lines)
    finally:
        logger.removeHandler(handler)
    line = json.loads(lines[0])
    assert line["correlation_id"] == "c-1"
    assert line["tenant"] == "t-1"
    assert line["method"] == "/genie.tests.Echo/Say"
    assert line["worker"] == 3


def test_brief_calls_have_threads_of_their_own(tmp_path: Path) -> None:
    with serving(threads=1, max_concurrent_calls=1, brief=frozenset({"/genie.tests.Echo/Say"})) as running:
        assert running.client.say(say("x")).value == "x"
        brief, unary = running.genie.runtime.brief_pool, running.genie.runtime.unary_pool
        assert brief is not None
        slow = running.client.say.future(say(f"hold {tmp_path}"))
        eventually(lambda: brief.full)
        assert not unary.full
        assert running.client.gather(iter([say("y")])).value == "y"
        (tmp_path / "go").touch()
        assert slow.result().value == f"hold {tmp_path}"

"""Spans of calls and their parts: who is the parent of whom, what they say, and nothing when tracing is off."""

import json
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent import futures
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from server import tracing
from server.config import ConfigurationError, Settings
from server.logs import JsonFormatter
from tests.server.core import Core, core
from tests.server.serving import failure, serving
from tests.waiting import eventually

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def say(text: str) -> StringValue:
    return StringValue(value=text)


class Kept:
    """The spans that ended, as an exporter got them."""

    def __init__(self, sampler: sampling.Sampler | None = None) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = tracing.Tracing(provider)

    def spans(self, least: int) -> Sequence[ReadableSpan]:
        """All of them, oldest first, once there are `least`: a call is answered before its span ends."""
        eventually(lambda: len(self._exporter.get_finished_spans()) >= least)
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def clear(self) -> None:
        self._exporter.clear()


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    """A server started in the test is traced into this."""
    found = Kept()
    monkeypatch.setattr("server.app.open_tracing", lambda settings: found.tracing)
    return found


@pytest.fixture
def world(kept: Kept) -> Iterator[Core]:
    with core(log_level="error") as running:
        running.chain("count", "add")
        kept.spans(2)
        kept.clear()
        yield running


def test_a_call_is_a_span_and_continues_its_callers_trace(kept: Kept) -> None:
    with serving() as running:
        metadata = [
            ("traceparent", f"00-{TRACE}-{SPAN}-01"),
            ("x-correlation-id", "c-1"),
            ("x-tenant-id", "t-1"),
        ]
        running.client.say(say("hello"), metadata=metadata)
        (span,) = kept.spans(1)
    assert span.name == "genie.tests.Echo/Say"
    assert span.kind is SpanKind.SERVER
    assert span.context is not None
    assert span.parent is not None
    assert f"{span.context.trace_id:032x}" == TRACE
    assert f"{span.parent.span_id:016x}" == SPAN
    assert dict(span.attributes or {}) == {
        "rpc.system.name": "grpc",
        "rpc.method": "genie.tests.Echo/Say",
        "rpc.response.status_code": "OK",
        "genie.tenant": "t-1",
        "genie.correlation_id": "c-1",
    }
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize(
    ("word", "code", "reason", "status"),
    [
        ("missing u-1", "NOT_FOUND", "LEARNER_NOT_FOUND", StatusCode.UNSET),
        ("broken", "INTERNAL", "INTERNAL", StatusCode.ERROR),
    ],
)
def test_a_failed_call_says_why(kept: Kept, word: str, code: str, reason: str, status: StatusCode) -> None:
    with serving(log_level="error") as running:
        failure(lambda: running.client.say(say(word)))
        (span,) = kept.spans(1)
    attributes = span.attributes or {}
    assert (attributes["rpc.response.status_code"], attributes["error.type"]) == (code, reason)
    assert span.status.status_code is status, "what the caller did wrong is no fault of the server"
    assert span.parent is None


def test_streams_end_their_spans(kept: Kept) -> None:
    with serving() as running:
        assert len(list(running.client.count_up(say("3")))) == 3
        stream = running.client.count_up(say("1000000"))
        next(stream)
        stream.cancel()
        codes = {(span.attributes or {})["rpc.response.status_code"] for span in kept.spans(2)}
    assert codes == {"OK", "CANCELLED"}


def test_a_refused_call_is_a_span_too(kept: Kept) -> None:
    with serving(max_streams=1) as running:
        first = running.client.count_up(say("1000000"))
        next(first)
        failure(lambda: next(running.client.count_up(say("1"))))
        refused = (kept.spans(1)[0].attributes or {})["error.type"]
        first.cancel()
    assert refused == "TOO_MANY_STREAMS"


def test_the_parts_of_a_recommendation(kept: Kept, world: Core) -> None:
    world.recommend(request_id="r-1")
    call, *parts = kept.spans(5)
    assert call.name == "genie.v1.RecommendationService/Recommend"
    assert [span.name for span in parts] == [
        "store.find_slate",
        "store.read_learner",
        "engine.recommend",
        "store.write_slate",
    ]
    check_below(call, parts)


def test_the_parts_of_recording_answers(kept: Kept, world: Core) -> None:
    world.record(world.answer("count-1"))
    call, *parts = kept.spans(3)
    assert call.name == "genie.v1.PracticeService/RecordAnswers"
    assert {span.name for span in parts} == {"store.commit", "engine.record_answers"}
    check_below(call, parts)


def check_below(call: ReadableSpan, parts: Sequence[ReadableSpan]) -> None:
    """Parts are children of the call and lie within it."""
    assert call.context is not None
    assert call.start_time is not None
    assert call.end_time is not None
    for span in parts:
        assert span.parent is not None
        assert span.context is not None
        assert span.start_time is not None
        assert span.end_time is not None
        assert (span.context.trace_id, span.parent.span_id) == (call.context.trace_id, call.context.span_id)
        assert call.start_time <= span.start_time <= span.end_time <= call.end_time


def test_what_is_not_sampled_leaves_no_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    found = Kept(sampling.ALWAYS_OFF)
    monkeypatch.setattr("server.app.open_tracing", lambda settings: found.tracing)
    seen: list[Any] = []
    with core(log_level="error") as running:
        running.chain("count")
        monkeypatch.setattr(tracing._Parent, "child", lambda *_: seen.append(1))
        assert running.recommend().items
    assert (found.spans(0), seen) == ([], [])


def test_log_lines_name_the_trace(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(JsonFormatter(None).format(record))

    handler, logger = Keep(), logging.getLogger("genie.access")
    logger.addHandler(handler)
    try:
        with caplog.at_level(logging.INFO, "genie.access"), serving() as running:
            running.client.say(say("x"), metadata=[("traceparent", f"00-{TRACE}-{SPAN}-01")])
            eventually(lambda: bool(lines))
    finally:
        logger.removeHandler(handler)
    assert json.loads(lines[0])["trace_id"] == TRACE


def test_off_is_off() -> None:
    assert tracing.open_tracing(Settings()) is None
    with tracing.part("engine.recommend"):
        assert tracing.part("a") is tracing.part("b"), "one object that does nothing"
    work: Callable[[object], None] = list[object]().append
    assert tracing.carried("x", work) is work
    with serving() as running:
        running.client.say(say("x"))
        assert running.echo.calls[0].span is None


def test_without_the_extra_the_setting_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(ConfigurationError, match=r"genie-server\[otel\]"):
        tracing.open_tracing(Settings(tracing="otlp"))


class _Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """What an operator's collector would get."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 (the name that gRPC calls)
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


def test_spans_reach_a_collector_before_the_worker_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = _Collector()
    server = grpc.server(futures.ThreadPoolExecutor(1))
    register: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    register(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    try:
        with serving(tracing="otlp") as running:
            running.client.say(say("x"), metadata=[("traceparent", f"00-{TRACE}-{SPAN}-01")])
    finally:
        server.stop(0)
    (resource,) = [spans for request in collector.requests for spans in request.resource_spans]
    known = {entry.key: entry.value.string_value for entry in resource.resource.attributes}
    assert (known["service.name"], known["deployment.environment.name"]) == ("genie", "test")
    (span,) = [span for scope in resource.scope_spans for span in scope.spans]
    assert (span.name, span.trace_id.hex()) == ("genie.tests.Echo/Say", TRACE)

"""Spans of calls and of their parts for OpenTelemetry, an extra that is off by default. Measures nothing by itself.

Nothing of OpenTelemetry is loaded, and a part costs a look at a context variable, while `tracing` is off. Names of
attributes follow OpenTelemetry's semantic conventions for RPC; our own begin with `genie.`.
"""

import functools
import logging
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, TypeVar

from server.config import ConfigurationError, Settings

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

CLOSE_SECONDS = 3.0
"""How long a worker that stops tries to hand over its last spans."""

_CARRIED = ("traceparent", "tracestate")
"""Headers of W3C Trace Context."""
_FAULTS = frozenset({"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"})
"""Codes that make a server's span an error; the others are the caller's own."""
_NOTHING: AbstractContextManager[None] = nullcontext()
_PARENT: "ContextVar[_Parent | None]" = ContextVar("span_parent", default=None)
_LOG = logging.getLogger("genie.tracing")

A = TypeVar("A")
R = TypeVar("R")


class _Parent:
    """A span that parts may hang below, and who makes them."""

    __slots__ = ("span", "tracer")

    def __init__(self, tracer: Any, span: Any) -> None:
        self.tracer = tracer
        self.span = span

    def child(self, name: str) -> "_Parent":
        from opentelemetry.trace import set_span_in_context

        return _Parent(self.tracer, self.tracer.start_span(name, context=set_span_in_context(self.span)))


class _Part(AbstractContextManager[None]):
    """The span of a part, current while it lasts."""

    __slots__ = ("_name", "_own", "_parent", "_token")

    def __init__(self, parent: _Parent, name: str) -> None:
        self._parent = parent
        self._name = name

    def __enter__(self) -> None:
        self._own = self._parent.child(self._name)
        self._token: Token[_Parent | None] = _PARENT.set(self._own)

    def __exit__(self, *_: object) -> None:
        _PARENT.reset(self._token)
        self._own.span.end()


def part(name: str) -> AbstractContextManager[None]:
    """A part of the call that this thread serves, such as "engine.recommend"; nothing when that is not traced."""
    parent = _PARENT.get()
    return _NOTHING if parent is None else _Part(parent, name)


def carried(name: str, work: Callable[[A], R]) -> Callable[[A], R]:
    """`work` as a part of this thread's call, on whatever thread it will run; `work` itself when not traced."""
    parent = _PARENT.get()
    if parent is None:
        return work

    @functools.wraps(work)
    def traced(argument: A) -> R:
        with _Part(parent, name):
            return work(argument)

    return traced


class CallSpan:
    """The span of one call, from its headers to its status."""

    __slots__ = ("_span", "trace_id")

    def __init__(self, span: Any) -> None:
        self._span = span
        self.trace_id = f"{span.get_span_context().trace_id:032x}"
        """32 hexadecimal digits, as in the caller's traceparent."""

    def end(self, code: str, reason: str = "") -> None:
        """The call is over: its gRPC status, and the reason of an error."""
        from opentelemetry.trace import StatusCode

        span = self._span
        span.set_attribute("rpc.response.status_code", code)
        if reason:
            span.set_attribute("error.type", reason)
        if code in _FAULTS:
            span.set_status(StatusCode.ERROR, reason or code)
        span.end()
        _PARENT.set(None)


class Tracing:
    """Makes the spans of a process. Thread-safe."""

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("genie")
        self._propagator = TraceContextTextMapPropagator()

    def begin(
        self, path: str, metadata: Iterable[tuple[str, Any]], *, tenant: str, correlation_id: str
    ) -> CallSpan:
        """A call has arrived: its span continues the caller's trace when the headers name one."""
        from opentelemetry.trace import SpanKind

        carrier = {key: value for key, value in metadata if key in _CARRIED}
        name = path.removeprefix("/")
        span = self._tracer.start_span(
            name,
            context=self._propagator.extract(carrier) if carrier else None,
            kind=SpanKind.SERVER,
            attributes={
                "rpc.system.name": "grpc",
                "rpc.method": name,
                "genie.tenant": tenant,
                "genie.correlation_id": correlation_id,
            },
        )
        _PARENT.set(_Parent(self._tracer, span) if span.is_recording() else None)
        return CallSpan(span)

    def close(self) -> None:
        """Hand over what is left, for a moment; a collector that is away must not keep a worker from stopping."""
        last = threading.Thread(target=self._provider.shutdown, name="tracing-close", daemon=True)
        last.start()
        last.join(CLOSE_SECONDS)


def open_tracing(settings: Settings) -> Tracing | None:
    """What the settings ask for; None when tracing is off. Raises ConfigurationError when the extra is missing.

    Where spans go and which are sampled, OpenTelemetry's own variables say (OTEL_EXPORTER_OTLP_ENDPOINT,
    OTEL_TRACES_SAMPLER, OTEL_SERVICE_NAME and so on).
    """
    if settings.tracing == "off":
        return None
    try:
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        missing = f"tracing is {settings.tracing!r}, which needs the extra: pip install 'genie-server[otel]'"
        raise ConfigurationError([f"{missing} ({error})"]) from None
    # The environment has the last word.
    resource = Resource({"service.name": "genie"}).merge(OTELResourceDetector().detect())
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Tracing(provider)

"""The one wrapper around every method: decoding, tenant, correlation id, deadline, errors, log and counters.

A service is a plain object with a method in snake_case for each rpc of its descriptor. It takes the request
message (a `Requests` for a client stream) and a `Call`, and returns the response message (an iterable of them
for a server stream). A brief method may have a twin, `…_many`, that takes requests and calls and returns for each the
response or an exception: it serves those that wait together.
"""

import logging
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NoReturn

import grpc
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from grpc_status import rpc_status

from server import errors
from server.admission import (
    CallPool,
    Direct,
    Drain,
    Handler,
    InlineQueue,
    RefusalPool,
    Route,
    Throttle,
    WouldWait,
)
from server.call import Call as Call
from server.logs import CALL_FACTS, log, log_call
from server.metrics import CallCounters
from server.request_stream import Requests as Requests
from server.together import Together
from server.tracing import Tracing
from server.validate import TENANT

CORRELATION_HEADER = "x-correlation-id"
TENANT_HEADER = "x-tenant-id"
DEFAULT_TENANT = "default"
MOST_CORRELATION_CHARACTERS = 128

_LOG = logging.getLogger("genie.access")
_SERVER_FAULTS = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What all methods of a worker share."""

    unary_pool: CallPool
    stream_pool: CallPool
    refusal_pool: RefusalPool
    brief_pool: CallPool | InlineQueue | None = None
    """For the methods in `brief`: unary ones that compute and never wait; None serves them as all others."""
    brief: frozenset[str] = frozenset()
    """Full names, `/genie.v1.RecommendationService/Recommend`."""
    counters: CallCounters = field(default_factory=CallCounters)
    drain: Drain = field(default_factory=Drain)
    access_log_ratio: float = 1.0
    slow_call_seconds: float = 0.5
    refusals: Throttle = field(default_factory=lambda: Throttle(interval_seconds=1.0))
    tracing: Tracing | None = None


def bind(service: ServiceDescriptor, instance: object, runtime: Runtime) -> dict[str, Route]:
    """Routes of every rpc of `service`, served by the snake_case methods of `instance`.

    Raises TypeError naming the methods that `instance` lacks.
    """
    wanted = [_snake(name) for name in service.methods_by_name]
    missing = [name for name in wanted if not callable(getattr(instance, name, None))]
    if missing:
        kind = type(instance).__name__
        raise TypeError(f"{kind} cannot serve {service.full_name}: it has no {', '.join(missing)}")
    return {
        f"/{service.full_name}/{name}": _route(
            method, getattr(instance, _snake(name)), _many(instance, _snake(name)), runtime
        )
        for name, method in service.methods_by_name.items()
    }


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _many(instance: object, name: str) -> Callable[[Sequence[Any], Sequence[Call]], Sequence[Any]] | None:
    """What serves several calls of a method at once, where the service has it."""
    if not hasattr(type(instance), f"{name}_many"):
        return None
    found: Callable[[Sequence[Any], Sequence[Call]], Sequence[Any]] = getattr(instance, f"{name}_many")
    return found


def _route(
    method: MethodDescriptor,
    behaviour: Callable[[Any, Call], Any],
    many: Callable[[Sequence[Any], Sequence[Call]], Sequence[Any]] | None,
    runtime: Runtime,
) -> Route:
    path = f"/{method.containing_service.full_name}/{method.name}"
    streams = method.client_streaming or method.server_streaming
    pool: CallPool | InlineQueue = runtime.stream_pool if streams else runtime.unary_pool
    if runtime.brief_pool is not None and path in runtime.brief:
        pool = runtime.brief_pool
    served = _Served(path, method, behaviour, runtime)
    kind = _MAKERS[method.client_streaming, method.server_streaming]
    threads = pool if isinstance(pool, CallPool) else runtime.unary_pool
    serve = _StreamResponse(served, threads) if method.server_streaming else _OneResponse(served, threads)
    refusal = _Refusal(served, pool)
    refuse: Handler = grpc.stream_stream_rpc_method_handler(refusal)
    if streams or isinstance(serve, _StreamResponse):
        return Route(kind(serve), refuse, pool)
    together = None
    if many is not None and pool is runtime.brief_pool and runtime.tracing is None:
        together = Together(served, many, _abort)
    return Route(kind(serve), refuse, pool, Direct(serve, refusal, together))


_MAKERS: dict[tuple[bool, bool], Callable[[Any], Handler]] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class _Served:
    """A method with what the wrapper does before and after it."""

    def __init__(
        self, path: str, method: MethodDescriptor, behaviour: Callable[[Any, Call], Any], runtime: Runtime
    ) -> None:
        self.path = path
        self.runtime = runtime
        self.behaviour = behaviour
        self._streams_in = method.client_streaming
        self._long_lived = method.client_streaming or method.server_streaming
        self._message_type = method.input_type.full_name
        self._parse = GetMessageClass(method.input_type).FromString

    def decode(self, raw: bytes) -> Message:
        """The request message; gRPC itself would answer undecodable bytes with INTERNAL."""
        try:
            return self._parse(raw)
        except DecodeError:
            raise errors.MalformedRequest(message_type=self._message_type) from None

    def open(self, context: grpc.ServicerContext) -> Call:
        """Read the headers and remember whose call this is; the tenant is not judged yet."""
        tenant, correlation_id = DEFAULT_TENANT, ""
        for key, value in context.invocation_metadata():
            if key == CORRELATION_HEADER:
                correlation_id = str(value)
            elif key == TENANT_HEADER:
                tenant = str(value)
        correlation_id = _correlation_id(correlation_id)
        call = Call(self.path, tenant, correlation_id, context, self.runtime.drain)
        facts = {"correlation_id": correlation_id, "tenant": tenant, "method": self.path}
        tracing = self.runtime.tracing
        if tracing is not None:
            headers = context.invocation_metadata()
            call.span = tracing.begin(self.path, headers, tenant=tenant, correlation_id=correlation_id)
            facts["trace_id"] = call.span.trace_id
        call.facts = facts
        CALL_FACTS.set(facts)
        context.set_trailing_metadata(((CORRELATION_HEADER, correlation_id),))
        return call

    def argument(self, call: Call, raw: Any) -> Any:
        """What the service gets as its request. Raises for calls that must not reach it."""
        if TENANT.fullmatch(call.tenant) is None:
            raise errors.InvalidTenant(tenant=call.tenant)
        call.check()
        return Requests(raw, self.decode, self.runtime.drain) if self._streams_in else self.decode(raw)

    def close(self, call: Call, code: str, error: errors.GenieError | None = None) -> None:
        """Count and log the finished call."""
        seconds = time.monotonic() - call.started
        runtime = self.runtime
        runtime.counters.count(self.path, code, None if self._long_lived else seconds)
        if call.span is not None:
            call.span.end(code, "" if error is None else error.reason)
        slow = seconds >= runtime.slow_call_seconds and not self._long_lived
        if code in _SERVER_FAULTS and not isinstance(error, errors.ServerDraining):
            level = logging.ERROR
        elif slow:
            level = logging.WARNING
        else:
            level = logging.INFO
            ratio = runtime.access_log_ratio
            if error is None and ratio < 1.0 and random.random() >= ratio:
                return
            if error is None and call.span is None:
                told = log_call(
                    method=self.path,
                    tenant=call.tenant,
                    correlation_id=call.correlation_id,
                    seconds=seconds,
                )
                if told:
                    return
        facts: dict[str, object] = {"code": code, "duration_ms": round(seconds * 1e3, 3)}
        if error is not None:
            facts["reason"] = error.reason
            facts["error"] = error.message
        log(_LOG, level, "slow call" if slow else "call", **facts)

    def failed(self, call: Call, error: Exception) -> errors.GenieError:
        """What to tell the caller about an exception; closes the call."""
        told = errors.translate(error)
        if told is None:
            _LOG.error("a service failed", exc_info=error)
            told = errors.Internal(correlation_id=call.correlation_id)
        elif isinstance(told, errors.DeadlineExceeded):
            told.facts["deadline_ms"] = str(round((call.deadline - call.started) * 1e3))
        self.close(call, told.code.name, told)
        return told


def _abort(context: grpc.ServicerContext, call: Call, error: errors.GenieError) -> NoReturn:
    details = rpc_status.to_status(error.status()).trailing_metadata
    context.set_trailing_metadata(((CORRELATION_HEADER, call.correlation_id), *details))
    context.abort(error.code, error.message)
    raise AssertionError("abort raises")


class _OneResponse:
    """Serves the methods that answer with one message."""

    def __init__(self, served: _Served, pool: CallPool) -> None:
        self._served = served
        self.experimental_thread_pool: ThreadPoolExecutor = pool

    def __call__(self, raw: Any, context: grpc.ServicerContext) -> bytes:
        served = self._served
        call = served.open(context)
        request = None
        try:
            request = served.argument(call, raw)
            reply: bytes = served.behaviour(request, call).SerializeToString()
        except WouldWait:
            raise
        except Exception as error:
            told = served.failed(call, error)
            # A traceback would keep this frame, and with it the call, until the next collection.
            told.__traceback__ = None
        else:
            served.close(call, "OK")
            return reply
        finally:
            if isinstance(request, Requests):
                request.close()
        _abort(context, call, told)


class _StreamResponse:
    """Serves the methods that answer with a stream of messages."""

    def __init__(self, served: _Served, pool: CallPool) -> None:
        self._served = served
        self.experimental_thread_pool = pool

    def __call__(self, raw: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        served = self._served
        call = served.open(context)
        request = None
        try:
            request = served.argument(call, raw)
            responses: Iterable[Message] = served.behaviour(request, call)
            for response in responses:
                yield response.SerializeToString()
        except GeneratorExit:
            # gRPC drops the generator of a caller that has gone.
            served.close(call, "CANCELLED", errors.CallCancelled())
            raise
        except Exception as error:
            told = served.failed(call, error)
        else:
            served.close(call, "OK")
            return
        finally:
            if isinstance(request, Requests):
                request.close()
        _abort(context, call, told)


class _Refusal:
    """Answers a call the worker has no room for; fits every kind of method, since it reads no request.

    It runs on the thread that delivers all calls, so it does little: the reply is encoded once.
    """

    def __init__(self, served: _Served, pool: CallPool | InlineQueue) -> None:
        runtime = served.runtime
        self._served = served
        self._error = errors.TooManyStreams if pool is runtime.stream_pool else errors.ServerOverloaded
        self._limit = pool.limit
        self.experimental_thread_pool = runtime.refusal_pool

    def __call__(self, _: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        runtime, error = self._served.runtime, self._error
        if runtime.tracing is not None:
            span = self._served.open(context).span
            if span is not None:
                span.end(error.code.name, error.reason)
        runtime.counters.shed(self._served.path, error.code.name, error.reason)
        if runtime.refusals.passes():
            log(_LOG, logging.WARNING, "calls are refused", reason=error.reason, limit=self._limit)
        # The more callers wait to be refused, the later they are asked to come back.
        patience = error.default_retry_seconds + round(runtime.refusal_pool.wait_seconds)
        message, details = _refusal(error, self._limit, patience)
        context.set_trailing_metadata(((CORRELATION_HEADER, _echoed(context)), *details))
        context.abort(error.code, message)
        raise AssertionError("abort raises")


@lru_cache(maxsize=256)
def _refusal(
    error: type[errors.GenieError], limit: int, retry_after_seconds: float
) -> tuple[str, tuple[tuple[str, str | bytes], ...]]:
    """(message, trailing metadata) of a refusal."""
    told = error(retry_after_seconds=retry_after_seconds, limit=limit)
    return told.message, tuple(rpc_status.to_status(told.status()).trailing_metadata)


def _echoed(context: grpc.ServicerContext) -> str:
    """The correlation id that the caller sent, or a new one."""
    for key, value in context.invocation_metadata():
        if key == CORRELATION_HEADER:
            return _correlation_id(str(value))
    return _correlation_id("")


def _correlation_id(given: str) -> str:
    """The id given when it can be echoed, else a new one: gRPC fails a call that is to echo what is not ASCII."""
    if 0 < len(given) <= MOST_CORRELATION_CHARACTERS and given.isascii() and given.isprintable():
        return given
    return f"{random.getrandbits(64):016x}"

"""grpc.health.v1 for a whole worker: every service is up or down together. Judges nothing itself.

Unlike the servicer of grpcio-health-checking this one ends its watches when the worker drains (an open watch would
hold up the stop), and whoever sets the status waits for no watcher: each has a thread that tells it the latest. Check
has threads apart from those, so that a busy worker still says that it lives.
"""

import threading
from collections.abc import Iterable, Iterator

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from server.admission import CallPool, Direct, Handler, RefusalPool, Route

SERVICE_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
OVERALL = ""

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
_REPLIES = {
    status: health_pb2.HealthCheckResponse(status=status).SerializeToString()
    for status in (_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN)
}


class _Watcher:
    """One open Watch."""

    __slots__ = ("context", "gone", "woken")

    def __init__(self, context: grpc.ServicerContext) -> None:
        self.context = context
        self.gone = False
        self.woken = threading.Event()
        """There is something new to look at."""

    def leave(self) -> None:
        self.gone = True
        self.woken.set()


class Health:
    """The health of a worker: NOT_SERVING until `set_serving(True)`, and for good after `drain`."""

    def __init__(self, services: Iterable[str]) -> None:
        """`services` are the full names that may be asked for, beside the empty name for the whole worker."""
        self._known = frozenset({OVERALL, *services})
        self._watchers: set[_Watcher] = set()
        self._lock = threading.Lock()
        self._draining = False
        self._ended = False
        self.serving = False

    def set_serving(self, serving: bool) -> bool:
        """Have the status told to everyone who watches; whether it is another. Without effect once draining."""
        with self._lock:
            if self._draining or self.serving == serving:
                return False
            self.serving = serving
        self._wake()
        return True

    def drain(self) -> None:
        """NOT_SERVING from now on."""
        with self._lock:
            self._draining = True
            self.serving = False
        self._wake()

    def end_watches(self) -> None:
        """Have every open Watch completed; watchers are expected to connect again, elsewhere."""
        self._ended = True
        self._wake()

    def cut_off_watches(self) -> None:
        """Cancel what is left of them: their callers do not read."""
        for watcher in list(self._watchers):
            watcher.context.cancel()

    def routes(self, *, checks: CallPool, watches: CallPool, refusals: RefusalPool) -> dict[str, Route]:
        """How to serve each method, full name by full name: a Watch keeps a thread of `watches` while it is open."""
        check, refusal = _Check(self, checks), _Refusal(refusals)
        refuse: Handler = grpc.stream_stream_rpc_method_handler(refusal)
        serve_check: Handler = grpc.unary_unary_rpc_method_handler(check)
        serve_watch: Handler = grpc.unary_stream_rpc_method_handler(_Watch(self, watches))
        direct = Direct(check, refusal, None, hasty=True)
        return {
            f"/{SERVICE_NAME}/Check": Route(serve_check, refuse, checks, direct),
            f"/{SERVICE_NAME}/Watch": Route(serve_watch, refuse, watches),
        }

    def check(self, service: str) -> bytes | None:
        """The reply for `service`; None when it is unknown."""
        if service not in self._known:
            return None
        return _REPLIES[_SERVING if self.serving else _NOT_SERVING]

    def watch(self, service: str, context: grpc.ServicerContext) -> Iterator[bytes]:
        """The status now and on every change, until the caller goes or the watches are ended."""
        watcher = _Watcher(context)
        self._watchers.add(watcher)
        try:
            if context.add_callback(watcher.leave):
                yield from self._statuses(service in self._known, watcher)
        finally:
            self._watchers.discard(watcher)

    def _statuses(self, known: bool, watcher: _Watcher) -> Iterator[bytes]:
        sent: int | None = None
        while True:
            watcher.woken.clear()
            if watcher.gone:
                return
            status = (_SERVING if self.serving else _NOT_SERVING) if known else _SERVICE_UNKNOWN
            if status != sent:
                sent = status
                yield _REPLIES[status]
            elif self._ended:
                return
            else:
                watcher.woken.wait()

    def _wake(self) -> None:
        for watcher in list(self._watchers):
            watcher.woken.set()


class _Check:
    def __init__(self, health: Health, pool: CallPool) -> None:
        self._health = health
        self.experimental_thread_pool = pool

    def __call__(self, raw: bytes, context: grpc.ServicerContext) -> bytes:
        reply = self._health.check(_service(raw, context))
        if reply is None:
            context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return reply


class _Watch:
    def __init__(self, health: Health, pool: CallPool) -> None:
        self._health = health
        self.experimental_thread_pool = pool

    def __call__(self, raw: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        return self._health.watch(_service(raw, context), context)


class _Refusal:
    """Answers a call that there is no room for, without reading its request."""

    def __init__(self, pool: RefusalPool) -> None:
        self.experimental_thread_pool = pool

    def __call__(self, _: object, context: grpc.ServicerContext) -> Iterator[bytes]:
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls ask for the health at once")


def _service(raw: bytes, context: grpc.ServicerContext) -> str:
    try:
        return health_pb2.HealthCheckRequest.FromString(raw).service
    except DecodeError:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is no grpc.health.v1.HealthCheckRequest")

"""grpc.health.v1 for a whole worker: every service is up or down together. Judges nothing itself.

Unlike the servicer of grpcio-health-checking this one ends its watches when the worker drains (an open watch would
hold up the stop), never waits for a watcher while it holds a lock that gRPC's own thread wants, and answers on
threads of its own, so that a busy worker still says that it lives.
"""

import threading
from collections.abc import Callable, Iterable

import grpc
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2

from server.admission import CallPool

SERVICE_NAME = health_pb2.DESCRIPTOR.services_by_name["Health"].full_name
OVERALL = ""

Send = Callable[[bytes | None], None]

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
_REPLIES = {
    status: health_pb2.HealthCheckResponse(status=status).SerializeToString()
    for status in (_SERVING, _NOT_SERVING, _SERVICE_UNKNOWN)
}


class _Watcher:
    """One open Watch: sends a status when it differs from the one sent before."""

    def __init__(self, send: Send, known: bool) -> None:
        self._send = send
        self._known = known
        self._lock = threading.Lock()
        self._last: int | None = None

    def tell(self, serving: bool) -> None:
        status = (_SERVING if serving else _NOT_SERVING) if self._known else _SERVICE_UNKNOWN
        with self._lock:
            if status != self._last:
                self._last = status
                self._send(_REPLIES[status])

    def end(self) -> None:
        with self._lock:
            self._send(None)


class Health:
    """The health of a worker: NOT_SERVING until `set_serving(True)`, and for good after `drain`."""

    def __init__(self, services: Iterable[str]) -> None:
        """`services` are the full names that may be asked for, beside the empty name for the whole worker."""
        self._known = frozenset({OVERALL, *services})
        self._watchers: set[_Watcher] = set()
        self._lock = threading.Lock()
        self._draining = False
        self.serving = False

    def set_serving(self, serving: bool) -> None:
        """Tell the status to everyone who watches; without effect once draining."""
        with self._lock:
            if self._draining:
                return
            self.serving = serving
        self._broadcast()

    def drain(self) -> None:
        """NOT_SERVING from now on."""
        with self._lock:
            self._draining = True
            self.serving = False
        self._broadcast()

    def end_watches(self) -> None:
        """Complete every open Watch; watchers are expected to connect again, elsewhere."""
        for watcher in list(self._watchers):
            watcher.end()

    def handler(self, pool: CallPool) -> grpc.GenericRpcHandler:
        """What to register at the server; the calls run on `pool`."""
        return grpc.method_handlers_generic_handler(
            SERVICE_NAME,
            {
                "Check": grpc.unary_unary_rpc_method_handler(_Check(self, pool)),
                "Watch": grpc.unary_stream_rpc_method_handler(_Watch(self, pool)),
            },
        )

    def check(self, service: str) -> bytes | None:
        """The reply for `service`; None when it is unknown."""
        if service not in self._known:
            return None
        return _REPLIES[_SERVING if self.serving else _NOT_SERVING]

    def watch(self, service: str, context: grpc.ServicerContext, send: Send) -> None:
        """Send the status now and on every change, until the caller goes or the watches are ended."""
        watcher = _Watcher(send, service in self._known)
        # gRPC's delivering thread runs the callback and must never wait: discarding takes no lock.
        if context.add_callback(lambda: self._watchers.discard(watcher)):
            self._watchers.add(watcher)
            watcher.tell(self.serving)

    def _broadcast(self) -> None:
        for watcher in list(self._watchers):
            watcher.tell(self.serving)


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
    experimental_non_blocking = True
    """gRPC then keeps no thread for an open Watch and hands over the function that sends."""

    def __init__(self, health: Health, pool: CallPool) -> None:
        self._health = health
        self.experimental_thread_pool = pool

    def __call__(self, raw: bytes, context: grpc.ServicerContext, send: Send) -> None:
        self._health.watch(_service(raw, context), context, send)


def _service(raw: bytes, context: grpc.ServicerContext) -> str:
    try:
        return health_pb2.HealthCheckRequest.FromString(raw).service
    except DecodeError:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is no grpc.health.v1.HealthCheckRequest")

"""Which calls a worker takes at once, and on which threads. Knows nothing of what a call does."""

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import grpc

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"


class CallPool(ThreadPoolExecutor):
    """Threads that serve calls, with a count of the calls that were handed over and are not finished."""

    def __init__(self, *, threads: int, limit: int, name: str) -> None:
        """`limit` is how many unfinished calls are taken; `name` is what its threads are called."""
        super().__init__(max_workers=threads, thread_name_prefix=name)
        self.threads = threads
        self.limit = limit
        self.unfinished = 0
        self._count_lock = threading.Lock()

    @property
    def full(self) -> bool:
        """Whether another call has to be refused."""
        return self.unfinished >= self.limit

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Hand over a call. gRPC does so for every call it delivered, even one cancelled meanwhile."""
        future = super().submit(fn, *args, **kwargs)
        with self._count_lock:
            self.unfinished += 1
        future.add_done_callback(self._finished)
        return future

    def _finished(self, _: "Future[Any]") -> None:
        with self._count_lock:
            self.unfinished -= 1


class Route(NamedTuple):
    """A method as the dispatcher needs it."""

    handler: Handler
    refusal: Handler
    """Answers instead of `handler` when `pool` is full; runs on a pool of its own."""
    pool: CallPool


class Dispatcher(grpc.GenericRpcHandler):
    """Finds the handler of a call, or its refusal. gRPC asks on one thread: no race on counts."""

    def __init__(self, routes: Mapping[str, Route]) -> None:
        self._routes = dict(routes)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "Handler | None":
        """The handler of the method called (`/package.Service/Method`); None when it is not ours."""
        route = self._routes.get(handler_call_details.method)
        if route is None:
            return None
        return route.refusal if route.pool.full else route.handler


class Drain:
    """The moment a worker starts to stop, for those who wait for something else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listeners: list[Callable[[], None]] = []
        self.started = False

    def begin(self) -> None:
        """Wake every listener, once."""
        with self._lock:
            self.started = True
            listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def listen(self, listener: Callable[[], None]) -> None:
        """Call `listener` when the drain begins; at once when it has begun."""
        with self._lock:
            if not self.started:
                self._listeners.append(listener)
                return
        listener()

    def forget(self, listener: Callable[[], None]) -> None:
        """Take back `listen`."""
        with self._lock:
            if listener in self._listeners:
                self._listeners.remove(listener)


class Throttle:
    """Lets one event an interval through, so that a flood does not become a flood of log lines."""

    def __init__(self, *, interval_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_seconds = interval_seconds
        self._clock = clock
        self._next = clock()

    def passes(self) -> bool:
        """Whether this event is the one to report."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._interval_seconds
        return True

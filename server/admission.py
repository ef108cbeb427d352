"""Which calls a worker takes at once, and on which threads. Knows nothing of what a call does."""

import logging
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import grpc

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"

_LOG = logging.getLogger("genie.admission")


class CallPool(ThreadPoolExecutor):
    """Threads that serve calls, in the order of arrival, and a rule for when another call would come too late.

    It is a ThreadPoolExecutor by name only, since gRPC hands calls to nothing else: nobody waits for a call's future,
    and to make one for each call costs as much as to count it, log it and measure it together.
    """

    def __init__(self, *, threads: int, limit: int, name: str, queue_seconds: float = math.inf) -> None:
        """`limit` is how many unfinished calls are taken; `queue_seconds` how long one may expect to wait."""
        super().__init__(max_workers=threads)
        self.threads = threads
        self.limit = limit
        self.unfinished = 0
        self.unread = 0
        """Calls that will be handed over when their message has been read."""
        self.unread_since = math.inf
        """When the oldest of them came, on the monotonic clock."""
        self.queue_seconds = queue_seconds
        self._pace = Pace()
        self._tasks: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._count_lock = threading.Lock()
        self._crew = [
            threading.Thread(target=self._serve, name=f"{name}_{number}", daemon=True)
            for number in range(threads)
        ]
        self._started = 0

    @property
    def full(self) -> bool:
        """Whether another call has to be refused: too many are unfinished, or it would wait for too long."""
        if self.unfinished + self.unread >= self.limit or _kept_waiting(self):
            return True
        # As many as there are threads may always wait: one slow moment must not close the door for good.
        waiting = self._tasks.qsize() + self.unread
        return waiting >= self.threads and waiting * self._pace.seconds > self.queue_seconds

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Hand over a call. gRPC does so for every call it delivered, even one cancelled meanwhile.

        The future returned is the same for all calls and never done.
        """
        with self._count_lock:
            self.unfinished += 1
        self._tasks.put((fn, args, kwargs))
        if self._started < min(self.threads, self.unfinished):
            self._start_another()
        return _NOBODY_WAITS

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the threads when what was handed over is done."""
        for _ in self._crew:
            self._tasks.put(None)
        if wait:
            for thread in self._crew[: self._started]:
                thread.join()

    def _start_another(self) -> None:
        with self._count_lock:
            if self._started < self.threads:
                self._crew[self._started].start()
                self._started += 1

    def _serve(self) -> None:
        while (task := self._tasks.get()) is not None:
            fn, args, kwargs = task
            try:
                fn(*args, **kwargs)
            except BaseException:
                _LOG.exception("a call ended in an error outside its handler")
            waiting, now = self._tasks.qsize(), time.monotonic()
            # What a thread still holds of a call keeps its memory until the next one.
            del task, fn, args, kwargs
            with self._count_lock:
                self.unfinished -= 1
                self._pace.finished(now, waiting > 0)


class WouldWait(Exception):
    """A handler that must not wait, its thread having all other calls to serve, would have to."""


class InlineQueue:
    """Calls that wait for the one thread which delivers and serves them; its rule for refusals is a `CallPool`'s."""

    threads = 1

    def __init__(self, later: CallPool, *, limit: int, queue_seconds: float = math.inf) -> None:
        """`limit` is how many unfinished calls are taken; `queue_seconds` how long one may expect to wait.

        `later` takes the calls that would have to wait for something else, as many as it has room for.
        """
        self.later = later
        self.limit = limit
        self._own = 0
        self.unread = 0
        """Calls that will wait here when their message has been read."""
        self.unread_since = math.inf
        """When the oldest of them came, on the monotonic clock."""
        self.queue_seconds = queue_seconds
        self._pace = Pace()
        self._waiting: deque[Waiting] = deque()

    def __len__(self) -> int:
        """Return how many calls wait."""
        return len(self._waiting)

    @property
    def unfinished(self) -> int:
        """Calls taken whose handler has not ended, those that wait elsewhere included."""
        return self._own + self.later.unfinished

    @property
    def full(self) -> bool:
        """Whether another call has to be refused: too many are unfinished, or it would wait for too long."""
        if self.unfinished + self.unread >= self.limit or _kept_waiting(self):
            return True
        return (len(self._waiting) + self.unread) * self._pace.seconds > self.queue_seconds

    def put(self, call: Any, message: bytes) -> None:
        """Have a call wait with its message."""
        self._own += 1
        self._waiting.append((call, message))

    def serve_next(self, most: int, serve: "Callable[[Sequence[Waiting]], object]") -> None:
        """Serve those calls that have waited longest."""
        calls = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        try:
            serve(calls)
        except BaseException:
            _LOG.exception("a call ended in an error outside its handler")
        finally:
            self._own -= len(calls)
            self._pace.finished(time.monotonic(), len(self._waiting) > 0, len(calls))

    def shutdown(self, wait: bool = True) -> None:
        """End the threads of the calls that had to wait."""
        self.later.shutdown(wait=wait)


def _kept_waiting(pool: CallPool | InlineQueue) -> bool:
    """Whether those who send slowly hold up others for too long: of that the pace of calls says nothing."""
    return pool.unread > 0 and time.monotonic() - pool.unread_since > pool.queue_seconds


class Pace:
    """Mean time from the end of one call to the end of the next, while calls wait. Not for several threads at once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        """0 until it is known."""
        self._last = -math.inf

    def finished(self, now: float, waiting: bool, count: int = 1) -> None:
        """Note that so many calls ended at `now` on the monotonic clock, and whether others waited then."""
        between = (now - self._last) / count
        if between < _LONGEST_STEP:
            # The first step counts in full, later ones by a tenth: some ten calls are remembered. One long step, when
            # another process had the core, says little of those to come: it counts as a few usual ones.
            known = self.seconds
            self.seconds += _REMEMBER * (min(between, _LONGEST_TIMES * known) - known) if known else between
        self._last = now if waiting else -math.inf


class RefusalPool(ThreadPoolExecutor):
    """Answers refused calls: some a second at once, on the thread that delivers them, those beyond with a delay.

    A caller that asks again as soon as it is refused would otherwise keep the worker busy with refusals. A refusal that
    waits holds the caller's stream, and HTTP/2 bounds those: the storm slows down at its source.
    """

    def __init__(
        self,
        *,
        drain: "Drain",
        refusals_per_second: float = 200.0,
        burst: int = 100,
        most_waiting: int = 4_000,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Refuse `burst` calls at once, then so many a second; with `most_waiting` waiting, at once again."""
        super().__init__(max_workers=1)
        self._per_second = refusals_per_second
        self._burst = float(burst)
        self._most_waiting = most_waiting
        self._clock = clock
        self._room = self._burst
        self._filled_at = clock()
        self._lock = threading.Lock()
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._releasing: threading.Thread | None = None
        self._draining = threading.Event()
        drain.listen(self._draining.set)

    @property
    def waiting(self) -> int:
        """Calls whose refusal waits."""
        return self._tasks.qsize()

    @property
    def wait_seconds(self) -> float:
        """How long a refusal that has to wait now will wait."""
        return self.waiting / self._per_second

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Refuse a call, now or later."""
        waiting = self.waiting
        if self._draining.is_set() or waiting >= self._most_waiting or (not waiting and self.spend()):
            fn(*args, **kwargs)
            return _NOBODY_WAITS
        self._tasks.put((fn, args, kwargs))
        if self._releasing is None:
            self._releasing = threading.Thread(target=self._release, name="refusals", daemon=True)
            self._releasing.start()
        return _NOBODY_WAITS

    def spend(self) -> bool:
        """Take room for one refusal; False when there is none yet."""
        with self._lock:
            now = self._clock()
            self._room = min(self._burst, self._room + (now - self._filled_at) * self._per_second)
            self._filled_at = now
            if self._room < 1.0:
                return False
            self._room -= 1.0
            return True

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing to end: the releasing thread ends with the process."""

    def _release(self) -> None:
        while True:
            fn, args, kwargs = self._tasks.get()
            while not (self.spend() or self._draining.wait(1.0 / self._per_second)):
                pass
            try:
                fn(*args, **kwargs)
            except Exception:
                _LOG.exception("a call could not be refused")
            del fn, args, kwargs


class _Forgotten(Future[Any]):
    """What gRPC gets for every call it hands over, to count those under way for a limit that we do not set."""

    def add_done_callback(self, fn: Callable[["Future[Any]"], object]) -> None:
        """Nothing."""


Waiting: TypeAlias = tuple[Any, bytes]
"""A call, whatever it is to those who put it there, with its message."""
Task: TypeAlias = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]
"""A function with its arguments."""
_NOBODY_WAITS = _Forgotten()
_REMEMBER = 0.1
_LONGEST_TIMES = 3.0
_LONGEST_STEP = 1.0
"""Seconds between two ends of calls; what took longer was no queue at work."""


class Direct(NamedTuple):
    """How a unary method is served directly (see `server.direct`). Contexts are `DirectContext`s."""

    respond: Callable[[bytes, Any], bytes]
    """The reply to a message; raises Aborted when it has aborted the call."""
    refuse: Callable[[Any, Any], object]
    """Aborts a call that there is no room for, given nothing and its context."""
    together: Callable[[Sequence[bytes], Sequence[Any]], "Sequence[bytes | Exception]"] | None
    """For messages of calls that wait together the reply to each, or what `respond` would have raised."""
    hasty: bool = False
    """Whether messages are so small that a caller who has not sent its own gives way to the next at once."""


class Route(NamedTuple):
    """A method as the dispatcher needs it."""

    handler: Handler
    refusal: Handler
    """Answers instead of `handler` when `pool` is full; runs on a pool of its own."""
    pool: CallPool | InlineQueue
    direct: "Direct | None" = None
    """Of a unary method."""


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

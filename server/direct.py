"""Unary calls taken from gRPC's core at first hand, without what grpc-python does around each call. Knows no service.

grpc-python makes a dozen objects a call, polls four events for it, and hands it over between two threads. Here a call
takes three events and no lock, and what never waits is served by the very thread that polls: a third of the CPU time of
an empty call. Connections, TLS, limits and streams stay grpc-python's: both look after the same server of the core.

This leans on parts of grpcio that are its own (`grpc._cython`). Where they are not as known, `core_of` gives
nothing and the calls are served by grpc-python as all others are.
"""

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, NoReturn

import grpc
from grpc import _server

from server.admission import CallPool, Direct, InlineQueue, RefusalPool, Waiting, WouldWait
from server.intake import Intake

_LOG = logging.getLogger("genie.direct")
cygrpc: Final[Any] = getattr(_server, "cygrpc", None)
"""What grpc-python is built on."""
_NEEDED: Final = (
    ("Server", "register_completion_queue", "register_method", "request_registered_call"),
    ("CompletionQueue", "poll", "shutdown"),
    ("Call", "start_server_batch"),
    ("CompletionType", "queue_timeout"),
    ("SendInitialMetadataOperation",),
    ("SendMessageOperation",),
    ("SendStatusFromServerOperation",),
    ("ReceiveMessageOperation",),
    ("ReceiveCloseOnServerOperation",),
)
_AWAITED = 64
"""Calls of a method that the core may deliver before the first is looked at; more are lost at a stop just then."""
_MOST_EVENTS = 512
"""Looked at between two rounds of serving: calls that arrive are counted or refused before they wait unseen."""
_MOST_SERVED = 16
"""Calls served in a round, together where they are of one method that can."""
_TICK_SECONDS = 0.1
"""How often the polling thread looks for callers who keep others waiting, and whether it is to end."""
_CLOSE_SECONDS = 0.5
_MOST_UNSENT = 256 << 20
"""Bytes of replies that are not sent: beyond, new calls are refused; from half of it on callers who do not read are cut
off."""


class Aborted(Exception):
    """A handler has ended its call with an error; its context holds it."""


class DirectMethod(NamedTuple):
    """A unary method."""

    path: str
    """Full name, `/package.Service/Method`."""
    how: Direct
    pool: CallPool | InlineQueue
    """Where calls are served: on threads, or by the one that polls."""
    refusals: RefusalPool


class DirectContext:
    """As much of `grpc.ServicerContext` as the wrapper around our methods uses, for one call."""

    __slots__ = (
        "_call",
        "_cancelled",
        "_deadline",
        "_intake",
        "_metadata",
        "_trailing",
        "_watched",
        "error",
        "method",
    )

    def __init__(self, event: Any, method: DirectMethod, intake: Intake) -> None:
        """Take a call that has arrived."""
        self._intake = intake
        self._call = event.call
        self._metadata = event.invocation_metadata
        self._deadline: float = event.call_details.deadline
        self.method = method
        self._trailing: tuple[tuple[str, str | bytes], ...] | None = None
        self._cancelled = False
        self._watched = False
        self.error: tuple[int, bytes] | None = None

    def invocation_metadata(self) -> Any:
        """The caller's headers, pairs of a key and a value."""
        return self._metadata

    def time_remaining(self) -> float:
        """Seconds until the caller's deadline, not below 0; centuries without one."""
        return max(self._deadline - time.time(), 0.0)

    def is_active(self) -> bool:
        """Whether the caller has not cancelled; what the polling thread serves is not told."""
        return not self._cancelled

    @property
    def may_wait(self) -> bool:
        """Whether the handler may wait: not on the thread that polls, which raises `WouldWait` out of it."""
        return self._watched

    def set_trailing_metadata(self, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        """Send this after the reply."""
        self._trailing = metadata

    def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        """End the call with an error. Raises Aborted."""
        self.error = code.value[0], details.encode()
        raise Aborted

    def read(self) -> None:
        """Ask for the call's message."""
        # What is received is held by the operation: each call has its own.
        self._call.start_server_batch((cygrpc.ReceiveMessageOperation(0),), self._received)

    def give_up(self) -> None:
        """End the call without an answer."""
        self._call.cancel()

    def turn_away(self) -> None:
        """Refuse the call, now or when its turn to be refused comes."""
        self.method.refusals.submit(self.refuse)

    def _received(self, event: Any) -> None:
        message = event.batch_operations[0].message()
        if message is None:
            # The caller has ended the call, or its message was too large, as the core has told it.
            details = f"{self.method.path} requires exactly one request message."
            self.error = grpc.StatusCode.UNIMPLEMENTED.value[0], details.encode()
            self._send(None)
            return
        pool = self._intake.pool
        self._intake.received(self)
        if isinstance(pool, InlineQueue):
            pool.put(self, message)
        else:
            self._hand_over(message, pool)

    def _hand_over(self, message: bytes, pool: CallPool) -> None:
        """Have a thread serve the call."""
        # Only calls that may take their time need to know whether their caller has gone meanwhile.
        self._watched = True
        self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(0),), self._closed)
        pool.submit(self.serve, message)

    def serve(self, message: bytes) -> None:
        """Answer the call; when its handler would have to wait on the thread that polls, on another one."""
        try:
            reply: bytes | BaseException = self.method.how.respond(message, self)
        except BaseException as error:
            reply = error.with_traceback(None) if isinstance(error, Aborted | WouldWait) else error
        self.end(message, reply)

    def end(self, message: bytes, reply: bytes | BaseException) -> None:
        """Send the reply, or what the handler has raised instead."""
        if isinstance(reply, bytes):
            self._send(reply)
            return
        pool = self._intake.pool
        if isinstance(reply, WouldWait) and isinstance(pool, InlineQueue) and not self._watched:
            if pool.later.full:
                # What they wait for is not what the others need.
                self.refuse()
            else:
                self._hand_over(message, pool.later)
            return
        if not isinstance(reply, Aborted):
            self._fail("a call ended in an error outside its handler", reply)
        self._send(None)

    def refuse(self) -> None:
        """Answer the call that there is no room for it."""
        try:
            self.method.how.refuse(None, self)
        except Aborted:
            pass
        except Exception as error:
            self._fail("a call could not be refused", error)
        self._send(None)

    def _fail(self, what: str, error: BaseException) -> None:
        _LOG.error(what, exc_info=error)
        self.error = grpc.StatusCode.UNKNOWN.value[0], b"the call could not be served"

    def _sent(self, _: Any) -> None:
        # The core has sent the reply, or failed to.
        self._intake.sent(self)

    def _closed(self, event: Any) -> None:
        self._cancelled = event.batch_operations[0].cancelled()

    def _send(self, reply: bytes | None) -> None:
        code, details = self.error or _OK
        operations = [
            cygrpc.SendInitialMetadataOperation(None, 0),
            cygrpc.SendStatusFromServerOperation(self._trailing, code, details, 0),
        ]
        if reply is not None and self.error is None:
            operations.append(cygrpc.SendMessageOperation(reply, 0))
        if not self._watched:
            operations.append(cygrpc.ReceiveCloseOnServerOperation(0))
        self._intake.replied(self, 0 if reply is None else len(reply))
        self._call.start_server_batch(operations, self._sent)


_OK: Final = (grpc.StatusCode.OK.value[0], b"")


class DirectCalls:
    """Serves methods of a grpc-python server, made but not started yet, from an event queue of its own."""

    def __init__(self, core: Any, methods: Sequence[DirectMethod]) -> None:
        """`core` is the server as the core knows it."""
        self._core = core
        self._methods = tuple(methods)
        self._queue = cygrpc.CompletionQueue()
        self._idle = True
        self._closing = False
        self._overfull = False
        self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._serve, name="direct", daemon=True)
        self._intakes = {id(method.pool): Intake(method.pool, hasty=method.how.hasty) for method in methods}
        pools = [intake.pool for intake in self._intakes.values()]
        self._inline = tuple(pool for pool in pools if isinstance(pool, InlineQueue))
        core.register_completion_queue(self._queue)
        for method in methods:
            core.register_method(method.path)

    def start(self) -> None:
        """Take calls, the server being started."""
        for method in self._methods:
            for _ in range(_AWAITED):
                self._await(method)
        self._thread.start()

    def settle(self, seconds: float) -> None:
        """Before the server is stopped, give the polling thread time to take what has arrived."""
        until = time.monotonic() + seconds
        while not self._idle and self.alive and time.monotonic() < until:
            time.sleep(_TICK_SECONDS / 50)

    def close(self) -> None:
        """End, the server being stopped; a call still being served keeps the queue open for its reply."""
        self._closing = True
        if self.alive:
            self._thread.join(_CLOSE_SECONDS)

    @property
    def alive(self) -> bool:
        """Whether calls are taken."""
        return self._thread.is_alive()

    def _await(self, method: DirectMethod) -> None:
        def arrived(event: Any) -> None:
            if not event.success:
                # The server stops.
                return
            intake.open += 1
            context = DirectContext(event, method, intake)
            if method.pool.full or (self._overfull and not intake.hasty):
                context.turn_away()
            else:
                intake.take(context)
            # Refused when the server stops; this call is served nevertheless.
            with suppress(ValueError):
                self._core.request_registered_call(self._queue, self._queue, method.path, arrived)

        intake = self._intakes[id(method.pool)]
        self._core.request_registered_call(self._queue, self._queue, method.path, arrived)

    def _serve(self) -> None:
        while True:
            self._idle = True
            event = self._queue.poll(time.time() + _TICK_SECONDS)
            self._idle = False
            if event.completion_type != cygrpc.CompletionType.queue_timeout:
                self._deal_with(event)
                while any(self._inline):
                    self._serve_some()
            elif self._closing and not self.open:
                # Nothing is under way and nothing will come: only now is the queue of no more use.
                self._queue.shutdown()
                return
            self._look_after_callers()

    def _serve_some(self) -> None:
        """Look for what has arrived meanwhile, then serve the calls that wait for this thread."""
        looked = 0
        # A call that nobody else waits behind need not wait for a look.
        while self.open > 1 and looked < _MOST_EVENTS:
            event = self._queue.poll(0.0)
            if event.completion_type == cygrpc.CompletionType.queue_timeout:
                break
            self._deal_with(event)
            looked += 1
        # However busy: those who keep others waiting do so all the more.
        self._look_after_callers()
        for queue in self._inline:
            if queue:
                queue.serve_next(_MOST_SERVED, _answer)

    def _look_after_callers(self) -> None:
        """Once a tick end the calls of those who keep others waiting, or whose replies fill the memory."""
        now = time.monotonic()
        if now - self._looked < _TICK_SECONDS:
            return
        self._looked = now
        intakes = self._intakes.values()
        unsent = sum(intake.unsent_bytes for intake in intakes)
        if unsent > _MOST_UNSENT and not self._overfull:
            _LOG.warning("callers do not read their replies: calls are refused until they do")
        self._overfull = unsent > _MOST_UNSENT
        for intake in intakes:
            intake.give_up_late(now)
            if unsent > _MOST_UNSENT // 2:
                intake.give_up_unsent(now)

    def _deal_with(self, event: Any) -> None:
        try:
            event.tag(event)
        except Exception:
            _LOG.exception("an event of a call could not be dealt with")

    @property
    def ended(self) -> bool:
        """Whether calls were taken once and are no more."""
        return self._thread.ident is not None and not self.alive

    @property
    def open(self) -> int:
        """Calls that have arrived and whose reply is not sent."""
        return sum(intake.open for intake in self._intakes.values())


def _answer(waiting: Sequence[Waiting]) -> None:
    """Serve calls that waited for the polling thread: together those of one method which has a way to do so."""
    by_method: dict[int, list[Waiting]] = {}
    for one in waiting:
        by_method.setdefault(id(one[0].method), []).append(one)
    for some in by_method.values():
        together = some[0][0].method.how.together
        if together is None or len(some) == 1:
            for context, message in some:
                context.serve(message)
            continue
        contexts, messages = [context for context, _ in some], [message for _, message in some]
        try:
            replies: Sequence[bytes | BaseException] = together(messages, contexts)
        except BaseException as error:
            replies = [error] * len(some)
        for (context, message), reply in zip(some, replies, strict=True):
            context.end(message, reply)


def core_of(server: grpc.Server) -> Any | None:
    """A server as gRPC's core knows it; None, told in the log, where grpcio is not as known."""
    core = getattr(getattr(server, "_state", None), "server", None)
    parts = ((getattr(cygrpc, kind, None), name) for kind, *names in _NEEDED for name in (*names, "__init__"))
    if core is not None and all(hasattr(part, name) for part, name in parts):
        return core
    _LOG.warning("this grpcio is not as known: calls are served by grpc-python alone, which takes longer")
    return None

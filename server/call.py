"""What a service knows of the call it serves. Serves none."""

import threading
import time

import grpc

from server import errors
from server.admission import Drain
from server.tracing import CallSpan


class Call:
    """What a service knows of the call it serves beside the request."""

    __slots__ = (
        "_context",
        "_drain",
        "_woken",
        "correlation_id",
        "deadline",
        "facts",
        "may_wait",
        "method",
        "now",
        "span",
        "started",
        "tenant",
    )

    def __init__(
        self, method: str, tenant: str, correlation_id: str, context: grpc.ServicerContext, drain: Drain
    ) -> None:
        self.method = method
        """Full name, `/genie.v1.LearnerService/GetLearner`."""
        self.tenant = tenant
        self.correlation_id = correlation_id
        self.now = time.time()
        """Arrival, seconds since the Unix epoch: the one reading of the clock that a call should use."""
        self.started = time.monotonic()
        self.deadline = self.started + context.time_remaining()
        """The caller's deadline on the clock of `time.monotonic`; centuries away when there is none."""
        self.span: CallSpan | None = None
        """None when calls are not traced."""
        self.may_wait: bool = getattr(context, "may_wait", True)
        """False on the thread that serves all brief calls: what would wait raises `server.admission.WouldWait`, and the
        call begins anew on another thread."""
        self.facts: dict[str, str] = {}
        """What log lines say of it."""
        self._context = context
        self._drain = drain
        self._woken: threading.Event | None = None

    def renew(self) -> None:
        """Read the clock again: for the next message of a stream."""
        self.now = time.time()

    def remaining(self) -> float:
        """Seconds until the caller's deadline, not below 0."""
        return max(self.deadline - time.monotonic(), 0.0)

    def is_active(self) -> bool:
        """Whether the caller still waits for the answer."""
        return self._context.is_active()

    def check(self) -> None:
        """Stop work nobody waits for: raises DeadlineExceeded or CallCancelled. Made for long work."""
        if time.monotonic() >= self.deadline:
            raise errors.DeadlineExceeded()
        if not self._context.is_active():
            raise errors.CallCancelled()

    def pause(self, seconds: float) -> None:
        """Wait inside a server stream; raises as `check` does, and ServerDraining when the worker stops."""
        woken = self._woken
        if woken is None:
            # One for all pauses of a call: gRPC keeps what it is to call at the end, and forgets none of it before.
            woken = self._woken = threading.Event()
            self._context.add_callback(woken.set)
        woken.clear()
        self._drain.listen(woken.set)
        try:
            # Who has gone before has woken nobody.
            self.check()
            woken.wait(min(seconds, self.remaining()))
        finally:
            self._drain.forget(woken.set)
        if self._drain.started:
            raise errors.ServerDraining()
        self.check()

"""The calls of one pool that gRPC's core has delivered, by how far each has come. Knows nothing of gRPC.

Of the calls whose message may be in memory there are not many, and replies that nobody reads are counted.
"""

import math
import threading
import time
from collections import deque
from itertools import takewhile
from typing import Final, Protocol

from server.admission import CallPool, InlineQueue

_MOST_READ = 64
"""Calls of a pool whose message is in memory or on its way; others leave theirs with the sender."""
_SEND_SECONDS = 10.0
"""So long a caller may take to send a message for which others wait."""
_REPLY_SECONDS = 30.0
"""So long a caller may take to read a reply while replies take much memory."""
_CALL_BYTES: Final = 16_384
"""What an open call takes beside its reply, roughly."""


class Delivered(Protocol):
    """A call, as far as its progress goes."""

    def read(self) -> None:
        """Ask for the call's message."""

    def give_up(self) -> None:
        """End the call without an answer."""

    def turn_away(self) -> None:
        """Refuse the call, now or when its turn to be refused comes."""


class Intake:
    """The calls of one pool."""

    def __init__(self, pool: CallPool | InlineQueue, *, hasty: bool = False) -> None:
        """`hasty` ones give up who has not sent its message as soon as another call needs the room."""
        self.pool = pool
        self.hasty = hasty
        self.open = 0
        """Calls that have arrived and whose reply is not sent. Only the thread that polls changes it."""
        self._lock = threading.Lock()
        self._reading: dict[Delivered, float] = {}
        self._held: set[Delivered] = set()
        self._unread: deque[tuple[Delivered, float]] = deque()
        self._unsent: dict[Delivered, tuple[float, int]] = {}
        # Only ever grows: one thread sends, many reply.
        self._replied_bytes = 0
        self._sent_bytes = 0

    @property
    def unsent_bytes(self) -> int:
        """What replies that are not sent take."""
        return self._replied_bytes - self._sent_bytes

    def take(self, call: Delivered) -> None:
        """Read the call's message, now or when there is room for it."""
        with self._lock:
            self._unread.append((call, time.monotonic()))
            self._read_on()
            if self.hasty and self._unread and self._reading:
                oldest = next(iter(self._reading))
                del self._reading[oldest]
                oldest.give_up()
                self._read_on()

    def received(self, call: Delivered) -> None:
        """Note that the call's message has come."""
        with self._lock:
            # One that has been given up just now may have come nevertheless.
            self._reading.pop(call, None)
            self._held.add(call)

    def replied(self, call: Delivered, size: int) -> None:
        """Note that the call's reply is there: how long the caller takes to read it holds nobody up."""
        # Python and gRPC's core hold a copy each.
        size = 2 * size + _CALL_BYTES
        with self._lock:
            self._held.discard(call)
            self._reading.pop(call, None)
            self._unsent[call] = time.monotonic(), size
            self._replied_bytes += size
            if self._unread:
                self._read_on()

    def sent(self, call: Delivered) -> None:
        """Note that the call's reply has gone, or failed to. For the thread that polls."""
        self.open -= 1
        _, size = self._unsent.pop(call)
        self._sent_bytes += size

    def give_up_late(self, now: float) -> None:
        """End the calls whose message has not come for too long while others wait to send theirs."""
        if not self._unread:
            return
        with self._lock:
            late = [call for call, since in self._reading.items() if since < now - _SEND_SECONDS]
            hopeless = self._without_hope(now)
        for call in late:
            call.give_up()
        for call in hopeless:
            call.turn_away()

    def give_up_unsent(self, now: float) -> None:
        """End the calls whose caller takes too long to read the reply. For the thread that polls."""
        with self._lock:
            waiting = self._unsent.items()
            late = [call for call, _ in takewhile(lambda one: one[1][0] < now - _REPLY_SECONDS, waiting)]
        for call in late:
            call.give_up()

    def _without_hope(self, now: float) -> list[Delivered]:
        """Take out those that have waited for too long to send, if nobody has been let in for as long."""
        since = now - self.pool.queue_seconds
        if self._held or not self._reading or next(reversed(self._reading.values())) > since:
            return []
        hopeless = []
        while self._unread and self._unread[0][1] < since:
            hopeless.append(self._unread.popleft()[0])
        self._count_unread()
        return hopeless

    def _read_on(self) -> None:
        while self._unread and len(self._reading) + len(self._held) < _MOST_READ:
            call, _ = self._unread.popleft()
            self._reading[call] = time.monotonic()
            call.read()
        self._count_unread()

    def _count_unread(self) -> None:
        self.pool.unread = len(self._unread)
        self.pool.unread_since = self._unread[0][1] if self._unread else math.inf

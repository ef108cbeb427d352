"""How long calls wait for what is being made ready before they are served from what was there before. Makes nothing."""

import math
import threading
import time
from collections.abc import Callable

PATIENCE_SECONDS = 0.5
"""Calls wait so long at most, counted from the first that waits."""
SHARE = 0.2
"""Of the time, when something is always being made ready: what was waited is not waited again until later."""
MOST_ASIDE = 32
"""Calls put aside to wait for the same thing; those beyond are served from what was there before."""


class Patience:
    """What is left of the time that calls may wait. Thread-safe."""

    def __init__(
        self, seconds: float = PATIENCE_SECONDS, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Have `seconds`, and never more."""
        self._most = self._left = seconds
        self._clock = clock
        self._filled_at = clock()
        self._lock = threading.Lock()

    def wait(self) -> "Wait":
        """A wait for one thing that is being made ready."""
        return Wait(self, self._clock)

    def left(self) -> float:
        """Seconds that may be waited from now."""
        now = self._clock()
        with self._lock:
            self._left = min(self._most, self._left + SHARE * (now - self._filled_at))
            self._filled_at = now
            return self._left

    def spend(self, seconds: float) -> None:
        """Note that so much was waited."""
        with self._lock:
            self._left -= seconds


class Wait:
    """The wait of many calls for the same thing, which begins with the first of them. Thread-safe."""

    def __init__(self, patience: Patience, clock: Callable[[], float]) -> None:
        """Begin when a call asks."""
        self.patience = patience
        self._clock = clock
        self._began = math.nan
        self._until = math.nan
        self._aside = 0
        self._lock = threading.Lock()

    def left(self) -> float:
        """Seconds that a call may still wait, 0 when no more."""
        with self._lock:
            if math.isnan(self._began):
                self._began = self._clock()
                self._until = self._began + self.patience.left()
            return max(self._until - self._clock(), 0.0)

    def put_aside(self) -> bool:
        """Whether a call that must not wait where it is should wait elsewhere, as one of a few."""
        if self.left() <= 0.0:
            return False
        with self._lock:
            self._aside += 1
            return self._aside <= MOST_ASIDE

    def end(self) -> None:
        """It is ready, or has failed: what was waited is spent."""
        with self._lock:
            if not math.isnan(self._began):
                self.patience.spend(max(min(self._clock(), self._until) - self._began, 0.0))

"""Tells of slates that could not be kept, a line now and then with their count. Keeps nothing itself."""

import logging
import threading

from server.admission import Throttle
from server.logs import log
from store.api import StoreError, StoreFull

TELL_SECONDS = 10.0


class Unkept:
    """Counts slates that were not kept; the first is told at once, those of the next seconds together. Thread-safe."""

    def __init__(self, logger: logging.Logger, throttle: Throttle | None = None) -> None:
        self._logger = logger
        self._throttle = Throttle(interval_seconds=TELL_SECONDS) if throttle is None else throttle
        self._lock = threading.Lock()
        self._count = 0

    def add(self, error: StoreError) -> None:
        """Count one; a line says how many there were since the last line, and why this one."""
        with self._lock:
            self._count += 1
            if not self._throttle.passes():
                return
            count, self._count = self._count, 0
        facts = {"slates": count, "why": str(error)}
        if isinstance(error, StoreFull):
            log(self._logger, logging.ERROR, "a slate could not be kept", **facts)
        else:
            self._logger.error("a slate could not be kept", exc_info=error, extra={"facts": facts})

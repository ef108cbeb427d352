"""Counts and latencies of the calls a process served. Publishes nothing; readers take a snapshot."""

import threading
from typing import NamedTuple

BUCKETS = 32
"""Latency bucket i counts calls of 2^(i-1) to 2^i - 1 microseconds; the last one everything slower."""


class CallCount(NamedTuple):
    """What is known of one method's calls that ended with one status code."""

    method: str
    code: str
    calls: int
    seconds: float
    """Time spent in all of them."""
    buckets: tuple[int, ...]

    def quantile_ms(self, share: float) -> float:
        """Upper edge of the bucket with the `share` quantile of latency, in milliseconds; 0 without calls."""
        wanted = share * self.calls
        passed = 0
        for index, count in enumerate(self.buckets):
            passed += count
            if passed >= wanted and passed:
                return float(1 << index) / 1e3
        return 0.0


class CallCounters:
    """Counts finished calls by method and status code. Safe to use from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cells: dict[tuple[str, str], list[float]] = {}
        self._buckets: dict[tuple[str, str], list[int]] = {}

    def count(self, method: str, code: str, seconds: float) -> None:
        """Add one call that took `seconds`."""
        key = (method, code)
        bucket = min(int(seconds * 1e6).bit_length(), BUCKETS - 1)
        with self._lock:
            cell = self._cells.get(key)
            if cell is None:
                cell = self._cells[key] = [0, 0.0]
                self._buckets[key] = [0] * BUCKETS
            cell[0] += 1
            cell[1] += seconds
            self._buckets[key][bucket] += 1

    def snapshot(self) -> list[CallCount]:
        """All counts so far, ordered by method and code."""
        with self._lock:
            return [
                CallCount(method, code, int(cell[0]), cell[1], tuple(self._buckets[method, code]))
                for (method, code), cell in sorted(self._cells.items())
            ]

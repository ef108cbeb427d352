"""A bounded memory of what a pure function gave. Knows nothing of what it remembers."""

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class Memo(Generic[K, V]):
    """Values by key; the one that was asked for longest ago makes room. Thread-safe."""

    __slots__ = ("_known", "_lock", "_most", "hits", "misses")

    def __init__(self, most: int) -> None:
        """Remember at most `most` values."""
        self._most = most
        self._known: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        """Return how many values are remembered."""
        return len(self._known)

    def find(self, key: K) -> V | None:
        """Return what is remembered under a key."""
        with self._lock:
            known = self._known.get(key)
            if known is None:
                self.misses += 1
            else:
                self.hits += 1
                self._known.move_to_end(key)
        return known

    def keep(self, key: K, value: V) -> None:
        """Remember a value."""
        with self._lock:
            self._known[key] = value
            if len(self._known) > self._most:
                self._known.popitem(last=False)

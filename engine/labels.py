"""Ids by row as bytes, with whatever goes with each, for kernels that write them. Knows no format and no catalogue."""

import threading
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

import numpy as np

from engine.jit import brief_kernel
from engine.types import I4, NO_ROW, U1, U4

MOST_BYTES: Final = 16 << 20
"""Of a shelf; past this, all labels are let go and noted anew as they come up."""
LABEL_HEAD: Final = 4
"""Bytes before a label's id: the sizes of id and tail, 16 bits each, the lower byte first."""
_FIRST_BYTES: Final = 1 << 16


class Shelf(NamedTuple):
    """Labels one after another: sizes of id and tail, id, tail."""

    starts: I4
    """(rows,) where each begins; −1 for one that is not noted."""
    data: U1
    longest: int
    """No label takes more bytes."""


class Labels:
    """Labels of rows, noted as they come up. Thread-safe, for kernels that keep hold of the interpreter."""

    def __init__(self, rows: int) -> None:
        """Note none yet."""
        self._lock = threading.Lock()
        self._end = 0
        self.shelf = Shelf(np.full(rows, -1, np.int32), np.zeros(_FIRST_BYTES, np.uint8), 0)
        """What is noted; what a shelf holds it keeps, though another one takes its place."""

    def holding(self, rows: Iterable[int], told: Callable[[int], tuple[bytes, bytes]]) -> Shelf:
        """A shelf with at least these rows, of which `told` gives id and tail."""
        wanted = set(rows)
        with self._lock:
            missing = [row for row in wanted if self.shelf.starts[row] < 0]
            labels = self._spelled(missing, told)
            if self._end + sum(map(len, labels.values())) > MOST_BYTES:
                self._end = 0
                self.shelf = Shelf(np.full_like(self.shelf.starts, -1), np.zeros(_FIRST_BYTES, np.uint8), 0)
                labels = self._spelled(wanted, told)
            self._note(labels)
            return self.shelf

    def _spelled(self, rows: Iterable[int], told: Callable[[int], tuple[bytes, bytes]]) -> dict[int, bytes]:
        labels = {}
        for row in rows:
            name, tail = told(row)
            sizes = len(name).to_bytes(2, "little") + len(tail).to_bytes(2, "little")
            labels[row] = b"".join((sizes, name, tail))
        return labels

    def _note(self, labels: dict[int, bytes]) -> None:
        starts, data, before = self.shelf
        end, longest = self._end + sum(map(len, labels.values())), max(before, *map(len, labels.values()), 0)
        if end > len(data) or longest > before:
            # Another shelf, though the memory may be the same: whoever reads the one from before finds all there that
            # its `starts` say is there, and nothing longer than its `longest`.
            starts = starts.copy()
        if end > len(data):
            grown = np.zeros(max(end, 2 * len(data)), np.uint8)
            grown[: self._end] = data[: self._end]
            data = grown
        at = self._end
        for row, label in labels.items():
            data[at : at + len(label)] = np.frombuffer(label, np.uint8)
            # Last of all: a shelf that others hold may have these `starts`.
            starts[row] = at
            at += len(label)
        self._end = end
        self.shelf = Shelf(starts, data, longest)


@brief_kernel
def all_noted(starts: I4, rows: U4) -> bool:
    """Return whether a shelf with these starts has all of rows (n, k), NO_ROW aside."""
    for i in range(rows.shape[0]):
        for j in range(rows.shape[1]):
            if rows[i, j] != NO_ROW and starts[rows[i, j]] < 0:
                return False
    return True

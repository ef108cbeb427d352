"""An operation's own writes, held back until it succeeds. Knows no back end and no commit."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from heapq import merge
from typing import TypeAlias

from store.api import MAX_TENANT_KEY_BYTES, Reader, StoreCorrupt, Table, Transaction

Writes: TypeAlias = dict[Table, dict[bytes, bytes | None]]
"""New value by table and key; None where the entry is removed."""


Additions: TypeAlias = dict[bytes, dict[int, int]]
"""Amount by counter and cell."""
MOST_CELLS = 256
CELL_BYTES = 8


class Overlay:
    """A transaction over a reader: reads see the writes made here, the reader below never does."""

    __slots__ = ("_base", "_max_key_bytes", "additions", "writes")

    def __init__(self, base: Reader, max_key_bytes: int) -> None:
        """Start with no writes over `base`."""
        self._base = base
        self._max_key_bytes = max_key_bytes
        self.writes: Writes = {}
        self.additions: Additions = {}

    def get(self, table: Table, key: bytes = b"") -> bytes | None:
        """Value under `key`, or None."""
        written = self.writes.get(table)
        if written is not None and key in written:
            return written[key]
        return self._base.get(table, key)

    def scan(
        self, table: Table, *, start: bytes = b"", stop: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < stop, own writes included as they stood when the scan began."""
        below = self._base.scan(table, start=start, stop=stop, reverse=reverse)
        written = self.writes.get(table)
        if not written:
            return below
        own = {key: value for key, value in written.items() if start <= key and (stop is None or key < stop)}
        return _merged(below, own, reverse=reverse)

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        """Insert or overwrite."""
        check_key(key, self._max_key_bytes)
        self.writes.setdefault(table, {})[key] = value

    def put_many(self, table: Table, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Insert or overwrite many entries."""
        if entries:
            check_key(max((key for key, _ in entries), key=len), self._max_key_bytes)
            self.writes.setdefault(table, {}).update(entries)

    def delete(self, table: Table, key: bytes = b"") -> bool:
        """Remove; True when there was something to remove."""
        existed = self.get(table, key) is not None
        if existed:
            self.writes.setdefault(table, {})[key] = None
        return existed

    def add(self, counter: bytes, amounts: Mapping[int, int]) -> None:
        """Add to cells of a counter of the tenant."""
        check_counter(counter, amounts)
        gather(self.additions, counter, amounts)


def check_key(key: bytes, longest: int) -> None:
    """ValueError when a key is longer than its partition takes."""
    if len(key) > longest:
        raise ValueError(f"key of {len(key)} bytes is over this partition's limit of {longest}")


def check_counter(counter: bytes, amounts: Mapping[int, int]) -> None:
    """ValueError when a counter's name is too long, or a cell out of its bounds."""
    if len(counter) > MAX_TENANT_KEY_BYTES or (
        amounts and not 0 <= min(amounts) <= max(amounts) < MOST_CELLS
    ):
        raise ValueError(f"counter {counter!r} with cells {sorted(amounts)} is over the limits")


def gather(additions: Additions, counter: bytes, amounts: Mapping[int, int]) -> None:
    """Add amounts to those of the same counter."""
    cells = additions.get(counter)
    if cells is None:
        additions[counter] = dict(amounts)
        return
    for cell, amount in amounts.items():
        cells[cell] = cells.get(cell, 0) + amount


def unpack_cells(value: bytes) -> list[int]:
    """The numbers of a counter. Raises StoreCorrupt."""
    if len(value) % CELL_BYTES:
        raise StoreCorrupt("a counter is cut short")
    return list(struct.unpack(f"<{len(value) // CELL_BYTES}q", value))


def added(value: bytes | None, amounts: Mapping[int, int]) -> bytes:
    """A counter's value with amounts added."""
    cells = unpack_cells(b"" if value is None else value)
    cells += [0] * (max(amounts, default=-1) + 1 - len(cells))
    for cell, amount in amounts.items():
        cells[cell] += amount
    return struct.pack(f"<{len(cells)}q", *cells)


def _merged(
    below: Iterator[tuple[bytes, bytes]], own: dict[bytes, bytes | None], *, reverse: bool
) -> Iterator[tuple[bytes, bytes]]:
    kept = ((key, value) for key, value in below if key not in own)
    added = [(key, value) for key, value in own.items() if value is not None]
    added.sort(reverse=reverse)
    return merge(kept, added, reverse=reverse)


def erase_everything(tx: Transaction) -> int:
    """Remove every entry of the transaction's partition; how many there were."""
    removed = 0
    for table in Table:
        for key, _ in tx.scan(table):
            tx.delete(table, key)
            removed += 1
    return removed

"""What happened, counted by tenant and day in the transaction that records it. Decides no rates.

A day's counts are the cells of one vector under TALLY in the tenant's own partition, and so are the sums over all days.
Every count is a function of what is stored (`store.recount`), so that it can be recounted; of learners who were
erased, what they had added is kept apart, since what happened on a day stays true.

Days are UTC days since 1970-01-01, of when a thing happened; those of streaks are days on the learner's own calendar.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from enum import IntEnum

from store.api import Bulk, Reader, Table, Transaction
from store.overlay import unpack_cells

SECONDS_A_DAY = 86_400
FEEDBACK_KINDS = 8


class Tally(IntEnum):
    """What is counted; the value is the cell of the vector, for ever."""

    ANSWERS = 0
    CORRECT = 1
    LATE = 2
    """Answers older than one recorded before them."""
    PRACTICE_MS = 3
    MASTERED = 4
    """Concepts that came to be mastered."""
    LOST = 5
    """Concepts whose mastery was lost."""
    ACTIVE = 6
    """Learners with an answer on the day."""
    LAST_ACTIVE = 7
    """Learners whose newest answer is of the day: the sum over the last days is who was active in them."""
    CREATED = 8
    DELETED = 9
    SESSIONS_STARTED = 10
    SESSIONS_ENDED = 11
    STREAKS_KEPT = 12
    """Learners whose streak was carried on on the day."""
    STREAKS_END = 13
    """Streaks that end on the day, or will unless their learner practises before."""
    RECOMMENDATIONS = 14
    """Slates; in the serving store, like the next."""
    RECOMMENDED = 15
    """Questions on slates."""
    FEEDBACK = 24
    """Events of kind 0; those of kind k, at most 7, are in the k-th cell from here."""


CELLS = int(Tally.FEEDBACK) + FEEDBACK_KINDS
_RECOMMENDATIONS, _RECOMMENDED = int(Tally.RECOMMENDATIONS), int(Tally.RECOMMENDED)
_ALL = b"a"
_DAY = b"d"
_ERASED = b"e"
_DAY_ZERO = 1 << 31


class Days:
    """Counts by day that belong together."""

    __slots__ = ("by_day",)

    def __init__(self) -> None:
        self.by_day: dict[int, dict[int, int]] = {}

    def count(self, day: int, tally: int, amount: int = 1) -> None:
        """Add to one count."""
        cells = self.by_day.get(day)
        if cells is None:
            cells = self.by_day[day] = {}
        cells[tally] = cells.get(tally, 0) + amount

    def take(self, other: "Days", sign: int = 1) -> None:
        """Add all of `other`, or take it away."""
        for day, cells in other.by_day.items():
            for tally, amount in cells.items():
                self.count(day, tally, sign * amount)

    def write(self, tx: Transaction | Bulk) -> None:
        """Count all of this with the transaction."""
        self._write(tx, _DAY)
        sums: Counter[int] = Counter()
        for cells in self.by_day.values():
            sums.update(cells)
        if sums:
            tx.add(_ALL, sums)

    def write_erased(self, tx: Transaction) -> None:
        """Note with the transaction that what made all of this up is stored no longer."""
        self._write(tx, _ERASED)

    def differing(self) -> "Days":
        """The counts that are not 0."""
        found = Days()
        for day, cells in self.by_day.items():
            for tally, amount in cells.items():
                if amount:
                    found.count(day, tally, amount)
        return found

    def _write(self, tx: Transaction | Bulk, kind: bytes) -> None:
        for day, cells in self.by_day.items():
            tx.add(_day_key(kind, day), cells)


def utc_day(seconds: float) -> int:
    """The UTC day of epoch seconds."""
    return int(seconds // SECONDS_A_DAY)


def read_days(reader: Reader, first: int, last: int) -> dict[int, list[int]]:
    """The cells of each day from `first` to `last` that has any; `reader` is of the tenant's own partition."""
    return dict(_scanned(reader, _DAY, first, last))


def read_sums(reader: Reader) -> list[int]:
    """The cells, summed over all days; of the serving store, by going through them."""
    value = reader.get(Table.TALLY, _ALL)
    if value is not None:
        return _cells(value)
    sums = [0] * CELLS
    for _, cells in _scanned(reader, _DAY, -_DAY_ZERO, _DAY_ZERO - 1):
        sums = [a + b for a, b in zip(sums, cells, strict=True)]
    return sums


def read_all(reader: Reader, *, erased: bool = False) -> Days:
    """Every count of every day, or what erased learners had added to them."""
    days = Days()
    for day, cells in _scanned(reader, _ERASED if erased else _DAY, -_DAY_ZERO, _DAY_ZERO - 1):
        for tally, amount in enumerate(cells):
            if amount:
                days.count(day, tally, amount)
    return days


def add_to_sums(tx: Transaction, amounts: Mapping[int, int]) -> None:
    """Put the sums over all days right, when they are not those of the days."""
    tx.add(_ALL, amounts)


def tally(tx: Transaction, day: int, what: int, amount: int = 1) -> None:
    """Count one thing."""
    days = Days()
    days.count(day, what, amount)
    days.write(tx)


def tally_slates(tx: Transaction, day: int, slates: int, questions: int) -> None:
    """Count slates in their day only: recommendations wait for it, and the serving store keeps no sums."""
    tx.add(_day_key(_DAY, day), {_RECOMMENDATIONS: slates, _RECOMMENDED: questions})


def feedback_cell(kind: int) -> int:
    """Where events of a kind are counted."""
    return int(Tally.FEEDBACK) + min(max(kind, 0), FEEDBACK_KINDS - 1)


def tally_name(cell: int) -> str:
    """What a cell counts, in words."""
    kind = cell - int(Tally.FEEDBACK)
    if kind >= 0:
        return f"feedback of kind {kind}"
    return Tally(cell).name.lower().replace("_", " ") if cell in Tally._value2member_map_ else f"cell {cell}"


def _scanned(reader: Reader, kind: bytes, first: int, last: int) -> Iterator[tuple[int, list[int]]]:
    stop = _day_key(kind, last) + b"\x00"
    for key, value in reader.scan(Table.TALLY, start=_day_key(kind, first), stop=stop):
        yield int.from_bytes(key[1:], "big") - _DAY_ZERO, _cells(value)


def _day_key(kind: bytes, day: int) -> bytes:
    return kind + (day + _DAY_ZERO).to_bytes(4, "big")


def _cells(value: bytes) -> list[int]:
    cells = unpack_cells(value)
    return cells + [0] * (CELLS - len(cells))

"""What a learner's feedback has taught: which offers are taken up, what was put away. A pure function of the events."""

from dataclasses import dataclass, field

from store import codec
from store.api import Reader, Table, Transaction

MOST_DISMISSED = 64
"""Dismissed questions remembered; the oldest makes room."""


@dataclass(frozen=True, slots=True)
class Taste:
    """The learner's record; areas by name, since a catalogue may number them anew."""

    at: float = 0.0
    """Epoch seconds to which the counts are decayed."""
    taken: dict[str, list[float]] = field(default_factory=dict)
    """Area → decayed count of offers taken up, by source."""
    left: dict[str, list[float]] = field(default_factory=dict)
    """Area → decayed count of offers left, by source."""
    dismissed: list[tuple[int, float]] = field(default_factory=list)
    """(question row, epoch seconds), newest last."""


_TASTE = codec.RecordCodec(Taste)
_NONE = Taste()


def read_taste(reader: Reader) -> Taste:
    """The record; an empty one before any feedback."""
    value = reader.get(Table.TASTE)
    return _NONE if value is None else _TASTE.decode(value)


def write_taste(tx: Transaction, taste: Taste) -> None:
    """Insert or overwrite the record."""
    tx.put(Table.TASTE, b"", _TASTE.encode(taste))

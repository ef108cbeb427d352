"""A tenant's catalogue as stored: concepts, questions, their rows, memory sets. Checks no graph, resolves no ids.

Keys inside the tenant's partition: CONCEPT and QUESTION by id, CONCEPT_ROW and QUESTION_ROW by row (u32
big-endian, the value is the id), MEMORY_SET by number (u16 big-endian), META the counts. An id keeps its row
for ever: what is deleted leaves its entry behind, marked, so that old answers still name it and the id comes
back to the same row.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import islice
from typing import Final, Generic, TypeVar

import numpy as np

from engine.learner import DEFAULT_WEIGHTS
from engine.types import F8, Concept, Question
from store import codec
from store.api import Reader, Table, Transaction
from store.records import CatalogCounts

E = TypeVar("E", Concept, Question)

PRESENT: Final = b"\x01"
DELETED: Final = b"\x00"


@dataclasses.dataclass(frozen=True, slots=True)
class Upserted(Generic[E]):
    """What a batch of upserts did, in its order."""

    entries: list[E]
    """As stored: with rows and times."""
    created: int
    updated: int
    unchanged: int
    version: int
    """The catalogue's version afterwards."""


@dataclasses.dataclass(frozen=True, slots=True)
class CatalogRecords:
    """Everything of one consistent version."""

    version: int
    concepts: list[Concept]
    """In order of row, deleted ones left out."""
    questions: list[Question]
    """In order of row, deleted ones left out."""
    concept_ids: list[str]
    """By row, deleted ones included."""
    question_ids: list[str]
    """By row, deleted ones included."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind(Generic[E]):
    """Where one kind of entry is kept."""

    table: Table
    row_table: Table
    record: codec.RecordCodec[E]
    name: Callable[[E], str]
    live: str
    """Field of the counts that says how many there are."""
    rows: str
    """Field of the counts that says how many rows were given."""


_CONCEPTS: Final[_Kind[Concept]] = _Kind(
    Table.CONCEPT, Table.CONCEPT_ROW, codec.CONCEPT, lambda c: c.concept_id, "concepts", "concept_rows"
)
_QUESTIONS: Final[_Kind[Question]] = _Kind(
    Table.QUESTION,
    Table.QUESTION_ROW,
    codec.QUESTION,
    lambda q: q.question_id,
    "questions",
    "question_rows",
)


def read_counts(reader: Reader) -> CatalogCounts:
    """The catalogue in numbers, its version among them."""
    value = reader.get(Table.META)
    return CatalogCounts() if value is None else _counts(value)


@lru_cache(maxsize=64)
def _counts(value: bytes) -> CatalogCounts:
    """Remembered, since every call looks whether they have changed."""
    return codec.CATALOG_COUNTS.decode(value)


def get_concept(reader: Reader, concept_id: str) -> Concept | None:
    """A concept by id; None when there is none, or it was deleted."""
    return _get(reader, _CONCEPTS, concept_id)


def get_question(reader: Reader, question_id: str) -> Question | None:
    """A question by id; None when there is none, or it was deleted."""
    return _get(reader, _QUESTIONS, question_id)


def list_concepts(reader: Reader, *, after: str = "", limit: int) -> list[Concept]:
    """Concepts with ids > `after`, in order of id."""
    return _list(reader, _CONCEPTS, after, limit)


def list_questions(reader: Reader, *, after: str = "", limit: int) -> list[Question]:
    """Questions with ids > `after`, in order of id."""
    return _list(reader, _QUESTIONS, after, limit)


def concept_rows(reader: Reader, concept_ids: Iterable[str]) -> list[int | None]:
    """Row of each concept; None where there is none, or it was deleted."""
    found = (get_concept(reader, concept_id) for concept_id in concept_ids)
    return [None if concept is None else concept.row for concept in found]


def concept_names(reader: Reader, rows: Iterable[int]) -> dict[int, str]:
    """Id of each concept row, deleted ones included; rows that were never given are left out."""
    return _names(reader, Table.CONCEPT_ROW, rows)


def question_names(reader: Reader, rows: Iterable[int]) -> dict[int, str]:
    """Id of each question row, deleted ones included; rows that were never given are left out."""
    return _names(reader, Table.QUESTION_ROW, rows)


def upsert_concepts(tx: Transaction, concepts: Sequence[Concept], *, now: float) -> Upserted[Concept]:
    """Insert or overwrite; rows and times of the arguments are not read. The same again changes nothing."""
    return _upsert(tx, _CONCEPTS, concepts, now)


def upsert_questions(tx: Transaction, questions: Sequence[Question], *, now: float) -> Upserted[Question]:
    """Insert or overwrite; rows and times of the arguments are not read. The same again changes nothing."""
    return _upsert(tx, _QUESTIONS, questions, now)


def delete_concepts(tx: Transaction, concept_ids: Iterable[str], *, now: float) -> int:
    """Remove concepts; how many there were. Who still refers to them is the caller's to check, in this transaction."""
    return _delete(tx, _CONCEPTS, concept_ids, now)


def delete_questions(tx: Transaction, question_ids: Iterable[str], *, now: float) -> int:
    """Remove questions; how many there were."""
    return _delete(tx, _QUESTIONS, question_ids, now)


def load_catalog(reader: Reader) -> CatalogRecords:
    """The whole catalogue, consistent."""
    return CatalogRecords(
        read_counts(reader).version,
        _load(reader, _CONCEPTS),
        _load(reader, _QUESTIONS),
        [value.decode() for _, value in reader.scan(Table.CONCEPT_ROW)],
        [value.decode() for _, value in reader.scan(Table.QUESTION_ROW)],
    )


def read_memory_sets(reader: Reader) -> F8:
    """The FSRS weights that answers refer to by number, shape (sets, 21); row 0 holds the published defaults."""
    sets = [codec.decode_memory_set(value) for _, value in reader.scan(Table.MEMORY_SET)]
    return np.array(sets) if sets else np.asarray(DEFAULT_WEIGHTS, np.float64).reshape(1, -1)


def append_memory_set(tx: Transaction, weights: F8) -> int:
    """Store a further set, shape (21,), and return its number; one that is there already keeps its number."""
    sets = read_memory_sets(tx)
    same = np.flatnonzero((sets == weights).all(axis=1))
    if len(same):
        return int(same[0])
    for number, row in enumerate([*sets, weights]):
        tx.put(Table.MEMORY_SET, number.to_bytes(2, "big"), codec.encode_memory_set(np.asarray(row)))
    return len(sets)


def _get(reader: Reader, kind: _Kind[E], name: str) -> E | None:
    value = reader.get(kind.table, name.encode())
    return kind.record.decode(value[1:]) if value is not None and value[:1] == PRESENT else None


def _names(reader: Reader, table: Table, rows: Iterable[int]) -> dict[int, str]:
    found = {row: reader.get(table, row.to_bytes(4, "big")) for row in rows}
    return {row: value.decode() for row, value in found.items() if value is not None}


def _list(reader: Reader, kind: _Kind[E], after: str, limit: int) -> list[E]:
    start = after.encode() + b"\x00" if after else b""
    present = (value for _, value in reader.scan(kind.table, start=start) if value[:1] == PRESENT)
    return [kind.record.decode(value[1:]) for value in islice(present, limit)]


def _load(reader: Reader, kind: _Kind[E]) -> list[E]:
    entries = [kind.record.decode(value[1:]) for _, value in reader.scan(kind.table) if value[:1] == PRESENT]
    return sorted(entries, key=lambda entry: entry.row)


def _upsert(tx: Transaction, kind: _Kind[E], entries: Sequence[E], now: float) -> Upserted[E]:
    counts = read_counts(tx)
    live, rows = int(getattr(counts, kind.live)), int(getattr(counts, kind.rows))
    stored: list[E] = []
    created = updated = 0
    for entry in entries:
        name = kind.name(entry)
        key = name.encode()
        value = tx.get(kind.table, key)
        held = None if value is None else kind.record.decode(value[1:])
        if value is not None and held is not None and value[:1] == PRESENT:
            new = dataclasses.replace(
                entry, row=held.row, created_at=held.created_at, updated_at=held.updated_at
            )
            if new == held:
                stored.append(held)
                continue
            new = dataclasses.replace(new, updated_at=now)
            updated += 1
        else:
            row = rows if held is None else held.row
            new = dataclasses.replace(entry, row=row, created_at=now, updated_at=now)
            created += 1
            if held is None:
                tx.put(kind.row_table, row.to_bytes(4, "big"), key)
                rows += 1
        tx.put(kind.table, key, PRESENT + kind.record.encode(new))
        stored.append(new)
    if created or updated:
        counts = _bump(tx, counts, now, {kind.live: live + created, kind.rows: rows})
    unchanged = len(entries) - created - updated
    return Upserted(stored, created, updated, unchanged, counts.version)


def _delete(tx: Transaction, kind: _Kind[E], names: Iterable[str], now: float) -> int:
    counts = read_counts(tx)
    removed = 0
    for name in names:
        value = tx.get(kind.table, name.encode())
        if value is not None and value[:1] == PRESENT:
            tx.put(kind.table, name.encode(), DELETED + value[1:])
            removed += 1
    if removed:
        _bump(tx, counts, now, {kind.live: int(getattr(counts, kind.live)) - removed})
    return removed


def _bump(tx: Transaction, counts: CatalogCounts, now: float, changes: dict[str, int]) -> CatalogCounts:
    fields = dataclasses.asdict(counts) | changes | {"version": counts.version + 1, "changed_at": now}
    new = CatalogCounts(**fields)
    tx.put(Table.META, b"", codec.CATALOG_COUNTS.encode(new))
    return new

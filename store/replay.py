"""Every learner's state worked out anew from the answer log: to prove that it agrees, to repair it, to train on it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import merge
from itertools import groupby

from engine.types import F8
from store import codec
from store.answer_log import AnswerLog, chronological
from store.api import Partition, Reader, Store, StoreCorrupt, Table, Transaction
from store.catalogs import read_memory_sets
from store.learners import last_sequence, read_answers, rebuild_state

PAGE = 512
LISTED = 100
"""Learners that a report names at most."""


@dataclass(slots=True)
class ReplayReport:
    """What a replay found."""

    learners: int = 0
    answers: int = 0
    differing: int = 0
    """Learners whose stored state is not, bit for bit, what their log leads to."""
    examples: list[str] = field(default_factory=list)
    """Some of their ids."""


def all_learners(store: Store, tenant: str, *tables: Table) -> Iterator[str]:
    """Ids, in order, of the tenant's learners with an entry in any of the tables."""
    listings = (_listing(store, tenant, table) for table in tables)
    return (learner_id for learner_id, _ in groupby(merge(*listings)))


def replay(
    store: Store,
    tenant: str,
    *,
    write: bool = False,
    progress: Callable[[ReplayReport], None] | None = None,
) -> ReplayReport:
    """Rebuild every state of a tenant from the log and compare with what is stored; with `write`, store what differs.

    Works on a store in use: each learner is read, or written, in one transaction. Holds one learner in memory
    at a time. `progress` is called with the report so far after each learner.
    """
    with store.read(Partition(tenant)) as reader:
        memory_sets = read_memory_sets(reader)
    report = ReplayReport()
    for learner_id in all_learners(store, tenant, Table.ANSWER, Table.STATE):
        partition = Partition(tenant, learner_id)
        with store.read(partition) as reader:
            report.answers += last_sequence(reader)
            agrees = _expected(reader, memory_sets) == _stored(reader)
        if not agrees:
            report.differing += 1
            report.examples += [learner_id][: LISTED - len(report.examples)]
            if write:
                store.update(partition, lambda tx: _repair(tx, memory_sets))
        report.learners += 1
        if progress is not None:
            progress(report)
    return report


def training_log(store: Store, tenant: str) -> Iterator[tuple[str, AnswerLog]]:
    """Every learner with their whole log, in the order in which it is applied; one learner in memory at a time."""
    for learner_id in all_learners(store, tenant, Table.ANSWER):
        with store.read(Partition(tenant, learner_id)) as reader:
            log = read_answers(reader)
        if log.size:
            yield learner_id, log.take(chronological(log))


def _listing(store: Store, tenant: str, table: Table) -> Iterator[str]:
    page = store.learners(tenant, table, limit=PAGE)
    while page:
        yield from page
        page = store.learners(tenant, table, after=page[-1], limit=PAGE)


def _expected(reader: Reader, memory_sets: F8) -> bytes | None:
    """The bytes that should be stored; None where there should be none."""
    state = rebuild_state(reader, memory_sets)
    return codec.encode_state(state) if state.applied else None


def _stored(reader: Reader) -> bytes | None:
    value = reader.get(Table.STATE)
    try:
        return None if value is None or not codec.decode_state(value).applied else value
    except StoreCorrupt:
        return value


def _repair(tx: Transaction, memory_sets: F8) -> None:
    value = _expected(tx, memory_sets)
    if value is None:
        tx.delete(Table.STATE)
    else:
        tx.put(Table.STATE, b"", value)

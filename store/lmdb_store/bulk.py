"""One operation over several partitions of a tenant within a commit: many keys at a time. Commits nothing."""

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import lmdb

from store.api import Partition, Table, Transaction
from store.committer import Job
from store.lmdb_store.group import Group, View, flush
from store.overlay import Additions, Overlay, check_counter, check_key, gather

T = TypeVar("T")


class LmdbBulk:
    """A `Bulk` whose writes are held back until its operation has succeeded."""

    __slots__ = ("_additions", "_group", "_overlays", "_partitions", "_prefixes", "_puts")

    def __init__(self, group: Group, partitions: Sequence[Partition]) -> None:
        """Start with no writes."""
        self._group = group
        self._partitions = partitions
        self._prefixes = [group.prefix(partition) for partition in partitions]
        self._puts: list[tuple[Table, Sequence[tuple[int, bytes, bytes]]]] = []
        self._overlays: dict[int, Overlay] = {}
        self._additions: Additions = {}

    def get_many(self, table: Table, keys: Sequence[tuple[int, bytes]]) -> list[bytes | None]:
        """The value under each (number of the partition, key), or None."""
        heads = [None if prefix is None else prefix + table for prefix in self._prefixes]
        get = self._group.txn.get
        found: list[bytes | None] = []
        for number, key in keys:
            head = heads[number]
            found.append(None if head is None else get(head + key))
        return found

    def put_many(self, table: Table, entries: Sequence[tuple[int, bytes, bytes]]) -> None:
        """Insert or overwrite each (number of the partition, key, value)."""
        if entries:
            longest = max((key for _, key, _ in entries), key=len)
            check_key(longest, min(one.max_key_bytes for one in self._partitions))
            self._puts.append((table, entries))

    def add(self, counter: bytes, amounts: Mapping[int, int]) -> None:
        """Add to cells of a counter of the tenant."""
        check_counter(counter, amounts)
        gather(self._additions, counter, amounts)

    def alone(self, number: int, operation: Callable[[Transaction], T]) -> T | Exception:
        """Run an operation on one partition; an exception of it undoes what it wrote, and is returned."""
        overlay = Overlay(
            View(self._group.txn, self._prefixes[number]), self._partitions[number].max_key_bytes
        )
        try:
            result = operation(overlay)
        except lmdb.Error:
            raise
        except Exception as error:
            return error
        self._overlays[number] = overlay
        return result

    def pass_on(self) -> None:
        """Write everything into the group's transaction, in the order of keys."""
        group, txn = self._group, self._group.txn
        puts = []
        prefixes: dict[int, bytes] = {}
        for table, entries in self._puts:
            for number, key, value in entries:
                prefix = self._prefixes[number] or prefixes.get(number)
                if prefix is None:
                    prefix = prefixes[number] = group.made_prefix(self._partitions[number])
                puts.append((prefix + table + key, value))
        if puts:
            puts.sort()
            txn.cursor().putmulti(puts)
            group.changed = True
        for number, overlay in self._overlays.items():
            if overlay.writes:
                flush(txn, group.made_prefix(self._partitions[number]), overlay.writes)
                group.changed = True
            for counter, cells in overlay.additions.items():
                group.add(self._partitions[number].tenant, counter, cells)
        for counter, cells in self._additions.items():
            group.add(self._partitions[0].tenant, counter, cells)


def run_bulk(group: Group, job: Job, partitions: Sequence[Partition]) -> None:
    """Run a job over several partitions and pass its writes on if it succeeds. Raises lmdb's errors only."""
    job.error = None
    bulk = LmdbBulk(group, partitions)
    try:
        job.result = job.operation(bulk)
    except lmdb.Error:
        raise
    except BaseException as error:
        job.error = error
        return
    bulk.pass_on()

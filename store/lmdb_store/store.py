"""Partitions, tables and group commit over one LMDB file shared by processes. Knows not what values mean.

Reads run in the caller's thread on a snapshot. Writes of a durable store gather in one committing thread a
process; those of a store that need not survive a power cut commit in the caller's thread, which is quicker
than a hand-over.
"""

import os
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias, TypeVar

import lmdb

from store import keys
from store.api import (
    Bulk,
    CommitWatcher,
    Partition,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreStatistics,
    StoreUnavailable,
    Table,
    Transaction,
)
from store.committer import GroupCommitter, Job
from store.home import FORMAT_FILE, StoreHome, copied_format, sync_directory
from store.lmdb_store.bulk import run_bulk
from store.lmdb_store.environment import LmdbEnvironment, Txn, translated
from store.lmdb_store.group import Culprit, Group, Straight, View, scan
from store.lmdb_store.room import Room
from store.overlay import erase_everything

T = TypeVar("T")
Opener: TypeAlias = Callable[[Partition | None], Transaction]
"""Opens a partition for writing, within a transaction of many; None for the store's own entries."""

READER_CHECK_GROUPS = 512
"""Groups between looks for readers left by killed processes."""
PROBE_SECONDS = 5.0


class _Read:
    """A snapshot of one partition, as a context manager."""

    __slots__ = ("_partition", "_reading", "_store")

    def __init__(self, store: "LmdbStore", partition: Partition) -> None:
        self._store = store
        self._partition = partition

    def __enter__(self) -> View:
        store, partition = self._store, self._partition
        learner = keys.checked_learner(partition)
        self._reading = reading = store.environment.begin_read()
        prefix = store.prefixes.get(partition.tenant)
        if prefix is None:
            try:
                prefix = store.tenant_prefix(reading.txn, partition.tenant)
            except lmdb.Error as error:
                reading.end()
                raise translated(error) from error
        return View(reading.txn, None if prefix is None else prefix + learner)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._reading.end()
        if error is not None and isinstance(error, lmdb.Error):
            raise translated(error) from error


class LmdbStore:
    """A `Store` in a directory. Open it after a process has been spawned, never before a fork."""

    def __init__(
        self,
        directory: Path,
        *,
        durable: bool = True,
        map_bytes: int = 1 << 30,
        max_bytes: int = 1 << 40,
        max_group: int = 256,
    ) -> None:
        """Open or create. The map starts at `map_bytes` and doubles up to `max_bytes`; the file follows use.

        Without `durable`, nothing waits for the disk: a killed process loses nothing, a power cut may lose it
        all. Raises StoreTooNew, StoreCorrupt, StoreUnavailable, StoreFull.
        """
        self._home = StoreHome(directory, durable=durable)
        self.prefixes: dict[str, bytes] = {}
        """What every key of a tenant begins with, as far as this process has met it."""
        self._room = Room(directory)
        self._groups = 0
        self._operations = 0
        self._commit_seconds = 0.0
        self._watcher: CommitWatcher | None = None
        sizes = {"map_bytes": map_bytes, "max_bytes": max_bytes}
        check = self._home.check_files
        with self._home.opening():
            try:
                self.environment = LmdbEnvironment(directory, durable=durable, **sizes, check_files=check)
            except (StoreCorrupt, StoreUnavailable):
                if not self._home.discard():
                    raise
                self.environment = LmdbEnvironment(directory, durable=durable, **sizes, check_files=check)
        self._committer = GroupCommitter(self._commit, max_group) if durable else None
        self._closed = False
        own = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _disown(own()))

    def read(self, partition: Partition) -> _Read:
        """Open a snapshot of a partition that includes every commit acknowledged before, by any process."""
        return _Read(self, partition)

    @contextmanager
    def read_own(self) -> Iterator[View]:
        """Open a snapshot of the store's own entries."""
        with self.environment.snapshot() as txn:
            yield View(txn, keys.STORE_PREFIX)

    def submit(self, partition: Partition, operation: Callable[[Transaction], T]) -> "Future[T]":
        """Run `operation` in the next group commit; without durability, now."""
        keys.checked_learner(partition)
        return self._submit(partition, operation)

    def submit_many(
        self, operations: Sequence[tuple[Partition, Callable[[Transaction], T]]]
    ) -> "list[Future[T]]":
        """Run all in the next group commit; without durability, now and in one transaction."""
        for partition, _ in operations:
            keys.checked_learner(partition)
        return self._enqueue([Job(partition, operation) for partition, operation in operations])

    def submit_bulk(self, partitions: Sequence[Partition], operation: Callable[[Bulk], T]) -> "Future[T]":
        """Run `operation` over several partitions in the next group commit; without durability, now."""
        for partition in partitions:
            keys.checked_learner(partition)
        return self._enqueue([Job(None, operation, bulk=partitions)])[0]

    def update(self, partition: Partition, operation: Callable[[Transaction], T]) -> T:
        """`submit` and wait."""
        if self._committer is not None and self._committer.is_current_thread():
            raise RuntimeError("an operation must not wait for another commit")
        return self.submit(partition, operation).result()

    def together(self, body: Callable[[Opener], object]) -> None:
        """Write to any number of partitions in one transaction, now: all of it or nothing. For a store not durable.

        `body` may be run again from the start, as an operation may. Raises StoreError and what `body` raises.
        """
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self.environment.is_reading():
            raise RuntimeError("close the read before writing: growing the store waits for open reads")
        created: dict[str, bytes] = {}

        def run(txn: Txn) -> bool:
            nonlocal created
            group = Group(txn, self.tenant_prefix)
            created = group.created
            body(lambda partition: Straight(group, partition))
            return group.finish()

        try:
            self.environment.write(run)
        except (lmdb.Error, OSError) as error:
            raise translated(error, self._home.directory) from error
        self.prefixes |= created

    def learners(self, tenant: str, table: Table, *, after: str = "", limit: int) -> list[str]:
        """Ids > `after` of learners that have an entry in `table`: two seeks a learner."""
        found: list[str] = []
        with self.environment.snapshot() as txn:
            head = self.tenant_prefix(txn, tenant)
            if head is None:
                return found
            cursor = txn.cursor()
            position = head + after.encode() + b"\x01"
            while len(found) < limit and cursor.set_range(position) and cursor.key().startswith(head):
                learner = keys.learner_in(cursor.key())
                wanted = head + learner + b"\x00" + table
                if cursor.set_range(wanted) and cursor.key().startswith(wanted):
                    found.append(learner.decode())
                position = head + learner + b"\x01"
        return found

    def tenants(self) -> list[str]:
        """Every tenant that has stored anything."""
        low, high = keys.TENANT_PREFIX, keys.after(keys.TENANT_PREFIX)
        with self.environment.snapshot() as txn:
            return [key.decode() for key, _ in scan(txn, low, high, len(low), reverse=False)]

    def erase(self, partition: Partition) -> int:
        """Remove everything of a partition. Its bytes may stay in free pages of the file until reused."""
        return self.update(partition, erase_everything)

    def check_writable(self) -> None:
        """Commit a probe, and wait for it a few seconds at most; full is also what refused most of the last writes."""
        try:
            self._submit(None, _probe).result(timeout=PROBE_SECONDS)
        except FutureTimeout as error:
            raise StoreUnavailable(f"no commit within {PROBE_SECONDS:g} s") from error
        self._room.check()

    def backup(self, directory: Path) -> int:
        """Write a compacted copy into a new or empty directory; bytes written. Map growth waits for it."""
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()):
            raise StoreError(f"{directory} is not empty")
        try:
            self.environment.copy(directory)
            (directory / FORMAT_FILE).write_bytes(copied_format())
            for file in directory.iterdir():
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
            sync_directory(directory)
            return sum(file.stat().st_size for file in directory.iterdir())
        except OSError as error:
            raise translated(error) from error

    def statistics(self) -> StoreStatistics:
        """Sizes from the file, counts of this process."""
        used, mapped, entries = self.environment.sizes()
        groups = max(self._groups, 1)
        return StoreStatistics(
            backend="lmdb",
            used_bytes=used,
            map_bytes=mapped,
            max_bytes=self.environment.max_bytes,
            entries=entries,
            commits=self._groups,
            operations=self._operations,
            mean_group_size=self._operations / groups,
            mean_commit_ms=1000.0 * self._commit_seconds / groups,
        )

    def watch(self, watcher: CommitWatcher) -> None:
        """Tell `watcher` of every group commit, on the thread that commits."""
        self._watcher = watcher

    def close(self) -> None:
        """Commit what was submitted, wait for open reads, release the files."""
        self._closed = True
        if self._committer is not None:
            self._committer.close()
        self._home.close(self.environment.sync, self.environment.close)

    def tenant_prefix(self, txn: Txn, tenant: str) -> bytes | None:
        """What every key of the tenant begins with; None while it has stored nothing."""
        prefix = self.prefixes.get(tenant)
        if prefix is None:
            packed = txn.get(keys.tenant_key(tenant))
            if packed is not None:
                prefix = self.prefixes[tenant] = keys.tenant_prefix(packed)
        return prefix

    def disown(self) -> None:
        """After a fork, in the child: refuse everything."""
        self._closed = True
        self.environment.disown()

    def _submit(self, partition: Partition | None, operation: Callable[[Transaction], Any]) -> "Future[Any]":
        return self._enqueue([Job(partition, operation)])[0]

    def _enqueue(self, jobs: list[Job]) -> "list[Future[Any]]":
        if self._closed:
            raise StoreUnavailable("the store is closed")
        if self.environment.is_reading():
            raise RuntimeError("close the read before submitting: growing the store waits for open reads")
        if self._committer is not None:
            for job in jobs:
                self._committer.submit(job)
        elif jobs:
            self._commit(jobs)
            for job in jobs:
                job.resolve()
        return [job.future for job in jobs]

    def _commit(self, jobs: list[Job]) -> None:
        """Set every job's outcome. If a group asks too much together, its jobs run singly: only culprits fail.

        Without durability a commit costs little and jobs write straight into the transaction. One that fails takes the
        group's others with it, which then run singly too.
        """
        started = time.perf_counter()
        created: dict[str, bytes] = {}
        straight = self._committer is None

        def run(txn: Txn) -> bool:
            nonlocal created
            group = Group(txn, self.tenant_prefix)
            created = group.created
            for job in jobs:
                if job.bulk is not None:
                    run_bulk(group, job, job.bulk)
                elif straight:
                    group.run_straight(job)
                else:
                    group.run(job)
            return group.finish()

        try:
            self.environment.write(run)
        except Culprit:
            if len(jobs) > 1:
                for job in jobs:
                    self._commit([job])
            return
        except (lmdb.Error, StoreError, OSError) as error:
            failure = translated(error, self._home.directory)
            self._room.refused += len(jobs) == 1 and isinstance(failure, StoreFull)
            if self._watcher is not None:
                self._watcher(len(jobs), time.perf_counter() - started, True)
            for job in jobs:
                if len(jobs) == 1 or isinstance(failure, StoreUnavailable):
                    job.error = failure
                else:
                    self._commit([job])
            return
        self.prefixes |= created
        if jobs[0].operation is not _probe:
            self._room.committed += len(jobs)
        seconds = time.perf_counter() - started
        self._commit_seconds += seconds
        if self._watcher is not None:
            self._watcher(len(jobs), seconds, False)
        self._operations += len(jobs)
        self._groups += 1
        if self._groups % READER_CHECK_GROUPS == 0:
            self.environment.drop_dead_readers()


def _probe(tx: Transaction) -> None:
    tx.put(Table.META, b"", time.time_ns().to_bytes(8, "big"))


def _disown(store: LmdbStore | None) -> None:
    if store is not None:
        store.disown()

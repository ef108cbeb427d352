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
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import lmdb

from store import keys
from store.api import (
    CommitWatcher,
    Partition,
    StoreCorrupt,
    StoreError,
    StoreStatistics,
    StoreUnavailable,
    Table,
    Transaction,
)
from store.committer import GroupCommitter, Job
from store.home import FORMAT_FILE, StoreHome, copied_format, sync_directory
from store.lmdb_store.environment import DATA_FILES, LmdbEnvironment, Txn, translated
from store.overlay import Additions, Overlay, Writes, added, erase_everything, gather

T = TypeVar("T")

READER_CHECK_GROUPS = 512
"""Groups between looks for readers left by killed processes."""
PROBE_SECONDS = 5.0


class _View:
    """Reads of one partition within an LMDB transaction; finds nothing if the prefix is None (new tenant)."""

    __slots__ = ("_get", "_prefix", "_txn")

    def __init__(self, txn: Txn, prefix: bytes | None) -> None:
        self._txn = txn
        self._get = txn.get
        self._prefix = prefix

    def get(self, table: Table, key: bytes = b"") -> bytes | None:
        if self._prefix is None:
            return None
        try:
            return self._get(self._prefix + table + key)
        except lmdb.BadValsizeError:
            return None

    def scan(
        self, table: Table, *, start: bytes = b"", stop: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        if self._prefix is None:
            return iter(())
        low, high = keys.table_range(self._prefix, table, start, stop)
        return _scan(self._txn, low, high, len(self._prefix) + 1, reverse=reverse)


class _Read:
    """A snapshot of one partition, as a context manager."""

    __slots__ = ("_partition", "_reading", "_store")

    def __init__(self, store: "LmdbStore", partition: Partition) -> None:
        self._store = store
        self._partition = partition

    def __enter__(self) -> _View:
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
        return _View(reading.txn, None if prefix is None else prefix + learner)

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
        self._home = StoreHome(directory, DATA_FILES, durable=durable)
        self.prefixes: dict[str, bytes] = {}
        """What every key of a tenant begins with, as far as this process has met it."""
        self._groups = 0
        self._operations = 0
        self._commit_seconds = 0.0
        self._watcher: CommitWatcher | None = None
        with self._home.opening():
            try:
                self.environment = LmdbEnvironment(
                    directory, durable=durable, map_bytes=map_bytes, max_bytes=max_bytes
                )
            except (StoreCorrupt, StoreUnavailable):
                if not self._home.discard():
                    raise
                self.environment = LmdbEnvironment(
                    directory, durable=durable, map_bytes=map_bytes, max_bytes=max_bytes
                )
        self._committer = GroupCommitter(self._commit, max_group) if durable else None
        self._closed = False
        own = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _disown(own()))

    def read(self, partition: Partition) -> _Read:
        """Open a snapshot of a partition that includes every commit acknowledged before, by any process."""
        return _Read(self, partition)

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

    def update(self, partition: Partition, operation: Callable[[Transaction], T]) -> T:
        """`submit` and wait."""
        if self._committer is not None and self._committer.is_current_thread():
            raise RuntimeError("an operation must not wait for another commit")
        return self.submit(partition, operation).result()

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
            return [key.decode() for key, _ in _scan(txn, low, high, len(low), reverse=False)]

    def erase(self, partition: Partition) -> int:
        """Remove everything of a partition. Its bytes may stay in free pages of the file until reused."""
        return self.update(partition, erase_everything)

    def check_writable(self) -> None:
        """Commit a probe, and wait for it a few seconds at most."""
        try:
            self._submit(None, _probe).result(timeout=PROBE_SECONDS)
        except FutureTimeout as error:
            raise StoreUnavailable(f"no commit within {PROBE_SECONDS:g} s") from error

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
        """Set every job's outcome. If a group asks too much together, its jobs run singly: only culprits fail."""
        started = time.perf_counter()
        created: dict[str, bytes] = {}

        def run(txn: Txn) -> bool:
            created.clear()
            tallies: dict[str, Additions] = {}
            changed = [self._run(txn, job, created, tallies) for job in jobs]
            for tenant, additions in tallies.items():
                self._add(txn, tenant, additions, created)
            return any(changed)

        try:
            self.environment.write(run)
        except (lmdb.Error, StoreError, OSError) as error:
            failure = translated(error)
            if self._watcher is not None:
                self._watcher(len(jobs), time.perf_counter() - started, True)
            for job in jobs:
                if len(jobs) == 1 or isinstance(failure, StoreUnavailable):
                    job.error = failure
                else:
                    self._commit([job])
            return
        self.prefixes |= created
        seconds = time.perf_counter() - started
        self._commit_seconds += seconds
        if self._watcher is not None:
            self._watcher(len(jobs), seconds, False)
        self._operations += len(jobs)
        self._groups += 1
        if self._groups % READER_CHECK_GROUPS == 0:
            self.environment.drop_dead_readers()

    def _run(self, txn: Txn, job: Job, created: dict[str, bytes], tallies: dict[str, Additions]) -> bool:
        """Run one job and pass its writes on if it succeeds; whether it wrote. Raises lmdb's errors only.

        What it counts joins the group's `tallies`, so that a counter is written once a commit.
        """
        job.error = None
        prefix, overlay = self._view(txn, job.partition, created)
        try:
            job.result = job.operation(overlay)
        except lmdb.Error:
            raise
        except BaseException as error:
            job.error = error
            return False
        if overlay.writes:
            if prefix is None and job.partition is not None:
                created[job.partition.tenant] = head = _create_tenant(txn, job.partition.tenant)
                prefix = head + keys.checked_learner(job.partition)
            _flush(txn, prefix or b"", overlay.writes)
        if overlay.additions and job.partition is not None:
            group = tallies.setdefault(job.partition.tenant, {})
            for counter, cells in overlay.additions.items():
                gather(group, counter, cells)
        return bool(overlay.writes or overlay.additions)

    def _add(self, txn: Txn, tenant: str, additions: Additions, created: dict[str, bytes]) -> None:
        prefix = created.get(tenant) or self.tenant_prefix(txn, tenant)
        if prefix is None:
            created[tenant] = prefix = _create_tenant(txn, tenant)
        head = prefix + keys.checked_learner(Partition(tenant)) + Table.TALLY
        for counter, cells in additions.items():
            txn.put(head + counter, added(txn.get(head + counter), cells))

    def _view(
        self, txn: Txn, partition: Partition | None, created: dict[str, bytes]
    ) -> tuple[bytes | None, Overlay]:
        if partition is None:
            return keys.STORE_PREFIX, Overlay(_View(txn, keys.STORE_PREFIX), 0)
        head = created.get(partition.tenant) or self.tenant_prefix(txn, partition.tenant)
        prefix = None if head is None else head + keys.checked_learner(partition)
        return prefix, Overlay(_View(txn, prefix), partition.max_key_bytes)


def _scan(txn: Txn, low: bytes, high: bytes, skip: int, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
    """Entries with low <= key < high, each key without its first `skip` bytes."""
    cursor = txn.cursor()
    if reverse:
        found = cursor.prev() if cursor.set_range(high) else cursor.last()
        if found:
            for key, value in cursor.iterprev():
                if key < low:
                    return
                yield key[skip:], value
    elif cursor.set_range(low):
        for key, value in cursor.iternext():
            if key >= high:
                return
            yield key[skip:], value


def _flush(txn: Txn, prefix: bytes, writes: Writes) -> None:
    for table in sorted(writes):
        head = prefix + table
        entries = writes[table]
        puts = [(head + key, value) for key, value in sorted(entries.items()) if value is not None]
        if len(puts) < len(entries):
            for key, value in entries.items():
                if value is None:
                    txn.delete(head + key)
        if puts:
            txn.cursor().putmulti(puts)


def _create_tenant(txn: Txn, tenant: str) -> bytes:
    """Give a tenant the next number, which is never reused; what its keys begin with."""
    last = txn.get(keys.LAST_TENANT_KEY)
    number = 1 if last is None else keys.unpack_tenant(last) + 1
    packed = keys.pack_tenant(number)
    txn.put(keys.LAST_TENANT_KEY, packed)
    txn.put(keys.tenant_key(tenant), packed)
    return keys.tenant_prefix(packed)


def _probe(tx: Transaction) -> None:
    tx.put(Table.META, b"", time.time_ns().to_bytes(8, "big"))


def _disown(store: LmdbStore | None) -> None:
    if store is not None:
        store.disown()

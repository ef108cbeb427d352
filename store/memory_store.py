"""The contract in plain Python dictionaries, for tests and trials. Nothing survives the process."""

import json
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from store.api import (
    Bulk,
    CommitWatcher,
    Partition,
    StoreStatistics,
    StoreUnavailable,
    Table,
    Transaction,
    check_partition,
)
from store.overlay import Additions, Overlay, Writes, added, erase_everything, gather

T = TypeVar("T")


class _Rows:
    """One table of one partition, never changed once another thread can see it."""

    def __init__(self, values: dict[bytes, bytes]) -> None:
        self.values = values

    @cached_property
    def keys(self) -> list[bytes]:
        return sorted(self.values)


_EMPTY = _Rows({})


class _MemoryReader:
    """A snapshot: the partition's tables as they stood when it was opened."""

    __slots__ = ("_tables",)

    def __init__(self, tables: dict[Table, _Rows]) -> None:
        self._tables = tables

    def __enter__(self) -> "_MemoryReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def get(self, table: Table, key: bytes = b"") -> bytes | None:
        return self._tables.get(table, _EMPTY).values.get(key)

    def scan(
        self, table: Table, *, start: bytes = b"", stop: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        rows = self._tables.get(table, _EMPTY)
        first = bisect_left(rows.keys, start)
        last = len(rows.keys) if stop is None else bisect_left(rows.keys, stop)
        keys = rows.keys[first:last]
        return ((key, rows.values[key]) for key in (reversed(keys) if reverse else keys))


class _MemoryBulk:
    """Several partitions, each under an overlay, and what is counted beside them."""

    def __init__(self, partitions: Sequence[tuple[Partition, dict[Table, _Rows]]]) -> None:
        self._partitions = partitions
        self.overlays = [self._overlay(number) for number in range(len(partitions))]
        self.additions: Additions = {}

    def _overlay(self, number: int) -> Overlay:
        partition, tables = self._partitions[number]
        return Overlay(_MemoryReader(tables), partition.max_key_bytes)

    def get_many(self, table: Table, keys: Sequence[tuple[int, bytes]]) -> list[bytes | None]:
        return [self._partitions[number][1].get(table, _EMPTY).values.get(key) for number, key in keys]

    def put_many(self, table: Table, entries: Sequence[tuple[int, bytes, bytes]]) -> None:
        for number, key, value in entries:
            self.overlays[number].put(table, key, value)

    def add(self, counter: bytes, amounts: Mapping[int, int]) -> None:
        gather(self.additions, counter, amounts)

    def alone(self, number: int, operation: Callable[[Transaction], T]) -> T | Exception:
        overlay = self._overlay(number)
        try:
            result = operation(overlay)
        except Exception as error:
            return error
        self.overlays[number] = overlay
        return result


class MemoryStore:
    """A `Store` whose partitions are dictionaries replaced whole at each commit."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.RLock()
        self._partitions: dict[Partition, dict[Table, _Rows]] = {}
        self._tenants: set[str] = set()
        self._operations = 0
        self._closed = False
        self._watcher: CommitWatcher | None = None

    def read(self, partition: Partition) -> _MemoryReader:
        """Open a snapshot of a partition."""
        self._check_open()
        check_partition(partition)
        return _MemoryReader(self._partitions.get(partition, {}))

    def submit(self, partition: Partition, operation: Callable[[Transaction], T]) -> "Future[T]":
        """Run `operation` at once; the future is already resolved."""
        future: Future[T] = Future()
        try:
            future.set_result(self.update(partition, operation))
        except StoreUnavailable:
            raise
        except Exception as error:
            future.set_exception(error)
        return future

    def submit_many(
        self, operations: Sequence[tuple[Partition, Callable[[Transaction], T]]]
    ) -> "list[Future[T]]":
        """Run each at once."""
        return [self.submit(partition, operation) for partition, operation in operations]

    def submit_bulk(self, partitions: Sequence[Partition], operation: Callable[[Bulk], T]) -> "Future[T]":
        """Run `operation` at once."""
        self._check_open()
        for partition in partitions:
            check_partition(partition)
        future: Future[T] = Future()
        with self._lock:
            bulk = _MemoryBulk([(one, self._partitions.get(one, {})) for one in partitions])
            try:
                result = operation(bulk)
            except Exception as error:
                future.set_exception(error)
                return future
            for overlay, partition in zip(bulk.overlays, partitions, strict=True):
                if overlay.writes:
                    self._apply(partition, self._partitions.get(partition, {}), overlay.writes)
                for additions in (overlay.additions, bulk.additions):
                    self._add(Partition(partition.tenant), additions)
                bulk.additions = {}
            self._operations += 1
        future.set_result(result)
        return future

    def update(self, partition: Partition, operation: Callable[[Transaction], T]) -> T:
        """Run `operation` atomically."""
        self._check_open()
        check_partition(partition)
        started = time.perf_counter()
        with self._lock:
            tables = self._partitions.get(partition, {})
            overlay = Overlay(_MemoryReader(tables), partition.max_key_bytes)
            result = operation(overlay)
            if overlay.writes:
                self._apply(partition, tables, overlay.writes)
            if overlay.additions:
                self._add(Partition(partition.tenant), overlay.additions)
            self._operations += 1
        if self._watcher is not None:
            self._watcher(1, time.perf_counter() - started, False)
        return result

    def learners(self, tenant: str, table: Table, *, after: str = "", limit: int) -> list[str]:
        """Ids > `after` of learners that have an entry in `table`."""
        self._check_open()
        with self._lock:
            found = sorted(
                partition.learner_id
                for partition, tables in self._partitions.items()
                if partition.tenant == tenant and partition.learner_id > after and table in tables
            )
        return found[:limit]

    def tenants(self) -> list[str]:
        """Every tenant that has stored anything."""
        self._check_open()
        with self._lock:
            return sorted(self._tenants)

    def erase(self, partition: Partition) -> int:
        """Remove everything of a partition."""
        return self.update(partition, erase_everything)

    def check_writable(self) -> None:
        """Raise StoreUnavailable when closed."""
        self._check_open()

    def backup(self, directory: Path) -> int:
        """Write everything as one JSON file, for looking at."""
        self._check_open()
        directory.mkdir(parents=True, exist_ok=True)
        with self._lock:
            lines = [
                json.dumps([*partition, table.name, key.hex(), value.hex()])
                for partition, tables in sorted(self._partitions.items())
                for table, rows in tables.items()
                for key, value in rows.values.items()
            ]
        return (directory / "data.jsonl").write_text("\n".join(lines))

    def statistics(self) -> StoreStatistics:
        """Sizes and counts now."""
        self._check_open()
        with self._lock:
            rows = [rows for tables in self._partitions.values() for rows in tables.values()]
            used = sum(len(key) + len(value) for table in rows for key, value in table.values.items())
            return StoreStatistics(
                backend="memory",
                used_bytes=used,
                map_bytes=used,
                max_bytes=0,
                entries=sum(len(table.values) for table in rows),
                commits=self._operations,
                operations=self._operations,
                mean_group_size=1.0 if self._operations else 0.0,
                mean_commit_ms=0.0,
            )

    def watch(self, watcher: CommitWatcher) -> None:
        """Tell `watcher` of every operation that succeeded."""
        self._watcher = watcher

    def close(self) -> None:
        """Forget everything."""
        self._closed = True
        self._partitions = {}

    def _apply(self, partition: Partition, tables: dict[Table, _Rows], writes: Writes) -> None:
        changed = dict(tables)
        for table, entries in writes.items():
            values = dict(changed[table].values) if table in changed else {}
            for key, value in entries.items():
                if value is None:
                    values.pop(key, None)
                else:
                    values[key] = value
            if values:
                changed[table] = _Rows(values)
            else:
                changed.pop(table, None)
        self._partitions[partition] = changed
        self._tenants.add(partition.tenant)

    def _add(self, own: Partition, additions: Additions) -> None:
        if not additions:
            return
        tables = self._partitions.get(own, {})
        held = tables.get(Table.TALLY, _EMPTY).values
        written = {counter: added(held.get(counter), cells) for counter, cells in additions.items()}
        self._apply(own, tables, {Table.TALLY: dict(written)})

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")

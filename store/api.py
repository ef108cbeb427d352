"""The contract of every back end: ordered tables in partitions, each atomic, commits durable. Holds no data.

A partition is one learner of one tenant, or a tenant's own (catalogue) partition. Atomicity is promised
inside one partition and never across two, so that a cluster may own the partitions later. What a `submit`
changed is durable when its future resolves; operations that arrive together may share one commit but never
see each other's failures.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, TypeVar

T = TypeVar("T")

MAX_ID_BYTES = 256
"""Longest learner or tenant id, in UTF-8 bytes."""
MAX_LEARNER_KEY_BYTES = 240
"""Longest key of an entry in a learner's partition."""
MAX_TENANT_KEY_BYTES = 500
"""Longest key of an entry in a tenant's own partition (LMDB's 511 less what names the partition)."""


class Partition(NamedTuple):
    """The unit of atomicity. An empty `learner_id` names the tenant's own partition."""

    tenant: str
    learner_id: str = ""

    @property
    def max_key_bytes(self) -> int:
        """Longest key this partition takes."""
        return MAX_LEARNER_KEY_BYTES if self.learner_id else MAX_TENANT_KEY_BYTES


class Table(bytes, Enum):
    """What can be stored: a member is the byte that names the table in a key, for ever.

    Being bytes, it joins a key and hashes without a detour through Python, on the path of every read.
    """

    META = b"\x01"
    TALLY = b"\x02"
    """Counters of a tenant, in its own partition; changed by `add` only."""
    CONCEPT = b"\x10"
    QUESTION = b"\x11"
    CONCEPT_ROW = b"\x12"
    QUESTION_ROW = b"\x13"
    MEMORY_SET = b"\x14"
    PROFILE = b"\x20"
    STATE = b"\x21"
    ANSWER = b"\x22"
    ANSWER_ID = b"\x23"
    SESSION = b"\x24"
    REQUEST = b"\x25"
    FEEDBACK = b"\x26"
    SESSION_ID = b"\x27"
    REQUEST_EXPIRY = b"\x28"
    TASTE = b"\x29"
    SLATE = b"\x40"
    SLATE_ID = b"\x41"
    SLATE_OWNER = b"\x42"
    MET_EXPERIMENT = b"\x43"
    MOVED = b"\x44"
    """Of the serving store as such: how far the journals of slates were moved to its tables."""
    ERASED = b"\x45"
    """Of a tenant, in both stores: when a learner was erased, by a digest of the id."""
    EXPERIMENT = b"\x60"
    EXPERIMENT_REPORT = b"\x61"
    EXPERIMENT_LEARNER = b"\x62"
    EXPERIMENT_DUE = b"\x63"
    EXPERIMENT_CELL = b"\x64"
    EXPERIMENT_COUNTS = b"\x65"
    EXPERIMENT_LOOK = b"\x66"
    EXPERIMENT_HISTORY = b"\x67"


class StoreError(Exception):
    """Something the store could not do; nothing was changed."""


class StoreUnavailable(StoreError):
    """The store cannot be read or written now (closed, disk failing, lock lost)."""


class StoreFull(StoreError):
    """The disk or the configured maximum size leaves no room for the write."""


class StoreCorrupt(StoreError):
    """Bytes that no version of the codec understands, or data that are gone or half restored."""


class StoreTooNew(StoreError):
    """Written by a newer version of Genie than this one, which therefore must not touch it."""


class IdempotencyKeyReused(StoreError):
    """The id of an earlier request, with other content."""

    def __init__(self, method: str, request_id: str) -> None:
        """Name the call and its id."""
        super().__init__(f"{method} was called before with request id {request_id!r} and other content")
        self.method = method
        self.request_id = request_id


class Reader(Protocol):
    """A consistent view of one partition. What it returns is the caller's own and outlives the reader."""

    def get(self, table: Table, key: bytes = b"") -> bytes | None:
        """Value under `key`, or None."""
        ...

    def scan(
        self,
        table: Table,
        *,
        start: bytes = b"",
        stop: bytes | None = None,
        reverse: bool = False,
    ) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < stop in key order, or backwards; only while the reader is open."""
        ...


class Transaction(Reader, Protocol):
    """A reader that also changes its partition; it sees its own writes."""

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        """Insert or overwrite. ValueError when the key is longer than the partition's `max_key_bytes`."""
        ...

    def put_many(self, table: Table, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Insert or overwrite many entries (the fast path of imports)."""
        ...

    def delete(self, table: Table, key: bytes = b"") -> bool:
        """Remove; True when there was something to remove."""
        ...

    def add(self, counter: bytes, amounts: Mapping[int, int]) -> None:
        """Add to cells (0 to 255) of the tenant's counter of that name, whichever partition the transaction is of.

        A counter is a row of 64-bit whole numbers, TALLY's value under its name in the tenant's own partition. Amounts
        count when the operation succeeds, and once. Additions commute, so that nobody waits for another's; the
        transaction's own reads do not see them. A back end whose partitions live on several machines may apply them
        later than the rest, but never loses one and never counts one twice. ValueError for a name that is too long.
        """
        ...


class Bulk(Protocol):
    """One transaction over several partitions of a tenant, numbered as they were given, for work done in bulk.

    Reads see what was there before, none of its own writes: a partition is either dealt with in bulk or `alone`.
    """

    def get_many(self, table: Table, keys: Sequence[tuple[int, bytes]]) -> list[bytes | None]:
        """The value under each (number of the partition, key), or None."""
        ...

    def put_many(self, table: Table, entries: Sequence[tuple[int, bytes, bytes]]) -> None:
        """Insert or overwrite each (number of the partition, key, value)."""
        ...

    def add(self, counter: bytes, amounts: Mapping[int, int]) -> None:
        """As `Transaction.add`."""
        ...

    def alone(self, number: int, operation: Callable[[Transaction], T]) -> T | Exception:
        """Run an operation on one partition; an exception of it undoes what it wrote, and is returned."""
        ...


@dataclass(frozen=True, slots=True)
class StoreStatistics:
    """Sizes and counts for operators; counts are this process's since it opened the store."""

    backend: str
    used_bytes: int
    """Bytes in use by entries and the tree above them, free pages not counted."""
    map_bytes: int
    """Room mapped at present; it grows by itself up to `max_bytes`."""
    max_bytes: int
    entries: int
    commits: int
    operations: int
    mean_group_size: float
    mean_commit_ms: float


CommitWatcher: TypeAlias = Callable[[int, float, bool], None]
"""Told of a commit: operations in its group, seconds it took, whether it failed as a whole."""


class Store(Protocol):
    """A back end. Thread-safe; the LMDB one is shared by processes."""

    def read(self, partition: Partition) -> AbstractContextManager[Reader]:
        """Open a snapshot of a partition that includes every commit acknowledged before, by any process.

        Keep it short, and submit nothing while it is open: growing the store waits for open readers.
        """
        ...

    def submit(self, partition: Partition, operation: Callable[[Transaction], T]) -> "Future[T]":
        """Run `operation` atomically in the next group commit; the future resolves after the durable commit.

        An exception from the operation undoes its own writes only, and is the future's exception. The
        operation may be run again from the start (map growth, a lost race), so it must have no effect but
        through the transaction.
        """
        ...

    def submit_many(
        self, operations: Sequence[tuple[Partition, Callable[[Transaction], T]]]
    ) -> "list[Future[T]]":
        """`submit` each, in one commit where nothing speaks against it. Each stands alone, as when submitted singly."""
        ...

    def submit_bulk(self, partitions: Sequence[Partition], operation: Callable[[Bulk], T]) -> "Future[T]":
        """Run one operation over several partitions of one tenant in the next group commit; it may be run again.

        It succeeds or fails as a whole. The partitions must live in one place, as all do in every back end so far:
        one that keeps them apart would have `operation` run for those of each place, and must be given that first.
        """
        ...

    def update(self, partition: Partition, operation: Callable[[Transaction], T]) -> T:
        """`submit` and wait."""
        ...

    def learners(self, tenant: str, table: Table, *, after: str = "", limit: int) -> list[str]:
        """At most `limit` ids > `after`, by code point, of the tenant's learners with an entry in `table`."""
        ...

    def tenants(self) -> list[str]:
        """Every tenant that has stored anything, in order of code points."""
        ...

    def erase(self, partition: Partition) -> int:
        """Remove everything of a partition, durably; the number of entries removed."""
        ...

    def check_writable(self) -> None:
        """Prove that a write would succeed now. Raises StoreError when it, or most of the last ones, would not."""
        ...

    def backup(self, directory: Path) -> int:
        """Write a consistent compacted copy while in use, into a new or empty directory; bytes written."""
        ...

    def statistics(self) -> StoreStatistics:
        """Sizes and counts now."""
        ...

    def watch(self, watcher: CommitWatcher) -> None:
        """Tell `watcher` of every commit of this process from now on. It must be quick and raise nothing."""
        ...

    def close(self) -> None:
        """Finish what was submitted, then release everything. Later calls raise StoreUnavailable."""
        ...


def check_partition(partition: Partition) -> None:
    """ValueError when an id cannot be stored: empty tenant, too long, with a NUL (which ends ids in keys)."""
    tenant, learner_id = partition
    if not tenant:
        raise ValueError("tenant is empty")
    for name, text in (("tenant", tenant), ("learner_id", learner_id)):
        if "\0" in text:
            raise ValueError(f"{name} {text!r} holds a NUL character")
        if len(text) > MAX_ID_BYTES or len(text.encode()) > MAX_ID_BYTES:
            raise ValueError(f"{name} is {len(text.encode())} bytes long, over the limit of {MAX_ID_BYTES}")

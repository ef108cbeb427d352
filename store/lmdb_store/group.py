"""What the operations of one commit share: a transaction, tenants created in it, amounts to add. Commits nothing."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import lmdb

from store import keys
from store.api import MAX_LEARNER_KEY_BYTES, Partition, Table
from store.committer import Job
from store.lmdb_store.environment import Txn
from store.overlay import Additions, Overlay, Writes, added, check_counter, check_key, gather

TenantPrefix = Callable[[Txn, str], bytes | None]


class Culprit(Exception):
    """An operation failed that wrote straight into a transaction which it shares with others."""


class View:
    """Reads of one partition within an LMDB transaction; finds nothing if the prefix is None (new tenant)."""

    __slots__ = ("_get", "_prefix", "_txn")

    def __init__(self, txn: Txn, prefix: bytes | None) -> None:
        """Read what begins with `prefix`."""
        self._txn = txn
        self._get = txn.get
        self._prefix = prefix

    def get(self, table: Table, key: bytes = b"") -> bytes | None:
        """Value under `key`, or None."""
        if self._prefix is None:
            return None
        try:
            return self._get(self._prefix + table + key)
        except lmdb.BadValsizeError:
            return None

    def scan(
        self, table: Table, *, start: bytes = b"", stop: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < stop."""
        if self._prefix is None:
            return iter(())
        low, high = keys.table_range(self._prefix, table, start, stop)
        return scan(self._txn, low, high, len(self._prefix) + 1, reverse=reverse)


class Group:
    """One attempt at a commit."""

    __slots__ = ("_tallies", "_tenant_prefix", "changed", "created", "txn")

    def __init__(self, txn: Txn, tenant_prefix: TenantPrefix) -> None:
        """Start with nothing changed."""
        self.txn = txn
        self.changed = False
        self.created: dict[str, bytes] = {}
        """What the keys of tenants begin with that are new in this transaction."""
        self._tallies: dict[str, Additions] = {}
        self._tenant_prefix = tenant_prefix

    def prefix(self, partition: Partition | None) -> bytes | None:
        """What every key of a partition begins with (None: the store's own entries); None for a new tenant."""
        if partition is None:
            return keys.STORE_PREFIX
        head = self.created.get(partition.tenant) or self._tenant_prefix(self.txn, partition.tenant)
        return None if head is None else head + keys.checked_learner(partition)

    def made_prefix(self, partition: Partition | None) -> bytes:
        """The same; a new tenant is created."""
        prefix = self.prefix(partition)
        if prefix is None:
            assert partition is not None, "the store's own entries always have a prefix"
            self.created[partition.tenant] = head = _create_tenant(self.txn, partition.tenant)
            prefix = head + keys.checked_learner(partition)
        return prefix

    def run(self, job: Job) -> None:
        """Run one job and pass its writes on if it succeeds. Raises lmdb's errors only."""
        job.error = None
        overlay = Overlay(View(self.txn, self.prefix(job.partition)), _longest(job.partition))
        try:
            job.result = job.operation(overlay)
        except lmdb.Error:
            raise
        except BaseException as error:
            job.error = error
            return
        if overlay.writes:
            flush(self.txn, self.made_prefix(job.partition), overlay.writes)
        if overlay.additions and job.partition is not None:
            for counter, cells in overlay.additions.items():
                self.add(job.partition.tenant, counter, cells)
        self.changed |= bool(overlay.writes or overlay.additions)

    def run_straight(self, job: Job) -> None:
        """Run one job on the transaction itself, which must be given up when it fails. Raises Culprit then."""
        job.error = None
        try:
            job.result = job.operation(Straight(self, job.partition))
        except lmdb.Error:
            raise
        except BaseException as error:
            job.error = error
            raise Culprit from error

    def add(self, tenant: str, counter: bytes, cells: Mapping[int, int]) -> None:
        """Add to a counter when the group is finished, so that it is written once a commit."""
        gather(self._tallies.setdefault(tenant, {}), counter, cells)
        self.changed = True

    def finish(self) -> bool:
        """Write what was added; whether anything changed."""
        for tenant, additions in self._tallies.items():
            head = self.made_prefix(Partition(tenant)) + Table.TALLY
            for counter, cells in additions.items():
                self.txn.put(head + counter, added(self.txn.get(head + counter), cells))
        return self.changed


class Straight(View):
    """A transaction of one partition that writes at once."""

    __slots__ = ("_group", "_longest", "_partition")

    def __init__(self, group: Group, partition: Partition | None) -> None:
        """Read and write a partition within the group's transaction; None for the store's own entries."""
        super().__init__(group.txn, group.prefix(partition))
        self._group = group
        self._partition = partition
        self._longest = _longest(partition)

    def scan(
        self, table: Table, *, start: bytes = b"", stop: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Entries with start <= key < stop, as they stood when the scan began."""
        return iter(list(super().scan(table, start=start, stop=stop, reverse=reverse)))

    def put(self, table: Table, key: bytes, value: bytes) -> None:
        """Insert or overwrite."""
        check_key(key, self._longest)
        self._txn.put(self._made() + table + key, value)

    def put_many(self, table: Table, entries: Sequence[tuple[bytes, bytes]]) -> None:
        """Insert or overwrite many entries."""
        if entries:
            check_key(max((key for key, _ in entries), key=len), self._longest)
            head = self._made() + table
            self._txn.cursor().putmulti([(head + key, value) for key, value in entries])

    def delete(self, table: Table, key: bytes = b"") -> bool:
        """Remove; True when there was something to remove."""
        if self.get(table, key) is None:
            return False
        return bool(self._txn.delete(self._made() + table + key))

    def add(self, counter: bytes, amounts: Mapping[int, int]) -> None:
        """Add to cells of a counter of the tenant."""
        check_counter(counter, amounts)
        if self._partition is not None:
            self._group.add(self._partition.tenant, counter, amounts)

    def _made(self) -> bytes:
        self._group.changed = True
        prefix = self._prefix
        if prefix is None:
            prefix = self._prefix = self._group.made_prefix(self._partition)
        return prefix


def scan(txn: Txn, low: bytes, high: bytes, skip: int, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
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


def _longest(partition: Partition | None) -> int:
    return MAX_LEARNER_KEY_BYTES if partition is None else partition.max_key_bytes


def flush(txn: Txn, prefix: bytes, writes: Writes) -> None:
    """Write what an overlay held back for the partition whose keys begin with `prefix`."""
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

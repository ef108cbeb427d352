"""The store of shown slates on LMDB: slates wait in a journal and move to its tables in groups. Decodes no slate.

A slate is kept once it is in the journal of the process (`store.slate_journal`). A thread moves what waits, many slates
a transaction, which also notes how far the journal was moved: any process may move any journal at any time, and what a
killed one has left is moved, once, by the next that opens the store. Who looks for a slate looks at the tables, then at
all journals, then at the tables again: it may have moved meanwhile.
"""

import math
import os
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from store import keys
from store.api import Partition, Reader, StoreError, Table
from store.erasures import any_erasure, erasure_of
from store.lmdb_store import LmdbStore
from store.lmdb_store.store import Opener
from store.slate_journal import (
    SUFFIX,
    UNFINISHED,
    Journal,
    OwnJournal,
    Waiting,
    first_of,
    lock_of_dead,
    recorded,
)
from store.slate_ring import take_in, write_owners
from store.tallies import tally_slates

MOVE_SECONDS = 0.1
"""How long slates wait for others to move with."""
RETRY_SECONDS = 1.0
"""Between tries to move, or to make a journal, when the store or the disk refuses."""
UNFINISHED_SECONDS = 60.0
"""After this, nobody is making a journal any more that has not got its name."""
COMPACT_BYTES = 1 << 20
"""Past this, the next move brings what waits back to the start of the journal."""
_READS = 10
"""Tries to read a journal whole while others move it and use its place again."""
_GONE = b"gone"


class ServingStore(LmdbStore):
    """An LMDB store that need not survive a power cut, whose slates wait in journals beside its files."""

    def __init__(self, directory: Path, *, map_bytes: int = 1 << 30, max_bytes: int = 1 << 40) -> None:
        """Open or create, and move what killed processes have left waiting. Raises as LmdbStore does."""
        self._own: OwnJournal | None = None
        self._others: dict[str, Journal] = {}
        self._journals_lock = threading.Lock()
        self._moving = threading.Lock()
        self._some_wait = threading.Event()
        self._ending = threading.Event()
        self._mover: threading.Thread | None = None
        self._process = os.getpid()
        self._begin_at = 0.0
        """When a journal may be tried to be made, on the monotonic clock."""
        self._directory = directory
        super().__init__(directory, durable=False, map_bytes=map_bytes, max_bytes=max_bytes)
        with suppress(StoreError, OSError):
            self._take_over()

    def let_wait(self, slate: Waiting) -> bool:
        """Have a slate wait in the journal, from where it is found as in the tables; False when it must be written."""
        keys.checked_learner(slate.partition)
        record = recorded(slate)
        return self.let_wait_many(record, [len(record)]) == 1

    def let_wait_many(self, records: "memoryview[int]", ends: Sequence[int]) -> int:
        """Have the first of many slates wait, as `OwnJournal.append` takes them; the others must be written.

        How many wait is returned.
        """
        journal = self._own
        if journal is None:
            journal = self._begin()
        if journal is None:
            return 0
        waiting = journal.append(records, ends)
        # A journal that is full has room again after the next move, which must come though nothing more can wait.
        if not self._some_wait.is_set():
            self._some_wait.set()
        return waiting

    def waiting_slate(self, recommendation_id: bytes) -> Waiting | None:
        """The slate with this id, if it waits in any process's journal."""
        for journal in self._journals():
            noted = self._noted(journal)
            found = None if noted is _GONE else journal.find(recommendation_id, noted)
            if found is not None:
                return found
        return None

    def waiting_slates(self, partition: Partition) -> list[bytes]:
        """The values of a learner's slates that wait in any process's journal."""
        found: list[bytes] = []
        for journal in self._journals():
            waiting: list[Waiting] = []
            for _ in range(_READS):
                noted = self._noted(journal)
                if noted is _GONE:
                    break
                waiting, _, whole = journal.waiting(noted, partition)
                if whole:
                    break
            found += [slate.value for slate in waiting]
        return found

    def move(self) -> None:
        """Move what waits in every process's journal. Raises StoreError."""
        journals = self._journals()
        with self._moving:
            self.together(lambda opened: _move(opened, journals, None))

    def backup(self, directory: Path) -> int:
        """Write a compacted copy, with what waited."""
        self.move()
        return super().backup(directory)

    def close(self) -> None:
        """Move what waits here, release the files."""
        self._ending.set()
        self._some_wait.set()
        if self._mover is not None:
            self._mover.join()
            self._mover = None
        with self._journals_lock:
            own, self._own = self._own, None
            others, self._others = self._others, {}
            if own is not None:
                own.shut()
                own.leave(remove=self._move_own(own))
            for journal in others.values():
                journal.close()
        super().close()

    def disown(self) -> None:
        """After a fork, in the child: refuse everything, and leave the parent's journal alone."""
        self._ending.set()
        self._own = None
        super().disown()

    def _begin(self) -> OwnJournal | None:
        """This process's journal and the thread that moves it; None when there cannot be one now."""
        if self._ending.is_set() or self._process != os.getpid() or time.monotonic() < self._begin_at:
            return None
        with self._journals_lock:
            if self._own is None and not self._ending.is_set():
                try:
                    self._own = OwnJournal(self._directory)
                except OSError:
                    self._begin_at = time.monotonic() + RETRY_SECONDS
                    return None
                self._mover = threading.Thread(target=self._run, name="slates", daemon=True)
                self._mover.start()
            return self._own

    def _run(self) -> None:
        while not self._ending.is_set():
            self._some_wait.wait()
            self._ending.wait(MOVE_SECONDS)
            self._some_wait.clear()
            own = self._own
            if own is not None and not self._ending.is_set() and not self._move_own(own):
                self._some_wait.set()
                self._ending.wait(RETRY_SECONDS)

    def _move_own(self, own: OwnJournal) -> bool:
        """Move what waits in this process's journal; whether that was done."""
        with self._moving:
            try:
                self.together(lambda opened: _move(opened, [own], own))
            except StoreError:
                return False
        return True

    def _noted(self, journal: Journal) -> bytes | None:
        with self.read_own() as reader:
            return _noted(reader, journal)

    def _journals(self) -> list[Journal]:
        """Those of all processes, this one's first."""
        with os.scandir(self._directory) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(SUFFIX)]
        with self._journals_lock:
            own = self._own
            if own is not None and own.path.name in names:
                names.remove(own.path.name)
            for gone in self._others.keys() - names:
                del self._others[gone]
            for name in names:
                if name not in self._others:
                    with suppress(OSError, ValueError):
                        self._others[name] = Journal(self._directory / name)
            others = list(self._others.values())
        return others if own is None else [own, *others]

    def _take_over(self) -> None:
        """Move what dead processes have left, and remove their journals."""
        for path in self._directory.glob(f"*{SUFFIX}"):
            descriptor = lock_of_dead(path)
            if descriptor is None:
                continue
            try:
                journal = Journal(path)
                self.together(lambda opened, journal=journal: _move(opened, [journal], None))  # type: ignore[misc]
                path.unlink()
            except ValueError:
                path.unlink()
            finally:
                os.close(descriptor)
        for path in self._directory.glob(f"*{UNFINISHED}"):
            if time.time() - path.stat().st_mtime > UNFINISHED_SECONDS:
                path.unlink(missing_ok=True)
        with self.read_own() as reader:
            noted = [name for name, _ in reader.scan(Table.MOVED)]
        gone = [name for name in noted if not (self._directory / name.decode()).exists()]
        if gone:
            self.together(lambda opened: [opened(None).delete(Table.MOVED, name) for name in gone])


def _noted(reader: Reader, journal: Journal) -> bytes | None:
    """How far a journal was moved; None when never, _GONE when all of it, and its file is removed.

    A note is removed after its file, so one that is missing belongs to a new journal or to one that is gone.
    """
    noted = reader.get(Table.MOVED, journal.name)
    return noted if noted is not None or journal.path.exists() else _GONE


def _move(opened: Opener, journals: Iterable[Journal], own: OwnJournal | None) -> None:
    """Write what waits to the tables, within one transaction, which keeps all other movers out."""
    notes = opened(None)
    by_learner: dict[Partition, list[Waiting]] = {}
    for journal in journals:
        noted = _noted(notes, journal)
        if noted is _GONE:
            continue
        generation, end = journal.state()
        if own is not None and end > COMPACT_BYTES:
            own.compact(noted)
        waiting, moved, _ = journal.waiting(noted)
        if waiting or first_of(noted, generation) < end:
            notes.put(Table.MOVED, journal.name, moved)
        for slate in waiting:
            by_learner.setdefault(slate.partition, []).append(slate)
    owners: dict[str, list[str]] = {}
    counts: Counter[tuple[str, int]] = Counter()
    questions: Counter[tuple[str, int]] = Counter()
    tenants = {tenant: opened(Partition(tenant)) for tenant in {partition.tenant for partition in by_learner}}
    erasing = {tenant for tenant, reader in tenants.items() if any_erasure(reader)}
    # In the order of their keys, so that a page is looked for once.
    for partition in sorted(by_learner):
        slates = by_learner[partition]
        pairs = [(slate.recommendation_id, slate.value) for slate in slates]
        erased = -math.inf
        if partition.tenant in erasing:
            erased = erasure_of(tenants[partition.tenant], partition.learner_id)
        new, first = take_in(opened(partition), pairs, erased)
        if first:
            owners.setdefault(partition.tenant, []).append(partition.learner_id)
        for slate, is_new in zip(slates, new, strict=True):
            if is_new:
                counts[partition.tenant, slate.day] += 1
                questions[partition.tenant, slate.day] += slate.questions
    for tenant, learner_ids in owners.items():
        write_owners(tenants[tenant], learner_ids)
    for (tenant, day), slates_made in counts.items():
        tally_slates(tenants[tenant], day, slates_made, questions[tenant, day])

"""One LMDB file in this process: opening, growing, who reads, what its errors mean. Knows no keys."""

import errno
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

import lmdb

from store.api import StoreCorrupt, StoreError, StoreFull, StoreUnavailable
from store.home import DATA_FILES, NO_ROOM
from store.lmdb_store.room import is_full

Txn: TypeAlias = "lmdb.Transaction[bytes]"

MAX_READERS = 1022
READERS_LEAVE_SECONDS = 30.0
"""How long growing the map waits for open reads before it gives up."""
PAGE_BYTES = 4096
MOST_UNWRITTEN_BYTES = 1 << 22
"""At the end of a file, pages that a transaction took and gave up again are counted, though never written."""
ENGINE = 0
"""LMDB 0.9, whose files every LMDB tool reads; py-lmdb also bundles 1.0."""

_DAMAGED = (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError)


def translated(error: BaseException, directory: Path | None = None) -> StoreError:
    """The contract's error for one of LMDB's or the system's. For writes, with the directory that they went to.

    When the disk takes only a part of a write, LMDB tells of an input/output error.
    """
    if isinstance(error, StoreError):
        return error
    code = error.code if isinstance(error, lmdb.Error) else getattr(error, "errno", None)
    cut_short = code == errno.EIO and directory is not None and is_full(directory)
    if isinstance(error, lmdb.MapFullError) or code in NO_ROOM or cut_short:
        return StoreFull(f"no room left: {error}")
    if isinstance(error, lmdb.TxnFullError):
        return StoreError(f"one operation changes too much: {error}")
    if isinstance(error, _DAMAGED):
        return StoreCorrupt(f"the store's file is damaged: {error}")
    return StoreUnavailable(f"the store failed: {error}")


class Reading:
    """A thread's open snapshot, and how many reads share it."""

    __slots__ = ("__weakref__", "depth", "txn")
    txn: Txn

    def __init__(self) -> None:
        """Start with no read open."""
        self.depth = 0

    def end(self) -> None:
        """Close one read; the snapshot goes with the last."""
        if self.depth == 1:
            try:
                self.txn.abort()
            finally:
                del self.txn
                self.depth = 0
        else:
            self.depth -= 1


class _Local(threading.local):
    """What each thread has of its own, known to the environment while the thread lives."""

    def __init__(self, register: Callable[[Reading], None]) -> None:
        self.reading = Reading()
        register(self.reading)


class LmdbEnvironment:
    """An open file. Replacing its map needs every read of this process closed: a gate sees to that."""

    def __init__(
        self,
        directory: Path,
        *,
        durable: bool,
        map_bytes: int,
        max_bytes: int,
        check_files: Callable[[], None],
    ) -> None:
        """Open or create; `check_files` refuses to open again. Raises StoreCorrupt, StoreUnavailable, StoreFull."""
        self.max_bytes = max_bytes
        self._directory = directory
        self._durable = durable
        self._check_files = check_files
        self._map_bytes = _whole_pages(min(map_bytes, max_bytes))
        self._readings: weakref.WeakSet[Reading] = weakref.WeakSet()
        self._readings_lock = threading.Lock()
        self._local = _Local(self._register)
        self._write_lock = threading.RLock()
        self._gate_closed = False
        self._gate_opened = threading.Event()
        self._closed = False
        self._env = self._open()

    def begin_read(self) -> "Reading":
        """A snapshot with every commit made before; inside another read of the thread, that snapshot."""
        reading = self._local.reading
        if reading.depth:
            reading.depth += 1
            return reading
        for patience in (2, 1, 0):
            reading.depth = 1
            if self._gate_closed or self._closed:
                self._enter(reading)
            try:
                reading.txn = self._env.begin()
                return reading
            except lmdb.MapResizedError:
                reading.depth = 0
                self._adopt_map()
            except lmdb.ReadersFullError as error:
                reading.depth = 0
                if not patience or not self._env.reader_check():
                    raise StoreUnavailable(f"all {MAX_READERS} reader slots are in use") from error
            except lmdb.Error as error:
                reading.depth = 0
                raise translated(error) from error
        raise StoreUnavailable("the map keeps being resized")

    @contextmanager
    def snapshot(self) -> Iterator[Txn]:
        """A read around a block."""
        reading = self.begin_read()
        try:
            yield reading.txn
        except lmdb.Error as error:
            raise translated(error) from error
        finally:
            reading.end()

    def is_reading(self) -> bool:
        """Whether the calling thread has a read open."""
        return self._local.reading.depth > 0

    def write(self, body: Callable[[Txn], bool]) -> None:
        """Run `body` in a write transaction and commit if it says that it changed anything.

        It runs again from the start when the map had to grow. Raises lmdb's errors and the contract's.
        """
        with self._write_lock:
            reopened = False
            while True:
                self._check_open()
                try:
                    with self._env.begin(write=True) as txn:
                        if not body(txn):
                            txn.abort()
                    return
                except lmdb.MapFullError:
                    self._grow()
                except lmdb.MapResizedError:
                    self._adopt_map()
                except lmdb.PanicError:
                    if reopened:
                        raise
                    reopened = True
                    self._reopen()

    def drop_dead_readers(self) -> None:
        """Free the slots of killed processes, which would keep old pages from being reused."""
        self._env.reader_check()

    def copy(self, directory: Path) -> None:
        """Write a consistent compacted copy into an empty directory. The map cannot grow meanwhile."""
        with self.snapshot():
            self._env.copy(str(directory), compact=True)

    def sizes(self) -> tuple[int, int, int]:
        """Bytes in use, bytes mapped, entries."""
        with self.snapshot() as txn:
            stat, info = txn.stat(), self._env.info()
        pages = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * stat["psize"], info["map_size"], stat["entries"]

    def flags(self) -> dict[str, bool]:
        """How LMDB was told to open the file, by its names for its settings."""
        return {name: bool(value) for name, value in self._env.flags().items()}

    def sync(self) -> None:
        """Put everything on disk."""
        try:
            self._env.sync(True)
        except lmdb.Error as error:
            raise translated(error) from error

    def close(self) -> None:
        """Release the file. Waits a little for open reads; the late ones fail."""
        with self._write_lock, self._no_readers(insist=False):
            self._closed = True
            self._env.close()

    def disown(self) -> None:
        """After a fork, in the child: refuse everything and leave the parent's file alone."""
        self._closed = True

    def _open(self) -> lmdb.Environment:
        try:
            env = lmdb.Environment(
                str(self._directory),
                map_size=self._map_bytes,
                sync=self._durable,
                metasync=self._durable,
                readahead=False,
                mode=0o600,
                max_readers=MAX_READERS,
                max_spare_txns=1,
                lib_version=ENGINE,
            )
            env.reader_check()
            self._check_whole(env)
        except (lmdb.Error, OSError) as error:
            raise translated(error, self._directory) from error
        return env

    def _check_whole(self, env: lmdb.Environment) -> None:
        """Refuse a file that was cut off: to read what it lacks would end the process with SIGBUS."""
        known = (env.info()["last_pgno"] + 1) * env.stat()["psize"]
        path = self._directory / DATA_FILES[0]
        size = path.stat().st_size
        if size < known - MOST_UNWRITTEN_BYTES:
            env.close()
            raise StoreCorrupt(f"the store's file is damaged: {path} was cut off, at {size} of {known} bytes")

    def _enter(self, reading: Reading) -> None:
        """Wait while the map is being replaced. The read has counted itself in, which is what replacing waits for."""
        while self._gate_closed:
            reading.depth = 0
            self._gate_opened.wait()
            reading.depth = 1
        if self._closed:
            reading.depth = 0
            raise StoreUnavailable("the store is closed")

    def _register(self, reading: Reading) -> None:
        with self._readings_lock:
            self._readings.add(reading)

    def _any_reading(self) -> bool:
        with self._readings_lock:
            return any(reading.depth for reading in self._readings)

    @contextmanager
    def _no_readers(self, *, insist: bool) -> Iterator[None]:
        """Keep this process's reads out while the map is replaced. Needs the write lock."""
        self._gate_opened.clear()
        self._gate_closed = True
        try:
            deadline = time.monotonic() + (READERS_LEAVE_SECONDS if insist else 1.0)
            while self._any_reading():
                if time.monotonic() > deadline:
                    if insist:
                        raise StoreUnavailable(
                            f"a read stayed open for {READERS_LEAVE_SECONDS:g} s: cannot grow"
                        )
                    break
                time.sleep(0.0005)
            yield
        finally:
            self._gate_closed = False
            self._gate_opened.set()

    def _grow(self) -> None:
        """Double the map, unless another process has grown it: then map as much as that one."""
        before = self._env.info()["map_size"]
        if before >= _whole_pages(self.max_bytes):
            raise StoreFull(f"the store has reached its limit of {self.max_bytes} bytes")
        with self._write_lock, self._no_readers(insist=True):
            self._env.set_mapsize(0)
            size = self._env.info()["map_size"]
            if size <= before:
                size = _whole_pages(min(2 * before, self.max_bytes))
                self._env.set_mapsize(size)
            self._map_bytes = size

    def _adopt_map(self) -> None:
        """Map as much as another process has grown the file to."""
        with self._write_lock:
            self._check_open()
            with self._no_readers(insist=True):
                self._env.set_mapsize(0)
                self._map_bytes = self._env.info()["map_size"]

    def _reopen(self) -> None:
        """LMDB refuses everything after a failed write of its root page; opening anew clears that."""
        with self._write_lock, self._no_readers(insist=True):
            self._check_files()
            self._env.close()
            self._env = self._open()

    def _check_open(self) -> None:
        if self._closed:
            raise StoreUnavailable("the store is closed")


def _whole_pages(size: int) -> int:
    return max(size // PAGE_BYTES, 16) * PAGE_BYTES

"""The numbers of each process in a file of its own, which any process may read and add up. Knows no metric's meaning.

A board is a file that its process maps and writes in place, so that what was counted outlives a kill. Its process
holds a lock on it; a board whose lock is free belongs to a dead one. Readers add up all boards; now and then one of
them folds the dead ones into `retired.json`, so that sums never fall and files do not pile up. Nothing is synced: a
board that a power cut has torn counts for nothing, and is removed as any dead one.

Layout, in cells of 8 bytes: magic, series published, cells they take, then the series one after another: bytes of the
key, numbers, slices, whether they are added up, the key (padded), the numbers (float64), and for each slice its period
and its numbers.
"""

import fcntl
import json
import logging
import mmap
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.types import F8
from server.logs import log
from store.home import write_file

SUFFIX = ".board"
RETIRED = "retired.json"
LOCK = "fold.lock"
BOARD_BYTES = 8 << 20
SLICE_SECONDS = 10
SLICES = 32
"""Slices of `SLICE_SECONDS` that are kept apart: a little more than the five minutes that may be asked for."""

Key = tuple[str, ...]
"""A metric's name, then the values of its labels."""

_MAGIC = 0x31_45_49_4E_45_47
_CELL = 8
_HEAD = 3
_SERIES_HEAD = 4
_LOG = logging.getLogger("genie.metrics")


@dataclass(slots=True)
class Place:
    """Where a series' numbers are among the cells of a board."""

    cells: "memoryview[float]"
    start: int
    width: int
    slices: int
    """Cell of the first slice; 0 when there are none."""


class Board:
    """The writing side: cells in a mapped file, or in memory when there is no directory. Not thread-safe.

    A board in memory can be shown in a file later on: as a copy, since whoever counts keeps to the cells it knows.
    """

    def __init__(self, directory: Path | None, worker: str, size: int = BOARD_BYTES) -> None:
        """Make the file and lock it. Raises OSError."""
        self.path: Path | None = None
        self._worker = worker
        self._size = size
        self._copy: mmap.mmap | None = None
        self._descriptor = -1
        if directory is None:
            self._buffer = mmap.mmap(-1, size)
        else:
            self._buffer = self._create(directory)
        self._bytes = memoryview(self._buffer)
        self._counts: memoryview[int] = self._bytes.cast("Q")
        self._cells: memoryview[float] = self._bytes.cast("d")
        self._end = _HEAD
        self._counts[0], self._counts[2] = _MAGIC, _HEAD
        self._full = False

    def place(self, key: Key, width: int, *, sliced: bool = False, summed: bool = True) -> Place:
        """Room for a series of `width` numbers, all 0; `summed` ones outlive the process.

        When the board is full, the numbers are kept here and not published.
        """
        name = json.dumps(key, ensure_ascii=False).encode()
        name_cells = -(-len(name) // _CELL)
        start = self._end + _SERIES_HEAD + name_cells
        slices = start + width if sliced else 0
        end = start + width + (SLICES * (1 + width) if sliced else 0)
        if end > len(self._cells):
            if not self._full:
                log(_LOG, logging.ERROR, "too many series: some are not published", series=key)
            self._full = True
            alone = memoryview(bytearray(_CELL * (end - start))).cast("d")
            return Place(alone, 0, width, width if sliced else 0)
        self._counts[self._end] = len(name)
        self._counts[self._end + 1] = width
        self._counts[self._end + 2] = SLICES if sliced else 0
        self._counts[self._end + 3] = int(summed)
        first = (self._end + _SERIES_HEAD) * _CELL
        self._bytes[first : first + len(name)] = name
        self._end = end
        # Last, so that a reader meets whole series only.
        self._counts[2] = end
        self._counts[1] += 1
        return Place(self._cells, start, width, slices)

    def show(self, directory: Path) -> None:
        """Have a board in memory shown in a file, from the next `refresh` on. Raises OSError."""
        self._copy = self._create(directory)

    def refresh(self) -> None:
        """Copy to the file what was counted in memory. Nobody may count meanwhile."""
        if self._copy is not None:
            used = self._end * _CELL
            self._copy[:used] = self._bytes[:used]

    def read(self) -> "list[Series]":
        """What was counted."""
        return _series(bytes(self._bytes[: self._end * _CELL])) or []

    def close(self) -> None:
        """Give up the lock: the board is folded by the next reader. What is counted later may be lost."""
        if self._descriptor >= 0:
            # The map holds the file too, and would keep the lock.
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            os.close(self._descriptor)
            self._descriptor = -1

    def _create(self, directory: Path) -> mmap.mmap:
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / f"{self._worker}-{time.time_ns():020d}-{os.getpid()}{SUFFIX}"
        hidden = path.with_suffix(".new")
        descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # A hole that the disk has no room for would kill the process when it is written.
            os.posix_fallocate(descriptor, 0, self._size)
            mapped = mmap.mmap(descriptor, self._size)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            hidden.rename(path)
        except OSError:
            os.close(descriptor)
            # What is left of it would make a full disk fuller.
            hidden.unlink(missing_ok=True)
            raise
        self._descriptor, self.path = descriptor, path
        return mapped


@dataclass(frozen=True, slots=True)
class Series:
    """Numbers of one series in one board."""

    key: Key
    summed: bool
    values: F8
    """(width,)"""
    periods: F8
    """(slices,) which period each slice is of, counted in `SLICE_SECONDS` since the Unix epoch."""
    slices: F8
    """(slices, width)"""


@dataclass(slots=True)
class Reading:
    """All boards at one moment."""

    totals: dict[Key, F8] = field(default_factory=dict)
    """Sums over every process that ever was."""
    recent: dict[Key, F8] = field(default_factory=dict)
    """Sums over the last slices asked for, of processes that live or died a moment ago."""
    live: dict[str, dict[Key, float]] = field(default_factory=dict)
    """First number of each series by live process."""

    def take(self, board: list[Series], *, now: float, seconds: float) -> None:
        """Add a board's series; `recent` takes what was counted in the last `seconds`, to a slice."""
        current = now // SLICE_SECONDS
        oldest = current - min(max(round(seconds / SLICE_SECONDS), 1), SLICES - 1)
        for series in board:
            if series.summed:
                # Slices hold what has not joined the numbers yet.
                _add(self.totals, series.key, series.values + series.slices.sum(0))
            if len(series.periods):
                wanted = (series.periods > oldest) & (series.periods <= current)
                _add(self.recent, series.key, series.slices[wanted].sum(0))


class Boards:
    """The reading side of a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._told: set[tuple[str, str]] = set()

    def read(self, *, now: float, seconds: float) -> Reading:
        """Add up all boards there are, dead ones included, and fold the dead ones when nobody else is about to.

        Raises OSError when the directory cannot be used.
        """
        reading = Reading()
        dead = False
        with self._locked(fcntl.LOCK_SH):
            folded, retired = self._retired()
            for key, values in retired.items():
                _add(reading.totals, key, values)
            newest: dict[str, str] = {}
            for path, board, alive in self._found(folded):
                reading.take(board, now=now, seconds=seconds)
                if alive:
                    # While a worker is being replaced both are there; the newer one speaks for its number.
                    worker, started, _ = path.stem.rsplit("-", 2)
                    if started >= newest.get(worker, ""):
                        newest[worker] = started
                        reading.live[worker] = {series.key: float(series.values[0]) for series in board}
                else:
                    dead = True
        if dead:
            try:
                self._fold()
            except OSError as error:
                # A full disk, for one: they are added up again next time.
                self._tell("metrics of dead processes cannot be folded", self._directory / RETIRED, error)
        return reading

    def _fold(self) -> None:
        with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB) as mine:
            if not mine:
                return
            folded, retired = self._retired()
            sums = Reading(totals=retired)
            gone = []
            for path, board, alive in self._found(folded):
                if not alive:
                    sums.take(board, now=0.0, seconds=0.0)
                    gone.append(path)
            if not gone:
                return
            series = [[list(key), values.tolist()] for key, values in sums.totals.items()]
            content = json.dumps({"folded": [path.name for path in gone], "series": series})
            # The names go in with the sums: killed before the files are gone, nobody adds them again.
            write_file(self._directory / RETIRED, content.encode())
            for path in gone:
                path.unlink(missing_ok=True)

    def _found(self, folded: frozenset[str]) -> Iterator[tuple[Path, list[Series], bool]]:
        """Each board, its series and whether its process lives; none are of one that is folded or damaged."""
        for path in sorted(self._directory.glob(f"*{SUFFIX}")):
            if path.name in folded:
                yield path, [], False
                continue
            try:
                board, alive = _open(path)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._tell("metrics of a process cannot be read", path, error)
                continue
            if board is None:
                self._tell("metrics of a process are damaged: what it has counted is left out", path)
            yield path, board or [], alive

    def _tell(self, event: str, path: Path, error: OSError | None = None) -> None:
        """Log it, once."""
        if (event, path.name) not in self._told:
            self._told.add((event, path.name))
            log(_LOG, logging.ERROR, event, path=path, **({} if error is None else {"why": error.strerror}))

    def _retired(self) -> tuple[frozenset[str], dict[Key, F8]]:
        """Names of the boards that were folded, and their sums; nothing when a power cut has torn the file."""
        try:
            held = json.loads((self._directory / RETIRED).read_bytes())
            sums = {tuple(key): np.array(values, np.float64) for key, values in held["series"]}
            return frozenset(held["folded"]), sums
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError):
            _LOG.exception("the counts of earlier processes cannot be read: they begin anew")
        return frozenset(), {}

    @contextmanager
    def _locked(self, how: int) -> Iterator[bool]:
        self._directory.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self._directory / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(descriptor, how)
            except BlockingIOError:
                yield False
                return
            yield True
        finally:
            os.close(descriptor)


def _open(path: Path) -> tuple[list[Series] | None, bool]:
    """The series of a board (None when it is damaged), and whether its process lives. Raises OSError."""
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            alive = False
        except BlockingIOError:
            alive = True
        size = os.fstat(file.fileno()).st_size // _CELL
        head = np.frombuffer(file.read(_HEAD * _CELL) if size >= _HEAD else b"", np.uint64)
        if alive and not head.any():
            # It has its name already, and its head in a moment.
            return [], True
        file.seek(0)
        return _series(file.read(min(int(head[2]), size) * _CELL) if len(head) else b""), alive


def _series(content: bytes) -> list[Series] | None:
    """The series that are written there; None when they are not whole."""
    cells = np.frombuffer(content, np.float64)
    counts = cells.view(np.uint64)
    if len(counts) < _HEAD or int(counts[0]) != _MAGIC:
        return None
    found = []
    at = _HEAD
    for _ in range(int(counts[1])):
        if at + _SERIES_HEAD > len(counts):
            return None
        size, width, slices, summed = (int(number) for number in counts[at : at + _SERIES_HEAD])
        first = (at + _SERIES_HEAD) * _CELL
        start = at + _SERIES_HEAD + -(-size // _CELL)
        at = start + width + slices * (1 + width)
        key = _key(content[first : first + size]) if width and at <= len(counts) else None
        if key is None:
            return None
        sliced = cells[start + width : at].reshape(slices, 1 + width)
        found.append(Series(key, bool(summed), cells[start : start + width], sliced[:, 0], sliced[:, 1:]))
    return found


def _key(text: bytes) -> Key | None:
    """The key that was written so; None when it is none."""
    try:
        names = json.loads(text)
    except (ValueError, RecursionError):
        return None
    whole = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return tuple(names) if whole else None


def _add(sums: dict[Key, F8], key: Key, values: F8) -> None:
    held = sums.get(key)
    if held is None or held.shape != values.shape:
        # Another shape is an older layout of the metric, which cannot be added.
        sums[key] = values.copy()
    else:
        held += values

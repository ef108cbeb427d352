"""Reports on their way to the experiment service, on disk until it has committed them. Calls nobody.

A worker appends to a segment file of its own, in one write a call, so that a killed worker loses nothing that a
caller was answered after. A segment that is closed, or whose worker has died (its lock is free), may be delivered by
any worker, whole, and is deleted afterwards. Delivering one twice does no harm: reports carry ids. What was written by
half, as on a full disk, is taken back; a segment that ends in such a rest all the same is put aside when delivered.

A record is length (u32), CRC-32 (u32), length of the tenant (u8), tenant, reports (ReportMetricsRequest).
"""

import errno
import fcntl
import logging
import os
import shutil
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from genie.v1 import experiment_service_pb2 as pb
from server.admission import Throttle
from server.logs import log

SPOOL = "experiment_spool"
"""Directory below the data directory."""
SUFFIX = ".spool"
REFUSED_SUFFIX = ".refused"
MOST_SEGMENT_BYTES = 4_194_304
MOST_SPOOL_BYTES = 1_073_741_824
"""With so much waiting, new reports are dropped: a service that is away for good must not fill the disk."""

REPORTS_A_RECORD = 500
"""The service takes 1,000 in a message."""

_HEAD = struct.Struct("<IIB")
_LOG = logging.getLogger("genie.experiments")


@dataclass(slots=True)
class Segment:
    """A segment to deliver, locked by whoever holds this."""

    path: Path
    batches: list[tuple[str, bytes]]
    """(tenant, ReportMetricsRequest)."""
    unread: int
    """Bytes from the first record on that is not whole."""
    delivered: bool = False
    refused: bool = False


class Spool:
    """A directory of segments, shared by workers. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._lock = threading.Lock()
        self._file: int | None = None
        self._path = directory
        self._written = 0
        self._full = False
        self._dropped = Throttle(interval_seconds=60.0)

    def append(self, tenant: str, reports: Sequence[pb.Report], *, even_if_full: bool = False) -> None:
        """Keep reports. What cannot be kept is dropped and logged: learners do not wait for measurements."""
        record = b"".join(
            _record(tenant, reports[place : place + REPORTS_A_RECORD])
            for place in range(0, len(reports), REPORTS_A_RECORD)
        )
        try:
            with self._lock:
                if self._full and not even_if_full:
                    self._drop("the spool is full", len(reports))
                    return
                self._write(record)
        except OSError as error:
            self._drop(str(error), len(reports))

    def rotate(self, *, only_large: bool = False) -> None:
        """Close the segment that is written, so that it can be delivered."""
        with self._lock:
            if self._file is None or (only_large and self._written < MOST_SEGMENT_BYTES):
                return
            descriptor, self._file = self._file, None
        _finish(descriptor)

    def waiting(self) -> list[Path]:
        """Every segment there is, oldest first."""
        self.measure()
        return sorted(self._directory.glob(f"*{SUFFIX}"))

    def measure(self) -> None:
        """See whether there is room for more."""
        size = 0
        for path in self._directory.glob(f"*{SUFFIX}"):
            with suppress(OSError):
                size += path.stat().st_size
        self._full = size >= MOST_SPOOL_BYTES

    @contextmanager
    def open(self, path: Path) -> Iterator[Segment | None]:
        """Lock a segment; None when somebody writes or delivers it. Deleted afterwards if it was delivered.

        One that was refused, or was not read to its end, is put aside instead.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError:
            yield None
            return
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield None
                return
            if os.fstat(descriptor).st_nlink == 0:
                yield None
                return
            segment = Segment(path, *_records(path))
            yield segment
            torn = segment.delivered and segment.unread > 0
            if torn:
                log(
                    _LOG,
                    logging.ERROR,
                    "a file of reports could not be read to its end and is put aside",
                    file=path.name,
                    unread_bytes=segment.unread,
                )
            if torn or segment.refused:
                path.replace(path.with_suffix(REFUSED_SUFFIX))
            elif segment.delivered:
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def _write(self, record: bytes) -> None:
        """Append a record whole or not at all. Raises OSError. Needs the lock."""
        if self._file is None:
            self._open()
        descriptor = self._file
        if descriptor is None:
            return
        try:
            written = os.write(descriptor, record)
            if written < len(record):
                raise OSError(errno.ENOSPC, f"{written} of {len(record)} bytes were written")
        except OSError:
            try:
                os.ftruncate(descriptor, self._written)
            except OSError:
                # Nothing may follow the rest that stays.
                self._file = None
                _finish(descriptor)
            raise
        self._written += written

    def _open(self) -> None:
        path = self._directory / f"{time.time_ns():020d}-{os.getpid()}{SUFFIX}"
        # The lock comes before the name: nobody can find an open segment unlocked.
        hidden = path.with_suffix(".new")
        descriptor = os.open(hidden, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        hidden.rename(path)
        self._file, self._path, self._written = descriptor, path, 0

    def _drop(self, why: str, count: int) -> None:
        if self._dropped.passes():
            log(_LOG, logging.ERROR, "reports to the experiment service are dropped", why=why, reports=count)


def _finish(descriptor: int) -> None:
    """Close a segment, which unlocks it."""
    with suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)


def copy_spool(source: Path, target: Path) -> None:
    """Copy what waits, while workers write and deliver: what vanishes meanwhile has been delivered."""
    target.mkdir()
    for path in sorted(source.iterdir()):
        if path.suffix in (SUFFIX, REFUSED_SUFFIX):
            with suppress(FileNotFoundError):
                shutil.copyfile(path, target / path.name)


def _record(tenant: str, reports: Sequence[pb.Report]) -> bytes:
    name = tenant.encode()
    body = bytes((len(name),)) + name + pb.ReportMetricsRequest(reports=reports).SerializeToString()
    return struct.pack("<II", len(body), zlib.crc32(body)) + body


def _records(path: Path) -> tuple[list[tuple[str, bytes]], int]:
    """What a segment holds, up to the first record that was not written whole, and the bytes from there on."""
    content = path.read_bytes()
    found = []
    place = 0
    while place + _HEAD.size <= len(content):
        size, checksum, name_size = _HEAD.unpack_from(content, place)
        body = content[place + 8 : place + 8 + size]
        if len(body) < size or zlib.crc32(body) != checksum:
            break
        found.append((body[1 : 1 + name_size].decode(), body[1 + name_size :]))
        place += 8 + size
    return found, len(content) - place

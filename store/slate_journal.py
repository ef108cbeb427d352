"""Slates that wait in mapped files, one a process, to be written to a store together. Knows no store.

To append is to copy bytes into memory that the system keeps when the process is killed. A file is laid out in advance,
so that a full disk cannot kill who writes to it, and locked while its process lives. Any process may read any file.

    magic (u64) | state (u64: generation << 32 | end) | records
    record: length (u32) | CRC-32 seeded with the generation (u32) | slate's id (32) | UTC day (i32) | questions (u16)
            | bytes of tenant and learner (u16, u16) | tenant | learner | value

The state is changed last and at once, so that whoever reads up to `end` meets whole records. A generation ends when
what waits is brought back to the file's start; records of an earlier one fail their checksum.
"""

import fcntl
import mmap
import os
import secrets
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from store.api import Partition

SUFFIX = ".slates"
UNFINISHED = ".slates-new"
FILE_BYTES = 16 << 20
ID_BYTES = 32

_MAGIC = 0x31_53_45_54_41_4C_53
_START = 16
_RECORD = struct.Struct("<II")
_FACTS = struct.Struct("<iHHH")
_FACTS_END = ID_BYTES + _FACTS.size


class Waiting(NamedTuple):
    """A slate that waits."""

    partition: Partition
    recommendation_id: bytes
    day: int
    """UTC day on which it was made."""
    questions: int
    value: bytes


class Journal:
    """A file, of any process."""

    def __init__(self, path: Path) -> None:
        """Map it for reading. Raises OSError, ValueError for a file that is none."""
        self.path = path
        self.name = path.name.encode()
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size < _START or size % _START:
                raise ValueError(f"{path} is not a journal of slates")
            self._map = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ)
        self._cells: memoryview[int] = memoryview(self._map).cast("Q")
        if self._cells[0] != _MAGIC:
            self.close()
            raise ValueError(f"{path} is not a journal of slates")

    def state(self) -> tuple[int, int]:
        """Generation, and where its records end, which is inside the file even if that was cut off."""
        state = self._cells[1]
        return state >> 32, min(state & 0xFFFFFFFF, len(self._map))

    def waiting(
        self, moved: bytes | None, partition: Partition | None = None
    ) -> tuple[list[Waiting], bytes, bool]:
        """What waits, of one partition if it is named; what is `moved_to` once all is moved; whether all could be read.

        Not all can, when something was moved since `moved` was read and its place used again, or bytes are damaged.
        """
        generation, end = self.state()
        bodies, last = self._bodies(generation, first_of(moved, generation), end)
        whole = last == end and self.state()[0] == generation
        if partition is not None:
            names = (partition.tenant + partition.learner_id).encode()
            bodies = [body for body in bodies if body.startswith(names, _FACTS_END)]
        found = [_unpacked(body) for body in bodies]
        if partition is not None:
            # Other names may begin alike, or be divided otherwise.
            found = [slate for slate in found if slate.partition == partition]
        return found, moved_to(generation, end), whole

    def find(self, recommendation_id: bytes, moved: bytes | None) -> Waiting | None:
        """The slate with this id, if it waits."""
        while True:
            generation, end = self.state()
            at = self._map.find(recommendation_id, first_of(moved, generation), end)
            while at >= 0:
                body = self._body(generation, at - _RECORD.size, end)
                if body is not None and body.startswith(recommendation_id):
                    return _unpacked(body)
                at = self._map.find(recommendation_id, at + 1, end)
            if self.state()[0] == generation:
                return None

    def close(self) -> None:
        """Release the map."""
        self._cells.release()
        self._map.close()

    def _bodies(self, generation: int, start: int, end: int) -> tuple[list[bytes], int]:
        """The records from `start` on as far as they are good, and where those end."""
        bodies = []
        while start < end:
            body = self._body(generation, start, end)
            if body is None:
                break
            bodies.append(body)
            start += _RECORD.size + len(body)
        return bodies, start

    def _body(self, generation: int, start: int, end: int) -> bytes | None:
        """The record at `start` without its length and checksum; None when there is none."""
        first = start + _RECORD.size
        if start < _START or first > end:
            return None
        length, checksum = _RECORD.unpack_from(self._map, start)
        body = self._map[first : first + length]
        whole = first + length <= end and length >= _FACTS_END and crc32(body, generation) == checksum
        return body if whole else None


class OwnJournal(Journal):
    """The file of this process. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        """Make and lock it. Raises OSError, as when the disk is full."""
        path = directory / f"{os.getpid()}-{time.time_ns():020d}-{secrets.token_hex(4)}{SUFFIX}"
        hidden = path.with_suffix(UNFINISHED)
        self._descriptor = os.open(hidden, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            # A hole that the disk has no room for would kill the process when it is written.
            os.posix_fallocate(self._descriptor, 0, FILE_BYTES)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            self._own = mmap.mmap(self._descriptor, FILE_BYTES)
            self._states: memoryview[int] = memoryview(self._own).cast("Q")
            self._generation, self._end = 1, _START
            self._publish()
            self._states[0] = _MAGIC
            hidden.rename(path)
        except OSError:
            os.close(self._descriptor)
            hidden.unlink(missing_ok=True)
            raise
        self._lock = threading.Lock()
        self._shut = False
        super().__init__(path)

    def append(self, records: "memoryview[int]", ends: Sequence[int]) -> int:
        """Have the first of these slates wait, as many as there is room for; how many these are.

        The records stand one after another, length and checksum still to be written, which is done where they are.
        """
        start = count = 0
        with self._lock:
            room = 0 if self._shut else FILE_BYTES - self._end
            for end in ends:
                if end > room:
                    break
                first = start + _RECORD.size
                _RECORD.pack_into(records, start, end - first, crc32(records[first:end], self._generation))
                start = end
                count += 1
            self._own[self._end : self._end + start] = records[:start]
            self._end += start
            self._publish()
        return count

    def compact(self, moved: bytes | None) -> None:
        """Bring what waits back to the start, in a new generation. Nobody may move slates meanwhile."""
        with self._lock:
            first = first_of(moved, self._generation)
            bodies, _ = self._bodies(self._generation, first, self._end)
            generation = self._generation + 1
            copied = b"".join(_RECORD.pack(len(body), crc32(body, generation)) + body for body in bodies)
            if _START + len(copied) > first:
                # It would overwrite what waits before it is taken for the copy.
                return
            self._own[_START : _START + len(copied)] = copied
            self._generation, self._end = generation, _START + len(copied)
            self._publish()

    def shut(self) -> None:
        """Take no more."""
        with self._lock:
            self._shut = True

    def leave(self, *, remove: bool) -> None:
        """Unlock the file, and remove it when nothing waits in it."""
        if remove:
            self.path.unlink(missing_ok=True)
        self.close()
        self._states.release()
        self._own.close()
        os.close(self._descriptor)

    def _publish(self) -> None:
        self._states[1] = self._generation << 32 | self._end


def moved_to(generation: int, end: int) -> bytes:
    """What the store notes when the records of a generation up to `end` are in its tables."""
    return (generation << 32 | end).to_bytes(8, "big")


def first_of(moved: bytes | None, generation: int) -> int:
    """Where the records of a generation begin that are not in the store's tables yet."""
    state = 0 if moved is None else int.from_bytes(moved, "big")
    return state & 0xFFFFFFFF if state >> 32 == generation else _START


def lock_of_dead(path: Path) -> int | None:
    """A descriptor that holds the lock of a file whose process has gone; None while it lives."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def recorded(slate: Waiting) -> "memoryview[int]":
    """The slate as `OwnJournal.append` takes it."""
    tenant, learner = slate.partition.tenant.encode(), slate.partition.learner_id.encode()
    facts = _FACTS.pack(slate.day, slate.questions, len(tenant), len(learner))
    parts = bytes(_RECORD.size), slate.recommendation_id, facts, tenant, learner, slate.value
    return memoryview(bytearray().join(parts))


def _unpacked(body: bytes) -> Waiting:
    day, questions, tenant, learner = _FACTS.unpack_from(body, ID_BYTES)
    middle = _FACTS_END + tenant
    last = middle + learner
    partition = Partition(body[_FACTS_END:middle].decode(), body[middle:last].decode())
    return Waiting(partition, body[:ID_BYTES], day, questions, body[last:])

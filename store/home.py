"""The directory a store lives in: its format, who uses it, whether its files may be trusted. Opens no data.

`format.json` states the format, so that an older Genie refuses a newer store rather than harm it. `open.lock`
is held while a process opens or closes the store; `use.lock` is held, shared, as long as a process uses it.

Locks are of files, not of names: who finds a deleted lock file made anew is alone with it, and would destroy what the
others use. So the data file is held too, and `use.lock` says which files the first user found: who comes later and
finds others is refused.

Of a store that is never to be lost, `format.json` also says whether it was ever made: then its data file must be
there. Records of earlier versions do not say it, and were made.

A store that is not synced may be torn by a power cut, which its files cannot show. So `format.json` also says
in which boot of the machine it is in use, and whether the last user closed it with everything on disk: if
neither vouches for the files, they are thrown away. Only what may be lost is kept in such a store.
"""

import errno
import fcntl
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from store.api import StoreCorrupt, StoreError, StoreFull, StoreTooNew, StoreUnavailable

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""What the system says when there is no room for a write."""
FORMAT = 1
"""Version of the key layout and directory; entries carry their own versions (store.codec)."""
DATA_FILES = ("data.mdb", "lock.mdb")
"""What holds the data, and what those who use it share."""
FORMAT_FILE = "format.json"
RESTORING_FILE = "restoring.json"
"""Beside the directories of stores while a backup takes their place; names those it replaces."""
INCOMING = ".restoring"
"""What the copy of a backup's directory is called until it is put in place."""
USE_LOCK = "use.lock"
OPEN_LOCK = "open.lock"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LOG = logging.getLogger("genie.store")


def boot_id() -> str:
    """Which boot of the machine this is; empty where the system does not say."""
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        return ""


def read_format(directory: Path) -> dict[str, object] | None:
    """Contents of `format.json`, None when there is none. Raises StoreTooNew, StoreCorrupt, StoreUnavailable."""
    path = directory / FORMAT_FILE
    try:
        record = json.loads(path.read_bytes())
        version = record["format"]
        if not isinstance(version, int) or isinstance(version, bool):
            raise TypeError("format is not a number")
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreCorrupt(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be read: {error}") from error
    if version > FORMAT:
        raise StoreTooNew(
            f"{directory} holds format {version}, this Genie reads up to {FORMAT}; use a newer Genie"
        )
    return dict(record)


def write_file(path: Path, content: bytes) -> None:
    """Replace a file so that after a crash it is the old or the new one, whole."""
    temporary = path.with_name(path.name + ".new")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def _write_over(path: Path, content: bytes) -> None:
    """Change a file, which takes no room where it is there. A power cut may leave it damaged."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        if os.pwrite(descriptor, content, 0) < len(content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.ftruncate(descriptor, len(content))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_directory(directory: Path) -> None:
    """Make renames and new files in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def in_use(directory: Path) -> bool:
    """Whether a process has the store in this directory open. Raises OSError."""
    return _is_held(directory / USE_LOCK) or _is_held(directory / DATA_FILES[0])


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _only_holder(descriptor: int) -> bool:
    """Whether nobody else holds this lock; it is then held alone, otherwise shared."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        return False
    return True


def check_restored(directory: Path) -> None:
    """Refuse a store's directory that a restore was to replace and did not. Raises StoreCorrupt."""
    half = (directory.parent / RESTORING_FILE).exists()
    if half or (not directory.exists() and directory.with_name(directory.name + INCOMING).exists()):
        raise StoreCorrupt(
            f"{directory.parent} is half restored: an interrupted restore, run `genie restore` again"
        )


def copied_format() -> bytes:
    """What `format.json` says in a copy whose data files are all on disk."""
    return json.dumps({"format": FORMAT, "clean": True, "created": True}).encode()


def is_new(directory: Path) -> bool:
    """Whether no store was ever made in this directory. Changes nothing. Raises as opening does."""
    check_restored(directory)
    record = read_format(directory)
    if record is None:
        return not (directory / DATA_FILES[0]).exists()
    return not _was_made(record) and not _holds_bytes(directory / DATA_FILES[0])


def is_vouched_for(directory: Path) -> bool:
    """Whether the files of a store that is not synced may be trusted, by its record. Raises as opening does."""
    check_restored(directory)
    if not (directory / DATA_FILES[0]).exists():
        return True
    try:
        return _vouches(read_format(directory))
    except StoreCorrupt:
        return False


def _vouches(record: dict[str, object] | None) -> bool:
    if record is None:
        return False
    boot = boot_id()
    return bool(record.get("clean")) or (boot != "" and record.get("boot") == boot)


def _was_made(record: dict[str, object]) -> bool:
    return record.get("created", True) is not False


def _inode(path: Path) -> int | None:
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def _holds_bytes(path: Path) -> bool:
    try:
        return path.stat().st_size > 0
    except FileNotFoundError:
        return False


class StoreHome:
    """One process's hold on a store directory."""

    def __init__(self, directory: Path, *, durable: bool) -> None:
        """Name the directory; touches nothing yet."""
        self.directory = directory
        self._durable = durable
        self._use: int | None = None
        self._data: int | None = None
        self._first = False
        """Nobody used the store when it was opened."""
        self._unmade = False
        """The record says that the store was not made yet."""

    @contextmanager
    def opening(self) -> Iterator[None]:
        """Check and claim the directory; meanwhile no other process can open, close or discard its data."""
        try:
            check_restored(self.directory)
            self.directory.mkdir(parents=True, exist_ok=True)
            with self._exclusively():
                self._claim()
                try:
                    yield
                    self._hold_data()
                    self._note_made()
                except BaseException:
                    self._release()
                    raise
        except OSError as error:
            kind = StoreFull if error.errno in NO_ROOM else StoreUnavailable
            raise kind(f"{self.directory} cannot be used: {error}") from error

    def discard(self) -> bool:
        """Delete the data files if no other process uses them and they may be lost; whether it was done."""
        if self._durable or not self._alone():
            return False
        for name in DATA_FILES:
            (self.directory / name).unlink(missing_ok=True)
        return True

    def close(self, sync: Callable[[], None], close: Callable[[], None]) -> None:
        """Let go: `sync` puts unsynced data on disk (needed of the last user only), `close` releases it.

        What may be lost is not worth an error: when the disk refuses, the log says so, and nothing vouches for it.
        """
        if self._use is None:
            return
        try:
            with self._exclusively():
                last = not self._durable and self._alone()
                if last:
                    sync()
                close()
                if last:
                    self._note(clean=True)
        except (OSError, StoreError) as error:
            facts = {"directory": str(self.directory), "error": str(error)}
            _LOG.warning("a store was not closed as it should be", extra={"facts": facts})
            close()
        finally:
            self._release()

    def check_files(self) -> None:
        """Refuse files that are not those which the first user found. Raises StoreUnavailable."""
        noted: object = None
        if self._use is not None:
            with suppress(ValueError):
                noted = json.loads(os.pread(self._use, 4096, 0))
        for name, number in noted.items() if isinstance(noted, dict) else ():
            if _inode(self.directory / name) != number:
                raise self._deleted_in_use(name)

    def _claim(self) -> None:
        self._use = os.open(self.directory / USE_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            record = self._record()
            self._first = alone = self._alone()
            if alone and _is_held(self.directory / DATA_FILES[0]):
                raise self._deleted_in_use(USE_LOCK)
            if self._durable:
                self._check_data(record)
                self._unmade = record is None or not _was_made(record)
            if not alone:
                self.check_files()
            if alone and not self._durable and not _vouches(record):
                self.discard()
            if self._durable and record is None:
                self._write({"created": False})
            elif not self._durable and (alone or record is None or record.get("clean")):
                self._note_unsynced()
            fcntl.flock(self._use, fcntl.LOCK_SH)
            # Once more: a restore that began meanwhile either sees the lock or has left its mark.
            check_restored(self.directory)
        except BaseException:
            self._release()
            raise

    def _deleted_in_use(self, name: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.directory / name} was deleted while the store is in use: "
            "stop everything that uses the store, then start again"
        )

    def _hold_data(self) -> None:
        """Hold the data file, and say in `use.lock` which files are used. Nobody can be refused by what is not said."""
        self._data = os.open(self.directory / DATA_FILES[0], os.O_RDONLY)
        fcntl.flock(self._data, fcntl.LOCK_SH)
        if not self._first or self._use is None:
            return
        noted = json.dumps({name: _inode(self.directory / name) for name in DATA_FILES}).encode()
        try:
            os.ftruncate(self._use, os.pwrite(self._use, noted, 0))
        except OSError:
            os.ftruncate(self._use, 0)

    def _check_data(self, record: dict[str, object] | None) -> None:
        """Refuse data without a record, and a record of data that are gone: a new store would hide the loss."""
        data = self.directory / DATA_FILES[0]
        if record is None and data.exists():
            raise StoreCorrupt(
                f"{self.directory} holds data but no {FORMAT_FILE}: not a Genie store, or damaged"
            )
        if record is not None and _was_made(record) and not _holds_bytes(data):
            lost = "is empty" if data.exists() else "is missing"
            raise StoreCorrupt(
                f"{self.directory} has a {FORMAT_FILE}, but {data.name} {lost}: restore a backup"
            )

    def _note_made(self) -> None:
        """Have the record say that the store was made; where that fails, a later opening does it."""
        if not self._unmade:
            return
        with suppress(OSError):
            with (self.directory / DATA_FILES[0]).open("rb") as data:
                os.fsync(data.fileno())
            self._write({"created": True})
            self._unmade = False

    def _record(self) -> dict[str, object] | None:
        try:
            return read_format(self.directory)
        except StoreCorrupt:
            if self._durable:
                raise
            return None

    def _note_unsynced(self) -> None:
        """Have the record vouch for this boot only. Where that cannot be, there is none: then nothing vouches."""
        try:
            self._note(clean=False)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            (self.directory / FORMAT_FILE).unlink(missing_ok=True)

    def _note(self, *, clean: bool) -> None:
        """Write the record of a store that is not synced. Without room, the one that is there is written over."""
        marks: dict[str, object] = {"boot": boot_id(), "clean": clean}
        try:
            self._write(marks)
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            _write_over(self.directory / FORMAT_FILE, self._recorded(marks))

    def _recorded(self, marks: dict[str, object]) -> bytes:
        return json.dumps({"format": FORMAT, **marks}).encode()

    def _write(self, marks: dict[str, object]) -> None:
        write_file(self.directory / FORMAT_FILE, self._recorded(marks))

    def _alone(self) -> bool:
        """Whether no other process uses the store; this one then holds its locks alone, otherwise shared."""
        if self._use is None or not _only_holder(self._use):
            return False
        return self._data is None or _only_holder(self._data)

    def _release(self) -> None:
        for descriptor in (self._data, self._use):
            if descriptor is not None:
                os.close(descriptor)
        self._data = self._use = None

    @contextmanager
    def _exclusively(self) -> Iterator[None]:
        descriptor = os.open(self.directory / OPEN_LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

"""Copies of a whole store: taken while it is in use, checked by their manifest, put back as they were.

A backup is a directory with a manifest of every file's size and checksum. It appears under its name only when
complete.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from store.api import StoreCorrupt, StoreError, StoreTooNew, StoreUnavailable
from store.home import FORMAT, INCOMING, RESTORING_FILE, in_use, read_format, sync_directory, write_file

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 1
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class BackupFile:
    """A file of a backup."""

    path: str
    """Relative to the backup, with forward slashes."""
    size_bytes: int
    blake2b: str
    """256 bits, in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a backup holds."""

    format: int
    store_format: int
    genie_version: str
    created_at: str
    """RFC 3339."""
    files: tuple[BackupFile, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size_bytes for file in self.files)


def backup(
    parts: Mapping[str, Callable[[Path], object]],
    directory: Path,
    *,
    genie_version: str,
    created_at: str,
) -> Manifest:
    """Copy parts, one after the other, into a directory that does not exist yet or is empty.

    A part has a name in the backup and a function that writes it to a directory that does not exist yet, consistent
    in itself (`Store.backup`, or a copy of files that never change). Raises StoreError.
    """
    if directory.exists() and any(directory.iterdir()):
        raise StoreError(f"{directory} is not empty")
    partial = directory.with_name(directory.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, copy in parts.items():
            copy(partial / name)
        files = tuple(_described(partial, path) for path in _files(partial))
        manifest = Manifest(MANIFEST_FORMAT, FORMAT, genie_version, created_at, files)
        write_file(partial / MANIFEST, json.dumps(asdict(manifest), indent=1).encode())
        if directory.exists():
            directory.rmdir()
        partial.rename(directory)
        sync_directory(directory.parent)
    except OSError as error:
        raise StoreUnavailable(f"the backup could not be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def verify(directory: Path) -> Manifest:
    """Check every file of a backup against its manifest. Raises StoreCorrupt, StoreTooNew."""
    manifest = _read_manifest(directory)
    expected = {file.path: file for file in manifest.files}
    found = {path.relative_to(directory).as_posix() for path in _files(directory)} - {MANIFEST}
    for path in sorted(found ^ set(expected)):
        raise StoreCorrupt(
            f"{directory}: {path} is {'missing' if path in expected else 'not in the manifest'}"
        )
    for path, file in expected.items():
        if _described(directory, directory / path) != file:
            raise StoreCorrupt(f"{directory}: {path} is damaged: size or checksum differ from the manifest")
    for name in {Path(path).parts[0] for path in expected}:
        read_format(directory / name)
    return manifest


def restore(directory: Path, target: Path, *, force: bool = False) -> Manifest:
    """Put a backup in place of a store that nobody uses. One that was interrupted is finished by running it again.

    Everything is checked and copied before anything is replaced; while it is replaced, no store there opens.
    Raises StoreError when the target holds something and `force` is not given, StoreUnavailable when it is in
    use, StoreCorrupt or StoreTooNew for the backup.
    """
    manifest = verify(directory)
    names = sorted({Path(file.path).parts[0] for file in manifest.files})
    try:
        begun = _begun(target)
        if not begun <= set(names):
            raise StoreError(
                f"an interrupted restore of {', '.join(sorted(begun))} in {target}: "
                f"{directory} does not hold all of that"
            )
        held = [name for name in names if (target / name).exists()]
        if not force and set(held) - begun:
            raise StoreError(f"{target} already holds {', '.join(held)}")
        _check_unused(target, held)
        target.mkdir(parents=True, exist_ok=True)
        for name in names:
            incoming = target / (name + INCOMING)
            shutil.rmtree(incoming, ignore_errors=True)
            shutil.copytree(directory / name, incoming, symlinks=True)
            for path in _files(incoming):
                _sync(path)
        _replace(target, names, begun)
    except OSError as error:
        raise StoreUnavailable(f"the backup could not be put in place: {error}") from error
    return manifest


def _begun(target: Path) -> set[str]:
    """What an interrupted restore was about to replace. Empty when there was none."""
    try:
        return set(json.loads((target / RESTORING_FILE).read_bytes()))
    except FileNotFoundError:
        return set()
    except (ValueError, TypeError) as error:
        raise StoreCorrupt(f"{target / RESTORING_FILE} is damaged: {error}") from error


def _check_unused(target: Path, names: Sequence[str]) -> None:
    for name in names:
        if in_use(target / name):
            raise StoreUnavailable(f"{target / name} is in use: stop the server first")


def _replace(target: Path, names: Sequence[str], begun: set[str]) -> None:
    """Exchange all directories. The mark keeps stores there closed until the last one is done, also after a crash."""
    mark = target / RESTORING_FILE
    write_file(mark, json.dumps(names).encode())
    try:
        _check_unused(target, [name for name in names if (target / name).exists()])
    except BaseException:
        if not begun:
            mark.unlink()
        raise
    for name in names:
        _exchange(target, name)
    sync_directory(target)
    mark.unlink()
    sync_directory(target)


def _exchange(target: Path, name: str) -> None:
    old = target / f"{name}.replaced"
    shutil.rmtree(old, ignore_errors=True)
    if (target / name).exists():
        (target / name).rename(old)
    (target / (name + INCOMING)).rename(target / name)
    shutil.rmtree(old, ignore_errors=True)


def _read_manifest(directory: Path) -> Manifest:
    try:
        fields = json.loads((directory / MANIFEST).read_bytes())
        if fields["format"] > MANIFEST_FORMAT or fields["store_format"] > FORMAT:
            raise StoreTooNew(
                f"{directory} was written by Genie {fields['genie_version']}, newer than this one"
            )
        files = tuple(BackupFile(**file) for file in fields.pop("files"))
        return Manifest(files=files, **fields)
    except FileNotFoundError as error:
        raise StoreCorrupt(f"{directory} is not a backup: it has no {MANIFEST}") from error
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise StoreCorrupt(f"{directory / MANIFEST} is damaged: {error!r}") from error


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())


def _described(root: Path, path: Path) -> BackupFile:
    digest = hashlib.blake2b(digest_size=32)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return BackupFile(path.relative_to(root).as_posix(), path.stat().st_size, digest.hexdigest())


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())

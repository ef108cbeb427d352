"""Trained models on disk: versions, checksums and which one is current. Knows nothing of what the arrays mean."""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from store.home import sync_directory, write_file

MODELS = "models"
"""Directory below the data directory."""
FORMAT = 1
"""Version of the directory's layout; parts carry their own formats."""
MANIFEST_FILE = "manifest.json"
CURRENT_FILE = "current"
LOCK_FILE = "train.lock"
KEEP_VERSIONS = 5
MOST_NAME_BYTES = 200
"""Longer directory names are replaced by a digest; file systems end at 255."""

_VERSION = re.compile(r"v(\d{4,})-[0-9a-f]{8}")
_FILE = re.compile(r"[a-z0-9][a-z0-9_.]*")
_HASH_BYTES = 1 << 20

Array = npt.NDArray[Any]


class ModelError(Exception):
    """A model version that cannot be used; the message names what is wrong with it."""


class ModelNotFound(ModelError):
    """No such version, or none at all."""


class ModelDamaged(ModelError):
    """A file of the version is missing, or is not what its manifest says."""


class ModelBusy(ModelError):
    """Another process is writing models of the tenant."""


class ModelTooNew(ModelError):
    """Written by a newer Genie than this one."""


@dataclass(frozen=True, slots=True)
class ModelParts:
    """What a version is made of. Names are lower-case, with dots to group them, such as `learner.dense`."""

    arrays: Mapping[str, Array]
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    """Files that are no arrays, such as FAISS indexes."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """JSON-ready facts that are needed to read the parts."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What is known of a version without opening its files; JSON-ready."""

    version: str
    created_at: str
    """RFC 3339."""
    tenant: str
    data: dict[str, Any]
    """Which answers it was trained on: range and counts."""
    metrics: dict[str, Any]
    """Figures on held-out answers."""
    metadata: dict[str, Any]
    files: dict[str, dict[str, Any]]
    """File name → `bytes`, `sha256`."""
    libraries: dict[str, str]
    format: int = FORMAT

    @property
    def number(self) -> int:
        """Its place in the order of versions."""
        return _number(self.version)


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A version that was opened: arrays are mapped read-only, so that processes share their pages."""

    manifest: Manifest
    directory: Path
    arrays: dict[str, Array]

    def blob(self, name: str) -> bytes:
        """Contents of a file that is no array. ModelDamaged when there is none."""
        if name not in self.manifest.files:
            raise ModelDamaged(f"model {self.manifest.version} holds no {name}")
        return (self.directory / name).read_bytes()

    def group(self, prefix: str) -> dict[str, Array]:
        """The arrays whose names begin with `prefix` and a dot, by the rest of their names."""
        start = prefix + "."
        return {
            name.removeprefix(start): array for name, array in self.arrays.items() if name.startswith(start)
        }


class ModelDirectory:
    """The model versions of one tenant; safe to use from several processes.

    `models/<tenant>/<version>/` holds a version's files, and `models/<tenant>/current` the name of the one in use. A
    version appears under its name only when all of it is on disk, and is never changed afterwards.
    """

    def __init__(self, data_directory: Path, tenant: str) -> None:
        """Name the place; touches nothing yet."""
        self.tenant = tenant
        self.path = data_directory / MODELS / _directory_name(tenant)

    def versions(self) -> list[str]:
        """Names of all versions, oldest first."""
        names = [entry.name for entry in self.path.iterdir()] if self.path.is_dir() else []
        return sorted((name for name in names if _VERSION.fullmatch(name)), key=_number)

    def current(self) -> str | None:
        """Name of the version in use; None when nothing was trained. ModelDamaged when the pointer is unreadable."""
        try:
            name = (self.path / CURRENT_FILE).read_text(encoding="ascii").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise ModelDamaged(f"{self.path / CURRENT_FILE} cannot be read: {error}") from error
        if not _VERSION.fullmatch(name):
            raise ModelDamaged(f"{self.path / CURRENT_FILE} names no version: {name[:80]!r}")
        return name

    def point(self, version: str) -> None:
        """Make a version the one in use: readers see the old or the new name, whole, even after a crash."""
        self.manifest(version)
        write_file(self.path / CURRENT_FILE, version.encode() + b"\n")

    def manifest(self, version: str) -> Manifest:
        """What a version says of itself.

        Raises:
            ModelNotFound: there is no such version. ModelDamaged, ModelTooNew: it cannot be read.
        """
        if not _VERSION.fullmatch(version):
            raise ModelNotFound(f"{version[:80]!r} is no model version; {self._known()}")
        path = self.path / version / MANIFEST_FILE
        try:
            record = json.loads(path.read_bytes())
        except FileNotFoundError:
            if (self.path / version).is_dir():
                raise ModelDamaged(f"model {version} has no {MANIFEST_FILE}") from None
            raise ModelNotFound(f"there is no model {version}; {self._known()}") from None
        except (OSError, ValueError) as error:
            raise ModelDamaged(f"{path} cannot be read: {error}") from error
        return _manifest_of(record, version, path)

    def open(self, version: str | None = None, *, verify: bool = True) -> StoredModel:
        """Map a version (the current one unless named), its checksums verified.

        Without `verify` only the files' sizes are looked at: for a version that this process has verified before.

        Raises:
            ModelNotFound: there is no such version, or no current one. ModelDamaged, ModelTooNew: it cannot be used.
        """
        name = version or self.current()
        if name is None:
            raise ModelNotFound(f"nothing was trained for tenant {self.tenant!r} yet")
        manifest = self.manifest(name)
        directory = self.path / name
        for file, facts in manifest.files.items():
            _check_file(directory / file, facts, verify=verify)
        arrays = {
            file.removesuffix(".npy"): _map(directory / file)
            for file in manifest.files
            if file.endswith(".npy")
        }
        return StoredModel(manifest, directory, arrays)

    @contextmanager
    def exclusively(self) -> Iterator[None]:
        """Be the only writer, for as long as a training takes; what a killed one left behind is cleared away.

        Raises:
            ModelBusy: another process is writing. Readers are never kept waiting.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ModelBusy(f"another training writes to {self.path}; wait until it is done") from error
            for pattern in (".partial-*", ".gone-*"):
                for left in self.path.glob(pattern):
                    shutil.rmtree(left, ignore_errors=True)
            yield
        finally:
            os.close(descriptor)

    def write(
        self,
        parts: ModelParts,
        *,
        created_at: str,
        data: Mapping[str, Any],
        metrics: Mapping[str, Any],
        libraries: Mapping[str, str],
    ) -> Manifest:
        """Put a new version on disk, durably; it is not current until `point` says so.

        Call it, as `prune`, inside `exclusively`.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        partial = self.path / ".partial-version"
        partial.mkdir()
        try:
            files = _write_parts(partial, parts)
            version = self._next(files)
            manifest = Manifest(
                version=version,
                created_at=created_at,
                tenant=self.tenant,
                data=dict(data),
                metrics=dict(metrics),
                metadata=dict(parts.metadata),
                files=files,
                libraries=dict(libraries),
            )
            text = json.dumps(asdict(manifest), indent=2, sort_keys=True, ensure_ascii=False) + "\n"
            write_file(partial / MANIFEST_FILE, text.encode())
            partial.rename(self.path / version)
            sync_directory(self.path)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        return manifest

    def prune(self, keep: int = KEEP_VERSIONS) -> list[str]:
        """Delete all but the `keep` newest versions and the current one; the names of those deleted.

        A process that has a deleted version mapped goes on using it: its pages live until it lets go.
        """
        if keep < 1:
            raise ValueError(f"keep is {keep}; at least the newest version stays, so it must be 1 or more")
        current = self.current()
        gone = [name for name in self.versions()[:-keep] if name != current]
        for name in gone:
            # Renamed first, so that no reader finds half a version under its name.
            doomed = self.path / f".gone-{name}"
            (self.path / name).rename(doomed)
            shutil.rmtree(doomed, ignore_errors=True)
        return gone

    def _next(self, files: Mapping[str, Mapping[str, Any]]) -> str:
        # The digest tells versions apart that were counted from the start again after models were deleted.
        digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:8]
        number = max((_number(name) for name in self.versions()), default=0) + 1
        return f"v{number:04d}-{digest}"

    def _known(self) -> str:
        known = self.versions()
        return f"there are {', '.join(known)}" if known else "there is none"


def _directory_name(tenant: str) -> str:
    """A tenant as a safe, unique directory name: percent-encoded, or by digest when that is too long."""
    name = quote(tenant, safe="").replace(".", "%2E") if tenant.strip(".") == "" else quote(tenant, safe="")
    if len(name) <= MOST_NAME_BYTES:
        return name
    # "%h" is no percent-encoding, so no other tenant's name can look like this.
    return "%h" + hashlib.sha256(tenant.encode()).hexdigest()


def _number(version: str) -> int:
    match = _VERSION.fullmatch(version)
    return int(match.group(1)) if match else 0


def _write_parts(directory: Path, parts: ModelParts) -> dict[str, dict[str, Any]]:
    for name in (*parts.arrays, *parts.blobs):
        if not _FILE.fullmatch(name):
            raise ValueError(f"{name!r} cannot name a part; lower-case letters, digits, _ and . are allowed")
    files = {}
    for name, array in parts.arrays.items():
        path = directory / f"{name}.npy"
        with path.open("wb") as file:
            np.save(file, np.ascontiguousarray(array), allow_pickle=False)
            file.flush()
            os.fsync(file.fileno())
        files[path.name] = {"bytes": path.stat().st_size, "sha256": _checksum(path)}
    for name, content in parts.blobs.items():
        if name.endswith(".npy") or name == MANIFEST_FILE:
            raise ValueError(f"{name!r} cannot name a part that is no array")
        write_file(directory / name, content)
        files[name] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    return files


def _manifest_of(record: object, version: str, path: Path) -> Manifest:
    if not isinstance(record, dict) or not isinstance(record.get("format"), int):
        raise ModelDamaged(f"{path} is no manifest of a model")
    if record["format"] > FORMAT:
        raise ModelTooNew(f"model {version} has format {record['format']}, this Genie reads up to {FORMAT}")
    try:
        manifest = Manifest(**record)
    except TypeError as error:
        raise ModelDamaged(f"{path} is no manifest of a model: {error}") from error
    if manifest.version != version:
        raise ModelDamaged(f"{path} speaks of {manifest.version}, not of {version}")
    if not all(_FILE.fullmatch(name) for name in manifest.files):
        raise ModelDamaged(f"{path} names files outside its own directory")
    return manifest


def _check_file(path: Path, facts: Mapping[str, Any], *, verify: bool) -> None:
    try:
        size = path.stat().st_size
        if size != facts["bytes"]:
            raise ModelDamaged(f"{path} has {size} bytes, its manifest says {facts['bytes']}")
        if verify and _checksum(path) != facts["sha256"]:
            raise ModelDamaged(f"{path} has changed since it was written: its checksum differs")
    except (OSError, KeyError, TypeError) as error:
        raise ModelDamaged(f"{path} cannot be checked: {error}") from error


def _checksum(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_HASH_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _map(path: Path) -> Array:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ModelDamaged(f"{path} is no array that can be mapped: {error}") from error
    # Kernels are compiled for plain arrays; the view keeps the map open.
    plain: Array = np.asarray(array)
    return plain

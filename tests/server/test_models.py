"""Model versions on disk: what is written comes back, and what is damaged is named and never used."""

import json
from pathlib import Path

import numpy as np
import pytest

from server import models
from server.models import (
    Manifest,
    ModelBusy,
    ModelDamaged,
    ModelDirectory,
    ModelNotFound,
    ModelParts,
    ModelTooNew,
)


def save(directory: ModelDirectory, value: float = 1.0) -> Manifest:
    parts = ModelParts(
        arrays={"learner.dense": np.full(5, value), "learner.none": np.zeros((0, 3), np.float32)},
        blobs={"items.faiss": b"index"},
        metadata={"learner": {"format": 1}},
    )
    with directory.exclusively():
        return directory.write(
            parts,
            created_at="2026-01-31T09:30:00Z",
            data={"answers": 3},
            metrics={"auc": 0.7},
            libraries={"numpy": "2"},
        )


@pytest.fixture
def directory(tmp_path: Path) -> ModelDirectory:
    return ModelDirectory(tmp_path, "default")


def test_a_version_comes_back_as_it_was_written_and_read_only(directory: ModelDirectory) -> None:
    manifest = save(directory)
    stored = directory.open(manifest.version)
    assert stored.manifest == manifest
    dense = stored.group("learner")["dense"]
    assert dense.tolist() == [1.0] * 5
    assert type(dense) is np.ndarray
    assert not dense.flags.writeable
    assert stored.group("learner")["none"].shape == (0, 3)
    assert stored.blob("items.faiss") == b"index"
    with pytest.raises(ModelDamaged, match=r"holds no learner\.faiss"):
        stored.blob("learner.faiss")


def test_nothing_is_current_until_it_is_pointed_at(directory: ModelDirectory) -> None:
    assert directory.current() is None
    with pytest.raises(ModelNotFound, match="nothing was trained for tenant 'default'"):
        directory.open()
    first, second = save(directory, 1.0), save(directory, 2.0)
    assert directory.current() is None
    directory.point(first.version)
    assert directory.open().manifest == first
    directory.point(second.version)
    assert directory.open().arrays["learner.dense"][0] == 2.0
    assert directory.versions() == [first.version, second.version]
    assert [first.number, second.number] == [1, 2]


@pytest.mark.parametrize("damage", ["flipped", "short", "missing"])
def test_a_damaged_file_is_named_and_other_versions_stay(directory: ModelDirectory, damage: str) -> None:
    good, bad = save(directory, 1.0), save(directory, 2.0)
    path = directory.path / bad.version / "learner.dense.npy"
    content = path.read_bytes()
    if damage == "flipped":
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif damage == "short":
        path.write_bytes(content[:-1])
    else:
        path.unlink()
    with pytest.raises(ModelDamaged, match=r"learner\.dense\.npy"):
        directory.open(bad.version)
    assert directory.open(good.version).manifest == good


def test_a_version_that_was_only_half_written_does_not_exist(
    directory: ModelDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(models, "write_file", fails)
        with pytest.raises(OSError, match="disk full"):
            save(directory)
    assert directory.versions() == []
    assert list(directory.path.glob(".partial*")) == []


def test_leftovers_of_a_killed_training_are_cleared(directory: ModelDirectory) -> None:
    (directory.path / ".partial-version").mkdir(parents=True)
    (directory.path / ".partial-version" / "half.npy").write_bytes(b"x")
    manifest = save(directory)
    assert sorted(entry.name for entry in directory.path.iterdir()) == ["train.lock", manifest.version]


def test_one_training_at_a_time(directory: ModelDirectory) -> None:
    with directory.exclusively(), pytest.raises(ModelBusy), directory.exclusively():
        pass
    save(directory)


def test_versions_that_cannot_be_read_are_refused_with_the_reason(directory: ModelDirectory) -> None:
    manifest = save(directory)
    path = directory.path / manifest.version / "manifest.json"
    record = json.loads(path.read_bytes())

    def rewrite(**changes: object) -> None:
        path.write_text(json.dumps({**record, **changes}))

    rewrite(format=2)
    with pytest.raises(ModelTooNew, match="format 2"):
        directory.open(manifest.version)
    rewrite(files={"../../secret.npy": {"bytes": 1, "sha256": ""}})
    with pytest.raises(ModelDamaged, match="outside"):
        directory.open(manifest.version)
    rewrite(surprise=1)
    with pytest.raises(ModelDamaged, match="surprise"):
        directory.open(manifest.version)
    rewrite(version="v0009-00000000")
    with pytest.raises(ModelDamaged, match="v0009"):
        directory.open(manifest.version)
    path.write_bytes(b"{")
    with pytest.raises(ModelDamaged, match="cannot be read"):
        directory.open(manifest.version)
    path.unlink()
    with pytest.raises(ModelDamaged, match=r"no manifest\.json"):
        directory.point(manifest.version)


def test_an_array_that_is_no_array_is_refused(directory: ModelDirectory) -> None:
    parts = ModelParts(arrays={"a": np.array([object()], object)})
    with directory.exclusively(), pytest.raises(ValueError, match="pickle"):
        directory.write(parts, created_at="", data={}, metrics={}, libraries={})
    with directory.exclusively(), pytest.raises(ValueError, match="cannot name a part"):
        directory.write(ModelParts({"../a": np.zeros(1)}), created_at="", data={}, metrics={}, libraries={})


def test_unknown_versions_and_pointers(directory: ModelDirectory) -> None:
    with pytest.raises(ModelNotFound, match="there is none"):
        directory.point("v0001-00000000")
    manifest = save(directory)
    with pytest.raises(ModelNotFound, match=manifest.version):
        directory.manifest("../../etc")
    (directory.path / "current").write_bytes(b"\xff\x00")
    with pytest.raises(ModelDamaged, match="current"):
        directory.current()
    (directory.path / "current").write_text("../elsewhere")
    with pytest.raises(ModelDamaged, match="elsewhere"):
        directory.open()


def test_pruning_keeps_the_newest_and_the_current(directory: ModelDirectory) -> None:
    manifests = [save(directory, float(value)) for value in range(4)]
    directory.point(manifests[0].version)
    stored = directory.open(manifests[1].version)
    assert directory.prune(keep=1) == [manifests[1].version, manifests[2].version]
    assert directory.versions() == [manifests[0].version, manifests[3].version]
    assert stored.arrays["learner.dense"][0] == 1.0
    with pytest.raises(ValueError, match="keep is 0"):
        directory.prune(keep=0)


def test_tenants_never_share_or_leave_their_directory(tmp_path: Path) -> None:
    tenants = ["default", ".", "..", "a/b", "a%2Fb", "A", "a", "é" * 128, "é" * 127 + "e", "x" * 201]
    paths = [ModelDirectory(tmp_path, tenant).path for tenant in tenants]
    assert len(set(paths)) == len(tenants)
    for path in paths:
        assert path.resolve().parent == tmp_path.resolve() / "models"
        assert len(path.name.encode()) <= 255

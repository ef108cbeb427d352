"""Backups: complete or not there, checked, and put back as they were."""

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from engine.learner import LearnerModel
from store import backup as backups
from store import home, slates
from store.answers import record_answers
from store.api import Partition, StoreCorrupt, StoreError, StoreTooNew, StoreUnavailable
from store.learners import read_answers
from store.records import SlateRecord
from store.replay import replay
from store.stores import Stores, open_stores
from tests.store.answers_world import made_answers

ANN = Partition("t", "ann")


def filled(directory: Path, answers: int = 5) -> Stores:
    stores = open_stores(directory)
    model = LearnerModel.priors()
    stores.state.update(ANN, lambda tx: record_answers(tx, "ann", made_answers(answers), model).outcome)
    slates.write_slate(stores.serving, "t", SlateRecord(slates.slate_id("ann"), "ann", 1.0, 2.0, b"", b"p"))
    return stores


def take(stores: Stores, directory: Path, **more: Path) -> backups.Manifest:
    parts: dict[str, Callable[[Path], object]] = {
        "state": stores.state.backup,
        "serving": stores.serving.backup,
        **{name: partial(shutil.copytree, source) for name, source in more.items()},
    }
    return backups.backup(parts, directory, genie_version="1.2.3", created_at="2026-01-01T00:00:00Z")


def answers_in(directory: Path) -> int:
    stores = open_stores(directory)
    with stores.state.read(ANN) as reader:
        count = read_answers(reader).size
    assert replay(stores.state, "t").differing == 0
    stores.close()
    return count


def test_a_backup_of_a_live_store_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stores = filled(tmp_path / "live")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "v1.bin").write_bytes(b"weights")
    manifest = take(stores, tmp_path / "backup", models=tmp_path / "models")
    assert backups.verify(tmp_path / "backup") == manifest
    assert {file.path.split("/")[0] for file in manifest.files} == {"state", "serving", "models"}
    assert manifest.size_bytes > 0
    monkeypatch.setattr(home, "boot_id", lambda: "another machine")
    assert backups.restore(tmp_path / "backup", tmp_path / "other") == manifest
    assert answers_in(tmp_path / "other") == 5
    assert (tmp_path / "other" / "models" / "v1.bin").read_bytes() == b"weights"
    again = open_stores(tmp_path / "other")
    assert len(slates.list_slates(again.serving, ANN)) == 1
    again.close()
    stores.close()


def test_a_backup_needs_an_empty_place(tmp_path: Path) -> None:
    stores = filled(tmp_path / "live")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    with pytest.raises(StoreError, match="not empty"):
        take(stores, tmp_path / "full")
    (tmp_path / "empty").mkdir()
    take(stores, tmp_path / "empty")
    stores.close()
    with pytest.raises(StoreUnavailable):
        take(stores, tmp_path / "late")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "full", "live"]


def test_restoring_over_a_store_must_be_forced_and_it_must_be_closed(tmp_path: Path) -> None:
    stores = filled(tmp_path / "live", 5)
    take(stores, tmp_path / "backup")
    stores.close()
    other = filled(tmp_path / "target", 9)
    with pytest.raises(StoreError, match="already holds"):
        backups.restore(tmp_path / "backup", tmp_path / "target")
    with pytest.raises(StoreUnavailable, match="in use"):
        backups.restore(tmp_path / "backup", tmp_path / "target", force=True)
    other.close()
    assert answers_in(tmp_path / "target") == 9
    backups.restore(tmp_path / "backup", tmp_path / "target", force=True)
    assert answers_in(tmp_path / "target") == 5
    assert sorted(path.name for path in (tmp_path / "target").iterdir()) == ["serving", "state"]


class Killed(BaseException):
    """As by a signal, between two renames."""


@pytest.mark.parametrize("renames", range(4))
@pytest.mark.parametrize("force", [True, False])
def test_a_restore_killed_between_renames_is_noticed_and_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, force: bool, renames: int
) -> None:
    stores = filled(tmp_path / "live", 5)
    take(stores, tmp_path / "backup")
    stores.close()
    target = tmp_path / "target"
    if force:
        filled(target, 9).close()
    done = 0
    rename = Path.rename

    def counted(path: Path, to: Path) -> Path:
        nonlocal done
        if done == min(renames, 3 if force else 1):
            raise Killed
        done += 1
        return rename(path, to)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", counted)
        with pytest.raises(Killed):
            backups.restore(tmp_path / "backup", target, force=force)
    before = sorted(target.rglob("*"))
    for look in (open_stores, lambda path: home.is_new(path / "state")):
        with pytest.raises(StoreCorrupt, match="an interrupted restore"):
            look(target)
    assert sorted(target.rglob("*")) == before
    backups.restore(tmp_path / "backup", target, force=force)
    assert answers_in(target) == 5
    assert sorted(path.name for path in target.iterdir()) == ["serving", "state"]


def test_what_an_earlier_version_left_of_a_restore_is_noticed(tmp_path: Path) -> None:
    stores = filled(tmp_path / "live", 5)
    take(stores, tmp_path / "backup")
    stores.close()
    target = tmp_path / "target"
    filled(target, 9).close()
    (target / "state").rename(target / "state.replaced")
    shutil.copytree(tmp_path / "backup" / "state", target / "state.restoring")
    with pytest.raises(StoreCorrupt, match="an interrupted restore"):
        open_stores(target)
    assert not (target / "state").exists()
    backups.restore(tmp_path / "backup", target, force=True)
    assert answers_in(target) == 5
    assert sorted(path.name for path in target.iterdir()) == ["serving", "state"]


def test_a_store_opened_while_the_backup_was_copied_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = filled(tmp_path / "live", 5)
    take(stores, tmp_path / "backup")
    stores.close()
    target = tmp_path / "target"
    filled(target, 9).close()
    opened: list[Stores] = []
    copy = shutil.copytree

    def open_meanwhile(source: Path, to: Path, *, symlinks: bool) -> Path:
        if not opened:
            opened.append(open_stores(target))
        return copy(source, to, symlinks=symlinks)

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copytree", open_meanwhile)
        with pytest.raises(StoreUnavailable, match="in use"):
            backups.restore(tmp_path / "backup", target, force=True)
    opened[0].close()
    assert answers_in(target) == 9


def test_a_place_that_cannot_be_looked_into_is_an_error_of_the_store(tmp_path: Path) -> None:
    stores = filled(tmp_path / "live", 5)
    take(stores, tmp_path / "backup")
    stores.close()
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "state").write_text("no directory")
    with pytest.raises(StoreUnavailable, match="could not be put in place"):
        backups.restore(tmp_path / "backup", tmp_path / "target", force=True)


def test_an_interrupted_restore_is_not_finished_by_less(tmp_path: Path) -> None:
    stores = filled(tmp_path / "live", 5)
    take(stores, tmp_path / "backup")
    stores.close()
    target = tmp_path / "target"
    target.mkdir()
    (target / home.RESTORING_FILE).write_text('["experiments", "state"]')
    with pytest.raises(StoreError, match="interrupted restore of experiments, state"):
        backups.restore(tmp_path / "backup", target, force=True)
    (target / home.RESTORING_FILE).write_text("{")
    with pytest.raises(StoreCorrupt, match="damaged"):
        backups.restore(tmp_path / "backup", target, force=True)


def change_manifest(directory: Path, change: Callable[[dict[str, object]], object]) -> None:
    path = directory / backups.MANIFEST
    fields = json.loads(path.read_text())
    change(fields)
    path.write_text(json.dumps(fields))


def test_a_damaged_backup_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    stores = filled(tmp_path / "live")
    take(stores, tmp_path / "good")
    stores.close()

    def damaged(name: str) -> Path:
        return Path(shutil.copytree(tmp_path / "good", tmp_path / name))

    flipped = damaged("flipped") / "state" / "data.mdb"
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(content)
    (damaged("missing") / "serving" / "data.mdb").unlink()
    (damaged("added") / "state" / "extra").write_text("x")
    (damaged("unlisted") / backups.MANIFEST).unlink()
    (damaged("garbled") / backups.MANIFEST).write_text("{")
    change_manifest(damaged("fields"), lambda fields: fields.pop("files"))
    for name, problem in {
        "flipped": "damaged",
        "missing": "missing",
        "added": "not in the manifest",
        "unlisted": "not a backup",
        "garbled": "damaged",
        "fields": "damaged",
    }.items():
        with pytest.raises(StoreCorrupt, match=problem):
            backups.restore(tmp_path / name, tmp_path / "target")
    newer = damaged("newer")
    change_manifest(newer, lambda fields: fields.update(store_format=home.FORMAT + 1))
    with pytest.raises(StoreTooNew, match=r"1\.2\.3"):
        backups.restore(newer, tmp_path / "target")
    assert not (tmp_path / "target").exists()

"""What the files beside a store's data say: lost data, first starts that were killed, who uses it, full disks."""

import errno
import json
import logging
import os
from pathlib import Path

import pytest

from store import home
from store.api import StoreCorrupt, StoreFull, StoreUnavailable
from store.home import is_new
from store.lmdb_store import LmdbStore
from store.lmdb_store import store as lmdb_store
from tests.store.lmdb_world import child, get, line_of, put


def filled(directory: Path, *, durable: bool = True) -> Path:
    """A directory with a closed store in it."""
    store = LmdbStore(directory, durable=durable)
    put(store, b"kept")
    store.close()
    return directory


def record_of(directory: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((directory / home.FORMAT_FILE).read_text())
    return found


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("lost", ["missing", "empty"])
def test_a_store_whose_data_are_lost_is_not_begun_anew(tmp_path: Path, lost: str, earlier: bool) -> None:
    directory = filled(tmp_path / "s")
    if earlier:
        (directory / home.FORMAT_FILE).write_text(json.dumps({"format": 1}))
    data = directory / "data.mdb"
    if lost == "missing":
        data.unlink()
    else:
        os.truncate(data, 0)
    before = sorted(directory.iterdir())
    assert not is_new(directory)
    for _ in range(2):
        with pytest.raises(StoreCorrupt, match=rf"data\.mdb is {lost}: restore a backup"):
            LmdbStore(directory)
    assert sorted(directory.iterdir()) == before


def test_shown_slates_whose_file_is_lost_are_begun_anew(tmp_path: Path) -> None:
    directory = filled(tmp_path / "s", durable=False)
    (directory / "data.mdb").unlink()
    store = LmdbStore(directory, durable=False)
    assert get(store) is None
    store.close()


def test_a_first_start_that_was_killed_is_started_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As by a signal, before there is a file."""

    def die(*_: object, **__: object) -> None:
        raise Killed

    assert is_new(tmp_path / "s")
    with monkeypatch.context() as patch:
        patch.setattr(lmdb_store, "LmdbEnvironment", die)
        with pytest.raises(Killed):
            LmdbStore(tmp_path / "s")
    assert record_of(tmp_path / "s") == {"format": home.FORMAT, "created": False}
    assert is_new(tmp_path / "s")
    assert record_of(filled(tmp_path / "s")) == {"format": home.FORMAT, "created": True}
    assert not is_new(tmp_path / "s")
    (tmp_path / "s" / home.FORMAT_FILE).write_text(json.dumps({"format": home.FORMAT, "created": False}))
    LmdbStore(tmp_path / "s").close()
    assert record_of(tmp_path / "s")["created"] is True


def test_a_store_of_an_earlier_version_opens_as_it_is(tmp_path: Path) -> None:
    directory = filled(tmp_path / "s")
    (directory / home.FORMAT_FILE).write_text(json.dumps({"format": 1}))
    store = LmdbStore(directory)
    assert get(store) == b"kept"
    store.close()


@pytest.mark.parametrize("name", ["lock.mdb", "use.lock"])
@pytest.mark.parametrize("role", ["read_and_wait", "hold_unsynced"])
def test_who_finds_a_lock_file_deleted_while_others_use_the_store_is_refused(
    tmp_path: Path, role: str, name: str
) -> None:
    durable = role == "read_and_wait"
    directory = filled(tmp_path / "s", durable=durable)
    with child(role, directory) as process:
        line_of(process)
        (directory / name).unlink()
        for _ in range(2):
            assert home.in_use(directory)
            with pytest.raises(StoreUnavailable, match=f"{name} was deleted while the store is in use"):
                LmdbStore(directory, durable=durable)
        if name == "lock.mdb":
            (directory / name).write_bytes(b"")
            with pytest.raises(StoreUnavailable, match="deleted while the store is in use"):
                LmdbStore(directory, durable=durable)
        process.kill()
        process.wait()
    assert not home.in_use(directory)
    store = LmdbStore(directory, durable=durable)
    assert get(store) == (b"kept" if durable else b"from a child")
    with child(role, directory) as process:
        line_of(process)
    store.close()


def test_a_store_is_not_opened_again_when_its_lock_file_was_deleted(tmp_path: Path) -> None:
    store = LmdbStore(filled(tmp_path / "s"))
    with child("read_and_wait", tmp_path / "s") as process:
        line_of(process)
        store.environment._reopen()
        (tmp_path / "s" / "lock.mdb").unlink()
        with pytest.raises(StoreUnavailable, match="deleted while the store is in use"):
            store.environment._reopen()
        assert not (tmp_path / "s" / "lock.mdb").exists()
        assert get(store) == b"kept"
    store.close()


def test_a_note_of_earlier_files_or_none_keeps_nobody_out(tmp_path: Path) -> None:
    directory = filled(tmp_path / "s")
    for noted in ("", "{", "[1]", '{"lock.mdb": 1, "data.mdb": 2}'):
        (directory / home.USE_LOCK).write_text(noted)
        store = LmdbStore(directory)
        with child("read_and_wait", directory) as process:
            assert line_of(process) == "reading"
        store.close()


def no_room(*_: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("files_can_be_changed", [True, False])
def test_a_full_disk_keeps_no_store_closed_that_is_there(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    files_can_be_changed: bool,
) -> None:
    for name, durable in (("state", True), ("serving", False)):
        filled(tmp_path / name, durable=durable)
    with monkeypatch.context() as patch:
        patch.setattr(home, "write_file", no_room)
        if not files_can_be_changed:
            patch.setattr(home, "_write_over", no_room)
        for name, durable in (("state", True), ("serving", False)):
            store = LmdbStore(tmp_path / name, durable=durable)
            assert get(store) == b"kept"
            record = tmp_path / name / home.FORMAT_FILE
            assert record.exists() == (durable or files_can_be_changed)
            assert not durable or record_of(tmp_path / name)["created"]
            assert durable or not record.exists() or not record_of(tmp_path / name)["clean"]
            with caplog.at_level(logging.WARNING, "genie.store"):
                store.close()
            told = [one.getMessage() for one in caplog.records]
            assert ("a store was not closed as it should be" in told) == (
                not durable and not files_can_be_changed
            )
            assert not home.in_use(tmp_path / name)
        with pytest.raises(StoreFull, match="No space left"):
            LmdbStore(tmp_path / "new")
    store = LmdbStore(tmp_path / "serving", durable=False)
    assert get(store) == (b"kept" if files_can_be_changed else None)
    store.close()


def test_a_record_is_written_over_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = filled(tmp_path / "s", durable=False)
    monkeypatch.setattr(home, "write_file", no_room)
    store = LmdbStore(directory, durable=False)
    assert record_of(directory)["clean"] is False
    store.close()
    assert record_of(directory)["clean"] is True


def test_a_store_that_cannot_be_synced_is_let_go_and_not_vouched_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LmdbStore(tmp_path / "s", durable=False)
    put(store, b"kept")
    monkeypatch.setattr(store.environment, "sync", no_room)
    store.close()
    assert record_of(tmp_path / "s")["clean"] is False
    assert not home.in_use(tmp_path / "s")
    again = LmdbStore(tmp_path / "s", durable=False)
    assert get(again) == b"kept"
    again.close()


def test_a_store_that_is_used_unsynced_says_so_whoever_looked_first(tmp_path: Path) -> None:
    directory = filled(tmp_path / "s", durable=False)
    assert home.is_vouched_for(directory)
    with child("read_and_wait", directory) as process:
        assert line_of(process) == "reading"
        assert record_of(directory)["clean"] is True
        store = LmdbStore(directory, durable=False)
        assert record_of(directory)["clean"] is False
        process.kill()
        process.wait()
        store.close()
    assert record_of(directory)["clean"] is True

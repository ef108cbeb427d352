"""Full disks: what LMDB tells of them is told as such, and health is not what one small write finds."""

import errno
import os
from pathlib import Path

import lmdb
import pytest

from store.api import StoreFull, StoreUnavailable, Table
from store.lmdb_store import LmdbStore, environment
from store.lmdb_store import room as rooms
from store.lmdb_store.room import Room
from tests.store.lmdb_world import ANN, fill, get, put


def cut_short() -> lmdb.Error:
    """What LMDB raises when the disk took a part of a write."""
    error = lmdb.Error("mdb_txn_commit: Input/output error")
    error.code = errno.EIO  # type: ignore[misc]
    return error


@pytest.mark.parametrize(("full", "kind"), [(True, StoreFull), (False, StoreUnavailable)])
def test_a_write_cut_short_on_a_full_disk_is_one_that_found_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full: bool, kind: type[Exception]
) -> None:
    def refuse(_: object) -> None:
        raise cut_short()

    monkeypatch.setattr(environment, "is_full", lambda directory: full)
    for durable in (True, False):
        store = LmdbStore(tmp_path / str(durable), durable=durable)
        with monkeypatch.context() as patch:
            patch.setattr(store.environment, "write", refuse)
            with pytest.raises(kind):
                put(store, b"x")
            if not durable:
                with pytest.raises(kind):
                    store.together(lambda opened: opened(ANN).put(Table.STATE, b"", b"x"))
        assert get(store) is None
        store.close()


def test_a_disk_is_full_by_what_it_has_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = os.statvfs(tmp_path)
    assert not rooms.is_full(tmp_path / "nowhere")
    for blocks, full in ((0, True), (rooms.LITTLE_BYTES // found.f_frsize + 1, False)):
        fields = list(found)
        fields[4] = blocks
        monkeypatch.setattr(os, "statvfs", lambda _, fields=fields: os.statvfs_result(fields))
        assert rooms.is_full(tmp_path) == full


def test_most_writes_must_find_room_and_then_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True
    monkeypatch.setattr(rooms, "is_full", lambda directory: full)
    room = Room(tmp_path)
    room.check()
    room.committed, room.refused = 5, 4
    room.check()
    room.committed, room.refused = 6, 5
    with pytest.raises(StoreFull, match="1 of the last 2 writes"):
        room.check()
    with pytest.raises(StoreFull, match="no room left on the disk"):
        room.check()
    full = False
    room.check()
    full = True
    room.check()
    room.refused += 1
    with pytest.raises(StoreFull):
        room.check()
    room.committed += 2
    room.check()


def test_a_store_that_refuses_most_writes_is_not_healthy_though_a_small_one_finds_room(
    tmp_path: Path,
) -> None:
    store = LmdbStore(tmp_path / "s", map_bytes=1 << 20, max_bytes=2 << 20)
    with pytest.raises(StoreFull):
        fill(store, 100)
    store.check_writable()
    for _ in range(4):
        with pytest.raises(StoreFull):
            put(store, b"x" * 3_000_000)
    put(store, b"small")
    with pytest.raises(StoreFull, match="4 of the last 5 writes were refused"):
        store.check_writable()
    put(store, b"smaller")
    store.check_writable()
    store.close()

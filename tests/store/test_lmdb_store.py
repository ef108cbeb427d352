"""What only the LMDB back end promises within a process: growth, groups, limits, versions, damaged files."""

import json
import os
import threading
import time
from concurrent.futures import Future
from pathlib import Path

import pytest

from store import home
from store.api import (
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreTooNew,
    StoreUnavailable,
    Table,
    Transaction,
)
from store.lmdb_store import LmdbStore, environment
from tests.store.lmdb_world import ANN, fill, get, put
from tests.waiting import PATIENCE_SECONDS


def test_the_map_grows_while_threads_read(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s", map_bytes=1 << 20)
    put(store, b"y" * 10_000)
    stop = threading.Event()
    wrong: list[object] = []

    def read() -> None:
        while not stop.is_set():
            with store.read(ANN) as outer:
                if outer.get(Table.STATE) != b"y" * 10_000 or get(store) != b"y" * 10_000:
                    wrong.append("value")
            time.sleep(0.001)

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    fill(store, 200)
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert store.statistics().map_bytes >= 8 << 20
    store.close()


def test_the_configured_limit_is_a_limit_and_the_store_goes_on(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s", map_bytes=1 << 20, max_bytes=2 << 20)
    put(store, b"small")
    with pytest.raises(StoreFull, match="2097152 bytes"):
        fill(store, 100)
    assert get(store) == b"small"
    put(store, b"smaller")
    store.check_writable()
    assert get(store) == b"smaller"
    store.close()


def test_one_operation_too_large_does_not_fail_its_group(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s", map_bytes=1 << 20, max_bytes=2 << 20)
    started, go = threading.Event(), threading.Event()

    def wait(tx: Transaction) -> None:
        started.set()
        go.wait(PATIENCE_SECONDS)

    first = store.submit(ANN, wait)
    assert started.wait(PATIENCE_SECONDS)
    futures: list[Future[None]] = []
    for i in range(9):
        size = 9_000_000 if i == 4 else 10
        futures.append(store.submit(ANN, lambda tx, i=i, n=size: tx.put(Table.META, bytes([i]), b"x" * n)))  # type: ignore[misc]
    go.set()
    first.result()
    failures = [future.exception() for future in futures]
    assert [type(failure) for i, failure in enumerate(failures) if i != 4] == [type(None)] * 8
    assert isinstance(failures[4], StoreFull)
    with store.read(ANN) as reader:
        assert [key[0] for key, _ in reader.scan(Table.META)] == [0, 1, 2, 3, 5, 6, 7, 8]
    store.close()


def test_a_group_shares_a_commit(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    before = store.statistics()
    futures = [store.submit(ANN, lambda tx, i=i: tx.put(Table.META, bytes([i]), b"x")) for i in range(200)]  # type: ignore[misc]
    for future in futures:
        future.result()
    after = store.statistics()
    assert after.operations - before.operations == 200
    assert after.commits - before.commits < 100
    assert after.mean_group_size > 2.0
    store.close()


def test_cancelled_operations_do_not_run(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    started, go = threading.Event(), threading.Event()

    def wait(tx: Transaction) -> None:
        started.set()
        go.wait(PATIENCE_SECONDS)

    store.submit(ANN, wait)
    assert started.wait(PATIENCE_SECONDS)
    future = store.submit(ANN, lambda tx: tx.put(Table.STATE, b"", b"x"))
    assert future.cancel()
    go.set()
    put(store, b"y", Table.META)
    assert get(store) is None
    store.close()


def test_close_finishes_what_was_submitted(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    futures = [store.submit(ANN, lambda tx, i=i: tx.put(Table.META, bytes([i]), b"x")) for i in range(100)]  # type: ignore[misc]
    store.close()
    assert all(future.result() is None for future in futures)
    again = LmdbStore(tmp_path / "s")
    with again.read(ANN) as reader:
        assert len(list(reader.scan(Table.META))) == 100
    again.close()


def test_waiting_where_it_would_never_end_is_refused(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    with store.read(ANN), pytest.raises(RuntimeError, match="close the read"):
        store.submit(ANN, lambda tx: None)
    with pytest.raises(RuntimeError, match="another commit"):
        store.update(ANN, lambda tx: store.update(ANN, lambda tx: None))
    put(store, b"fine")
    store.close()


@pytest.mark.parametrize("durable", [True, False])
def test_a_newer_format_is_refused_and_left_alone(tmp_path: Path, durable: bool) -> None:
    store = LmdbStore(tmp_path / "s", durable=durable)
    put(store, b"x")
    store.close()
    path = tmp_path / "s" / home.FORMAT_FILE
    original = path.read_text()
    path.write_text(json.dumps(json.loads(original) | {"format": home.FORMAT + 1}))
    with pytest.raises(StoreTooNew, match=f"format {home.FORMAT + 1}"):
        LmdbStore(tmp_path / "s", durable=durable)
    path.write_text(original)
    store = LmdbStore(tmp_path / "s", durable=durable)
    assert get(store) == b"x"
    store.close()


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"format": "1"}', '{"format": true}', "\0"])
def test_a_damaged_format_file_is_named(tmp_path: Path, content: str) -> None:
    LmdbStore(tmp_path / "s").close()
    (tmp_path / "s" / home.FORMAT_FILE).write_text(content)
    with pytest.raises(StoreCorrupt, match=r"format\.json is damaged"):
        LmdbStore(tmp_path / "s")


def test_data_that_is_not_a_store_is_refused_or_where_allowed_replaced(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "data.mdb").write_bytes(b"something else" * 1000)
    with pytest.raises(StoreCorrupt, match=r"no format\.json"):
        LmdbStore(tmp_path / "s")
    (tmp_path / "s" / home.FORMAT_FILE).write_bytes(home.copied_format())
    with pytest.raises(StoreError, match=r"damaged|failed"):
        LmdbStore(tmp_path / "s")
    store = LmdbStore(tmp_path / "s", durable=False)
    put(store, b"new")
    assert get(store) == b"new"
    store.close()


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="file"):
        LmdbStore(tmp_path / "file")


def test_a_copy_is_consistent_while_writes_go_on(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    stop = threading.Event()

    def write() -> None:
        i = 0
        while not stop.is_set():
            value = str(i).encode()

            def both(tx: Transaction, value: bytes = value) -> None:
                tx.put(Table.STATE, b"", value)
                tx.put(Table.ANSWER, b"", value)

            store.update(ANN, both)
            i += 1

    thread = threading.Thread(target=write)
    thread.start()
    for i in range(5):
        time.sleep(0.02)
        assert store.backup(tmp_path / f"copy-{i}") > 0
    stop.set()
    thread.join()
    store.close()
    for i in range(5):
        copy = LmdbStore(tmp_path / f"copy-{i}")
        with copy.read(ANN) as reader:
            assert reader.get(Table.STATE) == reader.get(Table.ANSWER)
        copy.close()
    with pytest.raises(StoreUnavailable):
        store.backup(tmp_path / "late")


def test_files_are_private(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    put(store, b"x")
    assert {
        oct(path.stat().st_mode & 0o077) for path in (tmp_path / "s").iterdir() if "mdb" in path.name
    } == {"0o0"}
    assert os.access(tmp_path / "s" / "data.mdb", os.R_OK)
    store.close()


def test_a_read_left_open_stops_growth_with_an_error_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "READERS_LEAVE_SECONDS", 0.2)
    store = LmdbStore(tmp_path / "s", map_bytes=1 << 20)
    put(store, b"x")
    opened, done = threading.Event(), threading.Event()

    def hold() -> None:
        with store.read(ANN) as reader:
            opened.set()
            done.wait(PATIENCE_SECONDS)
            assert reader.get(Table.STATE) == b"x"

    thread = threading.Thread(target=hold)
    thread.start()
    assert opened.wait(PATIENCE_SECONDS)
    futures = [store.submit(ANN, lambda tx: tx.put(Table.META, b"", b"x" * 3_000_000)) for _ in range(9)]
    assert {type(future.exception()) for future in futures} == {StoreUnavailable}
    put(store, b"x")
    done.set()
    thread.join()
    put(store, b"x" * 3_000_000, Table.META)
    store.close()


def test_only_the_serving_store_does_without_the_disk(tmp_path: Path) -> None:
    for durable in (True, False):
        store = LmdbStore(tmp_path / str(durable), durable=durable)
        flags = store.environment.flags()
        assert (flags["sync"], flags["metasync"], flags["lock"], flags["writemap"]) == (
            durable,
            durable,
            True,
            False,
        )
        store.close()


def test_closing_under_an_open_read_fails_the_read_and_nothing_else(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    put(store, b"x")
    opened, closed = threading.Event(), threading.Event()
    seen: list[object] = []

    def hold() -> None:
        try:
            with store.read(ANN) as reader:
                opened.set()
                closed.wait(PATIENCE_SECONDS)
                seen.append(reader.get(Table.STATE))
        except StoreUnavailable as error:
            seen.append(error)

    thread = threading.Thread(target=hold)
    thread.start()
    assert opened.wait(PATIENCE_SECONDS)
    store.close()
    closed.set()
    thread.join()
    assert [type(one) for one in seen] == [StoreUnavailable]
    again = LmdbStore(tmp_path / "s")
    assert get(again) == b"x"
    again.close()


def test_a_file_that_was_cut_off_is_refused_and_not_read_to_the_death_of_the_process(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    fill(store, 200)
    store.close()
    file = tmp_path / "s" / "data.mdb"
    os.truncate(file, file.stat().st_size // 4)
    with pytest.raises(StoreCorrupt, match=r"data\.mdb was cut off"):
        LmdbStore(tmp_path / "s")

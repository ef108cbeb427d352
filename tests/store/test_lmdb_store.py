"""What only the LMDB back end promises: crashes, several processes, growth, a full disk, versions, forks."""

import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from store import home
from store.api import (
    Partition,
    StoreCorrupt,
    StoreError,
    StoreFull,
    StoreTooNew,
    StoreUnavailable,
    Table,
    Transaction,
)
from store.learners import read_answers
from store.lmdb_store import LmdbStore, environment
from store.replay import replay

ANN = Partition("t", "ann")
ROOT = Path(__file__).parents[2]


@contextmanager
def child(role: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """A process of tests.store.children, killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.store.children", role, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def out(process: "subprocess.Popen[str]") -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def line_of(process: "subprocess.Popen[str]") -> str:
    line = out(process).readline()
    assert line, "the child process ended early"
    return line.rstrip("\n")


def tell(process: "subprocess.Popen[str]", text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


def put(store: LmdbStore, value: bytes, table: Table = Table.STATE, key: bytes = b"") -> None:
    store.update(ANN, lambda tx: tx.put(table, key, value))


def fill(store: LmdbStore, count: int) -> None:
    for i in range(count):
        put(store, b"x" * 40_000, Table.META, i.to_bytes(2, "big"))


def get(store: LmdbStore) -> bytes | None:
    with store.read(ANN) as reader:
        return reader.get(Table.STATE)


def test_kill_9_loses_nothing_acknowledged_and_doubles_nothing(tmp_path: Path) -> None:
    acknowledged: dict[str, set[str]] = {"ann": set(), "bob": set(), "eve": set()}
    survivor = LmdbStore(tmp_path / "s", map_bytes=1 << 20)
    for round_ in range(2):
        with child("record_until_killed", tmp_path / "s", round_) as process:
            assert line_of(process) == "ready"
            for i in range(30 + 13 * round_):
                learner_id, *ids = line_of(process).split()
                acknowledged[learner_id].update(ids)
                survivor.update(ANN, lambda tx, i=i: tx.put(Table.META, b"", bytes([i])))  # type: ignore[misc]
            process.kill()
            for line in out(process):
                if line.endswith("\n"):
                    learner_id, *ids = line.split()
                    acknowledged[learner_id].update(ids)
        survivor.check_writable()
        check_acknowledged(survivor, acknowledged)
    survivor.close()
    store = LmdbStore(tmp_path / "s")
    check_acknowledged(store, acknowledged)
    store.close()


def check_acknowledged(store: LmdbStore, acknowledged: dict[str, set[str]]) -> None:
    for learner_id, wanted in acknowledged.items():
        with store.read(Partition("t", learner_id)) as reader:
            log = read_answers(reader)
        assert len(set(log.answer_id)) == log.size
        assert wanted <= set(log.answer_id)
        assert list(log.sequence) == list(range(1, log.size + 1))
    assert replay(store, "t").differing == 0


def test_two_processes_grow_one_map(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s", map_bytes=1 << 20)
    put(store, b"parent")
    with child("fill", tmp_path / "s", "bob", 60) as one, child("fill", tmp_path / "s", "eve", 60) as two:
        for process in (one, two):
            assert line_of(process) == "ready"
        for process in (one, two):
            tell(process, "go")
        for i in range(60):
            put(store, b"x" * 30_000, Table.META, i.to_bytes(2, "big"))
            assert get(store) == b"parent"
        assert [line_of(one), line_of(two)] == ["done", "done"]
    for name, count in (("ann", 60), ("bob", 60), ("eve", 60)):
        with store.read(Partition("t", name)) as reader:
            values = [value for _, value in reader.scan(Table.META)]
        assert values == [b"x" * 30_000] * count
    assert store.statistics().map_bytes > 180 * 30_000
    store.close()


@pytest.mark.parametrize("durable", ["durable", "serving"])
def test_a_read_sees_what_another_process_committed(tmp_path: Path, durable: str) -> None:
    store = LmdbStore(tmp_path / "s", durable=durable == "durable", map_bytes=1 << 20)
    with child("echo", tmp_path / "s", durable) as process:
        assert line_of(process) == "ready"
        for i in range(25):
            put(store, f"parent {i}".encode())
            tell(process, str(i))
            assert line_of(process) == f"parent {i}"
            assert get(store) == f"child {i}".encode()
    store.close()


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
        go.wait(10.0)

    first = store.submit(ANN, wait)
    assert started.wait(10.0)
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


def test_a_full_disk_fails_the_write_and_not_the_process(tmp_path: Path) -> None:
    with child("full_disk", tmp_path / "s") as process:
        assert line_of(process) == "full"
        assert line_of(process) == "b'before' True"
        assert line_of(process) == "still full"
        assert line_of(process) == "works again"


def test_slots_of_killed_readers_are_freed(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    put(store, b"x")
    with child("read_and_wait", tmp_path / "s") as process:
        assert line_of(process) == "reading"
        process.kill()
        process.wait()
    store.environment.drop_dead_readers()
    for i in range(120):
        put(store, bytes([i]) * 30_000)
    assert (tmp_path / "s" / "data.mdb").stat().st_size < 2 << 20
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
        go.wait(10.0)

    store.submit(ANN, wait)
    assert started.wait(10.0)
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


def test_unsynced_data_survive_kill_9(tmp_path: Path) -> None:
    with child("hold_unsynced", tmp_path / "s") as process:
        assert line_of(process) == "written"
    store = LmdbStore(tmp_path / "s", durable=False)
    assert get(store) == b"from a child"
    store.close()


def test_unsynced_data_of_an_earlier_boot_are_thrown_away_unless_closed_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LmdbStore(tmp_path / "s", durable=False)
    put(store, b"closed well")
    store.close()
    monkeypatch.setattr(home, "boot_id", lambda: "a later boot")
    store = LmdbStore(tmp_path / "s", durable=False)
    assert get(store) == b"closed well"
    store.close()
    with child("hold_unsynced", tmp_path / "s") as process:
        assert line_of(process) == "written"
    store = LmdbStore(tmp_path / "s", durable=False)
    assert get(store) is None
    put(store, b"fresh")
    store.close()


def test_nothing_is_thrown_away_while_another_process_uses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with child("hold_unsynced", tmp_path / "s") as process:
        assert line_of(process) == "written"
        monkeypatch.setattr(home, "boot_id", lambda: "a later boot")
        store = LmdbStore(tmp_path / "s", durable=False)
        assert get(store) == b"from a child"
        store.close()
        assert home.in_use(tmp_path / "s")
    assert not home.in_use(tmp_path / "s")


def test_a_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="file"):
        LmdbStore(tmp_path / "file")


def _in_child(store: LmdbStore, answer: "multiprocessing.Queue[str]") -> None:
    calls: list[Callable[[], object]] = [lambda: put(store, b"no"), lambda: get(store)]
    for call in calls:
        try:
            call()
            answer.put("worked")
        except StoreUnavailable:
            answer.put("refused")


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_is_refused(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path / "s")
    put(store, b"x")
    context = multiprocessing.get_context("fork")
    answer: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=_in_child, args=(store, answer))
    process.start()
    assert [answer.get(timeout=10.0), answer.get(timeout=10.0)] == ["refused", "refused"]
    process.join()
    put(store, b"parent goes on")
    assert get(store) == b"parent goes on"
    store.close()


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
            done.wait(20.0)
            assert reader.get(Table.STATE) == b"x"

    thread = threading.Thread(target=hold)
    thread.start()
    assert opened.wait(10.0)
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

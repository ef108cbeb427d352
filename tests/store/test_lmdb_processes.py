"""What the LMDB back end promises across processes: kill -9, shared growth, visibility, a full disk, forks."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from store import home
from store.api import (
    Partition,
    StoreUnavailable,
    Table,
)
from store.learners import read_answers
from store.lmdb_store import LmdbStore
from store.replay import replay
from tests.store.lmdb_world import ANN, child, get, line_of, out, put, tell
from tests.waiting import PATIENCE_SECONDS


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
    assert [answer.get(timeout=PATIENCE_SECONDS), answer.get(timeout=PATIENCE_SECONDS)] == [
        "refused",
        "refused",
    ]
    process.join()
    put(store, b"parent goes on")
    assert get(store) == b"parent goes on"
    store.close()

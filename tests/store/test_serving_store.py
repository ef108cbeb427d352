"""Slates that wait in journals: found at once by all, moved once, whole after kill -9, a full disk, an erasure."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.labels import Labels
from engine.types import NO_ROW
from store import serving_store, slate_journal
from store.api import Partition, Table
from store.records import SlateRecord
from store.serving_store import ServingStore
from store.slate_journal import SUFFIX, UNFINISHED, Waiting
from store.slate_ring import RING
from store.slate_values import NewSlates
from store.slates import (
    erase_slates,
    find_slate,
    keep_slates,
    list_slates,
    settle,
    slate_id,
    slate_ids,
    write_slate,
    write_slates,
)
from store.tallies import Tally, read_sums
from tests.store.lmdb_world import child, line_of, out, tell
from tests.waiting import eventually

ANN, BOB = Partition("t", "ann"), Partition("t", "bob")
NOW = 1_760_000_000.0


@pytest.fixture
def unmoved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is moved unless it is asked for."""
    monkeypatch.setattr(serving_store, "MOVE_SECONDS", 3_600.0)


@pytest.fixture
def store(tmp_path: Path, unmoved: None) -> Iterator[ServingStore]:
    store = ServingStore(tmp_path)
    yield store
    store.close()


def made(number: int, learner_id: str = "ann", size: int = 20) -> SlateRecord:
    payload = number.to_bytes(4, "big") + bytes(size)
    at = NOW + number
    return SlateRecord(slate_id(learner_id), learner_id, at, at + 3600, b"", payload, ("q-1", "q-2"))


def keep(store: ServingStore, *slates: SlateRecord) -> list[SlateRecord]:
    assert write_slates(store, "t", slates) == list(slates)
    return list(slates)


def counted(store: ServingStore, tenant: str = "t") -> tuple[int, int]:
    with store.read(Partition(tenant)) as reader:
        sums = read_sums(reader)
    return sums[Tally.RECOMMENDATIONS], sums[Tally.RECOMMENDED]


def in_tables(store: ServingStore, partition: Partition = ANN) -> int:
    with store.read(partition) as reader:
        return len(list(reader.scan(Table.SLATE)))


def journals(directory: Path) -> list[Path]:
    return [*directory.glob(f"*{SUFFIX}"), *directory.glob(f"*{UNFINISHED}")]


def test_a_slate_that_waits_is_found_and_listed_as_one_in_the_tables(store: ServingStore) -> None:
    moved = keep(store, made(0), made(1, "bob"))
    settle(store)
    waiting = keep(store, made(2), made(3, "bob"), made(4))
    assert (in_tables(store), in_tables(store, BOB)) == (1, 1)
    for _ in range(2):
        assert [find_slate(store, "t", one.recommendation_id) for one in moved + waiting] == moved + waiting
        assert find_slate(store, "other", waiting[0].recommendation_id) is None
        assert find_slate(store, "t", slate_id("ann")) is None
        assert list_slates(store, ANN) == [waiting[2], waiting[0], moved[0]]
        assert list_slates(store, ANN, limit=1) == [waiting[2]]
        settle(store)
    assert (in_tables(store), in_tables(store, BOB), counted(store)) == (3, 2, (5, 10))


def test_names_that_begin_alike_or_join_alike_are_kept_apart(store: ServingStore) -> None:
    (ann, anna) = keep(store, made(0), made(1, "anna"))
    other = SlateRecord(slate_id("nn"), "nn", NOW, NOW + 3600, b"", b"payload")
    assert write_slate(store, "ta", other) == other
    assert list_slates(store, ANN) == [ann]
    assert list_slates(store, Partition("t", "anna")) == [anna]
    assert list_slates(store, Partition("ta", "nn")) == [other]
    assert list_slates(store, Partition("tan", "n")) == []


def test_what_waits_is_moved_by_itself(tmp_path: Path) -> None:
    store = ServingStore(tmp_path)
    keep(store, *(made(number) for number in range(5)))
    eventually(lambda: in_tables(store) == 5)
    assert counted(store) == (5, 10)
    store.close()


def test_a_journal_that_was_full_takes_slates_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slate_journal, "FILE_BYTES", 1 << 12)
    monkeypatch.setattr(serving_store, "COMPACT_BYTES", 1 << 10)
    store = ServingStore(tmp_path)

    def waits(number: int) -> bool:
        name = slate_id("bob").encode()
        return store.let_wait(Waiting(BOB, name, 0, 1, number.to_bytes(4, "big") + bytes(200)))

    for turn in range(3):
        # All that waits is moved before anything else is brought.
        with store._moving:
            taken = sum(waits(number) for number in range(30))
        assert 0 < taken < 30, f"turn {turn}"
        eventually(lambda: waits(0))
    store.close()


def test_a_request_that_is_repeated_finds_its_slate_though_others_wait(store: ServingStore) -> None:
    waiting = keep(store, made(0))
    name = slate_id("ann", b"request")
    first, second = (
        SlateRecord(name, "ann", NOW + after, NOW + 3600, b"digest", bytes([after])) for after in (1, 2)
    )
    assert write_slate(store, "t", first) == write_slate(store, "t", second) == first
    assert list_slates(store, ANN) == [first, *waiting]
    settle(store)
    assert list_slates(store, ANN) == [first, *waiting]


def test_the_ring_keeps_the_newest_of_those_that_wait(store: ServingStore) -> None:
    shown = keep(store, *(made(number) for number in range(RING + 7)))
    assert list_slates(store, ANN) == shown[:6:-1]
    settle(store)
    assert list_slates(store, ANN) == shown[:6:-1]
    assert in_tables(store) == RING
    assert counted(store)[0] == RING + 7


def test_a_closed_store_has_moved_everything_and_keeps_nothing_more(tmp_path: Path, unmoved: None) -> None:
    store = ServingStore(tmp_path)
    shown = keep(store, made(0), made(1, "bob"))
    assert len(journals(tmp_path)) == 1
    store.close()
    assert not journals(tmp_path)
    assert not isinstance(write_slates(store, "t", [made(2)])[0], SlateRecord)
    again = ServingStore(tmp_path)
    assert [find_slate(again, "t", one.recommendation_id) for one in shown] == shown
    with again.read_own() as reader:
        assert not list(reader.scan(Table.MOVED)), "notes about journals that are gone are cleared away"
    again.close()


def test_erasing_a_learner_erases_what_waits(store: ServingStore) -> None:
    keep(store, made(0))
    settle(store)
    (gone, kept) = keep(store, made(1), made(2, "bob"))
    erase_slates(store, ANN)
    for _ in range(2):
        assert find_slate(store, "t", gone.recommendation_id) is None
        assert list_slates(store, ANN) == []
        assert list_slates(store, BOB) == [kept]
        settle(store)


def test_a_backup_holds_what_waits(store: ServingStore, tmp_path: Path) -> None:
    shown = keep(store, made(0))
    store.backup(tmp_path / "copy")
    copy = ServingStore(tmp_path / "copy")
    assert list_slates(copy, ANN) == shown
    copy.close()


def test_a_journal_is_used_again_and_again(store: ServingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slate_journal, "FILE_BYTES", 65_536)
    monkeypatch.setattr(serving_store, "COMPACT_BYTES", 16_384)
    shown: list[SlateRecord] = []
    generations = set()
    for number in range(300):
        shown += keep(store, made(number, f"learner-{number % 40}", size=1_000))
        if number % 7 == 0:
            settle(store)
        if number % 10 == 9:
            own = store._own
            assert own is not None
            assert store._move_own(own)
            generations.add(own.state()[0])
    assert len(generations) > 10
    assert [find_slate(store, "t", one.recommendation_id) for one in shown] == shown
    settle(store)
    assert counted(store) == (300, 600)


def test_when_the_journal_is_full_slates_are_written_at_once(
    store: ServingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slate_journal, "FILE_BYTES", 8_192)
    shown = keep(store, *(made(number, size=1_000) for number in range(20)))
    assert 0 < in_tables(store) < 20
    assert list_slates(store, ANN) == shown[::-1]
    settle(store)
    assert list_slates(store, ANN) == shown[::-1]


def test_on_a_full_disk_slates_are_written_without_a_journal(
    store: ServingStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "posix_fallocate", full)
    shown = keep(store, made(0), made(1))
    assert (in_tables(store), journals(tmp_path)) == (2, [])
    monkeypatch.undo()
    assert list_slates(store, ANN) == shown[::-1]


def test_learners_that_cannot_be_stored_do_not_get_into_the_journal(store: ServingStore) -> None:
    with pytest.raises(ValueError, match="NUL"):
        write_slate(store, "t", made(0, "a\0b"))
    keep(store, made(1))
    settle(store)
    assert in_tables(store) == 1


def test_slates_that_wait_elsewhere_are_found_moved_and_erased(tmp_path: Path, unmoved: None) -> None:
    with child("let_slates_wait", tmp_path) as process:
        ids = line_of(process).split()
        store = ServingStore(tmp_path)
        mine = keep(store, made(99))
        found = [find_slate(store, "t", one) for one in ids]
        assert [one and one.recommendation_id for one in found] == ids
        assert [one.recommendation_id for one in list_slates(store, ANN)] == [
            mine[0].recommendation_id,
            *ids[8::-2],
        ]
        erase_slates(store, ANN)
        for order in ("move", "look"):
            tell(process, order)
            assert line_of(process) == "0 5", "slates of ann and bob, as the other process finds them"
        assert [one.recommendation_id for one in list_slates(store, BOB)] == ids[9::-2]
        settle(store)
        assert list_slates(store, ANN) == []
        assert counted(store) == (11, 12)
        store.close()


def test_each_is_found_at_once_while_another_process_moves_and_brings_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving_store, "COMPACT_BYTES", 8_192)
    store = ServingStore(tmp_path)
    with child("press", tmp_path, 1_500) as process:
        for number, line in enumerate(out(process)):
            recommendation_id, name = line.split()
            assert find_slate(store, "t", recommendation_id) is not None
            if number % 5 == 0:
                listed = list_slates(store, Partition("t", name))
                assert recommendation_id in {slate.recommendation_id for slate in listed}
            if number % 30 == 0:
                settle(store)
        process.wait()
    settle(store)
    assert number == 1_499
    assert counted(store) == (1_500, 1_500)
    assert not journals(tmp_path)
    store.close()


@pytest.mark.parametrize("moved", [False, True])
def test_what_a_killed_process_left_waiting_is_taken_in_once(
    tmp_path: Path, unmoved: None, moved: bool
) -> None:
    with child("let_slates_wait", tmp_path) as process:
        ids = line_of(process).split()
        if moved:
            tell(process, "move")
            assert line_of(process) == "5 5"
            tell(process, "more")
            ids += line_of(process).split()
        process.kill()
        process.wait()
    assert len(journals(tmp_path)) == 1
    for _ in range(2):
        store = ServingStore(tmp_path)
        assert all(find_slate(store, "t", one) for one in ids)
        assert in_tables(store) + in_tables(store, BOB) == len(ids)
        assert counted(store) == (len(ids), len(ids))
        assert not journals(tmp_path)
        store.close()


def test_a_journal_whose_file_is_gone_is_not_moved_again(tmp_path: Path, unmoved: None) -> None:
    with child("let_slates_wait", tmp_path) as process:
        ids = line_of(process).split()
        store = ServingStore(tmp_path)
        listed = store._journals()
        settle(store)
        process.kill()
        process.wait()
    erase_slates(store, ANN)
    for path in journals(tmp_path):
        path.unlink()
    store._take_over()
    with store.read_own() as reader:
        assert not list(reader.scan(Table.MOVED))
    # As by one that had looked for journals a moment before.
    store.together(lambda opened: serving_store._move(opened, listed, None))
    assert not any(find_slate(store, "t", one) for one in ids[::2])
    assert counted(store) == (10, 10)
    store.close()


def test_a_journal_that_was_cut_off_is_read_as_far_as_it_goes(tmp_path: Path, unmoved: None) -> None:
    with child("let_slates_wait", tmp_path) as process:
        ids = line_of(process).split()
        process.kill()
        process.wait()
    (path,) = journals(tmp_path)
    os.truncate(path, 1_024)
    store = ServingStore(tmp_path)
    found = [find_slate(store, "t", one) is not None for one in ids]
    assert found == sorted(found, reverse=True)
    assert 0 < sum(found) < 10
    store.close()


def test_what_is_torn_in_a_journal_is_left_out(tmp_path: Path, unmoved: None) -> None:
    with child("let_slates_wait", tmp_path) as process:
        ids = line_of(process).split()
        process.kill()
        process.wait()
    (path,) = journals(tmp_path)
    content = path.read_bytes()
    at = content.index(ids[-1].encode()) + 40
    path.write_bytes(content[:at] + b"\xff\xff\xff" + content[at + 3 :])
    (tmp_path / f"junk{SUFFIX}").write_bytes(b"no journal")
    (tmp_path / f"unfinished{UNFINISHED}").write_bytes(b"")
    os.utime(tmp_path / f"unfinished{UNFINISHED}", (1.0, 1.0))
    store = ServingStore(tmp_path)
    found = [find_slate(store, "t", one) is not None for one in ids]
    assert found == [True] * 9 + [False]
    assert not journals(tmp_path)
    store.close()


def test_of_slates_kept_together_those_without_room_in_the_journal_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slate_journal, "FILE_BYTES", 1 << 11)
    monkeypatch.setattr(serving_store, "MOVE_SECONDS", 3_600.0)
    store = ServingStore(tmp_path)
    learner_ids = [f"learner-{number}" for number in range(12)]
    labels = Labels(3)
    rows = np.array([[2, 0]] * 11 + [[1, NO_ROW]], np.uint32)
    shelf = labels.holding([0, 1, 2], lambda row: (b"q-%d" % row, b"else"))
    for digest in (b"", b"digest"):
        ids = slate_ids(learner_ids)
        named = np.frombuffer(
            "".join(f"{one}{owner}c" for one, owner in zip(ids, learner_ids, strict=True)).encode(), np.uint8
        )
        payloads = np.arange(12 * 40, dtype=np.uint16).view(np.uint8)
        new = NewSlates(
            *(
                *(learner_ids, ids, NOW, NOW + 60.0, digest, ["c"] * 12, 0, np.frombuffer(named, np.uint8)),
                *(list(map(len, learner_ids)), [1] * 12, payloads),
            ),
            *(3, 80, [70] * 12, rows, [2] * 11 + [1], shelf),
        )
        assert keep_slates(store, "t", new) == [None] * 12
        tables = [in_tables(store, Partition("t", learner_id)) for learner_id in learner_ids]
        assert tables == sorted(tables)
        assert (tables[0], tables[-1]) == ((0, 1) if not digest else (1, 2))
        found = [find_slate(store, "t", one) for one in ids]
        assert found == [
            SlateRecord(
                *(one, learner_id, NOW, NOW + 60.0, digest, payloads[3 + 80 * place :][:70].tobytes()),
                question_ids=("q-2", "q-0") if place < 11 else ("q-1",),
                correlation_id="c",
            )
            for place, (one, learner_id) in enumerate(zip(ids, learner_ids, strict=True))
        ]
    store.close()

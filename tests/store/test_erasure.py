"""What is made of a learner who is erased meanwhile: not found, not kept, and nothing else is lost by it."""

import dataclasses
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from engine.types import LearnerProfile
from store import serving_store
from store.api import Partition, Reader, Store, Table
from store.erasures import NOTE_SECONDS, erasure_of
from store.experiment_meetings import Meeting, find_meeting, keep_meeting
from store.learners import create_profile, read_profile
from store.lmdb_store import LmdbStore
from store.memory_store import MemoryStore
from store.recount import erase_noted, recount
from store.serving_store import ServingStore
from store.slates import erase_slates, find_slate, list_slates, settle, write_slates
from tests.store.lmdb_world import child, line_of, tell
from tests.store.test_serving_store import ANN, BOB, NOW, counted, in_tables, keep, made


@pytest.fixture
def unmoved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is moved unless it is asked for."""
    monkeypatch.setattr(serving_store, "MOVE_SECONDS", 3_600.0)


@pytest.fixture
def store(tmp_path: Path, unmoved: None) -> Iterator[ServingStore]:
    store = ServingStore(tmp_path)
    yield store
    store.close()


@pytest.mark.parametrize("digest", [b"", b"digest"], ids=["waits", "is written at once"])
def test_a_slate_made_before_an_erasure_and_kept_after_it_is_gone(store: ServingStore, digest: bytes) -> None:
    erase_slates(store, ANN, up_to=NOW + 5)
    early, late, other = (
        dataclasses.replace(made(number, name), request_digest=digest)
        for number, name in ((5, "ann"), (6, "ann"), (5, "bob"))
    )
    keep(store, early, other)
    for _ in range(2):
        assert find_slate(store, "t", early.recommendation_id) is None
        assert list_slates(store, ANN) == []
        assert list_slates(store, BOB) == [other]
        settle(store)
    assert in_tables(store) == 0
    with store.read(Partition("t")) as reader:
        assert [learner for _, learner in reader.scan(Table.SLATE_OWNER)] == [b"bob"]
    keep(store, late)
    for _ in range(2):
        assert find_slate(store, "t", late.recommendation_id) == late
        assert list_slates(store, ANN) == [late]
        settle(store)
    assert counted(store) == (3, 6)


def test_what_waits_in_another_process_when_its_learner_is_erased_never_shows(
    tmp_path: Path, unmoved: None
) -> None:
    with child("let_slates_wait", tmp_path) as process:
        line_of(process)
        store = ServingStore(tmp_path)
        erase_slates(store, ANN, up_to=NOW + 100)
        tell(process, "more")
        ids = line_of(process).split()
        for _ in range(2):
            assert [find_slate(store, "t", one) is None for one in ids] == [True, False] * 5
            tell(process, "move")
            assert line_of(process) == "0 10"
        store.close()


def test_erasures_are_noted_for_a_while_without_the_names_of_learners(store: ServingStore) -> None:
    def noted() -> list[tuple[bytes, bytes]]:
        with store.read(Partition("t")) as reader:
            return list(reader.scan(Table.ERASED))

    erase_slates(store, ANN, up_to=NOW)
    erase_slates(store, ANN, up_to=NOW - 5)
    keep(store, made(0))
    assert list_slates(store, ANN) == [], "the later one counts"
    for number in range(200):
        erase_slates(store, Partition("t", f"learner-{number}"), up_to=NOW)
    held = noted()
    assert len(held) == 201
    assert not [entry for entry in held if b"ann" in b"".join(entry) or b"learner" in b"".join(entry)]
    for number in range(200):
        erase_slates(store, Partition("t", f"other-{number}"), up_to=NOW + NOTE_SECONDS + 1.0)
    assert len(set(noted()) & set(held)) < 20


def test_while_an_erasure_goes_on_no_slate_is_kept(store: ServingStore) -> None:
    assert erase_slates(store, ANN, up_to=NOW, until=NOW + 60, known=False) == 0
    first = keep(store, made(1))[0]
    assert find_slate(store, "t", first.recommendation_id) == first, (
        "of whom nothing is held, nothing is noted"
    )
    assert erase_slates(store, ANN, up_to=NOW + 2, until=NOW + 60, known=False) > 0
    during = keep(store, made(5), dataclasses.replace(made(8), request_digest=b"digest"))
    for _ in range(2):
        assert list_slates(store, ANN) == []
        assert [find_slate(store, "t", slate.recommendation_id) for slate in (first, *during)] == [None] * 3
        settle(store)
    erase_slates(store, ANN, up_to=NOW + 10)
    late = keep(store, made(10), made(11))[1]
    assert list_slates(store, ANN) == [late]


def test_a_meeting_with_an_experiment_is_not_remembered_past_an_erasure(store: ServingStore) -> None:
    erase_slates(store, ANN, up_to=NOW)
    keep_meeting(store, ANN, "x", Meeting(0, True), at=NOW)
    assert find_meeting(store, ANN, "x") is None
    keep_meeting(store, ANN, "x", Meeting(0, True), at=NOW + 1.0)
    assert find_meeting(store, ANN, "x") == Meeting(0, True)


def test_a_move_looks_for_erasures_of_learners_only_where_a_tenant_has_any(
    store: ServingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def looked(reader: Reader, learner_id: str) -> float:
        asked.append(learner_id)
        return erasure_of(reader, learner_id)

    monkeypatch.setattr(serving_store, "erasure_of", looked)
    keep(store, made(0), made(1, "bob"))
    settle(store)
    assert (asked, in_tables(store), in_tables(store, BOB)) == ([], 1, 1)
    erase_slates(store, ANN, up_to=NOW + 5)
    keep(store, made(2), made(3, "bob"))
    assert write_slates(store, "other", [made(4, "cleo")])
    settle(store)
    assert (sorted(asked), in_tables(store), in_tables(store, BOB)) == (["ann", "bob"], 0, 2)
    assert in_tables(store, Partition("other", "cleo")) == 1


@pytest.mark.parametrize("kind", ["memory", "lmdb"])
def test_erasing_a_learner_is_noted_in_the_same_transaction(tmp_path: Path, kind: str) -> None:
    store: Store = MemoryStore() if kind == "memory" else LmdbStore(tmp_path / "state")

    def erase(partition: Partition, *, known: bool = False) -> int:
        work = partial(erase_noted, learner_id=partition.learner_id, now=NOW, known=known)
        return store.submit_bulk([Partition("t"), partition], work).result()

    def noted(learner_id: str) -> float:
        with store.read(Partition("t")) as reader:
            return erasure_of(reader, learner_id)

    assert erase(ANN) == 0
    assert store.tenants() == [], "of whom nothing is held, nothing is noted"
    profile = LearnerProfile("ann", created_at=NOW)
    store.update(ANN, lambda tx: create_profile(tx, profile))
    before = time.time()
    assert erase(ANN) == 1
    assert before <= noted("ann") <= time.time()
    assert (erase(ANN), erase(BOB, known=True)) == (0, 0)
    assert noted("bob") >= noted("ann") >= before
    with store.read(ANN) as reader:
        assert read_profile(reader) is None
    assert recount(store, "t").agrees
    store.close()

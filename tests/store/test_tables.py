"""Typed access: profiles, sessions, feedback, catalogues, remembered requests, slates, erasing."""

import base64
import dataclasses
import random
import secrets
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.learner import DEFAULT_WEIGHTS, LearnerModel
from engine.types import Concept, LearnerProfile, Prerequisite, Question
from store import catalogs, codec, learners, requests, slates
from store.answers import record_answers
from store.api import IdempotencyKeyReused, Partition, Table, Transaction
from store.memory_store import MemoryStore
from store.records import FeedbackEvent, Session, SlateRecord
from store.slate_ring import RING
from store.slates import erase_slates
from store.stores import Stores, memory_stores, open_stores
from tests.store.answers_world import made_answers

ANN = Partition("t", "ann")
TENANT = Partition("t")
NOW = 1_760_000_000.0


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def test_profiles(store: MemoryStore) -> None:
    with store.read(ANN) as reader:
        assert learners.read_profile(reader) is None
    profile = LearnerProfile("ann", "Ann", labels={"class": "7b"})
    store.update(ANN, lambda tx: learners.write_profile(tx, profile))
    with store.read(ANN) as reader:
        assert learners.read_profile(reader) == profile


def test_a_learner_without_answers_has_the_empty_state(store: MemoryStore) -> None:
    with store.read(ANN) as reader:
        assert learners.read_state(reader, LearnerModel.priors().memory_sets).applied == 0
        assert learners.last_sequence(reader) == 0


def test_sessions_start_once_and_are_listed_newest_first(store: MemoryStore) -> None:
    def start(session: Session, *, timed: bool = True) -> tuple[Session, bool]:
        return store.update(ANN, lambda tx: learners.start_session(tx, session, timed=timed))

    old, new = Session("s/1", NOW, device=1), Session("s/2", NOW + 0.000002, first_sequence=4)
    assert start(new) == (new, False)
    assert start(old) == (old, False)
    assert start(old) == (old, True)
    assert start(dataclasses.replace(old, started_at=NOW + 9), timed=False) == (old, True)
    with pytest.raises(IdempotencyKeyReused, match="s/1"):
        start(dataclasses.replace(old, started_at=NOW + 9))
    with pytest.raises(IdempotencyKeyReused):
        start(dataclasses.replace(old, device=2))
    ended = dataclasses.replace(new, ended_at=NOW + 60, summary=b"fine")
    store.update(ANN, lambda tx: learners.write_session(tx, ended))
    with store.read(ANN) as reader:
        assert learners.list_sessions(reader) == [ended, old]
        assert learners.list_sessions(reader, limit=1) == [ended]
        assert learners.read_session(reader, "s/2") == ended
        assert learners.read_session(reader, "s/3") is None


def test_feedback_is_counted_once(store: MemoryStore) -> None:
    event = FeedbackEvent("e", "r", "q", 1, NOW)
    later = dataclasses.replace(event, event_id="f", happened_at=NOW - 5)
    other = dataclasses.replace(event, kind=2)

    def record(events: list[FeedbackEvent]) -> list[str]:
        outcomes = store.update(ANN, lambda tx: learners.record_feedback(tx, events))
        return [outcome.name for outcome in outcomes]

    assert record([event, event, later]) == ["RECORDED", "DUPLICATE", "RECORDED"]
    assert record([dataclasses.replace(event, received_at=NOW + 1), other]) == ["DUPLICATE", "REUSED"]
    with store.read(ANN) as reader:
        assert learners.read_feedback(reader) == [later, event]


def concept(concept_id: str, *before: str, title: str = "") -> Concept:
    return Concept(concept_id, 99, title, prerequisites=tuple(Prerequisite(name) for name in before))


def upsert(store: MemoryStore, *concepts: Concept, now: float = NOW) -> "catalogs.Upserted[Concept]":
    return store.update(TENANT, lambda tx: catalogs.upsert_concepts(tx, concepts, now=now))


def test_concepts_get_rows_in_order_and_keep_them(store: MemoryStore) -> None:
    first = upsert(store, concept("b"), concept("a", "b"))
    assert [(c.concept_id, c.row) for c in first.entries] == [("b", 0), ("a", 1)]
    assert (first.created, first.updated, first.unchanged, first.version) == (2, 0, 0, 1)
    same = upsert(store, concept("b"), now=NOW + 5)
    assert (same.unchanged, same.version) == (1, 1)
    assert same.entries[0].updated_at == NOW
    changed = upsert(store, concept("b", title="B"), concept("c"), now=NOW + 9)
    assert (changed.created, changed.updated, changed.version) == (1, 1, 2)
    assert changed.entries[0] == dataclasses.replace(
        concept("b", title="B"), row=0, created_at=NOW, updated_at=NOW + 9
    )
    with store.read(TENANT) as reader:
        assert [c.concept_id for c in catalogs.list_concepts(reader, limit=9)] == ["a", "b", "c"]
        assert [c.concept_id for c in catalogs.list_concepts(reader, after="a", limit=1)] == ["b"]
        assert catalogs.concept_rows(reader, ["c", "nope", "a"]) == [2, None, 1]


def test_a_deleted_concept_keeps_its_row_and_comes_back_to_it(store: MemoryStore) -> None:
    upsert(store, concept("a"), concept("b"), concept("c"))
    assert store.update(TENANT, lambda tx: catalogs.delete_concepts(tx, ["b", "b", "nope"], now=NOW)) == 1
    with store.read(TENANT) as reader:
        assert catalogs.get_concept(reader, "b") is None
        assert [c.concept_id for c in catalogs.list_concepts(reader, limit=9)] == ["a", "c"]
        loaded = catalogs.load_catalog(reader)
        assert [(c.concept_id, c.row) for c in loaded.concepts] == [("a", 0), ("c", 2)]
        assert loaded.concept_ids == ["a", "b", "c"]
        counts = catalogs.read_counts(reader)
        assert (counts.concepts, counts.concept_rows, counts.version) == (2, 3, 2)
    again = upsert(store, concept("d"), concept("b"), now=NOW + 1)
    assert [(c.concept_id, c.row) for c in again.entries] == [("d", 3), ("b", 1)]
    assert again.created == 2
    assert store.update(TENANT, lambda tx: catalogs.delete_concepts(tx, ["nope"], now=NOW)) == 0
    with store.read(TENANT) as reader:
        assert catalogs.read_counts(reader).version == 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans()), max_size=30))
def test_rows_are_never_reused_nor_moved(steps: list[tuple[str, bool]]) -> None:
    store = MemoryStore()
    rows: dict[str, int] = {}
    alive: set[str] = set()
    for name, remove in steps:
        if remove:
            gone = store.update(TENANT, lambda tx, n=name: catalogs.delete_questions(tx, [n], now=NOW))  # type: ignore[misc]
            assert gone == int(name in alive)
            alive.discard(name)
        else:
            question = Question(name, 0, (1, 2), text=name)
            done = store.update(TENANT, lambda tx, q=question: catalogs.upsert_questions(tx, [q], now=NOW))  # type: ignore[misc]
            assert done.entries[0].row == rows.setdefault(name, len(rows))
            alive.add(name)
    with store.read(TENANT) as reader:
        loaded = catalogs.load_catalog(reader)
        assert {q.question_id for q in loaded.questions} == alive
        assert {name: row for row, name in enumerate(loaded.question_ids)} == rows
        assert [q.question_id for q in catalogs.list_questions(reader, limit=99)] == sorted(alive)
        counts = catalogs.read_counts(reader)
        assert (counts.questions, counts.question_rows) == (len(alive), len(rows))
        assert all((catalogs.get_question(reader, name) is not None) == (name in alive) for name in rows)


def test_one_call_may_name_a_concept_twice(store: MemoryStore) -> None:
    done = upsert(store, concept("a", title="1"), concept("a", title="2"))
    assert [c.row for c in done.entries] == [0, 0]
    with store.read(TENANT) as reader:
        found = catalogs.get_concept(reader, "a")
        assert found is not None
        assert found.title == "2"
        assert catalogs.read_counts(reader).concepts == 1


def test_memory_sets_are_numbered_and_kept(store: MemoryStore) -> None:
    with store.read(TENANT) as reader:
        np.testing.assert_array_equal(catalogs.read_memory_sets(reader), np.reshape(DEFAULT_WEIGHTS, (1, -1)))
    other = np.asarray(DEFAULT_WEIGHTS, np.float64) * 1.1
    for _ in range(2):
        assert store.update(TENANT, lambda tx: catalogs.append_memory_set(tx, other)) == 1
    assert store.update(TENANT, lambda tx: catalogs.append_memory_set(tx, other * 2)) == 2
    assert store.update(TENANT, lambda tx: catalogs.append_memory_set(tx, np.asarray(DEFAULT_WEIGHTS))) == 0
    with store.read(TENANT) as reader:
        assert catalogs.read_memory_sets(reader).shape == (3, 21)


def test_a_request_happens_once(store: MemoryStore) -> None:
    calls: list[int] = []

    def call(
        request_id: str, fingerprint: bytes = b"f", now: float = NOW, method: str = "SetGoal"
    ) -> tuple[bytes, bool]:
        def operation(tx: Transaction) -> tuple[bytes, bool]:
            def compute() -> bytes:
                calls.append(1)
                tx.put(Table.META, b"", str(len(calls)).encode())
                return f"result {len(calls)}".encode()

            return requests.once(tx, method, request_id, fingerprint, compute, now=now)

        return store.update(ANN, operation)

    assert call("a") == (b"result 1", False)
    assert call("a") == (b"result 1", True)
    assert call("a", method="EndSession") == (b"result 2", False)
    with pytest.raises(IdempotencyKeyReused, match="SetGoal"):
        call("a", b"other")
    assert call("") == (b"result 3", False)
    assert call("") == (b"result 4", False)
    soon, late = NOW + (requests.KEEP_DAYS - 0.01) * 86_400, NOW + (requests.KEEP_DAYS + 0.01) * 86_400
    assert call("a", now=soon) == (b"result 1", True)
    assert call("a", b"other", now=late) == (b"result 5", False)
    assert call("a", b"other", now=late) == (b"result 5", True)


def test_expired_replies_are_cleared_away_a_few_at_a_time(store: MemoryStore) -> None:
    def call(request_id: str, now: float) -> None:
        store.update(ANN, lambda tx: requests.once(tx, "M", request_id, b"", lambda: b"r", now=now))

    def entries() -> tuple[int, int]:
        with store.read(ANN) as reader:
            return len(list(reader.scan(Table.REQUEST))), len(list(reader.scan(Table.REQUEST_EXPIRY)))

    for i in range(20):
        call(f"old {i}", NOW + i)
    assert entries() == (20, 20)
    for i in range(5):
        call(f"new {i}", NOW + 30 * 86_400)
        assert entries() == (20 - 3 * (i + 1), 20 - 3 * (i + 1))
    call("old 19", NOW + 30 * 86_400)
    with store.read(ANN) as reader:
        held = {key for key, _ in reader.scan(Table.REQUEST)}
        assert {key[8:] for key, _ in reader.scan(Table.REQUEST_EXPIRY)} == held


def slate(recommendation_id: str, learner_id: str = "ann", at: float = NOW) -> SlateRecord:
    return SlateRecord(
        recommendation_id, learner_id, at, at + 3600, b"", b"payload " + recommendation_id.encode()
    )


def test_slates_are_found_by_id_and_listed_newest_first(store: MemoryStore) -> None:
    shown = [slate(slates.slate_id("ann"), at=NOW + i) for i in range(3)]
    for one in shown:
        slates.write_slate(store, "t", one)
    other = slate(slates.slate_id("bob"), "bob")
    slates.write_slate(store, "t", other)
    assert [slates.find_slate(store, "t", one.recommendation_id) for one in (*shown, other)] == [
        *shown,
        other,
    ]
    assert slates.list_slates(store, ANN) == shown[::-1]
    assert slates.list_slates(store, ANN, limit=2) == shown[:0:-1]
    assert slates.list_slates(store, Partition("t", "nobody")) == []
    for unknown in (
        "",
        "x" * 32,
        "é" * 32,
        shown[0].recommendation_id[:16] + "/" * 16,
        "\x00" * 32,
        "a" * 500,
    ):
        assert slates.find_slate(store, "t", unknown) is None
    assert slates.find_slate(store, "other", shown[0].recommendation_id) is None


def test_of_slates_of_the_same_request_the_first_one_stays_while_it_is_held(store: MemoryStore) -> None:
    name = slates.slate_id("ann", b"request 1")
    assert name == slates.slate_id("ann", b"request 1")
    assert len({name, slates.slate_id("ann", b"request 2"), slates.slate_id("bob", b"request 1")}) == 3
    assert slates.slate_id("ann") != slates.slate_id("ann")
    first, second, late = (
        dataclasses.replace(slate(name, at=NOW + after), request_digest=b"digest")
        for after in (0.0, 5.0, 4000.0)
    )
    assert slates.write_slate(store, "t", first) == first
    assert slates.write_slate(store, "t", second) == first
    assert slates.list_slates(store, ANN) == [first]
    assert slates.write_slate(store, "t", late) == first
    assert slates.list_slates(store, ANN) == [first]
    for i in range(RING):
        slates.write_slate(store, "t", slate(slates.slate_id("ann"), at=NOW + 5000 + i))
    assert slates.find_slate(store, "t", name) is None
    assert slates.write_slate(store, "t", late) == late


def test_the_ids_of_slates_come_from_the_one_source_of_chance_that_tests_fix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ids = []
    for _ in range(2):
        monkeypatch.setattr(secrets, "token_bytes", random.Random(5).randbytes)
        ids.append([slates.slate_id("ann") for _ in range(3)])
    assert ids[0] == ids[1]
    assert len(set(ids[0])) == 3


def test_slates_of_many_learners_are_kept_at_once(store: MemoryStore) -> None:
    shown = [slate(slates.slate_id(name), name) for name in ("ann", "bob", "cat")]
    assert slates.write_slates(store, "t", shown) == shown
    assert [slates.find_slate(store, "t", one.recommendation_id) for one in shown] == shown


def test_the_ring_of_slates_forgets_the_oldest_wholly(store: MemoryStore) -> None:
    names = [slates.slate_id("ann") for _ in range(RING + 7)]
    for i, name in enumerate(names):
        slates.write_slate(store, "t", slate(name, at=NOW + i))
    held = slates.list_slates(store, ANN)
    assert [one.recommendation_id for one in held] == names[:6:-1]
    assert slates.find_slate(store, "t", names[6]) is None
    assert slates.find_slate(store, "t", names[7]) is not None
    with store.read(ANN) as reader:
        assert len(list(reader.scan(Table.SLATE))) == RING
        assert len(list(reader.scan(Table.SLATE_ID))) == 1


def test_slates_of_an_older_layout_are_found_and_make_room(store: MemoryStore) -> None:
    names = [slates.slate_id("ann") for _ in range(3)]

    def write(tx: Transaction) -> None:
        for slot, name in enumerate(names):
            tx.put(Table.SLATE, slot.to_bytes(2, "big"), codec.SLATE.encode(slate(name, at=NOW + slot)))
            tx.put(Table.SLATE_ID, name.encode(), slot.to_bytes(2, "big"))
        tx.put(Table.META, b"", len(names).to_bytes(8, "big"))

    store.update(ANN, write)
    slates.write_slate(store, "t", slate(slates.slate_id("bob"), "bob"))
    owner = base64.urlsafe_b64decode(names[0][:16])
    store.update(TENANT, lambda tx: tx.put(Table.SLATE_OWNER, owner, b"ann"))
    found = [slates.find_slate(store, "t", name) for name in names]
    assert [one and one.recommendation_id for one in found] == names
    names.append(slates.slate_id("ann"))
    slates.write_slate(store, "t", slate(names[-1], at=NOW + 9))
    assert [one.recommendation_id for one in slates.list_slates(store, ANN)] == names[::-1]
    with store.read(ANN) as reader:
        assert len(list(reader.scan(Table.SLATE_ID))) == 1
        assert reader.get(Table.META) is None


@pytest.mark.parametrize("backend", ["memory", "lmdb"])
def test_erasing_a_learner_leaves_nothing_in_either_store(backend: str, tmp_path: Path) -> None:
    stores: Stores = memory_stores() if backend == "memory" else open_stores(tmp_path)
    model = LearnerModel.priors()
    for name in ("ann", "bob"):
        operation = partial(record_answers, learner_id=name, answers=made_answers(5), model=model)
        stores.state.update(Partition("t", name), operation)
        slates.write_slate(stores.serving, "t", slate(slates.slate_id(name), name))
    assert erase_slates(stores.serving, ANN) + stores.state.erase(ANN) == 5 + 5 + 1 + 1 + 1 + 1 + 1
    for store in (stores.state, stores.serving):
        with store.read(ANN) as reader:
            assert not any(list(reader.scan(table)) for table in Table)
        with store.read(TENANT) as reader:
            assert b"ann" not in {value for _, value in reader.scan(Table.SLATE_OWNER)}
    assert stores.state.learners("t", Table.STATE, limit=9) == ["bob"]
    assert len(slates.list_slates(stores.serving, Partition("t", "bob"))) == 1
    stores.close()

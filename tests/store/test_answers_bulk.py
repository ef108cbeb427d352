"""Many learners' answers at once leave what each learner's alone would: every entry, every count, every result."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.learner import LearnerModel
from engine.types import AnswerBatch, LearnerProfile
from store import codec
from store.answers import NewAnswers, RecordedAnswers, record_answers
from store.answers_bulk import ManyAnswers, RecordedMany, record_many
from store.api import Partition, Store, Table
from store.learners import write_profile
from store.lmdb_store import LmdbStore
from store.memory_store import MemoryStore
from store.recount import recount
from store.tallies import read_all
from tests.store.answers_world import DAY, START, made_answers, part

MODEL = LearnerModel.priors()
NAMES = ["ann", "bob", "cleo", "dan"]
LEARNER_TABLES = (Table.PROFILE, Table.STATE, Table.ANSWER, Table.ANSWER_ID)


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else LmdbStore(tmp_path / "state")
    yield made
    made.close()


def many_of(answers: dict[str, NewAnswers]) -> ManyAnswers:
    """Answers of several learners as one call has them."""
    parts = list(answers.values())
    shifts = np.cumsum([0, *(len(one.batch.concept) for one in parts)])
    columns = {
        name: np.concatenate([getattr(one.batch, name) for one in parts])
        for name in AnswerBatch._fields
        if name != "offsets"
    }
    offsets = [one.batch.offsets[:-1] + shift for one, shift in zip(parts, shifts, strict=False)]
    whole = NewAnswers(
        batch=AnswerBatch(offsets=np.concatenate([*offsets, shifts[-1:]]).astype(np.int32), **columns),
        answer_id=[name for one in parts for name in one.answer_id],
        session_id=[name for one in parts for name in one.session_id],
        recommendation_id=[name for one in parts for name in one.recommendation_id],
        device=np.concatenate([one.device for one in parts]),
        timed=np.concatenate([one.timed for one in parts]),
        received_at=parts[0].received_at,
    )
    return ManyAnswers(list(answers), np.cumsum([0, *(one.batch.size for one in parts)]), whole)


def days_of(times: object, zone: str) -> list[int]:
    """A calendar on which every day begins six hours late."""
    return [int((at - DAY / 4) // DAY) for at in times]  # type: ignore[attr-defined]


def in_bulk(store: Store, answers: dict[str, NewAnswers]) -> RecordedMany:
    many = many_of(answers)
    partitions = [Partition("default", name) for name in answers]
    return store.submit_bulk(partitions, lambda bulk: record_many(bulk, many, MODEL, days_of)).result()


def singly(store: Store, answers: dict[str, NewAnswers]) -> dict[str, RecordedAnswers]:
    done = {}
    for name, own in answers.items():
        done[name] = store.update(
            Partition("default", name),
            lambda tx, name=name, own=own: record_answers(tx, name, own, MODEL),  # type: ignore[misc]
        )
    return done


def everything(store: Store) -> dict[object, object]:
    """Every entry of the learners, and every count."""
    found: dict[object, object] = {}
    for name in NAMES:
        with store.read(Partition("default", name)) as reader:
            for table in LEARNER_TABLES:
                found[name, table] = list(reader.scan(table))
    with store.read(Partition("default")) as reader:
        found["counts"] = read_all(reader).differing().by_day
    return found


def test_new_answers_of_several_learners(store: Store) -> None:
    first = {name: made_answers(4 + i, seed=i, prefix=name) for i, name in enumerate(NAMES)}
    then = {
        name: made_answers(9 - i, seed=9 + i, prefix=name + "x", start=START + 100 * DAY)
        for i, name in enumerate(NAMES)
    }
    other = MemoryStore()
    for calls in (first, then):
        done = in_bulk(store, calls)
        expected = singly(other, calls)
        assert (done.numbers, done.alone) == ([0, 1, 2, 3], {})
        for i, name in enumerate(NAMES):
            own = np.arange(done.bounds[i], done.bounds[i + 1])
            log, theirs = done.log.take(own), expected[name].log
            assert list(log.answer_id) == list(theirs.answer_id)
            for mine, right in zip((*log, *log.batch), (*theirs, *theirs.batch), strict=True):
                if isinstance(mine, np.ndarray):
                    np.testing.assert_array_equal(mine, right)
            assert codec.encode_state(done.crowd.state(i)) == codec.encode_state(expected[name].state)
        assert everything(store) == everything(other)
    assert recount(store, "default").agrees


def test_what_is_not_plain_is_recorded_alone_and_the_rest_in_bulk(store: Store) -> None:
    first = {name: made_answers(5, seed=i, prefix=name) for i, name in enumerate(NAMES)}
    later = {
        name: made_answers(5, seed=i, prefix=name + "y", start=START + 50 * DAY)
        for i, name in enumerate(NAMES)
    }
    mixed = {
        "ann": later["ann"],
        "bob": part(later["bob"], [2, 0, 1]),  # out of order
        "cleo": part(first["cleo"], [0, 1]),  # a repeat
        "dan": part(later["dan"], [0, 1, 0]),  # twice in one call
    }
    older = made_answers(3, prefix="late")._replace(received_at=later["bob"].received_at)
    late = {"ann": older, "bob": part(later["bob"], [4])}
    other = MemoryStore()
    for calls, alone in ((first, set()), (mixed, {1, 2, 3}), (late, {0})):
        done = in_bulk(store, calls)
        expected = singly(other, calls)
        assert set(done.alone) == alone
        for number, result in done.alone.items():
            assert isinstance(result, RecordedAnswers)
            right = expected[list(calls)[number]]
            np.testing.assert_array_equal(result.outcome, right.outcome)
            np.testing.assert_array_equal(result.log.sequence, right.log.sequence)
        assert everything(store) == everything(other)
    assert recount(store, "default").agrees


def test_a_learner_whose_state_cannot_be_read_keeps_no_other_from_recording(store: Store) -> None:
    singly(store, {"bob": made_answers(3, prefix="b")})
    store.update(
        Partition("default", "bob"), lambda tx: tx.put(Table.STATE, b"", b"\x09nonsense that is long enough")
    )
    done = in_bulk(store, {name: made_answers(2, prefix=name) for name in ("ann", "bob", "cleo")})
    assert done.numbers == [0, 2]
    assert isinstance(done.alone[1], Exception)
    with store.read(Partition("default", "cleo")) as reader:
        assert len(list(reader.scan(Table.ANSWER))) == 2


def test_a_state_behind_its_log_is_refused_and_one_that_is_missing_is_rebuilt(store: Store) -> None:
    singly(store, {name: made_answers(3, prefix=name) for name in ("ann", "bob")})
    with store.read(Partition("default", "bob")) as reader:
        old = reader.get(Table.STATE)
    assert old is not None
    singly(store, {"bob": made_answers(1, prefix="more", start=START + 40 * DAY)})
    store.update(Partition("default", "bob"), lambda tx: tx.put(Table.STATE, b"", old))
    store.update(Partition("default", "ann"), lambda tx: tx.delete(Table.STATE))
    done = in_bulk(
        store, {name: made_answers(2, prefix=name + "z", start=START + 60 * DAY) for name in ("ann", "bob")}
    )
    assert isinstance(done.alone[1], Exception)
    rebuilt = done.alone[0]
    assert isinstance(rebuilt, RecordedAnswers)
    assert rebuilt.state.applied == 5


def test_days_are_those_of_each_learners_calendar(store: Store) -> None:
    profile = LearnerProfile("bob", time_zone="Pacific/Somewhere", created_at=START)
    store.update(Partition("default", "bob"), lambda tx: write_profile(tx, profile))
    answers = {name: made_answers(6, prefix=name) for name in ("ann", "bob")}
    done = in_bulk(store, answers)
    assert done.time_zones == ["UTC", "Pacific/Somewhere"]
    times = done.log.batch.answered_at
    assert done.log.batch.local_day[:6].tolist() == (times[:6] // DAY).tolist()
    assert done.log.batch.local_day[6:].tolist() == days_of(times[6:].tolist(), "")


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=4),
)
def test_any_calls_in_bulk_are_as_learner_by_learner(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    mine, other = MemoryStore(), MemoryStore()
    histories = [
        made_answers(
            3 * size, seed=int(rng.integers(1 << 30)), prefix=name, shuffled=bool(rng.random() < 0.3)
        )
        for name, size in zip(NAMES, sizes, strict=False)
    ]
    for call in range(3):
        calls = {}
        for name, history, size in zip(NAMES, histories, sizes, strict=False):
            own = list(range(call * size, (call + 1) * size))
            if rng.random() < 0.2:
                own.append(int(rng.integers(0, 3 * size)))
            calls[name] = part(history, own)
        in_bulk(mine, calls)
        singly(other, calls)
        assert everything(mine) == everything(other)
    assert recount(mine, "default").agrees

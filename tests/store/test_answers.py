"""The life of an answer: once in the log, state a pure function of it, late answers as if in time."""

from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.learner import LearnerModel, LearnerState
from engine.types import F8, LearnerProfile
from store import codec
from store.answer_log import AnswerLog
from store.answers import NewAnswers, RecordedAnswers, record_answers
from store.api import Partition, Store, Table
from store.learners import (
    Outcome,
    export_answers,
    find_answers,
    read_answers,
    read_profile,
    read_state,
    write_profile,
)
from store.memory_store import MemoryStore
from store.replay import replay, training_log
from tests.store.answers_world import DAY, START, made_answers, part

ANN = Partition("default", "ann")
MODEL = LearnerModel.priors()


def record(store: Store, answers: NewAnswers, partition: Partition = ANN) -> RecordedAnswers:
    return store.update(partition, lambda tx: record_answers(tx, partition.learner_id, answers, MODEL))


def state_of(store: Store, partition: Partition = ANN) -> LearnerState:
    with store.read(partition) as reader:
        return read_state(reader, MODEL.memory_sets)


def log_of(store: Store, partition: Partition = ANN) -> AnswerLog:
    with store.read(partition) as reader:
        return read_answers(reader)


def without_mastered(state: LearnerState) -> bytes:
    """State but for what follows from the mastery shown at the time, which a late answer does not rewrite."""
    concepts = state.concepts.copy()
    for name in ("mastered", "mastered_at"):
        concepts[name] = 0
    return codec.encode_state(LearnerState(state.header, concepts, state.recent))


def test_answers_go_into_log_state_and_profile_at_once() -> None:
    store = MemoryStore()
    answers = made_answers(20)
    done = record(store, answers)
    assert set(done.outcome) == {Outcome.RECORDED}
    assert done.state.applied == 20
    assert codec.encode_state(state_of(store)) == codec.encode_state(done.state)
    log = log_of(store)
    assert list(log.sequence) == list(range(1, 21))
    assert list(log.answer_id) == list(answers.answer_id)
    assert list(log.recommendation_id) == list(answers.recommendation_id)
    assert not np.isnan(log.batch.mastery).any()
    assert not np.isnan(log.predicted).any()
    for ours, theirs in zip(done.log, log, strict=True):
        if isinstance(ours, np.ndarray):
            np.testing.assert_array_equal(ours, theirs)
    with store.read(ANN) as reader:
        assert read_profile(reader) == LearnerProfile(
            "ann", created_at=answers.received_at, updated_at=answers.received_at
        )


def test_a_profile_that_exists_is_left_alone() -> None:
    store = MemoryStore()
    profile = LearnerProfile("ann", display_name="Ann", time_zone="Europe/Paris", created_at=1.0)
    store.update(ANN, lambda tx: write_profile(tx, profile))
    record(store, made_answers(2))
    with store.read(ANN) as reader:
        assert read_profile(reader) == profile


def test_a_repeat_changes_nothing_and_returns_what_was_recorded() -> None:
    store = MemoryStore()
    answers = made_answers(9)
    first = record(store, answers)
    again = record(store, answers._replace(received_at=answers.received_at + 60.0))
    assert set(again.outcome) == {Outcome.DUPLICATE}
    for ours, theirs in zip(first.log, again.log, strict=True):
        if isinstance(ours, np.ndarray):
            np.testing.assert_array_equal(ours, theirs)
    assert log_of(store).size == 9
    assert codec.encode_state(state_of(store)) == codec.encode_state(first.state)


def test_a_repeat_inside_one_call_counts_once() -> None:
    store = MemoryStore()
    answers = part(made_answers(4), [0, 1, 0, 2, 1, 3])
    done = record(store, answers)
    assert "".join(Outcome(code).name[0] for code in done.outcome) == "RRDRDR"
    assert list(done.log.sequence) == [1, 2, 1, 3, 2, 4]
    assert log_of(store).size == 4


def test_new_and_known_answers_mix_in_one_call() -> None:
    store = MemoryStore()
    answers = made_answers(6)
    record(store, part(answers, [0, 1, 2]))
    done = record(store, part(answers, [3, 1, 4, 0]))
    assert [Outcome(code).name for code in done.outcome] == ["RECORDED", "DUPLICATE", "RECORDED", "DUPLICATE"]
    assert list(done.log.answer_id) == ["a-3", "a-1", "a-4", "a-0"]
    assert done.state.applied == 5


@pytest.mark.parametrize(
    ("field", "value"), [("question", 51), ("correct", None), ("duration_ms", 99_999), ("hints", 9)]
)
def test_an_id_with_other_content_is_refused(field: str, value: int | None) -> None:
    store = MemoryStore()
    answers = made_answers(3)
    record(store, answers)
    column = getattr(answers.batch, field).copy()
    column[1] = 1 - column[1] if value is None else value
    changed = answers._replace(batch=answers.batch._replace(**{field: column}))
    assert list(record(store, changed).outcome) == [Outcome.DUPLICATE, Outcome.REUSED, Outcome.DUPLICATE]
    assert log_of(store).size == 3


def test_times_are_compared_only_where_the_sender_gave_them() -> None:
    store = MemoryStore()
    answers = made_answers(3)
    record(store, answers)
    later = answers.batch._replace(answered_at=answers.batch.answered_at + 5.0)
    untimed = answers._replace(batch=later, timed=np.array([0, 1, 0], np.uint8))
    assert list(record(store, untimed).outcome) == [Outcome.DUPLICATE, Outcome.REUSED, Outcome.DUPLICATE]


def test_times_are_compared_as_they_are_told_to_the_microsecond() -> None:
    store = MemoryStore()
    answers = made_answers(200)
    fine = np.floor(answers.batch.answered_at) + np.random.default_rng(1).random(200)
    record(store, answers._replace(batch=answers.batch._replace(answered_at=fine)))

    def sent(times: F8) -> set[int]:
        return set(record(store, answers._replace(batch=answers.batch._replace(answered_at=times))).outcome)

    in_messages = np.rint(fine * 1e6) / 1e6
    in_files = np.array([datetime.fromtimestamp(at, UTC).timestamp() for at in fine.tolist()])
    assert np.any(in_messages != in_files)
    assert sent(in_messages) == sent(in_files) == {Outcome.DUPLICATE}
    assert sent(in_messages + 2e-6) == {Outcome.REUSED}

    whole = answers._replace(
        batch=answers.batch._replace(answered_at=in_messages), answer_id=[f"w-{i}" for i in range(200)]
    )
    record(store, whole)
    for micros, outcome in ((0, Outcome.DUPLICATE), (1, Outcome.REUSED), (-1, Outcome.REUSED)):
        times = (np.rint(in_messages * 1e6) + micros) / 1e6
        assert set(record(store, whole._replace(batch=whole.batch._replace(answered_at=times))).outcome) == {
            outcome
        }


def test_answers_of_one_call_are_applied_by_time_and_reported_as_sent() -> None:
    answers = made_answers(30, shuffled=True)
    order = [int(i) for i in np.argsort(answers.batch.answered_at, kind="stable")]
    one, other = MemoryStore(), MemoryStore()
    shuffled = record(one, answers)
    ordered = record(other, part(answers, order))
    assert codec.encode_state(shuffled.state) == codec.encode_state(ordered.state)
    assert list(shuffled.log.answer_id) == list(answers.answer_id)
    assert not shuffled.log.late.any()
    np.testing.assert_array_equal(shuffled.log.predicted[order], ordered.log.predicted)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(0, 2**32), st.lists(st.integers(1, 6), min_size=1, max_size=12))
def test_late_answers_lead_to_the_state_of_answers_in_time(n: int, seed: int, sizes: list[int]) -> None:
    answers = made_answers(n, seed=seed, shuffled=True)
    times = answers.batch.answered_at
    late, in_time = MemoryStore(), MemoryStore()
    expected: list[bool] = []
    for size in [*sizes, n]:
        at = len(expected)
        newest = max(times[:at], default=0.0)
        expected += [bool(time < newest) for time in times[at : at + size]]
        record(late, part(answers, list(range(at, len(expected)))))
    record(in_time, answers)
    assert without_mastered(state_of(late)) == without_mastered(state_of(in_time))
    assert replay(late, "default").differing == 0
    assert list(log_of(late).late == 1) == expected


def test_a_late_answer_is_told_its_effects_as_in_time() -> None:
    answers = made_answers(20, seed=3)
    late, in_time = MemoryStore(), MemoryStore()
    record(late, part(answers, [i for i in range(20) if i != 7]))
    done = record(late, part(answers, [7]))
    reference = record(in_time, part(answers, list(range(8)))).log.take(np.array([7]))
    assert list(done.log.late) == [1]
    np.testing.assert_array_equal(done.log.batch.mastery, reference.batch.mastery)
    np.testing.assert_array_equal(done.log.mastery_before, reference.mastery_before)
    np.testing.assert_array_equal(done.log.predicted, reference.predicted)
    assert list(done.log.streak) == list(reference.streak)


@settings(max_examples=25, deadline=None)
@given(st.permutations(range(12)), st.integers(1, 4))
def test_late_answers_bring_every_milestone_once(order: list[int], size: int) -> None:
    times = START + np.arange(12, dtype=np.float64) * DAY
    answers = made_answers(12, seed=5)
    days = answers.batch._replace(answered_at=times, local_day=(times // DAY).astype(np.int32))
    answers = part(answers._replace(batch=days), order)
    store, told = MemoryStore(), []
    for at in range(0, 12, size):
        done = record(store, part(answers, list(range(at, min(at + size, 12)))))
        told += done.log.milestone[done.log.milestone > 0].tolist()
        told += [reached for brought in done.brought.values() for _, reached in brought]
    assert set(told) == {3, 7}
    # Streaks that have grown into one since may each have reached three days.
    assert told.count(7) == 1
    assert told.count(3) <= 3


def test_equal_times_are_taken_in_the_order_of_arrival_and_are_not_late() -> None:
    answers = made_answers(6)
    same = answers._replace(batch=answers.batch._replace(answered_at=np.full(6, START)))
    store = MemoryStore()
    record(store, part(same, [0, 1, 2]))
    done = record(store, part(same, [3, 4, 5]))
    assert not done.log.late.any()
    assert replay(store, "default").differing == 0


def test_replay_rebuilds_every_state_bit_for_bit() -> None:
    store = MemoryStore()
    for k in range(12):
        answers = made_answers(15 + k, seed=k, shuffled=k % 3 == 0)
        for at in range(0, 15 + k, 6):
            chunk = list(range(at, min(at + 6, 15 + k)))
            record(store, part(answers, chunk), Partition("default", f"u-{k}"))
    seen: list[int] = []
    report = replay(store, "default", progress=lambda report: seen.append(report.learners))
    assert (report.learners, report.differing) == (12, 0)
    assert report.answers == sum(15 + k for k in range(12))
    assert seen == list(range(1, 13))


def test_replay_finds_and_repairs_what_differs() -> None:
    store = MemoryStore()
    for name in ("ann", "bob", "eve"):
        record(store, made_answers(8, seed=len(name)), Partition("default", name))
    good = codec.encode_state(state_of(store))
    bad = bytearray(good)
    bad[60] ^= 1
    store.update(ANN, lambda tx: tx.put(Table.STATE, b"", bytes(bad)))
    store.update(Partition("default", "eve"), lambda tx: tx.delete(Table.STATE))
    store.update(Partition("default", "orphan"), lambda tx: tx.put(Table.STATE, b"", good))
    report = replay(store, "default")
    assert (report.learners, report.differing, report.examples) == (4, 3, ["ann", "eve", "orphan"])
    assert replay(store, "default", write=True).differing == 3
    report = replay(store, "default")
    assert (report.learners, report.differing) == (3, 0)
    assert codec.encode_state(state_of(store)) == good


def test_a_state_of_another_layout_is_worked_out_from_the_log() -> None:
    store = MemoryStore()
    answers = made_answers(10)
    record(store, part(answers, list(range(6))))
    value = bytearray(codec.encode_state(state_of(store)))
    value[4] ^= 0xFF
    store.update(ANN, lambda tx: tx.put(Table.STATE, b"", bytes(value)))
    assert state_of(store).applied == 6
    record(store, part(answers, [6, 7, 8, 9]))
    assert replay(store, "default").differing == 0


def test_the_log_is_found_paged_and_streamed_for_training() -> None:
    store = MemoryStore()
    answers = made_answers(23, shuffled=True)
    record(store, answers)
    record(store, made_answers(3, prefix="b"), Partition("default", "bob"))
    with store.read(ANN) as reader:
        assert find_answers(reader, ["a-4", "nope"]) == {"a-4": 5}
        newest = read_answers(reader, limit=2, newest_first=True)
    assert list(newest.answer_id) == ["a-22", "a-21"]
    pages = list(export_answers(store, ANN, page=10))
    assert [page.size for page in pages] == [10, 10, 3]
    assert [i for page in pages for i in page.answer_id] == list(answers.answer_id)
    trained = dict(training_log(store, "default"))
    assert list(trained) == ["ann", "bob"]
    assert (np.diff(trained["ann"].batch.answered_at) >= 0).all()


def test_empty_batches_and_empty_learners_are_fine() -> None:
    store = MemoryStore()
    done = record(store, made_answers(0))
    assert (done.log.size, done.state.applied) == (0, 0)
    assert store.tenants() == []
    assert replay(store, "default").learners == 0

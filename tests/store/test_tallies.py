"""Tallies are what the log holds: repeats, late answers, erasure, repair, and a recount written independently."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.learner import LearnerModel
from engine.types import LearnerProfile
from store.answers import NewAnswers, record_answers
from store.api import Partition, Store, Table
from store.learners import (
    create_profile,
    end_session,
    read_answers,
    record_feedback,
    start_session,
)
from store.lmdb_store import LmdbStore
from store.memory_store import MemoryStore
from store.records import FeedbackEvent, Session, SlateRecord
from store.recount import erase_learner, recount
from store.slates import slate_id, write_slate
from store.tallies import Days, Tally, feedback_cell, read_all, read_days, read_sums, tally, utc_day
from tests.store.answers_world import DAY, START, made_answers, part

MODEL = LearnerModel.priors()
TENANT = Partition("default")
ANN = Partition("default", "ann")
BOB = Partition("default", "bob")
TODAY = utc_day(START + 500 * DAY)


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    made: Store = MemoryStore() if request.param == "memory" else LmdbStore(tmp_path / "state")
    yield made
    made.close()


def record(store: Store, answers: NewAnswers, partition: Partition = ANN) -> None:
    store.update(partition, lambda tx: record_answers(tx, partition.learner_id, answers, MODEL))


def counts(store: Store) -> dict[int, dict[int, int]]:
    """Every count that is not 0, by day."""
    with store.read(TENANT) as reader:
        return read_all(reader).differing().by_day


def total(store: Store, what: int) -> int:
    with store.read(TENANT) as reader:
        return read_sums(reader)[what]


def naive(store: Store, *learners: str) -> dict[int, dict[int, int]]:
    """The counts of answers, from the log, written to be obvious."""
    found: dict[int, Counter[int]] = {}

    def add(day: int, what: int, amount: int = 1) -> None:
        found.setdefault(day, Counter())[what] += amount

    for learner_id in learners:
        with store.read(Partition("default", learner_id)) as reader:
            log = read_answers(reader)
        entries = sorted(range(log.size), key=lambda i: (log.batch.answered_at[i], log.sequence[i]))
        dates = [int(log.batch.answered_at[i] // 86_400) for i in entries]
        for i, day in zip(entries, dates, strict=True):
            add(day, Tally.ANSWERS)
            add(day, Tally.CORRECT, int(log.batch.correct[i]))
            add(day, Tally.PRACTICE_MS, int(log.batch.duration_ms[i]))
            add(day, Tally.LATE, int(log.late[i]))
            crossed = log.crossed[log.batch.offsets[i] : log.batch.offsets[i + 1]]
            add(day, Tally.MASTERED, int((crossed > 0).sum()))
            add(day, Tally.LOST, int((crossed < 0).sum()))
        for day in set(dates):
            add(day, Tally.ACTIVE)
        if dates:
            add(max(dates), Tally.LAST_ACTIVE)
        streak = last = freezes = 0
        for i in entries:
            day = int(log.batch.local_day[i])
            if streak and day <= last:
                continue
            missed = day - last - 1
            if streak and missed <= freezes:
                freezes -= missed
                streak += 1
                add(day, Tally.STREAKS_KEPT)
            else:
                if streak:
                    add(last + freezes + 2, Tally.STREAKS_END)
                streak = 1
            if streak % 7 == 0 or streak in (30, 60, 100, 365):
                freezes = min(freezes + 1, 2)
            last = day
        if streak:
            add(last + freezes + 2, Tally.STREAKS_END)
    return {
        day: {what: amount for what, amount in cells.items() if amount}
        for day, cells in found.items()
        if any(cells.values())
    }


def answers_only(days: dict[int, dict[int, int]]) -> dict[int, dict[int, int]]:
    kept = {
        day: {what: amount for what, amount in cells.items() if what <= Tally.LAST_ACTIVE or what in _STREAKS}
        for day, cells in days.items()
    }
    return {day: cells for day, cells in kept.items() if cells}


_STREAKS = (Tally.STREAKS_KEPT, Tally.STREAKS_END)


def test_counts_are_what_the_log_holds(store: Store) -> None:
    record(store, made_answers(80))
    record(store, made_answers(60, seed=1), BOB)
    expected = naive(store, "ann", "bob")
    assert answers_only(counts(store)) == expected
    assert total(store, Tally.ANSWERS) == 140
    assert total(store, Tally.LAST_ACTIVE) == 2
    assert total(store, Tally.CREATED) == 2


def test_a_repeat_counts_nothing(store: Store) -> None:
    answers = made_answers(30)
    record(store, answers)
    before = counts(store)
    record(store, answers)
    record(store, part(answers, [3, 3, 7]))
    assert counts(store) == before


def test_an_operation_that_fails_counts_nothing(store: Store) -> None:
    def fail(tx: object) -> None:
        record_answers(tx, "ann", made_answers(5), MODEL)  # type: ignore[arg-type]
        raise KeyError("no")

    with pytest.raises(KeyError):
        store.update(ANN, fail)
    assert counts(store) == {}


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000), st.integers(1, 25), st.data())
def test_in_whatever_order_and_portions_answers_come_the_counts_are_those_of_the_log(
    seed: int, n: int, data: st.DataObject
) -> None:
    store = MemoryStore()
    answers = made_answers(n, seed=seed)
    order = data.draw(st.permutations(range(n)))
    place = 0
    while place < n:
        size = data.draw(st.integers(1, n - place))
        record(store, part(answers, order[place : place + size]))
        place += size
    assert answers_only(counts(store)) == naive(store, "ann")
    assert recount(store, "default").agrees


def test_days_are_read_by_range_also_before_1970(store: Store) -> None:
    for day in (-3, 0, 5, 6):
        store.update(ANN, lambda tx, day=day: tally(tx, day, Tally.SESSIONS_STARTED, day + 10))  # type: ignore[misc]
    with store.read(TENANT) as reader:
        assert sorted(read_days(reader, -3, 5)) == [-3, 0, 5]
        assert read_days(reader, 5, 5)[5][Tally.SESSIONS_STARTED] == 15
        assert read_days(reader, 1, 4) == {}


def filled(store: Store) -> None:
    """Two learners with something of everything."""
    record(store, made_answers(40))
    record(store, part(made_answers(40, seed=2, prefix="late", shuffled=True), list(range(20))))
    record(store, made_answers(30, seed=3), BOB)
    eve = Partition("default", "eve")
    store.update(eve, lambda tx: create_profile(tx, LearnerProfile("eve", created_at=START)))
    session = Session("s-1", started_at=START)
    store.update(ANN, lambda tx: start_session(tx, session, timed=True))
    store.update(ANN, lambda tx: start_session(tx, session, timed=True))
    ended = Session("s-1", started_at=START, ended_at=START + 2 * DAY)
    store.update(ANN, lambda tx: end_session(tx, ended))
    events = [FeedbackEvent(f"e-{kind}", "r", "q", kind, START + kind * DAY) for kind in range(1, 6)]
    for _ in range(2):
        store.update(BOB, lambda tx: record_feedback(tx, events))


def test_sessions_feedback_and_learners_are_counted_once(store: Store) -> None:
    filled(store)
    assert [total(store, feedback_cell(kind)) for kind in range(1, 6)] == [1] * 5
    assert (total(store, Tally.SESSIONS_STARTED), total(store, Tally.SESSIONS_ENDED)) == (1, 1)
    assert total(store, Tally.CREATED) == 3
    assert counts(store)[utc_day(START + 2 * DAY)][Tally.SESSIONS_ENDED] == 1


def test_a_recount_agrees_with_what_was_counted(store: Store) -> None:
    filled(store)
    report = recount(store, "default")
    assert (report.agrees, report.learners) == (True, 3)


def test_erasing_a_learner_keeps_what_happened_and_forgets_who_is_active(store: Store) -> None:
    filled(store)
    answers = total(store, Tally.ANSWERS)
    assert store.update(ANN, lambda tx: erase_learner(tx, START + 500 * DAY)) > 0
    assert total(store, Tally.ANSWERS) == answers
    assert total(store, Tally.LAST_ACTIVE) == 1
    assert total(store, Tally.DELETED) == 1
    assert counts(store)[TODAY] == {Tally.DELETED: 1}
    assert recount(store, "default").agrees
    assert store.update(ANN, lambda tx: erase_learner(tx, START + 500 * DAY)) == 0
    assert total(store, Tally.DELETED) == 1
    record(store, made_answers(10, prefix="again"))
    assert recount(store, "default").agrees
    with store.read(ANN) as reader:
        assert reader.get(Table.PROFILE) is not None


def test_the_streak_of_an_erased_learner_never_ends(store: Store) -> None:
    record(store, made_answers(1))
    day = utc_day(START)
    assert total(store, Tally.STREAKS_END) == 1
    store.update(ANN, lambda tx: erase_learner(tx, (day + 1) * DAY))
    assert total(store, Tally.STREAKS_END) == 0
    record(store, made_answers(1), BOB)
    store.update(BOB, lambda tx: erase_learner(tx, (day + 5) * DAY))
    assert total(store, Tally.STREAKS_END) == 1, "it had ended before"
    assert recount(store, "default").agrees


def test_a_recount_that_writes_repairs_counts_and_sums(store: Store) -> None:
    filled(store)
    right, sums = counts(store), [total(store, what) for what in range(24)]

    def damage(tx: object) -> None:
        wrong = Days()
        wrong.count(5, Tally.ANSWERS, 3)
        wrong.count(utc_day(START), Tally.CORRECT, -2)
        wrong.write(tx)  # type: ignore[arg-type]
        tx.add(b"a", {Tally.LOST: 7})  # type: ignore[attr-defined]

    store.update(BOB, damage)
    found = recount(store, "default", write=True)
    assert not found.agrees
    assert found.differing == {5: {Tally.ANSWERS: -3}, utc_day(START): {Tally.CORRECT: 2}}
    assert found.sums_differ
    assert recount(store, "default").agrees
    assert counts(store) == right
    assert [total(store, what) for what in range(24)] == sums


def test_a_recount_on_a_store_in_use_reads_one_moment(tmp_path: Path) -> None:
    store = LmdbStore(tmp_path)
    filled(store)
    other = Partition("default", "zoe")
    written: list[bool] = []

    def interrupt(_: object) -> None:
        # Another thread, as another process would, records while the recount reads.
        if not written:
            thread = threading.Thread(target=record, args=(store, made_answers(9, prefix="z"), other))
            thread.start()
            thread.join()
            written.append(True)

    assert recount(store, "default", write=True, progress=interrupt).agrees
    assert recount(store, "default").agrees
    assert total(store, Tally.ANSWERS) == 99
    store.close()


def test_slates_are_counted_once_each_in_the_serving_store(store: Store) -> None:
    for request in (b"1", b"1", b"2"):
        slate = SlateRecord(slate_id("ann", request), "ann", START, START + 9, request, b"", ("q1", "q2"))
        write_slate(store, "default", slate)
    assert counts(store) == {utc_day(START): {Tally.RECOMMENDATIONS: 2, Tally.RECOMMENDED: 4}}


def test_practice_time_adds_up_beyond_32_bits(store: Store) -> None:
    answers = made_answers(3)
    long = answers._replace(batch=answers.batch._replace(duration_ms=np.full(3, 0xFFFFFFFF, np.uint32)))
    record(store, long)
    assert total(store, Tally.PRACTICE_MS) == 3 * 0xFFFFFFFF

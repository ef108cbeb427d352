"""The learner's state: kernels against the slow twin, replay against absorbing, and what days and masteries do."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.learner import AnswersOutOfOrder, LearnerModel, LearnerState, absorb, replay
from engine.learner.days import MOST_FREEZES
from engine.learner.memory import DEFAULT_WEIGHTS
from engine.learner.rows import part_of as part
from tests.engine.learner.world import START, answers, batch, random_model
from tests.naive_learner import Answer, Learner, pattern

SEEDS = st.integers(0, 2**32 - 1)
W = [float(w) for w in DEFAULT_WEIGHTS]


def same_bytes(a: LearnerState, b: LearnerState) -> bool:
    return all(getattr(a, f).tobytes() == getattr(b, f).tobytes() for f in ("header", "concepts", "recent"))


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 90))
def test_state_equals_slow_twin(seed: int, n: int) -> None:
    history = answers(np.random.default_rng(seed), n)
    learner = Learner(W)
    for a in history:
        learner.answer(a)
    state = absorb(LearnerState.empty(), batch(history), LearnerModel.priors()).state
    header = state.header[0]
    assert (header["applied"], header["correct"]) == (n, sum(a.correct for a in history))
    assert np.allclose(header["mean"], learner.level, atol=1e-4)
    assert np.allclose(header["variance"], learner.variance, atol=1e-4)
    assert (header["day_streak"], header["longest_streak"], header["freezes"]) == (
        learner.streak,
        learner.longest,
        learner.freezes,
    )
    assert header["pattern"] == pattern(history, 7)
    assert list(state.concepts["row"]) == sorted(learner.memory)
    for concept in state.concepts:
        row = int(concept["row"])
        mine = [a for a in history if row in a.own]
        assert concept["attempts"] == len(mine)
        assert concept["pattern"] == pattern(mine, 7)
        assert np.allclose(concept["mean"], [learner.of(j, row)[0] for j in (0, 1)], atol=1e-4)
        assert np.allclose(concept["variance"], [learner.of(j, row)[1] for j in (0, 1)], atol=1e-4)
        memory = learner.memory[row]
        assert concept["stability"] == pytest.approx(memory.stability, rel=1e-4)
        assert concept["difficulty"] == pytest.approx(memory.difficulty, rel=1e-4)
        assert abs(int(concept["review_at"]) - memory.at) <= 2 * len(history)
    assert {int(q) for q in state.recent["question"] if q != 0xFFFFFFFF} == learner.remembered()


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 60), data=st.data())
def test_replay_is_bit_for_bit(seed: int, n: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    model = random_model(rng)
    whole = batch(answers(rng, n))
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, n), max_size=5)) - {n}), n]
    state = LearnerState.empty()
    logged = []
    for start, stop in itertools.pairwise(cuts):
        done = absorb(state, part(whole, start, stop), model)
        state = done.state
        logged.append(done.batch)
    once = absorb(LearnerState.empty(), whole, model)
    assert same_bytes(state, once.state)
    assert np.array_equal(np.concatenate([b.mastery for b in logged]), once.batch.mastery)
    assert same_bytes(replay(once.batch, model.memory_sets), once.state)
    middle = cuts[len(cuts) // 2]
    half = replay(part(once.batch, 0, middle), model.memory_sets)
    assert same_bytes(replay(part(once.batch, middle, n), model.memory_sets, half), once.state)


def test_absorb_leaves_its_input_alone_and_refuses_the_past() -> None:
    rng = np.random.default_rng(3)
    whole = batch(answers(rng, 20))
    state = absorb(LearnerState.empty(), part(whole, 0, 10), LearnerModel.priors()).state
    before = dataclasses.replace(
        state, header=state.header.copy(), concepts=state.concepts.copy(), recent=state.recent.copy()
    )
    absorb(state, part(whole, 10, 20), LearnerModel.priors())
    assert same_bytes(state, before)
    late = part(whole, 10, 11)._replace(answered_at=np.array([START - 1]))
    with pytest.raises(AnswersOutOfOrder, match="older"):
        absorb(state, late, LearnerModel.priors())


def on_day(day: int, correct: int = 1, minutes: float = 1.0) -> Answer:
    return Answer(
        day, correct, day * 86400.0 + 43200.0, 0.0, 3 if correct else 1, [(0, 1.0)], day, minutes * 60
    )


def test_streak_survives_what_freezes_cover() -> None:
    days = [*range(100, 107), 108, 109, 112]
    done = absorb(LearnerState.empty(), batch([on_day(d) for d in days]), LearnerModel.priors())
    assert list(done.streak) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 1]
    assert list(done.milestone) == [0, 0, 3, 0, 0, 0, 7, 0, 0, 0]
    assert done.state.header["longest_streak"][0] == 9
    week = absorb(
        LearnerState.empty(), batch([on_day(d) for d in range(100, 121)]), LearnerModel.priors()
    ).state
    assert week.header["freezes"][0] == MOST_FREEZES
    assert week.streak_on(120) == (21, 2)
    assert week.streak_on(121) == (21, 2)
    assert week.streak_on(123) == (21, 0)
    assert week.streak_on(124)[0] == 0


def test_day_ring_holds_six_weeks() -> None:
    history = [on_day(100, minutes=2.0), on_day(100), on_day(103, minutes=3.0)]
    state = absorb(LearnerState.empty(), batch(history), LearnerModel.priors()).state
    counted, seconds = state.day_totals(104, 5)
    assert list(counted) == [2, 0, 0, 1, 0]
    assert list(seconds) == [180, 0, 0, 180, 0]
    later = absorb(state, batch([on_day(150)]), LearnerModel.priors()).state
    assert later.day_totals(150)[0].sum() == 1
    assert later.day_totals(400)[0].sum() == 0


def test_unknown_duration_counts_the_pause_before() -> None:
    first, second, third = on_day(5, minutes=0), on_day(5, minutes=0), on_day(5, minutes=0)
    second.at += 30.0
    third.at += 3600.0
    state = absorb(LearnerState.empty(), batch([first, second, third]), LearnerModel.priors()).state
    assert state.header["practice_ms"][0] == 30_000


def test_mastery_is_earned_kept_and_lost() -> None:
    history = [dataclasses.replace(on_day(10), at=864000.0 + 60 * i, question=i) for i in range(12)]
    earned = absorb(LearnerState.empty(), batch(history), LearnerModel.priors())
    assert list(earned.crossed[:2]) == [0, 0]
    assert earned.crossed.sum() == 1
    assert earned.state.concepts["mastered"][0] == 1
    at = int(np.argmax(earned.crossed))
    assert earned.batch.mastery[at] >= 0.85
    wrong = [dataclasses.replace(a, correct=0, grade=1, at=a.at + 86400) for a in history]
    lost = absorb(earned.state, batch(wrong), LearnerModel.priors())
    assert lost.crossed[0] == 0
    assert lost.crossed.min() == -1
    assert lost.batch.mastery[int(np.argmin(lost.crossed))] < 0.7


def test_record_stays_small() -> None:
    concepts = [Answer(i, 1, START + i, 0.0, 3, [(i, 1.0)], 19675) for i in range(60)]
    assert absorb(LearnerState.empty(), batch(concepts), LearnerModel.priors()).state.nbytes < 8192


def test_encompassed_concept_gets_credit_but_no_attempt() -> None:
    simple, hard = [(0, 1.0)], [(1, 1.0), (0, 0.5)]
    learnt = Answer(0, 1, START, 0.0, 3, simple, 19675)
    base = absorb(LearnerState.empty(), batch([learnt]), LearnerModel.priors()).state
    ten_days = START + 10 * 86400
    right = absorb(base, batch([Answer(1, 1, ten_days, 0.0, 3, hard, 19685)]), LearnerModel.priors()).state
    wrong = absorb(base, batch([Answer(1, 0, ten_days, 0.0, 1, hard, 19685)]), LearnerModel.priors()).state
    for state in (right, wrong):
        assert state.concepts["attempts"][0] == 1
        assert state.concepts["implied"][0] == 1
    assert right.concepts["stability"][0] > base.concepts["stability"][0] > wrong.concepts["stability"][0]
    assert base.concepts["review_at"][0] < right.concepts["review_at"][0] < ten_days
    assert right.concepts["mean"][0, 0] > base.concepts["mean"][0, 0] > wrong.concepts["mean"][0, 0]

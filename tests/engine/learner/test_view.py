"""Mastery as it is shown: what answers and time may do to it, its slow twin, and how it is calibrated."""

import dataclasses
import math
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.learner import LearnerModel, LearnerState, absorb, concept_view
from engine.learner.features import DENSE_NAMES, N_DENSE
from engine.learner.mastery_fit import LEAST, MOST, fit_mastery
from engine.learner.memory import DEFAULT_WEIGHTS
from engine.learner.model import PRIOR_MASTERY
from engine.learner.update import LOST_BELOW
from tests.engine.learner.world import CONCEPTS, answers, batch, random_model
from tests.naive_learner import Learner, Memory

SEEDS = st.integers(0, 2**32 - 1)
DECAY = float(DEFAULT_WEIGHTS[20])
SECONDS_A_DAY = 86_400.0


def forgotten(memory: Memory, now: float) -> float:
    factor = 0.9 ** (-1.0 / DECAY) - 1.0
    days = max(now - memory.at, 0.0) / SECONDS_A_DAY
    return 1.0 - float((1.0 + factor * days / memory.stability) ** -DECAY)


def naive_mastery(learner: Learner, row: int, median: float, run: int, gone: float) -> float:
    mean, variance = learner.of(0, row)
    spread = learner.variance[0] + variance
    z = (median + learner.level[0] + mean) / math.sqrt(1.0 + 0.35 * spread)
    offset, slope, cost, streak = PRIOR_MASTERY
    form = streak * math.copysign(math.log(1 + abs(run)), run)
    return 1.0 / (1.0 + math.exp(-(offset + slope * z + cost * gone + form)))


def run_of(outcomes: list[int]) -> int:
    same = 0
    for outcome in reversed(outcomes):
        if outcome != outcomes[-1]:
            break
        same += 1
    return same if outcomes[-1] else -same


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 60))
def test_mastery_equals_its_slow_twin(seed: int, n: int) -> None:
    history = answers(np.random.default_rng(seed), n)
    learner = Learner([float(w) for w in DEFAULT_WEIGHTS])
    missed = [0.0] * CONCEPTS
    for answer in history:
        for row in answer.own:
            memory = learner.memory.get(row)
            gone = forgotten(memory, answer.at) if memory and memory.stability > 0.0 else 0.0
            missed[row] = 0.0 if answer.correct else max(gone, missed[row])
        learner.answer(answer)
    state = absorb(LearnerState.empty(), batch(history), LearnerModel.priors()).state
    now = history[-1].at + 5 * SECONDS_A_DAY
    view = concept_view(state, CONCEPTS, LearnerModel.priors(), now, np.zeros(CONCEPTS, np.float32))
    for concept in state.concepts:
        row = int(concept["row"])
        outcomes = [answer.correct for answer in history if row in answer.own]
        if not outcomes or learner.memory[row].stability <= 0.0:
            continue
        gone = max(forgotten(learner.memory[row], now), missed[row])
        twin = naive_mastery(learner, row, 0.0, run_of(outcomes), gone)
        # Kept in the state: the time of a review in whole seconds, what was missed in 255ths.
        assert abs(view.mastery[row] - twin) < 3e-3


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 80))
def test_no_wrong_answer_raises_mastery_and_no_right_one_lowers_it(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    history = answers(rng, n)
    model = random_model(rng)
    mastery = np.array(
        [rng.uniform(-1.0, 1.0), rng.uniform(0.2, 2.0), rng.uniform(-2.0, 0.0), rng.uniform(0.0, 1.0)]
    )
    model = dataclasses.replace(model, weights=model.weights._replace(mastery=mastery))
    done = absorb(LearnerState.empty(), batch(history), model)
    change = done.batch.mastery - done.mastery_before
    own = done.batch.weight >= 1.0
    right = np.repeat(done.batch.correct, np.diff(done.batch.offsets)).astype(bool)
    assert (change[own & right] >= -1e-6).all()
    assert (change[own & ~right] <= 1e-6).all()


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, days=st.lists(st.floats(0.0, 900.0), min_size=2, max_size=6))
def test_time_alone_only_lets_mastery_fade(seed: int, days: list[float]) -> None:
    rng = np.random.default_rng(seed)
    history = answers(rng, 40)
    state = absorb(LearnerState.empty(), batch(history), random_model(rng)).state
    end = history[-1].at
    shown = [
        concept_view(
            state, CONCEPTS, random_model(np.random.default_rng(1)), end + day * SECONDS_A_DAY
        ).mastery
        for day in sorted(days)
    ]
    assert all((later <= earlier + 1e-12).all() for earlier, later in pairwise(shown))


def test_mastery_falls_to_the_line_on_the_day_that_was_told() -> None:
    history = [a for a in answers(np.random.default_rng(3), 30) if a.correct]
    model = LearnerModel.priors()
    model = dataclasses.replace(
        model, weights=model.weights._replace(mastery=np.array([0.0, 1.0, -3.0, 0.1]))
    )
    state = absorb(LearnerState.empty(), batch(history), model).state
    view = concept_view(state, CONCEPTS, model, history[-1].at)
    told = np.flatnonzero(np.isfinite(view.fades_at))
    assert len(told)
    for row in told:
        at_line = concept_view(state, CONCEPTS, model, float(view.fades_at[row])).mastery[row]
        assert abs(at_line - LOST_BELOW) < 1e-6


def rows(rng: np.random.Generator, n: int) -> "np.ndarray[tuple[int, int], np.dtype[np.float32]]":
    dense = np.zeros((n, N_DENSE), np.float32)
    dense[:, DENSE_NAMES.index("expected_slow")] = rng.normal(0.5, 1.0, n)
    dense[:, DENSE_NAMES.index("concept_last")] = rng.choice([-1.0, 1.0], n)
    dense[:, DENSE_NAMES.index("concept_forgotten")] = rng.uniform(0.0, 0.8, n)
    last = dense[:, DENSE_NAMES.index("concept_last")]
    dense[:, DENSE_NAMES.index("concept_run")] = last * np.log1p(rng.integers(1, 9, n))
    return dense


def test_calibration_finds_what_made_the_answers() -> None:
    rng = np.random.default_rng(5)
    dense = rows(rng, 100_000)
    gone = dense[:, DENSE_NAMES.index("concept_forgotten")]
    truth = np.array([0.3, 0.8, -1.6, 0.4])
    z = truth[0] + truth[1] * dense[:, DENSE_NAMES.index("expected_slow")] + truth[2] * gone
    z += truth[3] * dense[:, DENSE_NAMES.index("concept_run")]
    correct = (rng.random(len(z)) < 1.0 / (1.0 + np.exp(-z))).astype(np.float32)
    assert np.abs(fit_mastery(dense, correct) - truth).max() < 0.1


def test_calibration_keeps_the_signs_and_leans_on_priors_where_there_is_little() -> None:
    rng = np.random.default_rng(6)
    dense = rows(rng, 5_000)
    failed = dense[:, DENSE_NAMES.index("concept_forgotten")] > 0.4
    against = fit_mastery(dense, failed.astype(np.float32))
    assert against[2] == MOST[2]
    assert (against >= LEAST).all()
    assert np.abs(fit_mastery(dense[:3], failed[:3].astype(np.float32)) - PRIOR_MASTERY).max() < 0.1

"""Predictions: kernels against the slow twin, the fast path against training rows, views and models."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.learner import (
    IncompatibleModel,
    LearnerModel,
    LearnerState,
    absorb,
    concept_view,
    explain_prediction,
    predict,
)
from engine.learner.features import DENSE_NAMES, N_OWN_VALUES, OWN_NAMES
from engine.learner.memory import DEFAULT_WEIGHTS
from engine.learner.rows import TrainingLog, build_rows
from tests.engine.learner.world import CONCEPTS, QUESTIONS, START, answers, batch, catalog, random_model
from tests.naive_learner import Answer, Learner, pairs_of, pattern, sigmoid

W = [float(w) for w in DEFAULT_WEIGHTS]
SEEDS = st.integers(0, 2**32 - 1)


def slow_logit(
    learner: Learner, model: LearnerModel, question: int, now: float, pairs: dict[int, float]
) -> float:
    """Log odds by names and dictionaries."""
    qc, w = catalog(), model.weights
    own = [int(c) for c in qc.concepts[qc.offsets[question] : qc.offsets[question + 1]]]
    base = float(model.base_logit(np.array([question], np.uint32), qc)[0])
    evidence = float(w.question_rate[question, 1]) if question < len(w.question_rate) else 0.0
    f = learner.features(now, own, question, base, evidence)
    z = sum(float(w.dense[DENSE_NAMES.index(name)]) * value for name, value in f.items())
    if question < len(w.question):
        z += float(w.question[question, 0]) + float(w.question[question, 1]) * f["ability_slow"]
    z += float(w.global_pattern[pattern(learner.history, 5)])
    for c in own:
        mine = [a for a in learner.history if c in a.own]
        right = sum(a.correct for a in mine)
        z += float(w.concept_pattern[pattern(mine, 4)]) / len(own)
        if c < len(w.concept):
            mine_only = learner.concept_features(c, now)
            values = {
                "own": 1.0,
                "own_right": math.log1p(right),
                "own_wrong": math.log1p(len(mine) - right),
                "own_residual_0.8": f["residual_0.8"],
                "own_residual_0.95": f["residual_0.95"],
                "own_concept_residual_0.7": mine_only["concept_residual_0.7"],
                "own_level": f["ability_fast"] + mine_only["concept_ability_fast"],
                f"own_last_two_{pattern(mine, 2)}": 1.0,
            }
            z += sum(float(w.concept[c, OWN_NAMES.index(k)]) * v for k, v in values.items()) / len(own)
    return z + sum(pairs.get(key, 0.0) for key in pairs_of(learner, question, own))


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n=st.integers(0, 80), pause=st.sampled_from([0.0, 12.5, 4e3, 3e6]))
def test_prediction_equals_slow_twin(seed: int, n: int, pause: float) -> None:
    rng = np.random.default_rng(seed)
    history = answers(rng, n)
    learner = Learner(W)
    for a in history:
        learner.answer(a)
    qc = catalog()
    questions = np.arange(QUESTIONS, dtype=np.uint32)
    keys = [
        key
        for q in range(QUESTIONS)
        for key in pairs_of(learner, q, [int(c) for c in qc.concepts[qc.offsets[q] : qc.offsets[q + 1]]])
    ]
    chosen = np.unique(rng.choice(np.array(keys, np.uint64), 30))
    model = random_model(rng, chosen)
    slots = model.weights.pair_key
    pairs = {int(k): float(v) for k, v in zip(slots, model.weights.pair_weight, strict=True) if k}
    now = (history[-1].at if history else START) + pause
    state = absorb(LearnerState.empty(), batch(history), model).state if history else LearnerState.empty()
    fast = predict(state, questions, qc, model, now)
    slow = [sigmoid(slow_logit(learner, model, int(q), now, pairs)) for q in questions]
    assert np.allclose(fast, slow, atol=2e-5)


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, n=st.integers(1, 80))
def test_online_equals_offline(seed: int, n: int) -> None:
    """Streaming answers predicts what the training rows of the same log predict."""
    rng = np.random.default_rng(seed)
    model = random_model(rng)
    w = model.weights
    whole = batch(answers(rng, n))
    done = absorb(LearnerState.empty(), whole, model)
    log = TrainingLog(np.array([0, n]), whole)
    evidence = np.array(
        [w.question_rate[q, 1] if q < len(w.question_rate) else 0 for q in whole.question], np.float32
    )
    rows = build_rows(log, whole.base_logit, evidence, model.memory_sets, float(w.constants[2]))
    z = rows.dense @ w.dense + w.global_pattern[rows.patterns]
    known = whole.question < len(w.question)
    own_question = np.where(known[:, None], w.question[np.where(known, whole.question, 0)], 0.0)
    z += own_question[:, 0] + own_question[:, 1] * rows.ability
    used = rows.concept != 0xFFFFFFFF
    share = used / used.sum(axis=1, keepdims=True)
    own = np.zeros((8, len(OWN_NAMES)))
    own[: len(w.concept)] = w.concept
    each = own[np.where(used, rows.concept, 7)]
    part = each[..., 0] + (each[..., 1 : 1 + N_OWN_VALUES] * rows.concept_values).sum(axis=2)
    patterns = rows.concept_patterns.astype(int)
    last_two = 1 + N_OWN_VALUES + np.where(patterns >= 4, patterns % 4 + 4, patterns)
    part += w.concept_pattern[patterns] + np.take_along_axis(each, last_two[..., None], axis=2)[..., 0]
    z += (share * part).sum(axis=1)
    table = {int(k): float(v) for k, v in zip(w.pair_key, w.pair_weight, strict=True) if k}
    z += np.array([sum(table.get(int(k), 0.0) for k in keys) for keys in rows.keys])
    assert np.allclose(done.predicted, 1 / (1 + np.exp(-z)), atol=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, n=st.integers(2, 40))
def test_absorbed_prediction_is_that_of_the_moment_the_question_was_put(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    qc, model = catalog(), random_model(rng)
    history = answers(rng, n)
    for a in history:
        a.base = float(model.base_logit(np.array([a.question], np.uint32), qc)[0])
    before = absorb(LearnerState.empty(), batch(history[:-1]), model).state
    last = history[-1]
    said = absorb(before, batch([last]), model).predicted[0]
    put = max(last.at - last.seconds, history[-2].at)
    asked = predict(before, np.array([last.question], np.uint32), qc, model, put)[0]
    assert said == pytest.approx(asked, abs=1e-6)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, n=st.integers(0, 40), taken=st.floats(0.1, 3600.0))
def test_how_long_an_answer_took_foretells_nothing_of_it(seed: int, n: int, taken: float) -> None:
    """Neither online nor in a row of training, where who takes long is more often wrong."""
    rng = np.random.default_rng(seed)
    model = random_model(rng)
    history = answers(rng, n + 1)
    put = history[-1].at + 100.0
    rows = []
    for seconds in (0.0, round(taken, 3)):
        history[-1].at, history[-1].seconds = put + seconds, seconds
        whole = batch(history)
        base = whole.base_logit
        made = build_rows(TrainingLog(np.array([0, n + 1]), whole), base, base * 0, model.memory_sets, 0.15)
        rows.append((made.dense[-1], absorb(LearnerState.empty(), whole, model).predicted[-1]))
    assert np.allclose(rows[0][0], rows[1][0], atol=1e-4)
    assert rows[0][1] == pytest.approx(rows[1][1], abs=1e-4)


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS, n=st.integers(0, 60))
def test_terms_sum_to_the_prediction(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    qc, model = catalog(), random_model(rng)
    history = answers(rng, n)
    state = absorb(LearnerState.empty(), batch(history), model).state if history else LearnerState.empty()
    now = (history[-1].at if history else START) + 600
    for question in rng.integers(0, QUESTIONS, 4):
        terms = explain_prediction(state, int(question), qc, model, now)
        said = sigmoid(sum(term.contribution for term in terms))
        asked = predict(state, np.array([question], np.uint32), qc, model, now)[0]
        assert said == pytest.approx(asked, abs=1e-6)
        assert {term.group for term in terms} <= {"learner", "concept", "question", "sequence"}


def test_view_agrees_with_what_was_logged_and_fades() -> None:
    history = [Answer(i, 1, START + 60 * i, 0.62, 3, [(2, 1.0)], 19675) for i in range(8)]
    model = LearnerModel.priors()
    done = absorb(LearnerState.empty(), batch(history), model)
    now = concept_view(done.state, CONCEPTS, model, history[-1].at)
    assert now.mastery[2] == pytest.approx(done.batch.mastery[-1], abs=1e-6)
    assert now.mastery_sd[2] == pytest.approx(done.batch.mastery_sd[-1], abs=1e-6)
    assert now.mastered[2] == 1
    assert (now.attempts[2], now.correct[2], now.attempts[1]) == (8, 8, 0)
    assert np.isnan(now.retrievability[1])
    assert now.mastery_sd[2] < now.mastery_sd[1]
    later = concept_view(done.state, CONCEPTS, model, history[-1].at + 30 * 86400)
    assert later.mastery[2] < now.mastery[2]
    assert later.retrievability[2] < now.retrievability[2]
    due = concept_view(done.state, CONCEPTS, model, float(now.next_review_at[2]))
    assert due.retrievability[2] == pytest.approx(0.9, abs=1e-6)
    assert now.next_review_at[2] < now.fades_at[2]


def test_right_answers_raise_and_wrong_ones_lower() -> None:
    model = LearnerModel.priors()
    state = LearnerState.empty()
    start = float(concept_view(state, 1, model, START).mastery[0])
    right = absorb(state, batch([Answer(0, 1, START, 0.62, 3, [(0, 1.0)], 19675)]), model)
    wrong = absorb(state, batch([Answer(0, 0, START, 0.62, 1, [(0, 1.0)], 19675)]), model)
    assert wrong.batch.mastery[0] < start < right.batch.mastery[0]
    assert right.mastery_before[0] == pytest.approx(start, abs=1e-6)


def test_base_logit_falls_back_smoothly() -> None:
    qc = catalog()
    rng = np.random.default_rng(0)
    model = random_model(rng)
    w = model.weights
    base = model.base_logit(np.array([0, QUESTIONS - 1, 10_000], np.uint32), qc)
    right, tried = (float(x) for x in w.question_rate[0])
    assert 1 / (1 + np.exp(-base[0])) == pytest.approx(right / tried, abs=0.12)
    assert base[2] == pytest.approx(0.4, abs=1e-6)
    said = qc._replace(difficulty=np.full(QUESTIONS, 0.9, np.float32))
    assert model.base_logit(np.array([QUESTIONS - 1], np.uint32), said)[0] == pytest.approx(
        math.log(0.1 / 0.9), abs=1e-3
    )


def test_median_question_of_a_concept() -> None:
    qc = catalog()
    model = random_model(np.random.default_rng(1)).with_catalog(qc, CONCEPTS + 1)
    base = model.base_logit(np.arange(QUESTIONS, dtype=np.uint32), qc)
    for concept in range(CONCEPTS):
        mine = [
            base[q] for q in range(QUESTIONS) if concept in qc.concepts[qc.offsets[q] : qc.offsets[q + 1]]
        ]
        assert model.weights.concept_median[concept] == pytest.approx(np.median(mine), abs=1e-6)
    assert np.isnan(model.weights.concept_median[CONCEPTS])


def test_model_survives_saving() -> None:
    model = random_model(np.random.default_rng(2)).with_memory(DEFAULT_WEIGHTS * 1.01)
    arrays, metadata = model.save()
    again = LearnerModel.load({k: v.copy() for k, v in arrays.items()}, metadata)
    rng = np.random.default_rng(3)
    history = batch(answers(rng, 30))
    assert np.array_equal(
        absorb(LearnerState.empty(), history, model).batch.mastery,
        absorb(LearnerState.empty(), history, again).batch.mastery,
    )
    assert again.memory_set == 1
    with pytest.raises(IncompatibleModel, match="format"):
        LearnerModel.load(arrays, {**metadata, "format": 99})
    with pytest.raises(IncompatibleModel, match="pair_key"):
        LearnerModel.load({k: v for k, v in arrays.items() if k != "pair_key"}, metadata)

"""Training finds what it should in a known world and repeats itself; evaluation keeps learners apart."""

import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
import pytest

from engine.learner import LearnerModel, predict
from engine.learner import evaluate as evaluation
from engine.learner.baselines import NAMES, Split, baselines
from engine.learner.evaluate import OURS, evaluate, folds_by_learner, stream
from engine.learner.features import N_DENSE
from engine.learner.memory import DEFAULT_WEIGHTS
from engine.learner.memory_fit import Reviews, fit_memory, recall_of
from engine.learner.metrics import auc, calibration_error, log_loss, rmse
from engine.learner.regression import Layout, TrainSettings, pair_table, penalties
from engine.learner.rows import Rates, TrainingLog, fill_bases
from engine.learner.score import QuestionConcepts, find_pair
from engine.learner.state import LearnerState
from engine.learner.training import TooLittleData, train
from engine.types import F4, F8, U1
from tests.engine.learner.world import batch, random_model
from tests.naive_learner import Answer, sigmoid

CONCEPTS, QUESTIONS = 4, 24
SETTINGS = TrainSettings(iterations=40, closing_iterations=5, threads=1)


class World(NamedTuple):
    log: TrainingLog
    qc: QuestionConcepts
    easiness: np.ndarray


def world(learners: int = 60, answers: int = 40, seed: int = 0) -> World:
    """Learners of different ability who learn a little from each answer; questions of different easiness."""
    rng = np.random.default_rng(seed)
    easiness = rng.normal(0.3, 1.3, QUESTIONS)
    history, sizes = [], []
    for _ in range(learners):
        ability = rng.normal(0, 1.2)
        skill = np.zeros(CONCEPTS)
        for i in range(answers):
            q = int(rng.integers(QUESTIONS))
            c = q % CONCEPTS
            correct = int(rng.random() < sigmoid(ability + skill[c] + easiness[q]))
            skill[c] += 0.15
            history.append(Answer(q, correct, 1e9 + 100.0 * i, 0.0, 3 if correct else 1, [(c, 1.0)], 11574))
        sizes.append(answers)
    qc = QuestionConcepts.of(
        np.arange(QUESTIONS + 1, dtype=np.int32), (np.arange(QUESTIONS) % CONCEPTS).astype(np.uint32)
    )
    return World(TrainingLog(np.concatenate(([0], np.cumsum(sizes))), batch(history)), qc, easiness)


@pytest.fixture(scope="module")
def known() -> World:
    return world()


def quiet(stage: str, done: float) -> None:
    assert stage
    assert 0 <= done <= 1


def test_training_learns_the_world(known: World) -> None:
    model, metrics = train(known.log, seed=1, version="a", settings=SETTINGS, progress=quiet)
    assert metrics["log_loss"] < metrics["base_log_loss"]
    questions = np.arange(QUESTIONS, dtype=np.uint32)
    p = predict(LearnerState.empty(), questions, known.qc, model, 1e9)
    assert np.corrcoef(p, known.easiness)[0, 1] > 0.9
    target = known.log.answers.correct.astype(float)
    better = log_loss(target, stream(known.log, known.qc, model))
    assert better < log_loss(target, stream(known.log, known.qc, LearnerModel.priors()))


def test_training_repeats_itself_on_any_number_of_threads(known: World) -> None:
    one, _ = train(known.log, seed=3, version="a", settings=SETTINGS)
    two, _ = train(
        known.log, seed=3, version="a", settings=TrainSettings(iterations=40, closing_iterations=5, threads=3)
    )
    first, second = one.save()[0], two.save()[0]
    for name, array in first.items():
        assert np.array_equal(array, second[name], equal_nan=True), name


def test_warm_start_begins_where_the_last_model_ended(known: World) -> None:
    few = TrainSettings(iterations=1, closing_iterations=1, threads=1)
    model, _ = train(known.log, seed=1, version="a", settings=SETTINGS)
    _, cold = train(known.log, seed=1, version="b", settings=few)
    _, warm = train(known.log, seed=1, version="c", settings=few, previous=model)
    assert warm["log_loss"] < cold["log_loss"]


def test_base_logits_are_those_of_the_model_in_use(known: World) -> None:
    """A learner counted in no fold is trained on what will be served, difficulties said by callers included."""
    difficulty = np.where(np.arange(QUESTIONS) % 3 == 0, 0.9, np.nan).astype(np.float32)
    concepts = QuestionConcepts.of(known.qc.offsets, known.qc.concepts, difficulty)
    log = known.log.take(np.arange(6))
    model, _ = train(known.log, seed=1, version="a", difficulty=difficulty, settings=SETTINGS)
    fold = np.arange(log.learners) % 3
    rates = Rates.tally(log, fold, 3)
    w = model.weights._replace(
        question_rate=rates.question.sum(axis=1).astype(np.float32),
        concept_rate=rates.concept.sum(axis=1).astype(np.float32),
    )
    whole = float(sigmoid(w.constants[0]))
    served = dataclasses.replace(model, weights=w).base_logit(log.answers.question, concepts)
    base, evidence = np.empty(log.answers.size, np.float32), np.empty(log.answers.size, np.float32)
    uncounted = np.full(log.learners, -1)
    fill_bases(log, uncounted, rates.question, rates.concept, difficulty, whole, base, evidence)
    assert np.allclose(base, served, atol=1e-6)
    assert np.array_equal(evidence, w.question_rate[log.answers.question, 1])
    fill_bases(log, fold, rates.question, rates.concept, difficulty, whole, base, evidence)
    own = rates.question[log.answers.question, fold[log.learner_of()], 1]
    assert np.allclose(evidence, 1.5 * (w.question_rate[log.answers.question, 1] - own))
    assert not np.allclose(base, served, atol=1e-3)


def test_training_knows_the_difficulties_that_callers_said(known: World) -> None:
    told = (1.0 - 1.0 / (1.0 + np.exp(-known.easiness))).astype(np.float32)
    few = known.log.take(np.arange(12))
    model, _ = train(few, seed=1, version="a", difficulty=told, settings=SETTINGS)
    concepts = QuestionConcepts.of(known.qc.offsets, known.qc.concepts, told)
    untold, _ = train(few, seed=1, version="a", settings=SETTINGS)
    target = known.log.answers.correct.astype(float)
    better = log_loss(target, stream(known.log, concepts, model))
    assert better < log_loss(target, stream(known.log, concepts, untold))


def test_too_little_data_is_refused(known: World) -> None:
    with pytest.raises(TooLittleData, match="3 learners"):
        train(known.log.take(np.arange(3)), seed=0, version="a")


def test_pair_table_holds_every_pair() -> None:
    rng = np.random.default_rng(0)
    keys = np.unique(rng.integers(1, 2**63, 500, dtype=np.uint64))
    weights = rng.normal(size=len(keys))
    w = random_model(rng, keys).weights
    table, values = pair_table(keys, weights)
    w = w._replace(pair_key=table, pair_weight=values)
    assert [find_pair(w, k) for k in keys] == pytest.approx(weights, rel=1e-6)
    assert find_pair(w, np.uint64(12345)) == 0.0


def test_every_weight_has_the_penalty_of_its_kind() -> None:
    layout = Layout(3, 2, np.array([5, 9, 11], np.uint64))
    given = TrainSettings(
        dense_penalty=1.5, base_penalty=2.5, concept_penalty=3.5, slope_penalty=4.5, pair_penalty=5.5
    )
    found = penalties(layout, given)
    dense, sparse = found[:N_DENSE], found[N_DENSE:]
    assert len(sparse) == layout.size
    assert set(dense) == {1.5}
    assert sparse[: layout.concept].tolist() == [2.5, 4.5] * 3
    assert set(sparse[layout.concept : layout.concept_pattern]) == {3.5}
    assert set(sparse[layout.concept_pattern : layout.pair]) == {2.5}
    assert sparse[layout.pair :].tolist() == [5.5] * 3


def test_evaluation_fits_to_the_difficulties_that_it_predicts_with(
    known: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = np.linspace(0.1, 0.9, QUESTIONS).astype(np.float32)
    concepts = QuestionConcepts.of(known.qc.offsets, known.qc.concepts, told)
    seen: list[F4] = []

    def watched(log: TrainingLog, *, difficulty: F4, **rest: Any) -> Any:
        seen.append(difficulty)
        return train(log, difficulty=difficulty, **rest)

    monkeypatch.setattr(evaluation, "train", watched)
    evaluate(known.log, concepts, seed=0, progress=quiet, folds=2, with_baselines=False, settings=SETTINGS)
    assert np.array_equal(seen, [told, told])


def test_evaluation_beats_or_meets_baselines_and_keeps_learners_apart(known: World) -> None:
    found = evaluate(known.log, known.qc, seed=0, progress=quiet, folds=2, settings=SETTINGS)
    assert set(found.predictions) == {OURS, *NAMES}
    assert len(found.target) == known.log.answers.size
    ours = found.measure(OURS)
    assert ours["auc"] > found.measure("item_mean")["auc"]
    assert ours["log_loss"] < found.measure("bkt")["log_loss"]
    assert found.slices()["new_learners"].sum() == 10 * known.log.learners
    fold = folds_by_learner(known.log.learners, 2, 0)
    assert np.bincount(fold).tolist() == [30, 30]
    assert sum(answers for _, answers, _ in found.curve(OURS)) == len(found.target)


def test_later_outcomes_do_not_reach_earlier_predictions(known: World) -> None:
    """Flip the last outcome of every tested learner: no prediction of any model may move."""
    n = known.log.answers.size
    early = np.zeros(n, bool)
    early[: n // 2] = True
    flipped = known.log.answers.correct.copy()
    last = known.log.learner_offsets[known.log.learners // 2 + 1 :] - 1
    flipped[last] = 1 - flipped[last]
    other = known.log._replace(answers=known.log.answers._replace(correct=flipped))
    before = baselines(Split(known.log, early), quiet)
    after = baselines(Split(other, early), quiet)
    for name in NAMES:
        assert np.allclose(before[name], after[name], atol=1e-12), name
    model, _ = train(known.log.only(early).take(np.arange(30)), seed=0, version="a", settings=SETTINGS)
    assert np.allclose(stream(known.log, known.qc, model), stream(other, known.qc, model), atol=1e-12)


def test_time_split_tests_the_later_part(known: World) -> None:
    found = evaluate(
        known.log, known.qc, seed=0, progress=quiet, by_time=True, with_baselines=False, settings=SETTINGS
    )
    assert found.position.min() >= 0.8 * 40 - 1
    assert np.isfinite(found.measure(OURS)["auc"])


def test_measures_against_hand_worked_values() -> None:
    y, p = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.4, 0.8])
    assert auc(y, p) == pytest.approx(0.875)
    assert log_loss(y, p) == pytest.approx(
        -(math.log(0.9) + math.log(0.6) + math.log(0.4) + math.log(0.8)) / 4
    )
    assert rmse(y, p) == pytest.approx(math.sqrt((0.01 + 0.16 + 0.36 + 0.04) / 4))
    assert calibration_error(y, p, bins=2) == pytest.approx((3 * abs(0.3 - 1 / 3) + abs(0.8 - 1.0)) / 4)
    assert math.isnan(auc(np.ones(3), np.ones(3)))


def test_memory_fit_finds_faster_forgetting() -> None:
    rng = np.random.default_rng(2)
    true = DEFAULT_WEIGHTS.copy()
    true[:4] *= 0.1
    cards = 400
    grades: list[U1] = []
    at: list[F8] = []
    offsets = [0]
    for _ in range(cards):
        days = np.cumsum(rng.integers(1, 12, 5)).astype(float)
        moments: F8 = np.asarray(1e9 + 86400 * (days + rng.integers(60)), np.float64)
        grade = np.full(5, 3, np.uint8)
        for i in range(1, 5):
            part = Reviews(np.array([0, i + 1]), grade[: i + 1], moments[: i + 1])
            grade[i] = 3 if rng.random() < recall_of(part, true)[i] else 1
        grades.append(grade)
        at.append(moments)
        offsets.append(offsets[-1] + 5)
    reviews = Reviews(np.array(offsets), np.concatenate(grades), np.concatenate(at))
    weights, metrics = fit_memory(reviews, seed=0)
    assert metrics["fitted"] == 1
    assert weights[2] < DEFAULT_WEIGHTS[2]
    assert metrics["log_loss"] < metrics["default_log_loss"]
    few = Reviews(reviews.offsets[:3], reviews.grade[:10], reviews.at[:10])
    assert fit_memory(few, seed=0)[0] is DEFAULT_WEIGHTS

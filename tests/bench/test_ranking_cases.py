"""The measures behind the ranking bench, worked by hand."""

import numpy as np
import pytest

from bench.bar_chart import bar_chart
from bench.learner_data import DataSet, batch_of
from bench.ranking_cases import Measured, cases_of, distinct, histories, interactions, interval, measure
from engine.learner.rows import TrainingLog
from engine.learner.score import QuestionConcepts


def data_of(*learners: list[int]) -> DataSet:
    """Return learners who answered these questions; question q is of concept q, question 9 of 0 and 1."""
    sizes = [1] * 9 + [2]
    concepts = QuestionConcepts.of(np.concatenate(([0], np.cumsum(sizes))), np.array([*range(9), 0, 1]))
    question = np.array([q for learner in learners for q in learner], np.uint32)
    nothing = np.zeros(question.size, np.uint32)
    batch = batch_of(question, np.ones(question.size, np.uint8), nothing.astype(float), nothing, concepts)
    offsets = np.concatenate(([0], np.cumsum([len(learner) for learner in learners])))
    return DataSet("made", TrainingLog(offsets, batch), concepts, False)


def test_a_case_tells_what_came_before_and_after() -> None:
    data = data_of([7], [0, 0, 1, 0, 2, 2, 1, 9, 3, 2, 4])
    (case,) = cases_of(data, np.array([1]), np.array([0.5]))
    assert (case.learner, case.before) == (1, 5)
    assert case.seen.tolist() == [0, 1, 2]
    assert case.current.tolist() == [2]
    assert case.following.tolist() == [1, 0, 3, 4]
    assert case.new.tolist() == [3, 4]
    assert histories(data, [case], 9, questions=False).toarray()[0].tolist() == [3, 1, 1, 0, 0, 0, 0, 0, 0]
    counts = interactions(data, np.array([1, 0]), 9, questions=False).toarray()
    assert counts[0].tolist() == [4, 3, 3, 1, 1, 0, 0, 0, 0]
    assert counts[1].tolist() == [0, 0, 0, 0, 0, 0, 0, 1, 0]


def test_a_case_by_questions_keeps_them_apart() -> None:
    (case,) = cases_of(data_of([0, 1, 2, 3, 4, 9, 5, 0]), np.array([0]), np.array([0.7]), questions=True)
    assert case.new.tolist() == [9, 5]
    assert case.following.tolist() == [9, 5, 0]


def test_moments_too_early_or_at_the_end_are_none() -> None:
    assert cases_of(data_of([0, 1, 2, 3]), np.array([0]), np.array([0.1, 1.0])) == []


def test_recall_and_ndcg_by_hand() -> None:
    data = data_of([0, 0, 0, 0, 1, 0, 2, 3])
    (case,) = cases_of(data, np.array([0]), np.array([0.65]))
    assert (case.current.tolist(), case.following.tolist()) == ([1], [0, 2, 3])
    scores = np.array([[0.9, 1.0, 0.1, 0.0, 0.2, 0.3, 0.4, 0.5, 0.6] + [0.7] * 6], np.float32)
    next_ = measure([case], scores, "next")
    # 1 is at hand; then come 0, six others, and more: of the wanted 0, 2 and 3 only 0 is among the first ten.
    assert next_.recall.tolist() == [pytest.approx(1 / 3)]
    best = 1.0 + 1.0 / np.log2(3) + 1.0 / np.log2(4)
    assert next_.ndcg.tolist() == [pytest.approx(1.0 / best)]
    perfect = np.zeros((1, 15), np.float32)
    perfect[0, [2, 3]] = 2.0, 1.0
    new = measure([case], perfect, "new")
    assert (new.recall.tolist(), new.ndcg.tolist()) == ([1.0], [pytest.approx(1.0)])


def test_what_was_practised_is_no_new_concept_however_high_it_stands() -> None:
    (case,) = cases_of(data_of([0, 0, 0, 0, 1, 2]), np.array([0]), np.array([0.9]))
    scores = np.array([[9.0, 8.0, 0.1]], np.float32)
    assert measure([case], scores, "new").recall.tolist() == [1.0]


def test_distinct_rows_keep_their_order() -> None:
    assert distinct(np.array([3, 1, 3, 2, 1])).tolist() == [3, 1, 2]


def test_intervals_are_over_learners() -> None:
    learner = np.repeat(np.arange(50), 4)
    good = np.repeat(np.random.default_rng(0).random(50), 4)
    ours = Measured(learner, good, good)
    value, low, high = interval(ours, "recall", seed=1, rounds=400)
    assert value == pytest.approx(good.mean())
    assert high - low == pytest.approx(4 * good[::4].std() / np.sqrt(50), rel=0.2)
    half = Measured(learner, good / 2, good / 2)
    assert interval(ours, "recall", rival=half, seed=1, rounds=50) == pytest.approx((2.0, 2.0, 2.0))


def test_the_chart_holds_every_bar_and_name() -> None:
    drawn = bar_chart({"ours": [(0.5, 0.4, 0.6)], "theirs": [(0.3, 0.2, 0.4)]}, ["next"], title="recall")
    assert drawn.count("<rect") == 1 + 2 + 2
    assert all(name in drawn for name in ("ours", "theirs", "next", "recall"))

"""FSRS-6 against published answers and the reference package; grades."""

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from engine.learner import DEFAULT_WEIGHTS, grade_answer
from engine.learner.features import log_count, log_run
from engine.learner.memory import (
    days_until,
    forgetting,
    recall_factor,
    recalled,
    retrievability,
    review,
    schedule,
    stability_after,
)
from tests import naive_learner

DAY = 86400


def walk(grades: list[int], at: list[float], weights: np.ndarray = DEFAULT_WEIGHTS) -> tuple[np.ndarray, ...]:
    n = len(grades)
    out = (np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.int64))
    schedule(np.array(grades, np.uint8), np.array(at, np.float64), weights, 0.9, *out)
    return out


def when_due(grades: list[int]) -> list[int]:
    """Review each time exactly when due; return the intervals in whole days."""
    at, intervals = [0.0], []
    for n in range(1, len(grades) + 1):
        interval = int(walk(grades[:n], at)[3][-1])
        intervals.append(interval // DAY)
        at.append(at[-1] + interval)
    return intervals


def test_known_intervals() -> None:
    ratings = [3] * 6 + [1] * 2 + [3] * 5
    assert when_due(ratings) == [0, 2, 11, 46, 163, 498, 0, 0, 2, 4, 7, 12, 21]


def test_known_stability_and_difficulty() -> None:
    at = np.cumsum([0, 0, 1, 3, 8, 21]) * float(DAY)
    stability, difficulty, _, _ = walk([1, 3, 3, 3, 3, 3], list(at))
    assert stability[-1] == pytest.approx(53.62691, abs=1e-4)
    assert difficulty[-1] == pytest.approx(6.3574867, abs=1e-4)


def test_random_histories_equal_the_reference_package() -> None:
    fsrs = pytest.importorskip("fsrs")
    rng = np.random.default_rng(11)
    scheduler = fsrs.Scheduler(enable_fuzzing=False)
    for _ in range(150):
        n = int(rng.integers(1, 15))
        grades = [int(g) for g in rng.choice([1, 2, 3, 4], n, p=[0.2, 0.15, 0.5, 0.15])]
        gaps = rng.choice([30, 700, 4000, DAY, 3 * DAY + 5, 40 * DAY, 400 * DAY], n)
        at = np.cumsum(gaps).astype(np.float64)
        stability, difficulty, _, interval = walk(grades, list(at))
        card = fsrs.Card()
        start = datetime(2024, 1, 1, tzinfo=UTC)
        for i, grade in enumerate(grades):
            moment = start + timedelta(seconds=at[i])
            card, _ = scheduler.review_card(card, fsrs.Rating(grade), moment)
            assert stability[i] == pytest.approx(card.stability, abs=1e-4, rel=1e-9)
            assert difficulty[i] == pytest.approx(card.difficulty, abs=1e-4)
            assert interval[i] == (card.due - moment).total_seconds()


def test_naive_twin_agrees() -> None:
    rng = np.random.default_rng(4)
    w = [float(x) for x in DEFAULT_WEIGHTS]
    grades = [int(g) for g in rng.integers(1, 5, 60)]
    at = np.cumsum(rng.choice([60, DAY, 9 * DAY], 60)).astype(np.float64)
    stability, difficulty, _, _ = walk(grades, list(at))
    s = d = 0.0
    for i, grade in enumerate(grades):
        days = (at[i] - at[i - 1]) // DAY if i else 0
        s, d = naive_learner.review(s, d, days, grade, w)
        assert stability[i] == pytest.approx(s, rel=1e-9)
        assert difficulty[i] == pytest.approx(d, rel=1e-9)


def test_retrievability_is_ninety_percent_at_stability() -> None:
    assert retrievability(12.5, 12.5, 0.1542) == pytest.approx(0.9)
    assert days_until(12.5, 0.9, 0.1542) == pytest.approx(12.5)
    assert retrievability(days_until(4.0, 0.7, 0.3), 4.0, 0.3) == pytest.approx(0.7)


def test_grades() -> None:
    correct = np.array([0, 1, 1, 1, 1, 1, 1], np.uint8)
    taken = np.array([100, 100, 1000, 2001, 100, 0, 100], np.uint32)
    expected = np.array([1000, 1000, 1000, 1000, 1000, 1000, 0], np.float32)
    hints = np.array([0, 0, 0, 0, 1, 0, 0], np.uint8)
    assert list(grade_answer(correct, taken, expected, hints)) == [1, 4, 3, 2, 2, 3, 3]


def test_what_is_shared_between_memories_changes_no_bit() -> None:
    rng = np.random.default_rng(5)
    w = DEFAULT_WEIGHTS
    shared, factor = forgetting(w), recall_factor(w[20])
    for days in (0.0, 0.5, *rng.uniform(1.0, 400.0, 30)):
        stability, difficulty = float(rng.uniform(0.1, 300.0)), float(rng.uniform(1.0, 10.0))
        recall = recalled(days, stability, w[20], factor)
        assert recall == retrievability(days, stability, w[20])
        for grade in (1, 2, 3, 4):
            after = stability_after(stability, difficulty, days, grade, recall, w, shared)
            assert max(after, 0.001) == review(stability, difficulty, days, grade, w)[0]


def test_logs_of_counts_are_the_logs() -> None:
    for count in (*range(300), 70_000):
        assert log_count(count) == math.log1p(count)
        assert log_run(-count) == -math.log1p(count)
        assert log_run(count) == math.log1p(count)

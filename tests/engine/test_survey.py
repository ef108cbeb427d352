"""The survey equals its naive twin, and wants what it should."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import survey as s
from engine.collaborative import CollaborativeModel
from engine.learner import LearnerState
from engine.learner.score import read_only
from engine.learner.view import VIEW_COUNTS, VIEW_FLOATS, Standing
from engine.policy import SOURCES
from engine.serving import Models, Serving, prepare
from engine.types import F4
from tests import naive_recommend as naive
from tests import worlds

COLUMNS = ("READY", "RIGHT", "WRONG", "RETENTION", "TOWARDS", "FOLLOWS", "STANDING", "UNLOCKS", "STEPS")


def with_followers(seed: int) -> Serving:
    """Return a random catalogue whose model knows peers and factors."""
    rng = np.random.default_rng(seed)
    catalog = worlds.at_random(seed)
    size = catalog.concept_count
    model = CollaborativeModel(
        item_factors=(rng.standard_normal((catalog.question_count - 5, 64)) / 8).astype(np.float32),
        gram=np.eye(64, dtype=np.float32),
        popularity=rng.random(catalog.question_count - 2).astype(np.float32),
        peers=worlds.peers_at_random(size - 2, rng),
        learner_factors=np.zeros((0, 64), np.float32),
    )
    return prepare(catalog, Models(worlds.served(catalog).models.learner, model))


def surveyed(
    served: Serving,
    state: Any,
    *,
    seed: int = 1,
    objective: int = -1,
    target: float = 0.85,
    profile: F4 | None = None,
) -> tuple[F4, F4]:
    """Return (out, wishes) of the survey kernel."""
    size = served.catalog.concept_count
    out, wishes = np.empty((size, s.SURVEY_WIDTH), np.float32), np.empty((len(SOURCES), size), np.float32)
    asked = np.array([worlds.NOON, target, 0.9, objective, 0.0, 0.0, 0.0, state.applied])
    profile = np.zeros(64, np.float32) if profile is None else profile
    standing = Standing(
        np.full((size, VIEW_FLOATS), np.nan),
        np.empty((size, VIEW_COUNTS), np.uint32),
        np.empty(size, np.uint8),
        np.empty(size, np.int32),
    )
    wishes[:] = -1.0
    s.survey(
        served.concepts,
        served.peers,
        read_only(state.header),
        read_only(state.concepts),
        served.learner.weights,
        served.learner.memory_sets[0],
        profile,
        asked,
        seed,
        standing,
        out,
        wishes,
    )
    view, counts, mastered = worlds.look(served, state)
    seen = (out[:, s.READY] > 0.0) | (standing.place >= 0)
    assert np.array_equal(
        standing.floats[seen][:, [0, 1, 2, 3, 4, 6]], view[seen][:, [0, 1, 2, 3, 4, 6]], equal_nan=True
    )
    assert np.array_equal(standing.counts[seen], counts[seen])
    assert np.array_equal(standing.mastered, mastered)
    return out, wishes


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.integers(0, 40))
def test_survey_equals_its_naive_twin(seed: int, goal: bool, answers: int) -> None:
    served = with_followers(seed)
    state = worlds.someone(served, seed, answers=answers) if answers else LearnerState.empty()
    rng = np.random.default_rng(seed)
    profile = served.questions.content[rng.integers(0, served.catalog.question_count)].copy()
    objective = int(served.catalog.order[rng.integers(0, served.catalog.order.size)]) if goal else -1
    out, wishes = surveyed(served, state, seed=seed, objective=objective, profile=profile)
    view, counts, mastered = worlds.look(served, state)
    assert served.models.collaborative is not None
    peers = served.models.collaborative.peers
    rows, twin_wishes = naive.survey(
        served.concepts,
        state.concepts,
        view,
        counts,
        mastered,
        peers,
        served.learner.memory_sets[0],
        profile,
        {"objective": objective, "seed": seed, "target": 0.85, "history": state.applied},
    )
    seen = [row["READY"] > 0.0 or c in set(state.concepts["row"].tolist()) for c, row in enumerate(rows)]
    for column, name in enumerate(COLUMNS):
        on_path = name in ("TOWARDS", "STEPS")
        twin = [row[name] if looked or on_path else 0.0 for row, looked in zip(rows, seen, strict=True)]
        assert out[:, column] == pytest.approx(twin, abs=2e-6), name
    for source, name in enumerate(SOURCES):
        assert wishes[source] == pytest.approx(twin_wishes[name], abs=2e-6), name


@given(st.integers(0, 2**63 - 1), st.integers(0, 2**31))
@settings(max_examples=50, deadline=None)
def test_chance_equals_its_naive_twin(seed: int, counter: int) -> None:
    assert s.chance(seed, counter) == naive.chance(seed, counter)


def test_chance_is_uniform() -> None:
    draws = np.array([s.chance(7, i) for i in range(4000)])
    assert draws.min() >= 0.0
    assert draws.max() < 1.0
    assert np.histogram(draws, 8, (0.0, 1.0))[0] == pytest.approx(500, abs=90)


def test_a_learner_who_knows_counting_is_ready_for_adding() -> None:
    served = worlds.served(worlds.chain("count", "add", "multiply"))
    _, wishes = surveyed(served, worlds.who_knows(served, "count"))
    assert (wishes[s.FRONTIER] >= 0.0).tolist() == [False, True, False]


@given(st.integers(1, 255))
def test_knowing_equals_its_naive_twin(pattern: int) -> None:
    outcomes = [digit == "1" for digit in bin(pattern)[3:]]
    known, evidence = s.known_by(pattern)
    assert known == pytest.approx(naive.known_by(outcomes), abs=1e-12)
    assert evidence == pytest.approx(naive.evidence_of(outcomes), abs=1e-9)


def test_one_right_answer_opens_nothing_and_two_do() -> None:
    served = worlds.served(worlds.chain("count", "add"))
    for answers, is_open in ((1, False), (2, True)):
        state = worlds.practise(served, [(f"count-{i + 1}", True) for i in range(answers)])
        out, _ = surveyed(served, state)
        assert (out[1, s.READY] > 0.0) == is_open


def test_learning_is_most_where_half_is_known_and_nothing_at_the_top() -> None:
    assert s.learning(0.999, s.LEARN_RIGHT) < 0.02
    middle = 1.0 / (1.0 + math.sqrt(s.LEARN_RIGHT))
    assert s.learning(middle, s.LEARN_RIGHT) == pytest.approx(1.0)
    assert s.learning(0.3, s.LEARN_WRONG) < s.learning(0.3, s.LEARN_RIGHT)


def test_a_faded_concept_costs_more_than_a_fresh_one() -> None:
    served = worlds.served(worlds.graph({"old": [], "new": []}))
    state = worlds.who_knows(served, "old", ending=worlds.NOON - 40 * worlds.DAY_S)
    state = worlds.practise(served, [("new-1", True), ("new-2", True)], state=state)
    out, wishes = surveyed(served, state)
    assert out[0, s.RETENTION] > out[1, s.RETENTION]
    assert wishes[s.REVIEW, 0] > 0.0
    assert wishes[s.REVIEW, 1] < 0.0


def test_what_unlocks_much_is_worth_more() -> None:
    served = worlds.served(worlds.graph({"key": [], "alone": [], "a": ["key"], "b": ["key"], "c": ["key"]}))
    out, wishes = surveyed(served, LearnerState.empty())
    assert out[:2, s.UNLOCKS].tolist() == [3.0, 0.0]
    assert wishes[s.FRONTIER, 0] > wishes[s.FRONTIER, 1]

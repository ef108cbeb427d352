"""The scoring kernel equals its naive twin."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import scoring
from engine.cards import dot
from engine.collaborative import CONFIDENCE
from engine.learner import LearnerState
from engine.learner.score import read_only
from engine.policy import BUILT_IN, SOURCES, TERMS
from engine.types import NO_ROW
from tests import naive_slate, worlds
from tests.engine.test_candidates import gathered
from tests.engine.test_survey import COLUMNS, with_followers


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_leaning_equals_its_naive_twin(seed: int) -> None:
    served = with_followers(seed)
    state = worlds.someone(served, seed, answers=30)
    rows, found, out, _ = gathered(served, state, seed=seed)
    before = np.random.default_rng(seed).uniform(0.01, 0.99, len(rows))
    after = before.copy()
    scoring.lean(served.concepts, served.questions, out, found, after)
    for i, row in enumerate(rows):
        c = int(found.concepts[i])
        standing = float(out[c, COLUMNS.index("STANDING")])
        card = served.questions.cards[served.questions.card_of[row]]
        base, evidence = float(card["base"]), float(card["evidence"])
        twin = naive_slate.leaned(
            float(before[i]), standing, base - float(served.concepts.median_logit[c]), evidence
        )
        assert after[i] == pytest.approx(twin, abs=1e-9)


def test_what_training_has_seen_is_left_to_the_model() -> None:
    unseen = naive_slate.leaned(0.9, 0.2, 0.0, 0.0)
    assert unseen < naive_slate.leaned(0.9, 0.2, 0.0, np.log1p(1000.0)) < 0.9


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10_000),
    st.floats(0.0, 1.0),
    st.sampled_from([0.0, 30.0, 600.0]),
    st.sampled_from([0.0, 1.0]),
)
def test_score_equals_its_naive_twin(seed: int, fatigue: float, available: float, small: float) -> None:
    served = with_followers(seed)
    rng = np.random.default_rng(seed)
    state = worlds.someone(served, seed, answers=30)
    rows, found, out, _ = gathered(served, state, seed=seed)
    n = len(rows)
    predicted = rng.uniform(0.05, 0.99, n)
    factor, profile = (rng.standard_normal((2, 64)) / 4).astype(np.float32)
    take_up = rng.random((len(SOURCES), len(served.catalog.areas))).astype(np.float32)
    shown = rng.permutation(served.catalog.question_count)[:8].astype(np.uint32)
    values, scores, means = np.empty((n, len(TERMS)), np.float32), np.empty(n), np.empty(len(TERMS))
    asked = np.array([worlds.NOON, 0.85, 0.9, -1.0, available, fatigue, small, state.applied])
    weights = BUILT_IN["hybrid_v1"].signed
    mean = scoring.score(
        served.concepts, served.questions, out, found, predicted, read_only(state.recent), read_only(shown), factor,
        profile, take_up, asked, weights, values, scores, means,
    )  # fmt: skip
    met = {
        int(r["question"]): (worlds.NOON - float(r["at"])) / 3600.0
        for r in state.recent
        if r["question"] != NO_ROW
    }
    survey = [{name: float(row[i]) for i, name in enumerate(COLUMNS)} for row in out]
    told = {"target": 0.85, "available": available, "fatigue": fatigue, "small": small}
    for i, row in enumerate(rows):
        area = served.concepts.area[found.concepts[i]]
        chances = [float(take_up[b, area]) for b in range(len(SOURCES)) if int(found.sources[i]) >> b & 1]
        twin = naive_slate.terms(
            served.questions,
            survey,
            row,
            float(predicted[i]),
            met,
            set(shown.tolist()),
            chances,
            factor,
            profile,
            told,
        )
        for term, name in enumerate(TERMS):
            assert values[i, term] == pytest.approx(twin[name], abs=2e-5), name
        assert scores[i] == pytest.approx(
            sum(w * twin[name] for w, name in zip(weights, TERMS, strict=True)), abs=1e-4
        )
    assert ((values >= 0.0) & (values <= 1.0)).all()
    assert mean == pytest.approx(scores.mean())
    assert means == pytest.approx(values.mean(axis=0), abs=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 60))
def test_tastes_equal_their_naive_twin(seed: int, answers: int) -> None:
    served = with_followers(seed)
    state: Any = worlds.someone(served, seed, answers=answers) if answers else LearnerState.empty()
    size = state.recent.shape[0]
    rows, confidence = np.empty(size, np.uint32), np.empty(size, np.float32)
    profile = np.empty(64, np.float32)
    content = served.questions.content
    count = scoring.tastes(read_only(state.recent), content, worlds.NOON, rows, confidence, profile)
    weights, twin = naive_slate.tastes(state.recent, content, worlds.NOON)
    assert dict(zip(rows[:count].tolist(), confidence[:count].tolist(), strict=True)) == pytest.approx(
        weights
    )
    assert profile == pytest.approx(twin, abs=1e-5)
    assert all(0.0 < weight <= CONFIDENCE for weight in weights.values())


def test_dot_sums_every_component() -> None:
    a, b = np.arange(64, dtype=np.float32), np.ones(64, np.float32)
    assert dot(a, b) == 2016.0

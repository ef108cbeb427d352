"""Collaborative factors: two crowds with different tastes are told apart, and folding in agrees with training."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog import Sparse
from engine.collaborative import (
    CONFIDENCE,
    FOLD_STEPS,
    REGULARISATION,
    WIDTH,
    CollaborativeModel,
    Interactions,
    fold_in,
    fold_in_exactly,
    train_collaborative,
)
from tests import naive_slate

ONE_EACH = Sparse(np.arange(41, dtype=np.int32), np.repeat(np.arange(4, dtype=np.uint32), 10))
"""Forty questions of four concepts, ten each."""


def crowds(seed: int = 0) -> Interactions:
    """Sixty learners; the even ones practise questions 0..19, the odd ones 20..39."""
    rng = np.random.default_rng(seed)
    taken = [np.sort(rng.permutation(20)[:12]) + 20 * (learner % 2) for learner in range(60)]
    return Interactions(
        np.repeat(np.arange(60, dtype=np.int32), 12),
        np.concatenate(taken).astype(np.uint32),
        np.ones(720, np.uint8),
    )


@pytest.fixture(scope="module")
def model() -> CollaborativeModel:
    return train_collaborative(crowds(), ONE_EACH, 4, seed=1)


def test_learners_are_led_to_what_their_crowd_practises(model: CollaborativeModel) -> None:
    rows = np.array([0, 3, 5], np.uint32)
    liked = model.item_factors @ fold_in(
        model.item_factors, model.gram, rows, np.full(3, 10.0, np.float32), 6
    )
    assert liked[:20].min() > liked[20:].max()


def test_training_is_the_same_for_a_seed(model: CollaborativeModel) -> None:
    again = train_collaborative(crowds(), ONE_EACH, 4, seed=1)
    assert np.array_equal(model.item_factors, again.item_factors)


def test_a_model_survives_saving(model: CollaborativeModel) -> None:
    again = CollaborativeModel.load(model.save())
    assert all(np.array_equal(array, again.save()[name]) for name, array in model.save().items())


def test_progress_is_told() -> None:
    told: list[tuple[int, int]] = []
    train_collaborative(
        crowds(), ONE_EACH, 4, seed=1, rounds=3, progress=lambda done, of: told.append((done, of))
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_an_empty_log_gives_a_model_that_knows_nothing() -> None:
    nothing = Interactions(np.zeros(0, np.int32), np.zeros(0, np.uint32), np.zeros(0, np.uint8))
    model = train_collaborative(nothing, ONE_EACH, 4, seed=1)
    assert not model.item_factors.any()
    assert not fold_in(
        model.item_factors, model.gram, np.array([1], np.uint32), np.ones(1, np.float32), 6
    ).any()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 30))
def test_fold_in_nears_the_exact_minimiser_which_equals_its_twin(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    factors = (rng.standard_normal((50, WIDTH)) / 2).astype(np.float32)
    gram = (factors.T @ factors + REGULARISATION * np.eye(WIDTH)).astype(np.float32)
    rows = rng.integers(0, 55, size).astype(np.uint32)
    confidence = (CONFIDENCE * rng.random(size)).astype(np.float32)
    exact = fold_in_exactly(factors, gram, rows, confidence)
    assert exact == pytest.approx(naive_slate.fold_in(factors, gram, rows, confidence), abs=1e-8)
    assert fold_in(factors, gram, rows, confidence, 100) == pytest.approx(exact, abs=1e-4)
    rough = factors @ fold_in(factors, gram, rows, confidence, FOLD_STEPS)
    assert rough == pytest.approx(factors @ exact, abs=0.15)

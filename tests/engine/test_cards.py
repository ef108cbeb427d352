"""Cards hold what the arrays that they were made from hold; pairs laid out by question are those of the hash table."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cards import CARD, FINE_STEPS, STEPS, alike, coarsen
from engine.learner import LearnerModel, LearnerState, predict
from engine.learner.features import hash_pair
from engine.learner.many import score_candidates
from engine.learner.pairs import AFTER_ANY, AFTER_OWN, by_question
from engine.learner.score import find_pair, read_only
from engine.learner.view import VIEW_COUNTS, VIEW_FLOATS, Standing, stand
from engine.serving import Models, Serving, prepare
from tests import worlds
from tests.engine.learner.world import random_model
from tests.engine.test_survey import with_followers


def with_pairs(seed: int, last_question: int, last_concept: int) -> Serving:
    """Return a random catalogue whose learner model knows half of all pairs that there can be."""
    rng = np.random.default_rng(seed)
    catalog = worlds.at_random(seed)
    rows = range(catalog.question_count)
    keys = [hash_pair(0, row, how) for row in rows for how in range(5)]
    keys += [hash_pair(kind, row, bits) for kind in (1, 2) for row in rows for bits in range(1, 8)]
    keys += [hash_pair(kind, row, last_question) for kind in (3, 4) for row in rows]
    keys += [hash_pair(kind, row, last_concept) for kind in (5, 6) for row in range(catalog.concept_count)]
    some = rng.permutation(np.array(keys, np.uint64))[: len(keys) // 2]
    return prepare(catalog, Models(random_model(rng, np.sort(some))))


def weight_of(served: Serving, kind: int, first: int, second: int) -> float:
    """Return what the hash table has of a pair."""
    return find_pair(served.learner.weights, np.uint64(hash_pair(kind, first, second)))


def scored(served: Serving, state: LearnerState, now: float) -> np.ndarray:
    """Return the chances of all questions from the kernel that serves."""
    rows = np.arange(served.catalog.question_count, dtype=np.uint32)
    recent, questions = read_only(state.recent), served.questions
    met, size = np.full(len(rows), -1, np.int32), served.catalog.concept_count
    standing = Standing(
        np.empty((size, VIEW_FLOATS)),
        np.empty((size, VIEW_COUNTS), np.uint32),
        np.empty(size, np.uint8),
        np.empty(size, np.int32),
    )
    stand(read_only(state.header), read_only(state.concepts), served.learner.weights, now, standing)
    for slot, row in enumerate(recent["question"].tolist()):
        if row < len(rows):
            met[row] = slot
    out = np.empty(len(rows))
    score_candidates(
        read_only(state.header), read_only(state.concepts), recent, rows, met, standing.place, standing.floats,
        questions.cards, questions.card_of,
        (questions.after_code, questions.after_row, questions.after_weight), served.question_concepts,
        served.learner.weights, now, out,
    )  # fmt: skip
    return out


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 30))
def test_chances_from_cards_equal_those_from_the_hash_table(seed: int, answers: int) -> None:
    plain = worlds.served(worlds.at_random(seed))
    state = worlds.someone(plain, seed, answers=answers) if answers else LearnerState.empty()
    head = state.header[0]
    served = with_pairs(seed, int(head["last_question"]), int(head["last_concept"][0]))
    now = worlds.NOON + 3600.0
    rows = np.arange(served.catalog.question_count, dtype=np.uint32)
    expected = predict(state, rows, served.question_concepts, served.learner, now)
    assert scored(served, state, now).tolist() == expected.tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_pairs_by_question_are_what_the_hash_table_finds(seed: int) -> None:
    served = with_pairs(seed, 7, 2)
    questions = served.catalog.question_count
    pairs = by_question(served.learner.weights, questions)
    for row in range(questions):
        assert pairs.own[row, :5].tolist() == [weight_of(served, 0, row, how) for how in range(5)]
        for kind, start in ((1, AFTER_OWN), (2, AFTER_ANY)):
            told = [weight_of(served, kind, row, bits) for bits in range(1, 8)]
            assert pairs.own[row, start + 1 : start + 8].tolist() == told
    for outcome in range(2):
        after = {row: weight_of(served, 3 + outcome, row, 7) for row in range(questions)}
        ours = pairs.code == 2 * 7 + outcome
        held = dict(zip(pairs.row[ours].tolist(), pairs.weight[ours].tolist(), strict=True))
        assert held == {row: weight for row, weight in after.items() if weight}
        assert list(held) == sorted(held)
    assert (np.diff(pairs.code) >= 0).all()


def test_a_model_without_pairs_has_none_by_question() -> None:
    pairs = by_question(LearnerModel.priors().weights, 4)
    assert pairs.own.shape[0] == 4
    assert not pairs.own.any()
    assert len(pairs.code) == len(pairs.row) == len(pairs.weight) == 0


def test_a_card_is_four_cache_lines() -> None:
    assert CARD.itemsize == 256
    cards = with_followers(1).questions.cards
    assert cards.ctypes.data % 64 == 0


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_a_card_holds_what_the_arrays_hold(seed: int) -> None:
    served = with_followers(seed)
    questions, own = served.questions, served.catalog.question_concepts
    assert sorted(questions.card_of.tolist()) == list(range(served.catalog.question_count))
    for row in range(served.catalog.question_count):
        card, concepts = questions.cards[questions.card_of[row]], own.of(row)
        content = card["content"].astype(np.float64) * card["content_step"]
        assert content == pytest.approx(questions.content[row], abs=0.5001 * float(card["content_step"]))
        factor = card["factor"].astype(np.float64) * card["factor_step"]
        known = questions.factors[row] if row < len(questions.factors) else np.zeros(64)
        assert factor == pytest.approx(known, abs=0.5001 * float(card["factor_step"]))
        assert card["popularity"] == questions.popularity[row]
        assert card["seconds"] == questions.seconds[row]
        assert card["exercise_set"] == questions.exercise_set[row]
        assert card["concepts"] == len(concepts)
        assert not len(concepts) or card["concept"] == concepts[0]
        label = questions.labels[row]
        assert label["card"] == questions.card_of[row]
        assert label["active"] == questions.active[row]
        assert label["concepts"] == len(concepts)
        assert label["concept"] == card["concept"]


def test_questions_of_one_concept_lie_together_in_the_order_of_its_shelf() -> None:
    served = worlds.served(worlds.chain("count", "add"))
    shelf = served.questions.shelf_rows[served.questions.shelf_offsets[1] : served.questions.shelf_offsets[2]]
    places = served.questions.card_of[shelf]
    assert np.diff(places).tolist() == [1] * (len(shelf) - 1)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_likeness_in_steps_is_that_of_the_vectors(seed: int) -> None:
    ours, theirs = (np.random.default_rng(seed).standard_normal((2, 64)) / 8).astype(np.float32)
    fine, coarse = np.empty(64, np.int16), np.empty(64, np.int8)
    step = coarsen(ours, FINE_STEPS, fine) * coarsen(theirs, STEPS, coarse)
    assert alike(fine, coarse) == int(fine.astype(int) @ coarse.astype(int))
    assert step * alike(fine, coarse) == pytest.approx(float(ours @ theirs), abs=0.02)


def test_no_vector_has_no_steps() -> None:
    out = np.ones(64, np.int8)
    assert coarsen(np.zeros(64, np.float32), STEPS, out) == 0.0
    assert not out.any()

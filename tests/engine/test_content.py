"""Content space: what is alike lies close, in the hashed and in the trained space."""

import numpy as np
import pytest

from engine.content import WIDTH, embed_questions, train_content, words
from engine.types import F4, Concept, Question

CONCEPTS = [Concept("fractions", 0, title="Fractions"), Concept("angles", 1, title="Angles", area="geometry")]


def embed(*questions: Question) -> F4:
    return embed_questions(CONCEPTS, questions, max(q.row for q in questions) + 1)


def test_vectors_have_unit_length_and_holes_are_zero() -> None:
    vectors = embed(Question("a", 0, (0,), text="half of eight"), Question("b", 2, (1,)))
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1.0, 0.0, 1.0])
    assert vectors.shape == (3, WIDTH)


def test_the_same_concept_and_words_bring_questions_close() -> None:
    near, twin, far = embed(
        Question("a", 0, (0,), text="add one half and one third"),
        Question("b", 1, (0,), text="add one half and one fifth"),
        Question("c", 2, (1,), text="measure the angle of a triangle"),
    )
    assert near @ twin > 0.85
    assert near @ far < 0.5


def test_a_given_embedding_takes_the_place_of_the_text() -> None:
    given = np.eye(8)
    a, b, c = embed(
        Question("a", 0, (0,), text="one", embedding=tuple(given[0])),
        Question("b", 1, (0,), text="two", embedding=tuple(given[0])),
        Question("c", 2, (0,), text="one", embedding=tuple(given[1])),
    )
    assert a @ b == pytest.approx(1.0)
    assert a @ c < 0.98


def test_words_are_letters_and_digits_of_any_script() -> None:
    assert words("Add ½ to 12, Größe_x!") == ["add", "½", "to", "12", "grösse", "x"]


def test_the_trained_space_is_seeded_and_tells_topics_apart() -> None:
    rng = np.random.default_rng(0)
    topics = [["half", "third", "fraction"], ["angle", "triangle", "degree"]]
    filler = [f"word{i}" for i in range(200)]
    questions = [
        Question(f"q{i}", i, (i % 2,), text=" ".join([*rng.choice(topics[i % 2], 3), *rng.choice(filler, 4)]))
        for i in range(120)
    ]
    vectors = train_content(CONCEPTS, questions, 120, seed=1)
    likeness = vectors @ vectors.T
    same = np.equal.outer(np.arange(120) % 2, np.arange(120) % 2) & ~np.eye(120, dtype=bool)
    assert likeness[same].mean() > likeness[~same & ~np.eye(120, dtype=bool)].mean() + 0.2
    assert np.array_equal(vectors, train_content(CONCEPTS, questions, 120, seed=1))


def test_a_catalogue_too_small_to_train_on_is_hashed() -> None:
    questions = [Question("a", 0, (0,), text="one half")]
    assert np.array_equal(train_content(CONCEPTS, questions, 1, seed=1), embed(*questions))

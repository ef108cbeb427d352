"""The catalogue snapshot: rows and holes, lists by row, credit, times."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog import DEFAULT_SECONDS, PrerequisiteCycle, build_catalog
from engine.types import Concept, Prerequisite, Question
from tests import worlds

COUNT = Concept("count", 0, title="Counting", area="numbers", typical_seconds=20.0)
ADD = Concept("add", 2, prerequisites=(Prerequisite("count"),))


def test_an_empty_catalogue_is_a_catalogue() -> None:
    catalog = build_catalog([], [], version=0)
    assert (catalog.concept_count, catalog.question_count) == (0, 0)


def test_rows_that_nothing_has_are_holes() -> None:
    catalog = build_catalog([COUNT, ADD], [Question("sum", 3, (2,))], version=1)
    assert catalog.concept_ids == ["count", "", "add"]
    assert catalog.concept_active.tolist() == [1, 0, 1]
    assert catalog.question_active.tolist() == [0, 0, 0, 1]
    assert catalog.titles == ["Counting", "", "add"]
    assert catalog.importance[1] == 0.0


def test_what_names_a_deleted_concept_is_passed_over() -> None:
    catalog = build_catalog([ADD], [Question("sum", 0, (0, 2, 9))], version=1)
    assert catalog.prerequisites.rows.size == 0
    assert catalog.question_concepts.of(0).tolist() == [2]


def test_a_cycle_is_refused_by_name() -> None:
    knot = dataclasses.replace(COUNT, prerequisites=(Prerequisite("add"),))
    with pytest.raises(PrerequisiteCycle, match="count") as refused:
        build_catalog([knot, ADD], [], version=1)
    assert set(refused.value.path) == {"count", "add"}


@pytest.mark.parametrize(
    "concepts", [[COUNT, dataclasses.replace(ADD, row=0)], [COUNT, dataclasses.replace(COUNT, row=1)]]
)
def test_a_row_or_an_id_twice_is_refused(concepts: list[Concept]) -> None:
    with pytest.raises(ValueError, match="count"):
        build_catalog(concepts, [], version=1)


def test_practice_gives_credit_to_what_it_encompasses() -> None:
    catalog = worlds.chain("count", "add", "multiply")
    rows, weights = catalog.exercised(catalog.question_row["multiply-1"])
    assert rows.tolist() == [2, 1, 0]
    assert weights.tolist() == [1.0, 0.5, 0.25]
    assert catalog.encompassed(catalog.question_row["add-1"])[0].tolist() == [0]


def test_credit_of_the_catalogue_replaces_the_default() -> None:
    add = dataclasses.replace(ADD, prerequisites=(Prerequisite("count", encompassed=0.9),))
    catalog = build_catalog([COUNT, add], [Question("sum", 0, (2,))], version=1)
    assert catalog.exercised(0)[1].tolist() == pytest.approx([1.0, 0.9])


def test_expected_seconds_fall_back_from_question_to_concept_to_catalogue() -> None:
    questions = [
        Question("own", 0, (0,), expected_seconds=7.0),
        Question("concepts", 1, (0,)),
        Question("others", 2, (2,)),
    ]
    assert build_catalog([COUNT, ADD], questions, version=1).expected_seconds.tolist() == [7.0, 20.0, 13.5]
    assert build_catalog([ADD], [Question("q", 0, (2,))], version=1).expected_seconds.tolist() == [
        DEFAULT_SECONDS
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_lists_by_concept_turn_round_lists_by_question(seed: int) -> None:
    catalog = worlds.at_random(seed)
    pairs = {(q, int(c)) for q in range(catalog.question_count) for c in catalog.question_concepts.of(q)}
    assert pairs == {
        (int(q), c) for c in range(catalog.concept_count) for q in catalog.concept_questions.of(c)
    }
    difficulty = np.nan_to_num(catalog.difficulty, nan=0.5)
    for c in range(catalog.concept_count):
        assert np.all(np.diff(difficulty[catalog.concept_questions.of(c)]) >= 0.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_exercises_of_many_are_those_of_each(seed: int) -> None:
    catalog = worlds.at_random(seed)
    rows = np.random.default_rng(seed).integers(0, catalog.question_count, 9).astype(np.uint32)
    offsets, concepts, weights = catalog.exercised_many(rows)
    for i, row in enumerate(rows):
        own_rows, own_weights = catalog.exercised(int(row))
        assert concepts[offsets[i] : offsets[i + 1]].tolist() == own_rows.tolist()
        assert weights[offsets[i] : offsets[i + 1]].tolist() == own_weights.tolist()
        own = len(catalog.question_concepts.of(int(row)))
        assert own_weights[:own].tolist() == [1.0] * own
        assert np.all(own_weights[own:] < 1.0)
        assert len(set(own_rows.tolist())) == own_rows.size

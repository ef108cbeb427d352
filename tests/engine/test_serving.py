"""Preparing to serve: shelves by difficulty, and models older or newer than the catalogue."""

import dataclasses

import numpy as np
import pytest

from engine.serving import Models, prepare
from tests import worlds
from tests.engine.test_survey import with_followers


def test_shelves_hold_each_concepts_questions_hardest_first() -> None:
    served = worlds.served(worlds.chain("count", "add"))
    shelf = served.questions.shelf_rows[served.questions.shelf_offsets[1] : served.questions.shelf_offsets[2]]
    assert shelf.tolist() == [11, 10, 9, 8, 7, 6]
    assert np.all(np.diff(served.questions.shelf_logit[6:]) >= 0.0)


def test_a_concept_without_questions_is_not_active() -> None:
    catalog = worlds.chain("count", "add", each=2)
    listed = dataclasses.replace(
        catalog, question_concepts=catalog.question_concepts._replace(rows=np.zeros(4, np.uint32))
    )
    assert worlds.served(listed).concepts.active.tolist() == [1, 0]


def test_every_array_is_read_only() -> None:
    served = with_followers(3)
    assert not any(array.flags.writeable for array in (*served.concepts, *served.questions, served.gram))


def test_questions_newer_than_training_lie_at_the_origin() -> None:
    catalog = worlds.chain("count", each=4)
    trained = np.full((3, 64), 0.125, np.float32)
    content = prepare(catalog, dataclasses.replace(Models.priors(), content=trained)).questions.content
    assert np.linalg.norm(content, axis=1) == pytest.approx([1.0, 1.0, 1.0, 0.0])


def test_popular_questions_come_first_and_central_ones_break_ties() -> None:
    catalog = worlds.chain("count", "add", each=2)
    popularity = np.array([0.0, 0.0, 0.0, 0.9], np.float32)
    served = prepare(catalog, dataclasses.replace(Models.priors(), popularity=popularity))
    assert served.questions.popular.tolist() == [3, 0, 1, 2]

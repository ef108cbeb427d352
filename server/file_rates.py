"""How often each question of a file is answered right, for those the model knows nothing of yet. Stores nothing."""

import dataclasses
from collections.abc import Iterable, Mapping

import numpy as np

from engine.catalog import Catalog
from engine.learner import LearnerModel
from engine.learner.score import read_only
from engine.types import F4, F8
from server.data_files import Chunk

_PRIOR_ANSWERS = 50.0
"""Answers at the model's own base rate that the file's base rate is held to."""


def count_questions(chunks: Iterable[Chunk], row_of: Mapping[str, int], questions: int) -> F8:
    """(questions, 2) right and all answers to each question row; rows of the file that are wrong are passed over."""
    counts = np.zeros((questions, 2))
    for chunk in chunks:
        names, outcomes = chunk.column("question_id"), chunk.column("correct")
        if not names or not outcomes:
            continue
        rows = np.array([row_of.get(name, questions) for name in names])
        right = np.array([outcome == "1" for outcome in outcomes])
        counts[:, 0] += np.bincount(rows[right], minlength=questions + 1)[:questions]
        counts[:, 1] += np.bincount(rows, minlength=questions + 1)[:questions]
    return counts


def informed(model: LearnerModel, catalog: Catalog, counts: F8) -> LearnerModel:
    """The model, where it has seen no answer to a question or concept, with what `counts` (questions, 2) say of it.

    An answer is then held against how hard its question really is, also when a history is imported before anything was
    trained. A model without any answers takes its base rate from the counts, too.
    """
    total = counts.sum(axis=0)
    if not total[1]:
        return model
    own = catalog.question_concepts
    source = np.repeat(np.arange(len(own.offsets) - 1), np.diff(own.offsets))
    of_concept = np.stack(
        [np.bincount(own.rows, counts[source, side], catalog.concept_count) for side in (0, 1)], axis=1
    ).astype(np.float64)
    weights = model.weights
    constants = weights.constants.copy()
    if not weights.question_rate[:, 1].any():
        base = 1.0 / (1.0 + np.exp(-model.prior_logit))
        rate = (total[0] + _PRIOR_ANSWERS * base) / (total[1] + _PRIOR_ANSWERS)
        constants[0] = np.log(rate / (1.0 - rate))
    filled = weights._replace(
        constants=read_only(constants),
        question_rate=read_only(_filled(weights.question_rate, counts)),
        concept_rate=read_only(_filled(weights.concept_rate, of_concept)),
    )
    return dataclasses.replace(model, weights=filled)


def _filled(known: F4, counts: F8) -> F4:
    """`known` (k, 2), longer if need be, with `counts` (n, 2) where it has seen nothing."""
    result = np.zeros((max(len(known), len(counts)), 2), np.float32)
    result[: len(known)] = known
    unseen = result[: len(counts), 1] == 0.0
    result[: len(counts)][unseen] = counts[unseen]
    return result

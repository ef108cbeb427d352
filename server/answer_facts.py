"""From what is said of answers to the facts that are logged and learned from. Reads no store and no clock."""

from typing import NamedTuple

import numpy as np

from engine.catalog import Catalog
from engine.learner import LearnerModel, QuestionConcepts, grade_answer
from engine.types import F4, F8, U1, U4, AnswerBatch
from server.local_days import DEFAULT_TIME_ZONE, local_days

DAY_SECONDS = 86_400.0


class FactSource(NamedTuple):
    """A catalogue version and a learner model, as far as the facts of an answer depend on them."""

    catalog: Catalog
    model: LearnerModel
    """With the catalogue's medians."""
    base_logit: F4
    """(questions,)"""

    @classmethod
    def of(cls, catalog: Catalog, model: LearnerModel) -> "FactSource":
        """Work out what is the same for every answer."""
        concepts = QuestionConcepts.of(
            catalog.question_concepts.offsets, catalog.question_concepts.rows, catalog.difficulty
        )
        rows = np.arange(catalog.question_count, dtype=np.uint32)
        return cls(
            catalog,
            model.with_catalog(concepts, catalog.concept_count),
            model.base_logit(rows, concepts),
        )


def answer_facts(
    source: FactSource, *, question: U4, correct: U1, answered_at: F8, duration_ms: U4, hints: U1
) -> AnswerBatch:
    """Facts of n answers, of any learners, in the order given. `local_day` is that of UTC: see `on_calendar`."""
    offsets, concept, weight = source.catalog.exercised_many(question)
    nothing = np.full(concept.shape[0], np.nan, np.float32)
    expected_ms = source.catalog.expected_seconds[question] * np.float32(1e3)
    return AnswerBatch(
        question=question,
        correct=correct,
        answered_at=answered_at,
        base_logit=source.base_logit[question],
        grade=grade_answer(correct, duration_ms, expected_ms, hints),
        duration_ms=duration_ms,
        hints=hints,
        local_day=np.floor(answered_at / DAY_SECONDS).astype(np.int32),
        memory_set=np.full(question.shape[0], source.model.memory_set, np.uint16),
        offsets=offsets,
        concept=concept,
        weight=weight,
        mastery=nothing,
        mastery_sd=nothing,
    )


def on_calendar(batch: AnswerBatch, time_zone: str) -> AnswerBatch:
    """The batch with the days of a learner's own calendar."""
    if time_zone == DEFAULT_TIME_ZONE:
        return batch
    return batch._replace(local_day=np.array(local_days(batch.answered_at.tolist(), time_zone), np.int32))

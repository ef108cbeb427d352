"""From what is said of answers to the facts that are logged and learned from. Reads no store and no clock."""

import math
from typing import NamedTuple

import numpy as np

from engine.catalog import Catalog, Sparse, build_catalog
from engine.jit import lean_kernel
from engine.learner import LearnerModel, QuestionConcepts
from engine.learner.memory import grade_of
from engine.types import F4, F8, I4, U1, U4, AnswerBatch, Concept, Question
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
    """Facts of n answers, of any learners, in the order given. `local_day` is that of UTC: see `on_calendar`.

    Times are kept as they are told, to the microsecond: an answer that is exported and sent again is the same answer.
    """
    catalog = source.catalog
    offsets = np.empty(question.shape[0] + 1, np.int32)
    m = _lay_out(question, catalog.exercise_set, catalog.exercises.offsets, offsets)
    batch = AnswerBatch(
        question=question,
        correct=correct,
        answered_at=np.rint(answered_at * 1e6) / 1e6,
        base_logit=np.empty(question.shape[0], np.float32),
        grade=np.empty(question.shape[0], np.uint8),
        duration_ms=duration_ms,
        hints=hints,
        local_day=np.empty(question.shape[0], np.int32),
        memory_set=np.full(question.shape[0], source.model.memory_set, np.uint16),
        offsets=offsets,
        concept=np.empty(m, np.uint32),
        weight=np.empty(m, np.float32),
        mastery=np.full(m, np.nan, np.float32),
        mastery_sd=np.full(m, np.nan, np.float32),
    )
    _look_up(
        batch, catalog.exercise_set, catalog.exercises, catalog.exercise_weights, source.base_logit,
        catalog.expected_seconds,
    )  # fmt: skip
    return batch


@lean_kernel
def _lay_out(question: U4, exercise_set: I4, starts: I4, offsets: I4) -> int:
    """Fill offsets (n+1,) with where the pairs of each question begin; how many there are in all."""
    offsets[0] = 0
    for i in range(question.shape[0]):
        chosen = exercise_set[question[i]]
        offsets[i + 1] = offsets[i] + starts[chosen + 1] - starts[chosen]
    return int(offsets[question.shape[0]])


@lean_kernel
def _look_up(
    batch: AnswerBatch, exercise_set: I4, exercises: Sparse, weights: F4, base_logit: F4, expected_seconds: F4
) -> None:
    """Fill in what follows from question, outcome and times: of each answer, and of its pairs."""
    for i in range(batch.question.shape[0]):
        row = batch.question[i]
        expected_ms = expected_seconds[row] * np.float32(1e3)
        batch.base_logit[i] = base_logit[row]
        batch.grade[i] = grade_of(
            batch.correct[i], 1.0 * batch.duration_ms[i], 1.0 * expected_ms, batch.hints[i]
        )
        batch.local_day[i] = math.floor(batch.answered_at[i] / DAY_SECONDS)
        start = exercises.offsets[exercise_set[row]]
        for pair in range(batch.offsets[i], batch.offsets[i + 1]):
            entry = start + pair - batch.offsets[i]
            batch.concept[pair] = exercises.rows[entry]
            batch.weight[pair] = weights[entry]


def on_calendar(batch: AnswerBatch, time_zone: str) -> AnswerBatch:
    """The batch with the days of a learner's own calendar."""
    if time_zone == DEFAULT_TIME_ZONE:
        return batch
    return batch._replace(local_day=np.array(local_days(batch.answered_at.tolist(), time_zone), np.int32))


def warm_up() -> None:
    """Compile, or load from the disk cache, what the first answers would otherwise wait for."""
    catalog = build_catalog([Concept("0", 0)], [Question("0", 0, (0,))], version=1)
    one = np.ones(1, np.uint8)
    answer_facts(
        FactSource.of(catalog, LearnerModel.priors()),
        question=np.zeros(1, np.uint32),
        correct=one,
        answered_at=np.zeros(1),
        duration_ms=np.zeros(1, np.uint32),
        hints=one,
    )

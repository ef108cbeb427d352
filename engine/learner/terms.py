"""Why a prediction is what it is: the additive terms of its log odds. Makes no sentences."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from engine.learner.features import (
    DENSE_NAMES,
    N_CONCEPT,
    N_GLOBAL,
    N_OWN_VALUES,
    N_QUESTION,
    OWN_NAMES,
    PAIR_NAMES,
)
from engine.learner.model import LearnerModel
from engine.learner.rows import Rows, fill_row
from engine.learner.score import QuestionConcepts, base_of, find_pair, read_only
from engine.learner.state import FILTERS, LearnerState
from engine.types import AnswerBatch


class Term(NamedTuple):
    """One part of a prediction's log odds."""

    group: str
    """"learner", "concept", "question" or "sequence"."""
    name: str
    value: float
    weight: float
    contribution: float
    """value times weight, in log odds."""


def explain_prediction(
    state: LearnerState, question_row: int, qc: QuestionConcepts, model: LearnerModel, now: float
) -> tuple[Term, ...]:
    """Return the terms whose contributions sum to the log odds that `predict` gives; terms of value 0 are left out.

    "learner" is the learner as a whole, "concept" the question's concepts (the mean over them), "question" the question
    itself and how it was met before, "sequence" what was answered just before it.
    """
    w = model.weights
    concepts = qc.concepts[qc.offsets[question_row] : qc.offsets[question_row + 1]]
    if question_row >= len(qc.offsets) - 1:
        concepts = qc.concepts[:0]
    base, evidence = base_of(w, qc, question_row)
    rows = Rows.empty(1, max(len(concepts), 1))
    room = (np.empty(max(N_CONCEPT, N_QUESTION)), np.empty(FILTERS), np.empty(FILTERS))
    asked = _asked(question_row, concepts, now)
    decay = float(w.constants[2])
    fill_row(state.header, state.concepts, state.recent, asked, 0, base, evidence, decay, *room, rows, 0)
    terms = []
    for i, name in enumerate(DENSE_NAMES):
        group = "learner" if i < N_GLOBAL else ("concept" if i < N_GLOBAL + N_CONCEPT else "question")
        terms.append(_term(group, name, float(rows.dense[0, i]), float(w.dense[i])))
    terms.append(_term("learner", "last_outcomes", 1.0, float(w.global_pattern[rows.patterns[0]])))
    if question_row < len(w.question):
        bias, slope = (float(x) for x in w.question[question_row])
        terms += [
            _term("question", "own", 1.0, bias),
            _term("question", "slope", float(rows.ability[0]), slope),
        ]
    share = 1.0 / max(len(concepts), 1)
    for place in range(max(len(concepts), 1)):
        pattern = int(rows.concept_patterns[0, place])
        terms.append(_term("concept", "concept_last_outcomes", share, float(w.concept_pattern[pattern])))
        if place < len(concepts) and concepts[place] < len(w.concept):
            own = w.concept[concepts[place]]
            terms.append(_term("concept", OWN_NAMES[0], share, float(own[0])))
            for j in range(N_OWN_VALUES):
                value = share * float(rows.concept_values[0, place, j])
                terms.append(_term("concept", OWN_NAMES[1 + j], value, float(own[1 + j])))
            last_two = 1 + N_OWN_VALUES + (pattern & 3 | 4 if pattern >= 4 else pattern)
            terms.append(_term("concept", OWN_NAMES[last_two], share, float(own[last_two])))
    for kind, name in enumerate(PAIR_NAMES):
        if rows.keys[0, kind]:
            terms.append(_term("sequence", name, 1.0, find_pair(w, rows.keys[0, kind])))
    return tuple(term for term in terms if term.contribution != 0.0)


def _term(group: str, name: str, value: float, weight: float) -> Term:
    return Term(group, name, value, weight, value * weight)


def _asked(
    question_row: int, concepts: np.ndarray[tuple[int, ...], np.dtype[np.uint32]], now: float
) -> AnswerBatch:
    """Return the question as one answer yet to be given; the outcome is never read."""
    k = len(concepts)
    none = np.full(k, np.nan, np.float32)
    types = (np.uint32, np.uint8, np.float64, np.float32, np.uint8, np.uint32, np.uint8, np.int32, np.uint16)
    fields = [np.zeros(1, t) for t in types]
    fields[0][0], fields[2][0] = question_row, now
    pairs = [np.array([0, k], np.int32), concepts, np.ones(k, np.float32), none, none]
    return AnswerBatch._make(read_only(field) for field in [*fields, *pairs])

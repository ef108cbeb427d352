"""Chances of success on many questions of one learner, what they share worked out once. The formulas are `score`'s."""

import math

import numpy as np

from engine.jit import kernel
from engine.learner.features import (
    N_CONCEPT,
    N_GLOBAL,
    N_PAIRS,
    SHRINK,
    pair_key,
    question_features,
    question_slope,
)
from engine.learner.score import (
    QuestionConcepts,
    Scratch,
    Weights,
    add_level,
    base_of,
    concept_score,
    dot_question,
    find_pair,
    global_score,
    make_scratch,
    start_level,
)
from engine.learner.state import FILTERS, Records
from engine.learner.update import Record, sigmoid, widen
from engine.types import F8, I4, NO_ROW, U4


@kernel
def fill_bases(qc: QuestionConcepts, w: Weights, bases: F8) -> None:
    """Fill bases (questions, 2) with the base logit and the answers it rests on, as log(1 + n), by question row."""
    for question in range(bases.shape[0]):
        base, evidence = base_of(w, qc, question)
        bases[question, 0] = base
        bases[question, 1] = math.log1p(evidence)


@kernel
def score_candidates(
    header: Records,
    concepts: Records,
    recent: Records,
    questions: U4,
    met: I4,
    place: I4,
    bases: F8,
    qc: QuestionConcepts,
    w: Weights,
    now: float,
    out: F8,
) -> None:
    """Fill out (n,) with what `engine.learner.score.score_questions` does, to the bit, for rows of the catalogue.

    `met` (n,) is each question's place in the ring, -1 where it is not there; `place` (concepts,) what
    `engine.learner.view.stand` fills; `bases` what `fill_bases` fills.
    """
    head = header[0]
    room = make_scratch()
    parts = np.full(place.shape[0], math.nan)
    whole = global_score(head, now, w, room)
    slope = question_slope(room.whole)
    for i in range(questions.shape[0]):
        question = widen(questions[i])
        start_level(head, room.level, room.spread)
        total = whole
        share = 1.0 / max(qc.offsets[question + 1] - qc.offsets[question], 1)
        for pair in range(qc.offsets[question], qc.offsets[question + 1]):
            row = widen(qc.concepts[pair])
            at = widen(place[row])
            add_level(concepts, at, share, room.level, room.spread)
            if math.isnan(parts[row]):
                parts[row] = concept_score(head, concepts, at, row, now, w, room)
            total += share * parts[row]
        if qc.offsets[question] == qc.offsets[question + 1]:
            total += concept_score(head, concepts, widen(-1), widen(NO_ROW), now, w, room)
        total += _own_part(head, recent, widen(met[i]), bases[question], now, w, room)
        if question < w.question.shape[0]:
            total += w.question[question, 0] + w.question[question, 1] * slope
        out[i] = total
    if w.pair_key.shape[0] > 1:
        _add_pairs(head, concepts, recent, questions, met, place, qc, w, out)
    for i in range(questions.shape[0]):
        out[i] = sigmoid(out[i])


@kernel
def _own_part(
    head: Record, recent: Records, met: int, base: F8, now: float, w: Weights, room: Scratch
) -> float:
    """Log odds from the question itself and from what its concepts add up to; room holds level and spread."""
    if met >= 0:
        question_features(
            head, recent[met], True, base[0], 0.0, room.level, room.spread, now, w.constants[2], room.part
        )
        room.part[1 + FILTERS] = base[1]
        return dot_question(w, room.part)
    # Of a question that is not in the ring, all further features are 0.
    first = N_GLOBAL + N_CONCEPT
    total = w.dense[first] * base[0]
    for j in range(FILTERS):
        total += w.dense[first + 1 + j] * (
            (base[0] + room.level[j]) / math.sqrt(1.0 + SHRINK * room.spread[j])
        )
    return float(total + w.dense[first + 1 + FILTERS] * base[1])


@kernel
def _add_pairs(
    head: Record,
    concepts: Records,
    recent: Records,
    questions: U4,
    met: I4,
    place: I4,
    qc: QuestionConcepts,
    w: Weights,
    out: F8,
) -> None:
    """Add the weights of each question's pairs to out (n,): in a loop of its own, so that look-ups overlap."""
    for i in range(questions.shape[0]):
        question = widen(questions[i])
        first, pattern = widen(NO_ROW), widen(1)
        if qc.offsets[question] < qc.offsets[question + 1]:
            first = widen(qc.concepts[qc.offsets[question]])
            if place[first] >= 0:
                pattern = widen(concepts[place[first]].pattern)
        known = met[i] >= 0
        seen = recent[max(widen(met[i]), 0)]
        for kind in range(N_PAIRS):
            key = pair_key(kind, head, seen, known, pattern, question, first)
            if key != np.uint64(0):
                out[i] += find_pair(w, key)

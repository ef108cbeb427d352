"""From a learner's state and fitted weights to chances of success. Changes no state and fits nothing."""

import math
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from engine.jit import kernel, lean_kernel
from engine.learner.features import (
    CONCEPT_RATE_STRENGTH,
    N_CONCEPT,
    N_GLOBAL,
    N_OWN_VALUES,
    N_PAIRS,
    N_QUESTION,
    QUESTION_RATE_STRENGTH,
    global_features,
    last_outcomes,
    new_concept_features,
    own_values,
    pair_key,
    question_features,
    question_slope,
    recall_of,
    recalled_features,
)
from engine.learner.memory import recall_factor
from engine.learner.state import FILTERS, Records
from engine.learner.update import CONCEPT_VARIANCE, Record, find_question, find_row, sigmoid, widen
from engine.types import F4, F8, I4, NO_ROW, U4

U8 = npt.NDArray[np.uint64]
S = TypeVar("S", bound=np.generic)


class QuestionConcepts(NamedTuple):
    """Which concepts each question exercises, by question row; all arrays read-only and C-contiguous."""

    offsets: I4
    """(questions+1,) start of each question's concepts."""
    concepts: U4
    """(pairs,) concept rows."""
    difficulty: F4
    """(questions,) share of learners expected to fail, as the caller said; NaN when not said."""

    @classmethod
    def of(cls, offsets: I4, concepts: U4, difficulty: F4 | None = None) -> "QuestionConcepts":
        """Return read-only views with the right types; no difficulty means none was said."""
        if difficulty is None:
            difficulty = np.full(len(offsets) - 1, np.nan, np.float32)
        return cls(
            read_only(np.ascontiguousarray(offsets, np.int32)),
            read_only(np.ascontiguousarray(concepts, np.uint32)),
            read_only(np.ascontiguousarray(difficulty, np.float32)),
        )


class Weights(NamedTuple):
    """What kernels read of a model; arrays are read-only, rows past their end count as never seen."""

    dense: F8
    """(N_DENSE,) weights of the named features."""
    constants: F8
    """(3,) global logit, typical evidence of a question (answers), FSRS's w20 in use."""
    question: F4
    """(questions, 2) bias, slope on the learner's ability."""
    concept: F4
    """(concepts, N_OWN) by OWN_NAMES."""
    concept_pattern: F4
    """(32,) by the concept's last 4 outcomes."""
    global_pattern: F4
    """(64,) by the last 5 outcomes."""
    pair_key: U8
    """(2^b,) open-addressing table of pair keys, 0 where free."""
    pair_weight: F4
    """(2^b,)"""
    question_rate: F4
    """(questions, 2) right and all answers seen in training."""
    concept_rate: F4
    """(concepts, 2) the same."""
    mastery: F8
    """(4,) of mastery: offset, weight of the ability filter (≥ 0), of what is not recalled (≤ 0), of the run (≥ 0)."""
    concept_median: F4
    """(concepts,) base logit of the concept's median question; NaN when it has none."""


def read_only(array: npt.NDArray[S]) -> npt.NDArray[S]:
    """Return a plain read-only view, so that every kernel is compiled for one kind of array only."""
    view = np.asarray(array).view()
    view.setflags(write=False)
    return view


@lean_kernel
def logit(p: float) -> float:
    """Log odds of p, held to 0.001..0.999."""
    held = min(max(p, 0.001), 0.999)
    return math.log(held / (1.0 - held))


@lean_kernel
def concept_rate(w: Weights, concept: int) -> float:
    """Success rate of a concept, held to the tenant's by CONCEPT_RATE_STRENGTH pseudo-answers."""
    overall = sigmoid(w.constants[0])
    if concept >= w.concept_rate.shape[0]:
        return overall
    right = w.concept_rate[concept, 0]
    tried = w.concept_rate[concept, 1]
    return float((right + CONCEPT_RATE_STRENGTH * overall) / (tried + CONCEPT_RATE_STRENGTH))


@lean_kernel
def success_rate(difficulty: float) -> float:
    """Success rate that a difficulty of 0 to 1, as said by a caller, stands for: its complement, .05 to .95."""
    return min(max(1.0 - difficulty, 0.05), 0.95)


@lean_kernel
def base_of(w: Weights, qc: QuestionConcepts, question: int) -> tuple[float, float]:
    """Return (base logit, answers it rests on) of a question: its own rate held to its concepts', then the tenant's.

    A difficulty said by the caller stands in for the concepts' rate. A row outside `qc` is a question of no concept.
    """
    prior = sigmoid(w.constants[0])
    if question < qc.offsets.shape[0] - 1:
        start = qc.offsets[question]
        stop = qc.offsets[question + 1]
        if not math.isnan(qc.difficulty[question]):
            prior = success_rate(qc.difficulty[question])
        elif stop > start:
            prior = 0.0
            for i in range(start, stop):
                prior += concept_rate(w, widen(qc.concepts[i])) / (stop - start)
    right = 0.0
    tried = 0.0
    if question < w.question_rate.shape[0]:
        right = float(w.question_rate[question, 0])
        tried = float(w.question_rate[question, 1])
    return logit((right + QUESTION_RATE_STRENGTH * prior) / (tried + QUESTION_RATE_STRENGTH)), tried


@lean_kernel
def find_pair(w: Weights, key: np.uint64) -> float:
    """Weight of a pair key, 0 when it was too rare to be fitted."""
    mask = np.uint64(w.pair_key.shape[0] - 1)
    slot = key & mask
    while w.pair_key[slot] != np.uint64(0):
        if w.pair_key[slot] == key:
            return float(w.pair_weight[slot])
        slot = (slot + np.uint64(1)) & mask
    return 0.0


class Scratch(NamedTuple):
    """Room that kernels write features into; made once a call by `make_scratch`."""

    whole: F8
    """(N_GLOBAL,) the learner's features, kept for the whole call."""
    part: F8
    """Room for a concept's or a question's features."""
    own: F8
    """(N_OWN_VALUES,)"""
    level: F8
    """(FILTERS,) summed means."""
    spread: F8
    """(FILTERS,) summed variances."""
    blank: F8
    """(N_CONCEPT,) features of a concept never touched."""
    blank_score: F8
    """(1,) their score by the weights that all concepts share; `global_score` sets it."""


@kernel
def make_scratch() -> Scratch:
    """Return room, unfilled but for the blank concept."""
    blank = np.empty(N_CONCEPT)
    new_concept_features(blank)
    return Scratch(
        np.empty(N_GLOBAL),
        np.empty(max(N_CONCEPT, N_QUESTION)),
        np.empty(N_OWN_VALUES),
        np.empty(FILTERS),
        np.empty(FILTERS),
        blank,
        np.empty(1),
    )


@lean_kernel
def shared_score(w: Weights, pattern: int, part: F8) -> float:
    """Log odds from a concept's features `part` (N_CONCEPT,) by the weights all concepts share."""
    total = float(w.concept_pattern[last_outcomes(pattern, 4)])
    for j in range(N_CONCEPT):
        total += w.dense[N_GLOBAL + j] * part[j]
    return total


@lean_kernel
def global_score(header: Record, now: float, w: Weights, room: Scratch) -> float:
    """Log odds from the learner as a whole; leaves the learner's features in room.whole."""
    global_features(header, now, room.whole)
    room.blank_score[0] = shared_score(w, widen(1), room.blank)
    total = float(w.global_pattern[last_outcomes(widen(header.pattern), 5)])
    for j in range(N_GLOBAL):
        total += w.dense[j] * room.whole[j]
    return total


@lean_kernel
def own_score(w: Weights, row: int, pattern: int, part: F8, room: Scratch) -> float:
    """Log odds from a concept's features `part` (N_CONCEPT,) by the concept's own weights, 0 when it has none."""
    if row >= w.concept.shape[0]:
        return 0.0
    own_values(room.whole, part, room.own)
    total = float(w.concept[row, 0]) + float(w.concept[row, 1 + N_OWN_VALUES + last_outcomes(pattern, 2)])
    for j in range(N_OWN_VALUES):
        total += w.concept[row, 1 + j] * room.own[j]
    return total


@lean_kernel
def concept_score(
    header: Record, concepts: Records, at: int, row: int, now: float, recall: float, w: Weights, room: Scratch
) -> float:
    """Log odds from one concept, touched (record `at`) or not (-1); room.whole must hold the learner's features.

    `recall` is `recall_of`'s of a touched one.
    """
    if at < 0:
        return float(room.blank_score[0]) + own_score(w, row, widen(1), room.blank, room)
    recalled_features(header, concepts[at], now, recall, room.part)
    pattern = widen(concepts[at].pattern)
    return shared_score(w, pattern, room.part) + own_score(w, row, pattern, room.part, room)


@lean_kernel
def add_level(concepts: Records, at: int, share: float, level: F8, spread: F8) -> None:
    """Add one concept's part to the summed means and variances of both filters."""
    for j in range(FILTERS):
        if at >= 0:
            level[j] += share * concepts[at].mean[j]
            spread[j] += share * share * concepts[at].variance[j]
        else:
            spread[j] += share * share * CONCEPT_VARIANCE[j]


@lean_kernel
def start_level(header: Record, level: F8, spread: F8) -> None:
    """Set level and spread to the learner's own."""
    for j in range(FILTERS):
        level[j] = header.mean[j]
        spread[j] = header.variance[j]


@lean_kernel
def dot_question(w: Weights, scratch: F8) -> float:
    """Weighted sum of the question features in scratch[:N_QUESTION]."""
    total = 0.0
    for j in range(N_QUESTION):
        total += w.dense[N_GLOBAL + N_CONCEPT + j] * scratch[j]
    return total


@lean_kernel
def score_question(
    head: Record,
    concepts: Records,
    recent: Records,
    question: int,
    rows: U4,
    base: float,
    evidence: float,
    now: float,
    w: Weights,
    whole: float,
    ready: F8,
    room: Scratch,
) -> float:
    """Log odds of success on one question that exercises concepts `rows` (k,).

    `whole` is the learner's `global_score`. `ready`, one place a touched concept, keeps concept scores already worked
    out (NaN where not yet).
    """  # fmt: skip
    start_level(head, room.level, room.spread)
    total = whole
    share = 1.0 / max(rows.shape[0], 1)
    first_pattern = widen(1)
    for i in range(rows.shape[0]):
        row = widen(rows[i])
        at = find_row(concepts, row)
        add_level(concepts, at, share, room.level, room.spread)
        if at < 0:
            total += share * concept_score(head, concepts, at, row, now, math.nan, w, room)
            continue
        if math.isnan(ready[at]):
            recall = recall_of(concepts[at], now, w.constants[2], recall_factor(w.constants[2]))
            ready[at] = concept_score(head, concepts, at, row, now, recall, w, room)
        total += share * ready[at]
        if i == 0:
            first_pattern = widen(concepts[at].pattern)
    if rows.shape[0] == 0:
        total += concept_score(head, concepts, widen(-1), widen(NO_ROW), now, math.nan, w, room)
    met = find_question(recent, question)
    known = met >= 0
    seen = recent[max(met, 0)]
    question_features(
        head, seen, known, base, evidence, room.level, room.spread, now, w.constants[2], room.part
    )
    total += dot_question(w, room.part)
    if question < w.question.shape[0]:
        total += w.question[question, 0] + w.question[question, 1] * question_slope(room.whole)
    if w.pair_key.shape[0] > 1:
        first = widen(rows[0]) if rows.shape[0] > 0 else widen(NO_ROW)
        for kind in range(N_PAIRS):
            key = pair_key(kind, head, seen, known, first_pattern, question, first)
            if key != np.uint64(0):
                total += find_pair(w, key)
    return total


@kernel
def score_questions(
    header: Records,
    concepts: Records,
    recent: Records,
    questions: U4,
    qc: QuestionConcepts,
    w: Weights,
    now: float,
    out: F8,
) -> None:
    """Fill out (n,) with the chance of success on each of `questions` (n,) at `now`.

    A concept's part is worked out once and reused, so that hundreds of candidates cost little more than the learner's
    concepts.
    """  # fmt: skip
    head = header[0]
    room = make_scratch()
    ready = np.full(concepts.shape[0], math.nan)
    whole = global_score(head, now, w, room)
    for i in range(questions.shape[0]):
        question = widen(questions[i])
        start = 0
        stop = 0
        if question < qc.offsets.shape[0] - 1:
            start = qc.offsets[question]
            stop = qc.offsets[question + 1]
        base, evidence = base_of(w, qc, question)
        z = score_question(
            head,
            concepts,
            recent,
            question,
            qc.concepts[start:stop],
            base,
            evidence,
            now,
            w,
            whole,
            ready,
            room,
        )
        out[i] = sigmoid(z)

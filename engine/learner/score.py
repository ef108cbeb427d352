"""From a learner's state and fitted weights to chances of success. Changes no state and fits nothing."""

import math
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from engine.jit import kernel
from engine.learner.features import (
    CONCEPT_RATE_STRENGTH,
    N_CONCEPT,
    N_GLOBAL,
    N_PAIRS,
    N_QUESTION,
    QUESTION_RATE_STRENGTH,
    SHRINK,
    concept_features,
    global_features,
    last_outcomes,
    new_concept_features,
    pair_key,
    question_features,
)
from engine.learner.memory import SECONDS_A_DAY, days_until, retrievability
from engine.learner.state import FILTERS, Records
from engine.learner.update import CONCEPT_VARIANCE, LOST_BELOW, Record, find_question, find_row, sigmoid
from engine.types import F4, F8, I4, NO_ROW, U1, U4

U8 = npt.NDArray[np.uint64]
S = TypeVar("S", bound=np.generic)

VIEW_FLOATS = 9
VIEW_COUNTS = 4


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
    question_bias: F4
    """(questions,)"""
    concept: F4
    """(concepts, 3) bias, weight of log(1+right), weight of log(1+wrong)."""
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
    concept_median: F4
    """(concepts,) base logit of the concept's median question; NaN when it has none."""


def read_only(array: npt.NDArray[S]) -> npt.NDArray[S]:
    """Return a plain read-only view, so that every kernel is compiled for one kind of array only."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


@kernel
def logit(p: float) -> float:
    """Log odds of p, held to 0.001..0.999."""
    held = min(max(p, 0.001), 0.999)
    return math.log(held / (1.0 - held))


@kernel
def concept_rate(w: Weights, concept: int) -> float:
    """Success rate of a concept, held to the tenant's by CONCEPT_RATE_STRENGTH pseudo-answers."""
    overall = sigmoid(w.constants[0])
    if concept >= w.concept_rate.shape[0]:
        return overall
    right = w.concept_rate[concept, 0]
    tried = w.concept_rate[concept, 1]
    return float((right + CONCEPT_RATE_STRENGTH * overall) / (tried + CONCEPT_RATE_STRENGTH))


@kernel
def base_of(w: Weights, qc: QuestionConcepts, question: int) -> tuple[float, float]:
    """Return (base logit, answers it rests on) of a question: its own rate held to its concepts', then the tenant's.

    A difficulty said by the caller stands in for the concepts' rate. A row outside `qc` is a question of no concept.
    """
    prior = sigmoid(w.constants[0])
    if question < qc.offsets.shape[0] - 1:
        start = qc.offsets[question]
        stop = qc.offsets[question + 1]
        if not math.isnan(qc.difficulty[question]):
            prior = min(max(1.0 - qc.difficulty[question], 0.05), 0.95)
        elif stop > start:
            prior = 0.0
            for i in range(start, stop):
                prior += concept_rate(w, qc.concepts[i]) / (stop - start)
    right = 0.0
    tried = 0.0
    if question < w.question_rate.shape[0]:
        right = float(w.question_rate[question, 0])
        tried = float(w.question_rate[question, 1])
    return logit((right + QUESTION_RATE_STRENGTH * prior) / (tried + QUESTION_RATE_STRENGTH)), tried


@kernel
def find_pair(w: Weights, key: np.uint64) -> float:
    """Weight of a pair key, 0 when it was too rare to be fitted."""
    mask = np.uint64(w.pair_key.shape[0] - 1)
    slot = key & mask
    while w.pair_key[slot] != np.uint64(0):
        if w.pair_key[slot] == key:
            return float(w.pair_weight[slot])
        slot = (slot + np.uint64(1)) & mask
    return 0.0


@kernel
def global_score(header: Record, now: float, w: Weights, scratch: F8) -> float:
    """Log odds from the learner as a whole; `scratch` has room for N_GLOBAL."""
    global_features(header, now, scratch)
    total = float(w.global_pattern[last_outcomes(int(header.pattern), 5)])
    for j in range(N_GLOBAL):
        total += w.dense[j] * scratch[j]
    return total


@kernel
def concept_score(
    header: Record, concepts: Records, at: int, row: int, now: float, w: Weights, scratch: F8
) -> float:
    """Log odds from one concept, touched (record `at`) or not (-1); `scratch` has room for N_CONCEPT."""
    pattern = 1
    right = 0.0
    wrong = 0.0
    if at >= 0:
        concept = concepts[at]
        concept_features(header, concept, now, w.constants[2], scratch)
        pattern = last_outcomes(int(concept.pattern), 4)
        right = math.log1p(float(concept.correct))
        wrong = math.log1p(float(concept.attempts) - float(concept.correct))
    else:
        new_concept_features(scratch)
    total = float(w.concept_pattern[pattern])
    for j in range(N_CONCEPT):
        total += w.dense[N_GLOBAL + j] * scratch[j]
    if row < w.concept.shape[0]:
        total += w.concept[row, 0] + w.concept[row, 1] * right + w.concept[row, 2] * wrong
    return total


@kernel
def add_level(concepts: Records, at: int, share: float, level: F8, spread: F8) -> None:
    """Add one concept's part to the summed means and variances of both filters."""
    for j in range(FILTERS):
        if at >= 0:
            level[j] += share * concepts[at].mean[j]
            spread[j] += share * share * concepts[at].variance[j]
        else:
            spread[j] += share * share * CONCEPT_VARIANCE[j]


@kernel
def start_level(header: Record, level: F8, spread: F8) -> None:
    """Set level and spread to the learner's own."""
    for j in range(FILTERS):
        level[j] = header.mean[j]
        spread[j] = header.variance[j]


@kernel
def dot_question(w: Weights, scratch: F8) -> float:
    """Weighted sum of the question features in scratch[:N_QUESTION]."""
    total = 0.0
    for j in range(N_QUESTION):
        total += w.dense[N_GLOBAL + N_CONCEPT + j] * scratch[j]
    return total


@kernel
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
    blank: float,
    ready: F8,
    scratch: F8,
    level: F8,
    spread: F8,
) -> float:
    """Log odds of success on one question that exercises concepts `rows` (k,).

    `whole` is the learner's `global_score`, `blank` the `concept_score` of an untouched concept with no row.
    `ready`, one place a touched concept, keeps concept scores already worked out (NaN where not yet).
    """  # fmt: skip
    start_level(head, level, spread)
    total = whole
    share = 1.0 / max(rows.shape[0], 1)
    first_pattern = 1
    for i in range(rows.shape[0]):
        row = int(rows[i])
        at = find_row(concepts, row)
        add_level(concepts, at, share, level, spread)
        if at < 0:
            total += share * (blank + (w.concept[row, 0] if row < w.concept.shape[0] else 0.0))
            continue
        if math.isnan(ready[at]):
            ready[at] = concept_score(head, concepts, at, row, now, w, scratch)
        total += share * ready[at]
        if i == 0:
            first_pattern = int(concepts[at].pattern)
    if rows.shape[0] == 0:
        total += blank
    met = find_question(recent, question)
    known = met >= 0
    seen = recent[max(met, 0)]
    question_features(head, seen, known, base, evidence, level, spread, now, w.constants[2], scratch)
    total += dot_question(w, scratch)
    if question < w.question_bias.shape[0]:
        total += w.question_bias[question]
    if w.pair_key.shape[0] > 1:
        first = int(rows[0]) if rows.shape[0] > 0 else int(NO_ROW)
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
    """
    head = header[0]
    scratch = np.empty(max(N_GLOBAL, N_CONCEPT, N_QUESTION))
    level = np.empty(FILTERS)
    spread = np.empty(FILTERS)
    ready = np.full(concepts.shape[0], math.nan)
    whole = global_score(head, now, w, scratch)
    blank = concept_score(head, concepts, -1, NO_ROW, now, w, scratch)
    for i in range(questions.shape[0]):
        question = int(questions[i])
        start = 0
        stop = 0
        if question < qc.offsets.shape[0] - 1:
            start = qc.offsets[question]
            stop = qc.offsets[question + 1]
        base, evidence = base_of(w, qc, question)
        z = score_question(
            head, concepts, recent, question, qc.concepts[start:stop], base, evidence, now,
            w, whole, blank, ready, scratch, level, spread,
        )  # fmt: skip
        out[i] = sigmoid(z)


@kernel
def median_of(w: Weights, row: int) -> float:
    """Base logit of a concept's median question, the concept's own rate when it has none."""
    if row < w.concept_median.shape[0] and not math.isnan(w.concept_median[row]):
        return float(w.concept_median[row])
    return logit(concept_rate(w, row))


@kernel
def mastery_of(
    header: Record,
    concepts: Records,
    recent: Records,
    at: int,
    row: int,
    whole: float,
    now: float,
    w: Weights,
    scratch: F8,
    level: F8,
    spread: F8,
) -> tuple[float, float]:
    """Return (mastery, standard deviation) of a concept: the chance on its median question, as one never met.

    `whole` is the learner's `global_score`. The deviation is the slow filter's, through the logistic curve.
    """  # fmt: skip
    total = whole + concept_score(header, concepts, at, row, now, w, scratch)
    start_level(header, level, spread)
    add_level(concepts, at, 1.0, level, spread)
    question_features(
        header,
        recent[0],
        False,
        median_of(w, row),
        w.constants[1],
        level,
        spread,
        now,
        w.constants[2],
        scratch,
    )
    p = sigmoid(total + dot_question(w, scratch))
    return p, p * (1.0 - p) * math.sqrt(spread[0] / (1.0 + SHRINK * spread[0]))


@kernel
def view_concepts(
    header: Records,
    concepts: Records,
    recent: Records,
    w: Weights,
    now: float,
    retention: float,
    floats: F8,
    counts: U4,
    flags: U1,
) -> None:
    """Fill dense arrays over the concept rows 0..n-1.

    floats (n, VIEW_FLOATS): mastery, its sd, retrievability, stability (days), difficulty, next review, last practised,
    mastered at, fades at (epoch seconds; NaN where there is none). counts (n, VIEW_COUNTS): attempts, correct, lapses,
    implied. flags (n,): mastered. A mastery fades as recall does: it is taken to fall below LOST_BELOW when
    retrievability has fallen to LOST_BELOW over mastery of what it is now.
    """
    head = header[0]
    scratch = np.empty(max(N_GLOBAL, N_CONCEPT, N_QUESTION))
    level = np.empty(FILTERS)
    spread = np.empty(FILTERS)
    decay = w.constants[2]
    whole = global_score(head, now, w, scratch)
    at = 0
    for row in range(floats.shape[0]):
        while at < concepts.shape[0] and concepts[at].row < row:
            at += 1
        found = at if at < concepts.shape[0] and concepts[at].row == row else -1
        out = floats[row]
        out[:] = math.nan
        counts[row] = 0
        flags[row] = 0
        mastery, sd = mastery_of(head, concepts, recent, found, row, whole, now, w, scratch, level, spread)
        out[0] = mastery
        out[1] = sd
        if found < 0:
            continue
        concept = concepts[found]
        if concept.stability > 0.0:
            s = float(concept.stability)
            recall = retrievability((now - concept.review_at) / SECONDS_A_DAY, s, decay)
            out[2] = recall
            out[3] = s
            out[4] = concept.difficulty
            out[5] = concept.review_at + SECONDS_A_DAY * days_until(s, retention, decay)
            if mastery > LOST_BELOW:
                out[8] = concept.review_at + SECONDS_A_DAY * days_until(
                    s, recall * LOST_BELOW / mastery, decay
                )
        if concept.attempts > 0:
            out[6] = concept.last_at
        if concept.mastered_at > 0:
            out[7] = concept.mastered_at
        counts[row, 0] = concept.attempts
        counts[row, 1] = concept.correct
        counts[row, 2] = concept.lapses
        counts[row, 3] = concept.implied
        flags[row] = concept.mastered

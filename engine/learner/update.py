"""How one answer changes a learner's state. Uses the logged facts only: no model, no catalogue, no clock."""

import math
from typing import Any, Final

import numpy as np

from engine.jit import kernel, lean_kernel
from engine.learner.days import MOST_U2, update_day
from engine.learner.memory import SECONDS_A_DAY, retrievability, review
from engine.learner.state import (
    CONCEPT_WINDOWS,
    FILTERS,
    GLOBAL_WINDOWS,
    LAST_CONCEPTS,
    TIME_SCALES,
    Records,
)
from engine.types import F4, F8, I8, NO_ROW, U4, AnswerBatch

CONCEPT_VARIANCE: Final = (0.8, 1.5)
GLOBAL_DRIFT: Final = (0.002, 0.01)
CONCEPT_DRIFT: Final = (0.02, 0.1)
"""Start variances of a concept, and drift an answer, of the two ability filters, in squared log odds."""

GLOBAL_DECAY: Final = (0.5, 0.8, 0.95, 0.99)
CONCEPT_DECAY: Final = (0.4, 0.7, 0.9)
"""What a window keeps of its sum at each further answer."""

TIME_SCALE_S: Final = (600.0, 3600.0 * 4, 86400.0 * 2, 86400.0 * 20)
"""Time constants of the counts that decay with time: 10 minutes, 4 hours, 2 days, 20 days."""

SESSION_GAP_S = 1800.0
"""A pause longer than this starts a new session."""
UNTIMED_GAP_S = 300.0
"""An answer with no duration counts the time since the answer before it, if that is at most this."""
MOST_U1 = 255

MASTERED_AT = 0.85
MASTERED_LOWER_BOUND = 0.7
LOST_BELOW = 0.7
LOWER_BOUND_Z = 1.2816
"""One-sided 90 % bound: mastery - 1.2816 standard deviations."""
MASTERED_ATTEMPTS = 3

Record = Any
"""One record of a structured array, as a kernel sees it."""


@lean_kernel
def sigmoid(x: float) -> float:
    """Logistic function."""
    return 1.0 / (1.0 + math.exp(-x))


@lean_kernel
def widen(value: int) -> int:
    """Return an integer of any width as a signed 64-bit one, so that what takes it is compiled once."""
    return value + 0


@lean_kernel
def whole_seconds(at: float) -> int:
    """Epoch seconds rounded down and held to what 32 bits can say."""
    return int(min(max(math.floor(at), 0.0), 4294967295.0))


@lean_kernel
def find_row(concepts: Records, row: int) -> int:
    """Index of `row` in `concepts` (sorted by row), or -1."""
    low = 0
    high = concepts.shape[0]
    while low < high:
        middle = (low + high) // 2
        if concepts[middle].row < row:
            low = middle + 1
        else:
            high = middle
    return low if low < concepts.shape[0] and concepts[low].row == row else -1


@lean_kernel
def find_question(recent: Records, question: int) -> int:
    """Index of `question` in the ring, or -1."""
    for i in range(recent.shape[0]):
        if recent[i].question == question:
            return i
    return -1


@lean_kernel
def start_concept(concept: Record, row: int) -> None:
    """Fill a zeroed concept record with what is believed before the first answer."""
    concept.row = row
    concept.pattern = 1
    for j in range(FILTERS):
        concept.variance[j] = CONCEPT_VARIANCE[j]


@lean_kernel
def push_pattern(pattern: int, correct: int) -> int:
    """Append an outcome to a bit pattern behind a leading 1; the oldest of 7 falls off."""
    longer = (pattern << 1) | correct
    return (longer & 127) | 128 if longer > 255 else longer


@lean_kernel
def push_run(run: int, correct: int) -> int:
    """Answers right (positive) or wrong (negative) in a row after one more."""
    if correct:
        return min(run + 1, 32767) if run > 0 else 1
    return max(run - 1, -32767) if run < 0 else -1


@lean_kernel
def decay_counts(record: Record, elapsed: float, correct: int) -> None:
    """Fade the timed counts of a header or concept by `elapsed` seconds, then count one answer."""
    for j in range(TIME_SCALES):
        keep = math.exp(-max(elapsed, 0.0) / TIME_SCALE_S[j])
        record.hits[j] = record.hits[j] * keep + correct
        record.tries[j] = record.tries[j] * keep + 1.0


@lean_kernel
def update_filters(
    header: Record, concepts: Records, places: I8, weights: F4, base_logit: float, correct: int
) -> None:
    """Move both ability filters by one answer: an extended Kalman step on log odds.

    z = global mean + mean of the concepts' means + base logit, w = p(1-p), S = summed variances (a concept's over k²),
    e = outcome - p. A state with gain weight h (1 for the global mean, 1/k for each of k concepts, ω for an encompassed
    one) moves by h*v*e/(1+wS); its variance falls by (h*v)²w/(1+wS) and grows by the drift. Reference: Glickman 1999,
    Pelánek 2016 for ratings as filters.
    """
    for j in range(FILTERS):
        own = 0
        level = 0.0
        spread = 0.0
        for i in range(places.shape[0]):
            if weights[i] >= 1.0:
                concept = concepts[places[i]]
                own += 1
                level += concept.mean[j]
                spread += concept.variance[j]
        k = max(own, 1)
        variance = float(header.variance[j])
        p = sigmoid(header.mean[j] + level / k + base_logit)
        w = p * (1.0 - p)
        scale = 1.0 / (1.0 + w * (variance + spread / (k * k)))
        error = correct - p
        header.mean[j] += variance * error * scale
        header.variance[j] = variance - variance * variance * w * scale + GLOBAL_DRIFT[j]
        for i in range(places.shape[0]):
            concept = concepts[places[i]]
            share = 1.0 / k if weights[i] >= 1.0 else float(weights[i])
            gain = share * concept.variance[j]
            concept.mean[j] += gain * error * scale
            concept.variance[j] = concept.variance[j] - gain * gain * w * scale + CONCEPT_DRIFT[j] * share


@lean_kernel
def update_memory(concept: Record, weight: float, at: int, grade: int, w: F8) -> None:
    """Review a concept's memory, in part when it was only encompassed (`weight` below 1).

    In part, after the idea of fractional implicit repetition (Math Academy): a success moves stability (in log),
    difficulty and the date of the last review by the share `weight` of what a full review would; a failure moves
    stability down by that share and leaves the date, so that the review falls due sooner.
    """
    before = float(concept.stability)
    days = math.floor(max(float(at) - float(concept.review_at), 0.0) / SECONDS_A_DAY)
    stability, difficulty = review(before, float(concept.difficulty), days, grade, w)
    if weight >= 1.0:
        if before > 0.0 and grade == 1:
            concept.lapses = min(concept.lapses + 1, MOST_U1)
        concept.stability = stability
        concept.difficulty = difficulty
        concept.review_at = at
    elif before <= 0.0:
        if grade > 1:
            concept.stability = stability * weight
            concept.difficulty = difficulty
            concept.review_at = at
    else:
        moved = before * (stability / before) ** weight
        if grade > 1 or stability < before:
            concept.stability = moved
            concept.difficulty = concept.difficulty + weight * (difficulty - concept.difficulty)
        if grade > 1 and at > concept.review_at:
            concept.review_at += math.floor(weight * (float(at) - float(concept.review_at)))


@lean_kernel
def unrecalled(concept: Record, now: float, decay: float) -> float:
    """How far a concept is not recalled, 0 to 1: what was forgotten, 1 - R, and at least what was when it was failed.

    A wrong answer renews a memory as FSRS sees it, since the learner has just met the matter again; but what was
    failed has not been shown to be known, and must not look better for it.
    """
    recall = math.nan
    if concept.stability > 0.0:
        days = (now - float(concept.review_at)) / SECONDS_A_DAY
        recall = retrievability(days, float(concept.stability), decay)
    return lost(concept, recall)


@kernel
def lost(concept: Record, recall: float) -> float:
    """As `unrecalled`, with the chance of recall at hand: NaN where memory has not started."""
    gone = 0.0 if math.isnan(recall) else 1.0 - recall
    return float(max(gone, concept.missed / float(MOST_U1)))


@lean_kernel
def update_concept(concept: Record, step: int, at: int, correct: int, residual: float) -> None:
    """Count an own answer: attempts, windows, timed counts, run and pattern."""
    elapsed = float(at) - float(concept.last_at) if concept.attempts > 0 else 0.0
    decay_counts(concept, elapsed, correct)
    for j in range(CONCEPT_WINDOWS):
        concept.residual[j] = concept.residual[j] * CONCEPT_DECAY[j] + residual
        concept.outcome[j] = concept.outcome[j] * CONCEPT_DECAY[j] + (2.0 * correct - 1.0)
    concept.attempts = min(concept.attempts + 1, MOST_U2)
    concept.correct = min(concept.correct + correct, MOST_U2)
    concept.last_at = at
    concept.last_step = step
    concept.run = push_run(concept.run, correct)
    concept.pattern = push_pattern(concept.pattern, correct)


@lean_kernel
def update_question(
    recent: Records, question: int, step: int, at: int, correct: int, grade: int, w: F8
) -> None:
    """Remember that a question was met; the least recently met one makes room."""
    slot = find_question(recent, question)
    if slot < 0:
        slot = 0
        for i in range(recent.shape[0]):
            if recent[i].question == NO_ROW:
                slot = i
                break
            if recent[i].step < recent[slot].step:
                slot = i
        recent[slot].question = question
        recent[slot].stability = 0.0
        recent[slot].difficulty = 0.0
        recent[slot].seen = 0
        recent[slot].right = 0
        recent[slot].at = at
    met = recent[slot]
    days = math.floor(max(float(at) - float(met.at), 0.0) / SECONDS_A_DAY)
    met.stability, met.difficulty = review(float(met.stability), float(met.difficulty), days, grade, w)
    met.step = step
    met.at = at
    met.seen = min(met.seen + 1, 255)
    met.right = min(met.right + correct, 255)
    met.last = correct


@lean_kernel
def update_header(
    header: Record, question: int, rows: U4, weights: F4, at: float, correct: int, residual: float
) -> None:
    """Count an answer in the learner's totals, windows, timed counts, session and last-met fields."""
    first = header.applied == 0
    elapsed = at - header.last_at if not first else 0.0
    decay_counts(header, elapsed, correct)
    for j in range(GLOBAL_WINDOWS):
        header.residual[j] = header.residual[j] * GLOBAL_DECAY[j] + residual
        header.outcome[j] = header.outcome[j] * GLOBAL_DECAY[j] + (2.0 * correct - 1.0)
    if first:
        header.first_at = at
    if first or elapsed > SESSION_GAP_S:
        header.session_at = whole_seconds(at)
        header.session_answers = 0
    header.session_answers += 1
    header.applied += 1
    header.correct += correct
    header.last_at = at
    header.last_question = question
    header.run = push_run(header.run, correct)
    header.pattern = push_pattern(header.pattern, correct)
    for i in range(LAST_CONCEPTS):
        header.last_concept[i] = rows[i] if i < rows.shape[0] and weights[i] >= 1.0 else NO_ROW


@lean_kernel
def apply_answer(
    header: Record,
    concepts: Records,
    recent: Records,
    batch: AnswerBatch,
    i: int,
    memory_sets: F8,
    places: I8,
) -> None:
    """Change the state in place by answer `i` of `batch`; every concept of it must have its record already.

    `places` (k,) are those of the records of the answer's own k pairs, see `find_places`.
    `memory_sets` has shape (sets, 21); a set the model no longer holds counts as the published defaults.
    """
    start = batch.offsets[i]
    stop = batch.offsets[i + 1]
    rows = batch.concept[start:stop]
    weights = batch.weight[start:stop]
    correct = widen(batch.correct[i])
    grade = widen(batch.grade[i])
    at = batch.answered_at[i]
    second = whole_seconds(at)
    base = float(batch.base_logit[i])
    chosen = widen(batch.memory_set[i])
    w = memory_sets[chosen if chosen < memory_sets.shape[0] else 0]
    residual = correct - sigmoid(base)
    step = header.applied

    taken_s = batch.duration_ms[i] / 1000.0
    if taken_s == 0.0 and header.applied > 0 and 0.0 <= at - header.last_at <= UNTIMED_GAP_S:
        taken_s = at - header.last_at
    header.practice_ms += math.floor(taken_s * 1000.0 + 0.5)
    update_day(header, widen(batch.local_day[i]), at, taken_s)
    update_filters(header, concepts, places, weights, base, correct)
    for pair in range(rows.shape[0]):
        concept = concepts[places[pair]]
        if weights[pair] >= 1.0:
            gone = math.ceil(MOST_U1 * unrecalled(concept, at, w[20]))
            concept.missed = 0 if correct else min(gone, MOST_U1)
            update_concept(concept, step, second, correct, residual)
        else:
            concept.implied = min(concept.implied + 1, MOST_U2)
        update_memory(concept, float(weights[pair]), second, grade, w)
    update_question(recent, widen(batch.question[i]), step, second, correct, grade, w)
    update_header(header, widen(batch.question[i]), rows, weights, at, correct, residual)


@lean_kernel
def settle_mastery(concept: Record, mastery: float, mastery_sd: float, at: int) -> int:
    """Apply the rule of "mastered" to a mastery as logged; return 1 when earned, -1 when lost, 0 when unchanged.

    Earned at mastery ≥ 0.85 with its lower bound ≥ 0.7 over at least 3 own answers; lost below 0.7.
    NaN changes nothing.
    """
    if concept.mastered == 0:
        sure = mastery - LOWER_BOUND_Z * mastery_sd >= MASTERED_LOWER_BOUND
        if mastery >= MASTERED_AT and sure and concept.attempts >= MASTERED_ATTEMPTS:
            concept.mastered = 1
            concept.mastered_at = at
            return 1
    elif mastery < LOST_BELOW:
        concept.mastered = 0
        return -1
    return 0


@lean_kernel
def find_places(concepts: Records, rows: U4, places: I8) -> None:
    """Fill places (n,) with where the records of `rows` (n,) are in `concepts`, -1 where there is none."""
    for i in range(rows.shape[0]):
        places[i] = find_row(concepts, widen(rows[i]))


@lean_kernel
def grow_into(concepts: Records, rows: U4, wanted: U4, grown: Records) -> int:
    """Copy `concepts` into `grown`, with a fresh record for each of `rows` (any order, repeats allowed) not in it.

    `wanted` and `grown`, which is zeroed, have room for each of `rows`; returns how many records there are then.
    """
    missing = 0
    for i in range(rows.shape[0]):
        row = widen(rows[i])
        if find_row(concepts, row) >= 0:
            continue
        place = missing
        while place > 0 and wanted[place - 1] >= row:
            place -= 1
        if place < missing and wanted[place] == row:
            continue
        for j in range(missing, place, -1):
            wanted[j] = wanted[j - 1]
        wanted[place] = row
        missing += 1
    old = 0
    new = 0
    for i in range(concepts.shape[0] + missing):
        if new >= missing or (old < concepts.shape[0] and concepts[old].row < wanted[new]):
            grown[i] = concepts[old]
            old += 1
        else:
            start_concept(grown[i], widen(wanted[new]))
            new += 1
    return int(concepts.shape[0] + missing)


@kernel
def grow(concepts: Records, rows: U4) -> Records:
    """Return what `grow_into` fills."""
    grown = np.zeros(concepts.shape[0] + rows.shape[0], concepts.dtype)
    return grown[: grow_into(concepts, rows, np.empty(rows.shape[0], np.uint32), grown)]

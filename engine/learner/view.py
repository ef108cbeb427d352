"""A learner's standing in concepts: mastery, memory and dates. Reads the state, changes nothing."""

import math

from engine.jit import kernel
from engine.learner.features import SHRINK, question_features
from engine.learner.memory import SECONDS_A_DAY, days_until, retrievability
from engine.learner.score import (
    Scratch,
    Weights,
    add_level,
    concept_rate,
    concept_score,
    dot_question,
    global_score,
    logit,
    make_scratch,
    start_level,
)
from engine.learner.state import Records
from engine.learner.update import LOST_BELOW, Record, sigmoid
from engine.types import F8, U1, U4

VIEW_FLOATS = 9
VIEW_COUNTS = 4


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
    room: Scratch,
) -> tuple[float, float]:
    """Return (mastery, standard deviation) of a concept: the chance on its median question, as one never met.

    `whole` is the learner's `global_score`. The deviation is the slow filter's, through the logistic curve.
    """  # fmt: skip
    total = whole + concept_score(header, concepts, at, row, now, w, room)
    start_level(header, room.level, room.spread)
    add_level(concepts, at, 1.0, room.level, room.spread)
    question_features(
        header, recent[0], False, median_of(w, row), w.constants[1], room.level, room.spread, now, w.constants[2],
        room.part,
    )  # fmt: skip
    p = sigmoid(total + dot_question(w, room.part))
    spread = room.spread[0]
    return p, p * (1.0 - p) * math.sqrt(spread / (1.0 + SHRINK * spread))


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
    room = make_scratch()
    decay = w.constants[2]
    whole = global_score(head, now, w, room)
    at = 0
    for row in range(floats.shape[0]):
        while at < concepts.shape[0] and concepts[at].row < row:
            at += 1
        found = at if at < concepts.shape[0] and concepts[at].row == row else -1
        out = floats[row]
        out[:] = math.nan
        counts[row] = 0
        flags[row] = 0
        mastery, sd = mastery_of(head, concepts, recent, found, row, whole, now, w, room)
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

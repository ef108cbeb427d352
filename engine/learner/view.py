"""A learner's standing in concepts: mastery, memory and dates. Reads the state, changes nothing."""

import math
from typing import NamedTuple

import numpy as np

from engine.jit import kernel, lean_kernel
from engine.learner.features import SHRINK, log_run, recall_of
from engine.learner.memory import SECONDS_A_DAY, days_until, recall_factor
from engine.learner.score import Weights, concept_rate, logit
from engine.learner.state import Records
from engine.learner.update import CONCEPT_VARIANCE, LOST_BELOW, Record, lost, sigmoid, unrecalled, widen
from engine.types import F8, I4, U1, U4

VIEW_FLOATS = 9
RECALL = 2
"""The column of the chance of recall."""
VIEW_COUNTS = 4


@lean_kernel
def median_of(w: Weights, row: int) -> float:
    """Base logit of a concept's median question, the concept's own rate when it has none."""
    if row < w.concept_median.shape[0] and not math.isnan(w.concept_median[row]):
        return float(w.concept_median[row])
    return logit(concept_rate(w, row))


@lean_kernel
def known_logit(header: Record, concepts: Records, at: int, row: int, w: Weights) -> tuple[float, float]:
    """Return (log odds on the concept's median question while it is recalled, their standard deviation).

    a + b * z/sqrt(1 + 0.35 S) + d * run: the slow ability filter shrunk by its variance S, and the answers right (or,
    negative, wrong) in a row as signed log(1 + n), weighed as training found.
    """
    level = median_of(w, row) + header.mean[0]
    spread = float(header.variance[0])
    if at >= 0:
        level += concepts[at].mean[0]
        spread += concepts[at].variance[0]
        row_of_answers = log_run(widen(concepts[at].run))
    else:
        spread += CONCEPT_VARIANCE[0]
        row_of_answers = 0.0
    narrowed = math.sqrt(1.0 + SHRINK * spread)
    z = w.mastery[0] + w.mastery[1] * level / narrowed + w.mastery[3] * row_of_answers
    return z, w.mastery[1] * math.sqrt(spread) / narrowed


@lean_kernel
def mastery_of(
    header: Record, concepts: Records, at: int, row: int, now: float, w: Weights
) -> tuple[float, float]:
    """Return (mastery, standard deviation) of a concept: the chance on its median question, from what was shown.

    Of all that predicts the next answer, mastery keeps what says that the concept is known: the ability filter, the
    concept's run of right or wrong answers, and what is not recalled, with a fitted weight each of fixed sign. So a
    wrong answer never raises it, a right one never lowers it, and time alone can only let it fade; the momentary form
    that `score_question` adds (session, gaps, the last few outcomes elsewhere) can do neither.
    """
    z, deviation = known_logit(header, concepts, at, row, w)
    if at >= 0:
        z += w.mastery[2] * unrecalled(concepts[at], now, w.constants[2])
    p = sigmoid(z)
    return p, p * (1.0 - p) * deviation


@lean_kernel
def fading(header: Record, concepts: Records, at: int, row: int, w: Weights) -> float:
    """Return the retrievability at which mastery falls to `LOST_BELOW`; NaN when forgetting does not take it there."""
    z, _ = known_logit(header, concepts, at, row, w)
    room = z - logit(LOST_BELOW)
    cost = -float(w.mastery[2])
    if room <= 0.0 or room >= cost:
        return math.nan
    return 1.0 - room / cost


class Standing(NamedTuple):
    """A learner's standing by concept row; `stand` and `stand_new` fill the rows that are asked for, no others."""

    floats: F8
    """(nc, VIEW_FLOATS) as `view_concepts` says."""
    counts: U4
    """(nc, VIEW_COUNTS) likewise."""
    mastered: U1
    """(nc,)"""
    place: I4
    """(nc,) the number of the row's concept record, -1 where there is none."""


@lean_kernel
def doubt_of_new(header: Record, w: Weights) -> tuple[float, float]:
    """Return what `stand_new` takes, the same for all concepts: what narrows the level, and the log odds' deviation."""
    spread = float(header.variance[0]) + CONCEPT_VARIANCE[0]
    narrowed = math.sqrt(1.0 + SHRINK * spread)
    return narrowed, w.mastery[1] * math.sqrt(spread) / narrowed


@lean_kernel
def stand_new(
    header: Record, row: int, w: Weights, doubt: tuple[float, float], floats: F8, counts: U4
) -> None:
    """Fill the row of a concept that was never touched, `mastery_of` by the learner's ability alone."""
    narrowed, deviation = doubt
    p = sigmoid(w.mastery[0] + w.mastery[1] * (median_of(w, row) + header.mean[0]) / narrowed)
    floats[row, 0] = p
    floats[row, 1] = p * (1.0 - p) * deviation
    for column in range(2, VIEW_FLOATS):
        floats[row, column] = math.nan
    for column in range(VIEW_COUNTS):
        counts[row, column] = 0


@lean_kernel
def stand(header: Records, concepts: Records, w: Weights, now: float, standing: Standing) -> None:
    """Fill `place` and `mastered` throughout, and the rows of the concepts touched.

    Mastery is `mastery_of`'s. As `view_concepts`, but for the planned dates: floats[:, 5], [:, 7] and [:, 8] are NaN.
    """
    head = header[0]
    floats, counts = standing.floats, standing.counts
    standing.mastered[:] = 0
    standing.place[:] = -1
    decay = w.constants[2]
    factor = recall_factor(decay)
    for at in range(concepts.shape[0]):
        concept = concepts[at]
        row = widen(concept.row)
        if row >= floats.shape[0]:
            break
        standing.place[row] = at
        recall = recall_of(concept, now, decay, factor)
        z, deviation = known_logit(head, concepts, at, row, w)
        p = sigmoid(z + w.mastery[2] * lost(concept, recall))
        floats[row, 0], floats[row, 1] = p, p * (1.0 - p) * deviation
        for column in range(2, VIEW_FLOATS):
            floats[row, column] = math.nan
        if concept.stability > 0.0:
            floats[row, 2] = recall
            floats[row, 3] = concept.stability
            floats[row, 4] = concept.difficulty
        if concept.attempts > 0:
            floats[row, 6] = concept.last_at
        counts[row, 0] = concept.attempts
        counts[row, 1] = concept.correct
        counts[row, 2] = concept.lapses
        counts[row, 3] = concept.implied
        standing.mastered[row] = concept.mastered


@kernel
def view_concepts(
    header: Records,
    concepts: Records,
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
    implied. flags (n,): mastered.
    """
    head = header[0]
    decay = w.constants[2]
    doubt = doubt_of_new(head, w)
    for row in range(floats.shape[0]):
        stand_new(head, row, w, doubt, floats, counts)
    stand(header, concepts, w, now, Standing(floats, counts, flags, np.empty(flags.shape[0], np.int32)))
    for at in range(concepts.shape[0]):
        concept = concepts[at]
        row = widen(concept.row)
        if row >= floats.shape[0]:
            break
        if concept.stability > 0.0:
            s = float(concept.stability)
            floats[row, 5] = concept.review_at + SECONDS_A_DAY * days_until(s, retention, decay)
            faded = fading(head, concepts, at, row, w)
            if floats[row, 0] > LOST_BELOW and not math.isnan(faded):
                floats[row, 8] = concept.review_at + SECONDS_A_DAY * days_until(s, faded, decay)
        if concept.mastered_at > 0:
            floats[row, 7] = concept.mastered_at

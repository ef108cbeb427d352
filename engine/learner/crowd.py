"""Answers of many learners taken in by one kernel call; each learner comes out as from `answers.absorb`, to the bit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.jit import kernel
from engine.learner.answers import I1, AnswersOutOfOrder, Effects, absorb_answers
from engine.learner.model import LearnerModel
from engine.learner.score import Weights, make_scratch
from engine.learner.state import RING, LearnerState, Records
from engine.learner.update import find_places, grow_into
from engine.types import F4, F8, I8, U2, AnswerBatch


class Crowd(NamedTuple):
    """The states of n learners side by side."""

    headers: Records
    """(n,) dtype HEADER."""
    concepts: Records
    """(k,) dtype CONCEPT, learner after learner, each one's by row."""
    starts: I8
    """(n+1,) where each learner's concepts begin."""
    recent: Records
    """(n * RING,) dtype RECENT."""

    def state(self, i: int) -> LearnerState:
        """Return learner `i`'s own state, as views."""
        return LearnerState(
            self.headers[i : i + 1],
            self.concepts[self.starts[i] : self.starts[i + 1]],
            self.recent[i * RING : (i + 1) * RING],
        )


@dataclass(frozen=True, slots=True)
class CrowdAbsorbed:
    """What answers of many learners changed; arrays as those of `Absorbed`, learner after learner."""

    crowd: Crowd
    batch: AnswerBatch
    predicted: F8
    mastery_before: F4
    crossed: I1
    streak: U2
    milestone: U2
    place: I8
    """(m,) which of the crowd's concepts each (concept, weight) pair is of."""


@kernel
def _absorb_crowd(
    headers: Records,
    concepts: Records,
    starts: I8,
    recent: Records,
    batch: AnswerBatch,
    bounds: I8,
    memory_sets: F8,
    w: Weights,
    mastery: F4,
    mastery_sd: F4,
    effects: Effects,
    grown: Records,
    grown_starts: I8,
    place: I8,
) -> bool:
    """Take in answers bounds[i]..bounds[i+1] for learner i; whether none of them is older than what was taken in.

    `grown` has zeroed room for a new concept of every pair.
    """
    for learner in range(headers.shape[0]):
        first = bounds[learner]
        known = headers[learner].applied > 0 and bounds[learner + 1] > first
        if known and batch.answered_at[first] < headers[learner].last_at:
            return False
    used = 0
    room = make_scratch()
    ready = np.empty(grown.shape[0])
    wanted = np.empty(batch.concept.shape[0], np.uint32)
    for learner in range(headers.shape[0]):
        first, last = bounds[learner], bounds[learner + 1]
        low, high = batch.offsets[first], batch.offsets[last]
        rows = batch.concept[low:high]
        size = grow_into(concepts[starts[learner] : starts[learner + 1]], rows, wanted, grown[used:])
        own = grown[used : used + size]
        find_places(own, rows, place[low:high])
        grown_starts[learner] = used
        absorb_answers(
            headers[learner : learner + 1],
            own,
            recent[learner * RING : (learner + 1) * RING],
            batch,
            first,
            last,
            memory_sets,
            w,
            True,
            mastery,
            mastery_sd,
            effects,
            room,
            ready[:size],
            place,
        )
        place[low:high] += used
        used += size
    grown_starts[headers.shape[0]] = used
    return True


def absorb_crowd(crowd: Crowd, batch: AnswerBatch, bounds: I8, model: LearnerModel) -> CrowdAbsorbed:
    """Take in answers bounds[i]..bounds[i+1] of `batch` for each learner i, in order of time; `crowd` stays as it was.

    Raises:
        AnswersOutOfOrder: a learner's first answer is older than the newest one in their state.
    """
    n, m = batch.size, len(batch.concept)
    headers, recent = crowd.headers.copy(), crowd.recent.copy()
    grown = np.zeros(len(crowd.concepts) + m, LearnerState.CONCEPT)
    starts = np.empty(len(headers) + 1, np.int64)
    place = np.empty(m, np.int64)
    mastery, deviation = np.empty(m, np.float32), np.empty(m, np.float32)
    effects = Effects(
        np.empty(n),
        np.empty(m, np.float32),
        np.empty(m, np.int8),
        np.empty(n, np.uint16),
        np.empty(n, np.uint16),
    )
    in_order = _absorb_crowd(
        headers,
        crowd.concepts,
        crowd.starts,
        recent,
        batch,
        bounds,
        model.memory_sets,
        model.weights,
        mastery,
        deviation,
        effects,
        grown,
        starts,
        place,
    )
    if not in_order:
        raise AnswersOutOfOrder("a learner's answer is older than the newest one taken in")
    after = Crowd(headers, grown[: int(starts[-1])], starts, recent)
    filled = batch._replace(mastery=mastery, mastery_sd=deviation)
    return CrowdAbsorbed(after, filled, *effects, place=place)

"""Taking answers in and speaking of a learner: the calls that services use. All arithmetic is in the kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.jit import kernel, lean_kernel
from engine.learner.days import MILESTONES
from engine.learner.features import asked_at
from engine.learner.memory import TARGET_RETENTION
from engine.learner.model import LearnerModel
from engine.learner.score import (
    QuestionConcepts,
    Scratch,
    Weights,
    global_score,
    make_scratch,
    read_only,
    score_question,
    score_questions,
)
from engine.learner.state import LearnerState, Records
from engine.learner.update import (
    apply_answer,
    find_places,
    grow,
    settle_mastery,
    sigmoid,
    whole_seconds,
    widen,
)
from engine.learner.view import VIEW_COUNTS, VIEW_FLOATS, mastery_of, view_concepts
from engine.types import F4, F8, I8, U1, U2, U4, AnswerBatch

I1 = np.ndarray[tuple[int], np.dtype[np.int8]]


class AnswersOutOfOrder(ValueError):
    """Answers older than what the state has taken in already; rebuild from the log instead."""


@dataclass(frozen=True, slots=True)
class Absorbed:
    """What a batch of answers changed. n answers, m (concept, weight) pairs."""

    state: LearnerState
    batch: AnswerBatch
    """The batch with `mastery` and `mastery_sd` filled: what is to be logged."""
    predicted: F8
    """(n,) chance of success on each question as it was put."""
    mastery_before: F4
    """(m,) mastery just before each answer, at its time."""
    crossed: I1
    """(m,) 1 where a concept became mastered, -1 where mastery was lost, else 0."""
    streak: U2
    """(n,) streak in local days after each answer."""
    milestone: U2
    """(n,) the milestone (days) that an answer reached, else 0."""


class ConceptView(NamedTuple):
    """A learner's standing in every concept, dense by concept row, shape (concepts,). NaN where there is none."""

    mastery: F8
    mastery_sd: F8
    mastered: U1
    retrievability: F8
    stability: F8
    """Days until recall falls to 90 %."""
    difficulty: F8
    next_review_at: F8
    """When retrievability falls to the target, epoch seconds."""
    last_at: F8
    """Last own practice, epoch seconds."""
    mastered_at: F8
    """When mastery was last earned, epoch seconds (kept when it is lost)."""
    fades_at: F8
    """When mastery is expected to fall below 0.7 without practice, epoch seconds."""
    attempts: U4
    correct: U4
    lapses: U4
    implied: U4
    """Answers that exercised it only through a concept that encompasses it."""


class Effects(NamedTuple):
    """Arrays that the absorbing kernel fills; see Absorbed."""

    predicted: F8
    mastery_before: F4
    crossed: I1
    streak: U2
    milestone: U2


@lean_kernel
def absorb_answers(
    header: Records,
    concepts: Records,
    recent: Records,
    batch: AnswerBatch,
    first: int,
    last: int,
    memory_sets: F8,
    w: Weights,
    speak: bool,
    mastery: F4,
    mastery_sd: F4,
    effects: Effects,
    room: Scratch,
    ready: F8,
    places: I8,
) -> None:
    """Apply answers first..last−1 of `batch` in place; with `speak`, also work out predictions and masteries.

    Without `speak`, `mastery` and `mastery_sd` (m,) are read instead of written, so that a replay needs no model.
    `ready` is room for a number a concept; `places` (m,) is `find_places`'s.
    """
    head = header[0]
    for i in range(first, last):
        now = batch.answered_at[i]
        start = batch.offsets[i]
        stop = batch.offsets[i + 1]
        if speak:
            ready[:] = math.nan
            asked = asked_at(head, batch, i)
            whole = global_score(head, asked, w, room)
            question = widen(batch.question[i])
            evidence = 1.0 * w.question_rate[question, 1] if question < w.question_rate.shape[0] else 0.0
            own = start
            while own < stop and batch.weight[own] >= 1.0:
                own += 1
            z = score_question(
                head, concepts, recent, question, batch.concept[start:own], 1.0 * batch.base_logit[i], evidence, asked,
                w, whole, ready, room,
            )  # fmt: skip
            effects.predicted[i] = sigmoid(z)
            for pair in range(start, stop):
                row = widen(batch.concept[pair])
                before, _ = mastery_of(head, concepts, places[pair], row, now, w)
                effects.mastery_before[pair] = before
        streak = head.day_streak
        days = head.days_practised
        apply_answer(head, concepts, recent, batch, i, memory_sets, places[start:stop])
        for pair in range(start, stop):
            row = widen(batch.concept[pair])
            at = places[pair]
            if speak:
                after, sd = mastery_of(head, concepts, at, row, now, w)
                mastery[pair] = after
                mastery_sd[pair] = sd
            effects.crossed[pair] = settle_mastery(
                concepts[at], float(mastery[pair]), float(mastery_sd[pair]), whole_seconds(now)
            )
        effects.streak[i] = head.day_streak
        effects.milestone[i] = 0
        if head.days_practised != days and head.day_streak != streak:
            for reached in MILESTONES:
                if head.day_streak == reached:
                    effects.milestone[i] = reached


@kernel
def _absorb(
    header: Records,
    concepts: Records,
    recent: Records,
    batch: AnswerBatch,
    memory_sets: F8,
    w: Weights,
    speak: bool,
    mastery: F4,
    mastery_sd: F4,
    effects: Effects,
) -> None:
    """Make room for `absorb_answers` and call it."""
    places = np.empty(batch.concept.shape[0], np.int64)
    find_places(concepts, batch.concept, places)
    absorb_answers(
        header, concepts, recent, batch, 0, batch.question.shape[0], memory_sets, w, speak, mastery, mastery_sd,
        effects, make_scratch(), np.empty(concepts.shape[0]), places,
    )  # fmt: skip


def _facts(batch: AnswerBatch) -> AnswerBatch:
    """Return the batch with read-only arrays of the documented types."""
    wanted = (np.uint32, np.uint8, np.float64, np.float32, np.uint8, np.uint32, np.uint8, np.int32, np.uint16)
    types = (*wanted, np.int32, np.uint32, np.float32, np.float32, np.float32)
    return AnswerBatch._make(read_only(np.ascontiguousarray(a, t)) for a, t in zip(batch, types, strict=True))


def _run(
    state: LearnerState, batch: AnswerBatch, memory_sets: F8, model: LearnerModel, speak: bool
) -> tuple[LearnerState, AnswerBatch, Effects]:
    """Copy the state, apply the batch, return the new state, the batch and what changed."""
    n, m = batch.size, len(batch.concept)
    facts = _facts(batch)
    if n and facts.answered_at[0] < state.last_answered_at and state.applied:
        raise AnswersOutOfOrder(
            f"answer at {facts.answered_at[0]:.3f} is older than the newest one taken in, {state.last_answered_at:.3f}"
        )
    header, recent = state.header.copy(), state.recent.copy()
    concepts = grow(state.concepts.copy(), facts.concept)
    mastery, deviation = (np.empty(m, np.float32), np.empty(m, np.float32))
    if not speak:
        mastery[:], deviation[:] = batch.mastery, batch.mastery_sd
    effects = Effects(
        np.empty(n),
        np.empty(m, np.float32),
        np.empty(m, np.int8),
        np.empty(n, np.uint16),
        np.empty(n, np.uint16),
    )
    _absorb(header, concepts, recent, facts, memory_sets, model.weights, speak, mastery, deviation, effects)
    return (
        LearnerState(header, concepts, recent),
        batch._replace(mastery=mastery, mastery_sd=deviation),
        effects,
    )


def absorb(state: LearnerState, batch: AnswerBatch, model: LearnerModel) -> Absorbed:
    """Take in answers, in order, and return the new state with what changed; `state` is left as it was.

    Raises:
        AnswersOutOfOrder: the first answer is older than the newest one in `state`.
    """
    new, filled, effects = _run(state, batch, model.memory_sets, model, speak=True)
    return Absorbed(new, filled, *effects)


_NO_MODEL = LearnerModel.priors()


def replay(batch: AnswerBatch, memory_sets: F8, state: LearnerState | None = None) -> LearnerState:
    """Rebuild a state from logged answers, bit for bit as `absorb` left it, with no model.

    `batch` holds logged masteries. `memory_sets` (sets, 21) are the tenant's FSRS weights. A log too long for one batch
    may be replayed in parts, each on the state of the last.

    Raises:
        AnswersOutOfOrder: a part is older than what was replayed before.
    """
    sets = read_only(np.ascontiguousarray(memory_sets, np.float64))
    return _run(state or LearnerState.empty(), batch, sets, _NO_MODEL, speak=False)[0]


def predict(
    state: LearnerState, question_rows: U4, qc: QuestionConcepts, model: LearnerModel, now: float
) -> F8:
    """Return the chance (n,) that the learner answers each of `question_rows` (n,) correctly at `now`."""
    out = np.empty(len(question_rows))
    rows = read_only(np.ascontiguousarray(question_rows, np.uint32))
    header, concepts, recent = read_only(state.header), read_only(state.concepts), read_only(state.recent)
    score_questions(header, concepts, recent, rows, qc, model.weights, float(now), out)
    return out


def concept_view(
    state: LearnerState,
    n_concepts: int,
    model: LearnerModel,
    now: float,
    median_logit: F4 | None = None,
    retention: float = TARGET_RETENTION,
) -> ConceptView:
    """Return the learner's standing in concepts 0..n_concepts-1 at `now`.

    `median_logit` (n_concepts,) overrides the model's base logit of each concept's median question; NaN asks for the
    concept's own rate.
    """
    weights = model.weights
    if median_logit is not None:
        weights = weights._replace(concept_median=read_only(np.ascontiguousarray(median_logit, np.float32)))
    floats = np.empty((n_concepts, VIEW_FLOATS))
    counts = np.empty((n_concepts, VIEW_COUNTS), np.uint32)
    flags = np.empty(n_concepts, np.uint8)
    header, concepts = read_only(state.header), read_only(state.concepts)
    view_concepts(header, concepts, weights, float(now), retention, floats, counts, flags)
    mastery, sd, recall, stability, difficulty, due, last, earned, fades = floats.T
    return ConceptView(mastery, sd, flags, recall, stability, difficulty, due, last, earned, fades, *counts.T)


def preview(state: LearnerState, answer: AnswerBatch, model: LearnerModel) -> tuple[F4, F4]:
    """Return (mastery before, mastery after), each (m,), of hypothetical answers, without keeping the new state."""
    done = absorb(state, answer, model)
    return done.mastery_before, done.batch.mastery

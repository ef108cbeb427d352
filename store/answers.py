"""The life of an answer: into the log and into the learner's state, once, in one transaction. Resolves no ids.

State is a pure function of the log ordered by (time given, arrival). Answers in time order are taken in as
they come; one that is older than the newest (a late answer) sends the learner's whole log through the engine
again. What the log holds never changes: the mastery shown and the milestones told with earlier answers stay
as they were, also when a late one precedes them. Who wants to know of streaks works them out from the days
(`engine.streaks.streak_lengths`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from engine.learner import Absorbed, LearnerModel, LearnerState, absorb, replay
from engine.learner.crowd import CrowdAbsorbed
from engine.streaks import milestones_since, streak_lengths
from engine.types import I8, U1, AnswerBatch, LearnerProfile
from store import codec
from store.answer_log import AnswerLog, chronological, encode_answers, join_logs
from store.api import StoreCorrupt, Table, Transaction
from store.learners import (
    Outcome,
    answers_at,
    append_answers,
    create_profile,
    find_answers,
    read_answers,
    read_state,
    sequence_key,
    write_state,
)
from store.recount import tally_answers

Milestones = Mapping[int, list[tuple[int, int]]]
"""By sequence of a late answer: (local day, streak in days) of milestones that it brought to answers there before."""

SAME_SECONDS = 0.8e-6
"""Times less apart are the same: one that was rounded to a microsecond, by whatever rule, and the one it was made from.

Times of different whole microseconds are at least 0.95e-6 apart, as floats of today's size.
"""


class NewAnswers(NamedTuple):
    """Answers of ONE learner, resolved to facts, in the order they were sent (of any times)."""

    batch: AnswerBatch
    """(n,) answers; `answered_at` in any order, `mastery` and `mastery_sd` not read."""
    answer_id: Sequence[str]
    session_id: Sequence[str]
    """Empty where there is none."""
    recommendation_id: Sequence[str]
    """Empty where there is none."""
    device: U1
    timed: U1
    """(n,) 1 where the caller said when the answer was given, 0 where the time of arrival stands in."""
    received_at: float
    """Epoch seconds."""


@dataclass(frozen=True, slots=True)
class RecordedAnswers:
    """What became of answers, one entry each in the order they were sent."""

    outcome: U1
    """(n,) of `Outcome`."""
    log: AnswerLog
    """(n,) the entries as the log holds them: for a repeat, those of the first time."""
    state: LearnerState
    """After all of them."""
    brought: Milestones = field(default_factory=dict)
    """Milestones that late answers brought besides their own."""


def record_answers(
    tx: Transaction, learner_id: str, answers: NewAnswers, model: LearnerModel
) -> RecordedAnswers:
    """Record answers of the transaction's learner: log, state, and a profile when there is none.

    An id that the log or the same call already holds is not recorded again: DUPLICATE, or REUSED with other
    content.
    """
    state = read_state(tx, model.memory_sets)
    last = _last_sequence(tx, state)
    digests = codec.digests(answers.answer_id)
    known = find_answers(tx, answers.answer_id, digests) if last else {}
    place: dict[str, int] = {}
    for i, answer_id in enumerate(answers.answer_id):
        if answer_id not in known:
            place.setdefault(answer_id, i)
    sent = as_log(answers, np.arange(last + 1, last + 1 + answers.batch.size))
    whole = len(place) == sent.size
    new = sent
    brought: Milestones = {}
    if not whole:
        fresh = list(place.values())
        digests = [digests[i] for i in fresh]
        new = sent.take(np.array(fresh, np.intp))._replace(sequence=last + 1 + np.arange(len(fresh)))
    if new.size:
        before = state
        state, new, brought = _take_in(tx, state, new, model)
        tally_answers(tx, before, new)
        append_answers(tx, new.sequence.tolist(), encode_answers(new), digests)
        write_state(tx, state)
        if tx.get(Table.PROFILE) is None:
            born = answers.received_at
            create_profile(tx, LearnerProfile(learner_id, created_at=born, updated_at=born))
    if whole:
        return RecordedAnswers(np.full(new.size, Outcome.RECORDED, np.uint8), new, state, brought)
    return _with_repeats(tx, sent, new, known, state, brought)


def _last_sequence(tx: Transaction, state: LearnerState) -> int:
    """The newest arrival's sequence: arrivals are numbered from 1 without gaps, and the state has taken in all."""
    last = state.applied
    if tx.get(Table.ANSWER, sequence_key(last + 1)) is not None:
        raise StoreCorrupt("the state is behind its answer log; a replay that writes repairs it")
    return last


def as_log(answers: NewAnswers, sequence: I8) -> AnswerLog:
    """The answers as log entries of these sequences (n,); their effects are still to be filled in."""
    n, m = answers.batch.size, len(answers.batch.concept)
    return AnswerLog(
        batch=answers.batch,
        sequence=sequence,
        predicted=np.empty(n, np.float32),
        streak=np.empty(n, np.uint16),
        milestone=np.empty(n, np.uint16),
        late=np.zeros(n, np.uint8),
        timed=answers.timed,
        device=answers.device,
        received_at=np.full(n, answers.received_at),
        mastery_before=np.empty(m, np.float32),
        crossed=np.empty(m, np.int8),
        answer_id=answers.answer_id,
        session_id=answers.session_id,
        recommendation_id=answers.recommendation_id,
    )


def _take_in(
    tx: Transaction, state: LearnerState, new: AnswerLog, model: LearnerModel
) -> tuple[LearnerState, AnswerLog, Milestones]:
    """The state after `new`, `new` with its effects in the order given, and the milestones brought besides."""
    times = new.batch.answered_at
    if state.applied and times.min() < state.last_answered_at:
        return _take_in_late(tx, state, new, model)
    if new.size == 1 or (times[1:] >= times[:-1]).all():
        done = absorb(state, new.batch, model)
        return done.state, with_effects(new, done), {}
    order = np.argsort(times, kind="stable")
    ordered = new.take(order)
    done = absorb(state, ordered.batch, model)
    return done.state, with_effects(ordered, done).take(np.argsort(order)), {}


def _take_in_late(
    tx: Transaction, state: LearnerState, new: AnswerLog, model: LearnerModel
) -> tuple[LearnerState, AnswerLog, Milestones]:
    """As `_take_in`, where some of `new` are older than what the state has taken in.

    The state before the first of them is rebuilt; from there on every answer is taken in anew, which tells
    the effects of the late ones in their place; then the log as it will stand leads to the state, as any
    later replay will do.
    """
    new = new._replace(late=(new.batch.answered_at < state.last_answered_at).astype(np.uint8))
    old = read_answers(tx)
    log = join_logs(old, new)
    n_old = log.size - new.size
    order = chronological(log)
    log = log.take(order)
    at_new = order >= n_old
    first = int(np.argmax(at_new))
    before = LearnerState.empty()
    if first:
        before = replay(log.take(np.arange(first)).batch, model.memory_sets)
    rest = log.take(np.arange(first, log.size))
    again = with_effects(rest, absorb(before, rest.batch, model))
    filled = again.take(np.flatnonzero(at_new[first:]))
    filled = filled.take(np.argsort(filled.sequence))
    settled = join_logs(old, filled)
    settled = settled.take(chronological(settled))
    after = replay(settled.take(np.arange(first, settled.size)).batch, model.memory_sets, before)
    own, brought = _milestones_told(old.take(chronological(old)), settled, int(new.sequence[0]))
    told = np.isin(filled.sequence, own)
    return after, filled._replace(milestone=np.where(told, filled.milestone, 0).astype(np.uint16)), brought


def _milestones_told(old: AnswerLog, log: AnswerLog, first: int) -> tuple[list[int], Milestones]:
    """Which milestones are new where answers of sequence `first` on, some of them late, made `log` of `old`.

    Both logs in order of time. The new answers that reached one themselves, and those that answers there
    before have reached, each told with the newest late answer before it.
    """
    before, after = (streak_lengths(of.batch.local_day, of.batch.answered_at) for of in (old, log))
    own: list[int] = []
    brought: dict[int, list[tuple[int, int]]] = {}
    is_new = log.sequence >= first
    for place in milestones_since(before, old.batch.local_day, after, log.batch.local_day):
        if is_new[place]:
            own.append(int(log.sequence[place]))
            continue
        bringer = int(log.sequence[np.flatnonzero(is_new[:place])[-1]])
        reached = (int(log.batch.local_day[place]), int(after.milestone[place]))
        brought.setdefault(bringer, []).append(reached)
    return own, brought


def with_effects(log: AnswerLog, done: Absorbed | CrowdAbsorbed) -> AnswerLog:
    """The entries with what they changed."""
    return log._replace(
        batch=done.batch,
        predicted=done.predicted.astype(np.float32),
        streak=done.streak,
        milestone=done.milestone,
        mastery_before=done.mastery_before,
        crossed=done.crossed,
    )


def _with_repeats(
    tx: Transaction,
    sent: AnswerLog,
    new: AnswerLog,
    known: dict[str, int],
    state: LearnerState,
    brought: Milestones,
) -> RecordedAnswers:
    """One entry for each answer sent, where some were there before or come twice."""
    old_ids = list(known)
    held = join_logs(new, answers_at(tx, [known[answer_id] for answer_id in old_ids]))
    where = {answer_id: i for i, answer_id in enumerate([*new.answer_id, *old_ids])}
    log = held.take(np.array([where[answer_id] for answer_id in sent.answer_id], np.intp))
    first = {answer_id: i for i, answer_id in reversed(list(enumerate(sent.answer_id)))}
    is_new = np.array([i == first[a] and a not in known for i, a in enumerate(sent.answer_id)])
    outcome = np.where(same_answers(sent, log), Outcome.DUPLICATE, Outcome.REUSED)
    outcome = np.where(is_new, Outcome.RECORDED, outcome).astype(np.uint8)
    return RecordedAnswers(outcome, log, state, brought)


def same_answers(sent: AnswerLog, held: AnswerLog) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """(n,) whether what was sent is what was recorded. A time is compared where the sender gave one.

    To the microsecond: that is how times are told, and logs may hold finer ones.
    """
    apart = np.abs(sent.batch.answered_at - held.batch.answered_at)
    same = (sent.timed == 0) | (apart < SAME_SECONDS)
    for name in ("question", "correct", "duration_ms", "hints"):
        same &= getattr(sent.batch, name) == getattr(held.batch, name)
    same &= sent.device == held.device
    for name in ("session_id", "recommendation_id"):
        pairs = zip(getattr(sent, name), getattr(held, name), strict=True)
        same &= np.fromiter((a == b for a, b in pairs), np.bool_, sent.size)
    return np.asarray(same)

"""From answers as sent to answers as recorded, with a result for each: the work of RecordAnswers and StreamAnswers."""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import NamedTuple, TypeVar

import numpy as np
from google.rpc import status_pb2

from engine.gaps import find_gaps, may_be_stuck
from engine.learner import TARGET_RETENTION, LearnerModel
from engine.learner.memory import SECONDS_A_DAY, days_until
from engine.types import U4, LearnerProfile
from genie.v1 import practice_service_pb2 as pb
from genie.v1 import progress_pb2, resources_pb2
from server import convert, errors
from server.answer_facts import answer_facts, on_calendar
from server.learner_views import gap_messages, held_time, milestone_messages, streak_message, view_of
from server.local_days import DEFAULT_TIME_ZONE, local_day
from server.rpc import Call
from server.tenants import Bundle, Tenants
from server.tracing import carried, part
from server.validate import MOST_SECONDS_AHEAD, Violations
from store.answers import NewAnswers, RecordedAnswers, record_answers
from store.api import Partition, Store, Transaction
from store.learners import Outcome, read_profile

MOST_HINTS = 255
COMMIT_SECONDS = 30.0
"""Longest wait for a commit when the caller set no deadline: a store that takes longer is not working."""

T = TypeVar("T")

_STATUSES = {
    Outcome.RECORDED: pb.ANSWER_STATUS_RECORDED,
    Outcome.DUPLICATE: pb.ANSWER_STATUS_DUPLICATE,
}
_EVENTS = {
    1: resources_pb2.MASTERY_EVENT_MASTERED,
    -1: resources_pb2.MASTERY_EVENT_LOST,
    0: resources_pb2.MASTERY_EVENT_UNSPECIFIED,
}


class _Valid(NamedTuple):
    """An answer that can be recorded."""

    place: int
    """Index in the call."""
    answer: pb.Answer
    question: int
    answered_at: float
    duration_ms: int


@dataclass(slots=True)
class _Batch:
    """One call's answers on their way."""

    call: Call
    bundle: Bundle
    results: list[pb.AnswerResult]
    by_learner: dict[str, list[_Valid]] = field(default_factory=dict)


def take_in(
    store: Store,
    tenants: Tenants,
    answers: Sequence[pb.Answer],
    call: Call,
    *,
    path: Callable[[int], Violations],
) -> list[pb.AnswerResult]:
    """Record answers and return their results, in order, after the commit.

    `path(i)` names answer i in violations. An answer that cannot be recorded has its error in its result. Raises
    StoreError when the store cannot take any.
    """
    batch = _Batch(
        call, tenants.bundle(call.tenant), [pb.AnswerResult(answer_id=a.answer_id) for a in answers]
    )
    if any(answer.question_id not in batch.bundle.catalog.question_row for answer in answers):
        batch.bundle = tenants.bundle(call.tenant, fresh=True)
    for place, answer in enumerate(answers):
        try:
            valid = _check(batch.bundle, place, answer, path(place), call.now)
        except errors.GenieError as error:
            _refuse(batch.results[place], error)
        else:
            batch.by_learner.setdefault(answer.learner_id, []).append(valid)
    pending = []
    for learner_id, group in batch.by_learner.items():
        partition = Partition(call.tenant, learner_id)
        with part("store.read_learner"), store.read(partition) as reader:
            time_zone = calendar_of(read_profile(reader))
        new = _new_answers(batch, group, time_zone)
        model = batch.bundle.learner_model
        work = partial(_record, learner_id=learner_id, new=new, model=model)
        operation = store.submit(partition, carried("engine.record_answers", work))
        pending.append((operation, group, time_zone))
    for operation, group, time_zone in pending:
        _fill(batch, group, committed(operation, call), time_zone)
    return batch.results


def committed(operation: "Future[T]", call: Call) -> T:
    """What a submitted operation returned, after its commit. Raises DeadlineExceeded, StoreUnavailable."""
    try:
        with part("store.commit"):
            return operation.result(min(call.remaining(), COMMIT_SECONDS))
    except TimeoutError:
        if call.remaining() > 0.0:
            raise errors.StoreUnavailable(operation="write") from None
        raise errors.DeadlineExceeded() from None


def calendar_of(profile: LearnerProfile | None) -> str:
    """The learner's time zone; UTC for one nobody has created."""
    return DEFAULT_TIME_ZONE if profile is None else profile.time_zone


def _record(tx: Transaction, *, learner_id: str, new: NewAnswers, model: LearnerModel) -> RecordedAnswers:
    return record_answers(tx, learner_id, new, model)


def _check(bundle: Bundle, place: int, answer: pb.Answer, check: Violations, now: float) -> _Valid:
    """The answer with its question's row and its time. Raises InvalidRequest, AnswerFromFuture, QuestionNotFound."""
    check.identifier("answer_id", answer.answer_id)
    check.identifier("learner_id", answer.learner_id)
    check.identifier("question_id", answer.question_id)
    check.identifier("session_id", answer.session_id, required=False)
    check.identifier("recommendation_id", answer.recommendation_id, required=False)
    if not answer.HasField("correct"):
        check.add("correct", "must be given")
    check.whole("hints_used", answer.hints_used, least=0, most=MOST_HINTS)
    check.enum("device", answer.device, resources_pb2.Device)
    seconds = convert.optional_duration(check, "duration", answer, "duration")
    answered_at = now
    if answer.HasField("answered_at"):
        answered_at = check.timestamp(
            "answered_at", answer.answered_at, now=now, most_ahead_seconds=float("inf")
        )
    check.check()
    if answered_at > now + MOST_SECONDS_AHEAD:
        raise errors.AnswerFromFuture(
            answer_id=answer.answer_id,
            answered_at=answer.answered_at.ToJsonString(),
            seconds_ahead=round(answered_at - now),
        )
    row = bundle.catalog.question_row.get(answer.question_id)
    if row is None:
        raise errors.QuestionNotFound(question_id=answer.question_id)
    return _Valid(place, answer, row, answered_at, round(seconds * 1e3))


def _refuse(result: pb.AnswerResult, error: errors.GenieError) -> None:
    status: status_pb2.Status = error.status()
    result.status = pb.ANSWER_STATUS_REJECTED
    result.error.CopyFrom(status)


def _new_answers(batch: _Batch, group: Sequence[_Valid], time_zone: str) -> NewAnswers:
    answers = [valid.answer for valid in group]
    questions: U4 = np.array([valid.question for valid in group], np.uint32)
    facts = answer_facts(
        batch.bundle.facts,
        question=questions,
        correct=np.array([answer.correct for answer in answers], np.uint8),
        answered_at=np.array([valid.answered_at for valid in group]),
        duration_ms=np.array([valid.duration_ms for valid in group], np.uint32),
        hints=np.array([answer.hints_used for answer in answers], np.uint8),
    )
    return NewAnswers(
        batch=on_calendar(facts, time_zone),
        answer_id=[answer.answer_id for answer in answers],
        session_id=[answer.session_id for answer in answers],
        recommendation_id=[answer.recommendation_id for answer in answers],
        device=np.array([answer.device for answer in answers], np.uint8),
        timed=np.array([answer.HasField("answered_at") for answer in answers], np.uint8),
        received_at=batch.call.now,
    )


def _fill(batch: _Batch, group: Sequence[_Valid], recorded: RecordedAnswers, time_zone: str) -> None:
    """Write what was recorded of one learner's answers into their results."""
    today = local_day(batch.call.now, time_zone)
    streak = streak_message(recorded.state, today, batch.call.now)
    logged = recorded.log.batch
    stuck = _Stuck(batch.bundle, recorded, batch.call.now)
    due = _due(recorded, batch.bundle.learner_model)
    for i, valid in enumerate(group):
        outcome = Outcome(int(recorded.outcome[i]))
        result = batch.results[valid.place]
        if outcome is Outcome.REUSED:
            _refuse(result, errors.IdempotencyKeyReused(field="answer_id", id=valid.answer.answer_id))
            continue
        result.status = _STATUSES[outcome]
        result.answered_at.CopyFrom(convert.timestamp(float(logged.answered_at[i])))
        result.predicted_success = float(recorded.log.predicted[i])
        result.mastery_changes.extend(_changes(batch.bundle, recorded, due, i))
        result.streak.CopyFrom(streak)
        result.milestones.extend(milestone_messages(int(recorded.log.milestone[i]), int(logged.local_day[i])))
        result.late = bool(recorded.log.late[i])
        if not logged.correct[i]:
            result.learning_gaps.extend(stuck.behind(i))


class _Stuck:
    """Where the answers of one call leave a learner stuck; worked out only when an answer is wrong."""

    def __init__(self, bundle: Bundle, recorded: RecordedAnswers, now: float) -> None:
        self._bundle = bundle
        self._recorded = recorded
        self._now = now

    def behind(self, i: int) -> list[progress_pb2.LearningGap]:
        """The gaps that wrong answer `i` points at: those of its question's own concepts."""
        facts = self._recorded.log.batch
        pairs = slice(int(facts.offsets[i]), int(facts.offsets[i + 1]))
        own = set(facts.concept[pairs][facts.weight[pairs] >= 1.0].tolist())
        return [gap for row, gap in self._gaps.items() if row in own]

    @cached_property
    def _gaps(self) -> dict[int, progress_pb2.LearningGap]:
        """Every gap of the learner among the concepts that wrong answers of the call were about, by row."""
        facts, state, catalog = self._recorded.log.batch, self._recorded.state, self._bundle.catalog
        wrong = np.repeat(facts.correct == 0, np.diff(facts.offsets)) & (facts.weight >= 1.0)
        rows = np.unique(facts.concept[wrong]).tolist()
        if not may_be_stuck(state, rows):
            return {}
        view = view_of(state, catalog, self._bundle.learner_model, self._now)
        gaps = find_gaps(state, view, catalog, among=rows)
        return {gap.row: told for gap, told in zip(gaps, gap_messages(gaps, view, catalog), strict=True)}


def _changes(
    bundle: Bundle, recorded: RecordedAnswers, due: Sequence[float], i: int
) -> list[pb.MasteryChange]:
    """What answer `i` moved; `due` says of every pair when its concept falls due, NaN for never."""
    log = recorded.log
    changes = []
    for pair in range(int(log.batch.offsets[i]), int(log.batch.offsets[i + 1])):
        change = pb.MasteryChange(
            concept_id=bundle.concept_id(int(log.batch.concept[pair])),
            mastery_before=float(log.mastery_before[pair]),
            mastery_after=float(log.batch.mastery[pair]),
            mastery_sd_after=float(log.batch.mastery_sd[pair]),
            weight=float(log.batch.weight[pair]),
            event=_EVENTS[int(log.crossed[pair])],
        )
        if not math.isnan(due[pair]):
            change.next_review_time.CopyFrom(held_time(due[pair]))
        changes.append(change)
    return changes


def _due(recorded: RecordedAnswers, model: LearnerModel) -> list[float]:
    """When the concept of each (concept, weight) pair falls due as the learner now stands; NaN for never."""
    concepts, rows = recorded.state.concepts, recorded.log.batch.concept
    # The rows of a structured array lie apart: searched as they are, they would be gathered at every look.
    known = np.ascontiguousarray(concepts["row"])
    at = np.searchsorted(known, rows)
    at[at == len(known)] = 0
    if not len(known):
        return [math.nan] * len(rows)
    decay = float(model.memory_sets[model.memory_set, 20])
    stability = concepts["stability"][at].astype(np.float64)
    days = np.where(stability > 0.0, stability, math.nan) * days_until(1.0, TARGET_RETENTION, decay)
    due = concepts["review_at"][at] + days * SECONDS_A_DAY
    due[known[at] != rows] = math.nan
    told: list[float] = due.tolist()
    return told

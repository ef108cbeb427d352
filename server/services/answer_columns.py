"""From answers as sent to columns to be recorded, learner after learner; refuses what is wrong. Reads no store."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from engine.types import U1, U4
from genie.v1 import practice_service_pb2 as pb
from genie.v1 import resources_pb2
from server import convert, errors
from server.answer_facts import answer_facts
from server.tenants import Bundle
from server.validate import MOST_ID_CHARACTERS, MOST_SECONDS_AHEAD, Violations
from store.answers import NewAnswers
from store.answers_bulk import ManyAnswers

MOST_HINTS = 255
_DEVICES = frozenset(resources_pb2.Device.values())

Path = Callable[[int], Violations]
"""Names answer i of a call in violations."""


class Sorted(NamedTuple):
    """The answers of a call that can be recorded, and the others."""

    many: ManyAnswers
    places: list[int]
    """Where each of them is in the call."""
    refused: dict[int, errors.GenieError]
    """What is wrong with the others, by their place in the call."""


class _Resolved(NamedTuple):
    """What is not read off a valid answer as it is."""

    question: Sequence[int]
    """Row in the catalogue."""
    answered_at: Sequence[float]
    timed: Sequence[bool]
    seconds: Sequence[float]


def sort_answers(bundle: Bundle, answers: Sequence[pb.Answer], now: float, path: Path) -> Sorted:
    """Check answers, resolve their ids and times, and put those of each learner together, in the order given."""
    number: dict[str, int] = {}
    learners = [answer.learner_id for answer in answers]
    for name in sorted(set(learners)):
        number[name] = len(number)
    owner = [number[name] for name in learners]
    places = sorted(range(len(answers)), key=owner.__getitem__)
    ordered = [answers[place] for place in places]
    refused: dict[int, errors.GenieError] = {}
    resolved = _quickly(bundle, ordered, now)
    if resolved is None:
        ordered, places, resolved, refused = _one_by_one(bundle, ordered, places, now, path)
    names = [learners[place] for place in places]
    starts = [i for i in range(len(names)) if i == 0 or names[i] != names[i - 1]]
    bounds = np.array([*starts, len(names)], np.int64)
    new = _new_answers(bundle, ordered, resolved, now)
    return Sorted(ManyAnswers([names[i] for i in starts], bounds, new), places, refused)


def _quickly(bundle: Bundle, answers: Sequence[pb.Answer], now: float) -> _Resolved | None:
    """Every answer resolved, when a look at all of them together finds nothing wrong; else None: look at each."""
    if not all(answer.HasField("correct") for answer in answers):
        return None
    ids = [answer.answer_id for answer in answers] + [answer.learner_id for answer in answers]
    optional = [answer.session_id for answer in answers] + [answer.recommendation_id for answer in answers]
    text = "".join(ids + optional)
    # Of ASCII, 128 characters are at most the 256 bytes that are allowed.
    if not (text.isascii() and text.isprintable() and all(ids)):
        return None
    if max(map(len, ids)) > MOST_ID_CHARACTERS or max(map(len, optional)) > MOST_ID_CHARACTERS:
        return None
    hints = [answer.hints_used for answer in answers]
    if min(hints) < 0 or max(hints) > MOST_HINTS or not _DEVICES.issuperset([a.device for a in answers]):
        return None
    row = bundle.catalog.question_row
    try:
        # An id that the catalogue holds has been checked when it was put there.
        questions = [row[answer.question_id] for answer in answers]
    except KeyError:
        return None
    seconds = [0.0] * len(answers)
    timed = [answer.HasField("answered_at") for answer in answers]
    answered_at = [now] * len(answers)
    for i, answer in enumerate(answers):
        if answer.HasField("duration"):
            taken = answer.duration
            whole, nanos = taken.seconds, taken.nanos
            if not (0 <= whole < convert.DAY_SECONDS and 0 <= nanos <= 999_999_999):
                return None
            seconds[i] = whole + nanos * 1e-9
        if timed[i]:
            given = answer.answered_at
            whole, nanos = given.seconds, given.nanos
            answered_at[i] = whole + nanos * 1e-9
            if not (whole >= 0 and 0 <= nanos <= 999_999_999 and answered_at[i] <= now + MOST_SECONDS_AHEAD):
                return None
    return _Resolved(questions, answered_at, timed, seconds)


def _one_by_one(
    bundle: Bundle, answers: Sequence[pb.Answer], places: Sequence[int], now: float, path: Path
) -> tuple[list[pb.Answer], list[int], _Resolved, dict[int, errors.GenieError]]:
    """The answers that are fine, where they are in the call, resolved; and what is wrong with the others."""
    fine: list[pb.Answer] = []
    kept: list[int] = []
    resolved = _Resolved([], [], [], [])
    rows: list[tuple[int, float, bool, float]] = []
    refused: dict[int, errors.GenieError] = {}
    for answer, place in zip(answers, places, strict=True):
        try:
            rows.append(_checked(bundle, answer, path(place), now))
        except errors.GenieError as error:
            refused[place] = error
        else:
            fine.append(answer)
            kept.append(place)
    if rows:
        resolved = _Resolved(*(list(column) for column in zip(*rows, strict=True)))
    return fine, kept, resolved, refused


def _checked(
    bundle: Bundle, answer: pb.Answer, check: Violations, now: float
) -> tuple[int, float, bool, float]:
    """(row, answered at, timed, seconds). Raises InvalidRequest, AnswerFromFuture, QuestionNotFound."""
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
    timed = answer.HasField("answered_at")
    answered_at = now
    if timed:
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
    return row, answered_at, timed, seconds


def _new_answers(bundle: Bundle, answers: Sequence[pb.Answer], resolved: _Resolved, now: float) -> NewAnswers:
    """The columns of checked answers, with the facts that follow from catalogue and model."""
    questions: U4 = np.array(resolved.question, np.uint32)
    duration: U4 = np.rint(np.array(resolved.seconds) * 1e3).astype(np.uint32)
    hints: U1 = np.array([answer.hints_used for answer in answers], np.uint8)
    return NewAnswers(
        batch=answer_facts(
            bundle.facts,
            question=questions,
            correct=np.array([answer.correct for answer in answers], np.uint8),
            answered_at=np.array(resolved.answered_at, np.float64),
            duration_ms=duration,
            hints=hints,
        ),
        answer_id=[answer.answer_id for answer in answers],
        session_id=[answer.session_id for answer in answers],
        recommendation_id=[answer.recommendation_id for answer in answers],
        device=np.array([answer.device for answer in answers], np.uint8),
        timed=np.array(resolved.timed, np.uint8),
        received_at=now,
    )


def refusal_result(answer_id: str, error: errors.GenieError) -> pb.AnswerResult:
    """The result of an answer that was refused."""
    return pb.AnswerResult(answer_id=answer_id, status=pb.ANSWER_STATUS_REJECTED, error=error.status())

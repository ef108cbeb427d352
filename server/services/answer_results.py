"""What answers changed, as results: in bulk as bytes, and as messages for learners whose answers were not plain."""

import math
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache

import numpy as np

from engine.catalog import Catalog
from engine.gaps import gaps_among, wrong_lately
from engine.learner import TARGET_RETENTION, LearnerModel, LearnerState
from engine.learner.memory import SECONDS_A_DAY, days_until
from engine.types import F8, U4, AnswerBatch
from genie.v1 import practice_service_pb2 as pb
from genie.v1 import progress_pb2, resources_pb2
from server import convert, errors
from server.answer_facts import DAY_SECONDS
from server.learner_views import gap_messages, held_time, milestone_messages, streak_message
from server.local_days import local_day
from server.services.answer_bytes import Texts, Told, result_fields
from server.services.answer_columns import refusal_result
from server.tenants import MOST_TENANTS, Bundle
from store.answers import RecordedAnswers
from store.answers_bulk import RecordedMany
from store.learners import Outcome

_STATUSES = {
    Outcome.RECORDED: pb.ANSWER_STATUS_RECORDED,
    Outcome.DUPLICATE: pb.ANSWER_STATUS_DUPLICATE,
}
_EVENTS = {
    1: resources_pb2.MASTERY_EVENT_MASTERED,
    -1: resources_pb2.MASTERY_EVENT_LOST,
    0: resources_pb2.MASTERY_EVENT_UNSPECIFIED,
}


def plain_fields(bundle: Bundle, recorded: RecordedMany, now: float) -> list[bytes]:
    """The results of all answers that were recorded in bulk, in the order of their log, encoded."""
    log, crowd, batch = recorded.log, recorded.crowd, recorded.log.batch
    decay = float(bundle.learner_model.memory_sets[bundle.learner_model.memory_set, 20])
    return result_fields(
        Told(
            answer_id=Texts.of([name.encode() for name in log.answer_id]),
            names=_names(bundle.catalog),
            streaks=Texts.of(_streaks(recorded, now)),
            extras=Texts.of(_extras(bundle, recorded, now)),
            bounds=recorded.bounds,
            answered_at=batch.answered_at,
            predicted=log.predicted,
            offsets=batch.offsets,
            concept=batch.concept,
            before=log.mastery_before,
            after=batch.mastery,
            deviation=batch.mastery_sd,
            weight=batch.weight,
            crossed=log.crossed,
            concepts=crowd.concepts,
            place=recorded.place,
            interval=days_until(1.0, TARGET_RETENTION, decay),
        )
    )


def messages_of(
    bundle: Bundle, sent: Sequence[str], recorded: RecordedAnswers, time_zone: str, now: float
) -> Iterator[pb.AnswerResult]:
    """The results of one learner's answers, whatever became of them; `sent` are the ids of the answers."""
    streak = streak_message(recorded.state, local_day(now, time_zone), now)
    log, facts = recorded.log, recorded.log.batch
    stuck = _Stuck(bundle, facts, recorded.state, now)
    rows = np.ascontiguousarray(recorded.state.concepts["row"])
    # Of a row that the state does not hold, as after a late answer to a concept since forgotten, nothing is due.
    place = np.minimum(np.searchsorted(rows, facts.concept), max(len(rows) - 1, 0))
    due = np.where(
        rows[place] == facts.concept, _due(recorded.state.concepts, place, bundle.learner_model), math.nan
    )
    for i, answer_id in enumerate(sent):
        outcome = Outcome(int(recorded.outcome[i]))
        if outcome is Outcome.REUSED:
            yield refusal_result(answer_id, errors.IdempotencyKeyReused(field="answer_id", id=answer_id))
            continue
        yield pb.AnswerResult(
            answer_id=answer_id,
            status=_STATUSES[outcome],
            answered_at=convert.timestamp(float(facts.answered_at[i])),
            predicted_success=float(log.predicted[i]),
            mastery_changes=_changes(bundle, recorded, due, i),
            streak=streak,
            milestones=_milestones(recorded, i),
            late=bool(log.late[i]),
            learning_gaps=() if facts.correct[i] else stuck.behind(i),
        )


def _milestones(recorded: RecordedAnswers, i: int) -> list[resources_pb2.Milestone]:
    """The milestones that answer `i` reached; when it came late, also those of days after it."""
    log = recorded.log
    milestones = milestone_messages(int(log.milestone[i]), int(log.batch.local_day[i]))
    if recorded.outcome[i] == Outcome.RECORDED:
        for day, reached in recorded.brought.get(int(log.sequence[i]), ()):
            milestones += milestone_messages(reached, day)
    return milestones


class _Stuck:
    """Where the answers of one call leave a learner stuck; worked out only when an answer is wrong."""

    def __init__(self, bundle: Bundle, facts: AnswerBatch, state: LearnerState, now: float) -> None:
        self._bundle = bundle
        self._facts = facts
        self._state = state
        self._now = now

    def behind(self, i: int) -> list[progress_pb2.LearningGap]:
        """The gaps that wrong answer `i` points at: those of its question's own concepts."""
        facts = self._facts
        pairs = slice(int(facts.offsets[i]), int(facts.offsets[i + 1]))
        own = set(facts.concept[pairs][facts.weight[pairs] >= 1.0].tolist())
        return [gap for row, gap in self._gaps.items() if row in own]

    @cached_property
    def _gaps(self) -> dict[int, progress_pb2.LearningGap]:
        """Every gap of the learner among the concepts that wrong answers of the call were about, by row."""
        rows = np.unique(self._facts.concept[_wrong_pairs(self._facts)])
        return _gaps_by_row(self._bundle, self._state, rows, self._now)


def _gaps_by_row(
    bundle: Bundle, state: LearnerState, rows: U4, now: float
) -> dict[int, progress_pb2.LearningGap]:
    """The gaps among some rows, weakest first."""
    gaps, footing = gaps_among(state, rows.astype(np.int64), bundle.catalog, bundle.learner_model, now)
    return {
        gap.row: told for gap, told in zip(gaps, gap_messages(gaps, footing, bundle.catalog), strict=True)
    }


def _wrong_pairs(facts: AnswerBatch) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
    """(m,) whether each pair is of a wrong answer's own concept."""
    return np.asarray(np.repeat(facts.correct == 0, np.diff(facts.offsets)) & (facts.weight >= 1.0))


def _changes(bundle: Bundle, recorded: RecordedAnswers, due: F8, i: int) -> list[pb.MasteryChange]:
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
            change.next_review_time.CopyFrom(held_time(float(due[pair])))
        changes.append(change)
    return changes


def _due(
    concepts: "np.ndarray[tuple[int], np.dtype[np.void]]",
    place: "np.ndarray[tuple[int], np.dtype[np.int64]]",
    model: LearnerModel,
) -> F8:
    """(m,) when each concept at `place` falls due, epoch seconds; NaN for never."""
    decay = float(model.memory_sets[model.memory_set, 20])
    stability = concepts["stability"][place].astype(np.float64)
    days = np.where(stability > 0.0, stability, math.nan) * days_until(1.0, TARGET_RETENTION, decay)
    due: F8 = concepts["review_at"][place] + days * SECONDS_A_DAY
    return due


def _streaks(recorded: RecordedMany, now: float) -> list[bytes]:
    """Each learner's streak as a field of a result."""
    headers = recorded.crowd.headers
    names = ("last_day", "day_streak", "longest_streak", "freezes", "freezes_spent")
    columns = [headers[name].tolist() for name in names]
    today: dict[str, int] = {}
    told = []
    for i, (number, stand) in enumerate(zip(recorded.numbers, zip(*columns, strict=True), strict=True)):
        zone = recorded.time_zones[number]
        day = today.get(zone)
        if day is None:
            day = today[zone] = local_day(now, zone)
        if stand[0] == day:
            told.append(_streak_today(*stand))
        else:
            streak = streak_message(recorded.crowd.state(i), day, now)
            told.append(pb.AnswerResult(streak=streak).SerializeToString())
    return told


@lru_cache(maxsize=16_384)
def _streak_today(day: int, days: int, longest: int, freezes: int, spent: int) -> bytes:
    """The streak of a learner who has practised on the day that it is: nothing of it is to be settled."""
    header = LearnerState.empty().header
    header["applied"] = header["days_practised"] = 1
    for name, value in (
        ("last_day", day),
        ("day_streak", days),
        ("longest_streak", longest),
        ("freezes", freezes),
        ("freezes_spent", spent),
    ):
        header[name] = value
    header["day_answers"] = 1
    state = LearnerState(header, LearnerState.empty().concepts, LearnerState.empty().recent)
    return pb.AnswerResult(streak=streak_message(state, day, day * DAY_SECONDS)).SerializeToString()


def _extras(bundle: Bundle, recorded: RecordedMany, now: float) -> list[bytes]:
    """Each answer's milestones and gaps, as fields of a result."""
    log, crowd, batch = recorded.log, recorded.crowd, recorded.log.batch
    extras: list[bytes] = [b""] * log.size
    if batch.correct.all() and not log.milestone.any():
        return extras
    for i in np.flatnonzero(log.milestone).tolist():
        milestones = milestone_messages(int(log.milestone[i]), int(batch.local_day[i]))
        extras[i] = pb.AnswerResult(milestones=milestones).SerializeToString()
    odd = np.flatnonzero(_wrong_pairs(batch) & wrong_lately(crowd.concepts["pattern"][recorded.place]))
    answers = np.searchsorted(batch.offsets, odd, side="right") - 1
    learners = np.searchsorted(recorded.bounds, answers, side="right") - 1
    ends = np.flatnonzero(np.diff(learners, append=-1)) + 1
    start = 0
    for end in ends.tolist():
        rows = batch.concept[odd[start:end]]
        gaps = _gaps_by_row(bundle, crowd.state(int(learners[start])), np.unique(rows), now)
        own: dict[int, set[int]] = {}
        for answer, row in zip(answers[start:end].tolist(), rows.tolist(), strict=True):
            own.setdefault(answer, set()).add(row)
        for answer, among in own.items():
            told = [gap for row, gap in gaps.items() if row in among]
            extras[answer] += pb.AnswerResult(learning_gaps=told).SerializeToString()
        start = end
    return extras


def _names(catalog: Catalog) -> Texts:
    """Ids of a catalogue's concepts, laid end to end; remembered for as many catalogues as are served."""
    held = _NAMES.get(id(catalog))
    if held is None or held[0] is not catalog:
        if len(_NAMES) >= MOST_TENANTS:
            _NAMES.clear()
        held = _NAMES[id(catalog)] = catalog, Texts.of([name.encode() for name in catalog.concept_ids])
    return held[1]


_NAMES: dict[int, tuple[Catalog, Texts]] = {}

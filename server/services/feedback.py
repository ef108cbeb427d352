"""What became of recommended questions: events into the store and into the learner's taste. Knows no scores."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np

from engine.catalog import Catalog
from engine.engagement import Engagement
from engine.policy import SOURCES
from engine.slate import Slate
from engine.types import U4
from genie.v1 import recommendation_service_pb2 as pb
from server import convert, errors
from server.rpc import Call
from server.services.answers import committed
from server.tenants import Bundle, Tenants
from server.validate import Violations
from store.api import Bulk, Partition, Store, Transaction
from store.erasures import erasures_of
from store.learners import Outcome, find_feedback, record_feedback, repeated_feedback
from store.records import FeedbackEvent, SlateRecord
from store.slates import find_slate
from store.tastes import MOST_DISMISSED, Taste, read_taste, write_taste

DISMISSED_REST_SECONDS = 3 * 86_400.0
"""A dismissed question is not recommended again for this long."""

WEIGHTS = {
    pb.FEEDBACK_KIND_SHOWN: 0.0,
    pb.FEEDBACK_KIND_CLICKED: 0.3,
    pb.FEEDBACK_KIND_STARTED: 0.5,
    pb.FEEDBACK_KIND_COMPLETED: 1.0,
    pb.FEEDBACK_KIND_DISMISSED: -1.0,
}
"""How far an event speaks for what was offered, −1 to 1."""

_STATUSES = {
    Outcome.RECORDED: pb.FEEDBACK_STATUS_RECORDED,
    Outcome.DUPLICATE: pb.FEEDBACK_STATUS_DUPLICATE,
}


class _Told(NamedTuple):
    """An event of a call."""

    place: int
    record: FeedbackEvent
    slate_at: float
    """When its slate was made; −inf for one without a slate."""


class _Kept(NamedTuple):
    """What became of an event."""

    outcome: Outcome
    happened_at: float
    """Epoch seconds, as recorded the first time."""


def engagement_of(taste: Taste, catalog: Catalog) -> Engagement | None:
    """What a taste says of the areas of a catalogue; None when it says nothing."""
    if not taste.taken and not taste.left:
        return None
    belief = Engagement.empty(len(catalog.areas))
    for code, area in enumerate(catalog.areas):
        for table, known in ((belief.taken, taste.taken), (belief.left, taste.left)):
            if area in known:
                counts = known[area][: len(SOURCES)]
                table[: len(counts), code] = counts
    return Engagement(belief.taken, belief.left, taste.at)


def dismissed_rows(taste: Taste, now: float) -> U4:
    """Rows of the questions that were dismissed lately."""
    rows = [row for row, at in taste.dismissed if now - at < DISMISSED_REST_SECONDS]
    return np.array(rows, np.uint32)


def take_feedback(
    store: Store, serving: Store, tenants: Tenants, events: Sequence[pb.FeedbackEvent], call: Call
) -> list[pb.FeedbackResult]:
    """Record events and return their results, in order, after the commit."""
    results = [pb.FeedbackResult(event_id=event.event_id) for event in events]
    bundle = tenants.of(call)
    slates: dict[str, SlateRecord | None] = {}
    by_learner: dict[str, list[_Told]] = {}
    for place, event in enumerate(events):
        try:
            check = Violations().item("events", place)
            happened_at = _check(check, event, call.now)
            if event.recommendation_id not in slates:
                slates[event.recommendation_id] = find_slate(serving, call.tenant, event.recommendation_id)
            slate = slates[event.recommendation_id]
            record, slate_at = _resolve(bundle, slate, event, happened_at, call.now)
        except errors.GenieError as error:
            _refuse(results[place], error)
        else:
            by_learner.setdefault(event.learner_id, []).append(_Told(place, record, slate_at))
    if by_learner:
        partitions = [Partition(call.tenant), *(Partition(call.tenant, name) for name in by_learner)]
        work = partial(_record_all, by_learner=by_learner)
        outcomes = committed(store.submit_bulk(partitions, work), call)
        for told, outcome in zip(by_learner.values(), outcomes, strict=True):
            if isinstance(outcome, Exception):
                raise outcome
            for one, kept in zip(told, outcome, strict=True):
                _fill(results[one.place], one.record, kept)
    return results


def _fill(result: pb.FeedbackResult, record: FeedbackEvent, kept: _Kept | None) -> None:
    if kept is None:
        _refuse(result, errors.RecommendationNotFound(recommendation_id=record.recommendation_id))
    elif kept.outcome is Outcome.REUSED:
        _refuse(result, errors.IdempotencyKeyReused(field="event_id", id=record.event_id))
    else:
        result.status = _STATUSES[kept.outcome]
        result.event_time.CopyFrom(convert.timestamp(kept.happened_at))


def _refuse(result: pb.FeedbackResult, error: errors.GenieError) -> None:
    result.status = pb.FEEDBACK_STATUS_REJECTED
    result.error.CopyFrom(error.status())


def _check(check: Violations, event: pb.FeedbackEvent, now: float) -> float:
    """When the event happened. Raises InvalidRequest."""
    check.identifier("event_id", event.event_id)
    check.identifier("learner_id", event.learner_id)
    check.identifier("recommendation_id", event.recommendation_id)
    check.identifier("question_id", event.question_id)
    check.enum("kind", event.kind, pb.FeedbackKind, required=True)
    happened_at = now
    if event.HasField("event_time"):
        happened_at = check.timestamp("event_time", event.event_time, now=now)
    convert.optional_duration(check, "dwell_duration", event, "dwell_duration")
    check.check()
    return happened_at


def _resolve(
    bundle: Bundle, slate: SlateRecord | None, event: pb.FeedbackEvent, happened_at: float, now: float
) -> tuple[FeedbackEvent, float]:
    """The event with the facts that learning from it needs, and when its slate was made; bare, and −inf, without one.

    Raises QuestionNotRecommended.
    """
    record = _bare(event, happened_at, now)
    if slate is None or slate.learner_id != event.learner_id:
        # It may be a repeat: slates make room for newer ones and are not durable, events are kept.
        return record, -math.inf
    if event.question_id not in slate.question_ids:
        raise errors.QuestionNotRecommended(
            recommendation_id=event.recommendation_id, question_id=event.question_id
        )
    item = Slate.from_bytes(slate.payload).items[slate.question_ids.index(event.question_id)]
    catalog, concept = bundle.catalog, int(item["concept"])
    known = concept < catalog.concept_count
    found = replace(
        record,
        question_row=int(item["question"]),
        sources=int(item["sources"]),
        area=catalog.areas[int(catalog.area_code[concept])] if known else "",
    )
    return found, slate.created_at


def _bare(event: pb.FeedbackEvent, happened_at: float, now: float) -> FeedbackEvent:
    """What the caller says of an event, without what its slate tells."""
    return FeedbackEvent(
        event_id=event.event_id,
        recommendation_id=event.recommendation_id,
        question_id=event.question_id,
        kind=event.kind,
        happened_at=happened_at,
        dwell_ms=round(event.dwell_duration.ToMilliseconds()),
        received_at=now,
    )


def _record_all(
    bulk: Bulk, *, by_learner: Mapping[str, Sequence[_Told]]
) -> list[list[_Kept | None] | Exception]:
    """Record each learner's events, for itself, in one transaction with what is noted of erasures."""
    erasures = erasures_of(bulk, list(by_learner))
    return [
        bulk.alone(number, partial(_record, events=events, erased=erased))
        for number, (events, erased) in enumerate(zip(by_learner.values(), erasures, strict=True), start=1)
    ]


def _record(tx: Transaction, *, events: Sequence[_Told], erased: float) -> list[_Kept | None]:
    """What became of a learner's events; None where there is no slate, or it went with the learner at `erased`."""
    kept: list[_Kept | None] = []
    before = taste = read_taste(tx)
    for _, record, slate_at in events:
        if slate_at > erased:
            outcome = record_feedback(tx, [record])[0]
        else:
            repeated = repeated_feedback(tx, record)
            if repeated is None:
                kept.append(None)
                continue
            outcome = repeated
        if outcome is Outcome.RECORDED:
            taste = learned(taste, record)
        kept.append(_kept(tx, record, outcome))
    if taste is not before:
        write_taste(tx, taste)
    return kept


def _kept(tx: Transaction, record: FeedbackEvent, outcome: Outcome) -> _Kept:
    first = find_feedback(tx, record.event_id)
    return _Kept(outcome, record.happened_at if first is None else first.happened_at)


def learned(taste: Taste, event: FeedbackEvent) -> Taste:
    """The taste after one event; the engine's belief of one area at a time, since areas go by name here."""
    areas = [*dict.fromkeys([*taste.taken, *taste.left, event.area])]
    belief = Engagement.empty(len(areas))
    for code, area in enumerate(areas):
        belief.taken[:, code] = taste.taken.get(area, 0.0)
        belief.left[:, code] = taste.left.get(area, 0.0)
    weight = WEIGHTS.get(pb.FeedbackKind.ValueType(event.kind), 0.0)
    known = Engagement(belief.taken, belief.left, taste.at)
    belief = known.observe(event.sources, areas.index(event.area), weight, event.happened_at)
    dismissed = taste.dismissed
    if event.kind == pb.FEEDBACK_KIND_DISMISSED:
        dismissed = _with_dismissal(dismissed, event.question_row, event.happened_at)
    return Taste(
        at=belief.at,
        taken={area: belief.taken[:, code].tolist() for code, area in enumerate(areas)},
        left={area: belief.left[:, code].tolist() for code, area in enumerate(areas)},
        dismissed=dismissed,
    )


def _with_dismissal(dismissed: Sequence[tuple[int, float]], row: int, at: float) -> list[tuple[int, float]]:
    """The newest dismissal of each question, the oldest first: the same in whatever order they arrive."""
    newest = max([at, *(known for other, known in dismissed if other == row)])
    others = [(other, known) for other, known in dismissed if other != row]
    return sorted([*others, (row, newest)], key=lambda entry: (entry[1], entry[0]))[-MOST_DISMISSED:]

"""What became of recommended questions: events into the store and into the learner's taste. Knows no scores."""

from collections.abc import Sequence
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
from store.api import Partition, Store, Transaction
from store.learners import Outcome, find_feedback, record_feedback
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
    by_learner: dict[str, list[tuple[int, FeedbackEvent]]] = {}
    doubtful: list[tuple[int, FeedbackEvent]] = []
    for place, event in enumerate(events):
        try:
            check = Violations().item("events", place)
            happened_at = _check(check, event, call.now)
            if event.recommendation_id not in slates:
                slates[event.recommendation_id] = find_slate(serving, call.tenant, event.recommendation_id)
            record = _resolve(bundle, slates[event.recommendation_id], event, happened_at, call.now)
        except errors.RecommendationNotFound:
            # It may be a repeat: slates make room for newer ones and are not durable, events are kept.
            doubtful.append((place, _bare(event, happened_at, call.now)))
        except errors.GenieError as error:
            _refuse(results[place], error)
        else:
            by_learner.setdefault(event.learner_id, []).append((place, record))
    pending = []
    for learner_id, group in by_learner.items():
        records = [record for _, record in group]
        operation = store.submit(Partition(call.tenant, learner_id), partial(_record, records=records))
        pending.append((operation, group))
    asked = [
        store.submit(Partition(call.tenant, events[place].learner_id), partial(_repeated, record=record))
        for place, record in doubtful
    ]
    for operation, group in pending:
        outcomes = committed(operation, call)
        for (place, record), kept in zip(group, outcomes, strict=True):
            _fill(results[place], record, kept)
    for (place, record), question in zip(doubtful, asked, strict=True):
        try:
            _fill(results[place], record, committed(question, call))
        except errors.RecommendationNotFound as error:
            _refuse(results[place], error)
    return results


def _fill(result: pb.FeedbackResult, record: FeedbackEvent, kept: _Kept) -> None:
    if kept.outcome is Outcome.REUSED:
        _refuse(result, errors.IdempotencyKeyReused(field="event_id", id=record.event_id))
    else:
        result.status = _STATUSES[kept.outcome]
        result.event_time.CopyFrom(convert.timestamp(kept.happened_at))


def _refuse(result: pb.FeedbackResult, error: errors.GenieError) -> None:
    result.status = pb.FEEDBACK_STATUS_REJECTED
    result.error.CopyFrom(error.status())


def _repeated(tx: Transaction, *, record: FeedbackEvent) -> _Kept:
    """What an event without a slate is, if it was recorded before. Raises RecommendationNotFound, which undoes it."""
    outcome = record_feedback(tx, [record])[0]
    if outcome is Outcome.RECORDED:
        raise errors.RecommendationNotFound(recommendation_id=record.recommendation_id)
    return _kept(tx, record, outcome)


def _kept(tx: Transaction, record: FeedbackEvent, outcome: Outcome) -> _Kept:
    first = find_feedback(tx, record.event_id)
    return _Kept(outcome, record.happened_at if first is None else first.happened_at)


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
) -> FeedbackEvent:
    """The event with the facts that learning from it needs. Raises RecommendationNotFound, QuestionNotRecommended."""
    if slate is None or slate.learner_id != event.learner_id:
        raise errors.RecommendationNotFound(recommendation_id=event.recommendation_id)
    if event.question_id not in slate.question_ids:
        raise errors.QuestionNotRecommended(
            recommendation_id=event.recommendation_id, question_id=event.question_id
        )
    item = Slate.from_bytes(slate.payload).items[slate.question_ids.index(event.question_id)]
    catalog, concept = bundle.catalog, int(item["concept"])
    known = concept < catalog.concept_count
    return replace(
        _bare(event, happened_at, now),
        question_row=int(item["question"]),
        sources=int(item["sources"]),
        area=catalog.areas[int(catalog.area_code[concept])] if known else "",
    )


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


def _record(tx: Transaction, *, records: Sequence[FeedbackEvent]) -> list[_Kept]:
    outcomes = record_feedback(tx, records)
    taste = read_taste(tx)
    for record, outcome in zip(records, outcomes, strict=True):
        if outcome is Outcome.RECORDED:
            taste = learned(taste, record)
    write_taste(tx, taste)
    return [_kept(tx, record, outcome) for record, outcome in zip(records, outcomes, strict=True)]


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
    dismissed = list(taste.dismissed)
    if event.kind == pb.FEEDBACK_KIND_DISMISSED:
        dismissed = [entry for entry in dismissed if entry[0] != event.question_row]
        dismissed = [*dismissed, (event.question_row, event.happened_at)][-MOST_DISMISSED:]
    return Taste(
        at=belief.at,
        taken={area: belief.taken[:, code].tolist() for code, area in enumerate(areas)},
        left={area: belief.left[:, code].tolist() for code, area in enumerate(areas)},
        dismissed=dismissed,
    )

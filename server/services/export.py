"""ExportLearner: everything held about a learner, as messages in order. Changes nothing."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from engine.learner import LearnerState
from engine.slate import Slate
from engine.types import LearnerProfile
from genie.v1 import explanation_pb2, practice_service_pb2, resources_pb2
from genie.v1 import learner_service_pb2 as pb
from genie.v1 import recommendation_service_pb2 as recommendation_pb
from server import convert
from server.learner_views import masteries, stats_message, touched_rows, view_of
from server.services.outcomes import Kept
from server.services.practice import session_message
from server.services.slate_bytes import slate_message
from server.tenants import Bundle
from store.answer_log import AnswerLog, chronological
from store.api import Partition, Reader, Store
from store.catalogs import concept_names, question_names
from store.learners import list_sessions, read_answers, read_feedback, read_state
from store.records import FeedbackEvent, Session, SlateRecord
from store.slates import list_slates


@dataclass(frozen=True, slots=True)
class LearnerRecords:
    """What the two stores hold of a learner; all but the slates are one moment's picture."""

    profile: LearnerProfile
    state: LearnerState
    answers: AnswerLog
    """In the order of their times."""
    sessions: list[Session]
    """Newest first."""
    feedback: list[FeedbackEvent]
    slates: list[SlateRecord]
    """Newest first."""

    @property
    def first_day(self) -> int | None:
        """Day of the first answer; None before it."""
        return int(self.answers.batch.local_day[0]) if self.answers.size else None


def read_records(
    reader: Reader, profile: LearnerProfile, serving: Store, partition: Partition, bundle: Bundle
) -> LearnerRecords:
    """Read all of it; `reader` is open on the learner's partition."""
    answers = read_answers(reader)
    return LearnerRecords(
        profile,
        read_state(reader, bundle.learner_model.memory_sets),
        answers.take(chronological(answers)),
        list_sessions(reader),
        read_feedback(reader),
        list_slates(serving, partition),
    )


def export_messages(
    records: LearnerRecords, store: Store, tenant: str, bundle: Bundle, now: float
) -> Iterator[pb.ExportLearnerResponse]:
    """The records in the order that the proto promises; sessions and slates oldest first."""
    profile, state, catalog = records.profile, records.state, bundle.catalog
    view = view_of(state, catalog, bundle.learner_model, now)
    yield pb.ExportLearnerResponse(learner=convert.learner_message(profile))
    yield pb.ExportLearnerResponse(stats=stats_message(profile, state, records.first_day, catalog, view, now))
    for mastery in masteries(catalog, view, touched_rows(state, catalog).tolist(), now):
        yield pb.ExportLearnerResponse(mastery=mastery)
    for answer in _answers(records, store, tenant):
        yield pb.ExportLearnerResponse(answer=answer)
    for session in reversed(records.sessions):
        yield pb.ExportLearnerResponse(session=session_message(session, profile.learner_id))
    for event in records.feedback:
        yield pb.ExportLearnerResponse(feedback_event=feedback_message(event, profile.learner_id))
    for record in reversed(records.slates):
        yield pb.ExportLearnerResponse(recommendation=_slate(record, bundle))


def feedback_message(event: FeedbackEvent, learner_id: str) -> recommendation_pb.FeedbackEvent:
    """A feedback event as stored."""
    return recommendation_pb.FeedbackEvent(
        event_id=event.event_id,
        learner_id=learner_id,
        recommendation_id=event.recommendation_id,
        question_id=event.question_id,
        kind=recommendation_pb.FeedbackKind.ValueType(event.kind),
        event_time=convert.timestamp(event.happened_at),
        dwell_duration=convert.known_duration(event.dwell_ms / 1e3),
    )


def _answers(records: LearnerRecords, store: Store, tenant: str) -> Iterator[pb.RecordedAnswer]:
    """The log, with the ids of questions and concepts, those deleted since included."""
    log, facts = records.answers, records.answers.batch
    with store.read(Partition(tenant)) as reader:
        questions = question_names(reader, set(facts.question.tolist()))
        concepts = concept_names(reader, set(facts.concept.tolist()))
    for i in range(log.size):
        answer = practice_service_pb2.Answer(
            answer_id=log.answer_id[i],
            learner_id=records.profile.learner_id,
            question_id=questions.get(int(facts.question[i]), ""),
            correct=bool(facts.correct[i]),
            answered_at=convert.timestamp(float(facts.answered_at[i])),
            duration=convert.known_duration(int(facts.duration_ms[i]) / 1e3),
            hints_used=int(facts.hints[i]),
            session_id=log.session_id[i],
            recommendation_id=log.recommendation_id[i],
            device=resources_pb2.Device.ValueType(int(log.device[i])),
        )
        yield pb.RecordedAnswer(
            answer=answer,
            record_time=convert.timestamp(float(log.received_at[i])),
            local_date=convert.calendar_date(int(facts.local_day[i])),
            grade=int(facts.grade[i]),
            question_success_rate=1.0 / (1.0 + math.exp(-float(facts.base_logit[i]))),
            exercised_concepts=[
                pb.ExercisedConcept(
                    concept_id=concepts.get(int(facts.concept[pair]), ""),
                    weight=float(facts.weight[pair]),
                    mastery=float(facts.mastery[pair]),
                )
                for pair in range(facts.offsets[i], facts.offsets[i + 1])
            ],
        )


def _slate(record: SlateRecord, bundle: Bundle) -> recommendation_pb.Recommendation:
    """A slate; of one whose content this version cannot read, what stands around it."""
    try:
        slate = Slate.from_bytes(record.payload)
    except ValueError:
        return recommendation_pb.Recommendation(
            recommendation_id=record.recommendation_id,
            learner_id=record.learner_id,
            create_time=convert.timestamp(record.created_at),
            expire_time=convert.timestamp(record.expires_at),
        )
    kept = Kept(record, slate)
    return slate_message(kept, bundle, explanation_pb2.EXPLANATION_LEVEL_SIMPLE)

"""PracticeService: sessions, and answers as they are given. What answers change, the store and the engine decide."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from engine.history import practice_seconds
from engine.types import LearnerProfile
from genie.v1 import practice_service_pb2 as pb
from genie.v1 import resources_pb2
from server import convert, errors
from server.experiments.junction import Junction
from server.idempotency import reply_once
from server.learner_views import daily_goal_message, streak_message
from server.local_days import local_day
from server.rpc import Call, Requests
from server.services.answers import calendar_of, committed, take_in
from server.services.slate_bytes import Encoded
from server.tenants import Bundle, Tenants
from server.validate import Violations
from store.answer_log import chronological
from store.api import Partition, Reader, Store, Transaction
from store.learners import (
    create_profile,
    end_session,
    first_of_session,
    last_sequence,
    read_answers,
    read_profile,
    read_session,
    read_state,
    start_session,
)
from store.records import Session

MOST_ANSWERS = 1_000


class PracticeService:
    """Serves `genie.v1.PracticeService`; see its proto for what each method promises."""

    def __init__(self, *, store: Store, tenants: Tenants, experiments: Junction | None = None) -> None:
        self._store = store
        self._tenants = tenants
        self._experiments = experiments

    def record_answers(self, request: pb.RecordAnswersRequest, call: Call) -> Encoded:
        """Record answers and tell what each changed, in a `RecordAnswersResponse`."""
        if len(request.answers) > MOST_ANSWERS:
            raise errors.BatchTooLarge(field="answers", size=len(request.answers), limit=MOST_ANSWERS)
        check = Violations()
        check.size("answers", len(request.answers), least=1, most=MOST_ANSWERS)
        check.check()
        results = take_in(
            self._store,
            self._tenants,
            request.answers,
            call,
            path=lambda place: Violations().item("answers", place),
        )
        if self._experiments is not None:
            self._experiments.answered(call, request.answers, results)
        counts = results.counts
        rest = pb.RecordAnswersResponse(
            recorded_count=counts.recorded,
            duplicate_count=counts.duplicate,
            rejected_count=counts.rejected,
        )
        return Encoded(b"".join((*results.fields, rest.SerializeToString())))

    def stream_answers(self, requests: "Requests[pb.StreamAnswersRequest]", call: Call) -> Iterator[Encoded]:
        """Record answers as they come, told of in `StreamAnswersResponse`s; what arrives together shares a commit."""
        while arrived := requests.take(MOST_ANSWERS):
            call.renew()
            answers = [message.answer for message in arrived]
            results = take_in(
                self._store, self._tenants, answers, call, path=lambda _: Violations().part("answer")
            )
            if self._experiments is not None:
                self._experiments.answered(call, answers, results)
            yield from map(Encoded, results.fields)

    def start_session(self, request: pb.StartSessionRequest, call: Call) -> pb.StartSessionResponse:
        """Open a session."""
        check = Violations()
        check.identifier("learner_id", request.learner_id)
        check.identifier("session_id", request.session_id)
        check.enum("device", request.device, resources_pb2.Device)
        available = convert.optional_duration(check, "available_duration", request, "available_duration")
        timed = request.HasField("start_time")
        started_at = check.timestamp("start_time", request.start_time, now=call.now) if timed else call.now
        check.check()
        partition = Partition(call.tenant, request.learner_id)
        with self._store.read(partition) as reader:
            first = first_of_session(reader, request.session_id)

        def start(tx: Transaction) -> Session:
            if read_profile(tx) is None:
                create_profile(
                    tx, LearnerProfile(request.learner_id, created_at=call.now, updated_at=call.now)
                )
            session = Session(
                session_id=request.session_id,
                started_at=started_at,
                device=request.device,
                available_seconds=available,
                # The log is shorter than it was read when the learner was erased meanwhile.
                first_sequence=min(first, last_sequence(tx) + 1),
            )
            return start_session(tx, session, timed=timed)[0]

        session = committed(self._store.submit(partition, start), call)
        return pb.StartSessionResponse(session=session_message(session, request.learner_id))

    def end_session(self, request: pb.EndSessionRequest, call: Call) -> pb.EndSessionResponse:
        """Close a session and sum it up."""
        check = Violations()
        check.identifier("learner_id", request.learner_id)
        check.identifier("session_id", request.session_id)
        check.identifier("request_id", request.request_id, required=False)
        timed = request.HasField("end_time")
        ended_at = check.timestamp("end_time", request.end_time, now=call.now) if timed else call.now
        check.check()
        bundle = self._tenants.of(call)

        def end(tx: Transaction) -> pb.EndSessionResponse:
            profile = read_profile(tx)
            if profile is None:
                raise errors.LearnerNotFound(learner_id=request.learner_id)
            session = read_session(tx, request.session_id)
            if session is None:
                raise errors.SessionNotFound(session_id=request.session_id)
            if session.ended_at:
                raise errors.SessionAlreadyEnded(session_id=request.session_id)
            if ended_at < session.started_at and timed:
                late = Violations()
                late.add("end_time", "must not be before the session's start")
                late.check()
            summary = _summary(tx, session, bundle, profile, call.now)
            ended = replace(
                session,
                ended_at=max(ended_at, session.started_at),
                summary=summary.SerializeToString(),
            )
            end_session(tx, ended)
            return pb.EndSessionResponse(session=session_message(ended, request.learner_id))

        partition = Partition(call.tenant, request.learner_id)
        operation = self._store.submit(
            partition, lambda tx: reply_once(tx, request, call, pb.EndSessionResponse, lambda: end(tx))
        )
        return committed(operation, call)


def session_message(session: Session, learner_id: str) -> pb.Session:
    """A session as stored, with its summary when it has ended."""
    message = pb.Session(
        session_id=session.session_id,
        learner_id=learner_id,
        device=resources_pb2.Device.ValueType(session.device),
        available_duration=convert.known_duration(session.available_seconds),
        start_time=convert.timestamp(session.started_at),
        end_time=convert.known_time(session.ended_at),
    )
    if session.summary:
        message.summary.ParseFromString(session.summary)
    return message


def _summary(
    reader: Reader, session: Session, bundle: Bundle, profile: LearnerProfile, now: float
) -> pb.SessionSummary:
    """What happened in a session, from the answers that came with its id."""
    # With the answer before, since which the time of the first may count.
    log = read_answers(reader, first=max(session.first_sequence - 1, 1))
    order = chronological(log)
    seconds = np.empty(log.size)
    seconds[order] = practice_seconds(log.take(order).batch)
    chosen = np.flatnonzero([name == session.session_id for name in log.session_id])
    log = log.take(chosen)
    facts = log.batch
    own = facts.weight >= 1.0
    practised = dict.fromkeys(bundle.concept_id(row) for row in facts.concept[own].tolist())
    last: dict[str, int] = {}
    for start, stop in pairwise(facts.offsets.tolist()):
        for pair in range(start, stop):
            if log.crossed[pair]:
                last[bundle.concept_id(int(facts.concept[pair]))] = int(log.crossed[pair])
    state = read_state(reader, bundle.learner_model.memory_sets)
    today = local_day(now, calendar_of(profile))
    summary = pb.SessionSummary(
        answers_count=log.size,
        correct_count=int(facts.correct.sum()),
        practice_duration=convert.duration(float(seconds[chosen].sum())),
        practised_concept_ids=[name for name in practised if name],
        mastered_concept_ids=[name for name, way in last.items() if name and way > 0],
        lost_concept_ids=[name for name, way in last.items() if name and way < 0],
        streak=streak_message(state, today, now),
        daily_goal=daily_goal_message(state, profile, today),
    )
    if log.size:
        summary.accuracy = float(facts.correct.mean())
    return summary

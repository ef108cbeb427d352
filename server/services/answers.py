"""Answers recorded, and a result for each: the work of RecordAnswers and StreamAnswers."""

from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import NamedTuple, TypeVar

from engine.learner import LearnerModel
from engine.types import LearnerProfile
from genie.v1 import practice_service_pb2 as pb
from server import errors
from server.local_days import DEFAULT_TIME_ZONE, local_days
from server.rpc import Call
from server.services.answer_bytes import message_field
from server.services.answer_columns import Path, Sorted, refusal_result, sort_answers
from server.services.answer_repeats import repeated_answers
from server.services.answer_results import messages_of, plain_fields
from server.tenants import Bundle, Tenants
from server.tracing import carried, part
from store.answers_bulk import ManyAnswers, RecordedMany, record_many
from store.api import Bulk, Partition, Store

COMMIT_SECONDS = 30.0
"""Longest wait for a commit when the caller set no deadline: a store that takes longer is not working."""

T = TypeVar("T")


class Results(Sequence[pb.AnswerResult]):
    """The results of a call's answers, in order, encoded; read as messages by whoever asks for them."""

    def __init__(self, fields: list[bytes], counts: "Counts") -> None:
        """Hold each result as the first field of a reply."""
        self.fields = fields
        self.counts = counts
        self._messages: Sequence[pb.AnswerResult] | None = None

    def __len__(self) -> int:
        return len(self.fields)

    def __getitem__(self, place):  # type: ignore[no-untyped-def]
        if self._messages is None:
            self._messages = pb.RecordAnswersResponse.FromString(b"".join(self.fields)).results
        return self._messages[place]


class Counts(NamedTuple):
    """What became of the answers of a call."""

    recorded: int
    duplicate: int
    rejected: int


def take_in(
    store: Store, tenants: Tenants, answers: Sequence[pb.Answer], call: Call, *, path: Path
) -> Results:
    """Record answers and return their results, in order, after the commit.

    `path(i)` names answer i in violations. An answer that cannot be recorded has its error in its result. Raises
    StoreError when the store cannot take any.
    """
    bundle = tenants.of(call)
    row = bundle.catalog.question_row
    if not all(answer.question_id in row for answer in answers):
        bundle = tenants.of(call, fresh=True)
    found = sort_answers(bundle, answers, call.now, path)
    fields: dict[int, bytes] = {}
    duplicate = rejected = 0
    if found.refused:
        repeated = repeated_answers(store, bundle, answers, found.refused, call)
        for place, error in found.refused.items():
            result = repeated.get(place) or refusal_result(answers[place].answer_id, error)
            duplicate += result.status == pb.ANSWER_STATUS_DUPLICATE
            rejected += result.status == pb.ANSWER_STATUS_REJECTED
            fields[place] = message_field(result)
    if found.places:
        recorded = _record(store, bundle, found.many, call)
        known, reused = _fill(fields, bundle, found, recorded, call)
        duplicate, rejected = duplicate + known, rejected + reused
    counts = Counts(len(answers) - duplicate - rejected, duplicate, rejected)
    return Results([fields[place] for place in range(len(answers))], counts)


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


def _record(store: Store, bundle: Bundle, many: ManyAnswers, call: Call) -> RecordedMany:
    """Record all of it in one commit. Raises what kept one learner's answers from being recorded."""
    partitions = [Partition(call.tenant, learner_id) for learner_id in many.learners]
    work = partial(_record_many, many=many, model=bundle.learner_model)
    recorded = committed(store.submit_bulk(partitions, carried("engine.record_answers", work)), call)
    for outcome in recorded.alone.values():
        if isinstance(outcome, Exception):
            raise outcome
    return recorded


def _record_many(bulk: Bulk, *, many: ManyAnswers, model: LearnerModel) -> RecordedMany:
    return record_many(bulk, many, model, local_days)


def _fill(
    fields: dict[int, bytes], bundle: Bundle, found: Sorted, recorded: RecordedMany, call: Call
) -> tuple[int, int]:
    """Encode the result of every answer under its place; (duplicates, answers whose id was used for another)."""
    starts = found.many.bounds.tolist()
    if recorded.numbers:
        places: list[int] = []
        for number in recorded.numbers:
            places += found.places[starts[number] : starts[number + 1]]
        fields.update(zip(places, plain_fields(bundle, recorded, call.now), strict=True))
    duplicate, reused = 0, 0
    for number, outcome in recorded.alone.items():
        assert not isinstance(outcome, Exception), "raised before"
        zone = recorded.time_zones[number]
        sent = found.many.answers.answer_id[starts[number] : starts[number + 1]]
        results = messages_of(bundle, sent, outcome, zone, call.now)
        for place, result in zip(found.places[starts[number] : starts[number + 1]], results, strict=True):
            duplicate += result.status == pb.ANSWER_STATUS_DUPLICATE
            reused += result.status == pb.ANSWER_STATUS_REJECTED
            fields[place] = message_field(result)
    return duplicate, reused

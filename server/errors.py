"""Every failure a caller can meet, as an exception that owns its status code and reason. Sends nothing."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from engine import graph
from store import api as store_api

DOMAIN = "genie.v1"
"""`google.rpc.ErrorInfo.domain` of every error."""

_MOST_FACT_CHARACTERS = 128
_MOST_MESSAGE_CHARACTERS = 512
# Clients drop trailing metadata over 8 KiB at random, over 16 KiB always; the status travels in base64.
_MOST_VIOLATION_BYTES = 3_000


class Violation(NamedTuple):
    """One thing wrong with one field of a request."""

    field: str
    """Full path, such as `answers[3].learner_id`."""
    description: str


def _bad_request(violations: Sequence[Violation]) -> Message:
    """A BadRequest with as many violations as fit into a response's trailing metadata."""
    bad: Message = error_details_pb2.BadRequest()
    room = _MOST_VIOLATION_BYTES
    for name, description in violations:
        violation = error_details_pb2.BadRequest.FieldViolation(field=name, description=description)
        room -= violation.ByteSize() + 4
        if room < 0:
            break
        bad.field_violations.append(violation)  # type: ignore[attr-defined]
    return bad


class GenieError(Exception):
    """A failure with a status code, a reason of `ErrorReason`, a sentence, and the facts it speaks of.

    Raise it with the facts as keywords: `raise LearnerNotFound(learner_id="u-42")`. Every fact named in
    `sentence` is required (KeyError otherwise); more facts may be given and travel in the ErrorInfo.
    """

    code: ClassVar[grpc.StatusCode] = grpc.StatusCode.INTERNAL
    reason: ClassVar[str] = "INTERNAL"
    sentence: ClassVar[str] = "The server failed; quote the correlation id to its operator."
    default_retry_seconds: ClassVar[float] = 0.0
    """RetryInfo sent when above 0."""
    default_field: ClassVar[str] = ""
    """The request's field at fault, named in a BadRequest, unless the facts give a `field`."""

    def __init__(self, *, retry_after_seconds: float | None = None, **facts: object) -> None:
        self.facts = {name: printable(value) for name, value in facts.items()}
        self.retry_after_seconds = retry_after_seconds or self.default_retry_seconds
        self.message = self.sentence.format_map(self.facts)[:_MOST_MESSAGE_CHARACTERS]
        super().__init__(self.message)

    def details(self) -> list[Message]:
        """Messages for `google.rpc.Status.details`, the ErrorInfo first."""
        info = error_details_pb2.ErrorInfo(reason=self.reason, domain=DOMAIN, metadata=self.facts)
        found: list[Message] = [info]
        if self.retry_after_seconds > 0.0:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromNanoseconds(int(self.retry_after_seconds * 1e9))
            found.append(retry)
        violations = self.violations()
        if violations:
            found.append(_bad_request(violations))
        return found

    def violations(self) -> Sequence[Violation]:
        """The fields at fault."""
        name = self.facts.get("field", self.default_field)
        if self.code is grpc.StatusCode.INVALID_ARGUMENT and name:
            return (Violation(name, self.message),)
        return ()

    def status(self) -> status_pb2.Status:
        """The failure as a message: for a call's trailing metadata or for one item of a batch."""
        status = status_pb2.Status(code=self.code.value[0], message=self.message)
        for detail in self.details():
            status.details.add().Pack(detail)
        return status


def printable(value: object) -> str:
    """`value` as text safe for a log or a header: control characters escaped, at most 128 characters."""
    text = str(value)
    if len(text) > _MOST_FACT_CHARACTERS:
        text = text[: _MOST_FACT_CHARACTERS - 1] + "…"
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else f"\\u{ord(character):04x}" for character in text)


class InvalidRequest(GenieError):
    """Fields of a request are wrong; every violation is named, as far as the size of a header allows."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_FIELD"
    sentence = "The request is not valid."

    def __init__(self, violations: Sequence[Violation], *, unnamed: int = 0) -> None:
        self._violations = tuple(violations)
        first = self._violations[0]
        count = len(self._violations) + unnamed
        super().__init__(field=first.field, violations_count=count)
        more = f" (and {count - 1} more)" if count > 1 else ""
        self.message = f"{first.field}: {first.description}{more}"[:_MOST_MESSAGE_CHARACTERS]
        self.args = (self.message,)

    def violations(self) -> Sequence[Violation]:
        """Every violation found, at most 100."""
        return self._violations


class MalformedRequest(GenieError):
    """The bytes of a request are no message of the method's request type."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "MALFORMED_REQUEST"
    sentence = "The request cannot be decoded as {message_type}."


class InvalidTenant(GenieError):
    """The `x-tenant-id` header names no possible tenant."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_TENANT"
    sentence = "x-tenant-id is {tenant}; it must be 1 to 64 letters, digits, dots, hyphens or underscores."


class InvalidPageToken(GenieError):
    """A page token that this method, with these filters, did not give out."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "INVALID_PAGE_TOKEN"
    sentence = "page_token is not one this list returned for the same filters; start again without it."
    default_field = "page_token"


class BatchTooLarge(GenieError):
    """More entries in one request than the method takes."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "BATCH_TOO_LARGE"
    sentence = "{field} has {size} entries; at most {limit} fit into one request."


class LearnerNotFound(GenieError):
    """The learner was never created, or was erased."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "LEARNER_NOT_FOUND"
    sentence = "Learner {learner_id} does not exist."


class LearnerAlreadyExists(GenieError):
    """A learner with this id exists, with other fields than the request's."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "LEARNER_ALREADY_EXISTS"
    sentence = "Learner {learner_id} exists already."


class ConceptNotFound(GenieError):
    """The concept was never created, or was deleted."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "CONCEPT_NOT_FOUND"
    sentence = "Concept {concept_id} does not exist."


class QuestionNotFound(GenieError):
    """The question was never created, or was deleted."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "QUESTION_NOT_FOUND"
    sentence = "Question {question_id} does not exist."


class ConceptInUse(GenieError):
    """The concept cannot be deleted while something refers to it."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "CONCEPT_IN_USE"
    sentence = (
        "Concept {concept_id} is named {uses_count} times by questions or concepts; change those first."
    )


class PrerequisiteCycle(GenieError):
    """A change of the catalogue would make a concept its own prerequisite."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "PREREQUISITE_CYCLE"
    sentence = "The prerequisites form a cycle: {cycle}."


class IdempotencyKeyReused(GenieError):
    """The request id was used before, with another request."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "IDEMPOTENCY_KEY_REUSED"
    sentence = (
        "{field} {id} was used before with other content; nothing changed, and new content needs a new id."
    )


class AnswerFromFuture(GenieError):
    """An answer is dated more than a day ahead of the server's clock."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "ANSWER_FROM_FUTURE"
    sentence = "Answer {answer_id} is dated {answered_at}, more than a day ahead of the server's clock."
    default_field = "answered_at"


class EmbeddingSizeMismatch(GenieError):
    """A question's embedding is not as long as those of the tenant's other questions."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "EMBEDDING_SIZE_MISMATCH"
    sentence = "The embedding of question {question_id} has {size} numbers; the others have {expected_size}."


class SessionNotFound(GenieError):
    """The learner has no such practice session."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "SESSION_NOT_FOUND"
    sentence = "Session {session_id} does not exist."


class SessionAlreadyEnded(GenieError):
    """The practice session takes no more answers."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "SESSION_ALREADY_ENDED"
    sentence = "Session {session_id} has ended already."


class RecommendationNotFound(GenieError):
    """The recommendation was never given, or is older than what is kept."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "RECOMMENDATION_NOT_FOUND"
    sentence = "Recommendation {recommendation_id} does not exist or is no longer kept."


class QuestionNotRecommended(GenieError):
    """The recommendation is kept, but the question is not in it."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "QUESTION_NOT_RECOMMENDED"
    sentence = "Recommendation {recommendation_id} does not hold question {question_id}."


class UnknownPolicy(GenieError):
    """No recommendation policy has this name."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "UNKNOWN_POLICY"
    sentence = "policy {policy} is not known; known are {known_policies}."
    default_field = "policy"


class ServerDraining(GenieError):
    """The worker is being stopped or replaced; another connection reaches another worker."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "SERVER_DRAINING"
    sentence = "This worker is draining; call again on a new connection."
    default_retry_seconds = 0.1


class ServerOverloaded(GenieError):
    """The worker has as many unary calls as it takes, or can serve in time."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "SERVER_OVERLOADED"
    sentence = (
        "More calls wait than can be served in time (at most {limit} are taken at once); try again later."
    )
    default_retry_seconds = 0.5


class TooManyStreams(GenieError):
    """As many streams are open as the worker takes."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "TOO_MANY_STREAMS"
    sentence = (
        "{limit} streams are open, as many as are taken at once; try again later, or call the unary method."
    )
    default_retry_seconds = 5.0


class StoreUnavailable(GenieError):
    """The store cannot be read or written at the moment; nothing was changed."""

    code = grpc.StatusCode.UNAVAILABLE
    reason = "STORE_UNAVAILABLE"
    sentence = "The store is not available; nothing was changed."
    default_retry_seconds = 1.0


class StoreFull(GenieError):
    """The disk or the store's maximum size is reached; nothing was changed."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED
    reason = "STORE_FULL"
    sentence = "The store is full; nothing was changed. Its operator has to make room."
    default_retry_seconds = 60.0


class DeadlineExceeded(GenieError):
    """The caller's deadline passed before the work was done."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED
    reason = "DEADLINE_EXCEEDED"
    sentence = "The deadline passed before the work was done."


class CallCancelled(GenieError):
    """The caller has gone."""

    code = grpc.StatusCode.CANCELLED
    reason = "CANCELLED"
    sentence = "The call was cancelled by its caller."


class Internal(GenieError):
    """A fault of the server; the log holds its cause under the same correlation id."""


def _key_reused(error: Any) -> GenieError:
    # A session's own id is what makes starting it twice harmless; everything else carries a request id.
    name = "session_id" if error.method == "StartSession" else "request_id"
    return IdempotencyKeyReused(field=name, id=error.request_id)


def _cycle(error: Any) -> GenieError:
    return PrerequisiteCycle(cycle=" > ".join(error.path))


_TRANSLATIONS: Mapping[type[Exception], Callable[[Exception], GenieError]] = {
    store_api.StoreFull: lambda _: StoreFull(operation="write"),
    # Reads come from a memory map: what fails is a write, or everything at once.
    store_api.StoreUnavailable: lambda _: StoreUnavailable(operation="write"),
    store_api.IdempotencyKeyReused: _key_reused,
    graph.PrerequisiteCycle: _cycle,
    TimeoutError: lambda _: DeadlineExceeded(),
    # The request iterator of a stream raises it when the caller has gone.
    grpc.RpcError: lambda _: CallCancelled(),
}
"""Errors of the layers below and of the libraries, and what callers are told."""


def translate(error: Exception) -> GenieError | None:
    """What to tell the caller about `error`; None for a fault that only the server's log may describe."""
    if isinstance(error, GenieError):
        return error
    for kind in type(error).__mro__:
        make = _TRANSLATIONS.get(kind)
        if make is not None:
            return make(error)
    return None

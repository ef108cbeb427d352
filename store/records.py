"""Records that only the store and the services share: sessions, feedback events, the catalogue's counters."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Session:
    """A stretch of practice that the caller opened."""

    session_id: str
    started_at: float
    """Epoch seconds."""
    ended_at: float = 0.0
    """Epoch seconds; 0 while it is open."""
    device: int = 0
    available_seconds: float = 0.0
    """Time the learner meant to spend; 0 when unknown."""
    first_sequence: int = 0
    """Sequence of the session's first answer, or else of the next to come when it was opened: none is earlier."""
    summary: bytes = b""
    """What the service wrote down at the end; the store does not read it."""


@dataclass(frozen=True, slots=True)
class FeedbackEvent:
    """What a learner did with a recommendation."""

    event_id: str
    recommendation_id: str
    question_id: str
    kind: int
    happened_at: float
    """Epoch seconds."""
    dwell_ms: int = 0
    """0 when unknown."""
    received_at: float = 0.0
    question_row: int = -1
    """Row of the question when it was known, else -1."""
    sources: int = 0
    """Bit mask of what had proposed the question."""
    area: str = ""
    """Area of the concept it was proposed for."""


@dataclass(frozen=True, slots=True)
class CatalogCounts:
    """A tenant's catalogue in numbers. `version` rises with every change; rows are never reused."""

    version: int = 0
    concepts: int = 0
    """Concepts there are, deleted ones not counted."""
    questions: int = 0
    concept_rows: int = 0
    """Rows given, deleted ones included."""
    question_rows: int = 0
    changed_at: float = 0.0


@dataclass(frozen=True, slots=True)
class SlateRecord:
    """A shown list, as computed; the payload belongs to the engine."""

    recommendation_id: str
    learner_id: str
    created_at: float
    expires_at: float
    request_digest: bytes
    """Digest of the request that asked for it; empty when it carried no id."""
    payload: bytes
    question_ids: tuple[str, ...] = ()
    """Of the payload's items, which know rows only."""
    correlation_id: str = ""
    """Of the call that made it."""
    degraded: int = 0
    """Number of what kept it from being all it could be; 0 when nothing did."""


@dataclass(frozen=True, slots=True)
class RememberedReply:
    """What a request was answered, so that its repeat gets the same."""

    fingerprint: bytes
    expires_at: float
    result: bytes

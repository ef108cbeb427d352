"""What a request for slates wishes for, its ids looked up: the same for all learners of a batch. Knows no learner."""

from collections.abc import Hashable
from hashlib import blake2b
from typing import NamedTuple

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from engine.policy import Policy
from engine.types import U4
from genie.v1 import recommendation_service_pb2 as pb
from genie.v1 import resources_pb2
from server import errors
from server.idempotency import fingerprint
from server.tenants import Bundle

_NO_ROWS = np.zeros(0, np.uint32)


class Wish(NamedTuple):
    """A checked request, the same for all learners of a batch."""

    request_id: str
    digest: bytes
    """Of the request's content; empty when it carries no id."""
    limit: int
    policy: Policy
    objective: int
    """Concept row; −1 asks for each learner's own goal."""
    small_screen: bool
    available_s: float
    """0 when not known."""
    local_hour: int
    """−1 asks for each learner's own."""
    excluded: U4
    named: bool
    """Whether the caller named the policy, so that no experiment chooses it."""
    as_of: float | None
    """The moment that the slate is for, epoch seconds; None for the time of the call."""
    circumstances: Hashable = None
    """All of the request that a pool depends on, but for learner and policy."""
    lost: errors.ConceptNotFound | None = None
    """Why no new slate can be made; those of an earlier call with the same request id are as they were."""


def wish_of(request: pb.RecommendRequest | pb.BatchRecommendRequest, bundle: Bundle, policy: Policy) -> Wish:
    """The request with its ids looked up. Raises ConceptNotFound for an unknown objective, if it can be no repeat."""
    objective = -1
    lost: errors.ConceptNotFound | None = None
    if request.objective_concept_id:
        found = bundle.catalog.concept_row.get(request.objective_concept_id)
        if found is None:
            lost = errors.ConceptNotFound(
                concept_id=request.objective_concept_id, field="objective_concept_id"
            )
            if not request.request_id:
                raise lost
        else:
            objective = found
    excluded: list[int] = []
    if request.exclude_question_ids:
        rows = bundle.catalog.question_row
        excluded = [rows[question_id] for question_id in request.exclude_question_ids if question_id in rows]
    limit = request.limit or 10
    small_screen, available_s, hour, as_of = False, 0.0, -1, None
    if request.HasField("context"):
        context = request.context
        small_screen = context.device == resources_pb2.DEVICE_PHONE
        available_s = context.available_duration.ToMilliseconds() / 1e3
        hour = context.local_hour if context.HasField("local_hour") else -1
        as_of = _seconds(context.as_of_time) if context.HasField("as_of_time") else None
    return Wish(
        request_id=request.request_id,
        digest=fingerprint(request) if request.request_id else b"",
        limit=limit,
        policy=policy,
        objective=objective,
        small_screen=small_screen,
        available_s=available_s,
        local_hour=hour,
        excluded=np.array(excluded, np.uint32) if excluded else _NO_ROWS,
        named=bool(request.policy),
        as_of=as_of,
        circumstances=(limit, objective, small_screen, available_s, hour, _name(excluded)),
        lost=lost,
    )


def _name(rows: list[int]) -> bytes:
    """Short for a set of question rows: a thousand of them would take more memory than the pool that they name."""
    if not rows:
        return b""
    return blake2b(np.array(sorted(set(rows)), np.uint32).tobytes(), digest_size=16).digest()


def _seconds(moment: Timestamp) -> float:
    return float(moment.seconds + moment.nanos * 1e-9)

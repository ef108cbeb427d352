"""From a request to a slate, computed once and kept: the work behind Recommend and BatchRecommend. Encodes no reply."""

import dataclasses
import logging
import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from engine.learner import LearnerState
from engine.policy import SOURCES, Policy
from engine.recommend import Context, RecommendQuery, recommend, seed_of
from engine.slate import Slate
from engine.types import U4, LearnerProfile
from genie.v1 import recommendation_service_pb2 as pb
from genie.v1 import resources_pb2
from server import errors
from server.experiments.junction import Junction
from server.idempotency import fingerprint
from server.local_days import DEFAULT_TIME_ZONE, local_hour
from server.rpc import Call
from server.services.feedback import dismissed_rows, engagement_of
from server.tenants import Bundle
from server.tracing import part
from store import codec
from store.api import Partition, Store, StoreError
from store.learners import read_profile, read_state
from store.records import SlateRecord
from store.slates import find_slate, slate_id, write_slate
from store.tastes import Taste, read_taste

SESSION_GAP_SECONDS = 1_800.0
"""After this long without an answer, a session is over."""

_COLLABORATIVE = SOURCES.index("collaborative")
_LOG = logging.getLogger("genie.recommend")


class Known(NamedTuple):
    """What the store holds of a learner, read at one moment."""

    profile: LearnerProfile | None
    state: LearnerState
    taste: Taste

    @property
    def time_zone(self) -> str:
        """The learner's time zone; UTC for one nobody has heard of."""
        return DEFAULT_TIME_ZONE if self.profile is None else self.profile.time_zone


class Wish(NamedTuple):
    """A checked request, the same for all learners of a batch."""

    request_id: str
    digest: bytes
    """Of the request's content."""
    limit: int
    policy: Policy
    objective: int
    """Concept row; −1 asks for each learner's own goal."""
    context: pb.RecommendationContext
    excluded: U4
    named: bool
    """Whether the caller named the policy, so that no experiment chooses it."""
    as_of: float | None
    """The moment that the slate is for, epoch seconds; None for the time of the call."""


class Kept(NamedTuple):
    """A slate with its record, and what kept it from being all it could be."""

    record: SlateRecord
    slate: Slate
    degraded: "pb.DegradedReason.ValueType"


@dataclass(frozen=True, slots=True)
class SlateMaker:
    """Makes and keeps slates."""

    store: Store
    serving: Store
    budget_seconds: float
    """Past this, a call answers with what it has."""
    keep_seconds: float
    """How long a slate is active."""
    experiments: Junction | None = None

    def read(self, tenant: str, learner_id: str, bundle: Bundle) -> Known:
        """What is known of a learner now, every acknowledged answer included."""
        with part("store.read_learner"), self.store.read(Partition(tenant, learner_id)) as reader:
            return Known(
                read_profile(reader),
                read_state(reader, bundle.learner_model.memory_sets),
                read_taste(reader),
            )

    def make(self, learner_id: str, wish: Wish, bundle: Bundle, call: Call, *, started: float) -> Kept:
        """The slate for one learner: the earlier one when its request is repeated. Raises IdempotencyKeyReused.

        `started`, on the monotonic clock, is when the time budget began to run.
        """
        placement = None
        if self.experiments is not None and not wish.named:
            placement = self.experiments.place(call.tenant, learner_id, call.now)
        kept = self._make(
            learner_id, wish, bundle, call, placement.policy if placement else wish.policy, started
        )
        if self.experiments is not None and placement is not None:
            as_assigned = kept.slate.policy == placement.policy.name and len(kept.slate.items) > 0
            as_assigned &= kept.degraded != pb.DEGRADED_REASON_TIME_BUDGET
            self.experiments.shown(placement, learner_id, call, as_assigned=as_assigned)
        return kept

    def _make(
        self, learner_id: str, wish: Wish, bundle: Bundle, call: Call, policy: Policy, started: float
    ) -> Kept:
        name = codec.digest(call.method, wish.request_id) if wish.request_id else b""
        recommendation_id = slate_id(learner_id, name)
        if wish.request_id:
            with part("store.find_slate"):
                held = find_slate(self.serving, call.tenant, recommendation_id)
            if held is not None and held.expires_at > call.now:
                if held.request_digest != wish.digest:
                    raise errors.IdempotencyKeyReused(field="request_id", id=wish.request_id)
                return Kept(held, Slate.from_bytes(held.payload), pb.DEGRADED_REASON_UNSPECIFIED)
        deadline = min(started + self.budget_seconds, call.deadline)
        known = self.read(call.tenant, learner_id, bundle)
        degraded = pb.DEGRADED_REASON_UNSPECIFIED
        if bundle.model_failed:
            degraded = pb.DEGRADED_REASON_MODEL_UNAVAILABLE
        if time.monotonic() > deadline:
            policy, degraded = _without_neighbours(policy), pb.DEGRADED_REASON_TIME_BUDGET
        seed = seed_of(call.tenant, learner_id, wish.request_id or recommendation_id)
        at = call.now if wish.as_of is None else wish.as_of
        with part("engine.recommend"):
            slate = recommend(
                _query(known, wish, bundle, seed, at),
                known.state,
                bundle.serving,
                policy,
                now=at,
                take_up=_take_up(known.taste, bundle),
            )
        ids = bundle.catalog.question_ids
        record = SlateRecord(
            recommendation_id=recommendation_id,
            learner_id=learner_id,
            created_at=call.now,
            expires_at=call.now + self.keep_seconds,
            request_digest=wish.digest if wish.request_id else b"",
            payload=slate.to_bytes(),
            question_ids=tuple(ids[row] for row in slate.items["question"].tolist()),
            correlation_id=call.correlation_id,
        )
        if time.monotonic() > deadline:
            degraded = pb.DEGRADED_REASON_TIME_BUDGET
        try:
            with part("store.write_slate"):
                write_slate(self.serving, call.tenant, record)
        except StoreError:
            _LOG.exception("a slate could not be kept")
            degraded = pb.DEGRADED_REASON_NOT_STORED
        return Kept(record, slate, degraded)


def wish_of(request: pb.RecommendRequest | pb.BatchRecommendRequest, bundle: Bundle, policy: Policy) -> Wish:
    """The request with its ids looked up. Raises ConceptNotFound for an unknown objective."""
    objective = -1
    if request.objective_concept_id:
        found = bundle.catalog.concept_row.get(request.objective_concept_id)
        if found is None:
            raise errors.ConceptNotFound(
                concept_id=request.objective_concept_id, field="objective_concept_id"
            )
        objective = found
    rows = bundle.catalog.question_row
    excluded = [rows[question_id] for question_id in request.exclude_question_ids if question_id in rows]
    return Wish(
        request_id=request.request_id,
        digest=fingerprint(request),
        limit=request.limit or 10,
        policy=policy,
        objective=objective,
        context=request.context,
        excluded=np.array(excluded, np.uint32),
        named=bool(request.policy),
        as_of=_seconds(request.context.as_of_time) if request.context.HasField("as_of_time") else None,
    )


def _seconds(moment: Timestamp) -> float:
    return float(moment.seconds + moment.nanos * 1e-9)


def _query(known: Known, wish: Wish, bundle: Bundle, seed: int, now: float) -> RecommendQuery:
    objective = wish.objective
    if objective < 0 and known.profile is not None:
        objective = bundle.catalog.concept_row.get(known.profile.goal.concept_id, -1)
    dismissed = dismissed_rows(known.taste, now)
    excluded = np.union1d(wish.excluded, dismissed) if len(dismissed) else wish.excluded
    return RecommendQuery(
        seed=seed,
        limit=wish.limit,
        objective=objective,
        context=_context(wish.context, known, now),
        excluded=excluded,
    )


def _context(context: pb.RecommendationContext, known: Known, now: float) -> Context:
    header = known.state.header[0]
    minutes = 0.0
    if known.state.applied and now - float(header["last_at"]) < SESSION_GAP_SECONDS:
        minutes = max(now - float(header["session_at"]), 0.0) / 60.0
    given = context.HasField("local_hour")
    return Context(
        small_screen=context.device == resources_pb2.DEVICE_PHONE,
        available_s=context.available_duration.ToMilliseconds() / 1e3,
        local_hour=context.local_hour if given else local_hour(now, known.time_zone),
        session_minutes=minutes,
    )


def _take_up(taste: Taste, bundle: Bundle) -> "np.ndarray[tuple[int, ...], np.dtype[np.float32]] | None":
    belief = engagement_of(taste, bundle.catalog)
    return None if belief is None else belief.take_up(len(bundle.catalog.areas))


def _without_neighbours(policy: Policy) -> Policy:
    """The policy less its one source that searches an index."""
    if policy.quotas[_COLLABORATIVE] == 0:
        return policy
    quotas = list(policy.quotas)
    quotas[_COLLABORATIVE] = 0
    limits = policy.limits.copy()
    limits[_COLLABORATIVE] = 0
    limits.flags.writeable = False
    return dataclasses.replace(policy, quotas=tuple(quotas), limits=limits)

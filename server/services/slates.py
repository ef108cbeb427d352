"""From a request to a slate, computed once and kept: the work behind Recommend and BatchRecommend. Encodes no reply."""

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from google.protobuf.timestamp_pb2 import Timestamp

from engine.learner import LearnerState
from engine.policy import SOURCES, Policy
from engine.recommend import Context, RecommendQuery, recommend_many, seed_of
from engine.slate import Slate
from engine.types import U4, LearnerProfile
from genie.v1 import recommendation_service_pb2 as pb
from genie.v1 import resources_pb2
from server import errors
from server.experiments.junction import Junction, Placement
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
from store.slates import find_slate, slate_id, write_slates
from store.tastes import Taste, read_taste

SESSION_GAP_SECONDS = 1_800.0
"""After this long without an answer, a session is over."""

_COLLABORATIVE = SOURCES.index("collaborative")
_NO_ROWS = np.zeros(0, np.uint32)
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


class Kept(NamedTuple):
    """A slate with its record, which says what kept it from being all it could be."""

    record: SlateRecord
    slate: Slate

    @property
    def degraded(self) -> "pb.DegradedReason.ValueType":
        """What kept the slate from being all it could be."""
        return pb.DegradedReason.ValueType(self.record.degraded)


@dataclass(frozen=True, slots=True)
class SlateMaker:
    """Makes and keeps slates."""

    store: Store
    serving: Store
    budget_seconds: float
    """Past this, a call answers with what it has; a batch has it for each of its learners."""
    keep_seconds: float
    """How long a slate is active."""
    experiments: Junction | None = None

    def make(self, learner_id: str, wish: Wish, bundle: Bundle, call: Call) -> Kept:
        """The slate for one learner: the earlier one when its request is repeated. Raises IdempotencyKeyReused."""
        made = self.make_many([learner_id], wish, bundle, call, started=call.started)[0]
        if isinstance(made, errors.GenieError):
            raise made
        return made

    def make_many(
        self, learner_ids: Sequence[str], wish: Wish, bundle: Bundle, call: Call, *, started: float
    ) -> list[Kept | errors.GenieError]:
        """What `make` gives for each learner, worked out together: one read, one pass, one write.

        `started`, on the monotonic clock, is when the time budget began to run.
        """
        deadline = min(started + self.budget_seconds * len(learner_ids), call.deadline)
        placements = [self._placement(learner_id, wish, call) for learner_id in learner_ids]
        name = codec.digest(call.method, wish.request_id) if wish.request_id else b""
        asked = [
            _Asked(learner_id, slate_id(learner_id, name), placement.policy if placement else wish.policy)
            for learner_id, placement in zip(learner_ids, placements, strict=True)
        ]
        made: dict[str, Kept | errors.GenieError] = self._repeats(asked, wish, call) if name else {}
        fresh = [one for one in asked if one.learner_id not in made]
        if fresh:
            made |= self._keep(self._compute(fresh, wish, bundle, call, deadline), wish, call)
        for one, placement in zip(asked, placements, strict=True):
            kept = made[one.learner_id]
            if self.experiments is not None and placement is not None and isinstance(kept, Kept):
                as_assigned = kept.slate.policy == placement.policy.name and len(kept.slate.items) > 0
                as_assigned &= kept.degraded != pb.DEGRADED_REASON_TIME_BUDGET
                self.experiments.shown(placement, one.learner_id, call, as_assigned=as_assigned)
        return [made[learner_id] for learner_id in learner_ids]

    def _placement(self, learner_id: str, wish: Wish, call: Call) -> Placement | None:
        if self.experiments is None or wish.named:
            return None
        return self.experiments.place(call.tenant, learner_id, call.now)

    def _repeats(
        self, asked: "Sequence[_Asked]", wish: Wish, call: Call
    ) -> dict[str, Kept | errors.GenieError]:
        """The slates that the same request was answered before, by learner."""
        found: dict[str, Kept | errors.GenieError] = {}
        with part("store.find_slate"):
            for one in asked:
                held = find_slate(self.serving, call.tenant, one.recommendation_id, requested=True)
                if held is not None and held.expires_at > call.now:
                    found[one.learner_id] = _repeat(held, wish)
        return found

    def _read(self, learner_ids: Sequence[str], bundle: Bundle, call: Call) -> list[Known]:
        """What is known of learners now, every acknowledged answer included."""
        memory_sets = bundle.learner_model.memory_sets
        known = []
        # Reads inside a read share its snapshot.
        with part("store.read_learner"), self.store.read(Partition(call.tenant)):
            for learner_id in learner_ids:
                with self.store.read(Partition(call.tenant, learner_id)) as reader:
                    state = read_state(reader, memory_sets)
                    known.append(Known(read_profile(reader), state, read_taste(reader)))
        return known

    def _compute(
        self, asked: "Sequence[_Asked]", wish: Wish, bundle: Bundle, call: Call, deadline: float
    ) -> list[Kept]:
        """New slates, in any order; not kept yet."""
        learners = zip(asked, self._read([one.learner_id for one in asked], bundle, call), strict=True)
        degraded = pb.DEGRADED_REASON_UNSPECIFIED
        if bundle.model_failed:
            degraded = pb.DEGRADED_REASON_MODEL_UNAVAILABLE
        late = time.monotonic() > deadline
        now = call.now if wish.as_of is None else wish.as_of
        by_policy: dict[str, list[tuple[_Asked, Known]]] = {}
        for one, known in learners:
            by_policy.setdefault(one.policy.name, []).append((one, known))
        made: list[Kept] = []
        for group in by_policy.values():
            policy = group[0][0].policy
            with part("engine.recommend"):
                slates = recommend_many(
                    [_query(one, known, wish, bundle, call, now) for one, known in group],
                    [known.state for _, known in group],
                    bundle.serving,
                    _without_neighbours(policy) if late else policy,
                    now=now,
                    take_ups=[_take_up(known.taste, bundle) for _, known in group],
                )
            if time.monotonic() > deadline:
                degraded = pb.DEGRADED_REASON_TIME_BUDGET
            for place, (one, _) in enumerate(group):
                slate = slates[place]
                record = self._record(one, slate, slates.stored(place), wish, bundle, call, degraded)
                made.append(Kept(record, slate))
        return made

    def _record(
        self,
        one: "_Asked",
        slate: Slate,
        payload: bytes,
        wish: Wish,
        bundle: Bundle,
        call: Call,
        degraded: int,
    ) -> SlateRecord:
        ids = bundle.catalog.question_ids
        return SlateRecord(
            recommendation_id=one.recommendation_id,
            learner_id=one.learner_id,
            created_at=call.now,
            expires_at=call.now + self.keep_seconds,
            request_digest=wish.digest,
            payload=payload,
            question_ids=tuple([ids[row] for row in slate.column("question")]),
            correlation_id=call.correlation_id,
            degraded=degraded,
        )

    def _keep(self, made: Sequence[Kept], wish: Wish, call: Call) -> dict[str, Kept | errors.GenieError]:
        """Keep new slates; by learner, what is held then."""
        with part("store.write_slate"):
            done = write_slates(self.serving, call.tenant, [one.record for one in made])
        kept: dict[str, Kept | errors.GenieError] = {}
        for one, held in zip(made, done, strict=True):
            if held is one.record:
                outcome: Kept | errors.GenieError = one
            elif isinstance(held, StoreError):
                outcome = _not_kept(one, held)
            else:
                outcome = _repeat(held, wish)
            kept[one.record.learner_id] = outcome
        return kept


class _Asked(NamedTuple):
    """One learner of a request."""

    learner_id: str
    recommendation_id: str
    policy: Policy


def _repeat(held: SlateRecord, wish: Wish) -> Kept | errors.GenieError:
    """What an earlier call with the same request id was answered."""
    if held.request_digest != wish.digest:
        return errors.IdempotencyKeyReused(field="request_id", id=wish.request_id)
    return Kept(held, Slate.from_bytes(held.payload))


def _not_kept(one: Kept, error: StoreError) -> Kept:
    _LOG.error("a slate could not be kept", exc_info=error)
    return Kept(dataclasses.replace(one.record, degraded=int(pb.DEGRADED_REASON_NOT_STORED)), one.slate)


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
    context = request.context
    return Wish(
        request_id=request.request_id,
        digest=fingerprint(request) if request.request_id else b"",
        limit=request.limit or 10,
        policy=policy,
        objective=objective,
        small_screen=context.device == resources_pb2.DEVICE_PHONE,
        available_s=context.available_duration.ToMilliseconds() / 1e3,
        local_hour=context.local_hour if context.HasField("local_hour") else -1,
        excluded=np.array(excluded, np.uint32) if excluded else _NO_ROWS,
        named=bool(request.policy),
        as_of=_seconds(context.as_of_time) if context.HasField("as_of_time") else None,
    )


def _seconds(moment: Timestamp) -> float:
    return float(moment.seconds + moment.nanos * 1e-9)


def _query(one: _Asked, known: Known, wish: Wish, bundle: Bundle, call: Call, now: float) -> RecommendQuery:
    objective = wish.objective
    if objective < 0 and known.profile is not None:
        objective = bundle.catalog.concept_row.get(known.profile.goal.concept_id, -1)
    excluded = wish.excluded
    if known.taste.dismissed:
        excluded = np.union1d(excluded, dismissed_rows(known.taste, now))
    return RecommendQuery(
        seed=seed_of(call.tenant, one.learner_id, wish.request_id or one.recommendation_id),
        limit=wish.limit,
        objective=objective,
        context=_context(
            known, now, small_screen=wish.small_screen, available_s=wish.available_s, hour=wish.local_hour
        ),
        excluded=excluded,
    )


def moment_query(known: Known, slate: Slate) -> RecommendQuery:
    """The query behind a slate of the past, as far as it is kept: without the caller's exclusions, device and time."""
    return RecommendQuery(
        seed=slate.seed,
        pool_seed=slate.pool_seed,
        limit=slate.limit,
        objective=slate.objective,
        context=_context(known, slate.made_at),
        excluded=dismissed_rows(known.taste, slate.made_at),
        target_success=slate.target,
    )


def _context(
    known: Known, now: float, *, small_screen: bool = False, available_s: float = 0.0, hour: int = -1
) -> Context:
    header = known.state.header[0]
    minutes = 0.0
    if now - float(header["last_at"]) < SESSION_GAP_SECONDS and known.state.applied:
        minutes = max(now - float(header["session_at"]), 0.0) / 60.0
    return Context(
        small_screen=small_screen,
        available_s=available_s,
        local_hour=hour if hour >= 0 else local_hour(now, known.time_zone),
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

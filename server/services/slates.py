"""From a request to a slate, computed once and kept: the work behind Recommend and BatchRecommend. Encodes no reply."""

import dataclasses
import logging
import time
from collections.abc import Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from engine.learner import LearnerState
from engine.policy import SOURCES, Policy
from engine.pools import Pool, draw_slates
from engine.recommend import Context, RecommendQuery, pools_of, seed_of
from engine.slate import Slate
from engine.types import LearnerProfile
from genie.v1 import recommendation_service_pb2 as pb
from server import errors
from server.experiments.junction import Junction, Placement
from server.local_days import DEFAULT_TIME_ZONE, local_hour
from server.moments import Moment, moment_at
from server.pools import Made, PoolCache, made_from
from server.rpc import Call
from server.services.feedback import dismissed_rows, engagement_of
from server.services.wishes import Wish
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
_LOG = logging.getLogger("genie.recommend")
_NO_MOMENT = Moment(0.0, 0.0)


class Known(NamedTuple):
    """What the store holds of a learner, read at one moment."""

    profile: LearnerProfile | None
    state: LearnerState
    taste: Taste

    @property
    def time_zone(self) -> str:
        """The learner's time zone; UTC for one nobody has heard of."""
        return DEFAULT_TIME_ZONE if self.profile is None else self.profile.time_zone


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
    pools: PoolCache = field(default_factory=PoolCache)

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

    def _look(self, asked: "Sequence[_Asked]", wish: Wish, bundle: Bundle, call: Call) -> "list[_Looked]":
        """The pool of each learner, or else what it is made from: every acknowledged answer included."""
        memory_sets = bundle.learner_model.memory_sets
        tenant, as_of = call.tenant, wish.as_of
        looked = []
        # Reads inside a read share its snapshot.
        around = self.store.read(Partition(tenant)) if len(asked) > 1 else nullcontext()
        with part("store.read_learner"), around:
            for one in asked:
                learner_id = one.learner_id
                with self.store.read(Partition(tenant, learner_id)) as reader:
                    look = _Looked(one)
                    if as_of is None:
                        look.name = (tenant, learner_id, one.policy.name, wish.circumstances)
                        look.made = made_from(reader, bundle.serial, one.policy)
                        look.pool = self.pools.find(look.name, look.made, call.now)
                    if look.pool is None:
                        state = read_state(reader, memory_sets)
                        look.known = Known(read_profile(reader), state, read_taste(reader))
                        look.moment = _moment(look.known, one, wish, call)
                looked.append(look)
        return looked

    def _compute(
        self, asked: "Sequence[_Asked]", wish: Wish, bundle: Bundle, call: Call, deadline: float
    ) -> list[Kept]:
        """New slates, in any order; not kept yet."""
        looked = self._look(asked, wish, bundle, call)
        degraded = pb.DEGRADED_REASON_UNSPECIFIED
        if bundle.model_failed:
            degraded = pb.DEGRADED_REASON_MODEL_UNAVAILABLE
        late = time.monotonic() > deadline
        by_policy: dict[str, list[_Looked]] = {}
        for look in looked:
            by_policy.setdefault(look.one.policy.name, []).append(look)
        made: list[Kept] = []
        for group in by_policy.values():
            with part("engine.recommend"):
                missing = [look for look in group if look.pool is None]
                if missing:
                    self._fill(missing, wish, bundle, call, late=late)
                slates = draw_slates(
                    [look.pool for look in group if look.pool is not None],
                    [_seed(look.one, wish, call) for look in group],
                    wish.limit,
                )
            if time.monotonic() > deadline:
                degraded = pb.DEGRADED_REASON_TIME_BUDGET
            for place, look in enumerate(group):
                slate = slates[place]
                record = self._record(look.one, slate, slates.stored(place), wish, bundle, call, degraded)
                made.append(Kept(record, slate))
        return made

    def _fill(
        self, missing: "Sequence[_Looked]", wish: Wish, bundle: Bundle, call: Call, *, late: bool
    ) -> None:
        """Work out the pools that are not there, of learners under one policy; keep those that others may use."""
        work = [(look, look.known) for look in missing if look.known is not None]
        policy = missing[0].one.policy
        pools = pools_of(
            [_query(look, known, wish, bundle, call) for look, known in work],
            [known.state for _, known in work],
            bundle.serving,
            _without_neighbours(policy) if late else policy,
            moments=[look.moment.start for look, _ in work],
            take_ups=[_take_up(known.taste, bundle) for _, known in work],
        )
        for (look, _), pool in zip(work, pools, strict=True):
            # What was made in haste is nobody else's.
            if look.made is None or late:
                look.pool = pool
            else:
                look.pool = self.pools.keep(look.name, look.made, look.moment, pool)

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
            question_ids=tuple([ids[row] for row in slate.items["question"].tolist()]),
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


@dataclass(slots=True)
class _Looked:
    """What is at hand for one learner: the pool, or what it is to be made from."""

    one: _Asked
    name: Hashable = None
    made: Made | None = None
    """None for a slate of another time, whose pool is nobody else's."""
    pool: Pool | None = None
    known: Known | None = None
    moment: Moment = _NO_MOMENT


def _repeat(held: SlateRecord, wish: Wish) -> Kept | errors.GenieError:
    """What an earlier call with the same request id was answered."""
    if held.request_digest != wish.digest:
        return errors.IdempotencyKeyReused(field="request_id", id=wish.request_id)
    return Kept(held, Slate.from_bytes(held.payload))


def _not_kept(one: Kept, error: StoreError) -> Kept:
    _LOG.error("a slate could not be kept", exc_info=error)
    return Kept(dataclasses.replace(one.record, degraded=int(pb.DEGRADED_REASON_NOT_STORED)), one.slate)


def _seed(one: _Asked, wish: Wish, call: Call) -> int:
    """Of the draw: a request that is made again draws the same."""
    return seed_of(call.tenant, one.learner_id, wish.request_id or one.recommendation_id)


def _moment(known: Known, one: _Asked, wish: Wish, call: Call) -> Moment:
    """For which time a pool is to be made, and how long it may be found."""
    if wish.as_of is not None:
        return Moment(wish.as_of, wish.as_of)
    zone = known.time_zone if wish.local_hour < 0 else None
    last = known.state.last_answered_at
    return moment_at(call.tenant, one.learner_id, call.now, last_answered_at=last, time_zone=zone)


def _query(look: _Looked, known: Known, wish: Wish, bundle: Bundle, call: Call) -> RecommendQuery:
    now, learner_id = look.moment.start, look.one.learner_id
    objective = wish.objective
    if objective < 0 and known.profile is not None:
        objective = bundle.catalog.concept_row.get(known.profile.goal.concept_id, -1)
    excluded = wish.excluded
    if known.taste.dismissed:
        excluded = np.union1d(excluded, dismissed_rows(known.taste, now))
    return RecommendQuery(
        seed=0,
        pool_seed=seed_of(call.tenant, learner_id, "pool", str(known.state.applied)),
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

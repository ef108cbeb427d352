"""From a request to a slate, computed once and kept: the work behind Recommend and BatchRecommend. Encodes no reply."""

import dataclasses
import logging
import secrets
import struct
import time
from collections.abc import Hashable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple

import numpy as np

from engine.learner import LearnerState
from engine.policy import SOURCES, Policy
from engine.pools import Pool
from engine.recommend import Context, RecommendQuery, pool_seed_of, pools_of, seed_of
from engine.slate import Slate
from engine.slates import draw_slates
from engine.types import LearnerProfile
from genie.v1 import recommendation_service_pb2 as pb
from server import errors
from server.experiments.junction import Junction
from server.local_days import DEFAULT_TIME_ZONE, local_hour
from server.moments import Moment, moment_at
from server.pools import Made, PoolCache, made_from
from server.rpc import Call
from server.services.feedback import dismissed_rows, engagement_of
from server.services.outcomes import Fresh, Kept, Outcome, Placed
from server.services.question_names import names_of
from server.services.unkept import Unkept
from server.services.wishes import Wish
from server.tenants import Bundle
from server.tracing import part
from store import codec
from store.api import Partition, Store, StoreError
from store.learners import read_profile, read_state
from store.records import SlateRecord
from store.slate_values import NewSlates, in_turns
from store.slates import find_slate, keep_slates, slate_id, slate_ids
from store.tastes import Taste, read_taste

SESSION_GAP_SECONDS = 1_800.0
"""After this long without an answer, a session is over."""

_COLLABORATIVE = SOURCES.index("collaborative")
_UNKEPT = Unkept(logging.getLogger("genie.recommend"))
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

    def make(
        self,
        learner_ids: Sequence[str],
        wish: Wish,
        bundle: Bundle,
        call: Call,
        *,
        started: float,
        calls: Sequence[Call] = (),
    ) -> list[Outcome]:
        """The slate of each learner, worked out together: one read, one pass, one write.

        With a request id, all learners are different.
        When the request of `call` is repeated, it is the earlier one. `started`, on the monotonic clock, is when the
        time budget began to run. `calls` are those of the learners, if they have one each; then `call` is any of them.
        """
        deadline = min(started + self.budget_seconds * len(learner_ids), call.deadline)
        for own in calls:
            deadline = min(deadline, own.deadline)
        if self.experiments is None or wish.named:
            policies = {wish.policy.name: wish.policy}
            return self._make(learner_ids, policies, None, wish, bundle, call, calls, deadline)
        placements = {
            learner_id: self.experiments.place(call.tenant, learner_id, call.now)
            for learner_id in learner_ids
        }
        chosen = {name: placement.policy for name, placement in placements.items() if placement is not None}
        policies = {policy.name: policy for policy in (wish.policy, *chosen.values())}
        assigned = {learner_id: policy.name for learner_id, policy in chosen.items()}
        outcomes = self._make(learner_ids, policies, assigned, wish, bundle, call, calls, deadline)
        for learner_id, outcome, own in zip(learner_ids, outcomes, calls or repeat(call), strict=False):
            placement = placements[learner_id]
            if placement is not None and not isinstance(outcome, errors.GenieError):
                as_assigned = outcome.degraded != pb.DEGRADED_REASON_TIME_BUDGET
                as_assigned = as_assigned and _made_by(outcome, placement.policy)
                self.experiments.shown(placement, learner_id, own, as_assigned=as_assigned)
        return outcomes

    def _make(
        self,
        learner_ids: Sequence[str],
        policies: Mapping[str, Policy],
        assigned: Mapping[str, str] | None,
        wish: Wish,
        bundle: Bundle,
        call: Call,
        calls: Sequence[Call],
        deadline: float,
    ) -> list[Outcome]:
        """The outcomes of learners under policies of these names; of those not `assigned` another, the wish's."""
        made: dict[int, Outcome] = {}
        name = codec.digest(call.method, wish.request_id) if wish.request_id else b""
        if name:
            made = self._repeats(learner_ids, name, wish, call)
            if wish.lost is not None and len(made) < len(learner_ids):
                raise wish.lost
        fresh = [place for place in range(len(learner_ids)) if place not in made]
        looked: dict[str, list[_Looked]] = {}
        for look in self._look(learner_ids, fresh, policies, assigned or {}, wish, bundle, call):
            looked.setdefault(look.policy.name, []).append(look)
        late = time.monotonic() > deadline
        degraded = pb.DEGRADED_REASON_UNSPECIFIED
        if bundle.model_failed:
            degraded = pb.DEGRADED_REASON_MODEL_UNAVAILABLE
        for some in looked.values():
            with part("engine.recommend"):
                group = self._draw(some, name, wish, bundle, call, calls, late=late)
            if time.monotonic() > deadline:
                degraded = pb.DEGRADED_REASON_TIME_BUDGET
            if degraded:
                group = group._replace(new=group.new._replace(degraded=degraded))
            self._keep(group, [look.place for look in some], wish, bundle, call, made)
        return [made[place] for place in range(len(learner_ids))]

    def _repeats(self, learner_ids: Sequence[str], name: bytes, wish: Wish, call: Call) -> dict[int, Outcome]:
        """The slates that the same request was answered before, by the learner's place."""
        found: dict[int, Outcome] = {}
        with part("store.find_slate"):
            for place, learner_id in enumerate(learner_ids):
                held = find_slate(self.serving, call.tenant, slate_id(learner_id, name), requested=True)
                if held is not None:
                    found[place] = _repeat(held, wish)
        return found

    def _look(
        self,
        learner_ids: Sequence[str],
        places: Sequence[int],
        policies: Mapping[str, Policy],
        assigned: Mapping[str, str],
        wish: Wish,
        bundle: Bundle,
        call: Call,
    ) -> "list[_Looked]":
        """The pool of the learner at each place, or else what it is made from: every acknowledged answer included."""
        memory_sets = bundle.learner_model.memory_sets
        tenant, serial, pools = call.tenant, bundle.serial, self.pools
        looked = []
        # Reads inside a read share its snapshot.
        around = self.store.read(Partition(tenant)) if len(places) > 1 else nullcontext()
        with part("store.read_learner"), around:
            for place in places:
                learner_id = learner_ids[place]
                look = _Looked(place, learner_id, policies[assigned.get(learner_id, wish.policy.name)])
                with self.store.read(Partition(tenant, learner_id)) as reader:
                    if wish.as_of is None:
                        look.name = (tenant, learner_id, look.policy.name, wish.circumstances)
                        look.made = made_from(reader, serial, look.policy)
                        look.pool = pools.find(look.name, look.made, call.now)
                    if look.pool is None:
                        state = read_state(reader, memory_sets)
                        look.known = Known(read_profile(reader), state, read_taste(reader))
                        look.moment = _moment(look.known, learner_id, wish, call)
                looked.append(look)
        return looked

    def _draw(
        self,
        looked: "Sequence[_Looked]",
        name: bytes,
        wish: Wish,
        bundle: Bundle,
        call: Call,
        calls: Sequence[Call],
        *,
        late: bool,
    ) -> Fresh:
        """New slates of learners under one policy; not kept yet."""
        missing = [look for look in looked if look.pool is None]
        if missing:
            self._fill(missing, wish, bundle, call, late=late)
        learner_ids = [look.learner_id for look in looked]
        ids = [slate_id(learner_id, name) for learner_id in learner_ids] if name else slate_ids(learner_ids)
        owners = [learner_id.encode() for learner_id in learner_ids]
        correlation_ids = [
            calls[look.place].correlation_id if calls else call.correlation_id for look in looked
        ]
        behind = [correlation_id.encode() for correlation_id in correlation_ids]
        if name:
            # A request that is made again draws the same.
            seeds = [seed_of(call.tenant, learner_id, wish.request_id) for learner_id in learner_ids]
        else:
            seeds = [seed >> 1 for seed in _words(len(ids)).unpack(secrets.token_bytes(8 * len(ids)))]
        slates = draw_slates([look.pool for look in looked if look.pool is not None], seeds, wish.limit)
        new = NewSlates(
            learner_ids=learner_ids,
            recommendation_ids=ids,
            created_at=call.now,
            expires_at=call.now + self.keep_seconds,
            request_digest=wish.digest,
            correlation_ids=correlation_ids,
            degraded=pb.DEGRADED_REASON_UNSPECIFIED,
            named=in_turns(ids, owners, behind),
            owners=list(map(len, owners)),
            calls=list(map(len, behind)),
            payloads=slates.stored_in,
            start=slates.first,
            stride=slates.stride,
            sizes=slates.sizes,
            rows=slates.rows,
            shown=slates.shown,
            names=names_of(slates, bundle),
        )
        return Fresh(new, slates)

    def _fill(
        self, missing: "Sequence[_Looked]", wish: Wish, bundle: Bundle, call: Call, *, late: bool
    ) -> None:
        """Work out the pools that are not there, of learners under one policy; keep those that others may use."""
        work = [(look, look.known) for look in missing if look.known is not None]
        policy = missing[0].policy
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

    def _keep(
        self,
        group: Fresh,
        places: Sequence[int],
        wish: Wish,
        bundle: Bundle,
        call: Call,
        made: "dict[int, Outcome]",
    ) -> None:
        """Keep new slates; notes by place what became of each."""
        with part("store.write_slate"):
            kept = keep_slates(self.serving, call.tenant, group.new)
        for number, (place, held) in enumerate(zip(places, kept, strict=True)):
            if held is None:
                made[place] = Placed(group, number)
            elif isinstance(held, StoreError):
                made[place] = _not_kept(group.kept(number, bundle), held)
            else:
                made[place] = _repeat(held, wish)


@dataclass(slots=True)
class _Looked:
    """What is at hand for one learner: the pool, or what it is to be made from."""

    place: int
    learner_id: str
    policy: Policy
    name: Hashable = None
    made: Made | None = None
    """None for a slate of another time, whose pool is nobody else's."""
    pool: Pool | None = None
    known: Known | None = None
    moment: Moment = _NO_MOMENT


def _repeat(held: SlateRecord, wish: Wish) -> Outcome:
    """What an earlier call with the same request id was answered."""
    if held.request_digest != wish.digest:
        return errors.IdempotencyKeyReused(field="request_id", id=wish.request_id)
    return Kept(held, Slate.from_bytes(held.payload))


def _not_kept(one: Kept, error: StoreError) -> Kept:
    _UNKEPT.add(error)
    return Kept(dataclasses.replace(one.record, degraded=int(pb.DEGRADED_REASON_NOT_STORED)), one.slate)


@lru_cache(maxsize=128)
def _words(count: int) -> struct.Struct:
    """How so many 64-bit numbers are read."""
    return struct.Struct(f"={count}Q")


def _made_by(outcome: Placed | Kept, policy: Policy) -> bool:
    """Whether it is a slate of this policy that shows anything."""
    if isinstance(outcome, Placed):
        group, place = outcome
        return group.slates.policy == policy.name and group.new.shown[place] > 0
    return outcome.slate.policy == policy.name and len(outcome.slate.items) > 0


def _moment(known: Known, learner_id: str, wish: Wish, call: Call) -> Moment:
    """For which time a pool is to be made, and how long it may be found."""
    if wish.as_of is not None:
        return Moment(wish.as_of, wish.as_of)
    zone = known.time_zone if wish.local_hour < 0 else None
    last = known.state.last_answered_at
    return moment_at(call.tenant, learner_id, call.now, last_answered_at=last, time_zone=zone)


def _query(look: _Looked, known: Known, wish: Wish, bundle: Bundle, call: Call) -> RecommendQuery:
    now, learner_id = look.moment.start, look.learner_id
    objective = wish.objective
    if objective < 0 and known.profile is not None:
        objective = bundle.catalog.concept_row.get(known.profile.goal.concept_id, -1)
    excluded = wish.excluded
    if known.taste.dismissed:
        excluded = np.union1d(excluded, dismissed_rows(known.taste, now))
    return RecommendQuery(
        seed=0,
        pool_seed=pool_seed_of(call.tenant, learner_id, known.state.applied),
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

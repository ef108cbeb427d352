"""From learners' states to pools and slates: what a pass of the kernels reads is put together here. The main door."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np

from engine.candidates import MAX_CANDIDATES, NEAREST_SHARE
from engine.learner import TARGET_RETENTION, LearnerState
from engine.learner.score import read_only
from engine.learner.state import Records
from engine.likes import likes_of
from engine.packing import MOST_WORDS
from engine.pipeline import Asked, Pooled, Rule, fill_pools
from engine.policy import Policy
from engine.pools import Pool
from engine.serving import Serving
from engine.slate import HEAD, Slate, blank_heads
from engine.slates import Slates, draw_slates
from engine.survey import COLLABORATIVE
from engine.types import F4, NO_ROW, U1, U4

MAX_LIMIT: Final = 100
"""Most questions of one slate."""

REST_AFTER_MINUTES = 20.0
TIRED_AFTER_MINUTES = 60.0
NIGHT_FATIGUE = 0.3
"""Least fatigue from 22 to 6 o'clock."""

_NO_ROWS: Final = read_only(np.zeros(0, np.uint32))


class Context(NamedTuple):
    """The circumstances of the learner; defaults stand for not known."""

    small_screen: bool = False
    available_s: float = 0.0
    """Time at hand; 0 when not known."""
    local_hour: int = -1
    """0 to 23; −1 when not known."""
    session_minutes: float = 0.0
    """Practice in this session so far."""


class RecommendQuery(NamedTuple):
    """What is asked for."""

    seed: int
    """Of the draw, 0 to 2^63 − 1; see `seed_of`."""
    pool_seed: int = -1
    """Of every random choice before the draw, likewise; −1 takes the same."""
    limit: int = 10
    """Most questions to return, 1 to MAX_LIMIT."""
    objective: int = -1
    """Concept row worked towards; −1 when there is none."""
    context: Context = Context()
    excluded: U4 = _NO_ROWS
    """Question rows that must not be shown: named by the caller, or dismissed."""
    shown: U4 = _NO_ROWS
    """Question rows shown lately and not taken up: still allowed, but they lose to fresh ones."""
    target_success: float = 0.0
    """Predicted success to aim at for this learner; 0 leaves it to the policy and `engine.target`."""


_SEEDS: Final = hashlib.blake2b(digest_size=8, person=b"genie-slate")
"""Begun, and copied for each seed: that costs less than to begin."""


def seed_of(*parts: str) -> int:
    """Return the 63-bit seed of a request from its tenant, learner and request id: kernels take signed integers."""
    digest = _SEEDS.copy()
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "little") + encoded)
    return int.from_bytes(digest.digest(), "little") >> 1


def pool_seed_of(tenant: str, learner_id: str, answers: int) -> int:
    """Return the seed of a learner's pool: the same until the next answer."""
    return seed_of(tenant, learner_id, "pool", str(answers))


def fatigue(context: Context) -> float:
    """Return how tired the learner is taken to be, 0 to 1: from 20 to 60 minutes of session, and at night at
    least 0.3.

    A prior of ours: it only moves tired learners towards shorter and surer questions.
    """
    span = TIRED_AFTER_MINUTES - REST_AFTER_MINUTES
    tired = min(1.0, max(0.0, (context.session_minutes - REST_AFTER_MINUTES) / span))
    late = context.local_hour >= 22 or 0 <= context.local_hour < 6
    return max(tired, NIGHT_FATIGUE if late else 0.0)


def recommend(
    query: RecommendQuery,
    state: LearnerState,
    serving: Serving,
    policy: Policy,
    *,
    now: float,
    take_up: F4 | None = None,
) -> Slate:
    """Return the slate for one learner: pure, so the same arguments give the same slate.

    `take_up` (sources, areas) are the chances of `engine.engagement.Engagement.take_up`, even ones when None.
    An empty or exhausted catalogue gives a shorter slate with its reason, never an error.

    Raises:
        ValueError: the limit or the seed is out of its bounds.
    """
    return recommend_many([query], [state], serving, policy, now=now, take_ups=[take_up])[0]


def recommend_many(
    queries: Sequence[RecommendQuery],
    states: Sequence[LearnerState],
    serving: Serving,
    policy: Policy,
    *,
    now: float,
    take_ups: Sequence[F4 | None] | None = None,
) -> Slates:
    """Return the slates of many learners, worked out and drawn together: each is what `recommend` returns.

    The queries must agree in their limit. `take_ups` holds one entry a learner, as in `recommend`.

    Raises:
        ValueError: the limit or a seed is out of its bounds, or the limits differ.
    """
    pools = pools_of(queries, states, serving, policy, moments=[now] * len(queries), take_ups=take_ups)
    return draw_slates(pools, [query.seed for query in queries], queries[0].limit)


def pools_of(
    queries: Sequence[RecommendQuery],
    states: Sequence[LearnerState],
    serving: Serving,
    policy: Policy,
    *,
    moments: Sequence[float],
    take_ups: Sequence[F4 | None] | None = None,
) -> list[Pool]:
    """Return what slates are drawn from, for each learner at its own moment (epoch seconds), from one pass.

    Nothing in a pool depends on the query's `seed`. The pools share their memory: see `Pool.apart`.

    Raises:
        ValueError: as `recommend_many`.
    """
    limit = _limit(queries)
    asked = _asked(queries, states, serving, policy, moments, take_ups or [None] * len(queries))
    return _pools(asked, limit, serving, policy, strangers(serving, policy))


def strangers(serving: Serving, policy: Policy) -> U1:
    """Return (nc,) 1 for the concepts (≤ 20) that a policy shows a learner without history, worked out once."""
    known = serving.strangers.get(policy.name)
    if known is None:
        known = np.zeros(serving.catalog.concept_count, np.uint8)
        query, nobody = RecommendQuery(seed=0, limit=20), [LearnerState.empty()]
        greedy = replace(policy, temperature=0.0)
        asked = _asked([query], nobody, serving, greedy, [0.0], [None])
        pools = _pools(asked, query.limit, serving, greedy, read_only(known))
        slate = draw_slates(pools, [query.seed], query.limit)[0]
        known[slate.items["concept"]] = 1
        known = serving.strangers[policy.name] = read_only(known)
    return known


def _pools(asked: Asked, limit: int, serving: Serving, policy: Policy, usual: U1) -> list[Pool]:
    """Return the pools of one pass; `usual` as `strangers` returns it."""
    model, version, count = serving.learner, serving.models.version, len(asked.headers)
    blank = _blank_head(policy.name, version, limit, serving.catalog.version, policy.temperature)
    heads = np.frombuffer(bytearray(count * blank), HEAD)
    made = Pooled(heads, np.zeros(count, np.int64), np.empty(count * MOST_WORDS, np.uint32))
    rule = Rule(
        *(policy.signed, policy.limits, model.memory_sets[model.memory_set], usual),
        *(policy.temperature, policy.target_success, policy.target_reach),
    )
    fill_pools(serving.bound, asked, rule, limit, made)
    pools = []
    start = 0
    for end in made.ends.tolist():
        pools.append(Pool(made.words[start:end], policy.name, version))
        start = end
    return pools


def _limit(queries: Sequence[RecommendQuery]) -> int:
    """Return the limit that all queries share, checked with the seeds."""
    limit = queries[0].limit
    if not 1 <= limit <= MAX_LIMIT:
        raise ValueError(f"limit must be 1 to {MAX_LIMIT}, not {limit}")
    for query in queries:
        if query.limit != limit:
            raise ValueError(f"limits of one pass must not differ: {limit} and {query.limit}")
        if not (0 <= query.seed < 1 << 63 and -1 <= query.pool_seed < 1 << 63):
            raise ValueError(f"seeds must be 0 to 2^63 - 1, not {query.seed} and {query.pool_seed}")
    return limit


def _asked(
    queries: Sequence[RecommendQuery],
    states: Sequence[LearnerState],
    serving: Serving,
    policy: Policy,
    moments: Sequence[float],
    take_ups: Sequence[F4 | None],
) -> Asked:
    """Return what the pass reads, the learners' parts one after another."""
    plans, settings, rows = [], [], []
    beliefs = [serving.even_take_up]
    touched = held = 0
    for query, state, now, take_up in zip(queries, states, moments, take_ups, strict=True):
        touched_end = touched + len(state.concepts)
        excluded_end = held + len(query.excluded)
        shown_end = excluded_end + len(query.shown)
        plans.append(
            (
                *(query.seed if query.pool_seed < 0 else query.pool_seed, touched, touched_end),
                *(held, excluded_end, shown_end, 0 if take_up is None else len(beliefs)),
            )
        )
        if take_up is not None:
            beliefs.append(take_up)
        context = query.context
        settings.append(
            (
                *(now, query.target_success, TARGET_RETENTION, query.objective),
                *(context.available_s, fatigue(context), context.small_screen, 0.0),
            )
        )
        if shown_end > held:
            rows += [query.excluded, query.shown]
        touched, held = touched_end, shown_end
    recents = _joined([state.recent for state in states]).reshape(len(states), -1)
    quota = policy.quotas[COLLABORATIVE] // NEAREST_SHARE
    return Asked(
        _joined([state.header for state in states]),
        _joined([state.concepts for state in states]),
        recents,
        np.array(plans, np.int64),
        np.array(settings),
        read_only(np.concatenate(rows)) if rows else _NO_ROWS,
        likes_of(recents, serving, quota),
        beliefs[0][np.newaxis] if len(beliefs) == 1 else read_only(np.stack(beliefs)),
    )


@lru_cache(maxsize=256)
def _blank_head(
    policy: str, model_version: str, limit: int, catalog_version: int, temperature: float
) -> bytes:
    """Return the bytes of a head that says what is the same for all learners of a pass."""
    head = blank_heads(1, policy, model_version)
    head["limit"], head["catalog_version"], head["temperature"] = limit, catalog_version, temperature
    return head.tobytes()


def _joined(parts: Sequence[Records]) -> Records:
    if len(parts) == 1:
        return read_only(parts[0])
    # By bytes: numpy copies records field by field.
    return np.frombuffer(b"".join([part.view(np.uint8).data for part in parts]), parts[0].dtype)


__all__ = [
    "MAX_CANDIDATES",
    "MAX_LIMIT",
    "NO_ROW",
    "Context",
    "RecommendQuery",
    "fatigue",
    "pool_seed_of",
    "pools_of",
    "recommend",
    "recommend_many",
    "seed_of",
    "strangers",
]

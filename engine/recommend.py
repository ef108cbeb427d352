"""The pipeline from a learner's state to a slate: survey, gather, predict, score, draw. The engine's main
door.
"""

import hashlib
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np

from engine.candidates import MAX_CANDIDATES, Candidates, gather
from engine.collaborative import FOLD_STEPS, WIDTH, as_liking, fold_in
from engine.learner import TARGET_RETENTION, LearnerState, predict
from engine.learner.score import read_only
from engine.learner.state import Records
from engine.learner.view import VIEW_COUNTS, VIEW_FLOATS, view_concepts
from engine.policy import SOURCES, TERMS, Policy
from engine.scoring import score, tastes
from engine.serving import Serving
from engine.slate import ITEM, Slate, SlateReason, describe, draw
from engine.survey import COLLABORATIVE, READY, SETTINGS_WIDTH, SURVEY_WIDTH, survey
from engine.types import F4, F8, NO_ROW, U4

MAX_LIMIT: Final = 100
"""Most questions of one slate."""

REST_AFTER_MINUTES = 20.0
TIRED_AFTER_MINUTES = 60.0
NIGHT_FATIGUE = 0.3
"""Least fatigue from 22 to 6 o'clock."""

_NO_ROWS: Final = read_only(np.zeros(0, np.uint32))


@dataclass(frozen=True, slots=True)
class Context:
    """The circumstances of the learner; defaults stand for not known."""

    small_screen: bool = False
    available_s: float = 0.0
    """Time at hand; 0 when not known."""
    local_hour: int = -1
    """0 to 23; −1 when not known."""
    session_minutes: float = 0.0
    """Practice in this session so far."""


@dataclass(frozen=True, slots=True)
class RecommendQuery:
    """What is asked for."""

    seed: int
    """Of every random choice, 0 to 2^63 − 1; see `seed_of`."""
    limit: int = 10
    """Most questions to return, 1 to MAX_LIMIT."""
    objective: int = -1
    """Concept row worked towards; −1 when there is none."""
    context: Context = field(default_factory=Context)
    excluded: U4 = field(default_factory=lambda: _NO_ROWS)
    """Question rows that must not be shown: named by the caller, or dismissed."""
    shown: U4 = field(default_factory=lambda: _NO_ROWS)
    """Question rows shown lately and not taken up: still allowed, but they lose to fresh ones."""
    target_success: float = 0.0
    """Predicted success to aim at for this learner; 0 leaves it to the policy."""


def seed_of(*parts: str) -> int:
    """Return the 63-bit seed of a request from its tenant, learner and request id: kernels take signed integers."""
    digest = hashlib.blake2b(digest_size=8, person=b"genie-slate")
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "little") + encoded)
    return int.from_bytes(digest.digest(), "little") >> 1


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
    if not 1 <= query.limit <= MAX_LIMIT:
        raise ValueError(f"limit must be 1 to {MAX_LIMIT}, not {query.limit}")
    if not 0 <= query.seed < 1 << 63:
        raise ValueError(f"seed must be 0 to 2^63 - 1, not {query.seed}")
    usual = strangers(serving, policy) if state.applied else None
    return _recommend(query, state, serving, policy, now, take_up, usual)


def strangers(serving: Serving, policy: Policy) -> frozenset[int]:
    """Return the concept rows (≤ 20) that a policy shows a learner without history, worked out once a
    serving.
    """
    known = serving.strangers.get(policy.name)
    if known is None:
        query = RecommendQuery(seed=0, limit=20)
        greedy = replace(policy, temperature=0.0)
        slate = _recommend(query, LearnerState.empty(), serving, greedy, 0.0, None, None)
        known = serving.strangers[policy.name] = frozenset(slate.items["concept"].tolist())
    return known


def _recommend(
    query: RecommendQuery,
    state: LearnerState,
    serving: Serving,
    policy: Policy,
    now: float,
    take_up: F4 | None,
    usual: frozenset[int] | None,
) -> Slate:
    size = serving.catalog.concept_count
    model = serving.learner
    header, touched, recent = read_only(state.header), read_only(state.concepts), read_only(state.recent)
    target = query.target_success or policy.target_success
    settings = _settings(query, state, target, now)
    view, mastered = np.empty((size, VIEW_FLOATS)), np.empty(size, np.uint8)
    counts = np.empty((size, VIEW_COUNTS), np.uint32)
    view_concepts(header, touched, recent, model.weights, now, TARGET_RETENTION, view, counts, mastered)
    factor, profile, neighbours = _likes(recent, serving, policy, now)
    outlook = np.empty((size, SURVEY_WIDTH), np.float32)
    wishes = np.empty((len(SOURCES), size), np.float32)
    survey(
        serving.concepts, touched, view, counts, mastered, header["last_concept"][0],
        model.memory_sets[model.memory_set], profile, settings, query.seed, outlook, wishes,
    )  # fmt: skip
    found = Candidates.room(query.excluded.shape[0] + recent.shape[0])
    held = gather(
        serving.concepts, serving.questions, outlook, wishes, policy.limits, neighbours,
        read_only(query.excluded), recent, settings, query.seed, query.limit, found,
    )  # fmt: skip
    predicted = predict(state, found.rows[:held], serving.question_concepts, model, now)
    values = np.empty((held, len(TERMS)), np.float32)
    scores, means = np.empty(held), np.empty(len(TERMS))
    if take_up is None:
        take_up = np.full((len(SOURCES), len(serving.catalog.areas)), 0.5, np.float32)
    mean_score = score(
        serving.concepts, serving.questions, outlook, found, predicted, recent, read_only(query.shown),
        factor, profile, take_up, settings, policy.signed, values, scores, means,
    )  # fmt: skip
    shown = min(query.limit, held)
    items, chosen, sameness = np.zeros(shown, ITEM), np.empty(shown, np.int64), np.empty(shown, np.float32)
    propensity, final = np.empty(shown), np.empty(shown)
    best_left = draw(
        scores, found, policy.signed, policy.temperature, query.seed, chosen, sameness, propensity, final
    )
    describe(
        found, chosen, sameness, propensity, final, predicted, values, outlook, view, counts, mastered,
        serving.questions.seconds, settings, items,
    )  # fmt: skip
    return Slate(
        items=items,
        reason=_reason(serving, outlook, shown, query.limit),
        limit=query.limit,
        seed=query.seed,
        made_at=now,
        policy=policy.name,
        model_version=serving.models.version,
        catalog_version=serving.catalog.version,
        weights=policy.signed,
        means=means,
        source_counts=found.counts.astype(np.uint32),
        candidates=held,
        mean_score=mean_score,
        best_left=best_left,
        temperature=policy.temperature,
        target=target,
        objective=query.objective,
        answers=state.applied,
        last_answered_at=state.last_answered_at,
        unlike_stranger=_unlike(items, usual),
    )


def _unlike(items: Records, usual: frozenset[int] | None) -> float:
    """Return the share of the shown concepts that are not among the usual ones; 0 for a stranger."""
    if usual is None or not len(items):
        return 0.0
    concepts = items["concept"].tolist()
    return sum(concept not in usual for concept in concepts) / len(concepts)


def _settings(query: RecommendQuery, state: LearnerState, target: float, now: float) -> F8:
    """Return the numbers of one call at the places that `engine.survey` names."""
    settings = np.empty(SETTINGS_WIDTH)
    settings[:] = (
        now,
        target,
        TARGET_RETENTION,
        query.objective,
        query.context.available_s,
        fatigue(query.context),
        query.context.small_screen,
        state.applied,
    )
    return settings


def _likes(recent: Records, serving: Serving, policy: Policy, now: float) -> tuple[F4, F4, U4]:
    """Return (collaborative factor (64,), place in content space (64,), question rows nearest the factor)."""
    rows = np.empty(recent.shape[0], np.uint32)
    confidence = np.empty(recent.shape[0], np.float32)
    profile = np.empty(WIDTH, np.float32)
    count = tastes(recent, serving.questions.content, now, rows, confidence, profile)
    index = serving.models.items
    if serving.models.collaborative is None or count == 0:
        return np.zeros(WIDTH, np.float32), profile, _NO_ROWS
    factor = fold_in(serving.questions.factors, serving.gram, rows[:count], confidence[:count], FOLD_STEPS)
    as_liking(serving.questions.factors, rows[:count], factor)
    quota = policy.quotas[COLLABORATIVE]
    if index is None or quota == 0:
        return factor, profile, _NO_ROWS
    return factor, profile, read_only(index.nearest(factor, quota))


def _reason(serving: Serving, outlook: F4, shown: int, limit: int) -> SlateReason:
    if shown == limit:
        return SlateReason.FULL
    if not serving.catalog.question_active.any():
        return SlateReason.EMPTY_CATALOG
    if shown:
        return SlateReason.FEW_ELIGIBLE
    open_rows = (outlook[:, READY] > 0.0) & (serving.concepts.active == 1)
    return SlateReason.ALL_EXCLUDED if open_rows.any() else SlateReason.NOTHING_OPEN


__all__ = [
    "MAX_CANDIDATES",
    "MAX_LIMIT",
    "NO_ROW",
    "Context",
    "RecommendQuery",
    "fatigue",
    "recommend",
    "seed_of",
    "strangers",
]

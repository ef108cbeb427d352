"""What another policy would have earned, from the slates that were kept and what came of them. Prints nothing.

Only the first question of a slate is judged: of a longer one, chances multiply and little remains of the log. For each
slate the learner is put back to where it stood then, from the answer log, and both policies are asked again what they
chose from. Where the policy behind the slate no longer gives the chance that was logged, something it depended on is
not known any more (another catalogue, exclusions that the caller named, a device), and the slate is left out.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.catalog import build_catalog
from engine.hindsight import options
from engine.learner import LearnerState, replay
from engine.off_policy import Estimate, cross_fitted, doubly_robust, self_normalised
from engine.policy import Policy
from engine.serving import Serving, prepare
from engine.slate import Slate
from engine.types import F8, LearnerProfile
from genie.v1 import recommendation_service_pb2 as pb
from server.model_parts import load_models, prior_models
from server.models import ModelDirectory, ModelError
from server.services.feedback import engagement_of, learned
from server.services.slates import Known, moment_query
from store.answer_log import AnswerLog, chronological
from store.api import Partition, Table
from store.catalogs import load_catalog
from store.learners import read_answers, read_feedback, read_profile
from store.records import FeedbackEvent, SlateRecord
from store.replay import all_learners
from store.slates import list_slates, settle
from store.stores import Stores
from store.tastes import Taste

SETTLED_SECONDS = 3600.0
"""A slate counts when it is this old: what was not taken up by then was not. An answer that names no recommendation is
held to follow from a slate up to this long after it."""

SAME_CHANCE = 1e-6
"""Relative difference up to which a chance worked out anew is the one that was logged."""

REWARDS = ("taken", "completed", "correct")
"""What may count as 1: the question was clicked, started, completed or answered; completed or answered; answered
right."""

_TAKEN = frozenset({pb.FEEDBACK_KIND_CLICKED, pb.FEEDBACK_KIND_STARTED, pb.FEEDBACK_KIND_COMPLETED})


@dataclass(slots=True)
class Tally:
    """What became of the slates that were found."""

    used: int = 0
    unsettled: int = 0
    empty: int = 0
    unknown_policy: int = 0
    """Made by a policy that no configuration names any more."""
    unknown_model: int = 0
    """Made with a model version that was deleted."""
    not_rebuilt: int = 0
    """The chance worked out anew is not the one that was logged."""
    greedy: int = 0
    """Used, but shown with chance 1: nothing else could have been shown, so they speak for few other choices."""


@dataclass(slots=True)
class PolicyValue:
    """The value of one policy as logged slates tell it: mean reward of the first question shown."""

    policy: str
    reward: str
    learners: int
    slates: Tally
    logged: dict[str, int] = field(default_factory=dict)
    """Slates used, by the policy behind them."""
    as_logged: Estimate | None = None
    """What the policies in the log earned."""
    self_normalised: Estimate | None = None
    doubly_robust: Estimate | None = None

    @property
    def warnings(self) -> list[str]:
        """Why the estimate should not be relied on, if so; in sentences."""
        found = self.self_normalised
        if found is None:
            return ["no slate can be used: nothing is estimated"]
        told = []
        if found.uncovered:
            told.append(
                f"the log could have shown about {min(found.mean_weight, 1.0):.0%} of what {self.policy} would: "
                "the value is that of this part only; log with more of its candidates or at a higher temperature"
            )
        if found.few:
            told.append(
                f"the slates say no more than {found.effective_size:.0f} learners would under {self.policy} itself: "
                "too few to rely on the interval; log more, or at a higher temperature"
            )
        return told


class Servings:
    """Today's catalogue with the models of any version that is still there."""

    def __init__(self, stores: Stores, tenant: str, data_directory: Path) -> None:
        self._store = stores.state
        self._tenant = tenant
        self._directory = ModelDirectory(data_directory, tenant)
        with stores.state.read(Partition(tenant)) as reader:
            records = load_catalog(reader)
        self._catalog = build_catalog(records.concepts, records.questions, version=records.version)
        self._made: dict[str, Serving | None] = {}

    def of(self, version: str) -> Serving | None:
        """What served from a version; None when it is gone."""
        if version not in self._made:
            self._made[version] = self._make(version)
        return self._made[version]

    def _make(self, version: str) -> Serving | None:
        try:
            if version == "priors":
                return prepare(self._catalog, prior_models(self._store, self._tenant))
            return prepare(self._catalog, load_models(self._directory, self._store, version))
        except ModelError:
            return None


class _Asked(NamedTuple):
    """What every slate is asked."""

    policy: Policy
    policies: Mapping[str, Policy]
    serving: Callable[[str], Serving | None]
    reward: str
    settled_at: float
    """Younger slates are left out."""


class _Row(NamedTuple):
    """One slate as the estimators take it."""

    learner: int
    weight: float
    reward: float
    shown: F8
    """(terms,) of the question shown."""
    wanted: F8
    """(terms,) means over what the judged policy would show."""


class _Learner(NamedTuple):
    """Everything that is stored of one learner and bears on its slates."""

    profile: LearnerProfile | None
    answers: AnswerLog
    events: list[FeedbackEvent]
    slates: list[SlateRecord]


def policy_value(
    stores: Stores,
    tenant: str,
    policy: Policy,
    *,
    policies: Mapping[str, Policy],
    serving: Callable[[str], Serving | None],
    now: float,
    reward: str = "taken",
    settled_seconds: float = SETTLED_SECONDS,
    progress: Callable[[int], None] = lambda slates: None,
) -> PolicyValue:
    """Estimate the value of `policy` from a tenant's slates.

    `policies` are those that may be behind a slate, by name; `serving(version)` is the catalogue with the models of a
    version, None when they are gone. `progress` is told the slates looked at. Reads one learner at a time.
    """
    asked = _Asked(policy, policies, serving, reward, now - settled_seconds)
    rows: list[_Row] = []
    found = PolicyValue(policy.name, reward, 0, Tally())
    seen = 0
    for number, known in enumerate(_learners(stores, tenant)):
        before = len(rows)
        for record in known.slates:
            seen += 1
            progress(seen)
            row = _row(number, record, known, asked, found)
            if row is not None:
                rows.append(row)
        found.learners += len(rows) > before
    if len(rows) > 1:
        _estimate(found, rows)
    return found


def _estimate(found: PolicyValue, rows: list[_Row]) -> None:
    """Fill in the estimates."""
    groups = np.array([row.learner for row in rows], np.int64)
    weights, rewards = np.array([row.weight for row in rows]), np.array([row.reward for row in rows])
    shown, wanted = np.stack([row.shown for row in rows]), np.stack([row.wanted for row in rows])
    # Learners take consecutive parts, whatever their numbers: those without slates have numbers too.
    part = np.unique(groups, return_inverse=True)[1].astype(np.int64)
    # The model is linear: its mean over what the policy would show is its value at the mean terms.
    modelled = cross_fitted(shown, rewards, part, np.vstack((shown, wanted)), np.tile(part, 2))
    found.as_logged = self_normalised(np.ones(len(rows)), rewards, groups)
    found.self_normalised = self_normalised(weights, rewards, groups)
    found.doubly_robust = doubly_robust(
        weights, rewards, modelled[: len(rows)], modelled[len(rows) :], groups
    )


def _learners(stores: Stores, tenant: str) -> Iterator[_Learner]:
    """Every learner with slates."""
    settle(stores.serving)
    for learner_id in all_learners(stores.serving, tenant, Table.SLATE):
        partition = Partition(tenant, learner_id)
        slates = list_slates(stores.serving, partition)
        with stores.state.read(partition) as reader:
            known = _Learner(read_profile(reader), read_answers(reader), read_feedback(reader), slates)
        yield known


def _row(number: int, record: SlateRecord, known: _Learner, asked: _Asked, found: PolicyValue) -> _Row | None:
    """What one slate says; None when it says nothing, which is counted."""
    tally, policy = found.slates, asked.policy
    if record.created_at > asked.settled_at:
        tally.unsettled += 1
        return None
    slate = Slate.from_bytes(record.payload)
    if not len(slate.items):
        tally.empty += 1
        return None
    behind = asked.policies.get(slate.policy)
    if behind is None:
        tally.unknown_policy += 1
        return None
    served = asked.serving(slate.model_version)
    if served is None:
        tally.unknown_model += 1
        return None
    behind = dataclasses.replace(behind, signed=slate.weights, temperature=slate.temperature)
    state = _state_then(known.answers, slate, served)
    taste = _taste_then(known.events, record)
    query = moment_query(Known(known.profile, state, taste), slate)
    belief = engagement_of(taste, served.catalog)
    take_up = None if belief is None else belief.take_up(len(served.catalog.areas))
    first = slate.items[0]
    row, logged = int(first["question"]), float(first["propensity"])
    again = options(query, state, served, behind, now=slate.made_at, take_up=take_up).chance_of(row, behind)
    if abs(again - logged) > SAME_CHANCE * logged:
        tally.not_rebuilt += 1
        return None
    if policy.name != behind.name:
        # Its own target, as it would have been for this learner then.
        query = query._replace(target_success=0.0)
    chosen = options(query, state, served, policy, now=slate.made_at, take_up=take_up)
    chances = chosen.first(policy)
    tally.used += 1
    tally.greedy += logged >= 1.0
    found.logged[slate.policy] = found.logged.get(slate.policy, 0) + 1
    earned = _earned(record, row, known, asked.reward)
    shown = first["values"].astype(np.float64)
    weight = float(chances[chosen.rows == row].sum()) / logged
    return _Row(number, weight, earned, shown, chances @ chosen.values.astype(np.float64))


def _state_then(answers: AnswerLog, slate: Slate, served: Serving) -> LearnerState:
    """The state that the slate was made from: what had arrived by then."""
    if slate.answers == 0:
        return LearnerState.empty()
    arrived = answers.take(np.arange(min(slate.answers, answers.size)))
    return replay(arrived.take(chronological(arrived)).batch, served.learner.memory_sets)


def _taste_then(events: list[FeedbackEvent], record: SlateRecord) -> Taste:
    """What feedback had taught by then."""
    taste = Taste()
    for event in sorted(events, key=lambda event: event.received_at):
        if event.received_at < record.created_at:
            taste = learned(taste, event)
    return taste


def _earned(record: SlateRecord, row: int, known: _Learner, reward: str) -> float:
    """Whether the first question of a slate earned its reward."""
    named = record.question_ids[0]
    kinds = {
        event.kind
        for event in known.events
        if event.recommendation_id == record.recommendation_id and event.question_id == named
    }
    answers = known.answers
    answered = [
        place
        for place in np.flatnonzero(answers.batch.question == row).tolist()
        if answers.recommendation_id[place] == record.recommendation_id
        or (
            not answers.recommendation_id[place]
            and 0.0 <= answers.batch.answered_at[place] - record.created_at <= SETTLED_SECONDS
        )
    ]
    if reward == "correct":
        return float(any(answers.batch.correct[place] == 1 for place in answered))
    if reward == "completed":
        return float(bool(answered) or pb.FEEDBACK_KIND_COMPLETED in kinds)
    return float(bool(answered) or bool(kinds & _TAKEN))

"""What a policy would have chosen from at a moment that is past: every candidate with its terms. Draws nothing.

The stages are those of `engine.pipeline`, which keeps only what it shows; here all candidates are wanted.
"""

from dataclasses import dataclass

import numpy as np

from engine.candidates import NEAREST_SHARE, Candidates, gather
from engine.learner import TARGET_RETENTION, LearnerState, predict
from engine.learner.score import read_only
from engine.learner.view import VIEW_COUNTS, VIEW_FLOATS, view_concepts
from engine.likes import likes_of
from engine.off_policy import chances
from engine.policy import SOURCES, TERMS, Policy
from engine.recommend import RecommendQuery, fatigue
from engine.scoring import SAME, lean, score
from engine.serving import Serving
from engine.survey import COLLABORATIVE, SETTINGS_WIDTH, SURVEY_WIDTH, survey
from engine.target import target_for
from engine.types import F4, F8, U2, U4


@dataclass(frozen=True, slots=True)
class Options:
    """The n candidates of one moment."""

    rows: U4
    """(n,) question rows."""
    concepts: U4
    """(n,) for which they were proposed."""
    sources: U2
    """(n,) bit masks."""
    values: F4
    """(n, terms); `diversity` is 0, as for the first question of a slate."""
    scores: F8
    """(n,)"""

    def first(self, policy: Policy) -> F8:
        """Return (n,) the chance of each to be shown first; without candidates nothing."""
        nothing = np.zeros(self.scores.shape[0])
        return chances(self.scores, nothing, float(policy.signed[SAME]), policy.temperature)

    def chance_of(self, row: int, policy: Policy) -> float:
        """Return the chance that question `row` is shown first, 0 when it is no candidate."""
        return float(self.first(policy)[self.rows == row].sum())


def options(
    query: RecommendQuery,
    state: LearnerState,
    serving: Serving,
    policy: Policy,
    *,
    now: float,
    take_up: F4 | None = None,
) -> Options:
    """Return the candidates from which `engine.recommend.recommend` draws, given the same arguments."""
    size, model = serving.catalog.concept_count, serving.learner
    header, touched, recent = read_only(state.header), read_only(state.concepts), read_only(state.recent)
    asked = _asked(query, state, policy, now)
    view, counts = np.empty((size, VIEW_FLOATS)), np.empty((size, VIEW_COUNTS), np.uint32)
    mastered = np.empty(size, np.uint8)
    view_concepts(header, touched, model.weights, now, TARGET_RETENTION, view, counts, mastered)
    outlook, wishes = np.empty((size, SURVEY_WIDTH), np.float32), np.empty((len(SOURCES), size), np.float32)
    factor, profile, near = likes_of(state.recent, serving, policy.quotas[COLLABORATIVE] // NEAREST_SHARE)
    survey(
        serving.concepts, touched, view, counts, mastered, serving.peers, model.memory_sets[model.memory_set],
        profile, asked, query.seed, outlook, wishes,
    )  # fmt: skip
    found = Candidates.room(query.excluded.shape[0] + recent.shape[0])
    held = gather(
        serving.concepts, serving.questions, outlook, wishes, policy.limits, near, read_only(query.excluded),
        recent, asked, query.seed, query.limit, found,
    )  # fmt: skip
    predicted = predict(state, found.rows[:held], serving.question_concepts, model, now)
    lean(serving.concepts, serving.questions, outlook, found, predicted)
    values, scores, means = np.empty((held, len(TERMS)), np.float32), np.empty(held), np.empty(len(TERMS))
    if take_up is None:
        take_up = np.full((len(SOURCES), len(serving.catalog.areas)), 0.5, np.float32)
    score(
        serving.concepts, serving.questions, outlook, found, predicted, recent, read_only(query.shown), factor,
        profile, take_up, asked, policy.signed, values, scores, means,
    )  # fmt: skip
    return Options(found.rows[:held], found.concepts[:held], found.sources[:held], values, scores)


def _asked(query: RecommendQuery, state: LearnerState, policy: Policy, now: float) -> F8:
    """Return the numbers of one call at the places that `engine.survey` names."""
    asked = np.empty(SETTINGS_WIDTH)
    context = query.context
    target = query.target_success or target_for(state, policy, query.seed)
    asked[:] = (
        *(now, target, TARGET_RETENTION, query.objective),
        *(context.available_s, fatigue(context), context.small_screen, state.applied),
    )
    return asked

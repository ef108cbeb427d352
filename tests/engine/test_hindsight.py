"""Looking back at what a policy chose from gives the chances that serving logged."""

from dataclasses import replace

import numpy as np
import pytest

from engine.hindsight import options
from engine.learner import LearnerState
from engine.policy import BUILT_IN, Policy
from engine.recommend import Context, RecommendQuery, recommend
from tests import worlds
from tests.engine.test_survey import with_followers

LATER = worlds.NOON + 2 * worlds.DAY_S


@pytest.mark.parametrize("policy", [*BUILT_IN.values(), replace(BUILT_IN["hybrid_v1"], temperature=0.3)])
@pytest.mark.parametrize("seed", range(4))
def test_the_first_of_a_slate_had_the_chance_that_was_logged(policy: Policy, seed: int) -> None:
    served = with_followers(seed)
    state = worlds.someone(served, seed) if seed else LearnerState.empty()
    take_up = np.random.default_rng(seed).random((10, len(served.catalog.areas)), np.float32)
    query = RecommendQuery(
        seed=seed,
        limit=6,
        context=Context(small_screen=True, available_s=300.0, session_minutes=30.0),
        excluded=np.array([1, 2, 8], np.uint32),
        shown=np.array([3, 5], np.uint32),
    )
    slate = recommend(query, state, served, policy, now=LATER, take_up=take_up)
    found = options(query, state, served, policy, now=LATER, take_up=take_up)
    assert len(found.rows) == slate.candidates
    assert found.values.mean(axis=0)[:-1] == pytest.approx(slate.means[:-1], abs=1e-6)
    first = slate.items[0]
    assert found.chance_of(int(first["question"]), policy) == pytest.approx(first["propensity"], rel=1e-9)
    assert found.first(policy).sum() == pytest.approx(1.0)


def test_what_is_no_candidate_has_no_chance() -> None:
    served = worlds.served(worlds.chain("count", "add"))
    found = options(
        RecommendQuery(seed=1), LearnerState.empty(), served, BUILT_IN["hybrid_v1"], now=worlds.NOON
    )
    assert found.chance_of(served.catalog.question_row["add-1"], BUILT_IN["hybrid_v1"]) == 0.0


def test_a_catalogue_without_questions_gives_nothing_to_choose_from() -> None:
    served = worlds.served(worlds.graph({}))
    found = options(
        RecommendQuery(seed=1), LearnerState.empty(), served, BUILT_IN["hybrid_v1"], now=worlds.NOON
    )
    assert found.first(BUILT_IN["hybrid_v1"]).shape == (0,)

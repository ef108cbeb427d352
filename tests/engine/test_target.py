"""The target moves to where the learner succeeds as often as the policy aims at, within bounds and replayably."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.learner import LearnerState
from engine.learner.score import read_only
from engine.policy import BUILT_IN, InvalidPolicy, Policy, load_policies
from engine.recommend import RecommendQuery, recommend
from engine.target import AIMS, recent_success, target_for
from tests import worlds


def reaching(reach: float) -> Policy:
    """Return the hybrid whose target may move by `reach`."""
    return load_policies({"mine": {"based_on": "hybrid_v1", "target_success": 0.7, "target_reach": reach}})[
        "mine"
    ]


def who_answers(right: bool, times: int) -> LearnerState:
    """Return a learner of `times` answers, all of them alike."""
    served = worlds.served(worlds.chain("count", "add"))
    return worlds.practise(served, [(f"count-{i % 6 + 1}", right) for i in range(times)])


def test_who_always_succeeds_is_given_harder_questions_and_who_fails_easier_ones() -> None:
    policy = reaching(0.1)
    for seed in range(200):
        assert target_for(who_answers(True, 40), policy, seed) == pytest.approx(0.6)
        assert target_for(who_answers(False, 40), policy, seed) == pytest.approx(0.8)


def test_little_is_believed_of_a_few_answers() -> None:
    drawn = {round(target_for(who_answers(True, 2), reaching(0.1), seed), 3) for seed in range(200)}
    assert len(drawn) == AIMS


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60), st.floats(0.0, 0.2), st.integers(0, 2**63 - 1))
def test_the_target_keeps_its_bounds_and_is_the_same_again(
    seed: int, answers: int, reach: float, asked: int
) -> None:
    state = worlds.someone(worlds.served(worlds.at_random(seed)), seed, answers=answers)
    policy = reaching(reach)
    aim = target_for(state, policy, asked)
    assert abs(aim - 0.7) <= reach + 1e-12
    assert aim == target_for(state, policy, asked)


@given(st.lists(st.booleans(), min_size=1, max_size=50))
@settings(max_examples=30, deadline=None)
def test_recent_success_equals_its_naive_twin(outcomes: list[bool]) -> None:
    served = worlds.served(worlds.chain("count", "add"))
    state = worlds.practise(served, [(f"count-{i % 6 + 1}", right) for i, right in enumerate(outcomes)])
    fading = [0.95**age for age in range(len(outcomes))][::-1]
    right, tried = recent_success(read_only(state.header))
    assert right == pytest.approx(
        math.fsum(f for f, hit in zip(fading, outcomes, strict=True) if hit), abs=1e-5
    )
    assert tried == pytest.approx(math.fsum(fading))


def test_no_reach_no_history_and_a_target_asked_for_are_left_alone() -> None:
    served = worlds.served(worlds.chain("count", "add"))
    assert target_for(who_answers(True, 40), BUILT_IN["zone_v1"], 1) == BUILT_IN["zone_v1"].target_success
    assert target_for(LearnerState.empty(), reaching(0.1), 1) == 0.7
    query = RecommendQuery(seed=3, limit=2, target_success=0.75)
    slate = recommend(query, who_answers(True, 40), served, reaching(0.1), now=worlds.NOON)
    assert slate.target == 0.75
    moved = recommend(
        RecommendQuery(seed=3, limit=2), who_answers(True, 40), served, reaching(0.1), now=worlds.NOON
    )
    assert moved.target == pytest.approx(0.6)
    assert np.isfinite(moved.items["score"]).all()


def test_a_reach_beyond_what_makes_sense_is_refused() -> None:
    with pytest.raises(InvalidPolicy, match="target_reach"):
        reaching(0.4)

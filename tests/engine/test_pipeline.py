"""The one pass gives what its stages give one by one, to the bit, for one learner and for many at once."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.candidates import Candidates, gather
from engine.draw import LOT, draw
from engine.learner import TARGET_RETENTION, LearnerState, predict
from engine.learner.score import read_only
from engine.learner.view import Standing
from engine.pipeline import Desk, describe, lay_out
from engine.policy import BUILT_IN, SOURCES, TERMS, Policy
from engine.recommend import (
    Context,
    RecommendQuery,
    fatigue,
    pools_of,
    recommend,
    recommend_many,
    strangers,
)
from engine.scoring import SAME, lean, score, tastes
from engine.serving import Serving
from engine.slate import ITEM, Slate
from engine.slates import draw_slates
from engine.survey import HISTORY, SETTINGS_WIDTH, SURVEY_WIDTH, survey
from engine.target import target_for
from engine.types import F4, F8, U1
from tests import worlds
from tests.engine.test_survey import with_followers

NOW = worlds.NOON + 2 * worlds.DAY_S


def stage_by_stage(
    query: RecommendQuery, state: LearnerState, served: Serving, policy: Policy, take_up: F4
) -> dict[str, Any]:
    """What a slate holds, from the stages one by one, without a collaborative model."""
    size, model = served.catalog.concept_count, served.learner
    touched, recent = read_only(state.concepts), read_only(state.recent)
    asked = np.empty(SETTINGS_WIDTH)
    seed = query.seed if query.pool_seed < 0 else query.pool_seed
    target = query.target_success or target_for(state, policy, seed)
    context = query.context
    asked[:] = (
        *(NOW, target, TARGET_RETENTION, query.objective),
        *(context.available_s, fatigue(context), context.small_screen, state.applied),
    )
    view, counts, mastered = worlds.look(served, state, NOW)
    outlook, wishes = (
        np.empty((size, SURVEY_WIDTH), np.float32),
        np.empty((len(SOURCES), size), np.float32),
    )
    factor, nothing = np.zeros(64, np.float32), np.zeros(0, np.uint32)
    profile = np.empty(64, np.float32)
    rows, confidence = np.empty(len(recent), np.uint32), np.empty(len(recent), np.float32)
    tastes(recent, served.questions.content, float(recent["at"].max()), rows, confidence, profile)
    standing = Standing(view, counts, mastered, np.empty(size, np.int32))
    survey(
        served.concepts, served.peers, read_only(state.header), touched, model.weights,
        model.memory_sets[model.memory_set], profile, asked, seed, standing, outlook, wishes,
    )  # fmt: skip
    found = Candidates.room(len(query.excluded) + len(recent))
    held = gather(
        served.concepts, served.questions, outlook, wishes, policy.limits, nothing, read_only(query.excluded),
        recent, asked, seed, query.limit, found,
    )  # fmt: skip
    predicted = predict(state, found.rows[:held], served.question_concepts, model, NOW)
    lean(served.concepts, served.questions, outlook, found, predicted)
    values = np.empty((held, len(TERMS)), np.float32)
    scores, means = np.empty(held), np.empty(len(TERMS))
    mean_score = score(
        served.concepts, served.questions, outlook, found, predicted, recent, read_only(query.shown), factor,
        profile, take_up, asked, policy.signed, values, scores, means,
    )  # fmt: skip
    desk = Desk(
        view, counts, mastered, np.empty(size, np.int32), outlook, wishes, np.empty(held, np.int32), predicted, values,
        scores,
    )  # fmt: skip
    usual = strangers(served, policy)
    items, best_left = draw_one(found, desk, query, policy, served, asked, usual)
    shown = len(items)
    return {
        "items": items.tobytes(),
        "means": means.tobytes(),
        "mean_score": mean_score,
        "best_left": best_left,
        "candidates": held,
        "source_counts": found.counts.astype(np.uint32).tobytes(),
        "target": target,
        "objective": query.objective,
        "seed": query.seed,
        "pool_seed": seed,
        "answers": state.applied,
        "last_answered_at": state.last_answered_at,
        "unlike_stranger": float(np.mean(usual[items["concept"]] == 0)) if shown and state.applied else 0.0,
    }


def draw_one(
    found: Candidates,
    desk: Desk,
    query: RecommendQuery,
    policy: Policy,
    served: Serving,
    asked: F8,
    usual: U1,
) -> tuple[Any, float]:
    """The last stages: (items drawn, best score left)."""
    held = len(desk.scores)
    lots, pool = np.zeros(held, LOT), np.zeros(held, ITEM)
    lay_out(desk.scores, found, policy.temperature, usual, asked[HISTORY] > 0, lots)
    describe(found, desk, served.questions.cards, asked, pool)
    shown = min(query.limit, held)
    chosen, sameness = np.empty(shown, np.int64), np.empty(shown, np.float32)
    propensity, final = np.empty(shown), np.empty(shown)
    penalty = float(policy.signed[SAME])
    best_left = draw(lots, penalty, policy.temperature, query.seed, chosen, sameness, propensity, final)
    # By bytes, since numpy leaves what lies between the fields to chance.
    items = pool.view(np.uint8).reshape(held, ITEM.itemsize)[chosen].reshape(-1).view(ITEM)
    items["score"], items["propensity"], items["values"][:, SAME] = final, propensity, sameness
    return items, best_left


def told(slate: Slate) -> dict[str, Any]:
    """What a slate holds, by the names of `stage_by_stage`."""
    return {
        "items": slate.items.tobytes(),
        "means": slate.means.tobytes(),
        "mean_score": slate.mean_score,
        "best_left": slate.best_left,
        "candidates": slate.candidates,
        "source_counts": slate.source_counts.tobytes(),
        "target": slate.target,
        "objective": slate.objective,
        "seed": slate.seed,
        "pool_seed": slate.pool_seed,
        "answers": slate.answers,
        "last_answered_at": slate.last_answered_at,
        "unlike_stranger": slate.unlike_stranger,
    }


def query_of(rng: np.random.Generator, served: Serving, limit: int) -> RecommendQuery:
    rows = rng.permutation(served.catalog.question_count + 5).astype(np.uint32)
    return RecommendQuery(
        seed=int(rng.integers(0, 1 << 40)),
        pool_seed=int(rng.integers(0, 1 << 40)) if rng.integers(2) else -1,
        limit=limit,
        objective=int(rng.integers(-1, served.catalog.concept_count)),
        context=Context(bool(rng.integers(2)), float(rng.choice([0.0, 90.0])), 23, float(rng.uniform(0, 60))),
        excluded=rows[: rng.integers(0, 12)],
        shown=rows[20 : 20 + rng.integers(0, 6)],
        target_success=float(rng.choice([0.0, 0.75])),
    )


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(BUILT_IN)), st.integers(1, 30))
def test_the_pass_equals_its_stages(seed: int, name: str, limit: int) -> None:
    served = worlds.served(worlds.at_random(seed))
    rng = np.random.default_rng(seed)
    states = [
        worlds.someone(served, seed, answers=40),
        LearnerState.empty(),
        worlds.someone(served, seed + 1),
    ]
    queries = [query_of(rng, served, limit) for _ in states]
    beliefs = [None, *(rng.random((len(SOURCES), len(served.catalog.areas)), np.float32) for _ in range(2))]
    even = np.full((len(SOURCES), len(served.catalog.areas)), 0.5, np.float32)
    many = recommend_many(queries, states, served, BUILT_IN[name], now=NOW, take_ups=beliefs)
    for slate, query, state, belief in zip(many, queries, states, beliefs, strict=True):
        take_up = even if belief is None else belief
        assert told(slate) == stage_by_stage(query, state, served, BUILT_IN[name], take_up)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(BUILT_IN)))
def test_many_learners_at_once_get_what_each_gets_alone(seed: int, name: str) -> None:
    served = with_followers(seed)
    rng = np.random.default_rng(seed)
    states = [worlds.someone(served, seed + i, answers=10 * i + 1) for i in range(4)]
    queries = [query_of(rng, served, 6) for _ in states]
    many = recommend_many(queries, states, served, BUILT_IN[name], now=NOW)
    alone = [recommend(q, s, served, BUILT_IN[name], now=NOW) for q, s in zip(queries, states, strict=True)]
    assert [slate.to_bytes() for slate in many] == [slate.to_bytes() for slate in alone]
    assert [slate.to_bytes() for slate in many[1:3]] == [slate.to_bytes() for slate in alone[1:3]]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(BUILT_IN)))
def test_a_pool_that_was_kept_gives_what_a_new_one_gives(seed: int, name: str) -> None:
    """Drawn again with other luck, alone or with others, after a move to memory of its own."""
    served, policy = with_followers(seed), BUILT_IN[name]
    rng = np.random.default_rng(seed)
    states = [worlds.someone(served, seed + i, answers=10 * i) for i in range(1, 4)]
    queries = [query_of(rng, served, 6)._replace(pool_seed=seed + i) for i in range(3)]
    made = pools_of(queries, states, served, policy, moments=[NOW - i for i in range(3)])
    kept = [pool.apart() for pool in made]
    before = [pool.words.tobytes() for pool in made]
    for luck in range(2):
        queries = [query._replace(seed=100 + luck) for query in queries]
        fresh = [
            recommend(query, state, served, policy, now=NOW - i).to_bytes()
            for i, (query, state) in enumerate(zip(queries, states, strict=True))
        ]
        seeds = [query.seed for query in queries]
        together = draw_slates(kept, seeds, 6)
        assert [together.stored(i) for i in range(3)] == fresh
        assert [slate.to_bytes() for slate in together] == fresh
        mixed = draw_slates([made[2], kept[0]], [seeds[2], seeds[0]], 6)
        assert [mixed.stored(i) for i in range(2)] == [fresh[2], fresh[0]]
        assert [draw_slates([kept[1]], [seeds[1]], 6).stored(0)] == [fresh[1]]
    assert before == [pool.words.tobytes() for pool in kept]


def test_learners_of_one_pass_share_their_limit() -> None:
    served = worlds.served(worlds.chain("count"))
    queries = [RecommendQuery(seed=1, limit=2), RecommendQuery(seed=1, limit=3)]
    with pytest.raises(ValueError, match="limits of one pass must not differ: 2 and 3"):
        recommend_many(queries, [LearnerState.empty()] * 2, served, BUILT_IN["hybrid_v1"], now=NOW)

"""The pipeline in worlds whose right answer is obvious, and its promises on random ones."""

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.candidates import REST_S
from engine.catalog import build_catalog
from engine.engagement import Engagement
from engine.graph import NEARLY_MASTERED
from engine.learner import LearnerState
from engine.neighbours import build_index
from engine.peers import Peers
from engine.policy import BUILT_IN, SOURCES, TERMS, Policy
from engine.recommend import Context, RecommendQuery, fatigue, recommend, seed_of
from engine.serving import Models, Serving, prepare
from engine.slate import Slate, SlateReason
from engine.types import Concept, Prerequisite, Question
from tests import naive_recommend as naive
from tests import worlds
from tests.engine.test_survey import with_followers

HYBRID = BUILT_IN["hybrid_v1"]
STRANGER = LearnerState.empty()


def ask(
    served: Serving, state: LearnerState, policy: Policy = HYBRID, now: float = worlds.NOON, **query: Any
) -> Slate:
    return recommend(RecommendQuery(**{"seed": 1, **query}), state, served, policy, now=now)


def concepts(served: Serving, slate: Slate) -> list[str]:
    return [served.catalog.concept_ids[row] for row in slate.items["concept"]]


@pytest.fixture(scope="module")
def arithmetic() -> Serving:
    return worlds.served(worlds.chain("count", "add", "multiply"))


def test_a_stranger_starts_at_the_root(arithmetic: Serving) -> None:
    slate = ask(arithmetic, STRANGER, limit=3)
    assert set(concepts(arithmetic, slate)) == {"count"}
    assert slate.source_counts[SOURCES.index("start")] > 0
    assert slate.answers == 0


def test_a_learner_who_knows_counting_gets_adding(arithmetic: Serving) -> None:
    assert set(concepts(arithmetic, ask(arithmetic, worlds.who_knows(arithmetic, "count"), limit=3))) == {
        "add"
    }


def test_what_fades_comes_back(arithmetic: Serving) -> None:
    state = worlds.who_knows(arithmetic, "count", ending=worlds.NOON - 60 * worlds.DAY_S)
    slate = ask(arithmetic, state, BUILT_IN["spaced_repetition_v1"], limit=1)
    assert concepts(arithmetic, slate) == ["count"]
    assert slate.items["due"].tolist() == [1]


def test_an_objective_draws_towards_itself() -> None:
    served = worlds.served(worlds.graph({"root": [], "left": ["root"], "right": ["root"], "goal": ["left"]}))
    state = worlds.who_knows(served, "root")
    cold = dataclasses.replace(HYBRID, temperature=0.0)
    aimed = ask(served, state, cold, limit=2, objective=served.catalog.concept_row["goal"])
    assert concepts(served, aimed)[0] == "left"
    assert aimed.items["steps"][0] == 1
    other = ask(served, state, cold, limit=2, objective=served.catalog.concept_row["right"])
    assert concepts(served, other)[0] == "right"


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_policy_works_by_name(name: str) -> None:
    served = with_followers(4)
    for state in (STRANGER, worlds.someone(served, 4)):
        slate = ask(served, state, BUILT_IN[name], limit=5)
        assert (slate.policy, len(slate.items), slate.reason) == (name, 5, SlateReason.FULL)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(BUILT_IN)), st.integers(0, 40), st.integers(1, 100))
def test_promises_hold_in_any_world(seed: int, name: str, answers: int, limit: int) -> None:
    served = with_followers(seed)
    catalog = served.catalog
    rng = np.random.default_rng(seed)
    state = worlds.someone(served, seed, answers=answers) if answers else STRANGER
    excluded = rng.permutation(catalog.question_count + 9)[: rng.integers(0, 20)].astype(np.uint32)
    objective = int(rng.integers(-1, catalog.concept_count))
    slate = ask(served, state, BUILT_IN[name], limit=limit, seed=seed, excluded=excluded, objective=objective)
    rows = slate.items["question"]
    assert slate.contributions.sum(axis=1) == pytest.approx(slate.items["score"], abs=1e-9)
    assert ((slate.items["values"] >= 0.0) & (slate.items["values"] <= 1.0)).all()
    assert np.unique(rows).size == rows.size <= limit
    assert (slate.reason is SlateReason.FULL) == (rows.size == limit)
    assert catalog.question_active[rows].all()
    assert not np.isin(rows, excluded).any()
    recent = state.recent
    fresh = recent[(recent["last"] == 1) & (worlds.NOON - recent["at"] < REST_S)]["question"]
    assert not np.isin(rows, fresh).any()
    view, counts, mastered = worlds.look(served, state)
    needed = catalog.prerequisites
    edges = {
        c: [
            (int(needed.rows[e]), bool(needed.hard[e]))
            for e in range(needed.offsets[c], needed.offsets[c + 1])
        ]
        for c in range(catalog.concept_count)
    }
    speaks = [0.0] * catalog.concept_count
    for record in state.concepts:
        known = naive.known_by([digit == "1" for digit in bin(int(record["pattern"]))[3:]])
        kept = 1.0 if np.isnan(view[record["row"], 2]) else float(view[record["row"], 2])
        speaks[int(record["row"])] = (0.7 * known + 0.3 * float(view[record["row"], 0])) * kept
    proven, _ = naive.readiness(edges, speaks, mastered, counts[:, 0])
    for row in rows:
        for c in catalog.question_concepts.of(int(row)):
            assert all(proven[need] >= NEARLY_MASTERED for need, hard in edges[int(c)] if hard)
    assert (
        slate.to_bytes()
        == ask(
            served, state, BUILT_IN[name], limit=limit, seed=seed, excluded=excluded, objective=objective
        ).to_bytes()
    )


def test_another_seed_may_give_another_slate_and_the_same_one_does_not() -> None:
    served = worlds.served(worlds.graph({f"c{i}": [] for i in range(12)}))
    slates = {ask(served, STRANGER, seed=seed, limit=5).items["question"].tobytes() for seed in range(8)}
    assert len(slates) > 1


def test_an_empty_catalogue_gives_an_empty_slate() -> None:
    slate = ask(worlds.served(build_catalog([], [], version=0)), STRANGER)
    assert (len(slate.items), slate.reason) == (0, SlateReason.EMPTY_CATALOG)
    assert Slate.from_bytes(slate.to_bytes()).reason is SlateReason.EMPTY_CATALOG


def test_when_all_is_excluded_the_slate_says_so(arithmetic: Serving) -> None:
    everything = np.arange(18, dtype=np.uint32)
    assert ask(arithmetic, STRANGER, excluded=everything).reason is SlateReason.ALL_EXCLUDED
    assert ask(arithmetic, STRANGER, excluded=everything[2:]).reason is SlateReason.FEW_ELIGIBLE


def test_when_only_closed_concepts_have_questions_the_slate_says_so() -> None:
    concepts = [Concept("count", 0), Concept("add", 1, prerequisites=(Prerequisite("count"),))]
    served = worlds.served(build_catalog(concepts, [Question("sum", 0, (1,))], version=1))
    assert ask(served, STRANGER).reason is SlateReason.NOTHING_OPEN


def test_questions_shown_lately_lose_to_fresh_ones() -> None:
    served = worlds.served(
        build_catalog([Concept("count", 0)], [Question(f"q{i}", i, (0,)) for i in range(12)], version=1)
    )
    cold = dataclasses.replace(HYBRID, temperature=0.0)
    first = ask(served, STRANGER, cold, limit=3).items["question"]
    again = ask(served, STRANGER, cold, limit=3, shown=first).items["question"]
    assert not np.isin(again, first).any()


def test_a_short_break_favours_short_questions() -> None:
    asked = [Question(f"q{i}", i, (0,), expected_seconds=20.0 if i % 2 else 600.0) for i in range(20)]
    served = worlds.served(build_catalog([Concept("count", 0)], asked, version=1))
    cold = dataclasses.replace(HYBRID, temperature=0.0)
    slate = ask(served, STRANGER, cold, limit=5, context=Context(available_s=60.0))
    assert (slate.items["seconds"] == 20.0).all()


@pytest.mark.parametrize(
    ("context", "tired"),
    [
        (Context(), 0.0),
        (Context(session_minutes=20.0), 0.0),
        (Context(session_minutes=40.0), 0.5),
        (Context(session_minutes=90.0), 1.0),
        (Context(local_hour=23), 0.3),
        (Context(local_hour=5, session_minutes=50.0), 0.75),
        (Context(local_hour=12), 0.0),
    ],
)
def test_fatigue_grows_with_the_session_and_at_night(context: Context, tired: float) -> None:
    assert fatigue(context) == pytest.approx(tired)


def test_similar_learners_lead_to_what_they_practise() -> None:
    catalog = worlds.graph({"a": [], "b": [], "c": [], "d": []}, each=10)
    factors = np.zeros((40, 64), np.float32)
    factors[:20, 0], factors[20:, 1] = 1.0, 1.0
    factors += np.random.default_rng(0).normal(0.0, 0.01, factors.shape).astype(np.float32)
    base = with_followers(1).models.collaborative
    assert base is not None
    model = dataclasses.replace(
        base,
        item_factors=factors,
        gram=(factors.T @ factors + np.eye(64)).astype(np.float32),
        peers=Peers(
            place=np.eye(4, 64, dtype=np.float32),
            centre=np.eye(64, 1, dtype=np.float32),
            next_offsets=np.array([0, 2], np.int32),
            next_rows=np.array([0, 1], np.uint32),
            next_values=np.ones(2, np.float32),
            beside_offsets=np.zeros(5, np.int32),
            beside_rows=np.zeros(0, np.uint32),
            beside_values=np.zeros(0, np.float32),
        ),
    )
    served = prepare(
        catalog, dataclasses.replace(Models.priors(), collaborative=model, items=build_index(factors))
    )
    state = worlds.practise(served, [("a-1", True), ("a-2", True)])
    slate = ask(served, state, BUILT_IN["collaborative_filtering_v2"], limit=8)
    assert set(concepts(served, slate)) == {"a", "b"}
    assert (slate.items["values"][:, TERMS.index("collaborative")] > 0.9).all()


def test_learned_engagement_moves_the_slate() -> None:
    served = worlds.served(worlds.graph({"a": [], "b": []}))
    belief = Engagement.empty(1)
    for _ in range(40):
        belief = belief.observe(1 << SOURCES.index("start"), 0, -1.0, worlds.NOON)
    query = RecommendQuery(seed=1, limit=1)
    usual = recommend(query, STRANGER, served, HYBRID, now=worlds.NOON)
    put_off = recommend(query, STRANGER, served, HYBRID, now=worlds.NOON, take_up=belief.take_up(1))
    term = TERMS.index("engagement")
    assert put_off.items["values"][0, term] < usual.items["values"][0, term]


@pytest.mark.parametrize("limit", [0, 101])
def test_a_limit_out_of_bounds_is_refused(arithmetic: Serving, limit: int) -> None:
    with pytest.raises(ValueError, match="limit must be 1 to 100"):
        ask(arithmetic, STRANGER, limit=limit)


def test_seeds_keep_their_parts_apart() -> None:
    assert seed_of("t", "ab", "c") != seed_of("t", "a", "bc")
    assert seed_of("t", "a") == seed_of("t", "a") < 2**63


def test_the_largest_seed_is_taken_and_a_larger_one_refused(arithmetic: Serving) -> None:
    top = ask(arithmetic, STRANGER, seed=2**63 - 1)
    assert Slate.from_bytes(top.to_bytes()).seed == 2**63 - 1
    with pytest.raises(ValueError, match="seeds must be 0 to"):
        ask(arithmetic, STRANGER, seed=2**63)


def test_a_learner_with_history_differs_from_a_stranger(arithmetic: Serving) -> None:
    assert ask(arithmetic, STRANGER, limit=3).unlike_stranger == 0.0
    assert ask(arithmetic, worlds.who_knows(arithmetic, "count"), limit=3).unlike_stranger == 1.0

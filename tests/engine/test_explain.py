"""Explanations: exact sums, sentences that state the learner's own facts, and counterfactuals that hold."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.explain import Level, explain
from engine.learner import LearnerState
from engine.messages import ENGLISH, check_messages
from engine.policy import BUILT_IN, TERMS
from engine.reasons import CHANCE, REST, Facts, PlainItem, main_reason, plain_items, sentence
from engine.recommend import RecommendQuery, recommend
from engine.slate import ITEM, Slate
from tests import worlds
from tests.engine.test_survey import with_followers


def slate_of(
    seed: int, policy: str = "hybrid_v1", answers: int = 40, objective: int = -1
) -> tuple[Slate, list[str]]:
    served = with_followers(seed)
    state = worlds.someone(served, seed, answers=answers) if answers else LearnerState.empty()
    query = RecommendQuery(seed=seed, limit=6, objective=objective)
    return recommend(
        query, state, served, BUILT_IN[policy], now=worlds.NOON + 5 * worlds.DAY_S
    ), served.catalog.titles


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000), st.sampled_from(sorted(BUILT_IN)), st.sampled_from([0, 3, 40]), st.integers(-1, 5)
)
def test_explanations_are_exact(seed: int, policy: str, answers: int, objective: int) -> None:
    slate, titles = slate_of(seed, policy, answers, objective)
    for rank in range(len(slate.items)):
        told = explain(slate, rank, titles, level=Level.TECHNICAL)
        score = float(slate.items[rank]["score"])
        assert sum(term.contribution for term in told.terms) == pytest.approx(score, abs=1e-6)
        assert sum(term.lift for term in told.terms) == pytest.approx(
            score - float(slate.weights @ slate.means), abs=1e-6
        )
        assert sum(told.feature_importance.values()) == pytest.approx(1.0, abs=1e-9)
        assert list(told.feature_importance.values()) == sorted(
            told.feature_importance.values(), reverse=True
        )
        assert 1 <= len(told.main_reasons) <= 3
        assert all(reason.endswith(".") and "{" not in reason for reason in told.main_reasons)
        assert told.main_reasons[0] == main_reason(
            slate, plain_items(slate.items)[rank], slate.leads[rank], titles
        )
        assert all(0.0 <= share <= 1.0 for share in dataclasses.astuple(told.confidence))
        assert told.counterfactual.endswith(".")
        assert told.technical is not None
        assert told.technical.propensity > 0.0


def test_plain_items_are_the_records() -> None:
    slate, _ = slate_of(4)
    plain = plain_items(slate.items)
    assert len(plain) == len(slate.items) == 6
    fields = set(ITEM.names or ()) - {"values"}
    assert fields == set(PlainItem._fields)
    for name in PlainItem._fields:
        np.testing.assert_array_equal([getattr(item, name) for item in plain], slate.items[name])


def test_braces_in_a_translation_are_text() -> None:
    facts = Facts(slate_of(1)[0], plain_items(slate_of(1)[0].items)[0], ["{}"] * 100)
    assert sentence("content", facts, {"reason.content": "{{so}} {concept!r:>6}"}) == "{so}   '{}'"


def test_each_level_holds_the_one_before() -> None:
    slate, titles = slate_of(1)
    simple, detailed, technical = (explain(slate, 0, titles, level=level) for level in Level)
    assert (simple.terms, simple.counterfactual, simple.technical) == ((), "", None)
    assert [term.name for term in detailed.terms] == list(TERMS)
    assert detailed.technical is None
    assert dataclasses.replace(technical, technical=None) == detailed


def test_a_review_is_explained_by_days_and_recall() -> None:
    served = worlds.served(worlds.graph({"fractions": [], "angles": []}))
    state = worlds.who_knows(served, "fractions", ending=worlds.NOON - 9 * worlds.DAY_S)
    state = worlds.practise(served, [("angles-1", True), ("angles-2", True)], state=state)
    slate = recommend(
        RecommendQuery(seed=1, limit=1), state, served, BUILT_IN["spaced_repetition_v1"], now=worlds.NOON
    )
    recall = round(100 * float(slate.items[0]["recall"]))
    wanted = f"You last practised Fractions 9 days ago; you would now recall it with {recall} %."
    assert explain(slate, 0, served.catalog.titles).main_reasons[0] == wanted


def test_a_stranger_is_told_where_to_start() -> None:
    served = worlds.served(worlds.chain("count", "add"))
    slate = recommend(
        RecommendQuery(seed=1, limit=1), LearnerState.empty(), served, BUILT_IN["hybrid_v1"], now=worlds.NOON
    )
    told = explain(slate, 0, served.catalog.titles)
    assert told.main_reasons[0] == "A good place to start: much else builds on Count."
    assert told.confidence.data_quality == 0.0


def test_pure_chance_is_called_chance() -> None:
    slate, titles = slate_of(2, "random_v1")
    told = explain(slate, 0, titles)
    assert told.feature_importance == {CHANCE: 1.0}
    assert told.main_reasons == (ENGLISH["reason.chance"],)
    tied = explain(slate, 0, titles, level=Level.DETAILED)
    assert tied.counterfactual == ENGLISH["without.tie"]


def test_what_was_not_drawn_is_not_called_chance() -> None:
    """At temperature 0, before anyone has answered anything, no question is more popular than another."""
    served = worlds.served(worlds.chain("count", "add"))
    policy = BUILT_IN["popularity_v1"]
    query = RecommendQuery(seed=1, limit=2)
    slate = recommend(query, LearnerState.empty(), served, policy, now=worlds.NOON)
    for rank, item in enumerate(plain_items(slate.items)):
        told = explain(slate, rank, served.catalog.titles, level=Level.TECHNICAL)
        assert told.technical is not None
        assert (told.technical.propensity, told.technical.temperature) == (1.0, 0.0)
        assert told.feature_importance == {REST: 1.0}
        assert told.main_reasons == (ENGLISH["reason.rest"],)
        assert main_reason(slate, item, slate.leads[rank], served.catalog.titles) == ENGLISH["reason.rest"]
        assert told.counterfactual != ENGLISH["without.luck"]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_counterfactuals_in_chance_and_recall_hold(seed: int) -> None:
    slate, titles = slate_of(seed)
    for rank in range(len(slate.items)):
        item = slate.items[rank]
        said = explain(slate, rank, titles, level=Level.DETAILED).counterfactual
        margin = float(item["score"]) - slate.best_left
        for word, side in (("less than", -0.006), ("more than", 0.006)):
            if word in said:
                p = int(said.split(word)[1].split("%")[0]) / 100 + side
                zone = math.exp(-0.5 * ((p - slate.target) / (0.25 if p < slate.target else 0.08)) ** 2)
                assert float(item["values"][0]) - zone > margin / float(slate.weights[0])
        assert (abs(margin) <= 1e-9) == (said == ENGLISH["without.tie"])
        assert (margin < -1e-9) == (said == ENGLISH["without.luck"])
        assert math.isinf(margin) == (said == ENGLISH["without.rival"])


def test_sentences_can_be_translated() -> None:
    slate, titles = slate_of(3)
    german = {
        **ENGLISH,
        "reason.zone": "Erfolg mit {predicted} %.",
        "reason.zone.off": "Erfolg mit {predicted} %.",
    }
    check_messages(german)
    zone = [rank for rank in range(6) if "zone" in explain(slate, rank, titles).feature_importance]
    told = [reason for rank in zone for reason in explain(slate, rank, titles, messages=german).main_reasons]
    assert any(reason.startswith("Erfolg mit") for reason in told)


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ({k: v for k, v in ENGLISH.items() if k != "reason.zone"}, "'reason.zone' is missing"),
        ({**ENGLISH, "reason.mood": "?"}, "'reason.mood' is unknown"),
        ({**ENGLISH, "reason.zone": "{mood}"}, r"'reason.zone' uses \['mood'\]"),
    ],
)
def test_a_faulty_translation_is_named(messages: dict[str, str], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        check_messages(messages)


def test_a_rank_that_is_not_there_is_refused() -> None:
    slate, titles = slate_of(1)
    with pytest.raises(IndexError, match="rank 6 of a slate of 6"):
        explain(slate, 6, titles)


def test_shares_are_of_what_lifted_the_question() -> None:
    slate, titles = slate_of(5)
    lifts = slate.contributions[0] - slate.weights * slate.means
    raised = np.maximum(lifts, 0.0)
    shares = explain(slate, 0, titles).feature_importance
    assert shares == pytest.approx(
        {name: x / raised.sum() for name, x in zip(TERMS, raised, strict=True) if x > 0}
    )

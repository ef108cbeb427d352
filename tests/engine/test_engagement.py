"""Learned engagement: feedback moves it the right way, in any order of arrival."""

from itertools import permutations

import numpy as np
import pytest

from engine.engagement import HALF_LIFE_S, Engagement
from engine.policy import SOURCES

REVIEW, FRONTIER = SOURCES.index("review"), SOURCES.index("frontier")


def test_nothing_seen_means_even_odds() -> None:
    assert (Engagement.empty(2).take_up(3) == 0.5).all()


def test_taking_up_raises_and_dismissing_lowers() -> None:
    belief = Engagement.empty(2).observe(1 << REVIEW, 0, 1.0, 100.0).observe(1 << FRONTIER, 1, -1.0, 100.0)
    chances = belief.take_up(2)
    assert chances[REVIEW, 0] > 0.5 > chances[FRONTIER, 1]
    assert (chances[REVIEW, 1], chances[FRONTIER, 0]) == (0.5, 0.5)


def test_credit_is_shared_among_the_sources() -> None:
    both = Engagement.empty(1).observe(1 << REVIEW | 1 << FRONTIER, 0, 1.0, 100.0).take_up(1)
    alone = Engagement.empty(1).observe(1 << REVIEW, 0, 1.0, 100.0).take_up(1)
    assert both[REVIEW, 0] == both[FRONTIER, 0] < alone[REVIEW, 0]


def test_what_was_seen_long_ago_counts_less() -> None:
    fresh = Engagement.empty(1).observe(1, 0, 1.0, 1e9)
    stale = fresh.observe(2, 0, 0.0, 1e9 + HALF_LIFE_S)
    assert stale.taken[0, 0] == pytest.approx(fresh.taken[0, 0] / 2)


def test_the_order_of_arrival_does_not_matter() -> None:
    events = [(1, 0, 1.0, 1e9), (2, 1, -1.0, 1e9 + 3e6), (3, 0, 0.5, 1e9 + 1e6)]
    results = []
    for order in permutations(events):
        belief = Engagement.empty(1)
        for event in order:
            belief = belief.observe(*event)
        results.append(belief)
    for belief in results[1:]:
        assert belief.at == results[0].at
        assert np.allclose(belief.taken, results[0].taken, rtol=1e-12)
        assert np.allclose(belief.left, results[0].left, rtol=1e-12)

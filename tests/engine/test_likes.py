"""Likes depend on the history alone, are remembered under it, and the memory is bounded."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from engine.collaborative import FOLD_STEPS, as_liking, fold_in
from engine.learner.state import blank_recent
from engine.likes import likes_of
from engine.memo import Memo
from engine.neighbours import build_index
from engine.serving import Serving, prepare
from engine.types import NO_ROW
from tests import naive_slate, worlds
from tests.engine.test_survey import with_followers


def with_neighbours(seed: int) -> Serving:
    """Return a random catalogue whose model knows what lies near a place among its factors."""
    served = with_followers(seed)
    items = build_index(served.questions.factors)
    return prepare(served.catalog, dataclasses.replace(served.models, items=items))


def test_likes_are_worked_out_once_a_history() -> None:
    served = with_followers(3)
    state = worlds.someone(served, 3)
    first = likes_of(state.recent[np.newaxis], served, 5)
    assert likes_of(state.recent[np.newaxis].copy(), served, 5) is first
    assert (served.likes.hits, served.likes.misses) == (1, 1)
    likes_of(state.recent[np.newaxis], served, 2)
    assert (served.likes.hits, served.likes.misses) == (1, 2)


def test_an_answer_leaves_the_old_likes_behind() -> None:
    served = with_followers(3)
    before = worlds.someone(served, 3)
    name = served.catalog.question_ids[int(before.recent["question"][0])]
    after = worlds.practise(served, [(name, False)], state=before, ending=worlds.NOON + worlds.DAY_S)
    first = likes_of(before.recent[np.newaxis], served, 5)
    second = likes_of(after.recent[np.newaxis], served, 5)
    assert not np.array_equal(first.profile, second.profile)
    assert served.likes.misses == 2


def test_likes_of_many_are_those_of_each_whether_remembered_or_not() -> None:
    served = with_neighbours(3)
    rings = np.stack([worlds.someone(served, seed).recent for seed in range(4)])
    rings[2] = blank_recent()
    alone = [likes_of(ring[np.newaxis], served, 5) for ring in rings]
    forgetful = dataclasses.replace(served, likes=Memo(9))
    likes_of(rings[1:2], forgetful, 5)
    for _ in range(2):
        many = likes_of(rings, forgetful, 5)
        for part, own in zip(many, zip(*alone, strict=True), strict=True):
            assert np.array_equal(part, np.concatenate(own))
    assert (forgetful.likes.hits, forgetful.likes.misses) == (5, 4)


def test_likes_are_their_parts() -> None:
    """The ring's newest answer sets the weights, factors are folded in and scaled, the index gives what is near."""
    served = with_neighbours(3)
    recent = worlds.someone(served, 3).recent
    likes = likes_of(recent[np.newaxis], served, 5)
    known = recent[recent["question"] != NO_ROW]
    weights, profile = naive_slate.tastes(recent, served.questions.content, float(known["at"].max()))
    assert likes.profile[0] == pytest.approx(profile, abs=1e-5)
    rows = np.array(list(weights), np.uint32)
    confidence = np.array(list(weights.values()), np.float32)
    factors = served.questions.factors
    factor = fold_in(factors, served.gram, rows, confidence, FOLD_STEPS)
    as_liking(factors, rows, factor)
    assert likes.factor[0] == pytest.approx(factor, abs=1e-4)
    index = served.models.items
    assert index is not None
    assert likes.near[0].tolist() == index.nearest(likes.factor[0], 5).tolist()


def test_nothing_is_near_who_has_practised_nothing() -> None:
    served = with_neighbours(3)
    likes = likes_of(blank_recent()[np.newaxis], served, 5)
    assert not likes.factor.any()
    assert not likes.profile.any()
    assert set(likes.near[0].tolist()) == {NO_ROW}


def test_a_memo_lets_go_of_what_was_asked_for_longest_ago() -> None:
    memo: Memo[int, str] = Memo(2)
    memo.keep(1, "one")
    memo.keep(2, "two")
    assert memo.find(1) == "one"
    memo.keep(3, "three")
    assert (memo.find(1), memo.find(2), memo.find(3), len(memo)) == ("one", None, "three", 2)
    assert (memo.hits, memo.misses) == (3, 1)


def test_threads_may_share_a_memo() -> None:
    memo: Memo[int, int] = Memo(8)

    def use(key: int) -> bool:
        memo.keep(key % 20, key % 20)
        return memo.find(key % 20) in {None, key % 20}

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(use, range(2000)))
    assert len(memo) == 8

"""Likes depend on the history alone, are remembered under it, and the memory is bounded."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from engine.likes import likes_of
from engine.memo import Memo
from tests import worlds
from tests.engine.test_survey import with_followers


def test_likes_are_worked_out_once_a_history() -> None:
    served = with_followers(3)
    state = worlds.someone(served, 3)
    first = likes_of(state.recent, served, 5)
    assert likes_of(state.recent.copy(), served, 5) is first
    assert (served.likes.hits, served.likes.misses) == (1, 1)
    likes_of(state.recent, served, 2)
    assert (served.likes.hits, served.likes.misses) == (1, 2)


def test_an_answer_leaves_the_old_likes_behind() -> None:
    served = with_followers(3)
    before = worlds.someone(served, 3)
    name = served.catalog.question_ids[int(before.recent["question"][0])]
    after = worlds.practise(served, [(name, False)], state=before, ending=worlds.NOON + worlds.DAY_S)
    first, second = likes_of(before.recent, served, 5), likes_of(after.recent, served, 5)
    assert not np.array_equal(first.profile, second.profile)
    assert served.likes.misses == 2


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

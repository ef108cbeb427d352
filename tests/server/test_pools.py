"""Pools kept between calls change no reply, and are found only as long as all that they were made from is the same."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from engine.learner import LearnerState
from engine.policy import BUILT_IN, load_policies
from engine.pools import Pool
from engine.recommend import RecommendQuery, pools_of
from engine.warmup import warm_up
from genie.v1 import catalog_service_pb2, explanation_pb2, resources_pb2
from genie.v1 import learner_service_pb2 as learner_pb
from genie.v1 import recommendation_service_pb2 as pb
from server.moments import LENGTHS, Moment
from server.pools import FEW, HALVED_AFTER, PoolCache
from server.services.recommendation import RecommendationService
from store.memory_store import MemoryStore
from tests import worlds
from tests.server.learner_world import DAY, World
from tests.server.service_calls import NOW, a_call

MINUTE = 60.0
WHILE = Moment(NOW - 5.0, NOW + 5.0)
TECHNICAL = explanation_pb2.EXPLANATION_LEVEL_TECHNICAL


class Two:
    """Two services over the same learners: one keeps pools, the other works out every slate anew."""

    def __init__(self) -> None:
        self.world = World()
        self.pools = PoolCache(8.0)
        self.keeping, self.forgetting = self._service(self.pools), self._service(None)
        for learner in ("ada", "grace"):
            self.world.answer(learner, "count", at=NOW - DAY, count=6)
        self.world.answer("ada", "add", at=NOW - 10 * MINUTE, correct=False, count=2)

    def _service(self, pools: PoolCache | None) -> RecommendationService:
        return RecommendationService(
            store=self.world.store,
            serving=MemoryStore(),
            tenants=self.world.tenants,
            policies=load_policies({}),
            default_policy="hybrid_v1",
            budget_seconds=30.0,
            keep_seconds=3_600.0,
            pools=pools,
        )

    def reply(self, service: RecommendationService, name: str, *, now: float = NOW, **request: Any) -> bytes:
        """The reply to a request with a learner, an id and these settings."""
        known = {"learner_id": "ada", "request_id": name} | request
        return service.recommend(pb.RecommendRequest(**known), a_call(now=now)).SerializeToString()

    def same(self, name: str, **request: Any) -> bool:
        """Whether both services answer a request alike; each has not been asked it before."""
        return self.reply(self.keeping, name, **request) == self.reply(self.forgetting, name, **request)


@pytest.fixture
def two() -> Iterator[Two]:
    # A compiler at work in a call would use up its time budget.
    warm_up()
    made = Two()
    yield made
    made.world.tenants.close()


def goal(two: Two) -> None:
    two.world.create("ada", goal=resources_pb2.Goal(concept_id="multiply"))


def dismissal(two: Two) -> None:
    reply = pb.RecommendResponse.FromString(two.reply(two.forgetting, "shown"))
    event = pb.FeedbackEvent(
        event_id="e-1",
        learner_id="ada",
        recommendation_id=reply.recommendation.recommendation_id,
        question_id=reply.recommendation.items[0].question_id,
        kind=pb.FEEDBACK_KIND_DISMISSED,
    )
    told = two.forgetting.record_feedback(pb.RecordFeedbackRequest(events=[event]), a_call())
    assert told.results[0].status == pb.FEEDBACK_STATUS_RECORDED


def erasure(two: Two) -> None:
    two.world.create("ada")
    two.world.learners.delete_learner(learner_pb.DeleteLearnerRequest(learner_id="ada"), a_call())


def another_catalogue(two: Two) -> None:
    request = catalog_service_pb2.DeleteQuestionsRequest(question_ids=["add-3", "add-4", "multiply-1"])
    two.world.catalog.delete_questions(request, a_call())


@pytest.mark.parametrize("policy", sorted(BUILT_IN))
def test_a_kept_pool_changes_no_reply(two: Two, policy: str) -> None:
    for number in range(4):
        assert two.same(f"r-{number}", policy=policy, explanation_level=TECHNICAL)
    assert (two.pools.hits, two.pools.misses) == (3, 1)


def test_a_batch_takes_the_pools_that_are_there_and_leaves_those_that_were_not(two: Two) -> None:
    def reply(service: RecommendationService) -> bytes:
        request = pb.BatchRecommendRequest(
            learner_ids=["grace", "ada", "nobody"], request_id="b", explanation_level=TECHNICAL
        )
        return service.batch_recommend(request, a_call()).SerializeToString()

    two.reply(two.keeping, "r-1")
    assert reply(two.keeping) == reply(two.forgetting)
    assert (two.pools.hits, two.pools.misses) == (1, 3)
    assert two.same("r-2", learner_id="grace")
    assert two.same("r-3", learner_id="nobody")
    assert (two.pools.hits, two.pools.misses) == (3, 3)


@pytest.mark.parametrize(
    "change",
    [
        lambda two: two.world.answer("ada", "add", at=NOW - MINUTE),
        lambda two: two.world.answer("ada", "add", at=NOW - 2 * DAY, arrives=NOW),
        goal,
        dismissal,
        erasure,
        another_catalogue,
    ],
    ids=["an answer", "a late answer", "a goal", "feedback", "erasure", "the catalogue"],
)
def test_a_pool_is_not_found_when_what_it_was_made_from_has_changed(
    two: Two, change: Callable[[Two], None]
) -> None:
    two.reply(two.keeping, "before")
    change(two)
    assert two.same("after", limit=20, explanation_level=TECHNICAL)
    two.reply(two.keeping, "alike")
    hits, misses = two.pools.hits, two.pools.misses
    change_nothing = two.same("again")
    assert change_nothing
    assert (two.pools.hits, two.pools.misses) == (hits + 1, misses)
    assert misses == 3, "before, after with another limit, after"


@pytest.mark.parametrize(
    "other",
    [
        {"limit": 3},
        {"policy": "zone_v1"},
        {"objective_concept_id": "multiply"},
        {"exclude_question_ids": ["add-1"]},
        {"context": pb.RecommendationContext(device=resources_pb2.DEVICE_PHONE)},
        {"context": pb.RecommendationContext(local_hour=23)},
        {"now": NOW + LENGTHS[0]},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_is_asked_for_otherwise_has_a_pool_of_its_own(two: Two, other: dict[str, Any]) -> None:
    two.reply(two.keeping, "first")
    assert two.same("other", **other)
    assert (two.pools.hits, two.pools.misses) == (0, 2)
    assert two.same("again", **other)
    assert (two.pools.hits, two.pools.misses) == (1, 2)


def test_a_slate_for_another_time_takes_no_pool_and_leaves_none(two: Two) -> None:
    then = Timestamp(seconds=int(NOW) - 3_600)
    for name in ("first", "second"):
        assert two.same(name, context=pb.RecommendationContext(as_of_time=then))
    assert (two.pools.hits, two.pools.misses, two.pools.nbytes) == (0, 0, 0)


def a_pool(seed: int) -> Pool:
    served = worlds.served(worlds.chain("count"))
    query = RecommendQuery(seed=seed)
    return pools_of([query], [LearnerState.empty()], served, BUILT_IN["hybrid_v1"], moments=[worlds.NOON])[0]


MADE = (0, 0, 0, 0, 0)
OTHER = (0, 0, 1, 0, 0)


def cache_of(pools: float) -> tuple[PoolCache, Pool]:
    """A cache with room for so many pools, and a pool."""
    pool = a_pool(1)
    return PoolCache(pools * pool.nbytes / (1 << 20)), pool


def ask(cache: PoolCache, name: Hashable, pool: Pool) -> bool:
    """Whether a pool is found; where it is not, it is made and kept."""
    found = cache.find(name, MADE, NOW) is not None
    if not found:
        cache.keep(name, MADE, WHILE, pool)
    return found


def test_of_pools_asked_for_once_those_that_are_there_stay() -> None:
    cache, pool = cache_of(3.5)
    # Names that are numbers never share a count here; texts do in some processes.
    for name in (1, 2, 3):
        assert not ask(cache, name, pool)
    assert not ask(cache, 4, pool)
    assert [cache.find(name, MADE, NOW) is not None for name in (4, 1, 2, 3)] == [False, True, True, True]
    assert (cache.held, cache.nbytes) == (3, 3 * pool.nbytes)


def test_a_pool_that_is_asked_for_more_often_takes_the_place_of_the_one_asked_for_longest_ago() -> None:
    cache, pool = cache_of(3.5)
    for name in (1, 2, 3, 1):
        ask(cache, name, pool)
    assert not ask(cache, 4, pool)
    assert not ask(cache, 4, pool), "once was not more often than 2"
    assert ask(cache, 4, pool)
    assert [cache.find(name, MADE, NOW) is not None for name in (1, 2, 3)] == [True, False, True]
    assert cache.nbytes == 3 * pool.nbytes


def test_a_pool_takes_the_place_of_an_older_one_of_its_name() -> None:
    cache, pool = cache_of(3.5)
    for made in (MADE, OTHER, MADE):
        cache.keep("a", made, WHILE, pool)
        assert (cache.held, cache.nbytes) == (1, pool.nbytes)
    assert cache.find("a", OTHER, NOW) is None
    assert cache.find("a", MADE, NOW) is not None
    cache.keep("a", OTHER, WHILE, pool)
    assert (cache.held, cache.nbytes) == (1, pool.nbytes)
    assert cache.find("a", OTHER, NOW) is not None


def test_a_new_pool_is_held_for_a_while_whatever_else_is_asked_for() -> None:
    cache, pool = cache_of(50.0)
    for _ in range(5):
        for number in range(45):
            ask(cache, number, pool)
    for number in range(100, 150):
        assert not ask(cache, number, pool)
        assert all(ask(cache, earlier, pool) for earlier in range(max(100, number - 3), number))
    assert sum(cache.find(number, MADE, NOW) is not None for number in range(45)) >= 35


def test_what_was_asked_for_often_once_makes_room_in_time() -> None:
    cache, pool = cache_of(10.0)
    for _ in range(20):
        for number in range(10):
            ask(cache, number, pool)
    for number in range(40 * FEW * HALVED_AFTER // 10):
        ask(cache, 100 + number % 10, pool)
    assert sum(cache.find(100 + number, MADE, NOW) is not None for number in range(10)) >= 8


def test_more_is_found_than_if_the_one_asked_for_longest_ago_made_room() -> None:
    rng = np.random.default_rng(1)
    chances = 1.0 / np.arange(1, 2_001) ** 1.1
    names = rng.choice(2_000, 20_000, p=chances / chances.sum()).tolist()
    cache, pool = cache_of(100.0)
    known: OrderedDict[int, None] = OrderedDict()
    found = least = 0
    for name in names:
        found += ask(cache, name, pool)
        least += name in known
        known[name] = None
        known.move_to_end(name)
        if len(known) > 100:
            known.popitem(last=False)
    assert found > least + 0.04 * len(names)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), st.booleans()), max_size=200))
def test_a_cache_never_gives_another_pool_and_never_holds_too_much(
    steps: list[tuple[int, int, bool]],
) -> None:
    cache, pool = cache_of(5.5)
    last: dict[int, tuple[int, Pool]] = {}
    for name, version, keep in steps:
        made = (0, 0, version, 0, 0)
        if keep:
            last[name] = version, cache.keep(name, made, WHILE, pool)
        else:
            found = cache.find(name, made, NOW)
            assert found is None or (version, found) == last[name]
        assert cache.nbytes == cache.held * pool.nbytes
        assert cache.held <= 5


def test_many_threads_at_once_leave_nothing_uncounted() -> None:
    cache, pool = cache_of(20.5)

    def work(seed: int) -> int:
        ranks = np.random.default_rng(seed).zipf(1.3, 2_000).tolist()
        return sum(ask(cache, rank, pool) for rank in ranks)

    with ThreadPoolExecutor(4) as threads:
        found = sum(threads.map(work, range(4)))
    assert (cache.hits, cache.hits + cache.misses) == (found, 8_000)
    assert cache.nbytes == cache.held * pool.nbytes
    assert 15 <= cache.held <= 20


def test_names_whose_hashes_are_the_same_are_told_apart() -> None:
    cache, pool = cache_of(5.5)
    assert hash(-1) == hash(-2)
    cache.keep(-1, MADE, WHILE, pool)
    assert cache.find(-2, MADE, NOW) is None
    assert cache.find(-1, MADE, NOW) is not None


def test_a_cache_without_room_keeps_nothing_and_counts_nothing() -> None:
    cache, made, pool = PoolCache(0.0), (0, 0, 0, 0, 0), a_pool(1)
    assert cache.keep("a", made, WHILE, pool) is pool
    assert cache.find("a", made, NOW) is None
    assert (cache.hits, cache.misses, cache.nbytes) == (0, 0, 0)


def test_a_pool_is_found_within_its_moment_only() -> None:
    cache, made, pool = PoolCache(8.0), (0, 0, 0, 0, 0), a_pool(1)
    own = cache.keep("a", made, WHILE, pool)
    for at, found in ((WHILE.start, own), (NOW, own), (WHILE.end, None), (WHILE.start - 0.1, None)):
        assert cache.find("a", made, at) is found


def test_a_learner_who_has_been_away_for_long_keeps_a_pool_for_long(two: Two) -> None:
    for minutes in range(0, 90, 3):
        at = NOW + 3 * DAY + minutes * MINUTE
        assert two.same(f"r-{minutes}", learner_id="grace", now=at)
    assert two.pools.misses <= 90 / 15 + 2
    assert two.pools.hits == 30 - two.pools.misses

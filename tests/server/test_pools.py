"""Pools kept between calls change no reply, and are found only as long as all that they were made from is the same."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from engine.learner import LearnerState
from engine.policy import BUILT_IN, load_policies
from engine.pools import Pool
from engine.recommend import RecommendQuery, pools_of
from engine.warmup import warm_up
from genie.v1 import catalog_service_pb2, explanation_pb2, resources_pb2
from genie.v1 import learner_service_pb2 as learner_pb
from genie.v1 import recommendation_service_pb2 as pb
from server.moments import LENGTHS, Moment
from server.pools import PoolCache
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


def test_the_pool_that_was_asked_for_longest_ago_makes_room() -> None:
    pool, made = a_pool(1), (0, 0, 0, 0, 0)
    cache = PoolCache(3.5 * pool.nbytes / (1 << 20))
    for name in ("a", "b", "c"):
        cache.keep(name, made, WHILE, pool)
    assert cache.find("a", made, NOW) is not None
    cache.keep("d", made, WHILE, pool)
    assert [cache.find(name, made, NOW) is not None for name in "abcd"] == [True, False, True, True]
    assert cache.nbytes == 3 * pool.nbytes
    cache.keep("d", (0, 0, 1, 0, 0), WHILE, pool)
    assert cache.nbytes == 3 * pool.nbytes, "in place of the one of its name"
    assert cache.find("d", made, NOW) is None


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

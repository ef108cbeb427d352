"""RecommendationService through a real port: slates, alone and in batches, and lists of them."""

import dataclasses
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from engine.policy import BUILT_IN
from genie.v1 import catalog_service_pb2 as catalog_pb
from genie.v1 import explanation_pb2, resources_pb2
from genie.v1 import learner_service_pb2 as learner_pb
from genie.v1 import recommendation_service_pb2 as pb
from server import direct, errors
from server.convert import timestamp
from server.services import recommendation, slates
from server.services.slates import SlateMaker
from tests.server.core import LEARNER, Core, core, fields_of, info_of
from tests.server.serving import failure, reason
from tests.server.slate_calls import active, batch, change_maker, event, explain, feedback, ids, service_of
from tests.waiting import PATIENCE_SECONDS

TECHNICAL = explanation_pb2.EXPLANATION_LEVEL_TECHNICAL


@pytest.fixture
def empty(served: Core, request: pytest.FixtureRequest) -> Core:
    """A tenant of its own for every test, with nothing in it."""
    return served.tenant_of(request.node.name)


@pytest.fixture
def world(empty: Core) -> Core:
    """A tenant of its own for every test, with a catalogue."""
    empty.chain("count", "add", "multiply", "divide")
    return empty


def test_an_empty_server_has_nothing_to_recommend(empty: Core) -> None:
    slate = empty.recommend()
    assert (ids(slate), slate.model_version) == ([], "priors")
    assert slate.shortfall_reason == pb.SHORTFALL_REASON_EMPTY_CATALOG
    assert not slate.degraded


def test_a_stranger_gets_what_strangers_begin_with(world: Core) -> None:
    slate = world.recommend("nobody")
    assert len(slate.items) == 10
    assert (slate.learner_id, slate.policy, slate.reflected_answers_count) == ("nobody", "hybrid_v1", 0)
    assert [item.rank for item in slate.items] == list(range(1, 11))
    assert len(set(ids(slate))) == 10
    for item in slate.items:
        assert item.main_reason
        assert 0.0 < item.predicted_success < 1.0
        assert 0.0 < item.propensity <= 1.0
        assert item.sources
        assert item.concept_ids == [item.question_id.split("-")[0]]
        assert not item.review
    error = failure(
        lambda: world.learners.GetLearner(
            learner_pb.GetLearnerRequest(learner_id="nobody"), metadata=world.metadata
        )
    )
    assert reason(error) == "LEARNER_NOT_FOUND"


def test_an_answer_changes_the_next_slate(world: Core) -> None:
    before = world.recommend(request_id="a")
    right = before.items[0].question_id
    world.record(world.answer(right))
    after = world.recommend(request_id="b")
    assert (before.reflected_answers_count, after.reflected_answers_count) == (0, 1)
    assert right not in ids(after)


def test_the_same_request_gets_the_same_slate_even_after_an_answer(world: Core) -> None:
    first = world.recommend(request_id="r", limit=5)
    world.record(world.answer(first.items[0].question_id))
    feedback(world, event(first, 1, kind=pb.FEEDBACK_KIND_DISMISSED))
    assert world.recommend(request_id="r", limit=5) == first
    assert world.recommend(request_id="r2", limit=5) != first


@pytest.mark.parametrize(
    "other",
    [
        {"limit": 6},
        {"policy": "random_v1"},
        {"objective_concept_id": "add"},
        {"exclude_question_ids": ["add-1"]},
        {"context": pb.RecommendationContext(local_hour=3)},
        {"context": pb.RecommendationContext(as_of_time=Timestamp(seconds=1_700_000_000))},
        {"explanation_level": TECHNICAL},
    ],
    ids=lambda other: next(iter(other)),
)
def test_the_same_request_id_with_another_body_is_refused(world: Core, other: dict[str, Any]) -> None:
    world.recommend(request_id="r", limit=5)
    known: dict[str, Any] = {"request_id": "r", "limit": 5}
    error = failure(lambda: world.recommend(**(known | other)))
    assert (error.code(), reason(error)) == (grpc.StatusCode.ALREADY_EXISTS, "IDEMPOTENCY_KEY_REUSED")


def test_a_slate_for_another_moment_is_as_that_moment_sees_the_learner(world: Core) -> None:
    world.record(*(world.answer(f"count-{n}") for n in range(5)))
    answered_at = time.time()

    def seen(days: float) -> pb.Recommendation:
        context = pb.RecommendationContext(as_of_time=timestamp(answered_at + 86_400.0 * days))
        return world.recommend(context=context, limit=100)

    def success(slate: pb.Recommendation, question_id: str) -> float:
        return next(item.predicted_success for item in slate.items if item.question_id == question_id)

    now, tomorrow, long_ago = seen(0.0), seen(0.9), seen(-5000.0)
    assert "count-1" not in ids(now), "answered right just before: resting"
    assert "count-1" in ids(tomorrow)
    assert success(tomorrow, "count-7") < success(now, "count-7"), "a day of forgetting"
    assert len(long_ago.items) > 0
    assert long_ago.reflected_answers_count == 5, "answers that came later count all the same"
    assert abs(tomorrow.create_time.seconds - now.create_time.seconds) < 60, "made now, whatever it is for"


@pytest.mark.parametrize("seconds", [-1, 253_402_300_800])
def test_a_slate_for_a_moment_that_cannot_be_is_refused(world: Core, seconds: int) -> None:
    context = pb.RecommendationContext(as_of_time=Timestamp(seconds=seconds))
    assert reason(failure(lambda: world.recommend(context=context))) == "INVALID_FIELD"


def test_a_slate_for_a_moment_more_than_a_day_ahead_is_refused(world: Core) -> None:
    context = pb.RecommendationContext(as_of_time=timestamp(time.time() + 90_000.0))
    assert reason(failure(lambda: world.recommend(context=context))) == "INVALID_FIELD"


def test_request_ids_belong_to_a_learner_and_a_method(world: Core) -> None:
    world.recommend(request_id="r", limit=5)
    assert world.recommend("grace", request_id="r", limit=6).learner_id == "grace"
    assert batch(world, LEARNER, request_id="r")[0].HasField("recommendation")


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1, 2**53 + 1, 2**62, 2**63 - 1])
@pytest.mark.parametrize("policy", sorted(BUILT_IN))
def test_any_seed_will_do(world: Core, monkeypatch: pytest.MonkeyPatch, seed: int, policy: str) -> None:
    monkeypatch.setattr(slates, "seed_of", lambda *_: seed)
    world.record(world.answer("count-1"))
    slate = world.recommend(request_id="r", policy=policy, limit=3, explanation_level=TECHNICAL)
    assert len(slate.items) == 3
    assert {item.explanation.technical_details.random_seed for item in slate.items} == {seed}


def test_request_ids_explore_differently(world: Core) -> None:
    slates_seen = {tuple(ids(world.recommend(request_id=f"r-{n}", policy="random_v1"))) for n in range(20)}
    assert len(slates_seen) == 20


def test_the_seven_policies(world: Core) -> None:
    names = {
        *("hybrid_v1", "content_based_v1", "collaborative_filtering_v2", "spaced_repetition_v1"),
        *("zone_v1", "popularity_v1", "random_v1"),
    }
    assert names == set(BUILT_IN)
    world.record(*(world.answer(f"count-{n}") for n in range(5)))
    for name in names:
        slate = world.recommend(policy=name)
        assert (slate.policy, len(slate.items), slate.degraded) == (name, 10, False)
        assert [result.recommendation.policy for result in batch(world, LEARNER, policy=name)] == [name]


def test_an_unknown_policy(world: Core) -> None:
    for call in (lambda: world.recommend(policy="hybrid_v9"), lambda: batch(world, "a", policy="hybrid_v9")):
        error = failure(call)
        assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_POLICY")


def test_excluded_questions_stay_out(world: Core) -> None:
    out = [*ids(world.recommend()), "no-such-question"]
    assert not set(out) & set(ids(world.recommend(exclude_question_ids=out)))
    everything = [f"{name}-{n}" for name in ("count", "add", "multiply", "divide") for n in range(10)]
    slate = world.recommend(exclude_question_ids=everything)
    assert (ids(slate), slate.shortfall_reason) == ([], pb.SHORTFALL_REASON_EXCLUDED)


def test_an_objective_is_worked_towards(empty: Core) -> None:
    empty.chain("count", "add", "multiply")
    alone = resources_pb2.Concept(concept_id="history")
    empty.catalog.UpsertConcepts(catalog_pb.UpsertConceptsRequest(concepts=[alone]), metadata=empty.metadata)
    slate = empty.recommend(objective_concept_id="multiply")
    sources = {source for item in slate.items for source in item.sources}
    assert explanation_pb2.CANDIDATE_SOURCE_OBJECTIVE in sources
    error = failure(lambda: empty.recommend(objective_concept_id="no-such"))
    assert (error.code(), reason(error)) == (grpc.StatusCode.NOT_FOUND, "CONCEPT_NOT_FOUND")
    goal = resources_pb2.Goal(concept_id="multiply")
    empty.create(LEARNER, goal=goal)
    sources = {source for item in empty.recommend().items for source in item.sources}
    assert explanation_pb2.CANDIDATE_SOURCE_OBJECTIVE in sources


def test_short_slates_say_why(empty: Core) -> None:
    empty.chain("count", "add", questions=3)
    slate = empty.recommend(limit=100)
    assert (len(slate.items), slate.shortfall_reason) == (6, pb.SHORTFALL_REASON_FEW_ELIGIBLE)
    assert empty.recommend(limit=6).shortfall_reason == pb.SHORTFALL_REASON_UNSPECIFIED


def test_what_is_not_open_is_not_recommended(empty: Core) -> None:
    empty.chain("count", "add", "multiply", hard=True)
    assert {item.question_id.split("-")[0] for item in empty.recommend(limit=30).items} == {"count"}
    all_of_count = [f"count-{n}" for n in range(10)]
    empty.catalog.DeleteQuestions(
        catalog_pb.DeleteQuestionsRequest(question_ids=all_of_count), metadata=empty.metadata
    )
    slate = empty.recommend()
    assert ids(slate) == []
    assert slate.shortfall_reason in (
        pb.SHORTFALL_REASON_PREREQUISITES_MISSING,
        pb.SHORTFALL_REASON_EXCLUDED,
    )


@pytest.mark.parametrize("limit", [1, 100])
def test_the_least_and_the_most(empty: Core, limit: int) -> None:
    empty.chain(*(f"c{n}" for n in range(12)), questions=15)
    slate = empty.recommend(limit=limit)
    assert len(slate.items) == limit == len(set(ids(slate)))
    assert len(active(empty).recommendations[0].items) == limit


def test_past_its_time_budget_it_answers_with_what_it_has(
    world: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_maker(monkeypatch, world, budget_seconds=0.0)
    slate = world.recommend(request_id="r")
    assert (slate.degraded, slate.degraded_reason) == (True, pb.DEGRADED_REASON_TIME_BUDGET)
    assert len(slate.items) == 10
    assert explain(world, slate).explanation.main_reasons
    again = world.recommend(request_id="r")
    assert again == slate, "what was degraded stays so when it is repeated"


def test_a_batch_gives_every_learner_the_whole_time_budget(
    world: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = service_of(world)._maker
    now = [time.monotonic()]
    for module in (recommendation, slates):
        monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Slow:
        def make(self, learner_ids: Any, *args: Any, **more: Any) -> Any:
            now[0] += 0.02 * len(learner_ids)
            return dataclasses.replace(maker, budget_seconds=0.03).make(learner_ids, *args, **more)

    monkeypatch.setattr(service_of(world), "_maker", Slow())
    monkeypatch.setattr(recommendation, "AT_ONCE", 2)
    results = batch(world, *(f"l-{n}" for n in range(12)))
    degraded = [result.learner_id for result in results if result.recommendation.degraded]
    assert degraded == [], "the budget of the first learners was used up by the others"


def test_a_batch_stops_at_the_callers_deadline_and_before_its_reply_is_too_large(
    world: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommendation, "AT_ONCE", 2)
    monkeypatch.setattr(recommendation, "MOST_REPLY_BYTES", 500)
    results = batch(world, *(f"l-{n}" for n in range(5)))
    assert [result.WhichOneof("outcome") for result in results] == ["recommendation"] * 2 + ["error"] * 3
    told = info_of(results[-1].error)
    assert (told.reason, dict(told.metadata)["limit"]) == ("BATCH_TOO_LARGE", "2")
    assert not active(world, learner_id="l-4").recommendations, "made, but not given"
    late = pb.BatchRecommendRequest(learner_ids=["l-8", "l-9"])
    call = Mock(tenant=world.tenant, now=time.time(), started=time.monotonic(), method="m")
    call.check.side_effect = errors.DeadlineExceeded()
    reply = service_of(world).batch_recommend(late, call).SerializeToString()
    given = pb.BatchRecommendResponse.FromString(reply).results
    assert [info_of(result.error).reason for result in given] == ["DEADLINE_EXCEEDED"] * 2


@pytest.mark.parametrize("level", [explanation_pb2.EXPLANATION_LEVEL_SIMPLE, TECHNICAL])
def test_a_batchs_reply_is_never_larger_than_clients_take(empty: Core, level: int) -> None:
    concepts = [
        resources_pb2.Concept(concept_id=f"{n:03}".ljust(128, "c"), title="t" * 200) for n in range(16)
    ]
    all_of_them = [one.concept_id for one in concepts]
    questions = [
        resources_pb2.Question(question_id=f"{n:03}".ljust(128, "q"), concept_ids=all_of_them)
        for n in range(110)
    ]
    upsert = catalog_pb.UpsertConceptsRequest(concepts=concepts)
    empty.catalog.UpsertConcepts(upsert, metadata=empty.metadata)
    empty.catalog.UpsertQuestions(
        catalog_pb.UpsertQuestionsRequest(questions=questions), metadata=empty.metadata
    )
    learners = [f"l-{n}" for n in range(64)]
    results = batch(empty, *learners, limit=100, explanation_level=level)
    made = sum(result.WhichOneof("outcome") == "recommendation" for result in results)
    assert 0 < made < 64
    assert {info_of(result.error).reason for result in results[made:]} == {"BATCH_TOO_LARGE"}
    assert len(results[0].recommendation.items) == 100
    assert not active(empty, learner_id=learners[made]).recommendations, "made, but not given"


def test_calls_with_the_same_request_at_once_get_one_slate(monkeypatch: pytest.MonkeyPatch) -> None:
    # As two workers would serve them; one worker serves them one after the other unless gRPC gives each a thread.
    monkeypatch.setattr(direct, "cygrpc", object())
    together = threading.Barrier(2, timeout=PATIENCE_SECONDS)
    look = SlateMaker._look

    def meet(self: Any, *args: Any) -> Any:
        together.wait()
        return look(self, *args)

    monkeypatch.setattr(SlateMaker, "_look", meet)
    with core(log_level="error") as world, ThreadPoolExecutor(2) as pool:
        world.chain("count")
        first, second = pool.map(lambda _: world.recommend(request_id="r", policy="random_v1"), range(2))
        assert first == second
        assert len(active(world).recommendations) == 1


def test_a_slate_that_cannot_be_kept_is_still_given() -> None:
    with core(log_level="error") as running:
        running.chain("count")
        running.recommend()
        running.stores.serving.close()
        slate = running.recommend()
        assert (slate.degraded, slate.degraded_reason) == (True, pb.DEGRADED_REASON_NOT_STORED)
        assert len(slate.items) == 10


def test_a_batch(world: Core) -> None:
    world.record(world.answer("count-1"))
    results = batch(world, LEARNER, "grace", "", "grace", "\0", request_id="r", limit=3)
    assert [result.learner_id for result in results] == [LEARNER, "grace", "", "grace", "\0"]
    assert [result.WhichOneof("outcome") for result in results] == [
        *("recommendation", "recommendation", "error", "error", "error")
    ]
    assert [len(result.recommendation.items) for result in results[:2]] == [3, 3]
    assert [result.recommendation.reflected_answers_count for result in results[:2]] == [1, 0]
    assert [fields_of(result.error) for result in results[2:]] == [[f"learner_ids[{n}]"] for n in (2, 3, 4)]
    assert not results[0].recommendation.items[0].main_reason
    again = batch(world, LEARNER, "grace", "", "grace", "\0", request_id="r", limit=3)
    assert again == results
    other = batch(world, LEARNER, "linus", request_id="r", limit=3)
    assert info_of(other[0].error).reason == "IDEMPOTENCY_KEY_REUSED"
    assert other[1].HasField("recommendation")


def test_active_slates_come_newest_first_in_pages(world: Core) -> None:
    made = [world.recommend(limit=2).recommendation_id for _ in range(5)]
    first = active(world, page_size=2)
    second = active(world, page_size=2, page_token=first.next_page_token)
    third = active(world, page_size=2, page_token=second.next_page_token)
    pages = [[slate.recommendation_id for slate in page.recommendations] for page in (first, second, third)]
    assert pages == [[made[4], made[3]], [made[2], made[1]], [made[0]]]
    assert (third.next_page_token, active(world).next_page_token) == ("", "")
    assert len(active(world, page_size=1_000_000).recommendations) == 5
    assert reason(failure(lambda: active(world, page_size=-1))) == "INVALID_FIELD"
    stolen = active(world, page_size=1).next_page_token
    refused = failure(lambda: active(world, learner_id="grace", page_token=stolen))
    assert reason(refused) == "INVALID_PAGE_TOKEN"
    assert not active(world, learner_id="nobody").recommendations


def test_only_what_is_still_open_is_active(world: Core) -> None:
    slate = world.recommend(limit=4)
    kinds = [pb.FEEDBACK_KIND_COMPLETED, pb.FEEDBACK_KIND_DISMISSED, pb.FEEDBACK_KIND_STARTED]
    events = [event(slate, place, kind=kind, event_id=f"e-{place}") for place, kind in enumerate(kinds)]
    assert feedback(world, *events, event(slate, 2, event_id="e-3")).recorded_count == 4
    left = active(world).recommendations[0]
    assert ids(left) == ids(slate)[2:]
    assert [item.last_feedback_kind for item in left.items] == [pb.FEEDBACK_KIND_STARTED, 0]
    world.record(world.answer(slate.items[2].question_id, correct=False))
    assert ids(active(world).recommendations[0]) == ids(slate)[3:]
    world.record(world.answer(slate.items[3].question_id))
    assert not active(world).recommendations


def test_expired_slates_are_not_active(world: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    change_maker(monkeypatch, world, keep_seconds=0.0)
    slate = world.recommend(request_id="r")
    assert not active(world).recommendations
    assert explain(world, slate).explanation.main_reasons
    world.record(world.answer(slate.items[0].question_id))
    assert world.recommend(request_id="r") == slate
    assert world.recommend(request_id="r2").reflected_answers_count == 1

"""Calls of Recommend that wait together are answered together, each as if it had come alone."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest

from genie.v1 import explanation_pb2
from genie.v1 import recommendation_service_pb2 as pb
from server.rpc import Call
from server.services.slate_bytes import Encoded
from tests.server.core import LEARNER, Core, core
from tests.server.service_calls import a_call
from tests.server.slate_calls import explain, ids, service_of
from tests.waiting import PATIENCE_SECONDS, eventually

NONE = explanation_pb2.EXPLANATION_LEVEL_NONE
FULL = explanation_pb2.EXPLANATION_LEVEL_DETAILED


@pytest.fixture(scope="module")
def world() -> Iterator[Core]:
    with core(log_level="error") as running:
        running.chain("count", "add", "multiply", "divide")
        running.record(running.answer("count-1"))
        yield running


def request(learner_id: str = LEARNER, **more: Any) -> pb.RecommendRequest:
    return pb.RecommendRequest(learner_id=learner_id, **more)


def call_of(world: Core, correlation_id: str) -> Call:
    call = a_call(now=time.time(), tenant=dict(world.metadata)["x-tenant-id"])
    call.correlation_id = correlation_id
    return call


def together(world: Core, *requests: pb.RecommendRequest) -> list[pb.Recommendation | Exception]:
    calls = [call_of(world, f"call-{number}") for number in range(len(requests))]
    told = service_of(world).recommend_many(requests, calls)
    return [
        pb.RecommendResponse.FromString(one.SerializeToString()).recommendation
        if isinstance(one, Encoded)
        else one
        for one in told
    ]


def slates(told: Sequence[pb.Recommendation | Exception]) -> list[pb.Recommendation]:
    assert all(isinstance(one, pb.Recommendation) for one in told), told
    return [one for one in told if isinstance(one, pb.Recommendation)]


def test_each_gets_a_slate_of_its_own(world: Core) -> None:
    told = slates(together(world, request(), request("grace"), request("linus", limit=3), request("mary")))
    assert [slate.learner_id for slate in told] == [LEARNER, "grace", "linus", "mary"]
    assert [slate.correlation_id for slate in told] == [f"call-{number}" for number in range(4)]
    assert [len(slate.items) for slate in told] == [10, 10, 3, 10]
    assert [slate.reflected_answers_count for slate in told] == [1, 0, 0, 0]
    assert len({slate.recommendation_id for slate in told}) == 4
    for slate in told:
        kept = explain(world, slate)
        assert (kept.learner_id, kept.explanation.question_id) == (slate.learner_id, ids(slate)[0])


def test_they_are_made_in_one_pass(world: Core, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[str]] = []
    make = type(service_of(world)._maker).make

    def noted(maker: Any, learner_ids: Sequence[str], *args: Any, **more: Any) -> Any:
        made.append(list(learner_ids))
        return make(maker, learner_ids, *args, **more)

    monkeypatch.setattr(type(service_of(world)._maker), "make", noted)
    asked = [
        request("a"), request("b"), request("a"), request("c", limit=4), request("d", request_id="r"),
        request("e", exclude_question_ids=["count-1"]), request("f", limit=4), request("g"),
    ]  # fmt: skip
    told = slates(together(world, *asked))
    assert [slate.learner_id for slate in told] == ["a", "b", "a", "c", "d", "e", "f", "g"]
    # What names a request or a context of its own stays alone.
    assert made == [["a", "b", "a", "g"], ["c", "f"], ["d"], ["e"]]
    assert told[0].recommendation_id != told[2].recommendation_id, "the same learner twice has two slates"
    assert [slate.correlation_id for slate in told] == [f"call-{number}" for number in range(8)]


def test_a_caller_in_a_hurry_hurries_nobody_else(world: Core) -> None:
    calls = [call_of(world, "c") for _ in range(3)]
    calls[1].deadline = time.monotonic()
    told = service_of(world).recommend_many([request("a"), request("b"), request("c")], calls)
    degraded = [
        pb.RecommendResponse.FromString(one.SerializeToString()).recommendation.degraded
        for one in told
        if isinstance(one, Encoded)
    ]
    assert degraded == [False, True, False]


def test_who_is_at_fault_fails_alone(world: Core) -> None:
    told = together(
        world, request(), request("\0"), request("grace"), request(policy="no_such"), request("mary")
    )
    assert [getattr(one, "reason", "") for one in told] == [
        *("", "INVALID_FIELD", "", "UNKNOWN_POLICY", ""),
    ]
    assert [one.learner_id for one in told if isinstance(one, pb.Recommendation)] == [
        LEARNER,
        "grace",
        "mary",
    ]


@pytest.mark.parametrize("level", [NONE, 0, FULL])
def test_each_level_of_explanation(world: Core, level: "explanation_pb2.ExplanationLevel.ValueType") -> None:
    told = slates(together(world, *(request(name, explanation_level=level) for name in ("x", "y", "z"))))
    assert [slate.learner_id for slate in told] == ["x", "y", "z"]
    for slate in told:
        assert bool(slate.items[0].main_reason) == (level != NONE)
        assert slate.items[0].HasField("explanation") == (level == FULL)


def test_over_the_wire_each_caller_gets_what_it_asked_for(
    world: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    go = threading.Event()
    service, direct = service_of(world), world.genie._direct
    assert direct is not None
    how: Any = next(method.how for method in direct._methods if method.path.endswith("/Recommend"))

    def one(asked: Any, call: Call) -> Any:
        go.wait(PATIENCE_SECONDS)
        return service.recommend(asked, call)

    def many(requests: Sequence[Any], calls: Sequence[Call]) -> Any:
        go.wait(PATIENCE_SECONDS)
        sizes.append(len(requests))
        return service.recommend_many(requests, calls)

    monkeypatch.setattr(how.respond._served, "behaviour", one)
    monkeypatch.setattr(how.together, "_behaviour", many)
    learners = ["first", *(f"learner-{number}" if number % 5 else "\0" for number in range(30))]
    calls = [
        world.recommendations.Recommend.future(
            request(name), metadata=(*world.metadata, ("x-correlation-id", f"c-{number}"))
        )
        for number, name in enumerate(learners)
    ]
    eventually(lambda: direct.open >= 1)
    time.sleep(0.2)
    go.set()
    for number, (name, call) in enumerate(zip(learners, calls, strict=True)):
        assert ("x-correlation-id", f"c-{number}") in call.trailing_metadata()
        if name == "\0":
            assert call.code() is grpc.StatusCode.INVALID_ARGUMENT
        else:
            slate = call.result().recommendation
            assert (slate.learner_id, slate.correlation_id) == (name, f"c-{number}")
    assert max(sizes) > 1, "they were answered together"
    eventually(lambda: direct.open == 0)

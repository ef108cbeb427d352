"""Slates that are asked for again by their request id, after what they were made from has changed."""

from typing import Any

import pytest

from genie.v1 import explanation_pb2
from tests.server.core import LEARNER, Core
from tests.server.serving import failure, reason
from tests.server.slate_calls import batch, change_maker, event, explain, feedback

SIMPLE = explanation_pb2.EXPLANATION_LEVEL_SIMPLE
TECHNICAL = explanation_pb2.EXPLANATION_LEVEL_TECHNICAL


def test_a_slate_that_has_expired_is_still_the_slate_of_its_request(
    world: Core, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_maker(monkeypatch, world, keep_seconds=0.0)
    first = world.recommend(request_id="r", limit=6)
    many = batch(world, LEARNER, "grace", request_id="b")
    world.record(*(world.answer(item.question_id) for item in first.items[:3]))
    assert world.recommend(request_id="r", limit=6) == first
    assert batch(world, LEARNER, "grace", request_id="b") == many
    for item in first.items:
        assert explain(world, first, item.question_id).explanation.question_id == item.question_id
    assert feedback(world, event(first, 5)).recorded_count == 1


@pytest.mark.parametrize("level", [SIMPLE, TECHNICAL])
def test_a_slate_outlives_its_objective(world: Core, level: explanation_pb2.ExplanationLevel) -> None:
    world.chain("gone")
    asked: dict[str, Any] = {"objective_concept_id": "gone", "limit": 20, "explanation_level": level}
    first = world.recommend(request_id="r", **asked)
    many = batch(world, LEARNER, "grace", request_id="b", **asked)
    assert any(item.question_id.startswith("gone-") for item in first.items)
    world.forget("gone", questions=10)
    again = world.recommend(request_id="r", **asked)
    assert [(item.question_id, item.score, item.propensity) for item in again.items] == [
        (item.question_id, item.score, item.propensity) for item in first.items
    ]
    assert (again.recommendation_id, again.create_time) == (first.recommendation_id, first.create_time)
    assert [result.recommendation.recommendation_id for result in many] == [
        result.recommendation.recommendation_id
        for result in batch(world, LEARNER, "grace", request_id="b", **asked)
    ]
    for work in (
        lambda: world.recommend(**asked),
        lambda: world.recommend(request_id="other", **asked),
        lambda: batch(world, LEARNER, request_id="other", **asked),
    ):
        assert reason(failure(work)) == "CONCEPT_NOT_FOUND"
    # Of a batch with somebody new there is nothing to repeat.
    more = {**asked, "request_id": "b"}
    assert reason(failure(lambda: batch(world, LEARNER, "grace", "linus", **more))) == "CONCEPT_NOT_FOUND"

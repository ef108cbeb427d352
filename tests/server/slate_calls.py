"""Calls of RecommendationService as the tests make them."""

import dataclasses
from typing import Any

import pytest

from genie.v1 import explanation_pb2
from genie.v1 import recommendation_service_pb2 as pb
from server.services.recommendation import RecommendationService
from tests.server.core import LEARNER, Core


def ids(slate: pb.Recommendation) -> list[str]:
    return [item.question_id for item in slate.items]


def active(world: Core, **more: Any) -> pb.ListActiveRecommendationsResponse:
    request = pb.ListActiveRecommendationsRequest(**({"learner_id": LEARNER} | more))
    return world.recommendations.ListActiveRecommendations(request, metadata=world.metadata)


def batch(world: Core, *learner_ids: str, **more: Any) -> list[pb.BatchRecommendResult]:
    request = pb.BatchRecommendRequest(learner_ids=learner_ids, **more)
    return list(world.recommendations.BatchRecommend(request, metadata=world.metadata).results)


def event(slate: pb.Recommendation, place: int, **more: Any) -> pb.FeedbackEvent:
    known: dict[str, Any] = {
        "event_id": "e-1",
        "learner_id": LEARNER,
        "recommendation_id": slate.recommendation_id,
        "question_id": slate.items[place].question_id,
        "kind": pb.FEEDBACK_KIND_CLICKED,
    }
    return pb.FeedbackEvent(**(known | more))


def feedback(world: Core, *events: pb.FeedbackEvent) -> pb.RecordFeedbackResponse:
    request = pb.RecordFeedbackRequest(events=events)
    return world.recommendations.RecordFeedback(request, metadata=world.metadata)


def explain(world: Core, slate: pb.Recommendation, question_id: str = "", level: int = 0) -> Any:
    request = pb.ExplainRecommendationRequest(
        recommendation_id=slate.recommendation_id,
        question_id=question_id,
        level=explanation_pb2.ExplanationLevel.ValueType(level),
    )
    return world.recommendations.ExplainRecommendation(request, metadata=world.metadata)


def service_of(world: Core) -> RecommendationService:
    found = [service for _, service in world.genie._assembly.services]
    return next(service for service in found if isinstance(service, RecommendationService))


def change_maker(monkeypatch: pytest.MonkeyPatch, world: Core, **changes: Any) -> None:
    """Let the server make its slates otherwise."""
    service = service_of(world)
    monkeypatch.setattr(service, "_maker", dataclasses.replace(service._maker, **changes))

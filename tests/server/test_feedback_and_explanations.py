"""What becomes of slates, and why they are what they are, through a real port."""

from collections.abc import Callable
from typing import Any

import pytest

from engine.policy import BUILT_IN
from genie.v1 import explanation_pb2
from genie.v1 import recommendation_service_pb2 as pb
from tests.server.core import LEARNER, Core, fields_of, info_of, lasting
from tests.server.serving import failure, reason
from tests.server.slate_calls import active, event, explain, feedback, ids

SIMPLE = explanation_pb2.EXPLANATION_LEVEL_SIMPLE
DETAILED = explanation_pb2.EXPLANATION_LEVEL_DETAILED
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


def test_a_dismissed_question_rests(world: Core) -> None:
    slate = world.recommend(limit=1)
    gone = slate.items[0].question_id
    feedback(world, event(slate, 0, kind=pb.FEEDBACK_KIND_DISMISSED))
    for number in range(10):
        assert gone not in ids(world.recommend(request_id=f"r-{number}", limit=20))
    assert any(gone in ids(world.recommend("grace", request_id=f"r-{n}", limit=40)) for n in range(3))


def test_feedback_counts_once(world: Core) -> None:
    slate = world.recommend()
    first = feedback(world, event(slate, 0), event(slate, 0), event(slate, 1, event_id="e-2"))
    assert [result.status for result in first.results] == [
        pb.FEEDBACK_STATUS_RECORDED,
        pb.FEEDBACK_STATUS_DUPLICATE,
        pb.FEEDBACK_STATUS_RECORDED,
    ]
    assert (first.recorded_count, first.duplicate_count, first.rejected_count) == (2, 1, 0)
    again = feedback(world, event(slate, 0))
    assert again.duplicate_count == 1
    assert again.results[0].event_time == first.results[0].event_time, "the first time counts"
    for other in (
        event(slate, 1),
        event(slate, 0, kind=pb.FEEDBACK_KIND_STARTED),
        event(slate, 0, dwell_duration=lasting(3)),
    ):
        refused = feedback(world, other)
        assert refused.rejected_count == 1
        assert info_of(refused.results[0].error).reason == "IDEMPOTENCY_KEY_REUSED"


def test_a_repeat_of_feedback_is_known_when_its_slate_is_gone(world: Core) -> None:
    slate = world.recommend()
    feedback(world, event(slate, 0))
    for _ in range(50):
        world.recommend(limit=1)
    assert reason(failure(lambda: explain(world, slate))) == "RECOMMENDATION_NOT_FOUND"
    again = feedback(world, event(slate, 0), event(slate, 1), event(slate, 1, event_id="e-2"))
    assert (again.recorded_count, again.duplicate_count, again.rejected_count) == (0, 1, 2)
    assert again.results[0].status == pb.FEEDBACK_STATUS_DUPLICATE
    assert [info_of(result.error).reason for result in again.results[1:]] == [
        *("IDEMPOTENCY_KEY_REUSED", "RECOMMENDATION_NOT_FOUND")
    ]
    # What was refused left nothing behind.
    assert feedback(world, event(slate, 1, event_id="e-2")).rejected_count == 1


def test_feedback_that_belongs_nowhere(world: Core) -> None:
    slate, others = world.recommend(limit=2), world.recommend("grace", limit=2)
    outside = next(f"add-{n}" for n in range(10) if f"add-{n}" not in ids(slate))
    results = feedback(
        world,
        event(slate, 0),
        event(slate, 0, event_id="e-2", recommendation_id="x" * 32),
        event(others, 0, event_id="e-3"),
        event(slate, 0, event_id="e-4", question_id=outside),
        event(slate, 0, event_id="e-5", kind=0),
    ).results
    assert results[0].status == pb.FEEDBACK_STATUS_RECORDED
    assert [info_of(result.error).reason for result in results[1:]] == [
        *("RECOMMENDATION_NOT_FOUND", "RECOMMENDATION_NOT_FOUND", "QUESTION_NOT_RECOMMENDED", "INVALID_FIELD")
    ]
    assert fields_of(results[4].error) == ["events[4].kind"]


def check_simple(explanation: Any) -> None:
    assert explanation.main_reasons
    assert sum(explanation.feature_importance.values()) == pytest.approx(1.0, abs=1e-6)
    assert min(explanation.feature_importance.values()) >= 0.0
    confidence = explanation.confidence_factors
    for value in (
        confidence.algorithm_confidence,
        confidence.data_quality,
        confidence.personalization_strength,
    ):
        assert 0.0 <= value <= 1.0


@pytest.mark.parametrize("policy", sorted(BUILT_IN))
def test_explanations_are_what_was_computed(world: Core, policy: str) -> None:
    world.record(*(world.answer(f"count-{n}", correct=n % 2 == 0) for n in range(6)))
    slate = world.recommend(policy=policy, limit=5)
    for item in slate.items:
        simple = explain(world, slate, item.question_id).explanation
        check_simple(simple)
        assert (simple.level, simple.question_id) == (SIMPLE, item.question_id)
        assert simple.main_reasons[0] == item.main_reason
        assert not simple.terms
        detailed = explain(world, slate, item.question_id, DETAILED).explanation
        check_simple(detailed)
        assert detailed.counterfactual
        contributions = [term.contribution for term in detailed.terms]
        assert contributions == sorted(contributions, reverse=True)
        assert sum(contributions) == pytest.approx(item.score, abs=1e-5)
        for term in detailed.terms:
            assert term.contribution == pytest.approx(term.value * term.weight, abs=1e-5)
        assert not detailed.HasField("technical_details")
        technical = explain(world, slate, item.question_id, TECHNICAL).explanation
        details = technical.technical_details
        assert (details.policy, details.model_version) == (policy, "priors")
        assert details.propensity == item.propensity
        assert details.score - details.slate_penalty == pytest.approx(item.score, abs=1e-5)
        assert details.candidates_count <= sum(count.candidates_count for count in details.source_counts)
        assert technical.terms == detailed.terms


def test_an_explanation_stays_when_the_learner_moves_on(world: Core) -> None:
    slate = world.recommend()
    before = explain(world, slate, level=TECHNICAL)
    assert (before.learner_id, before.recommendation_id) == (LEARNER, slate.recommendation_id)
    assert before.explanation.question_id == slate.items[0].question_id
    world.record(*(world.answer(f"count-{n}") for n in range(8)))
    assert explain(world, slate, level=TECHNICAL) == before


def test_a_slate_tells_which_call_made_it(world: Core) -> None:
    def ask(correlation_id: str) -> pb.Recommendation:
        request = pb.RecommendRequest(learner_id=LEARNER, request_id="r-1")
        metadata = (*world.metadata, ("x-correlation-id", correlation_id))
        return world.recommendations.Recommend(request, metadata=metadata).recommendation

    slate = ask("call-1")
    assert slate.correlation_id == "call-1"
    assert ask("call-2") == slate, "a repeat gets the slate of the first call, and is told so"
    assert [held.correlation_id for held in active(world).recommendations] == ["call-1"]
    technical = explain(world, slate, level=TECHNICAL).explanation.technical_details
    assert technical.correlation_id == "call-1"


def test_explanations_in_the_reply_are_those_of_later(world: Core) -> None:
    slate = world.recommend(limit=3, explanation_level=TECHNICAL)
    for item in slate.items:
        assert item.explanation == explain(world, slate, item.question_id, TECHNICAL).explanation
    bare = world.recommend(limit=3, explanation_level=explanation_pb2.EXPLANATION_LEVEL_NONE)
    assert {item.main_reason for item in bare.items} == {""}


def test_what_cannot_be_explained(world: Core) -> None:
    slate = world.recommend(limit=1)
    assert reason(failure(lambda: explain(world, slate, "divide-no"))) == "QUESTION_NOT_RECOMMENDED"
    assert reason(failure(lambda: explain(world, pb.Recommendation(recommendation_id="x" * 32)))) == (
        "RECOMMENDATION_NOT_FOUND"
    )
    assert reason(failure(lambda: explain(world, slate, level=1))) == "INVALID_FIELD"


def test_an_empty_slate_has_nothing_to_explain(empty: Core) -> None:
    assert reason(failure(lambda: explain(empty, empty.recommend()))) == "QUESTION_NOT_RECOMMENDED"


def test_another_tenant_sees_nothing(world: Core) -> None:
    slate = world.recommend()
    world.record(world.answer("count-1"))
    stranger = world.tenant_of("a stranger")
    assert ids(stranger.recommend()) == []
    calls: list[Callable[[], object]] = [
        lambda: explain(stranger, slate),
        lambda: stranger.stats(),
    ]
    assert [reason(failure(call)) for call in calls] == ["RECOMMENDATION_NOT_FOUND", "LEARNER_NOT_FOUND"]
    refused = feedback(stranger, event(slate, 0)).results[0].error
    assert info_of(refused).reason == "RECOMMENDATION_NOT_FOUND"
    assert info_of(stranger.record(stranger.answer("count-1")).results[0].error).reason == (
        "QUESTION_NOT_FOUND"
    )
    assert not [s for s in active(stranger).recommendations if s.items]

"""What ListActiveRecommendations still shows of a slate, and what rests, on stores in memory."""

from genie.v1 import catalog_service_pb2, practice_service_pb2
from genie.v1 import recommendation_service_pb2 as pb
from tests.server.learner_world import World
from tests.server.service_calls import NOW, a_call
from tests.server.slate_calls import ids


def slate_of(world: World, now: float, limit: int) -> pb.Recommendation:
    request = pb.RecommendRequest(learner_id="ada", limit=limit, policy="random_v1")
    reply = world.recommendations.recommend(request, a_call(now=now))
    return pb.RecommendResponse.FromString(reply.SerializeToString()).recommendation


def active(world: World, now: float) -> list[pb.Recommendation]:
    request = pb.ListActiveRecommendationsRequest(learner_id="ada")
    return list(world.recommendations.list_active_recommendations(request, a_call(now=now)).recommendations)


def record(world: World, now: float, *question_ids: str, correct: bool = True) -> None:
    """Answers at `now`."""
    request = practice_service_pb2.RecordAnswersRequest()
    for question_id in question_ids:
        world.given += 1
        request.answers.add(
            answer_id=f"a{world.given}", learner_id="ada", question_id=question_id, correct=correct
        )
    reply = world.practice.record_answers(request, a_call(now=now))
    told = practice_service_pb2.RecordAnswersResponse.FromString(reply.SerializeToString())
    assert told.recorded_count == len(question_ids)


def wide_world() -> World:
    """A world with sixty questions more than it has."""
    world = World()
    request = catalog_service_pb2.UpsertQuestionsRequest()
    for number in range(60):
        request.questions.add(question_id=f"shape-{number}", concept_ids=["shapes"])
    world.catalog.upsert_questions(request, a_call())
    return world


def test_a_slate_of_more_questions_than_the_state_remembers_is_completed() -> None:
    world = wide_world()
    slate = slate_of(world, NOW, 100)
    assert len(slate.items) > 60
    for number, question_id in enumerate(ids(slate)[:-1]):
        record(world, NOW + number, question_id)
    assert [ids(one) for one in active(world, NOW + 100)] == [ids(slate)[-1:]]
    record(world, NOW + 100, ids(slate)[-1])
    assert active(world, NOW + 101) == []


def test_what_was_answered_just_before_a_slate_is_open_in_it_and_closed_in_the_one_before() -> None:
    world = World()
    first = slate_of(world, NOW + 0.1, 100)
    assert "count-1" in ids(first)
    record(world, NOW + 0.2, "count-1", correct=False)
    second = slate_of(world, NOW + 0.3, 100)
    assert "count-1" in ids(second)
    newer, older = active(world, NOW + 0.4)
    assert ids(newer) == ids(second)
    assert ids(older) == [question_id for question_id in ids(first) if question_id != "count-1"]


def test_deleted_questions_are_not_active() -> None:
    world = World()
    slate = slate_of(world, NOW, 3)
    gone = ids(slate)[0]
    request = catalog_service_pb2.DeleteQuestionsRequest(question_ids=[gone])
    world.catalog.delete_questions(request, a_call())
    assert [ids(one) for one in active(world, NOW + 1)] == [ids(slate)[1:]]


def test_the_forty_questions_answered_right_last_rest() -> None:
    world = wide_world()
    answered = [f"shape-{number}" for number in range(45)]
    for number, question_id in enumerate(answered):
        record(world, NOW + number, question_id)
    shown = {
        question_id for number in range(5) for question_id in ids(slate_of(world, NOW + 60 + number, 100))
    }
    assert shown.isdisjoint(answered[-40:])
    rested = set(ids(slate_of(world, NOW + 9 * 3_600.0, 100)))
    assert not rested.isdisjoint(answered[-40:])

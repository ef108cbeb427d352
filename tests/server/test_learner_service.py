"""Profiles: LearnerService against the stores, without a wire."""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from genie.v1 import catalog_service_pb2, recommendation_service_pb2, resources_pb2
from genie.v1 import learner_service_pb2 as pb
from server import errors
from server.services import feedback
from store.api import Bulk, IdempotencyKeyReused, Partition, Store, Table
from store.records import SlateRecord
from store.slates import find_slate, list_slates
from tests.server.learner_world import Goal, Learner, World, refused, violations
from tests.server.service_calls import NOW, a_call


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.tenants.close()


def test_a_profile_comes_back_as_it_was_told(world: World) -> None:
    told = Learner(
        learner_id="u-1",
        display_name="Zoë",
        time_zone="Europe/Berlin",
        goal=Goal(
            concept_id="add", daily_duration=Duration(seconds=900), due_time=Timestamp(seconds=2 * 10**9)
        ),
        labels={"class": "7b", "school": "Nord=1"},
    )
    request = pb.CreateLearnerRequest(learner=told)
    held = world.learners.create_learner(request, a_call()).learner
    told.create_time.FromSeconds(int(NOW))
    told.update_time.FromSeconds(int(NOW))
    assert held == told
    assert world.learners.create_learner(request, a_call(now=NOW + 9)).learner == told
    assert world.get("u-1") == told


def test_another_profile_of_the_same_id_is_refused(world: World) -> None:
    world.create("u-1", display_name="A")
    assert refused(errors.LearnerAlreadyExists, lambda: world.create("u-1")) == {"learner_id": "u-1"}
    assert world.get("u-1").display_name == "A"


def test_a_first_answer_creates_the_learner(world: World) -> None:
    refused(errors.LearnerNotFound, lambda: world.get("u-1"))
    world.answer("u-1", "count", at=NOW - 100)
    assert world.get("u-1").time_zone == "UTC"
    assert world.stats("u-1").answers_count == 1


def test_who_came_with_an_answer_can_still_be_described_once(world: World) -> None:
    world.answer("u-1", "count", at=NOW - 100)
    born = world.get("u-1").create_time
    world.create("u-1", display_name="A", time_zone="Europe/Berlin")
    assert (world.get("u-1").display_name, world.get("u-1").create_time) == ("A", born)
    assert world.stats("u-1").answers_count == 1
    refused(errors.LearnerAlreadyExists, lambda: world.create("u-1", display_name="B"))


def test_an_update_changes_what_its_mask_names(world: World) -> None:
    world.create("u-1", display_name="A", labels={"k": "v"}, goal=Goal(concept_id="add"))
    changed = world.update(Learner(learner_id="u-1", display_name="B", labels={"x": "y"}), now=NOW + 5)
    assert (changed.display_name, dict(changed.labels), changed.goal.concept_id) == ("B", {"x": "y"}, "add")
    assert changed.update_time.seconds == int(NOW) + 5
    cleared = world.update(
        Learner(learner_id="u-1", time_zone="Asia/Tokyo"), "goal", "display_name", now=NOW + 6
    )
    assert not cleared.HasField("goal")
    assert (cleared.display_name, cleared.time_zone, dict(cleared.labels)) == ("", "UTC", {"x": "y"})
    same = world.update(Learner(learner_id="u-1"), "display_name", now=NOW + 7)
    assert same == cleared
    assert world.get("u-1") == cleared
    refused(errors.LearnerNotFound, lambda: world.update(Learner(learner_id="u-2", display_name="B")))


def test_a_request_id_returns_the_earlier_reply(world: World) -> None:
    world.create("u-1")
    first = pb.UpdateLearnerRequest(learner=Learner(learner_id="u-1", display_name="B"), request_id="r-1")
    earlier = world.learners.update_learner(first, a_call())
    world.update(Learner(learner_id="u-1", display_name="C"))
    assert world.learners.update_learner(first, a_call()) == earlier
    assert world.get("u-1").display_name == "C"
    first.learner.display_name = "D"
    with pytest.raises(IdempotencyKeyReused):
        world.learners.update_learner(first, a_call())
    goal = world.goal("u-1", goal=Goal(concept_id="add"), request_id="r-1")
    assert world.goal("u-1", goal=Goal(concept_id="add"), request_id="r-1") == goal


def test_a_request_id_returns_the_earlier_reply_after_the_concept_is_gone(world: World) -> None:
    concept = resources_pb2.Concept(concept_id="gone")
    world.catalog.upsert_concepts(catalog_service_pb2.UpsertConceptsRequest(concepts=[concept]), a_call())
    learner, service = Learner(learner_id="u-1", goal=Goal(concept_id="gone")), world.learners
    made = pb.CreateLearnerRequest(learner=learner, request_id="r-1")
    changed = pb.UpdateLearnerRequest(
        learner=learner, update_mask=FieldMask(paths=["goal"]), request_id="r-2"
    )
    aimed = pb.SetGoalRequest(learner_id="u-1", goal=learner.goal, request_id="r-3")

    def replies() -> list[object]:
        return [
            service.create_learner(made, a_call()),
            service.update_learner(changed, a_call()),
            service.set_goal(aimed, a_call()),
        ]

    earlier = replies()
    gone = catalog_service_pb2.DeleteConceptsRequest(concept_ids=["gone"])
    world.catalog.delete_concepts(gone, a_call())
    assert replies() == earlier
    made.request_id = ""
    assert service.create_learner(made, a_call()).learner.goal.concept_id == "gone"
    changed.request_id = aimed.request_id = "new"
    refused(errors.ConceptNotFound, lambda: service.update_learner(changed, a_call()))
    refused(errors.ConceptNotFound, lambda: service.set_goal(aimed, a_call()))
    made.learner.learner_id = "u-2"
    refused(errors.ConceptNotFound, lambda: service.create_learner(made, a_call()))


@pytest.mark.parametrize(
    ("work", "fields"),
    [
        (lambda w: w.learners.create_learner(pb.CreateLearnerRequest(), a_call()), ["learner"]),
        (
            lambda w: w.create(
                "",
                display_name="x" * 257,
                time_zone="Mars/Base",
                goal=Goal(concept_id="\t"),
                labels={"a=b": "c"},
            ),
            [
                "learner.display_name",
                "learner.goal.concept_id",
                "learner.labels.key",
                "learner.learner_id",
                "learner.time_zone",
            ],
        ),
        (
            lambda w: w.update(Learner(learner_id="u-1"), "learner_id", "goal.concept_id"),
            ["update_mask.paths[0]", "update_mask.paths[1]"],
        ),
        (
            lambda w: w.update(Learner(learner_id="u-1"), *["goal"] * 32, "none", "none"),
            ["update_mask.paths"],
        ),
        (lambda w: w.get("\0"), ["learner_id"]),
        (lambda w: w.get("x" * 129), ["learner_id"]),
        (lambda w: w.ids(page_size=-1, labels=["nokey", "=v"]), ["labels[0]", "labels[1]", "page_size"]),
        (lambda w: w.ids(labels=["k=v"] * 9), ["labels"]),
        (lambda w: w.progress(learner_id="u-1", days=366), ["days"]),
        (lambda w: w.progress(learner_id="", days=-1), ["days", "learner_id"]),
        (lambda w: w.plan("u-1", days=31), ["days"]),
        (
            lambda w: w.mastery(learner_id="u-1", concept_ids=["a", "a"], page_size=-3),
            ["concept_ids[1]", "page_size"],
        ),
        (lambda w: w.mastery(learner_id="u-1", concept_ids=[f"c{i}" for i in range(1_001)]), ["concept_ids"]),
        (
            lambda w: w.goal("", goal=Goal(daily_duration=Duration(seconds=90_000)), request_id="x" * 200),
            ["goal.daily_duration", "learner_id", "request_id"],
        ),
        (lambda w: w.export(""), ["learner_id"]),
        (
            lambda w: w.learners.delete_learner(pb.DeleteLearnerRequest(learner_id="é" * 200), a_call()),
            ["learner_id"],
        ),
    ],
)
def test_wrong_input_is_told_by_field(
    world: World, work: Callable[[World], object], fields: list[str]
) -> None:
    world.create("u-1")
    assert violations(lambda: work(world)) == fields


@pytest.mark.parametrize(
    "work",
    [
        lambda w: w.get("nobody"),
        lambda w: w.stats("nobody"),
        lambda w: w.progress(learner_id="nobody"),
        lambda w: w.profile("nobody"),
        lambda w: w.mastery(learner_id="nobody"),
        lambda w: w.goal("nobody"),
        lambda w: w.plan("nobody"),
        lambda w: w.export("nobody"),
        lambda w: w.update(Learner(learner_id="nobody")),
    ],
)
def test_an_unknown_learner_is_told(world: World, work: Callable[[World], object]) -> None:
    assert refused(errors.LearnerNotFound, lambda: work(world)) == {"learner_id": "nobody"}


@pytest.mark.parametrize(
    "work",
    [
        lambda w: w.create("u-2", goal=Goal(concept_id="nowhere")),
        lambda w: w.goal("u-1", goal=Goal(concept_id="nowhere")),
        lambda w: w.update(Learner(learner_id="u-1", goal=Goal(concept_id="nowhere"))),
        lambda w: w.mastery(learner_id="u-1", concept_ids=["add", "nowhere"]),
    ],
)
def test_an_unknown_concept_is_told(world: World, work: Callable[[World], object]) -> None:
    world.create("u-1")
    assert refused(errors.ConceptNotFound, lambda: work(world)) == {"concept_id": "nowhere"}


def test_learners_are_listed_by_id_and_label(world: World) -> None:
    names = [f"u{i:02d}" for i in range(12)] + ["zoë", "日本"]
    for i, name in enumerate(random.Random(1).sample(names, len(names))):
        world.create(name, labels={"class": "even" if i % 2 else "odd", "eq": "a=b"})
    assert world.ids() == sorted(names)
    assert sorted(world.ids(labels=["class=odd"]) + world.ids(labels=["class=even"])) == sorted(names)
    assert world.ids(labels=["class=odd", "eq=a=b"]) == world.ids(labels=["class=odd"])
    assert world.ids(labels=["class=odd", "class=even"]) == []
    seen, token = list[str](), ""
    while True:
        request = pb.ListLearnersRequest(page_size=3, page_token=token, labels=["eq=a=b"])
        page = world.learners.list_learners(request, a_call())
        seen += [learner.learner_id for learner in page.learners]
        token = page.next_page_token
        if not token:
            break
    assert seen == sorted(names)
    first = world.learners.list_learners(pb.ListLearnersRequest(page_size=3), a_call()).next_page_token
    refused(errors.InvalidPageToken, lambda: world.ids(page_token=first, labels=["class=odd"]))
    refused(errors.InvalidPageToken, lambda: world.ids(page_token="rubbish"))


def test_deleting_leaves_nothing_and_may_be_repeated(world: World) -> None:
    world.answer("u-1", "count", at=NOW - 100, count=3)
    world.answer("u-2", "count", at=NOW - 100)
    asked = recommendation_service_pb2.RecommendRequest(learner_id="u-1")
    slate = recommendation_service_pb2.RecommendResponse.FromString(
        world.recommendations.recommend(asked, a_call()).SerializeToString()
    ).recommendation
    for _ in range(2):
        world.learners.delete_learner(pb.DeleteLearnerRequest(learner_id="u-1"), a_call())
    refused(errors.LearnerNotFound, lambda: world.get("u-1"))
    explain = recommendation_service_pb2.ExplainRecommendationRequest(
        recommendation_id=slate.recommendation_id
    )
    refused(
        errors.RecommendationNotFound, lambda: world.recommendations.explain_recommendation(explain, a_call())
    )
    assert world.ids() == ["u-2"]
    assert world.store.learners("default", Table.ANSWER, limit=10) == ["u-2"]


def test_what_is_recommended_while_a_learner_is_erased_goes_with_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.answer("u-1", "count", at=NOW - 100, count=3)
    asked = recommendation_service_pb2.RecommendRequest(learner_id="u-1")
    active = recommendation_service_pb2.ListActiveRecommendationsRequest(learner_id="u-1")
    submit = world.store.submit_bulk

    def recommend() -> None:
        world.recommendations.recommend(asked, a_call(now=time.time()))

    def listed() -> int:
        reply = world.recommendations.list_active_recommendations(active, a_call(now=time.time()))
        return len(reply.recommendations)

    def slow(partitions: Sequence[Partition], operation: Callable[[Bulk], object]) -> "Future[object]":
        recommend()
        done = submit(partitions, operation)
        slowed.append(done)
        return done

    slowed: list[Future[object]] = []
    monkeypatch.setattr(world.store, "submit_bulk", slow)
    world.learners.delete_learner(pb.DeleteLearnerRequest(learner_id="u-1"), a_call())
    assert (len(slowed), listed()) == (1, 0)
    recommend()
    assert listed() == 1


def recommended(world: World, learner_id: str) -> recommendation_service_pb2.Recommendation:
    asked = recommendation_service_pb2.RecommendRequest(learner_id=learner_id)
    reply = world.recommendations.recommend(asked, a_call(now=time.time()))
    return recommendation_service_pb2.RecommendResponse.FromString(reply.SerializeToString()).recommendation


def told(world: World, *slates: recommendation_service_pb2.Recommendation) -> list[str]:
    """The name of each result's status, of one event on each slate."""
    events = [
        recommendation_service_pb2.FeedbackEvent(
            event_id="e-1",
            learner_id=slate.learner_id,
            recommendation_id=slate.recommendation_id,
            question_id=slate.items[0].question_id,
            kind=recommendation_service_pb2.FEEDBACK_KIND_DISMISSED,
        )
        for slate in slates
    ]
    request = recommendation_service_pb2.RecordFeedbackRequest(events=events)
    reply = world.recommendations.record_feedback(request, a_call(now=time.time()))
    return [
        recommendation_service_pb2.FeedbackStatus.Name(result.status).removeprefix("FEEDBACK_STATUS_")
        for result in reply.results
    ]


@pytest.mark.parametrize(
    "answered", [True, False], ids=["who has answered", "of whom there are slates alone"]
)
def test_feedback_under_way_while_a_learner_is_erased_goes_with_them(
    world: World, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    if answered:
        world.answer("u-1", "count", at=NOW - 100, count=3)
    slates = [recommended(world, "u-1"), recommended(world, "u-2")]

    def erased_then(store: Store, tenant: str, recommendation_id: str) -> SlateRecord | None:
        found = find_slate(store, tenant, recommendation_id)
        if recommendation_id == slates[-1].recommendation_id:
            world.learners.delete_learner(pb.DeleteLearnerRequest(learner_id="u-1"), a_call())
        return found

    with monkeypatch.context() as patched:
        patched.setattr(feedback, "find_slate", erased_then)
        assert told(world, *slates) == ["REJECTED", "RECORDED"]
    for store in (world.store, world.serving):
        with store.read(Partition("default", "u-1")) as reader:
            assert not any(list(reader.scan(table)) for table in Table)
    assert told(world, *slates) == ["REJECTED", "DUPLICATE"]
    assert told(world, recommended(world, "u-1")) == ["RECORDED"], "what comes later is anybody's"


def test_feedback_on_what_was_recommended_while_a_learner_is_erased_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.answer("u-1", "count", at=NOW - 100, count=3)
    submit = world.store.submit_bulk
    statuses = []

    def then_told(partitions: Sequence[Partition], operation: Callable[[Bulk], object]) -> "Future[object]":
        monkeypatch.undo()
        done = submit(partitions, operation)
        statuses.extend(told(world, recommended(world, "u-1")))
        return done

    monkeypatch.setattr(world.store, "submit_bulk", then_told)
    world.learners.delete_learner(pb.DeleteLearnerRequest(learner_id="u-1"), a_call())
    assert statuses == ["REJECTED"]
    assert told(world, recommended(world, "u-1")) == ["RECORDED"]


def test_deleting_who_is_not_known_leaves_no_trace(world: World) -> None:
    world.learners.delete_learner(pb.DeleteLearnerRequest(learner_id="nobody"), a_call(tenant="no-school"))
    for store in (world.store, world.serving):
        with store.read(Partition("no-school")) as reader:
            assert not any(list(reader.scan(table)) for table in Table)


def test_slates_of_calls_answered_together_are_not_older_than_any_of_them(world: World) -> None:
    asked = [recommendation_service_pb2.RecommendRequest(learner_id=name) for name in ("u-1", "u-2")]
    world.recommendations.recommend_many(asked, [a_call(now=NOW - 1.0), a_call(now=NOW)])
    for name in ("u-1", "u-2"):
        (held,) = list_slates(world.serving, Partition("default", name))
        assert held.created_at == NOW, "or an erasure between the calls would take what came after it"

"""LearnerService against the stores, without a wire."""

import math
import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from engine.policy import load_policies
from genie.v1 import catalog_service_pb2, practice_service_pb2, recommendation_service_pb2, resources_pb2
from genie.v1 import learner_service_pb2 as pb
from server import errors
from server.services.catalog import CatalogService
from server.services.learner import LearnerService
from server.services.practice import PracticeService
from server.services.recommendation import RecommendationService
from server.tenants import Tenants
from store.api import IdempotencyKeyReused, Store, Table
from store.memory_store import MemoryStore
from tests.server.service_calls import NOW, a_call

DAY = 86_400.0
Learner = resources_pb2.Learner
Goal = resources_pb2.Goal


class World:
    """A chain of concepts, count before add before multiply, with ten questions each, and `shapes` beside it."""

    def __init__(self) -> None:
        self.store: Store = MemoryStore()
        self.serving: Store = MemoryStore()
        self.tenants = Tenants(self.store)
        self.catalog = CatalogService(store=self.store, serving=self.serving, tenants=self.tenants)
        self.practice = PracticeService(store=self.store, tenants=self.tenants)
        self.learners = LearnerService(store=self.store, serving=self.serving, tenants=self.tenants)
        self.recommendations = RecommendationService(
            store=self.store,
            serving=self.serving,
            tenants=self.tenants,
            policies=load_policies({}),
            default_policy="hybrid_v1",
            budget_seconds=30.0,
            keep_seconds=3_600.0,
        )
        chain = ["count", "add", "multiply"]
        concepts = [
            resources_pb2.Concept(
                concept_id=name,
                area="Numbers",
                prerequisites=[resources_pb2.Prerequisite(concept_id=before)] if before else [],
            )
            for name, before in zip(chain, ["", *chain], strict=False)
        ]
        concepts.append(resources_pb2.Concept(concept_id="shapes", area="Geometry"))
        self.catalog.upsert_concepts(catalog_service_pb2.UpsertConceptsRequest(concepts=concepts), a_call())
        self.catalog.upsert_questions(
            catalog_service_pb2.UpsertQuestionsRequest(
                questions=[
                    resources_pb2.Question(
                        question_id=f"{name}-{i}",
                        concept_ids=[name],
                        expected_duration=Duration(seconds=30),
                    )
                    for name in [*chain, "shapes"]
                    for i in range(10)
                ]
            ),
            a_call(),
        )
        self.given = 0

    def answer(
        self,
        learner_id: str,
        concept: str,
        *,
        at: float,
        correct: bool = True,
        seconds: int = 30,
        count: int = 1,
    ) -> None:
        answers = []
        for i in range(count):
            self.given += 1
            given = Timestamp()
            given.FromNanoseconds(int((at + 60 * i) * 1e9))
            answers.append(
                practice_service_pb2.Answer(
                    answer_id=f"a{self.given}",
                    learner_id=learner_id,
                    question_id=f"{concept}-{self.given % 10}",
                    correct=correct,
                    answered_at=given,
                    duration=Duration(seconds=seconds),
                    session_id="s-1",
                )
            )
        reply = self.practice.record_answers(
            practice_service_pb2.RecordAnswersRequest(answers=answers), a_call(now=at + 60 * count)
        )
        assert reply.recorded_count == count

    def create(self, learner_id: str, **profile: Any) -> resources_pb2.Learner:
        request = pb.CreateLearnerRequest(learner=Learner(learner_id=learner_id, **profile))
        return self.learners.create_learner(request, a_call()).learner

    def get(self, learner_id: str) -> resources_pb2.Learner:
        return self.learners.get_learner(pb.GetLearnerRequest(learner_id=learner_id), a_call()).learner

    def update(self, learner: resources_pb2.Learner, *paths: str, now: float = NOW) -> resources_pb2.Learner:
        request = pb.UpdateLearnerRequest(learner=learner, update_mask=FieldMask(paths=paths))
        return self.learners.update_learner(request, a_call(now=now)).learner

    def ids(self, **request: Any) -> list[str]:
        reply = self.learners.list_learners(pb.ListLearnersRequest(**request), a_call())
        return [learner.learner_id for learner in reply.learners]

    def stats(self, learner_id: str, now: float = NOW) -> Any:
        return self.learners.get_learner_stats(
            pb.GetLearnerStatsRequest(learner_id=learner_id), a_call(now=now)
        ).stats

    def mastery(self, now: float = NOW, **request: Any) -> pb.GetMasteryResponse:
        return self.learners.get_mastery(pb.GetMasteryRequest(**request), a_call(now=now))

    def progress(self, now: float = NOW, **request: Any) -> pb.GetLearnerProgressResponse:
        return self.learners.get_learner_progress(pb.GetLearnerProgressRequest(**request), a_call(now=now))

    def profile(self, learner_id: str, now: float = NOW) -> Any:
        return self.learners.get_learning_profile(
            pb.GetLearningProfileRequest(learner_id=learner_id), a_call(now=now)
        ).learning_profile

    def goal(self, learner_id: str, now: float = NOW, **request: Any) -> pb.SetGoalResponse:
        call = a_call(now=now, method="/genie.v1.LearnerService/SetGoal")
        return self.learners.set_goal(pb.SetGoalRequest(learner_id=learner_id, **request), call)

    def plan(self, learner_id: str, days: int = 0, now: float = NOW) -> Any:
        return self.learners.plan_practice(
            pb.PlanPracticeRequest(learner_id=learner_id, days=days), a_call(now=now)
        ).days

    def export(self, learner_id: str, now: float = NOW) -> list[pb.ExportLearnerResponse]:
        return list(
            self.learners.export_learner(pb.ExportLearnerRequest(learner_id=learner_id), a_call(now=now))
        )


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.tenants.close()


def refused(kind: type[errors.GenieError], work: Callable[[], object]) -> dict[str, str]:
    with pytest.raises(kind) as caught:
        work()
    return caught.value.facts


def violations(work: Callable[[], object]) -> list[str]:
    with pytest.raises(errors.InvalidRequest) as caught:
        work()
    return sorted({violation.field for violation in caught.value.violations()})


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
    slate = world.recommendations.recommend(
        recommendation_service_pb2.RecommendRequest(learner_id="u-1"), a_call()
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


def test_statistics_add_up(world: World) -> None:
    world.create("u-1")
    empty = world.stats("u-1")
    assert empty.answers_count == 0
    assert not any(map(empty.HasField, ("accuracy", "consistency", "first_answer_time", "last_answer_time")))
    world.answer("u-1", "count", at=NOW - 2 * DAY, count=4)
    world.answer("u-1", "add", at=NOW - 600, correct=False, count=2)
    stats = world.stats("u-1")
    assert (stats.answers_count, stats.correct_count, stats.answers_today_count) == (6, 4, 2)
    assert stats.accuracy == pytest.approx(4 / 6)
    assert stats.practice_duration.seconds == 180
    assert stats.touched_concepts_count == 2
    assert stats.first_answer_time.seconds == int(NOW - 2 * DAY)
    assert stats.daily_goal.practised_duration.seconds == 60
    assert stats.daily_goal.progress == pytest.approx(60 / stats.daily_goal.target_duration.seconds)
    assert stats.due_concepts_count == sum(m.due for m in world.mastery(learner_id="u-1").masteries)


def test_the_streak_is_settled_in_the_learners_own_time_zone(world: World) -> None:
    midnight = math.floor(NOW / DAY) * DAY
    for learner_id, zone in (("tokyo", "Asia/Tokyo"), ("utc", "UTC")):
        world.create(learner_id, time_zone=zone)
        for at in (midnight + 3_600, midnight + 16 * 3_600, midnight + 40 * 3_600):
            world.answer(learner_id, "count", at=at)
    # 01:00 and 16:00 UTC are two days in Tokyo, one in Greenwich; 16:00 on the next day adds one to each.
    later = midnight + 41 * 3_600
    assert world.stats("tokyo", later).streak.current_days == 3
    assert world.stats("utc", later).streak.current_days == 2
    assert world.stats("utc", later).streak.practised_today
    assert world.stats("utc", later + 1.5 * DAY).streak.current_days == 0
    assert world.stats("utc", later + 1.5 * DAY).streak.longest_days == 2


def test_mastery_of_what_was_touched_or_named(world: World) -> None:
    world.answer("u-1", "count", at=NOW - 3 * DAY, count=12)
    world.answer("u-1", "shapes", at=NOW - 3 * DAY, correct=False, count=4)
    found = {m.concept_id: m for m in world.mastery(learner_id="u-1").masteries}
    assert list(found) == sorted(found)
    assert found["count"].mastery > found["shapes"].mastery
    assert found["count"].mastered
    assert found["count"].expected_fade_time.seconds > NOW
    assert found["shapes"].due
    assert not found["shapes"].HasField("expected_fade_time")
    named = world.mastery(learner_id="u-1", concept_ids=["shapes", "multiply"]).masteries
    assert [m.concept_id for m in named] == ["multiply", "shapes"]
    assert not named[0].HasField("retrievability")
    assert not named[0].HasField("next_review_time")
    assert 0.0 < named[0].mastery < 1.0
    first = world.mastery(learner_id="u-1", page_size=1)
    second = world.mastery(learner_id="u-1", page_size=1, page_token=first.next_page_token)
    assert [m.concept_id for m in (*first.masteries, *second.masteries)] == ["count", "shapes"]
    assert second.next_page_token == ""


def test_progress_by_day_and_area(world: World) -> None:
    world.answer("u-1", "count", at=NOW - 40 * DAY, count=2)
    world.answer("u-1", "count", at=NOW - 3 * DAY, count=10)
    world.answer("u-1", "shapes", at=NOW - 3 * DAY + 3_600, correct=False, seconds=60)
    world.answer("u-1", "add", at=NOW - DAY, correct=False)
    progress = world.progress(learner_id="u-1")
    assert [(d.answers_count, d.correct_count) for d in progress.days] == [(11, 10), (1, 0)]
    assert progress.days[0].practice_duration.seconds == 360
    assert sum(d.mastered_concepts_count for d in progress.days) == 1
    assert [a.area for a in progress.areas] == ["Geometry", "Numbers"]
    numbers = progress.areas[1]
    assert (numbers.concepts_count, numbers.touched_concepts_count, numbers.mastered_concepts_count) == (
        3,
        2,
        1,
    )
    assert [p.touched_concepts_count for p in numbers.points] == [1, 2]
    assert numbers.points[1].mean_mastery < numbers.points[0].mean_mastery
    assert len(progress.areas[0].points) == 1
    long = world.progress(learner_id="u-1", days=365)
    assert [d.answers_count for d in long.days] == [2, 11, 1]
    geometry = world.progress(learner_id="u-1", area="Geometry")
    assert [d.answers_count for d in geometry.days] == [1]
    assert [a.area for a in geometry.areas] == ["Geometry"]
    nowhere = world.progress(learner_id="u-1", area="nowhere")
    assert not nowhere.days
    assert not nowhere.areas
    world.create("u-2")
    blank = world.progress(learner_id="u-2")
    assert not blank.days
    assert [a.touched_concepts_count for a in blank.areas] == [0, 0]


def test_progress_counts_as_the_state_does(world: World) -> None:
    rng = random.Random(4)
    at = NOW - 20 * DAY
    for _ in range(40):
        at += rng.choice((30.0, 200.0, 400.0, 0.7 * DAY))
        world.answer("u-1", rng.choice(("count", "shapes")), at=at, seconds=rng.choice((0, 20)))
    days = world.progress(learner_id="u-1", days=365).days
    stats = world.stats("u-1")
    assert sum(day.answers_count for day in days) == stats.answers_count
    assert sum(day.practice_duration.seconds for day in days) == stats.practice_duration.seconds


def test_a_late_answer_takes_its_place_in_progress(world: World) -> None:
    world.answer("u-1", "count", at=NOW - DAY, count=3)
    world.answer("u-1", "count", at=NOW - 4 * DAY)
    assert [day.answers_count for day in world.progress(learner_id="u-1").days] == [1, 3]


def test_the_learning_profile_tells_what_the_evidence_carries(world: World) -> None:
    world.create("u-1")
    blank = world.profile("u-1")
    assert blank.evidence_answers_count == 0
    assert not blank.HasField("ability")
    assert blank.target_success == pytest.approx(0.85)
    hour = math.floor(NOW / DAY) * DAY + 17 * 3_600
    for day in range(10, 0, -1):
        world.answer("u-1", "count", at=hour - day * DAY, seconds=15, count=3)
        world.answer("u-1", "shapes", at=hour - day * DAY + 300, correct=False, seconds=15)
    profile = world.profile("u-1", hour)
    assert profile.evidence_answers_count == 40
    assert 0.5 < profile.recent_accuracy < 0.9
    assert profile.pace_ratio == pytest.approx(0.5)
    assert list(profile.preferred_hours) == [17]
    assert profile.typical_daily_duration.seconds == 60
    assert profile.active_days_share == pytest.approx(10 / 11)
    assert 0.0 < profile.mean_retrievability < 1.0
    assert [m.concept_id for m in profile.strengths] == ["count"]
    assert [m.concept_id for m in profile.weaknesses] == ["shapes"]


def test_a_goal_tells_what_stands_between(world: World) -> None:
    world.create("u-1")
    goal = Goal(concept_id="multiply", daily_duration=Duration(seconds=1_200))
    reply = world.goal("u-1", goal=goal)
    assert reply.goal == goal
    assert list(reply.gap_concept_ids) == ["count", "add", "multiply"]
    assert world.get("u-1").goal == goal
    assert world.stats("u-1").daily_goal.target_duration.seconds == 1_200
    assert not world.stats("u-1").daily_goal.adaptive
    world.answer("u-1", "add", at=NOW - DAY, count=12)
    assert list(world.goal("u-1", goal=goal).gap_concept_ids) == ["multiply"]
    cleared = world.goal("u-1")
    assert not cleared.HasField("goal")
    assert not cleared.gap_concept_ids
    assert not world.get("u-1").HasField("goal")


def test_a_plan_opens_concepts_in_order_and_holds_the_reviews(world: World) -> None:
    world.create("u-1", goal=Goal(concept_id="multiply", daily_duration=Duration(seconds=300)))
    days = world.plan("u-1")
    assert len(days) == 7
    opened = [name for day in days for name in day.opening_concept_ids]
    assert sorted(opened) == ["add", "count", "multiply", "shapes"]
    assert [name for name in opened if name != "shapes"] == ["count", "add", "multiply"]
    where = {name: i for i, day in enumerate(days) for name in day.opening_concept_ids}
    assert where["count"] < where["add"] < where["multiply"]
    assert all(day.expected_duration.seconds <= 300 for day in days)

    world.answer("u-2", "count", at=NOW - 3 * DAY, correct=False, count=2)
    world.answer("u-2", "shapes", at=NOW - 600, count=12)
    plan = world.plan("u-2", days=30)
    due = {review.concept_id: (i, review) for i, day in enumerate(plan) for review in day.reviews}
    assert due["count"][0] == 0
    place, review = due["shapes"]
    assert place > 0
    assert review.retrievability < 0.9
    assert (
        review.due_time
        == {m.concept_id: m for m in world.mastery(learner_id="u-2").masteries}["shapes"].next_review_time
    )
    assert [day.date.day for day in plan[:2]] == [15, 16]


def test_an_export_holds_everything(world: World) -> None:
    world.create("u-1", display_name="A")
    start = practice_service_pb2.StartSessionRequest(learner_id="u-1", session_id="s-1")
    world.practice.start_session(start, a_call(now=NOW - 4_000))
    world.answer("u-1", "count", at=NOW - 3_000, count=2)
    world.answer("u-1", "shapes", at=NOW - 3_600, correct=False)
    slate = world.recommendations.recommend(
        recommendation_service_pb2.RecommendRequest(learner_id="u-1", limit=3), a_call()
    ).recommendation
    event = recommendation_service_pb2.FeedbackEvent(
        event_id="e-1",
        learner_id="u-1",
        recommendation_id=slate.recommendation_id,
        question_id=slate.items[0].question_id,
        kind=recommendation_service_pb2.FEEDBACK_KIND_CLICKED,
        dwell_duration=Duration(seconds=3),
    )
    event.event_time.FromSeconds(int(NOW))
    world.recommendations.record_feedback(
        recommendation_service_pb2.RecordFeedbackRequest(events=[event]), a_call()
    )
    gone = catalog_service_pb2.DeleteQuestionsRequest(question_ids=[f"shapes-{i}" for i in range(10)])
    world.catalog.delete_questions(gone, a_call())
    world.catalog.delete_concepts(catalog_service_pb2.DeleteConceptsRequest(concept_ids=["shapes"]), a_call())

    records = world.export("u-1")
    kinds = [record.WhichOneof("record") for record in records]
    assert kinds == [
        "learner",
        "stats",
        "mastery",
        *["answer"] * 3,
        "session",
        "feedback_event",
        "recommendation",
    ]
    assert records[0].learner == world.get("u-1")
    assert records[1].stats == world.stats("u-1")
    first, second = records[3].answer, records[4].answer
    assert first.answer.question_id.startswith("shapes-")
    assert first.answer.HasField("correct")
    assert not first.answer.correct
    assert (first.grade, second.exercised_concepts[0].concept_id) == (1, "count")
    assert first.exercised_concepts[0].concept_id == "shapes"
    assert second.exercised_concepts[0].weight == 1.0
    assert 0.0 < first.question_success_rate < 1.0
    assert records[6].session.session_id == "s-1"
    assert records[7].feedback_event == event
    exported = records[8].recommendation
    assert [item.question_id for item in exported.items] == [item.question_id for item in slate.items]

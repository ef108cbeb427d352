"""What LearnerService derives from answers: statistics, mastery, progress, goals, plans and exports."""

import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from genie.v1 import catalog_service_pb2, practice_service_pb2, progress_pb2, recommendation_service_pb2
from server import convert
from tests.server.learner_world import DAY, Goal, World
from tests.server.service_calls import NOW, a_call


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.tenants.close()


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
    assert blank.target_success == pytest.approx(0.73)
    hour = math.floor(NOW / DAY) * DAY + 17 * 3_600
    for day in range(10, 0, -1):
        world.answer("u-1", "count", at=hour - day * DAY, seconds=15, count=3)
        world.answer("u-1", "shapes", at=hour - day * DAY + 300, correct=False, seconds=15)
    profile = world.profile("u-1", hour)
    assert profile.evidence_answers_count == 40
    assert 0.73 < profile.target_success < 0.94, "many answers were wrong: easier questions"
    assert 0.5 < profile.recent_accuracy < 0.9
    assert profile.pace_ratio == pytest.approx(0.5)
    assert list(profile.preferred_hours) == [17]
    assert profile.typical_daily_duration.seconds == 60
    assert profile.active_days_share == pytest.approx(10 / 11)
    assert 0.0 < profile.mean_retrievability < 1.0
    assert [m.concept_id for m in profile.strengths] == ["count"]
    assert [m.concept_id for m in profile.weaknesses] == ["shapes"]


def test_the_profile_knows_sessions_and_better_hours(world: World) -> None:
    noon = math.floor(NOW / DAY) * DAY
    for day in range(8, 0, -1):
        world.answer("u-1", "count", at=noon - day * DAY + 9 * 3_600, count=4)
        world.answer("u-1", "shapes", at=noon - day * DAY + 20 * 3_600, correct=False, count=3)
    profile = world.profile("u-1", noon)
    # Sessions of four and of three answers, a minute apart, each of 30 seconds.
    assert profile.typical_session_duration.seconds == (3 * 60 + 30 + 2 * 60 + 30) / 2
    assert list(profile.best_hours) == [9]


def test_gaps_are_named_with_what_lies_behind_them(world: World) -> None:
    world.answer("u-1", "count", at=NOW - 3 * DAY, correct=False)
    world.answer("u-1", "count", at=NOW - 3 * DAY + 300)
    world.answer("u-1", "multiply", at=NOW - DAY, correct=False, count=3)
    (gap,) = world.profile("u-1").gaps
    assert (gap.concept_id, gap.attempts_count, gap.recent_wrong_count) == ("multiply", 3, 3)
    (cause,) = gap.causes
    assert (cause.concept_id, cause.kind) == ("count", progress_pb2.GAP_CAUSE_KIND_NOT_LEARNED)
    assert list(cause.path_concept_ids) == ["count", "add", "multiply"]
    assert cause.attempts_count == 2
    world.create("u-2")
    assert not world.profile("u-2").gaps


def test_velocity_is_read_from_four_weeks(world: World) -> None:
    world.create("u-1")
    assert not world.progress(learner_id="u-1").HasField("velocity")
    world.answer("u-1", "shapes", at=NOW - 70 * DAY, count=12)
    world.answer("u-1", "count", at=NOW - 3 * DAY, count=12)
    world.answer("u-1", "add", at=NOW - 3_600, correct=False, count=2)
    velocity = world.progress(learner_id="u-1", area="Geometry").velocity
    assert velocity.days_count == 28
    assert velocity.answers_per_week == pytest.approx(14 / 4)
    assert velocity.practice_duration_per_week.seconds == 14 * 30 // 4
    assert velocity.mastered_concepts_per_week == pytest.approx(1 / 4)
    assert velocity.mastered_concepts_per_week_sd == pytest.approx(math.sqrt(2) / 4)
    assert velocity.mastered_concepts_per_week_before == 0.0
    assert velocity.answers_per_mastered_concept == 14
    young = world.create("u-2")
    world.answer(young.learner_id, "count", at=NOW - 3 * DAY)
    found = world.progress(learner_id="u-2").velocity
    assert found.days_count == 4
    assert not found.HasField("mastered_concepts_per_week_before")
    assert not found.HasField("answers_per_mastered_concept")


def test_the_goal_is_projected_with_its_uncertainty(world: World) -> None:
    world.create("u-1")
    assert not world.progress(learner_id="u-1").HasField("goal_projection")
    world.goal("u-1", goal=Goal(concept_id="multiply", due_time=convert.timestamp(NOW + 30 * DAY)))
    unknown = world.progress(learner_id="u-1").goal_projection
    assert (unknown.concept_id, unknown.gap_concepts_count) == ("multiply", 3)
    assert not unknown.HasField("expected_date")
    assert not unknown.HasField("on_time_chance")
    for day in range(20, 0, -2):
        world.answer("u-1", "count" if day > 10 else "shapes", at=NOW - day * DAY, count=6)
    told = world.progress(learner_id="u-1").goal_projection
    assert told.gap_concepts_count == 2
    days = [convert.day_number(date) for date in (told.earliest_date, told.expected_date, told.latest_date)]
    assert NOW // DAY < days[0] < days[1] < days[2]
    # Two concepts in 60 answers over 21 days, where most learners need 50 for each.
    assert 20 < days[1] - NOW // DAY < 50
    assert 0.25 < told.on_time_chance < 0.65
    late = world.progress(learner_id="u-1", now=NOW + 60 * DAY).goal_projection
    assert not late.HasField("expected_date")
    for name in ("count", "add", "multiply"):
        world.answer("u-1", name, at=NOW - 7_200 + 900 * len(name), count=12)
    world.answer("u-1", "multiply", at=NOW - 600, count=9)
    done = world.progress(learner_id="u-1").goal_projection
    assert done.gap_concepts_count == 0
    assert not done.HasField("expected_date")


def test_milestones_are_listed_as_they_were_reached(world: World) -> None:
    world.create("u-1")
    assert not world.milestones(learner_id="u-1").milestones
    for day in [*range(40, 30, -1), *range(20, 16, -1)]:
        world.answer("u-1", "count", at=NOW - day * DAY)
    listed = world.milestones(learner_id="u-1")
    assert [milestone.threshold for milestone in listed.milestones] == [3, 7, 3]
    assert [milestone.reward.freezes_count for milestone in listed.milestones] == [0, 1, 0]
    dates = [convert.day_number(milestone.reached_date) for milestone in listed.milestones]
    assert dates == [int(NOW // DAY) - day for day in (38, 34, 18)]
    first = world.milestones(learner_id="u-1", page_size=2)
    rest = world.milestones(learner_id="u-1", page_size=2, page_token=first.next_page_token)
    assert [*first.milestones, *rest.milestones] == list(listed.milestones)
    assert not rest.next_page_token


def told_and_listed(
    world: World, learner_id: str, order: list[int]
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(threshold, days ago) of milestones in the replies to answers of these days ago, and as listed in the end."""

    def said(milestones: Any) -> list[tuple[int, int]]:
        return [(m.threshold, int(NOW // DAY) - convert.day_number(m.reached_date)) for m in milestones]

    told = []
    for ago in order:
        reply = world.answer(learner_id, "count", at=NOW - ago * DAY - 120, arrives=NOW)
        told += said(reply.results[0].milestones)
    return told, said(world.milestones(learner_id=learner_id).milestones)


def test_a_late_answer_brings_the_milestones_of_later_days(world: World) -> None:
    assert told_and_listed(world, "gap", [3, 1, 0, 2]) == ([(3, 1)], [(3, 1)])
    # Told of day -2 at first; the late answer moves it to day -5, which is no news, and brings the seventh day.
    found = told_and_listed(world, "late", [7, 6, 4, 3, 2, 1, 0, 5])
    assert found == ([(3, 2), (7, 1)], [(3, 5), (7, 1)])
    assert told_and_listed(world, "in time", [7, 6, 5, 4, 3, 2, 1, 0]) == ([(3, 5), (7, 1)], [(3, 5), (7, 1)])
    week = world.weekly("late")
    assert [m.threshold for m in week.milestones] == [3, 7]
    assert world.tenant_week().milestones_count == 2 + 2 + 1


def test_learners_at_risk_are_told_and_listed(world: World) -> None:
    for day in range(12, 4, -1):
        world.answer("away", "count", at=NOW - day * DAY)
        world.answer("steady", "count", at=NOW - (day - 5) * DAY)
        world.answer("gone", "count", at=NOW - (day + 30) * DAY)
    world.create("new")
    assert list(world.stats("away").risks) == [progress_pb2.RISK_REASON_AWAY]
    assert list(world.stats("gone").risks) == list(world.stats("new").risks) == []
    assert world.ids(at_risk_only=True) == ["away"]
    assert len(world.ids()) == 4


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
    asked = recommendation_service_pb2.RecommendRequest(learner_id="u-1", limit=3)
    slate = recommendation_service_pb2.RecommendResponse.FromString(
        world.recommendations.recommend(asked, a_call()).SerializeToString()
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

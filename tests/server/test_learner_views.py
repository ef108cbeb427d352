"""Messages of a learner's state at its edges; what services make of them is tested with the services."""

import math

import numpy as np
import pytest

from engine.catalog import Catalog, build_catalog
from engine.learner import ConceptView, LearnerModel, LearnerState, concept_view
from engine.types import Concept, LearnerGoal, LearnerProfile
from genie.v1 import resources_pb2
from server.learner_views import (
    concept_mastery_message,
    daily_goal_message,
    far_time,
    held_time,
    milestone_messages,
    stats_message,
    streak_message,
    touched_rows,
)

NOW = 1_800_000_000.0
TODAY = 20_833


@pytest.fixture
def catalog() -> Catalog:
    return build_catalog([Concept("a", 0), Concept("b", 2)], [], version=1)


def view_with(**changes: float) -> ConceptView:
    """Nothing is known of any of three concepts, but for what is said of the first."""
    view = concept_view(LearnerState.empty(), 3, LearnerModel.priors(), NOW)
    for name, value in changes.items():
        getattr(view, name)[0] = value
    return view


def test_a_concept_never_met_tells_no_more_than_its_prior(catalog: Catalog) -> None:
    message = concept_mastery_message(catalog, view_with(), 0, NOW)
    told = {field.name for field, _ in message.ListFields()}
    assert told == {"concept_id", "mastery", "mastery_sd"}


def test_dates_too_far_to_say_are_held_to_the_last_there_is(catalog: Catalog) -> None:
    view = view_with(
        stability=1e12,
        difficulty=5.0,
        retrievability=1.0,
        next_review_at=math.inf,
        fades_at=1e300,
        mastered=1,
    )
    message = concept_mastery_message(catalog, view, 0, NOW)
    assert message.next_review_time.ToDatetime().year == 9999
    assert message.expected_fade_time.ToDatetime().year == 9999
    assert message.stability.seconds == 315_576_000_000
    assert not message.due
    assert message.FromString(message.SerializeToString()) == message


@pytest.mark.parametrize("never", [math.nan, 0.0, -1.0])
def test_what_never_happens_has_no_time(never: float) -> None:
    assert far_time(never) is None


def test_times_keep_their_microseconds() -> None:
    assert held_time(NOW + 0.25).nanos == 250_000_000


def test_a_review_is_due_from_its_moment_on(catalog: Catalog) -> None:
    view = view_with(stability=1.0, difficulty=5.0, retrievability=0.9, next_review_at=NOW, attempts=1)
    assert concept_mastery_message(catalog, view, 0, NOW).due
    assert not concept_mastery_message(catalog, view, 0, NOW - 1.0).due


def test_what_was_only_exercised_through_others_is_no_review(catalog: Catalog) -> None:
    view = view_with(stability=1.0, difficulty=5.0, retrievability=0.5, next_review_at=NOW - 9.0, attempts=0)
    assert not concept_mastery_message(catalog, view, 0, NOW).due


def test_fading_is_told_of_the_mastered_only(catalog: Catalog) -> None:
    view = view_with(fades_at=NOW + 5.0, mastered_at=NOW - 5.0)
    message = concept_mastery_message(catalog, view, 0, NOW)
    assert not message.HasField("expected_fade_time")
    assert message.mastered_time.seconds == int(NOW) - 5


def test_touched_rows_leave_out_holes_and_rows_past_the_end(catalog: Catalog) -> None:
    concepts = np.zeros(4, LearnerState.CONCEPT)
    concepts["row"] = [0, 1, 2, 7]
    state = LearnerState(LearnerState.empty().header, concepts, LearnerState.empty().recent)
    assert touched_rows(state, catalog).tolist() == [0, 2]


def test_a_blank_learner_has_blank_statistics(catalog: Catalog) -> None:
    state, profile = LearnerState.empty(), LearnerProfile("u", time_zone="Asia/Tokyo")
    stats = stats_message(profile, state, None, catalog, view_with(), NOW)
    told = {field.name for field, _ in stats.ListFields()}
    assert told == {"learner_id", "practice_duration", "streak", "daily_goal"}
    assert streak_message(state, TODAY, NOW) == resources_pb2.Streak(next_milestone_days=3)
    goal = daily_goal_message(state, LearnerProfile("u", goal=LearnerGoal(daily_minutes=20.0)), TODAY)
    assert (goal.target_duration.seconds, goal.progress, goal.adaptive) == (1_200, 0.0, False)


def test_a_milestone_names_its_day() -> None:
    assert milestone_messages(0, TODAY) == []
    (reached,) = milestone_messages(7, TODAY)
    assert (reached.threshold, reached.kind) == (7, resources_pb2.MILESTONE_KIND_STREAK_DAYS)
    assert (reached.reached_date.year, reached.reached_date.month, reached.reached_date.day) == (2027, 1, 15)
    assert (reached.reward.badge_id, reached.reward.freezes_count) == ("streak-7", 1)
    (small,) = milestone_messages(3, TODAY)
    assert (small.reward.badge_id, small.reward.freezes_count) == ("streak-3", 0)

"""PlanPractice and goals: what the next days hold for a learner, and what lies on the way to a goal. Stores nothing."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from engine import habits
from engine.agenda import AgendaDay, gap_to, plan_days
from engine.catalog import Catalog
from engine.learner import ConceptView, LearnerState
from engine.types import LearnerGoal, LearnerProfile
from genie.v1 import progress_pb2
from server import convert
from server.learner_views import held_time
from server.local_days import day_start, local_day
from server.tenants import Bundle

DEFAULT_DAYS: Final = 7


def plan(
    profile: LearnerProfile, state: LearnerState, view: ConceptView, bundle: Bundle, now: float, days: int = 0
) -> tuple[range, list[AgendaDay]]:
    """(Day numbers, what each holds) of the next `days` days, today first; 0 takes the default."""
    today = local_day(now, profile.time_zone)
    numbers = range(today, today + (days or DEFAULT_DAYS))
    chosen_seconds = profile.goal.daily_minutes * 60.0
    planned = plan_days(
        state,
        view,
        bundle.catalog,
        day_ends=np.array([day_start(number + 1, profile.time_zone) for number in numbers]),
        target_seconds=habits.daily_goal(state, today, chosen_seconds=chosen_seconds).target_seconds,
        decay=float(bundle.learner_model.weights.constants[2]),
        goal=bundle.catalog.concept_row.get(profile.goal.concept_id),
    )
    return numbers, planned


def plan_messages(
    numbers: Sequence[int], days: Sequence[AgendaDay], catalog: Catalog, view: ConceptView
) -> list[progress_pb2.PlannedDay]:
    """A plan as messages."""
    return [_planned_day(number, day, catalog, view) for number, day in zip(numbers, days, strict=True)]


def goal_gap(goal: LearnerGoal, view: ConceptView, catalog: Catalog) -> list[int] | None:
    """Rows to master on the way to the goal's concept; None without one, or when the catalogue has lost it."""
    row = catalog.concept_row.get(goal.concept_id)
    return None if row is None else gap_to(row, view, catalog)


def _planned_day(number: int, day: AgendaDay, catalog: Catalog, view: ConceptView) -> progress_pb2.PlannedDay:
    names = catalog.concept_ids
    return progress_pb2.PlannedDay(
        date=convert.calendar_date(number),
        reviews=[
            progress_pb2.PlannedReview(
                concept_id=names[row],
                due_time=held_time(float(view.next_review_at[row])),
                retrievability=recall,
            )
            for row, recall in zip(day.reviews.tolist(), day.recall.tolist(), strict=True)
        ],
        opening_concept_ids=[names[row] for row in day.openings],
        expected_duration=convert.duration(day.expected_seconds),
    )

"""What a learner's state says, as messages: mastery, streak, daily goal, statistics, profile. Reads no store."""

import math
from collections.abc import Sequence

import numpy as np
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from engine import habits
from engine.catalog import Catalog
from engine.gaps import Footing, Gap
from engine.learner import ConceptView, LearnerModel, LearnerState, concept_view
from engine.types import I8, LearnerProfile
from genie.v1 import progress_pb2, resources_pb2
from server import convert
from server.local_days import local_day
from server.validate import MOST_TIMESTAMP_SECONDS

MOST_DURATION_SECONDS = 315_576_000_000.0
"""Where google.protobuf.Duration ends: 10,000 years."""


def view_of(state: LearnerState, catalog: Catalog, model: LearnerModel, now: float) -> ConceptView:
    """A learner's standing in every concept row of the catalogue at `now`."""
    return concept_view(state, catalog.concept_count, model, now)


def touched_rows(state: LearnerState, catalog: Catalog) -> I8:
    """Rows of the catalogue's concepts that answers exercised, also through what encompasses them, ascending."""
    rows: I8 = state.concepts["row"].astype(np.int64)
    held = rows < catalog.concept_count
    held[held] = catalog.concept_active[rows[held]] == 1
    return rows[held]


def due(view: ConceptView, row: int, now: float) -> bool:
    """Whether a concept's review is due; never for one that was only exercised through what encompasses it."""
    return bool(view.next_review_at[row] <= now and view.attempts[row] > 0)


def due_rows(view: ConceptView, rows: I8, now: float) -> I8:
    """Those of `rows` whose review is due."""
    return rows[(view.next_review_at[rows] <= now) & (view.attempts[rows] > 0)]


def concept_mastery_message(
    catalog: Catalog, view: ConceptView, row: int, now: float
) -> progress_pb2.ConceptMastery:
    """Where the learner stands with the concept at `row`."""
    remembered = not math.isnan(view.stability[row])
    mastered = bool(view.mastered[row])
    message = progress_pb2.ConceptMastery(
        concept_id=catalog.concept_ids[row],
        mastery=float(view.mastery[row]),
        mastery_sd=float(view.mastery_sd[row]),
        mastered=mastered,
        mastered_time=far_time(float(view.mastered_at[row])),
        expected_fade_time=far_time(float(view.fades_at[row])) if mastered else None,
        attempts_count=int(view.attempts[row]),
        correct_count=int(view.correct[row]),
        last_practice_time=far_time(float(view.last_at[row])),
    )
    if remembered:
        message.retrievability = float(view.retrievability[row])
        message.stability.CopyFrom(_days(float(view.stability[row])))
        message.memory_difficulty = float(view.difficulty[row])
        message.next_review_time.CopyFrom(held_time(float(view.next_review_at[row])))
        message.due = due(view, row, now)
    return message


def streak_message(state: LearnerState, local_day: int, now: float) -> resources_pb2.Streak:
    """The streak as it stands at `now`, on the learner's `local_day`."""
    streak = habits.streak(state, local_day, now)
    return resources_pb2.Streak(
        current_days=streak.current_days,
        longest_days=streak.longest_days,
        freezes_count=streak.freezes,
        practised_today=streak.practised_today,
        last_practice_date=None if streak.last_day is None else convert.calendar_date(streak.last_day),
        freezes_used_count=streak.freezes_spent,
        next_milestone_days=habits.next_milestone(streak.current_days),
    )


def daily_goal_message(
    state: LearnerState, profile: LearnerProfile, local_day: int
) -> resources_pb2.DailyGoal:
    """How far the learner is with the practice of `local_day`."""
    goal = habits.daily_goal(state, local_day, chosen_seconds=profile.goal.daily_minutes * 60.0)
    return resources_pb2.DailyGoal(
        target_duration=convert.duration(goal.target_seconds),
        practised_duration=convert.duration(goal.practised_seconds),
        progress=goal.progress,
        adaptive=goal.adaptive,
    )


def milestone_messages(milestone: int, local_day: int) -> list[resources_pb2.Milestone]:
    """The milestone of a streak that an answer of `local_day` reached; none when `milestone` is 0."""
    if milestone == 0:
        return []
    return [
        resources_pb2.Milestone(
            kind=resources_pb2.MILESTONE_KIND_STREAK_DAYS,
            threshold=milestone,
            reached_date=convert.calendar_date(local_day),
            reward=resources_pb2.Reward(
                badge_id=f"streak-{milestone}", freezes_count=habits.freezes_with(milestone)
            ),
        )
    ]


def stats_message(
    profile: LearnerProfile,
    state: LearnerState,
    first_day: int | None,
    catalog: Catalog,
    view: ConceptView,
    now: float,
) -> progress_pb2.LearnerStats:
    """Totals, streak and goal at `now`; concepts that the catalogue no longer holds are not counted.

    `first_day` is that of the first answer, None before it.
    """
    header = state.header[0]
    today = local_day(now, profile.time_zone)
    rows = touched_rows(state, catalog)
    answers_today, _ = state.day_totals(today, 1)
    message = progress_pb2.LearnerStats(
        learner_id=profile.learner_id,
        answers_count=state.applied,
        correct_count=int(header["correct"]),
        practice_duration=convert.duration(int(header["practice_ms"]) / 1e3),
        touched_concepts_count=int((view.attempts[rows] > 0).sum()),
        mastered_concepts_count=int(view.mastered[rows].sum()),
        due_concepts_count=len(due_rows(view, rows, now)),
        answers_today_count=int(answers_today[0]),
        streak=streak_message(state, today, now),
        daily_goal=daily_goal_message(state, profile, today),
        risks=risk_messages(state, today, now),
    )
    if first_day is not None:
        message.accuracy = int(header["correct"]) / state.applied
        message.first_answer_time.CopyFrom(convert.timestamp(float(header["first_at"])))
        message.last_answer_time.CopyFrom(convert.timestamp(float(header["last_at"])))
        share = habits.consistency(state, today, first_day)
        if share is not None:
            message.consistency = share
    return message


def risk_messages(state: LearnerState, local_day: int, now: float) -> list[progress_pb2.RiskReason.ValueType]:
    """Why the learner is at risk at `now`."""
    return [progress_pb2.RiskReason.ValueType(risk) for risk in habits.risks(state, local_day, now)]


def gap_messages(
    gaps: Sequence[Gap], view: ConceptView | Footing, catalog: Catalog
) -> list[progress_pb2.LearningGap]:
    """Where the learner is stuck, with what lies behind it, in the order of `gaps`."""
    names = catalog.concept_ids
    return [
        progress_pb2.LearningGap(
            concept_id=names[gap.row],
            mastery=float(view.mastery[gap.row]),
            attempts_count=int(view.attempts[gap.row]),
            recent_wrong_count=gap.wrong,
            causes=[
                progress_pb2.GapCause(
                    concept_id=names[cause.row],
                    kind=progress_pb2.GapCauseKind.ValueType(cause.kind),
                    mastery=float(view.mastery[cause.row]),
                    attempts_count=int(view.attempts[cause.row]),
                    path_concept_ids=[names[row] for row in cause.path],
                )
                for cause in gap.causes
            ],
        )
        for gap in gaps
    ]


def held_time(seconds: float) -> Timestamp:
    """A Timestamp of a moment that may lie beyond what a Timestamp can say: held to the year 9999."""
    return convert.timestamp(min(max(seconds, 0.0), MOST_TIMESTAMP_SECONDS))


def far_time(seconds: float) -> Timestamp | None:
    """The same, and None for what never happens (0 or NaN)."""
    return held_time(seconds) if seconds > 0.0 else None


def _days(days: float) -> Duration:
    return convert.duration(min(days * 86_400.0, MOST_DURATION_SECONDS))


def masteries(
    catalog: Catalog, view: ConceptView, rows: Sequence[int], now: float
) -> list[progress_pb2.ConceptMastery]:
    """Messages of several concepts, in the order of `rows`."""
    return [concept_mastery_message(catalog, view, int(row), now) for row in rows]

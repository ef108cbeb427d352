"""Days of practice: streak, daily goal and consistency, settled when asked. Reads a learner's state, changes nothing.

Days are numbers (0 is 1970-01-01) on the learner's own calendar. The state remembers the last `DAYS` of them.
"""

from typing import NamedTuple

import numpy as np

from engine.learner import LearnerState
from engine.learner.state import DAYS
from engine.types import F8, I8

GOAL_DAYS = 28
"""Days before today that the adaptive goal looks at."""

GOAL_PUSH = 1.1
"""The adaptive goal lies this factor above the median day of practice: a little more than usual."""

GOAL_LEAST_S = 300.0
GOAL_MOST_S = 7200.0
"""The adaptive goal stays between 5 minutes and 2 hours."""

GOAL_FIRST_S = 600.0
"""Goal until `GOAL_EVIDENCE_DAYS` days of practice are known: 10 minutes."""

GOAL_EVIDENCE_DAYS = 3

PLANNED_DAYS_A_WEEK = 5
"""Days of practice that make a week complete; two days off cost nothing."""

WEEK_FADE = 0.8
"""Weight of a week in `consistency` against the week after it."""


class Streak(NamedTuple):
    """Days in a row with practice, as they stand on the day asked for."""

    current_days: int
    longest_days: int
    freezes: int
    practised_today: bool
    last_day: int | None
    """Last day with practice; None before the first answer."""


class DailyGoal(NamedTuple):
    """Practice planned for a day, and done on it."""

    target_seconds: float
    practised_seconds: float
    adaptive: bool

    @property
    def progress(self) -> float:
        """Practised share of the target, at most 1."""
        return min(self.practised_seconds / self.target_seconds, 1.0)


def streak(state: LearnerState, local_day: int) -> Streak:
    """Return the streak on `local_day`: a missed day is covered by a freeze, and today is not missed yet."""
    header = state.header[0]
    current, freezes = state.streak_on(local_day)
    answers, _ = state.day_totals(local_day, 1)
    return Streak(
        current_days=current,
        longest_days=int(header["longest_streak"]),
        freezes=freezes,
        practised_today=bool(answers[0]),
        last_day=int(header["last_day"]) if state.applied else None,
    )


def daily_goal(state: LearnerState, local_day: int, *, chosen_seconds: float = 0.0) -> DailyGoal:
    """Return the goal of `local_day`; `chosen_seconds` above 0 is the learner's own and does not adapt.

    The adaptive goal is the median practice of the last days *with* practice times `GOAL_PUSH`, in whole minutes:
    a break neither lowers nor raises it.
    """
    _, practised = state.day_totals(local_day, 1)
    done = float(practised[0])
    if chosen_seconds > 0.0:
        return DailyGoal(chosen_seconds, done, adaptive=False)
    days = practice_days(state, local_day, GOAL_DAYS)
    target = GOAL_FIRST_S
    if days.shape[0] >= GOAL_EVIDENCE_DAYS:
        pushed = np.ceil(np.median(days) * GOAL_PUSH / 60.0) * 60.0
        target = float(np.clip(pushed, GOAL_LEAST_S, GOAL_MOST_S))
    return DailyGoal(target, done, adaptive=True)


def practice_days(state: LearnerState, local_day: int, days: int) -> F8:
    """Return the seconds of each day with answers among the `days` days before `local_day`, oldest first."""
    answers, seconds = state.day_totals(local_day - 1, days)
    return seconds[answers > 0].astype(np.float64)


def consistency(state: LearnerState, local_day: int, first_day: int) -> float | None:
    """Return the share of planned days met, in [0, 1], or None before the first week is over.

    Weeks are blocks of seven days that end yesterday, as far as the learner was there for all of one and the state
    remembers it. A week is met by the share of `PLANNED_DAYS_A_WEEK` with at least one answer; each counts
    `WEEK_FADE` times the one after it. `first_day` is the day of the learner's first answer.
    """
    weeks = min((local_day - first_day) // 7, (DAYS - 1) // 7)
    if state.applied == 0 or weeks < 1:
        return None
    answers, _ = state.day_totals(local_day - 1, weeks * 7)
    met = np.minimum((answers.reshape(weeks, 7) > 0).sum(1) / PLANNED_DAYS_A_WEEK, 1.0)
    weight = WEEK_FADE ** np.arange(weeks - 1, -1, -1)
    return float((met * weight).sum() / weight.sum())


def active_share(state: LearnerState, local_day: int, first_day: int, days: int = GOAL_DAYS) -> float | None:
    """Return the share of the last `days` days with an answer, in [0, 1], or None before the first week is over.

    Today counts. A learner who came later than that is judged by the days since the first answer.
    """
    known = min(days, local_day - first_day + 1)
    if state.applied == 0 or known < 7:
        return None
    answers: I8 = state.day_totals(local_day, known)[0]
    return float((answers > 0).mean())

"""Days of practice: streak, goal, consistency, risk, settled when asked. Reads a learner's state, changes nothing.

Days are numbers (0 is 1970-01-01) on the learner's own calendar. The state remembers the last `DAYS` of them.
"""

import math
from enum import IntEnum
from statistics import median
from typing import Final, NamedTuple

import numpy as np

from engine.learner import MILESTONES, LearnerState
from engine.learner.days import DAYS, REWARDED_FROM
from engine.learner.update import GLOBAL_DECAY
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


LAPSED_DAYS: Final = 28
"""Away longer than this, a learner is no longer at risk but gone."""

RISK_STREAK_DAYS: Final = 3
"""A streak of so many days is worth saving."""

RISK_DAYS: Final = 14
"""Days on either side of the comparison that tells who practises less."""

RISK_AWAY_DAYS: Final = 3
"""Nobody is called away before so many days have passed without practice."""

RISK_AWAY_UNKNOWN_DAYS: Final = 7
"""The same for who has practised on fewer than `GOAL_EVIDENCE_DAYS` days in the six weeks up to the last."""

RISK_AWAY_FACTOR: Final = 2.0
"""Away is a pause longer than this many of the learner's own usual gaps."""

RISK_DECLINE: Final = 0.5
RISK_ACCURACY: Final = 0.5
RISK_ANSWERS: Final = 20
"""Who practises less than half as much, or fails more than half of the latest of at least 20 answers."""

_FORM: Final = 2
"""Which of `GLOBAL_DECAY` recent accuracy is read with: 0.95, an answer counts half after 14 more."""


class Risk(IntEnum):
    """Why a learner who is still there may soon not be. Numbers are the wire API's `RiskReason`."""

    STREAK_ENDING = 1
    """A streak of `RISK_STREAK_DAYS` or more ends tonight: no practice today, and no freeze in hand."""
    AWAY = 2
    """No practice for longer than usual, yet for no more than `LAPSED_DAYS` days."""
    DECLINING = 3
    """Less than half the practice of the two weeks before, in the last two."""
    STRUGGLING = 4
    """More than half of the latest answers wrong."""


class Streak(NamedTuple):
    """Days in a row with practice, as they stand on the day asked for."""

    current_days: int
    longest_days: int
    freezes: int
    """In hand."""
    freezes_spent: int
    """Used so far, those that cover the days missed since the last practice included."""
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


def streak(state: LearnerState, local_day: int, now: float = math.inf) -> Streak:
    """Return the streak on `local_day`: a missed day is covered by a freeze, and today is not missed yet.

    `now`, in epoch seconds, tells a date that a traveller skipped from a day missed.
    """
    header = state.header[0]
    current, freezes = state.streak_on(local_day, now)
    answers, _ = state.day_totals(local_day, 1)
    return Streak(
        current_days=current,
        longest_days=int(header["longest_streak"]),
        freezes=freezes,
        freezes_spent=int(header["freezes_spent"]) + int(header["freezes"]) - freezes,
        practised_today=bool(answers[0]),
        last_day=int(header["last_day"]) if state.applied else None,
    )


def next_milestone(streak_days: int) -> int | None:
    """Return the next streak in days that is a milestone; None past the last."""
    return next((milestone for milestone in MILESTONES if milestone > streak_days), None)


def freezes_with(milestone: int) -> int:
    """Return the freezes that reaching a milestone earns."""
    return int(milestone >= REWARDED_FROM)


def recent_accuracy(state: LearnerState) -> float | None:
    """Return the share of right answers, recent ones heavier (0.95 an answer), in [0, 1]; None before the first."""
    if not state.applied:
        return None
    decay = GLOBAL_DECAY[_FORM]
    weight = (1.0 - decay**state.applied) / (1.0 - decay)
    outcome = float(state.header[0]["outcome"][_FORM]) / weight
    return min(max((outcome + 1.0) / 2.0, 0.0), 1.0)


def days_away(state: LearnerState, local_day: int) -> int | None:
    """Return the days since the last day with practice, 0 on that day; None before the first answer."""
    return max(local_day - int(state.header[0]["last_day"]), 0) if state.applied else None


def usual_gap(state: LearnerState) -> float | None:
    """Return the mean days from one practice day to the next, in the six weeks up to the last; None when unknown."""
    if not state.applied:
        return None
    answers, _ = state.day_totals(int(state.header[0]["last_day"]))
    practised = np.flatnonzero(answers)
    if practised.shape[0] < GOAL_EVIDENCE_DAYS:
        return None
    return float((practised[-1] - practised[0]) / (practised.shape[0] - 1))


def risks(state: LearnerState, local_day: int, now: float = math.inf) -> list[Risk]:
    """Return why the learner is at risk on `local_day`, in order of `Risk`; none for who is gone or never came.

    AWAY: days since the last practice > max(`RISK_AWAY_DAYS`, `RISK_AWAY_FACTOR` · `usual_gap`). DECLINING compares
    practice time in the last `RISK_DAYS` days, today included, with as many before, which must hold practice on
    `GOAL_EVIDENCE_DAYS` days. STRUGGLING needs `RISK_ANSWERS` answers.
    """
    away = days_away(state, local_day)
    if away is None or away > LAPSED_DAYS:
        return []
    found = []
    standing = streak(state, local_day, now)
    unpractised = not standing.practised_today and standing.freezes == 0
    if unpractised and standing.current_days >= RISK_STREAK_DAYS:
        found.append(Risk.STREAK_ENDING)
    gap = usual_gap(state)
    usual = RISK_AWAY_UNKNOWN_DAYS if gap is None else max(RISK_AWAY_FACTOR * gap, RISK_AWAY_DAYS)
    if away > usual:
        found.append(Risk.AWAY)
    answers, seconds = state.day_totals(local_day, 2 * RISK_DAYS)
    before = float(seconds[:RISK_DAYS].sum())
    evidence = (answers[:RISK_DAYS] > 0).sum() >= GOAL_EVIDENCE_DAYS
    if evidence and float(seconds[RISK_DAYS:].sum()) < RISK_DECLINE * before:
        found.append(Risk.DECLINING)
    accuracy = recent_accuracy(state)
    if accuracy is not None and state.applied >= RISK_ANSWERS and accuracy < RISK_ACCURACY:
        found.append(Risk.STRUGGLING)
    return found


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
        pushed = math.ceil(median(days.tolist()) * GOAL_PUSH / 60.0) * 60.0
        target = min(max(pushed, GOAL_LEAST_S), GOAL_MOST_S)
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

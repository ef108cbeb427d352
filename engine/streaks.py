"""Which days of practice carried a streak on, how long each streak was, and when it ended or will. Changes nothing.

The rule is that of `engine.learner.days.update_day`; days are numbers on the learner's own calendar.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from engine.learner import MILESTONES, LearnerState
from engine.learner.days import MOST_FREEZES, MOST_U2, earns_freeze, missed_days
from engine.types import F8, I4, U2


class StreakStand(NamedTuple):
    """Where a streak stands after an answer."""

    last_day: int
    last_at: float
    """Epoch seconds of the newest answer, which a traveller may have given on an earlier date."""
    days: int
    freezes: int

    @property
    def ends_on(self) -> int:
        """The first day on whose morning the streak is lost, by the calendar, if there is no practice before."""
        return self.last_day + self.freezes + 2


class StreakChanges(NamedTuple):
    """What days of practice did to a learner's streaks."""

    kept: list[int]
    """Days that carried a streak on."""
    ends: Counter[int]
    """By day: streaks that end on it after all of this, less those that were to end on it before."""


def stand_of(state: LearnerState) -> StreakStand | None:
    """The streak as a state holds it; None before the first day of practice."""
    header = state.header[0]
    if int(header["days_practised"]) == 0:
        return None
    return StreakStand(
        int(header["last_day"]), float(header["last_at"]), int(header["day_streak"]), int(header["freezes"])
    )


def follow(
    stand: StreakStand | None, answers: Iterable[tuple[int, float]]
) -> tuple[StreakStand | None, StreakChanges]:
    """Take in answers as (local day, epoch seconds), in the order of time; days before the newest change nothing."""
    kept: list[int] = []
    ends: Counter[int] = Counter()
    for day, at in answers:
        if stand is not None and day <= stand.last_day:
            stand = stand._replace(last_at=at)
            continue
        ahead = _new_day(stand, day, at)
        if stand is not None and ahead.days > 1:
            kept.append(day)
            ends[stand.ends_on] -= 1
        stand = ahead
        ends[stand.ends_on] += 1
    return stand, StreakChanges(kept, ends)


def _new_day(stand: StreakStand | None, day: int, at: float) -> StreakStand:
    """Where a streak stands after the first answer of a day that is newer than all before."""
    streak, freezes = 1, 0
    if stand is not None:
        missed = missed_days(stand.last_day, day, at - stand.last_at)
        freezes = stand.freezes
        if missed <= freezes:
            freezes -= missed
            streak = min(stand.days + 1, MOST_U2)
    if earns_freeze(streak):
        freezes = min(freezes + 1, MOST_FREEZES)
    return StreakStand(day, at, streak, freezes)


class StreakLengths(NamedTuple):
    """What each of n answers did to the streak; both (n,)."""

    streak: U2
    """Streak in days after the answer."""
    milestone: U2
    """The milestone (days) that the answer reached, else 0."""


def streak_lengths(local_day: I4, answered_at: F8) -> StreakLengths:
    """Return what ALL of a learner's answers, in the order of time, did to the streak.

    For answers that came in time this is what was logged with them. Where one came late, what was logged with those
    after it is out of date, and this is right.
    """
    size = local_day.shape[0]
    newest = np.maximum.accumulate(local_day.astype(np.int64))
    begins = np.flatnonzero(np.diff(newest, prepend=newest[:1] - 1))
    days, times = newest.tolist(), answered_at.tolist()
    lengths = []
    stand: StreakStand | None = None
    for i in begins.tolist():
        if stand is not None:
            stand = stand._replace(last_at=times[i - 1])
        stand = _new_day(stand, days[i], times[i])
        lengths.append(stand.days)
    found = np.array(lengths, np.uint16)
    milestone = np.zeros(size, np.uint16)
    milestone[begins] = np.where(np.isin(found, MILESTONES), found, 0)
    return StreakLengths(np.repeat(found, np.diff(begins, append=size)), milestone)


def milestones_since(before: StreakLengths, before_day: I4, after: StreakLengths, after_day: I4) -> list[int]:
    """Return the places in `after` of milestones that `before` does not have, where answers were put between.

    One that a streak has reached on another day than before is not new. `*_day` are the answers' local days.
    """
    # Streaks by number: a day belongs to the last one that began on it or before.
    starts = np.maximum.accumulate(after_day)[after.streak == 1]
    had, has = np.flatnonzero(before.milestone), np.flatnonzero(after.milestone)
    number_had = np.searchsorted(starts, before_day[had], "right").tolist()
    number_has = np.searchsorted(starts, after_day[has], "right").tolist()
    told = set(zip(number_had, before.milestone[had].tolist(), strict=True))
    reached = zip(has.tolist(), number_has, after.milestone[has].tolist(), strict=True)
    return [place for place, number, length in reached if (number, length) not in told]

"""Which days of practice carried a streak on, and when each streak ended or will: for counting them. Changes nothing.

The rule is that of `engine.learner.days.update_day`; days are numbers on the learner's own calendar.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from engine.learner import LearnerState
from engine.learner.days import MOST_FREEZES, MOST_U2, earns_freeze, missed_days


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
        streak, freezes = 1, 0
        if stand is not None:
            missed = missed_days(stand.last_day, day, at - stand.last_at)
            freezes = stand.freezes
            if missed <= freezes:
                freezes -= missed
                streak = min(stand.days + 1, MOST_U2)
                kept.append(day)
                ends[stand.ends_on] -= 1
        if earns_freeze(streak):
            freezes = min(freezes + 1, MOST_FREEZES)
        stand = StreakStand(day, at, streak, freezes)
        ends[stand.ends_on] += 1
    return stand, StreakChanges(kept, ends)

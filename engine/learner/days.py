"""Practice days on a learner's own calendar: streaks, freezes, the ring of days. Knows nothing of what was learned."""

import math
from typing import Any, Final

from engine.jit import lean_kernel
from engine.learner.memory import SECONDS_A_DAY

DAYS = 42
"""Local days the header remembers; a ring indexed by day number modulo this."""
FREEZE_EVERY_DAYS = 7
MOST_FREEZES = 2
MILESTONES: Final = (3, 7, 14, 30, 60, 100, 365)
"""Streaks in days that are worth a word and a reward."""
REWARDED_FROM: Final = 7
"""From this milestone on, reaching one earns a freeze too."""
DAY_SLACK_S: Final = 3600.0
"""A day may be this much shorter than 24 hours, when clocks go forward."""
MOST_U2 = 65535


@lean_kernel
def earns_freeze(streak: int) -> bool:
    """Whether the day that brings a streak to this length earns a freeze: every 7th, and milestones from 7 on."""
    if streak % FREEZE_EVERY_DAYS == 0:
        return streak > 0
    for milestone in MILESTONES:
        if streak == milestone:
            return streak >= REWARDED_FROM
    return False


@lean_kernel
def missed_days(last_day: int, day: int, elapsed: float) -> int:
    """Days missed between practice on `last_day` and `day`, `elapsed` seconds later.

    Those between them on the calendar, but no more than there was time for: who flies east over the date line skips a
    date without having missed a day.
    """
    lived = math.floor((max(elapsed, 0.0) + DAY_SLACK_S) / SECONDS_A_DAY)
    return max(min(day - last_day - 1, lived), 0)


@lean_kernel
def update_day(header: Any, day: int, at: float, seconds: float) -> None:
    """Count a practice day: streak, freezes earned and spent, and the ring of days.

    A missed day (`missed_days`) is covered by a freeze; `earns_freeze` says when one is earned, 2 are kept at most. An
    answer dated before the newest day (a learner who flew west) counts for its own day and leaves the streak alone.
    """
    # `+ 0` makes any integer a signed 64-bit one, so that what takes it is compiled once.
    slot = day % DAYS
    if header.days_practised == 0 or day > header.last_day:
        passed = day - header.last_day - 1
        missed = missed_days(header.last_day + 0, day, at - header.last_at)
        if header.days_practised > 0 and missed <= header.freezes:
            header.freezes -= missed
            header.freezes_spent = min(header.freezes_spent + missed, MOST_U2)
            header.day_streak = min(header.day_streak + 1, MOST_U2)
        else:
            header.day_streak = 1
        if earns_freeze(header.day_streak + 0):
            header.freezes = min(header.freezes + 1, MOST_FREEZES)
        header.longest_streak = max(header.longest_streak, header.day_streak)
        clear = min(passed + 1, DAYS) if header.days_practised > 0 else DAYS
        for back in range(clear):
            header.day_answers[(day - back) % DAYS] = 0
            header.day_seconds[(day - back) % DAYS] = 0
        header.days_practised += 1
        header.last_day = day
    if day > header.last_day - DAYS:
        header.day_answers[slot] = min(header.day_answers[slot] + 1, MOST_U2)
        header.day_seconds[slot] = min(header.day_seconds[slot] + math.floor(seconds + 0.5), MOST_U2)

"""Figures of learning from the store's tallies: who is active, what was done, which share. Counts nothing itself."""

from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple

from store.api import Partition, Store, StoreError
from store.slates import settle
from store.tallies import CELLS, Tally, feedback_cell, read_days, read_sums

WEEK = 7
MONTH = 30
MOST_DAYS_AHEAD = 2
"""How far ahead of now a day may be counted: clocks may be a day ahead, and calendars another."""
CLICKED_KIND = 2
SHOWN_KIND = 1
"""Kinds of feedback, as the wire API numbers them."""


class LearningFigures(NamedTuple):
    """What was done in a tenant, as of a UTC day."""

    today: list[int]
    """Cells of the day (`store.tallies.Tally`), those of the serving store included."""
    sums: list[int]
    """Cells summed over all days, those of the serving store included."""
    active_day: int
    active_week: int
    active_month: int
    """Learners with an answer in the last 1, 7, 30 days, today included."""
    learners: int
    """Learners with an answer, ever, who were not erased."""
    week_practice_ms: int
    """In the last 7 days, today included."""
    streaks_kept: int
    """Days on which a streak was carried on, in the last 7 complete days."""
    streaks_lost: int
    """Streaks that were lost in the last 7 complete days."""
    clicked: int
    """CLICKED events of the last 7 days, today included."""
    shown: int
    """SHOWN events of the last 7 days, today included."""

    @property
    def streak_maintenance(self) -> float | None:
        """Streak days kept ÷ (kept + streaks lost); None when there were none."""
        both = self.streaks_kept + self.streaks_lost
        return self.streaks_kept / both if both else None

    @property
    def click_through(self) -> float | None:
        """CLICKED ÷ SHOWN, at most 1; None without SHOWN events."""
        return min(self.clicked / self.shown, 1.0) if self.shown else None

    @classmethod
    def together(cls, figures: Sequence["LearningFigures"]) -> "LearningFigures":
        """The figures of several tenants, one at least, as if they were one."""
        today, sums = (
            [sum(cells) for cells in zip(*(f[place] for f in figures), strict=True)] for place in (0, 1)
        )
        return cls(today, sums, *(sum(column) for column in zip(*(f[2:] for f in figures), strict=True)))


def learning_figures(state: Store, serving: Store, tenant: str, today: int) -> LearningFigures:
    """The figures of a tenant as of the UTC day `today`; slates that cannot be moved now count later.

    Raises StoreError.
    """
    own = Partition(tenant)
    with state.read(own) as reader:
        days = read_days(reader, today - MONTH, today + MOST_DAYS_AHEAD)
        sums = read_sums(reader)
    # A disk that is full must not hide the figures.
    with suppress(StoreError):
        settle(serving)
    with serving.read(own) as reader:
        shown = read_days(reader, today, today).get(today, [0] * CELLS)
        all_shown = read_sums(reader)

    def over(tally: int, first: int, last: int) -> int:
        return sum(cells[tally] for day, cells in days.items() if first <= day <= last)

    def active(span: int) -> int:
        # Those whose clock is ahead are active today too.
        return over(Tally.LAST_ACTIVE, today - span + 1, today + MOST_DAYS_AHEAD)

    return LearningFigures(
        today=_both(days.get(today, [0] * CELLS), shown),
        sums=_both(sums, all_shown),
        active_day=active(1),
        active_week=active(WEEK),
        active_month=active(MONTH),
        learners=sums[Tally.LAST_ACTIVE],
        week_practice_ms=over(Tally.PRACTICE_MS, today - WEEK + 1, today),
        streaks_kept=over(Tally.STREAKS_KEPT, today - WEEK, today - 1),
        streaks_lost=over(Tally.STREAKS_END, today - WEEK, today - 1),
        clicked=over(feedback_cell(CLICKED_KIND), today - WEEK + 1, today),
        shown=over(feedback_cell(SHOWN_KIND), today - WEEK + 1, today),
    )


def _both(state: list[int], serving: list[int]) -> list[int]:
    return [a + b for a, b in zip(state, serving, strict=True)]

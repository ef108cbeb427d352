"""What a day or a week of answers amounts to, for a learner and summed over learners. Reads no store, names nobody."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.agenda import AgendaDay
from engine.gaps import Gap
from engine.habits import Risk
from engine.history import DayHistory, session_starts, some_days
from engine.learner import LearnerState
from engine.types import F8, I8, U2, AnswerBatch

I1 = npt.NDArray[np.int8]

HARD_ANSWERS: Final = 5
"""Answers from which a concept may be called hard."""


class Practice(NamedTuple):
    """Sums over a period; they add up over learners."""

    active_days: int = 0
    sessions: int = 0
    answers: int = 0
    correct: int = 0
    seconds: float = 0.0
    mastered: int = 0
    lost: int = 0

    def plus(self, other: "Practice") -> "Practice":
        """Return both together."""
        return Practice._make(mine + yours for mine, yours in zip(self, other, strict=True))


class Answers(NamedTuple):
    """A learner's answers in the order in which they are applied, complete from some day on; n answers, m pairs."""

    batch: AnswerBatch
    crossed: I1
    """(m,) 1 where a concept became mastered, -1 where mastery was lost, else 0."""
    streak: U2
    """(n,) streak after each answer."""
    milestone: U2
    """(n,) the milestone that each answer reached, else 0."""


@dataclass(frozen=True, slots=True)
class LearnerPeriod:
    """What a learner did on the days `first` to `last`."""

    first: int
    last: int
    practice: Practice
    before: Practice
    """Over as many days before."""
    days: DayHistory
    """Days of the period with answers."""
    mastered_rows: I8
    """Concepts that became mastered, ascending."""
    lost_rows: I8
    """Concepts whose mastery was lost and not earned again, ascending."""
    milestones: list[tuple[int, int]]
    """(day, streak in days)."""
    concept_rows: I8
    """(c,) concepts whose own questions were answered, ascending."""
    concept_answers: I8
    concept_correct: I8
    """(c,) answers to them."""
    streak_held: bool
    """The learner practised on the day before the period."""
    streak_kept: bool
    """And that streak still ran when the period was over."""


def learner_period(
    answers: Answers, history: DayHistory, state: LearnerState, first: int, last: int
) -> LearnerPeriod:
    """Sum up the days `first` to `last`.

    `answers` are complete from as many days before `first`; `history` is their `day_history`. Whether a streak that
    was not fed on the last day was kept is read off the next answer where there is one (it carries on, or begins
    anew), else off the state: freezes count as they would have.
    """
    batch = answers.batch
    day = batch.local_day.astype(np.int64)
    span = last - first + 1
    starts = day[session_starts(batch.answered_at)]
    inside = (day >= first) & (day <= last)
    pairs = np.repeat(inside, np.diff(batch.offsets))
    crossed, concept = answers.crossed[pairs], batch.concept[pairs].astype(np.int64)
    own = batch.weight[pairs] >= 1.0
    right = np.repeat(batch.correct, np.diff(batch.offsets))[pairs][own]
    rows, at = np.unique(concept[own], return_inverse=True)
    shown = (history.day >= first) & (history.day <= last)
    held, kept = _streak_kept(day, answers.streak, state, first, last)
    return LearnerPeriod(
        first=first,
        last=last,
        practice=_practice(history, starts, first, last),
        before=_practice(history, starts, first - span, first - 1),
        days=some_days(history, shown),
        mastered_rows=np.unique(concept[crossed == 1]),
        lost_rows=_last_lost(concept, crossed),
        milestones=[
            (int(day[i]), int(answers.milestone[i])) for i in np.flatnonzero(inside & (answers.milestone > 0))
        ],
        concept_rows=rows,
        concept_answers=np.bincount(at, minlength=rows.shape[0]).astype(np.int64),
        concept_correct=np.bincount(at, right, minlength=rows.shape[0]).astype(np.int64),
        streak_held=held,
        streak_kept=kept,
    )


def _practice(history: DayHistory, session_days: I8, first: int, last: int) -> Practice:
    chosen = slice(*np.searchsorted(history.day, (first, last + 1)).tolist())
    return Practice(
        active_days=int(history.day[chosen].shape[0]),
        sessions=int(((session_days >= first) & (session_days <= last)).sum()),
        answers=int(history.answers[chosen].sum()),
        correct=int(history.correct[chosen].sum()),
        seconds=float(history.seconds[chosen].sum()),
        mastered=int(history.mastered[chosen].sum()),
        lost=int(history.lost[chosen].sum()),
    )


def _last_lost(concept: I8, crossed: I1) -> I8:
    """Rows whose last crossing of the line was downwards."""
    at = np.flatnonzero(crossed)
    last = dict(zip(concept[at].tolist(), crossed[at].tolist(), strict=True))
    return np.array(sorted(row for row, kind in last.items() if kind < 0), np.int64)


def _streak_kept(day: I8, streak: U2, state: LearnerState, first: int, last: int) -> tuple[bool, bool]:
    """(whether the day before `first` was practised, whether that streak still ran after `last`)."""
    if not (day == first - 1).any():
        return False, False
    # Days after the first have a streak of 1 only where it began anew.
    inside = day[(day >= first) & (day <= last)]
    if (streak[(day >= first) & (day <= last)] == 1).any():
        return True, False
    if inside.size and inside.max() == last:
        return True, True
    later = np.flatnonzero(day > last)
    if later.size:
        return True, bool(streak[later[np.argmin(day[later])]] > 1)
    return True, state.streak_on(last + 1)[0] > 0


class Standing(NamedTuple):
    """Where a learner stands when the report is made."""

    mastered: int
    """Concepts mastered."""
    risks: Sequence[Risk]
    lapsed: bool
    gaps: Sequence[Gap]
    path: Sequence[AgendaDay]


@dataclass(slots=True)
class TenantTally:
    """Exact sums over learners, added one at a time; memory in proportion to concepts, not to learners."""

    first: int
    last: int
    concepts: int
    """Concept rows."""
    learners: int = 0
    active: int = 0
    active_before: int = 0
    new: int = 0
    practice: Practice = field(default_factory=Practice)
    before: Practice = field(default_factory=Practice)
    mastered: int = 0
    milestones: int = 0
    streaks_held: int = 0
    streaks_kept: int = 0
    at_risk: int = 0
    lapsed: int = 0
    risks: Counter[Risk] = field(default_factory=Counter)
    gaps: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Learners by (concept row, row of the most likely cause or -1)."""
    days: F8 = field(init=False)
    """(days, 5) learners, answers, correct, seconds, concepts mastered."""
    by_concept: I8 = field(init=False)
    """(concepts, 3) answers, correct, learners."""
    planned: I8 = field(init=False)
    """(concepts, 2) learners with a review, learners with an opening."""

    def __post_init__(self) -> None:
        """Start all sums at 0."""
        self.days = np.zeros((self.last - self.first + 1, 5))
        self.by_concept = np.zeros((self.concepts, 3), np.int64)
        self.planned = np.zeros((self.concepts, 2), np.int64)

    def add(self, period: LearnerPeriod, standing: Standing, first_answer_day: int | None) -> None:
        """Count one learner; `first_answer_day` is that of the first answer ever, None before it."""
        self.learners += 1
        self.active += period.practice.answers > 0
        self.active_before += period.before.answers > 0
        self.new += first_answer_day is not None and self.first <= first_answer_day <= self.last
        self.practice, self.before = self.practice.plus(period.practice), self.before.plus(period.before)
        self.milestones += len(period.milestones)
        self.streaks_held += period.streak_held
        self.streaks_kept += period.streak_kept
        done = period.days
        columns = (np.ones(done.day.shape[0]), done.answers, done.correct, done.seconds, done.mastered)
        self.days[done.day - self.first] += np.stack(columns, axis=1)
        known = period.concept_rows < self.concepts
        counts = (period.concept_answers, period.concept_correct, np.ones_like(period.concept_answers))
        self.by_concept[period.concept_rows[known]] += np.stack(counts, axis=1)[known]
        self.mastered += standing.mastered
        self.at_risk += bool(standing.risks)
        self.lapsed += standing.lapsed
        self.risks.update(standing.risks)
        self.gaps.update((gap.row, gap.causes[0].row if gap.causes else -1) for gap in standing.gaps)
        self._add_path(standing.path)

    def _add_path(self, path: Iterable[AgendaDay]) -> None:
        for day in path:
            # A concept falls due, or opens up, on one day of a plan only.
            self.planned[day.reviews, 0] += 1
            self.planned[day.openings, 1] += 1

    def hardest(self, most: int) -> list[int]:
        """Return concept rows with `HARD_ANSWERS` answers or more, by (correct + 1) / (answers + 2), lowest first."""
        rows = np.flatnonzero(self.by_concept[:, 0] >= HARD_ANSWERS)
        answers, correct = self.by_concept[rows, 0], self.by_concept[rows, 1]
        ranked: list[int] = rows[np.lexsort((rows, -answers, (correct + 1) / (answers + 2)))].tolist()
        return ranked[:most]

    def common_gaps(self, most: int) -> list[tuple[tuple[int, int], int]]:
        """Return ((concept row, cause row or -1), learners), the most common first."""
        return sorted(self.gaps.items(), key=lambda item: (-item[1], item[0]))[:most]

    def most_planned(self, most: int) -> list[int]:
        """Return concept rows by learners who meet them on their path, most first."""
        met = self.planned.sum(axis=1)
        rows = np.flatnonzero(met)
        ranked: list[int] = rows[np.lexsort((rows, -met[rows]))].tolist()
        return ranked[:most]

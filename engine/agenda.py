"""The next days of practice: reviews that fall due, concepts that open up. Plans with concepts, not questions."""

from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
import numpy.typing as npt

from engine.catalog import Catalog
from engine.graph import FULLY_READY, NEARLY_MASTERED, reach, standing_of
from engine.learner import ConceptView, LearnerState
from engine.learner.memory import SECONDS_A_DAY
from engine.learner.update import MASTERED_ATTEMPTS
from engine.types import F8, I8, U1

Flags = npt.NDArray[np.bool_]

RISE_AN_ANSWER: Final = 0.05
"""Mastery that one answer to a new concept is planned to bring: a prior, on the slow side."""

MOST_ANSWERS: Final = 12
"""Most answers planned until a concept is mastered."""


@dataclass(frozen=True, slots=True)
class AgendaDay:
    """What one day holds."""

    reviews: I8
    """(r,) concept rows, most urgent first."""
    recall: F8
    """(r,) chance of recall at the end of the day, without practice before."""
    openings: list[int]
    """Concept rows to begin with, most important first."""
    expected_seconds: float


def plan_days(
    state: LearnerState,
    view: ConceptView,
    catalog: Catalog,
    *,
    day_ends: F8,
    target_seconds: float,
    decay: float,
    goal: int | None = None,
) -> list[AgendaDay]:
    """Return what each of n days holds, if every day's plan is carried out and goes well.

    `day_ends` (n,) are the ends of the days, epoch seconds, today first; reviews overdue belong to today. A review is
    one answer, of a concept practised before: what was only exercised through others has nothing to review. What then
    is left of `target_seconds` goes to concepts that are not mastered and whose hard prerequisites are, those that the
    concept row `goal` rests on first, then by importance; one that is finished opens what rests on it on the day after.
    One whose review falls due is not worked on beyond it on that day; it may be on others.
    Concepts without questions are left out. `decay` is FSRS-6's w20.
    """
    seconds = concept_seconds(catalog)
    usable = (catalog.concept_active == 1) & (np.diff(catalog.concept_questions.offsets) > 0)
    due_day = np.searchsorted(day_ends, view.next_review_at, side="right")  # NaN sorts past every day
    due_day[~usable | (view.attempts == 0)] = day_ends.shape[0]
    recall = _recall(state, view, day_ends, due_day, decay)
    work = _Work.of(view, catalog, usable, seconds, goal)
    days = []
    for day in range(day_ends.shape[0]):
        reviews = np.flatnonzero(due_day == day)
        reviews = reviews[np.argsort(recall[reviews], kind="stable")]
        review_seconds = float(seconds[reviews].sum())
        openings, spent = work.spend(target_seconds - review_seconds, blocked=due_day == day)
        days.append(AgendaDay(reviews, recall[reviews], openings, review_seconds + spent))
    return days


def gap_to(goal: int, view: ConceptView, catalog: Catalog) -> list[int]:
    """Return the rows to master on the way to concept row `goal`, itself among them, each after its prerequisites.

    A concept that answers speak for (`engine.graph.readiness`) is no gap, and what lies beneath it is not asked for.
    """
    proven, _ = _readiness(view.mastered, view, catalog)
    missing: set[int] = set()
    pending = [] if view.mastered[goal] else [goal]
    needs = catalog.prerequisites
    while pending:
        row = pending.pop()
        if row in missing or (row != goal and proven[row] >= NEARLY_MASTERED):
            continue
        missing.add(row)
        pending += needs.rows[needs.offsets[row] : needs.offsets[row + 1]].tolist()
    return [row for row in catalog.order.tolist() if row in missing]


def concept_seconds(catalog: Catalog) -> F8:
    """Return (nc,) the mean time that one of a concept's questions takes; 0 for a concept without questions."""
    shelves = catalog.concept_questions
    counts = np.diff(shelves.offsets)
    concept = np.repeat(np.arange(counts.shape[0]), counts)
    totals = np.bincount(concept, catalog.expected_seconds[shelves.rows], minlength=counts.shape[0])
    return np.asarray(totals / np.maximum(counts, 1))


def _recall(state: LearnerState, view: ConceptView, day_ends: F8, due_day: I8, decay: float) -> F8:
    """Return (nc,) chance of recall at the end of the day on which each concept falls due; 1 where none does."""
    recall = np.ones(due_day.shape[0])
    rows = state.concepts["row"].astype(np.int64)
    held = rows < due_day.shape[0]
    held[held] = due_day[rows[held]] < day_ends.shape[0]
    rows = rows[held]
    reviewed_at = state.concepts["review_at"][held].astype(np.float64)
    elapsed = np.maximum(day_ends[due_day[rows]] - reviewed_at, 0.0) / SECONDS_A_DAY
    factor = 0.9 ** (-1.0 / decay) - 1.0
    recall[rows] = (1.0 + factor * elapsed / view.stability[rows]) ** -decay
    return recall


def _readiness(mastered: U1, view: ConceptView, catalog: Catalog) -> tuple[F8, F8]:
    """Return (proven, ready), each (nc,), see `engine.graph.readiness`."""
    return standing_of(catalog.prerequisites, catalog.order, view.mastery, mastered, view.attempts)


@dataclass(slots=True)
class _Work:
    """New concepts on their way through the plan."""

    view: ConceptView
    catalog: Catalog
    ranked: I8
    """Rows that may be worked on, in the order of preference."""
    left: F8
    """(nc,) seconds until each is mastered."""
    mastered: U1
    open_rows: list[int]
    """Those of `ranked` that may be begun, as `mastered` has it."""
    begun: list[int]

    @classmethod
    def of(cls, view: ConceptView, catalog: Catalog, usable: Flags, seconds: F8, goal: int | None) -> "_Work":
        rows = np.flatnonzero(usable & (view.mastered == 0))
        wanted = np.zeros(usable.shape[0])
        if goal is not None:
            wanted[reach(catalog.prerequisites, goal)[0]] = 1.0
        ranked = rows[np.lexsort((rows, -catalog.importance[rows], -wanted[rows]))]
        room = np.maximum(FULLY_READY - view.mastery, 0.0) / RISE_AN_ANSWER
        least = np.maximum(MASTERED_ATTEMPTS - view.attempts.astype(np.float64), 1.0)
        answers = np.minimum(np.maximum(np.ceil(room), least), MOST_ANSWERS)
        work = cls(view, catalog, ranked, answers * seconds, view.mastered.copy(), [], [])
        work.look()
        return work

    def look(self) -> None:
        """Find out what may be begun."""
        _, ready = _readiness(self.mastered, self.view, self.catalog)
        self.open_rows = self.ranked[(ready[self.ranked] > 0.0) & (self.mastered[self.ranked] == 0)].tolist()

    def spend(self, seconds: float, *, blocked: Flags) -> tuple[list[int], float]:
        """Return (rows begun, most important first; seconds used) of a day; those `blocked` (nc,) are not begun."""
        under_way = list(self.begun)
        fresh = (row for row in self.open_rows if not (blocked[row] or row in under_way))
        rest = seconds
        for row in chain(under_way, fresh):
            if rest <= 0.0:
                break
            used = min(rest, float(self.left[row]))
            rest -= used
            self.left[row] -= used
            self.begun.append(row)
        openings = [row for row in self.begun[len(under_way) :] if row not in under_way]
        done = [row for row in set(self.begun) if self.left[row] <= 0.0]
        if done:
            self.mastered[done] = 1
            self.look()
        self.begun = [row for row in dict.fromkeys(self.begun) if not self.mastered[row]]
        openings.sort(key=lambda row: (-self.catalog.importance[row], row))
        return openings, max(seconds - rest, 0.0)

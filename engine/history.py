"""How practice and mastery went, day by day, from a learner's answers. Reads no state and predicts nothing."""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.learner.update import SESSION_GAP_S, UNTIMED_GAP_S
from engine.types import F8, I4, I8, AnswerBatch

I1 = npt.NDArray[np.int8]
Flags = npt.NDArray[np.bool_]


HOUR_ANSWERS: Final = 10
"""Answers from which an hour of the day is judged, and which weigh as much as what is not known of it."""


class DayHistory(NamedTuple):
    """What happened on each of n days with answers, oldest first; all (n,)."""

    day: I8
    """Days since 1970-01-01 on the learner's calendar."""
    answers: I8
    correct: I8
    seconds: F8
    mastered: I8
    """Concepts that became mastered."""
    lost: I8
    """Concepts whose mastery was lost."""


class AreaHistory(NamedTuple):
    """Where each area stood at the end of each day with practice in it; all (n,), by area, then day."""

    area: I8
    """Area codes."""
    day: I8
    mean_mastery: F8
    """Mean over the concepts touched by then, each as its last answer left it."""
    touched: I8
    """Concepts touched by then."""


def day_history(batch: AnswerBatch, crossed: I1, *, chosen: Flags, pair_chosen: Flags) -> DayHistory:
    """Sum up answers by day; `batch` holds ALL of a learner's answers in the order in which they were applied.

    Only answers `chosen` (n,), and on their days crossings of pairs `pair_chosen` (m,), are counted. `crossed` (m,)
    is 1 where a concept became mastered, −1 where mastery was lost. An answer of unknown duration counts the time
    since the one before, up to `UNTIMED_GAP_S`, as the learner's state counts it.
    """
    seconds = practice_seconds(batch)
    days, at = np.unique(batch.local_day[chosen].astype(np.int64), return_inverse=True)
    size = days.shape[0]
    pair_day = np.repeat(batch.local_day.astype(np.int64), np.diff(batch.offsets))

    def crossings(kind: int) -> I8:
        pairs = np.flatnonzero(pair_chosen & (crossed == kind))
        place = np.searchsorted(days, pair_day[pairs])
        known = days[np.minimum(place, size - 1)] == pair_day[pairs] if size else np.zeros(0, np.bool_)
        # A concept counts once a day: concept rows have 32 bits.
        distinct = np.unique((place[known] << 32) | batch.concept[pairs[known]].astype(np.int64))
        return np.bincount(distinct >> 32, minlength=size).astype(np.int64)

    return DayHistory(
        day=days,
        answers=np.bincount(at, minlength=size).astype(np.int64),
        correct=np.bincount(at, batch.correct[chosen], minlength=size).astype(np.int64),
        seconds=np.bincount(at, seconds[chosen], minlength=size).astype(np.float64),
        mastered=crossings(1),
        lost=crossings(-1),
    )


def some_days(days: DayHistory, chosen: Flags) -> DayHistory:
    """Return the days `chosen` (n,)."""
    return DayHistory._make(column[chosen] for column in days)


def every_day(days: DayHistory, first: int, last: int) -> DayHistory:
    """Return the days `first` to `last`, those without answers among them, all (last - first + 1,)."""
    wanted = np.arange(first, last + 1, dtype=np.int64)
    if not days.day.size:
        nothing = np.zeros(wanted.shape[0], np.int64)
        return DayHistory(wanted, nothing, nothing, nothing.astype(np.float64), nothing, nothing)
    at = np.minimum(np.searchsorted(days.day, wanted), days.day.shape[0] - 1)
    known = days.day[at] == wanted
    return DayHistory(wanted, *(np.where(known, column[at], 0) for column in days[1:]))


def practice_seconds(batch: AnswerBatch) -> F8:
    """Return (n,) the time that each answer took, or the time since the one before where that stands in for it."""
    taken: F8 = batch.duration_ms / 1e3
    gap = np.diff(batch.answered_at, prepend=np.inf)
    near = (gap >= 0.0) & (gap <= UNTIMED_GAP_S)
    return np.where(taken > 0.0, taken, np.where(near, gap, 0.0))


def session_starts(answered_at: F8) -> I8:
    """Return the places in `answered_at` (n,), ascending, where a session begins: after more than `SESSION_GAP_S`."""
    return np.flatnonzero(np.diff(answered_at, prepend=-np.inf) > SESSION_GAP_S)


def session_seconds(answered_at: F8, taken: F8) -> F8:
    """Return the length of each session, from the start of its first answer to its last; oldest first.

    `answered_at` (n,) ascending, `taken` (n,) seconds that each answer took, 0 when unknown.
    """
    if not answered_at.size:
        return np.zeros(0)
    starts = session_starts(answered_at)
    ends = np.append(starts[1:], answered_at.shape[0]) - 1
    return np.asarray(answered_at[ends] - answered_at[starts] + taken[starts])


def better_hours(hours: I8, surprise: F8) -> list[int]:
    """Return the hours, 0 to 23, at which answers turn out better than expected, best first.

    `hours` (n,) of n answers, `surprise` (n,) the outcome less the chance of success foretold. An hour counts with at
    least `HOUR_ANSWERS` answers and a mean above that of all by more than its standard error; ranked by that excess,
    shrunk by n/(n + `HOUR_ANSWERS`).
    """
    if not hours.size:
        return []
    counts = np.bincount(hours, minlength=24)
    mean = np.bincount(hours, surprise, minlength=24) / np.maximum(counts, 1)
    excess = mean - surprise.mean()
    error = surprise.std() / np.sqrt(np.maximum(counts, 1))
    ranked = excess * counts / (counts + HOUR_ANSWERS)
    good = np.flatnonzero((counts >= HOUR_ANSWERS) & (excess > error))
    return sorted(good.tolist(), key=lambda hour: (-ranked[hour], hour))


def area_history(batch: AnswerBatch, area_code: I4, chosen: Flags) -> AreaHistory:
    """Follow the mean mastery of each area; `batch` as in `day_history`.

    Counts answers to a concept's own questions, for concept rows `chosen` (nc,) with `area_code` (nc,); rows past their
    end are passed over. O(m log m).
    """
    concept = batch.concept.astype(np.int64)
    own = np.flatnonzero((batch.weight >= 1.0) & (concept < chosen.shape[0]))
    own = own[chosen[concept[own]]]
    day = np.repeat(batch.local_day.astype(np.int64), np.diff(batch.offsets))[own]
    concept, mastery = concept[own], batch.mastery[own].astype(np.float64)

    order = np.lexsort((day, concept))  # stable: answers of one day stay in their order
    day, concept, mastery = day[order], concept[order], mastery[order]
    last = np.ones(order.shape[0], np.bool_)
    last[:-1] = (concept[1:] != concept[:-1]) | (day[1:] != day[:-1])
    day, concept, mastery = day[last], concept[last], mastery[last]
    first = np.ones(concept.shape[0], np.bool_)
    first[1:] = concept[1:] != concept[:-1]
    rise = np.where(first, mastery, mastery - np.concatenate(([0.0], mastery[:-1]))[: mastery.shape[0]])

    area = area_code[concept].astype(np.int64)
    (areas, days), at = np.unique(np.stack((area, day)), axis=1, return_inverse=True)
    size = days.shape[0]
    at = at.ravel()
    touched, total = np.bincount(at, first, minlength=size), np.bincount(at, rise, minlength=size)
    for code in np.unique(areas):
        of_area = areas == code
        touched[of_area], total[of_area] = np.cumsum(touched[of_area]), np.cumsum(total[of_area])
    return AreaHistory(areas, days, total / np.maximum(touched, 1.0), touched.astype(np.int64))

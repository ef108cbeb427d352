"""What each learner has added to the tallies, told from what is stored of them: to count, to recount, to erase."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from engine.learner import LearnerState
from engine.learner.crowd import Crowd
from engine.streaks import follow, stand_of
from engine.types import I8
from store import codec
from store.answer_log import AnswerLog, chronological, join_logs
from store.api import Bulk, Partition, Reader, Store, Table, Transaction
from store.learners import read_answers, read_feedback, read_profile
from store.overlay import erase_everything
from store.replay import all_learners
from store.tallies import SECONDS_A_DAY, Days, Tally, add_to_sums, feedback_cell, read_all, read_sums, utc_day


def tally_answers(tx: Transaction, before: LearnerState, new: AnswerLog) -> None:
    """Count answers that are about to be appended; `before` is the state without them, `new` has its effects."""
    days = Days()
    _count_entries(days, new)
    times = new.batch.answered_at
    if before.applied and float(times.min()) < before.last_answered_at:
        old = read_answers(tx)
        _count_days(days, old, -1)
        _count_days(days, join_logs(old, new), 1)
    else:
        order = range(new.size) if new.size == 1 else np.argsort(times, kind="stable").tolist()
        seconds, local = times.tolist(), new.batch.local_day.tolist()
        _count_on(days, before, [seconds[i] for i in order], [local[i] for i in order])
    days.write(tx)


def tally_crowd(bulk: Bulk, before: Crowd, after: Crowd, log: AnswerLog, bounds: I8) -> None:
    """Count answers of many learners, about to be appended: as `tally_answers` does, none of them late or empty.

    Learner i has entries bounds[i]..bounds[i+1] of `log`, in order of time.
    """
    days = Days()
    _count_entries(days, log)
    if len(bounds) <= _FEW:
        seconds, local = log.batch.answered_at.tolist(), log.batch.local_day.tolist()
        for i, (start, stop) in enumerate(pairwise(bounds.tolist())):
            _count_on(days, before.state(i), seconds[start:stop], local[start:stop])
        days.write(bulk)
        return
    firsts, lasts = bounds[:-1], bounds[1:] - 1
    dates = np.floor_divide(log.batch.answered_at, SECONDS_A_DAY).astype(np.int64)
    known = before.headers["applied"] > 0
    newest = np.where(known, np.floor_divide(before.headers["last_at"], SECONDS_A_DAY), _LONG_AGO).astype(
        np.int64
    )
    earlier = np.empty_like(dates)
    earlier[1:] = dates[:-1]
    earlier[firsts] = newest
    _count_each(days, dates[dates > earlier], Tally.ACTIVE)
    moved = dates[lasts] != newest
    _count_each(days, dates[lasts[moved]], Tally.LAST_ACTIVE)
    _count_each(days, newest[moved & known], Tally.LAST_ACTIVE, -1)
    # What follows is what `follow` finds; a learner with one new day of practice needs no going through days.
    added_days = after.headers["days_practised"] - before.headers["days_practised"]
    one = added_days == 1
    kept = one & (after.headers["day_streak"] > 1)
    _count_each(days, after.headers["last_day"][kept], Tally.STREAKS_KEPT)
    _count_each(days, _ends_on(after)[one], Tally.STREAKS_END)
    _count_each(days, _ends_on(before)[kept], Tally.STREAKS_END, -1)
    for i in np.flatnonzero(added_days > 1).tolist():
        own = slice(int(bounds[i]), int(bounds[i + 1]))
        moments = zip(log.batch.local_day[own].tolist(), log.batch.answered_at[own].tolist(), strict=True)
        _, changes = follow(stand_of(before.state(i)), moments)
        _count_streaks(days, changes.kept, changes.ends, 1)
    days.write(bulk)


_LONG_AGO = -(1 << 40)
_FEW = 8
"""Below so many of something a loop is quicker than numpy."""


def _ends_on(crowd: Crowd) -> I8:
    """The day on whose morning each learner's streak is lost, see `engine.streaks.StreakStand`."""
    ends: I8 = crowd.headers["last_day"].astype(np.int64) + crowd.headers["freezes"] + 2
    return ends


def _count_each(days: Days, dates: I8, what: Tally, sign: int = 1) -> None:
    for day, amount in zip(*np.unique(dates, return_counts=True), strict=True):
        days.count(int(day), what, sign * int(amount))


def learner_tallies(reader: Reader) -> Days:
    """All that the reader's learner has added to the counts, from what is stored."""
    days = Days()
    log = read_answers(reader)
    if log.size:
        _count_entries(days, log)
        _count_days(days, log, 1)
    profile = read_profile(reader)
    if profile is not None:
        days.count(utc_day(profile.created_at), Tally.CREATED)
    for _, value in reader.scan(Table.SESSION):
        session = codec.SESSION.decode(value)
        days.count(utc_day(session.started_at), Tally.SESSIONS_STARTED)
        if session.ended_at:
            days.count(utc_day(session.ended_at), Tally.SESSIONS_ENDED)
    for event in read_feedback(reader):
        days.count(utc_day(event.happened_at), feedback_cell(event.kind))
    return days


def erase_learner(tx: Transaction, now: float) -> int:
    """Remove everything of the transaction's learner; the number of entries.

    What they had added to the counts of days stays; they are no longer among the learners last active, and a streak
    that has not ended yet never will.
    """
    held = learner_tallies(tx)
    removed = erase_everything(tx)
    today = utc_day(now)
    gone, kept = Days(), Days()
    for day, cells in held.by_day.items():
        for cell, amount in cells.items():
            open_streak = cell == Tally.STREAKS_END and day > today
            (gone if cell == Tally.LAST_ACTIVE or open_streak else kept).count(day, cell, amount)
    changes = Days()
    changes.take(gone, -1)
    if any(Tally.CREATED in cells for cells in held.by_day.values()):
        changes.count(today, Tally.DELETED)
        kept.count(today, Tally.DELETED)
    changes.write(tx)
    kept.write_erased(tx)
    return removed


@dataclass(slots=True)
class RecountReport:
    """What a recount found."""

    learners: int = 0
    differing: dict[int, dict[int, int]] = field(default_factory=dict)
    """Day → cell → what the count is below what is stored; negative where it is above."""
    sums_differ: bool = False
    """Whether the sums over all days are not those of the days."""

    @property
    def agrees(self) -> bool:
        """Whether every count is right."""
        return not self.differing and not self.sums_differ


def recount(
    store: Store, tenant: str, *, write: bool = False, progress: Callable[[RecountReport], None] | None = None
) -> RecountReport:
    """Count anew what a tenant's learners have done, compare, and with `write` add what is missing.

    Works on a store in use: everything is read from one snapshot, and corrections are added like any other count. On a
    back end without a snapshot of all learners, run it while nothing is written. Counts of the serving store (what was
    recommended) cannot be recounted, since it keeps the last slates only.
    """
    report = RecountReport()
    expected = Days()
    with store.read(Partition(tenant)) as reader:
        stored, sums = read_all(reader), read_sums(reader)
        expected.take(read_all(reader, erased=True))
        for learner_id in all_learners(store, tenant, *_LEARNER_TABLES):
            with store.read(Partition(tenant, learner_id)) as learner:
                expected.take(learner_tallies(learner))
            report.learners += 1
            if progress is not None:
                progress(report)
    missing = Days()
    missing.take(expected)
    missing.take(stored, -1)
    missing = missing.differing()
    report.differing = missing.by_day
    of_days = [sum(cells.get(cell, 0) for cells in stored.by_day.values()) for cell in range(len(sums))]
    report.sums_differ = of_days != sums
    if write and not report.agrees:
        pairs = enumerate(zip(of_days, sums, strict=True))
        correction = {cell: right - held for cell, (right, held) in pairs if right != held}
        store.update(Partition(tenant), lambda tx: _correct(tx, missing, correction))
    return report


_LEARNER_TABLES = (Table.PROFILE, Table.ANSWER, Table.SESSION, Table.FEEDBACK)


def _correct(tx: Transaction, missing: Days, sums: Mapping[int, int]) -> None:
    missing.write(tx)
    add_to_sums(tx, sums)


def _count_entries(days: Days, log: AnswerLog) -> None:
    """What each entry says for itself."""
    facts = log.batch
    if log.size < _FEW:
        _count_few(days, log)
        return
    dates, place = np.unique(np.floor_divide(facts.answered_at, SECONDS_A_DAY), return_inverse=True)
    of_pair = place[np.searchsorted(facts.offsets, np.flatnonzero(log.crossed), side="right") - 1]
    ways = log.crossed[log.crossed != 0]
    columns = {
        Tally.ANSWERS: np.bincount(place),
        Tally.CORRECT: np.bincount(place, facts.correct),
        Tally.PRACTICE_MS: np.bincount(place, facts.duration_ms),
        Tally.LATE: np.bincount(place, log.late),
        Tally.MASTERED: np.bincount(of_pair[ways > 0], minlength=len(dates)),
        Tally.LOST: np.bincount(of_pair[ways < 0], minlength=len(dates)),
    }
    for what, amounts in columns.items():
        for day, amount in zip(dates.tolist(), amounts.tolist(), strict=True):
            if amount:
                days.count(int(day), what, int(amount))


def _count_few(days: Days, log: AnswerLog) -> None:
    facts = log.batch
    dates = [utc_day(seconds) for seconds in facts.answered_at.tolist()]
    columns = (facts.correct.tolist(), facts.duration_ms.tolist(), log.late.tolist())
    for day, correct, milliseconds, late in zip(dates, *columns, strict=True):
        days.count(day, Tally.ANSWERS)
        if correct:
            days.count(day, Tally.CORRECT)
        if milliseconds:
            days.count(day, Tally.PRACTICE_MS, milliseconds)
        if late:
            days.count(day, Tally.LATE)
    for pair in np.flatnonzero(log.crossed).tolist():
        day = dates[int(np.searchsorted(facts.offsets, pair, side="right")) - 1]
        days.count(day, Tally.MASTERED if log.crossed[pair] > 0 else Tally.LOST)


def _count_on(days: Days, before: LearnerState, seconds: Sequence[float], local: Sequence[int]) -> None:
    """What answers that continue a learner's log say of days; moments and days on the calendar, in order of time."""
    newest = utc_day(before.last_answered_at) if before.applied else None
    last = newest
    for moment in seconds:
        day = utc_day(moment)
        if last is None or day > last:
            days.count(day, Tally.ACTIVE)
            last = day
    if last is not None and last != newest:
        days.count(last, Tally.LAST_ACTIVE)
        if newest is not None:
            days.count(newest, Tally.LAST_ACTIVE, -1)
    _, changes = follow(stand_of(before), zip(local, seconds, strict=True))
    _count_streaks(days, changes.kept, changes.ends, 1)


def _count_days(days: Days, log: AnswerLog, sign: int) -> None:
    """What a learner's whole log says of days: which they were active on, and how their streaks went."""
    order = chronological(log)
    dates = np.floor_divide(log.batch.answered_at[order], SECONDS_A_DAY).astype(np.int64)
    for day in np.unique(dates).tolist():
        days.count(day, Tally.ACTIVE, sign)
    days.count(int(dates[-1]), Tally.LAST_ACTIVE, sign)
    times = log.batch.answered_at[order].tolist()
    _, changes = follow(None, zip(log.batch.local_day[order].tolist(), times, strict=True))
    _count_streaks(days, changes.kept, changes.ends, sign)


def _count_streaks(days: Days, kept: Iterable[int], ends: Mapping[int, int], sign: int) -> None:
    for day in kept:
        days.count(day, Tally.STREAKS_KEPT, sign)
    for day, amount in ends.items():
        days.count(day, Tally.STREAKS_END, sign * amount)

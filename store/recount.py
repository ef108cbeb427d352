"""What each learner has added to the tallies, told from what is stored of them: to count, to recount, to erase."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from engine.learner import LearnerState
from engine.learner.crowd import Crowd
from engine.streaks import follow, stand_of
from engine.types import I8
from store import codec
from store.answer_log import AnswerLog, chronological, join_logs
from store.api import Bulk, Partition, Reader, Store, Table, Transaction
from store.erasures import note_erasure
from store.learners import read_answers, read_feedback, read_profile
from store.overlay import erase_everything
from store.replay import all_learners
from store.tallies import SECONDS_A_DAY, Days, Tally, add_to_sums, feedback_cell, read_all, read_sums, utc_day


def tally_answers(tx: Transaction, before: LearnerState, new: AnswerLog) -> None:
    """Count answers that are about to be appended; `before` is the state without them, `new` has its effects."""
    days = Days()
    _count_entries(days, new, _dates(new))
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
    seconds = log.batch.answered_at.tolist()
    dates = _dates(log)
    _count_entries(days, log, dates)
    was, now = before.headers, after.headers
    stood = zip(*(was[name].tolist() for name in _STANDING), strict=True)
    stands = zip(*(now[name].tolist() for name in _STANDING), strict=True)
    starts = bounds.tolist()
    for i, (old, new) in enumerate(zip(stood, stands, strict=True)):
        own = slice(starts[i], starts[i + 1])
        newest = utc_day(old[1]) if old[0] else None
        if dates[own.stop - 1] != newest:
            _count_active(days, newest, dates[own])
        added_days = new[2] - old[2]
        if added_days == 1:
            # What `follow` finds, without going through days.
            if new[5] > 1:
                days.count(new[3], Tally.STREAKS_KEPT)
                days.count(old[3] + old[4] + 2, Tally.STREAKS_END, -1)
            days.count(new[3] + new[4] + 2, Tally.STREAKS_END)
        elif added_days:
            moments = zip(log.batch.local_day[own].tolist(), seconds[own], strict=True)
            _, changes = follow(stand_of(before.state(i)), moments)
            _count_streaks(days, changes.kept, changes.ends, 1)
    days.write(bulk)


_STANDING = ("applied", "last_at", "days_practised", "last_day", "freezes", "day_streak")
"""What counting goes by, of a learner's header."""


def learner_tallies(reader: Reader) -> Days:
    """All that the reader's learner has added to the counts, from what is stored."""
    days = Days()
    log = read_answers(reader)
    if log.size:
        _count_entries(days, log, _dates(log))
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


def erase_noted(bulk: Bulk, learner_id: str, now: float, *, known: bool) -> int:
    """`erase_learner` in the second of the bulk's partitions, noted in the first, the tenant's.

    Nothing is noted of learners of whom this store holds nothing, unless they are `known` otherwise.
    """
    removed = bulk.alone(1, partial(erase_learner, now=now))
    if isinstance(removed, Exception):
        raise removed
    if removed or known:
        # Of now, when nobody else writes: what was made before this may yet come.
        noted = bulk.alone(0, partial(note_erasure, learner_id=learner_id, at=time.time()))
        if noted is not None:
            raise noted
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


def _dates(log: AnswerLog) -> list[int]:
    return [utc_day(moment) for moment in log.batch.answered_at.tolist()]


def _count_entries(days: Days, log: AnswerLog, dates: Sequence[int]) -> None:
    """What each entry says for itself; `dates` are their UTC days."""
    facts = log.batch
    first = dates[0]
    if dates.count(first) == len(dates):
        counts = {
            Tally.ANSWERS: log.size,
            Tally.CORRECT: facts.correct.tobytes().count(1),
            Tally.PRACTICE_MS: sum(facts.duration_ms.tolist()),
            Tally.LATE: log.late.tobytes().count(1),
            Tally.MASTERED: log.crossed.tobytes().count(1),
            Tally.LOST: log.crossed.tobytes().count(_LOST),
        }
        for what, amount in counts.items():
            if amount:
                days.count(first, what, amount)
        return
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


_LOST = 255
"""How `crossed` says as a byte that mastery was lost."""


def _count_active(days: Days, newest: int | None, dates: Sequence[int]) -> None:
    """On which days a learner was active with answers in order of time, the newest answer before on day `newest`."""
    last = newest
    for day in dates:
        if last is None or day > last:
            days.count(day, Tally.ACTIVE)
            last = day
    if last is not None and last != newest:
        days.count(last, Tally.LAST_ACTIVE)
        if newest is not None:
            days.count(newest, Tally.LAST_ACTIVE, -1)


def _count_on(days: Days, before: LearnerState, seconds: Sequence[float], local: Sequence[int]) -> None:
    """What answers that continue a learner's log say of days; moments and days on the calendar, in order of time."""
    newest = utc_day(before.last_answered_at) if before.applied else None
    _count_active(days, newest, [utc_day(moment) for moment in seconds])
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

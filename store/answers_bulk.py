"""Answers of many learners in one transaction, their states taken in by one kernel call. Resolves no ids.

What can be done in bulk is what is common: new answers, in the order of time, of learners whose state is at hand. All
else, such as repeats and late answers, goes through `store.answers.record_answers`, learner by learner, in the same
transaction; either way leaves the same entries.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.learner import LearnerModel
from engine.learner.crowd import Crowd, absorb_crowd
from engine.types import I4, I8, LearnerProfile
from store import codec
from store.answer_log import AnswerLog, encode_answers
from store.answers import NewAnswers, RecordedAnswers, as_log, record_answers, with_effects
from store.api import Bulk, Table
from store.learners import SEQUENCE_BYTES, sequence_key
from store.recount import tally_crowd
from store.tallies import Days, Tally, utc_day

LocalDays = Callable[[Sequence[float], str], Sequence[int]]
"""From moments (epoch seconds) and a time zone to day numbers on its calendar."""
UTC = "UTC"


class ManyAnswers(NamedTuple):
    """Answers of n learners, learner after learner."""

    learners: Sequence[str]
    """In the order of their partitions."""
    bounds: I8
    """(n+1,) where each learner's answers begin."""
    answers: NewAnswers
    """Of all; `local_day` is that of UTC."""


@dataclass(frozen=True, slots=True)
class RecordedMany:
    """What became of the answers of many learners."""

    numbers: list[int]
    """The learners whose answers were all recorded in bulk."""
    bounds: I8
    """Where the answers of each of these begin in `log`."""
    log: AnswerLog
    crowd: Crowd
    """Their states after all of it."""
    place: I8
    """(m,) which of the crowd's concepts each (concept, weight) pair is of."""
    alone: dict[int, RecordedAnswers | Exception]
    """What became of the others, by number; an exception when nothing of the learner was recorded."""
    time_zones: list[str]
    """Of every learner."""


def record_many(bulk: Bulk, many: ManyAnswers, model: LearnerModel, local_days: LocalDays) -> RecordedMany:
    """Record answers of the transaction's learners, whose numbers are their places in `many`."""
    every = [(number, b"") for number in range(len(many.learners))]
    profiles = bulk.get_many(Table.PROFILE, every)
    time_zones = [UTC if value is None else codec.decode_time_zone(value) for value in profiles]
    many = _on_calendars(many, time_zones, local_days)
    values = bulk.get_many(Table.STATE, every)
    digests = codec.digests(many.answers.answer_id)
    numbers, before = codec.gather_states(values)
    plain = _plain(bulk, many, numbers, before, digests)
    if len(plain) < len(numbers):
        numbers, before = codec.gather_states([values[number] for number in plain])
        numbers = plain
    applied = before.headers["applied"].astype(np.int64)
    if len(numbers) == len(many.learners):
        bounds = many.bounds
        log = as_log(many.answers, _sequence(applied, bounds))
    else:
        chosen, bounds = _chosen(many, numbers)
        everything = as_log(many.answers, np.zeros(many.answers.batch.size, np.int64))
        log = everything.take(chosen)._replace(sequence=_sequence(applied, bounds))
        digests = [digests[i] for i in chosen.tolist()]
    done = absorb_crowd(before, log.batch, bounds, model)
    log = with_effects(log, done)
    if numbers:
        sizes = zip(numbers, pairwise(bounds.tolist()), strict=True)
        owner = [number for number, (start, stop) in sizes for _ in range(start, stop)]
        _write(bulk, owner, log, digests)
        states = zip(numbers, codec.scatter_states(done.crowd), strict=True)
        bulk.put_many(Table.STATE, [(number, b"", value) for number, value in states])
        newcomers = [number for number in numbers if profiles[number] is None]
        _create_profiles(bulk, many, newcomers)
        tally_crowd(bulk, before, done.crowd, log, bounds)
    done_with = set(numbers)
    alone = {
        number: bulk.alone(
            number,
            partial(record_answers, learner_id=learner_id, answers=_part(many, number), model=model),
        )
        for number, learner_id in enumerate(many.learners)
        if number not in done_with
    }
    return RecordedMany(numbers, bounds, log, done.crowd, done.place, alone, time_zones)


def _on_calendars(many: ManyAnswers, time_zones: Sequence[str], local_days: LocalDays) -> ManyAnswers:
    """The answers with the days of each learner's own calendar."""
    away = [number for number, zone in enumerate(time_zones) if zone != UTC]
    if not away:
        return many
    batch = many.answers.batch
    days: I4 = batch.local_day.copy()
    for number in away:
        own = slice(int(many.bounds[number]), int(many.bounds[number + 1]))
        days[own] = local_days(batch.answered_at[own].tolist(), time_zones[number])
    return many._replace(answers=many.answers._replace(batch=batch._replace(local_day=days)))


def _plain(
    bulk: Bulk, many: ManyAnswers, numbers: list[int], before: Crowd, digests: Sequence[bytes]
) -> list[int]:
    """Those of the learners in the crowd whose answers are all new, and each no older than the one before."""
    times, ids, starts = many.answers.batch.answered_at.tolist(), many.answers.answer_id, many.bounds.tolist()
    repeated = len(set(ids)) < len(ids)
    applied, last_at = before.headers["applied"].tolist(), before.headers["last_at"].tolist()
    odd = set()
    for number, after, newest in zip(numbers, applied, last_at, strict=True):
        a, b = starts[number], starts[number + 1]
        own = times[a:b]
        if (
            (after and own[0] < newest)
            or (b - a > 1 and own != sorted(own))
            or (repeated and len(set(ids[a:b])) < b - a)
        ):
            odd.add(number)
    # A state that is behind its log is for `record_answers` to refuse.
    nexts = [(n, sequence_key(after + 1)) for n, after in zip(numbers, applied, strict=True)]
    held = bulk.get_many(Table.ANSWER, nexts)
    odd.update(number for number, value in zip(numbers, held, strict=True) if value is not None)
    known = [number for number, after in zip(numbers, applied, strict=True) if after]
    asked = [(number, digest) for number in known for digest in digests[starts[number] : starts[number + 1]]]
    found = bulk.get_many(Table.ANSWER_ID, asked)
    odd.update(number for (number, _), value in zip(asked, found, strict=True) if value is not None)
    return [number for number in numbers if number not in odd] if odd else numbers


def _sequence(applied: I8, bounds: I8) -> I8:
    """(n,) the order of arrival, from the answers that each learner's state has taken in."""
    return np.arange(1, int(bounds[-1]) + 1) + np.repeat(applied - bounds[:-1], np.diff(bounds))


def _chosen(many: ManyAnswers, numbers: Sequence[int]) -> tuple[npt.NDArray[np.intp], I8]:
    """Places of the answers of these learners, and where each one's begin among them."""
    sizes = np.diff(many.bounds)[numbers]
    bounds = np.zeros(len(numbers) + 1, np.int64)
    np.cumsum(sizes, out=bounds[1:])
    shift = np.repeat(many.bounds[:-1][numbers] - bounds[:-1], sizes)
    return (np.arange(bounds[-1]) + shift).astype(np.intp), bounds


def _write(bulk: Bulk, owner: Sequence[int], log: AnswerLog, digests: Sequence[bytes]) -> None:
    """Put entries into the logs of their learners, and the digests of their ids into the indexes."""
    packed = log.sequence.astype(">u8").tobytes()
    places = range(0, len(packed), SEQUENCE_BYTES)
    keys = [packed[place : place + SEQUENCE_BYTES] for place in places]
    bulk.put_many(Table.ANSWER, list(zip(owner, keys, encode_answers(log), strict=True)))
    bulk.put_many(Table.ANSWER_ID, list(zip(owner, digests, keys, strict=True)))


def _create_profiles(bulk: Bulk, many: ManyAnswers, newcomers: Sequence[int]) -> None:
    born = many.answers.received_at
    profiles = [
        (number, LearnerProfile(many.learners[number], created_at=born, updated_at=born))
        for number in newcomers
    ]
    entries = [(number, b"", codec.PROFILE.encode(profile)) for number, profile in profiles]
    bulk.put_many(Table.PROFILE, entries)
    if newcomers:
        days = Days()
        days.count(utc_day(born), Tally.CREATED, len(newcomers))
        days.write(bulk)


def _part(many: ManyAnswers, number: int) -> NewAnswers:
    """The answers of one learner."""
    start, stop = int(many.bounds[number]), int(many.bounds[number + 1])
    whole = many.answers
    return NewAnswers(
        batch=whole.batch.part(start, stop),
        answer_id=whole.answer_id[start:stop],
        session_id=whole.session_id[start:stop],
        recommendation_id=whole.recommendation_id[start:stop],
        device=whole.device[start:stop],
        timed=whole.timed[start:stop],
        received_at=whole.received_at,
    )

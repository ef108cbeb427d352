"""For which time a learner's pool is made, and from when until when it is the one to take. Makes no pool itself.

A pool stands for a while, its learner's moment. All that moves in it moves with the share by which the time since some
answer has grown (recall, gaps, decayed counts), so a moment may be the longer, the longer the learner has been away.
"""

from functools import lru_cache
from math import inf
from typing import Final, NamedTuple
from zlib import crc32

from engine.recommend import Context, fatigue
from server.local_days import local_hour

LENGTHS: Final = (30.0, 60.0, 120.0, 300.0, 900.0)
"""Seconds that moments last; each but the first once it is no more than `SHARE` of the time since the last answer."""

SHARE: Final = 0.01
"""By this, no more, the time since any answer of the learner grows within a moment of more than half a minute. Recall
falls by .0024 at most, by .001 with the FSRS-6 defaults: its slope against the logarithm of the time is no steeper than
(w/(1 + w))^(1 + w), with w the decay, which is between .1 and .8."""

_LONGER = tuple((length / SHARE, length) for length in LENGTHS[1:])
"""From how long after the last answer on moments are longer, and how long."""
_HOURS_BEGIN = 900.0
"""Local hours begin at multiples of a quarter of an hour in UTC, in every time zone of today."""


class Moment(NamedTuple):
    """A span of time, epoch seconds, for whose beginning a pool is made."""

    start: float
    end: float
    """The first time that is not in it."""

    def holds(self, now: float) -> bool:
        """Whether this time is in it."""
        return self.start <= now < self.end


def moment_at(
    tenant: str, learner_id: str, now: float, *, last_answered_at: float, time_zone: str | None
) -> Moment:
    """The moment in which `now` is: the same for every time in it, so that all workers agree without a word.

    `last_answered_at` is 0 for a learner without answers. No moment begins before the last answer and ends after it, so
    what was learned is never ahead; none goes over the beginning or the end of the learner's night in `time_zone`,
    unless that is None. Moments of different learners begin at different times, lest all change at once.
    """
    begin, end, length = -inf, inf, LENGTHS[0]
    if last_answered_at > now:
        end = last_answered_at
    else:
        begin = last_answered_at
        for away, longer in _LONGER:
            if last_answered_at + away > now:
                end = last_answered_at + away
                break
            begin, length = last_answered_at + away, longer
    # In whole 1,024ths of a length, all sums here are exact.
    offset = crc32(learner_id.encode(), crc32(tenant.encode())) % 1024 / 1024.0 * length
    start = (now + offset) // length * length - offset
    begin, end = max(begin, start), min(end, start + length)
    hour = (start // _HOURS_BEGIN + 1.0) * _HOURS_BEGIN
    if hour < start + length and time_zone is not None and _night_turns(hour, time_zone):
        begin, end = (max(begin, hour), end) if hour <= now else (begin, min(end, hour))
    return Moment(begin, end)


@lru_cache(maxsize=4_096)
def _night_turns(hour: float, time_zone: str) -> bool:
    """Whether night begins or ends at this time."""
    return _tired(hour - 1.0, time_zone) != _tired(hour, time_zone)


def _tired(seconds: float, time_zone: str) -> float:
    return fatigue(Context(local_hour=local_hour(seconds, time_zone)))

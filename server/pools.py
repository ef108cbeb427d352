"""Pools of candidates that are kept between calls, and the moments for which they are made. Makes no pool itself.

A pool is a function of what names it and of what it was made from, and is found only when both are the same now as they
were: the learner's stored bytes as this very call read them, the bundle, the moment. So nobody needs to tell a worker
that something has changed, wherever it was changed.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, TypeAlias
from zlib import crc32

from engine.pools import Pool
from store.api import Reader, Table
from store.learners import last_sequence

MOMENT_SECONDS: Final = 30.0
"""How long a learner's moment lasts: recall, hours and session are those of its beginning. Over half a minute, recall
falls by less than .001 where stability is two hours or more, and fatigue moves by 1 in 80."""

_MEGABYTE = 1 << 20


Made: TypeAlias = tuple[int, int, int, int, int, int]
"""What a pool was made from, beside its name: `Bundle.serial`, the identity of the policy (which lives as long as the
process), the number of the learner's moment, and hashes of the learner's stored state, profile and taste, 64 bits each.
"""


def moment_number(tenant: str, learner_id: str, now: float) -> int:
    """The number of a learner's moment. Each learner's moments begin at a time of its own, lest all change at once."""
    return int((now + _offset(tenant, learner_id)) // MOMENT_SECONDS)


def moment_of(tenant: str, learner_id: str, number: int, last_answered_at: float) -> float:
    """The time, in epoch seconds, for which a pool of this moment is made.

    It is when the moment began, or the last answer, if that was given within it: what was learned is never ahead.
    """
    start = number * MOMENT_SECONDS - _offset(tenant, learner_id)
    return last_answered_at if start < last_answered_at < start + MOMENT_SECONDS else start


def _offset(tenant: str, learner_id: str) -> float:
    return crc32(learner_id.encode(), crc32(tenant.encode())) % 1024 / 1024.0 * MOMENT_SECONDS


def made_from(reader: Reader, bundle: int, policy: object, moment: int) -> Made:
    """What a learner's pool is made from now, by the reader's snapshot."""
    state = reader.get(Table.STATE)
    # Without a state, it is worked out from the log; without answers, there is none.
    version = hash(state) if state is not None else last_sequence(reader)
    profile, taste = reader.get(Table.PROFILE), reader.get(Table.TASTE)
    return bundle, id(policy), moment, version, hash(profile), hash(taste)


class PoolCache:
    """Pools by name, up to a number of bytes; the one that was asked for longest ago makes room. Thread-safe."""

    def __init__(self, megabytes: float = 0.0) -> None:
        """Hold up to so much; 0 keeps none."""
        self._most = int(megabytes * _MEGABYTE)
        self._known: OrderedDict[Hashable, tuple[Made, Pool]] = OrderedDict()
        self._lock = threading.Lock()
        self.nbytes = 0
        """Of the pools held, about."""
        self.hits = 0
        """Times that a pool was found."""
        self.misses = 0
        """Times that there was none, or one made from something else."""

    def find(self, name: Hashable, made: Made) -> Pool | None:
        """The pool of this name, if it was made from this."""
        if not self._most:
            return None
        with self._lock:
            entry = self._known.get(name)
            if entry is None or entry[0] != made:
                self.misses += 1
                return None
            self.hits += 1
            self._known.move_to_end(name)
            return entry[1]

    def keep(self, name: Hashable, made: Made, pool: Pool) -> Pool:
        """Hold a new pool in memory of its own, in place of an older one of its name; returns what is held."""
        if not self._most:
            return pool
        own = pool.apart()
        with self._lock:
            before = self._known.pop(name, None)
            if before is not None:
                self.nbytes -= before[1].nbytes
            self._known[name] = made, own
            self.nbytes += own.nbytes
            while self.nbytes > self._most:
                self.nbytes -= self._known.popitem(last=False)[1][1].nbytes
        return own

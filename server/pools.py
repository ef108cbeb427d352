"""Pools of candidates that are kept between calls, and when they are found. Makes no pool itself.

A pool is a function of what names it and of what it was made from, and is found only when both are the same now as they
were: the learner's stored bytes as this very call read them, the bundle, the moment. So nobody needs to tell a worker
that something has changed, wherever it was changed.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import TypeAlias

from engine.pools import Pool
from server.moments import Moment
from store.api import Reader, Table
from store.learners import last_sequence

_MEGABYTE = 1 << 20


Made: TypeAlias = tuple[int, int, int, int, int]
"""What a pool was made from, beside its name: `Bundle.serial`, the identity of the policy (which lives as long as the
process), and hashes of the learner's stored state, profile and taste, 64 bits each.
"""


def made_from(reader: Reader, bundle: int, policy: object) -> Made:
    """What a learner's pool is made from now, by the reader's snapshot."""
    state = reader.get(Table.STATE)
    # Without a state, it is worked out from the log; without answers, there is none.
    version = hash(state) if state is not None else last_sequence(reader)
    profile, taste = reader.get(Table.PROFILE), reader.get(Table.TASTE)
    return bundle, id(policy), version, hash(profile), hash(taste)


class PoolCache:
    """Pools by name, up to a number of bytes; the one that was asked for longest ago makes room. Thread-safe."""

    def __init__(self, megabytes: float = 0.0) -> None:
        """Hold up to so much; 0 keeps none."""
        self._most = int(megabytes * _MEGABYTE)
        self._known: OrderedDict[Hashable, tuple[Made, Moment, Pool]] = OrderedDict()
        self._lock = threading.Lock()
        self.nbytes = 0
        """Of the pools held, about."""
        self.hits = 0
        """Times that a pool was found."""
        self.misses = 0
        """Times that there was none, or one made from something else."""

    def find(self, name: Hashable, made: Made, now: float) -> Pool | None:
        """The pool of this name, if it was made from this and for the moment in which `now` is."""
        if not self._most:
            return None
        with self._lock:
            entry = self._known.get(name)
            if entry is None or entry[0] != made or not entry[1].holds(now):
                self.misses += 1
                return None
            self.hits += 1
            self._known.move_to_end(name)
            return entry[2]

    def keep(self, name: Hashable, made: Made, moment: Moment, pool: Pool) -> Pool:
        """Hold a new pool in memory of its own, in place of an older one of its name; returns what is held."""
        if not self._most:
            return pool
        own = pool.apart()
        with self._lock:
            before = self._known.pop(name, None)
            if before is not None:
                self.nbytes -= before[2].nbytes
            self._known[name] = made, moment, own
            self.nbytes += own.nbytes
            while self.nbytes > self._most:
                self.nbytes -= self._known.popitem(last=False)[1][2].nbytes
        return own

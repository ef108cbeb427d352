"""Pools of candidates that are kept between calls, and when they are found. Makes no pool itself.

A pool is a function of what names it and of what it was made from, and is found only when both are the same now as they
were: the learner's stored bytes as this very call read them, the bundle, the moment. So nobody needs to tell a worker
that something has changed, wherever it was changed.
"""

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from engine.pools import Pool
from server.moments import Moment
from store.api import Reader, Table
from store.learners import last_sequence

_MEGABYTE: Final = 1 << 20
_SHARE_NEW: Final = 0.1
"""Of the memory, for pools that are new."""
_SHARE_PROVED: Final = 0.8
"""Of the rest, for pools that were asked for again."""
_MOST_COUNTED: Final = 15
HALVED_AFTER: Final = 10
"""Requests for each pool held, until all counts are halved."""
FEW: Final = 1_000
"""Counts are halved no sooner than if so many were held."""
_BYTES_A_COUNT: Final = 128
"""Of memory for pools, for each of which a name can be counted: some 60 names for each pool."""


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


class _Entry(NamedTuple):
    """A pool that is held."""

    name: Hashable
    made: Made
    moment: Moment
    pool: Pool
    nbytes: int


class _Part:
    """Pools in the order in which they were asked for, by the hash of their name."""

    __slots__ = ("entries", "nbytes")

    def __init__(self) -> None:
        self.entries: OrderedDict[int, _Entry] = OrderedDict()
        self.nbytes = 0

    def add(self, key: int, entry: _Entry) -> None:
        """Hold it as the last one asked for, in place of any of its key."""
        self.drop(key)
        self.entries[key] = entry
        self.nbytes += entry.nbytes

    def drop(self, key: int) -> None:
        """Let go of it, if it is here."""
        entry = self.entries.pop(key, None)
        if entry is not None:
            self.nbytes -= entry.nbytes

    def oldest(self) -> tuple[int, _Entry]:
        """Take out what was asked for longest ago."""
        key, entry = self.entries.popitem(last=False)
        self.nbytes -= entry.nbytes
        return key, entry


class PoolCache:
    """Pools by name, up to a number of bytes. Thread-safe.

    A learner who comes once in a long while should not take the place of one who comes daily. So a new pool is held for
    a while in any case (`_new`); then it stays only if it was asked for more often than the one that would make room
    for it (`_tried`). One that is asked for again then is kept with the best (`_proved`). In each part, the one that
    was asked for longest ago goes first; from the best it goes back among the others. W-TinyLFU (Einziger, Friedman and
    Manes 2017), with one counter a name in place of four.
    """

    def __init__(self, megabytes: float = 0.0) -> None:
        """Hold up to so much; 0 keeps none."""
        self._most = int(megabytes * _MEGABYTE)
        self._most_new = int(self._most * _SHARE_NEW)
        self._most_proved = int((self._most - self._most_new) * _SHARE_PROVED)
        self._new, self._tried, self._proved = _Part(), _Part(), _Part()
        self._counts = bytearray(1 << (self._most // _BYTES_A_COUNT).bit_length())
        """How often names were asked for lately; two names may share a count."""
        self._view = np.frombuffer(self._counts, np.uint8)
        self._mask = len(self._counts) - 1
        self._halved_at = 0
        """Number of the request after which all counts were halved last."""
        self._lock = threading.Lock()
        self.hits = 0
        """Times that a pool was found."""
        self.misses = 0
        """Times that there was none, or one made from something else."""

    @property
    def nbytes(self) -> int:
        """Bytes of the pools held, about."""
        return self._new.nbytes + self._tried.nbytes + self._proved.nbytes

    @property
    def held(self) -> int:
        """How many pools are held."""
        return len(self._new.entries) + len(self._tried.entries) + len(self._proved.entries)

    def find(self, name: Hashable, made: Made, now: float) -> Pool | None:
        """The pool of this name, if it was made from this and for the moment in which `now` is."""
        if not self._most:
            return None
        key = hash(name)
        counts, place = self._counts, key & self._mask
        with self._lock:
            if counts[place] < _MOST_COUNTED:
                counts[place] += 1
            entry = self._proved.entries.get(key)
            if entry is not None:
                self._proved.entries.move_to_end(key)
            else:
                entry = self._prove(key)
            if entry is None or entry.made != made or entry.name != name or not entry.moment.holds(now):
                self.misses += 1
                return None
            self.hits += 1
            return entry.pool

    def keep(self, name: Hashable, made: Made, moment: Moment, pool: Pool) -> Pool:
        """Hold a new pool in memory of its own, in place of an older one of its name; returns it."""
        if not self._most:
            return pool
        own = pool.apart()
        key, entry = hash(name), _Entry(name, made, moment, own, own.nbytes)
        with self._lock:
            part = next((part for part in (self._proved, self._tried) if key in part.entries), self._new)
            part.add(key, entry)
            self._settle()
            self._forget()
        return own

    def _prove(self, key: int) -> _Entry | None:
        """What is held under a key that is not among the best; asked for again, it may belong to them."""
        entry = self._new.entries.get(key)
        if entry is not None:
            self._new.entries.move_to_end(key)
            return entry
        entry = self._tried.entries.get(key)
        if entry is not None:
            self._tried.drop(key)
            self._proved.add(key, entry)
            self._settle()
        return entry

    def _forget(self) -> None:
        """Halve the counts when it is time: what was asked for often once need not be asked for again."""
        asked = self.hits + self.misses
        if asked - self._halved_at > HALVED_AFTER * max(self.held, FEW):
            self._halved_at = asked
            self._view >>= 1

    def _settle(self) -> None:
        """Bring all parts within their bounds."""
        while self._proved.nbytes > self._most_proved:
            self._tried.add(*self._proved.oldest())
        while self._new.nbytes > self._most_new:
            self._admit(*self._new.oldest())
        while self.nbytes > self._most:
            (self._tried if self._tried.entries else self._new).oldest()

    def _admit(self, key: int, entry: _Entry) -> None:
        """Hold what is new no more, unless those that would make room for it were asked for as often."""
        while self.nbytes + entry.nbytes > self._most and self._tried.entries:
            oldest = next(iter(self._tried.entries))
            if self._counts[key & self._mask] <= self._counts[oldest & self._mask]:
                return
            self._tried.oldest()
        self._tried.add(key, entry)

"""What a pass leaves of a learner, all that slates are drawn from, and the slates drawn. Works out no pool itself.

A pool is a function of the learner's state and of what is asked for, not of a request's own luck: as long as these stay
the same, it may be kept, and every request draws its slate from it.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, Final, overload

import numpy as np

from engine.deal import Drawn, draw_all
from engine.learner.state import Records
from engine.packing import HEAD_WORDS, unpack_items
from engine.slate import HEAD, ITEM, Slate, facts_of
from engine.types import U4

OBJECT_BYTES: Final = 4096
"""Taken as what a pool costs beside its arrays: objects, and what the server keeps in its memo."""


class Pool:
    """The candidates of one learner at one moment, scored and described. Treat as read-only, but for `memo`."""

    def __init__(self, words: U4, policy: str, model_version: str) -> None:
        """Hold a pool that is packed as `engine.packing` says."""
        self.words = words
        self.policy = policy
        self.model_version = model_version
        self.memo: dict[int, Any] = {}
        """What the server keeps of items, by question row; it lives as long as the pool."""

    @property
    def nbytes(self) -> int:
        """Bytes that the pool takes when it is kept, about."""
        return int(self.words.nbytes) + OBJECT_BYTES

    @property
    def head(self) -> Records:
        """(1,) of dtype HEAD, what its slates have in common."""
        return self.words[:HEAD_WORDS].view(HEAD)

    @property
    def items(self) -> Records:
        """(n,) of dtype ITEM, the candidates with their scores before the draw, unpacked anew."""
        items = np.zeros(int(self.head["candidates"][0]), ITEM)
        unpack_items(self.words, items.view(np.uint32))
        return items

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What is the same in every slate drawn from it, by field of `Slate`."""
        return facts_of(self.head[0], self.policy, self.model_version)

    @cached_property
    def names(self) -> bytes:
        """The names of policy and model, as slates are stored with them."""
        return self.policy.encode() + self.model_version.encode()

    def apart(self) -> "Pool":
        """Return the pool in memory of its own: one of a pass is a part of what the pass filled."""
        return Pool(self.words.copy(), self.policy, self.model_version)


class Slates(Sequence[Slate]):
    """Slates drawn together, in the order of their pools; each is made an object only when it is asked for."""

    __slots__ = ("_drawn", "_pools", "_seeds")

    def __init__(self, drawn: Drawn, pools: Sequence[Pool], seeds: Sequence[int]) -> None:
        """Hold what was drawn from n pools with n seeds."""
        self._drawn = drawn
        self._pools = pools
        self._seeds = seeds

    def __len__(self) -> int:
        """Return how many slates there are."""
        return len(self._pools)

    @overload
    def __getitem__(self, index: int) -> Slate: ...
    @overload
    def __getitem__(self, index: slice) -> "Slates": ...
    def __getitem__(self, index: int | slice) -> "Slate | Slates":
        """Return one slate, or some of them."""
        drawn = self._drawn
        if isinstance(index, slice):
            some = drawn.heads[index], drawn.items[index], drawn.leads[index], drawn.told[index]
            return Slates(Drawn(*some), self._pools[index], self._seeds[index])
        pool = self._pools[index]
        shown = int(drawn.heads["shown"][index])
        best_left, unlike_stranger = drawn.told[index].tolist()
        return Slate.made_of(
            pool.facts,
            items=drawn.items[index, :shown],
            # What was worked out with the draw need not be worked out again.
            leads=drawn.leads[index, :shown].tolist(),
            seed=self._seeds[index],
            best_left=best_left,
            unlike_stranger=unlike_stranger,
            memo=pool.memo,
        )

    def stored(self, index: int) -> bytes:
        """Return `Slate.to_bytes` of one slate, without making it an object."""
        pool = self._pools[index]
        head = self._drawn.heads[index]
        items = self._drawn.items[index, : int(head["shown"])]
        return b"".join((head.tobytes(), pool.names, items.tobytes()))


def draw_slates(pools: Sequence[Pool], seeds: Sequence[int], limit: int) -> Slates:
    """Return a slate from each pool, drawn with its own seed, in one pass; `limit` is the pools'."""
    count = len(pools)
    drawn = Drawn(
        np.empty(count, HEAD),
        np.zeros((count, limit), ITEM),
        np.empty((count, limit), np.int8),
        np.empty((count, 2)),
    )
    parts = [pool.words for pool in pools]
    ends = list(accumulate(map(len, parts)))
    draw_all(parts[0] if count == 1 else np.concatenate(parts), np.array(ends), np.array(seeds), drawn)
    return Slates(drawn, pools, seeds)

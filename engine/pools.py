"""What a pass leaves of a learner, all that slates are drawn from, and the slates drawn. Works out no pool itself.

A pool is a function of the learner's state and of what is asked for, not of a request's own luck: as long as these stay
the same, it may be kept, and every request draws its slate from it.
"""

from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate
from typing import Any, Final, overload

import numpy as np

from engine.draw import LOT, Drawn, draw_all
from engine.learner.state import Records
from engine.slate import HEAD, ITEM, Slate, facts_of

OBJECT_BYTES: Final = 4096
"""Taken as what a pool costs beside its arrays: objects, and what the server keeps in its memo."""


class Pool:
    """The candidates of one learner at one moment, scored and described. Treat as read-only, but for `memo`."""

    def __init__(self, head: Records, items: Records, lots: Records, policy: str, model_version: str) -> None:
        """Hold a head (1,) of dtype HEAD, items (n,) of dtype ITEM with scores before the draw, and lots (n,)."""
        self.head = head
        self.items = items
        self.lots = lots
        self.policy = policy
        self.model_version = model_version
        self.memo: dict[int, Any] = {}
        """What the server keeps of items, by question row; it lives as long as the pool."""

    @property
    def nbytes(self) -> int:
        """Bytes that the pool takes when it is kept, about."""
        return int(self.head.nbytes + self.items.nbytes + self.lots.nbytes) + OBJECT_BYTES

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
        return Pool(_copy(self.head), _copy(self.items), _copy(self.lots), self.policy, self.model_version)


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
        shown = len(pool.items)
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
        items = self._drawn.items[index, : len(pool.items)]
        return b"".join((self._drawn.heads[index].tobytes(), pool.names, items.tobytes()))


def draw_slates(pools: Sequence[Pool], seeds: Sequence[int], limit: int) -> Slates:
    """Return a slate from each pool, drawn with its own seed, in one pass; `limit` is the pools'."""
    count = len(pools)
    drawn = Drawn(
        np.empty(count, HEAD),
        np.zeros((count, limit), ITEM),
        np.empty((count, limit), np.int8),
        np.empty((count, 2)),
    )
    ends = list(accumulate([len(pool.lots) for pool in pools]))
    draw_all(
        _joined([pool.head for pool in pools], HEAD), np.array(ends), _joined([pool.items for pool in pools], ITEM),
        _joined([pool.lots for pool in pools], LOT), np.array(seeds), drawn,
    )  # fmt: skip
    return Slates(drawn, pools, seeds)


def _joined(parts: Sequence[Records], dtype: "np.dtype[Any]") -> Records:
    if len(parts) == 1:
        return parts[0]
    # By bytes: numpy copies records field by field.
    return np.frombuffer(bytearray().join(map(_bytes, parts)), dtype)


def _copy(records: Records) -> Records:
    return np.frombuffer(bytearray(_bytes(records)), records.dtype)


def _bytes(records: Records) -> memoryview:
    return records.view(np.uint8).data

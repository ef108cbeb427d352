"""Slates drawn from pools, many at once, laid out as they are stored. Works out no pool, and finds no candidate."""

from collections.abc import Sequence
from typing import Final, overload

import numpy as np

from engine.deal import draw_all
from engine.pools import Pool
from engine.slate import HEAD, ITEM, Slate

_ALIGNED: Final = 8
"""Items begin at a multiple of so many bytes."""


class Slates(Sequence[Slate]):
    """Slates drawn together, in the order of their pools, as bytes; one is made an object when it is asked for."""

    __slots__ = (
        "_pools",
        "_seeds",
        "_told",
        "first",
        "items_at",
        "leads",
        "rows",
        "shown",
        "sizes",
        "stored_in",
        "stride",
    )

    def __init__(self, pools: Sequence[Pool], seeds: Sequence[int], limit: int) -> None:
        """Draw from n ≥ 1 pools of one policy and one model, whose limit this is, each with its own seed."""
        count, names = len(pools), pools[0].names
        self.shown = [min(len(pool), limit) for pool in pools]
        """How many questions each slate has."""
        self._pools = pools
        self._seeds = seeds
        self.items_at = HEAD.itemsize + len(names)
        """Bytes of a slate before its items."""
        self.sizes = [self.items_at + shown * ITEM.itemsize for shown in self.shown]
        """Bytes of each slate as it is stored."""
        self.first = -self.items_at % _ALIGNED
        """Where the first slate begins."""
        self.stride = -(-(self.items_at + limit * ITEM.itemsize) // _ALIGNED) * _ALIGNED
        """Bytes from the beginning of a slate to that of the next one."""
        self.stored_in = np.empty(self.first + count * self.stride, np.uint8)
        """The slates as they are stored, one after another."""
        self.rows = np.empty((count, limit), np.uint32)
        """(n, limit) questions; NO_ROW behind those of a shorter slate."""
        self.leads = np.empty((count, limit), np.int8)
        """(n, limit) the term that lifts each item most, −1 where none does."""
        self._told = np.empty((count, 2))
        places: list[int] = []
        for pool, seed in zip(pools, seeds, strict=True):
            places += pool.place
            places.append(seed)
        draw_all(
            np.array(places, np.int64), np.frombuffer(names, np.uint8), self.first, self.stride, self.stored_in,
            self.rows, self.leads, self._told,
        )  # fmt: skip

    @property
    def policy(self) -> str:
        """Name of the policy that all were drawn by."""
        return self._pools[0].policy

    def __len__(self) -> int:
        """Return how many slates there are."""
        return len(self._pools)

    @overload
    def __getitem__(self, index: int) -> Slate: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Slate]: ...
    def __getitem__(self, index: int | slice) -> Slate | Sequence[Slate]:
        """Return one slate, or some of them."""
        if isinstance(index, slice):
            return [self[place] for place in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        pool, shown = self._pools[place], self.shown[place]
        best_left, unlike_stranger = self._told[place].tolist()
        return Slate.made_of(
            pool.facts,
            items=self.stored_in[self._start(place) + self.items_at :][: shown * ITEM.itemsize].view(ITEM),
            # What was worked out with the draw need not be worked out again.
            leads=self.leads[place, :shown].tolist(),
            seed=self._seeds[place],
            best_left=best_left,
            unlike_stranger=unlike_stranger,
        )

    def stored(self, place: int) -> bytes:
        """Return `Slate.to_bytes` of one slate, without making it an object."""
        start = self._start(place)
        return self.stored_in[start : start + self.sizes[place]].tobytes()

    def _start(self, place: int) -> int:
        return self.first + place * self.stride


def draw_slates(pools: Sequence[Pool], seeds: Sequence[int], limit: int) -> Slates:
    """Return a slate from each pool, drawn with its own seed, in one pass; `limit` is the pools'."""
    return Slates(pools, seeds, limit)

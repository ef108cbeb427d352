"""The nearest rows in an inverted file, looked up by one kernel in whole steps. `engine.neighbours` builds the file.

FAISS finds the same rows, but for one query it spends most of its time between lists, and reads vectors of four times
the size. Rows whose products differ by less than a step's error, some 0.3 % of the largest, may change places.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.cards import FINE_STEPS, alike, coarsen
from engine.guide import roughly
from engine.jit import kernel, prefetch
from engine.learner.score import read_only
from engine.types import F4, I8, U4

WIDTH: Final = 64
"""Components of a vector."""


class InvertedLists(NamedTuple):
    """Vectors by list, in whole steps; read-only."""

    centre: npt.NDArray[np.int8]
    """(lists, 64) which list a query is near."""
    centre_step: F4
    """(lists,) a step of each."""
    offsets: I8
    """(lists + 1,) where each list's vectors start."""
    rows: U4
    """(n,) what the vectors stand for."""
    rough: npt.NDArray[np.int8]
    """(n, 64)"""
    step: F4
    """(n,) a step of each."""

    @classmethod
    def none(cls) -> "InvertedLists":
        """Return no lists."""
        nothing = np.zeros((0, WIDTH), np.float32)
        return cls.of(nothing, np.zeros(1, np.int64), np.zeros(0, np.uint32), nothing)

    @classmethod
    def of(cls, centres: F4, offsets: I8, rows: U4, vectors: F4) -> "InvertedLists":
        """Return lists around `centres` (lists, 64) that hold `rows` (n,) with their `vectors` (n, 64)."""
        centre, centre_step = np.empty(centres.shape, np.int8), np.empty(len(centres), np.float32)
        rough, step = np.empty(vectors.shape, np.int8), np.empty(len(vectors), np.float32)
        roughly(read_only(np.ascontiguousarray(centres)), centre, centre_step)
        roughly(read_only(np.ascontiguousarray(vectors)), rough, step)
        held = cls(centre, centre_step, offsets, rows, rough, step)
        return cls._make(read_only(array) for array in held)


@kernel
def probe(lists: InvertedLists, query: F4, probes: int, rows: U4) -> int:
    """Fill rows with the rows, best first, that have the largest products with the query (64,); returns how many.

    Only the `probes` lists whose centres have the largest products are looked at, and any that tie with the last.
    """
    fine = np.empty(WIDTH, np.int16)
    coarsen(query, FINE_STEPS, fine)
    near = np.empty(lists.centre_step.shape[0], np.float32)
    for i in range(near.shape[0]):
        near[i] = lists.centre_step[i] * alike(fine, lists.centre[i])
    least = -np.inf
    if probes < near.shape[0]:
        least = np.partition(near, near.shape[0] - probes)[near.shape[0] - probes]
    chosen = np.empty(near.shape[0], np.int64)
    count = 0
    for i in range(near.shape[0]):
        if near[i] >= least:
            chosen[count] = i
            count += 1
    best = np.empty(rows.shape[0], np.float32)
    held = 0
    for position in range(count):
        if position + 1 < count:
            following = chosen[position + 1]
            for entry in range(lists.offsets[following], lists.offsets[following + 1]):
                prefetch(lists.rough, WIDTH * entry)
        for entry in range(lists.offsets[chosen[position]], lists.offsets[chosen[position] + 1]):
            value = lists.step[entry] * np.float32(alike(fine, lists.rough[entry]))
            if held == best.shape[0] and value <= best[held - 1]:
                continue
            held = min(held + 1, best.shape[0])
            place = held - 1
            while place > 0 and best[place - 1] < value:
                best[place] = best[place - 1]
                rows[place] = rows[place - 1]
                place -= 1
            best[place] = value
            rows[place] = lists.rows[entry]
    return held

"""Slates drawn from packed pools: the lots drawn, and what is said of each candidate that was. Works out no pool."""

from typing import Final

import numpy as np
import numpy.typing as npt

from engine.draw import LEAST_LIFT, LOT, draw
from engine.jit import array_at, brief_kernel, kernel
from engine.learner.state import Records
from engine.octets import put_bytes
from engine.packing import ITEM_WORDS, unpack_item, unpack_lots
from engine.scoring import SAME
from engine.slate import HEAD, ITEM
from engine.types import F8, I8, NO_ROW, U1, U4

I1 = npt.NDArray[np.int8]

_HEAD_BYTES: Final = HEAD.itemsize


@kernel
def _lead(items: Records, weights: F8, means: F8, leads: I1) -> None:
    """Fill leads (k,) as `engine.slate.Slate.leads` says."""
    for rank in range(items.shape[0]):
        raised = 0.0
        most = 0.0
        leads[rank] = -1
        for term in range(weights.shape[0]):
            lift = weights[term] * items[rank].values[term] - weights[term] * means[term]
            raised += max(lift, 0.0)
            if lift > most:
                most = lift
                leads[rank] = term
        if raised <= LEAST_LIFT:
            leads[rank] = -1


@kernel
def _put_slate(
    words: U4, lots: Records, seed: int, head: Records, items: Records, leads: I1, told: F8
) -> None:
    """Draw a slate from a packed pool whose head (1,) is in place: fill what it says of the draw, items (k,) of dtype
    ITEM, leads (k,) and told (2,); `lots` is room for all candidates.
    """
    shown = items.shape[0]
    chosen, sameness = np.empty(shown, np.int64), np.empty(shown, np.float32)
    propensity, final = np.empty(shown), np.empty(shown)
    weights = head[0].weights
    unpack_lots(words, head[0].temperature, lots)
    best = draw(lots, weights[SAME], head[0].temperature, seed, chosen, sameness, propensity, final)
    packed = items.view(np.uint32)
    packed[:] = 0
    unusual = 0
    for rank in range(shown):
        at = rank * ITEM_WORDS
        unpack_item(words, lots.shape[0], chosen[rank], packed[at : at + ITEM_WORDS])
        item = items[rank]
        item.score = final[rank]
        item.propensity = propensity[rank]
        item.values[SAME] = sameness[rank]
        unusual += lots[chosen[rank]].unusual
    told[0] = best
    told[1] = unusual / max(shown, 1)
    head[0].seed = seed
    head[0].best_left = best
    head[0].unlike_stranger = told[1]
    _lead(items, weights, head[0].means, leads)


@brief_kernel
def draw_all(
    places: I8, names: U1, start: int, stride: int, stored: U1, rows: U4, leads: I1, told: F8
) -> None:
    """Draw a slate from each of n packed pools into `stored`, as they are stored, every `stride` bytes from `start` on.

    `places` (4·n,): where in memory a pool's words are, how many these are, how many candidates it has, and the seed.
    `names`: of policy and model, as they stand between head and items. Also fills rows (n, limit) of the questions
    drawn, NO_ROW behind them; leads (n, limit), the term that lifts each item most over the average candidate, −1 where
    none does; and told (n, 2): the best score left, and the share of shown concepts that a stranger would not have been
    shown.
    """
    limit = rows.shape[1]
    lots = np.empty(0, LOT)
    for i in range(rows.shape[0]):
        # To lay pools end to end would be to copy them.
        words = array_at(places[4 * i], places[4 * i + 1], np.uint32)
        held = places[4 * i + 2]
        shown = min(held, limit)
        if held > lots.shape[0]:
            lots = np.empty(held, LOT)
        put_bytes(stored, start, words.view(np.uint8), 0, _HEAD_BYTES)
        at = put_bytes(stored, start + _HEAD_BYTES, names, 0, names.shape[0])
        head = array_at(stored.ctypes.data + start, 1, HEAD)
        items = array_at(stored.ctypes.data + at, shown, ITEM)
        _put_slate(words, lots[:held], places[4 * i + 3], head, items, leads[i, :shown], told[i])
        for rank in range(limit):
            rows[i, rank] = items[rank].question if rank < shown else NO_ROW
        start += stride

"""Slates drawn from packed pools: the lots drawn, and what is said of each candidate that was. Works out no pool."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.draw import LEAST_LIFT, LOT, draw
from engine.jit import brief_kernel, kernel
from engine.learner.state import Records
from engine.packing import HEAD_WORDS, ITEM_WORDS, unpack_item, unpack_lots
from engine.scoring import SAME
from engine.slate import HEAD
from engine.types import F8, I8, U4


class Drawn(NamedTuple):
    """What a draw fills for n learners."""

    heads: Records
    """(n,) of dtype HEAD."""
    items: Records
    """(n, limit) of dtype ITEM, zero before; the head says how many count."""
    leads: npt.NDArray[np.int8]
    """(n, limit) the term that lifts each item most over the average candidate, −1 where none does."""
    told: F8
    """(n, 2) the best score left, and the share of shown concepts that a stranger would not have been shown."""


@kernel
def _lead(items: Records, weights: F8, means: F8, leads: npt.NDArray[np.int8]) -> None:
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


@brief_kernel
def draw_all(pools: U4, ends: I8, seeds: I8, made: Drawn) -> None:
    """Fill `made` with a slate from each of n packed pools, one after another, which end at ends (n,). The luck is that
    of seeds (n,).
    """
    limit = made.items.shape[1]
    chosen, sameness = np.empty(limit, np.int64), np.empty(limit, np.float32)
    propensity, final = np.empty(limit), np.empty(limit)
    lots = np.empty(0, LOT)
    start = ends[0] - ends[0]
    for i in range(ends.shape[0]):
        words = pools[start : ends[i]]
        made.heads[i] = words[:HEAD_WORDS].view(HEAD)[0]
        head = made.heads[i]
        held, shown = int(head.candidates), int(head.shown)
        if held > lots.shape[0]:
            lots = np.empty(held, LOT)
        unpack_lots(words, head.temperature, lots[:held])
        best = draw(
            lots[:held], head.weights[SAME], head.temperature, seeds[i], chosen[:shown], sameness[:shown],
            propensity[:shown], final[:shown],
        )  # fmt: skip
        items = made.items[i].view(np.uint32)
        unusual = 0
        for rank in range(shown):
            unpack_item(words, held, chosen[rank], items[rank * ITEM_WORDS : (rank + 1) * ITEM_WORDS])
            item = made.items[i, rank]
            item.score = final[rank]
            item.propensity = propensity[rank]
            item.values[SAME] = sameness[rank]
            unusual += lots[chosen[rank]].unusual
        made.told[i, 0] = best
        made.told[i, 1] = unusual / max(shown, 1)
        head.seed = seeds[i]
        head.best_left = best
        head.unlike_stranger = made.told[i, 1]
        _lead(made.items[i, :shown], head.weights, head.means, made.leads[i])
        start = ends[i]

"""Which concepts others lead a learner to who stood nearby. Looks up what `engine.peers` trained; trains nothing."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.cards import FINE_STEPS, STEPS, alike, coarsen, dot
from engine.jit import kernel, lean_kernel
from engine.learner.score import read_only
from engine.learner.state import Records
from engine.peers import Peers, standing_weight
from engine.types import F4, F8, I4, I8, U4

NEAREST = 4
"""Cells that are mixed for one learner."""

SHARPNESS = 8
"""Power of the cosine by which cells are weighted."""

BESIDE_WEIGHT = 0.1
"""Of what goes together, beside what followed: enough to tell apart concepts that followed nowhere."""


class Guide(NamedTuple):
    """What `engine.peers.Peers` holds, laid out for looking up; read-only."""

    place: F4
    """(concepts, 64)"""
    centre: F4
    """(cells, 64) unit centres."""
    rough: npt.NDArray[np.int8]
    """(cells, 64) the centres in whole steps, a quarter of the memory: enough to rule most cells out."""
    step: F4
    """(cells,) a step of each."""
    next_offsets: I4
    next_rows: U4
    next_values: F4
    beside_offsets: I4
    beside_rows: U4
    beside_values: F4

    @classmethod
    def of(cls, peers: Peers) -> "Guide":
        """Return what looking up needs."""
        centre = read_only(np.ascontiguousarray(peers.centre.T))
        rough, step = np.empty(centre.shape, np.int8), np.empty(len(centre), np.float32)
        roughly(centre, rough, step)
        held = cls(peers.place, centre, rough, step, *peers[2:])
        return cls._make(read_only(np.ascontiguousarray(array)) for array in held)


@lean_kernel
def roughly(vectors: F4, rough: npt.NDArray[np.int8], step: F4) -> None:
    """Fill rough (n, 64) with vectors (n, 64) in whole steps, and step (n,) with a step of each."""
    for i in range(vectors.shape[0]):
        step[i] = coarsen(vectors[i], STEPS, rough[i])


@kernel
def nearest_cells(guide: Guide, x: F4, cells: I8, weights: F8) -> int:
    """Fill the up to `len(cells)` cells nearest the place x (64,) and weights that sum to 1; returns how many.

    Weights are as the cosine to the power of `SHARPNESS`; cells that lie the other way do not count. Products in whole
    steps rule out what cannot be among the nearest, by the most that they can be wrong; the rest is looked at exactly.
    """
    fine = np.empty(x.shape[0], np.int16)
    x_step = coarsen(x, FINE_STEPS, fine)
    length = dot(x, x)
    reach = 0.0
    for j in range(x.shape[0]):
        reach += abs(x[j])
    near = np.empty(guide.step.shape[0], np.float32)
    widest = np.float32(0.0)
    for cell in range(near.shape[0]):
        near[cell] = x_step * guide.step[cell] * alike(fine, guide.rough[cell])
        widest = max(widest, guide.step[cell])
    # Half a step of either for each component, and something for rounding: a unit centre's components sum to 8 at most.
    wrong = 0.51 * widest * reach + 0.51 * x_step * 9.0
    least = _last_of_best(near, cells.shape[0]) - 2.0 * wrong
    exact = np.empty(cells.shape[0])
    held = 0
    for cell in range(near.shape[0]):
        if near[cell] < least or near[cell] < -wrong:
            continue
        value = dot(x, guide.centre[cell])
        if value <= 0.0 or (held == cells.shape[0] and value <= exact[held - 1]):
            continue
        held = min(held + 1, cells.shape[0])
        place = held - 1
        while place > 0 and exact[place - 1] < value:
            exact[place] = exact[place - 1]
            cells[place] = cells[place - 1]
            place -= 1
        exact[place] = value
        cells[place] = cell
    total = 0.0
    for i in range(held):
        weights[i] = (exact[i] / np.sqrt(length)) ** SHARPNESS
        total += weights[i]
    for i in range(held):
        weights[i] /= total
    return held


@kernel
def _last_of_best(values: F4, count: int) -> float:
    """Return the least of the `count` largest values, 0 when fewer are above it."""
    best = np.zeros(count, np.float32)
    for i in range(values.shape[0]):
        value = values[i]
        if value > best[count - 1]:
            place = count - 1
            while place > 0 and best[place - 1] < value:
                best[place] = best[place - 1]
                place -= 1
            best[place] = value
    return float(best[count - 1])


@kernel
def follow(guide: Guide, touched: Records, applied: int, out: F4) -> None:
    """Fill out (nc,) with how strongly others' practice leads this learner to each concept, in [0, 1].

    The mean of what followed in the nearest cells, plus `BESIDE_WEIGHT` times the mean of what goes together with the
    practised concepts, both weighted by `standing_weight`. `touched` are the state's concept records, `applied` the
    number of its answers. 0 throughout without practice.
    """
    out[:] = 0.0
    x = np.zeros(guide.place.shape[1], np.float32)
    total = 0.0
    for i in range(touched.shape[0]):
        if touched[i].attempts > 0:
            total += standing_weight(applied - 1 - touched[i].last_step)
    for i in range(touched.shape[0]):
        c = touched[i].row
        if touched[i].attempts == 0 or c >= guide.place.shape[0]:
            continue
        weight = np.float32(standing_weight(applied - 1 - touched[i].last_step))
        for j in range(x.shape[0]):
            x[j] += weight * guide.place[c, j]
        share = np.float32(BESIDE_WEIGHT * weight / total)
        for entry in range(guide.beside_offsets[c], guide.beside_offsets[c + 1]):
            if guide.beside_rows[entry] < out.shape[0]:
                out[guide.beside_rows[entry]] += share * guide.beside_values[entry]
    cells = np.empty(NEAREST, np.int64)
    weights = np.empty(NEAREST)
    for i in range(nearest_cells(guide, x, cells, weights)):
        share = np.float32(weights[i])
        for entry in range(guide.next_offsets[cells[i]], guide.next_offsets[cells[i] + 1]):
            if guide.next_rows[entry] < out.shape[0]:
                out[guide.next_rows[entry]] += share * guide.next_values[entry]
    for c in range(out.shape[0]):
        out[c] = min(np.float32(1.0), out[c])

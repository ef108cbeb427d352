"""Regularised logistic regression over training rows: parameters, penalties and L-BFGS. Knows no learner's state."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize

from engine.jit import kernel
from engine.learner.features import (
    N_CONCEPT_PATTERNS,
    N_DENSE,
    N_GLOBAL_PATTERNS,
    N_OWN,
    N_OWN_VALUES,
    N_PAIRS,
)
from engine.learner.rows import Rows
from engine.learner.score import U8, Weights, find_pair
from engine.types import F4, F8, I4, NO_ROW, U4

CHUNKS: Final = 8
"""Parts of the gradient summed in a fixed order, so that the number of threads does not change the result."""
CURVATURE = 0.18
"""Typical p(1-p), used to scale parameters to like curvature before L-BFGS."""

Progress = Callable[[str, float], None]
"""Called with the name of a stage and the share of it done, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How to train. Penalties are L2 on summed log loss, for features scaled to unit deviation."""

    dense_penalty: float = 1.0
    base_penalty: float = 10.0
    """Question and pattern weights."""
    concept_penalty: float = 30.0
    """A concept's own weights."""
    slope_penalty: float = 20.0
    """A question's slope on ability."""
    pair_penalty: float = 10.0
    pair_answers: int = 4
    """Pairs seen less often in training have no weight."""
    folds: int = 8
    """Parts of the learners that success rates leave out in turn."""
    held_out: float = 0.05
    """Share of learners that decide when to stop and how good the model is."""
    check_every: int = 10
    patience: int = 3
    """Checks without a better held-out loss before stopping."""
    iterations: int = 150
    closing_iterations: int = 25
    """Steps on all learners, held-out ones too, at the end."""
    most_answers: int = 1_500_000
    """Beyond this, weights are fitted to a random part of the learners; success rates still use all."""
    threads: int = 2
    rebase: bool = True
    """Let states of the past move by the new base logits, as they will once answers are logged with this model."""


class Design(NamedTuple):
    """Training rows with parameters looked up: n rows, fixed width."""

    dense: F4
    """(n, N_DENSE), scaled."""
    place: I4
    """(n, width) parameter numbers after the dense ones; 0 and value 0 where unused."""
    value: F4
    """(n, width)"""
    target: F4
    """(n,) 1 right, 0 wrong."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each group of sparse parameters starts."""

    questions: int
    concepts: int
    pairs: U8
    """Sorted keys of fitted pairs."""

    @property
    def concept(self) -> int:
        """First concept weight; N_OWN a concept. Questions come before, two weights each."""
        return 2 * self.questions

    @property
    def concept_pattern(self) -> int:
        """First weight of concept patterns."""
        return self.concept + N_OWN * self.concepts

    @property
    def global_pattern(self) -> int:
        """First weight of global patterns."""
        return self.concept_pattern + N_CONCEPT_PATTERNS

    @property
    def pair(self) -> int:
        """First pair weight."""
        return self.global_pattern + N_GLOBAL_PATTERNS

    @property
    def size(self) -> int:
        """Number of sparse parameters."""
        return self.pair + len(self.pairs)


@kernel
def loss_chunk(design: Design, start: int, stop: int, dense: F8, sparse: F8, gradient: F8) -> float:
    """Return the summed log loss of rows start..stop−1, adding its gradient (dense, then sparse)."""
    total = 0.0
    d = dense.shape[0]
    for i in range(start, stop):
        x = design.dense[i]
        z = 0.0
        for j in range(d):
            z += x[j] * dense[j]
        for j in range(design.place.shape[1]):
            z += design.value[i, j] * sparse[design.place[i, j]]
        y = design.target[i]
        total += np.log1p(np.exp(-abs(z))) + max(z, 0.0) - y * z
        g = 1.0 / (1.0 + np.exp(-z)) - y
        for j in range(d):
            gradient[j] += g * x[j]
        for j in range(design.place.shape[1]):
            gradient[d + design.place[i, j]] += g * design.value[i, j]
    return total


@kernel
def lookup_pairs(w: Weights, keys: U8, out: F8) -> None:
    """Fill out (k,) with a model's weights of pair keys (k,)."""
    for i in range(keys.shape[0]):
        out[i] = find_pair(w, keys[i])


def pair_table(keys: U8, weights: F8) -> tuple[U8, F4]:
    """Return the open-addressing table (keys, weights) that `find_pair` probes; at most half full."""
    size = 1 << max(int(np.ceil(np.log2(max(2 * len(keys), 2)))), 1)
    table, values = np.zeros(size, np.uint64), np.zeros(size, np.float32)
    place_pairs(keys, np.asarray(weights, np.float32), table, values)
    return table, values


@kernel
def place_pairs(keys: U8, weights: F4, table: U8, values: F4) -> None:
    """Put keys (k,) with their weights into a zeroed table by linear probing."""
    mask = np.uint64(table.shape[0] - 1)
    for i in range(keys.shape[0]):
        slot = keys[i] & mask
        while table[slot] != np.uint64(0):
            slot = (slot + np.uint64(1)) & mask
        table[slot] = keys[i]
        values[slot] = weights[i]


def frequent_pairs(keys: U8, at_least: int) -> U8:
    """Return the sorted keys that occur in at least `at_least` rows."""
    found, counts = np.unique(keys[keys != 0], return_counts=True)
    return found[counts >= at_least]


def sparse_part(rows: Rows, questions: U4, layout: Layout) -> tuple[I4, F4]:
    """Return (index, value), each (n, width), of the sparse parameters of every row."""
    n, k = rows.concept.shape
    known = questions < layout.questions
    question = np.where(known, 2 * questions.astype(np.int64), 0)
    places: list[npt.NDArray[np.int64]] = [
        question,
        question + known,
        layout.global_pattern + rows.patterns.astype(np.int64),
    ]
    values: list[npt.NDArray[np.floating]] = [
        known.astype(np.float32),
        rows.ability * known,
        np.ones(n, np.float32),
    ]
    for kind in range(N_PAIRS):
        place = np.minimum(np.searchsorted(layout.pairs, rows.keys[:, kind]), max(len(layout.pairs) - 1, 0))
        hit = layout.pairs[place] == rows.keys[:, kind] if len(layout.pairs) else np.zeros(n, bool)
        places.append(np.where(hit, layout.pair + place, 0))
        values.append(hit.astype(np.float32))
    used = rows.concept != NO_ROW
    counts = used.sum(axis=1)
    for slot in range(k):
        share = used[:, slot] / np.maximum(counts, 1)
        pattern = rows.concept_patterns[:, slot].astype(np.int64)
        places.append(np.where(used[:, slot], layout.concept_pattern + pattern, 0))
        values.append(share)
        has = used[:, slot] & (rows.concept[:, slot] < layout.concepts)
        first = np.where(has, layout.concept + N_OWN * rows.concept[:, slot].astype(np.int64), 0)
        own = np.where(has, share, 0.0)
        places += [first, *(first + (1 + j) * has for j in range(N_OWN_VALUES))]
        values += [own, *(own * rows.concept_values[:, slot, j] for j in range(N_OWN_VALUES))]
        last_two = np.where(pattern >= 4, pattern & 3 | 4, pattern)
        places.append(first + (1 + N_OWN_VALUES + last_two) * has)
        values.append(own)
    index, value = np.stack(places, axis=1).astype(np.int32), np.stack(values, axis=1).astype(np.float32)
    blank = counts == 0
    index[blank, 3 + N_PAIRS], value[blank, 3 + N_PAIRS] = layout.concept_pattern + 1, 1.0
    return index, value


def penalties(layout: Layout, settings: TrainSettings) -> F8:
    """Return the L2 penalty (N_DENSE + sparse,) of every parameter."""
    return np.concatenate(
        [
            np.full(N_DENSE, settings.dense_penalty),
            np.tile([settings.base_penalty, settings.slope_penalty], layout.questions),
            np.full(layout.concept_pattern - layout.concept, settings.concept_penalty),
            np.full(layout.pair - layout.concept_pattern, settings.base_penalty),
            np.full(len(layout.pairs), settings.pair_penalty),
        ]
    )


class Objective:
    """Penalised log loss of a design in scaled parameters, over threads."""

    def __init__(self, design: Design, penalty: F8, rows: int, pool: ThreadPoolExecutor) -> None:
        """Take the first `rows` rows of `design`."""
        self.design, self.penalty, self.pool = design, penalty, pool
        self.bounds = np.linspace(0, rows, CHUNKS + 1).astype(int)
        square = np.zeros(len(penalty))
        self.wide = design.dense.shape[1]
        for j in range(self.wide):
            square[j] = np.square(design.dense[:rows, j], dtype=np.float64).sum()
        np.add.at(square, self.wide + design.place[:rows].ravel(), np.square(design.value[:rows].ravel()))
        self.scale = 1.0 / np.sqrt(CURVATURE * square + penalty)

    def value_and_slope(self, u: F8) -> tuple[float, F8]:
        """Return (loss, gradient) at scaled parameters u."""
        w = u * self.scale
        dense, sparse = w[: self.wide], w[self.wide :]

        def chunk(c: int) -> tuple[float, F8]:
            gradient = np.zeros(len(w))
            return loss_chunk(
                self.design, self.bounds[c], self.bounds[c + 1], dense, sparse, gradient
            ), gradient

        total, slope = 0.0, self.penalty * w
        for loss, gradient in self.pool.map(chunk, range(CHUNKS)):
            total += loss
            slope += gradient
        return total + 0.5 * float(self.penalty @ (w * w)), slope * self.scale


class _Stop(Exception):
    pass


def logits(design: Design, w: F8, start: int = 0) -> F8:
    """Return the log odds (n-start,) of rows from `start` on under unscaled parameters w."""
    wide = design.dense.shape[1]
    z = design.dense[start:].astype(np.float64) @ w[:wide]
    return np.asarray(z + (w[wide:][design.place[start:]] * design.value[start:]).sum(axis=1), np.float64)


def minimise(
    objective: Objective,
    start: F8,
    settings: TrainSettings,
    iterations: int,
    check: Callable[[F8], float] | None,
    tell: Progress,
) -> F8:
    """Return unscaled parameters after L-BFGS from `start`, those best under `check` when there is one."""
    best = (np.inf, start)
    waited = 0
    done = 0

    def each(u: F8) -> None:
        nonlocal best, waited, done
        done += 1
        tell("fitting", done / iterations)
        if check is None or done % settings.check_every:
            return
        loss = check(u * objective.scale)
        if loss < best[0]:
            best, waited = (loss, u * objective.scale), 0
        else:
            waited += 1
            if waited >= settings.patience:
                raise _Stop

    try:
        # The stubs know no callback beside jac=True.
        found = minimize(  # type: ignore[call-overload]
            objective.value_and_slope,
            (start / objective.scale).reshape(-1),
            jac=True,
            method="L-BFGS-B",
            callback=each,
            options={"maxiter": iterations, "maxcor": 12, "ftol": 1e-8, "maxls": 30},
        )
    except _Stop:
        return best[1]
    last = np.asarray(found.x) * objective.scale
    return last if check is None or check(last) <= best[0] else best[1]

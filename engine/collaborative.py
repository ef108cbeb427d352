"""What learners with a like history practise: item factors, and `engine.peers` by concept. Trains and folds in.

Knows rows of questions and concepts, not what a recommendation is.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from engine.catalog import Sparse
from engine.jit import kernel, lean_kernel
from engine.peers import Peers, train_peers
from engine.types import F4, F8, I4, U1, U4

WIDTH = 64
"""Components of a factor."""

CONFIDENCE = 1.0
"""Confidence that a practised question adds to the 1 that absence has (Hu, Koren and Volinsky 2008)."""

REGULARISATION = 10.0
"""With `CONFIDENCE`, the best of a sweep over 1, 10, 40 and 0.05, 1, 10, 50 by recall of a learner's next new questions
on a public tutoring log; docs/recommending.md has the table."""

FOLD_STEPS = 4
"""Conjugate-gradient steps of a fold-in; more changed recall by less than 0.001 in that sweep."""


class Interactions(NamedTuple):
    """Answers of many learners, each learner's together and in order."""

    learner: I4
    """(n,) number of the learner, not decreasing."""
    question: U4
    """(n,) question row."""
    correct: U1
    """(n,)"""


@dataclass(frozen=True, slots=True)
class CollaborativeModel:
    """Factors by row; rows past an array's end, or zero, were never seen. Treat arrays as read-only."""

    item_factors: F4
    """(questions, 64)"""
    gram: F4
    """(64, 64) YᵀY + λI over the item factors."""
    popularity: F4
    """(questions,) log(1 + learners who tried it) over its largest."""
    peers: Peers
    """Which concepts learners turned to, by where they stood."""
    learner_factors: F4
    """(learners, 64) in the order of training."""

    def save(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the arrays by name."""
        own = {name: getattr(self, name) for name in self.__slots__ if name != "peers"}
        return own | {f"peers_{name}": array for name, array in self.peers._asdict().items()}

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray[Any, Any]]) -> "CollaborativeModel":
        """Rebuild from what `save` returned; arrays may be memory maps."""
        own = {name: arrays[name] for name in cls.__slots__ if name != "peers"}
        return cls(**own, peers=Peers(**{name: arrays[f"peers_{name}"] for name in Peers._fields}))


def train_collaborative(
    log: Interactions,
    question_concepts: Sparse,
    concept_count: int,
    *,
    seed: int,
    rounds: int = 15,
    threads: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> CollaborativeModel:
    """Train from a log: implicit-feedback alternating least squares (Hu, Koren and Volinsky 2008), and
    peers.

    Deterministic for a seed at one thread. `progress` is told (rounds done, rounds). An empty log gives a
    model that knows nothing.
    """
    questions = question_concepts.offsets.shape[0] - 1
    # Only training needs these two; a serving process should not carry them.
    from implicit.cpu.als import AlternatingLeastSquares
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    learners = int(log.learner.max()) + 1 if log.learner.size else 0
    peers = train_peers(log.learner, log.question, log.correct, question_concepts, concept_count, seed=seed)
    if learners == 0 or questions == 0:
        nothing = np.zeros((questions, WIDTH), np.float32)
        gram = REGULARISATION * np.eye(WIDTH, dtype=np.float32)
        return CollaborativeModel(
            nothing, gram, np.zeros(questions, np.float32), peers, np.zeros((learners, WIDTH), np.float32)
        )
    tried = sparse.csr_matrix(
        (np.ones(log.learner.size, np.float32), (log.learner, log.question)), shape=(learners, questions)
    )
    tried.sum_duplicates()
    seen = np.bincount(tried.indices, minlength=questions)
    tried.data = 1.0 + CONFIDENCE * np.ones_like(tried.data)
    with threadpool_limits(1, "blas"):
        model = AlternatingLeastSquares(
            factors=WIDTH,
            regularization=REGULARISATION,
            alpha=1.0,
            iterations=rounds,
            num_threads=threads,
            random_state=seed,
        )
        model.fit(
            tried, show_progress=False, callback=lambda done, *_: progress and progress(done + 1, rounds)
        )
    items = np.ascontiguousarray(model.item_factors, np.float32)
    items[seen == 0] = 0.0
    popularity = np.log1p(seen)
    return CollaborativeModel(
        item_factors=items,
        gram=(items.T @ items + REGULARISATION * np.eye(WIDTH)).astype(np.float32),
        popularity=(popularity / popularity.max()).astype(np.float32),
        peers=peers,
        learner_factors=np.ascontiguousarray(model.user_factors, np.float32),
    )


@kernel
def _practised(factors: F4, rows: U4, confidence: F4, r: F4) -> tuple[F4, F4, int]:
    """Return (factors side by side, confidence, how many) of the `rows` that are known; adds Σ (1 + c)·y to r (64,)."""
    items = np.empty((rows.shape[0], r.shape[0]), np.float32)
    weight = np.empty(rows.shape[0], np.float32)
    count = 0
    for i in range(rows.shape[0]):
        if rows[i] < factors.shape[0]:
            share = np.float32(1.0) + confidence[i]
            for j in range(r.shape[0]):
                items[count, j] = factors[rows[i], j]
                r[j] += share * items[count, j]
            weight[count] = confidence[i]
            count += 1
    return items, weight, count


@lean_kernel
def _add_rows(rows: F4, shares: F4, out: F4) -> None:
    """Add to out (m,) the rows (k, m), each times its share (k,)."""
    for i in range(rows.shape[0]):
        row = rows[i]
        share = shares[i]
        for j in range(out.shape[0]):
            out[j] += row[j] * share


@lean_kernel
def _along(a: F4, b: F4) -> np.float32:
    """Return the inner product of two vectors in 32 bits, summed in order."""
    total = np.float32(0.0)
    for j in range(a.shape[0]):
        total += a[j] * b[j]
    return total


@kernel
def fold_in(factors: F4, gram: F4, rows: U4, confidence: F4, steps: int) -> F4:
    """Return the factor (64,) of a learner who practised `rows` (k,) with `confidence` (k,) each.

    Minimises Σ c(1 − x·y)² + xᵀ(gram)x over the practised items as alternating least squares does for one
    learner with the items held fixed, by `steps` of conjugate gradient from zero (Takács, Pilászy and Tikk
    2011). Rows past the end of `factors` (items, 64) are passed over; nothing known gives zero.
    """
    width = gram.shape[0]
    x = np.zeros(width, np.float32)
    r = np.zeros(width, np.float32)
    items, weight, count = _practised(factors, rows, confidence, r)
    columns = np.ascontiguousarray(items[:count].T)
    along = np.empty(count, np.float32)
    p = r.copy()
    size = _along(r, r)
    a = np.empty(width, np.float32)
    for _ in range(steps):
        if size < 1e-12:
            break
        a[:] = 0.0
        # By columns throughout, not by dot products: sums that need no reordering are what the compiler can vectorise.
        _add_rows(gram, p, a)
        along[:] = 0.0
        _add_rows(columns, p, along)
        for i in range(count):
            along[i] *= weight[i]
        _add_rows(items[:count], along, a)
        step = size / _along(p, a)
        for j in range(width):
            x[j] += step * p[j]
            r[j] -= step * a[j]
        following = _along(r, r)
        again = following / size
        for j in range(width):
            p[j] = r[j] + again * p[j]
        size = following
    return x


@lean_kernel
def as_liking(factors: F4, rows: U4, x: F4) -> None:
    """Scale x (64,) in place so that the best liked of the practised `rows` has x·y = 1; leave it when none is liked.

    How large x·y grows depends on the confidence and the length of a history; relative to what the learner is known
    to practise it is the same for all.
    """
    best = np.float32(0.0)
    for i in range(rows.shape[0]):
        if rows[i] < factors.shape[0]:
            liked = np.float32(0.0)
            for j in range(x.shape[0]):
                liked += x[j] * factors[rows[i], j]
            best = max(best, liked)
    if best > 0.0:
        for j in range(x.shape[0]):
            x[j] /= best


def fold_in_exactly(factors: F4, gram: F4, rows: U4, confidence: F4) -> F8:
    """Return the exact minimiser that `fold_in` approaches; slow, for batches and for judging `fold_in`."""
    known = rows < factors.shape[0]
    items = factors[rows[known]].astype(np.float64)
    weight = confidence[known].astype(np.float64)
    system = gram.astype(np.float64) + (items.T * weight) @ items
    return np.asarray(np.linalg.solve(system, items.T @ (1.0 + weight)))

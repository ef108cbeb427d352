"""What learners who stood where this one stands practised next, with profit: cells of learner space. Trains only.

Knows rows of concepts; neither questions nor what a recommendation is.

Where a learner stands is the set of practised concepts, the latest first, placed in 64 dimensions. Every moment at
which a learner of the log turned to another concept is such a place, and what followed is known. Moments are gathered
into cells; a learner is led to what followed in the nearest cells, and to what goes together with the concepts at hand.
docs/recommending.md has the measurements behind the numbers below. `engine.guide` looks up.
"""

from typing import Any, NamedTuple

import faiss
import numpy as np
from scipy import sparse
from scipy.sparse.linalg import svds

from engine.catalog import Sparse
from engine.jit import kernel
from engine.types import F4, F8, I4, I8, U1, U4

WIDTH = 64
"""Components of a place."""

FADING = 10.0
"""Answers after which a practised concept counts half in where its learner stands."""

MOMENTS_EACH = 40
"""Most moments taken of one learner, evenly spread, so that a few diligent ones do not stand for all."""

MOST_MOMENTS = 100_000

AHEAD = 400
"""Answers after a moment that are looked at."""

LATER = 3.0
"""The concept turned to after this many others counts half as much as the one turned to at once."""

JUDGED = 10
"""First answers to a concept turned to, by which its profit is told."""

MOMENTS_A_CELL = 16
MOST_CELLS = 1024
NEXT_LIMIT = 32
"""Most concepts remembered of a cell."""

BESIDE_LIMIT = 20
"""Most concepts remembered as going together with one concept, itself included."""


Matrix = Any
"""A sparse array in rows; scipy's types do not tell its shape."""


class Peers(NamedTuple):
    """What is known of other learners, by concept and by cell; read-only when served."""

    place: F4
    """(concepts, 64) where practice of each concept moves a learner."""
    centre: F4
    """(64, cells) unit centres of the cells, by component so that kernels vectorise."""
    next_offsets: I4
    next_rows: U4
    next_values: F4
    """CSR by cell: concepts that its learners turned to, with how soon and with what profit, in [0, 1]."""
    beside_offsets: I4
    beside_rows: U4
    beside_values: F4
    """CSR by concept: concepts practised by the same learners, as cosines; a practised concept goes with itself."""

    @classmethod
    def nobody(cls) -> "Peers":
        """Return what is known before any training."""
        return cls(
            np.zeros((0, WIDTH), np.float32),
            np.zeros((WIDTH, 0), np.float32),
            *_lists(sparse.csr_array((0, 0), dtype=np.float32), NEXT_LIMIT),
            *_lists(sparse.csr_array((0, 0), dtype=np.float32), BESIDE_LIMIT),
        )


class Moments(NamedTuple):
    """Where learners of a log stood when they turned to another concept, and what followed; a row a moment."""

    stood: Matrix
    """(moments, concepts) rows of unit length, from `standing_weight`."""
    followed: Matrix
    """(moments, concepts) see `moments_of`."""


@kernel
def standing_weight(age: int) -> float:
    """Return how much a concept counts in where a learner stands, `age` answers after its last practice."""
    return 1.0 / (1.0 + age / FADING)


def train_peers(
    learner: I4,
    question: U4,
    correct: U1,
    question_concepts: Sparse,
    concept_count: int,
    *,
    seed: int,
    most_cells: int = MOST_CELLS,
) -> Peers:
    """Train from answers (n,) of many learners, each learner's together and in order. Deterministic for a seed."""
    moments = moments_of(learner, question, correct, question_concepts, concept_count)
    beside = _beside(learner, question, question_concepts, concept_count)
    place = _places(moments.stood)
    stood = _unit(np.asarray(moments.stood @ place, np.float32))
    centre, followed = _cells(stood, moments.followed, most_cells, seed)
    return Peers(place, centre, *_lists(followed, NEXT_LIMIT), *_lists(beside, BESIDE_LIMIT))


def moments_of(
    learner: I4, question: U4, correct: U1, question_concepts: Sparse, concept_count: int
) -> Moments:
    """Return every learner's moments, at most `MOMENTS_EACH` each and about `MOST_MOMENTS` in all.

    What followed is the value of each concept among the next `AHEAD` answers but those just practised, by the order r
    of their first appearance: 1/(1 + r/LATER) · (½ + ½ · share right of the first `JUDGED` answers to it). So what
    learners turned to and failed at leads nobody there, or half as strongly.
    """
    starts = np.flatnonzero(np.diff(learner, prepend=-1))
    ends = np.append(starts, learner.size)[1:]
    each = int(np.clip(MOST_MOMENTS // max(starts.size, 1), 1, MOMENTS_EACH))
    step = max(1, starts.size * each // MOST_MOMENTS)
    stood: list[tuple[I8, F8]] = []
    followed: list[tuple[I8, F8]] = []
    for start, end in zip(starts[::step].tolist(), ends[::step].tolist(), strict=True):
        concept, answer = _exercised(question[start:end], question_concepts)
        first = np.full(end - start, -1, np.int64)
        first[answer[::-1]] = concept[::-1]
        turns = np.flatnonzero((first[1:] != first[:-1]) & (first[1:] >= 0) & (first[:-1] >= 0)) + 1
        if turns.size > each:
            turns = turns[np.linspace(0, turns.size - 1, each).astype(np.int64)]
        right = correct[start:end][answer]
        for turn in turns.tolist():
            stood.append(_standing(concept, answer, turn))
            followed.append(_following(concept, answer, right, turn))
    return Moments(_rows(stood, concept_count, unit=True), _rows(followed, concept_count, unit=False))


def _exercised(question: U4, question_concepts: Sparse) -> tuple[I8, I8]:
    """Return (concept, answer number), one entry a concept of each answer's question."""
    offsets = question_concepts.offsets
    sizes = offsets[question + 1] - offsets[question]
    answer = np.repeat(np.arange(question.size, dtype=np.int64), sizes)
    begin = np.repeat(np.cumsum(sizes) - sizes, sizes)
    entry = np.repeat(offsets[question], sizes) + np.arange(answer.size) - begin
    return question_concepts.rows[entry].astype(np.int64), answer


def _standing(concept: I8, answer: I8, turn: int) -> tuple[I8, F8]:
    """Return (concepts, weights) of where the learner stood before answer number `turn`."""
    until = np.searchsorted(answer, turn)
    newest_first, place = np.unique(concept[:until][::-1], return_index=True)
    age = turn - 1 - answer[:until][::-1][place]
    return newest_first, np.array([standing_weight(int(a)) for a in age])


def _following(concept: I8, answer: I8, right: U1, turn: int) -> tuple[I8, F8]:
    """Return (concepts, values) of what followed from answer number `turn` on."""
    since, until = np.searchsorted(answer, [turn, turn + AHEAD])
    just = concept[np.searchsorted(answer, turn - 1) : since]
    ahead, good = concept[since:until], right[since:until]
    other = ~np.isin(ahead, just)
    ahead, good = ahead[other], good[other]
    rows, first = np.unique(ahead, return_index=True)
    rank = np.argsort(np.argsort(first))
    order = np.argsort(ahead, kind="stable")
    begin = np.searchsorted(ahead[order], rows)
    turned = np.arange(order.size) - begin[np.searchsorted(rows, ahead[order])]
    judged = order[turned < JUDGED]
    place = np.searchsorted(rows, ahead[judged])
    tried = np.bincount(place, minlength=rows.size)
    profit = np.bincount(place, good[judged], minlength=rows.size) / np.maximum(tried, 1)
    return rows, (0.5 + 0.5 * profit) / (1.0 + rank / LATER)


def _rows(entries: list[tuple[I8, F8]], concept_count: int, *, unit: bool) -> Matrix:
    """Return a matrix with one row an entry, of unit length if asked."""
    offsets = np.cumsum([0, *(rows.size for rows, _ in entries)])
    rows = np.concatenate([np.empty(0, np.int64), *(rows for rows, _ in entries)])
    values = np.concatenate([np.empty(0), *(values for _, values in entries)])
    if unit:
        sums = np.add.reduceat(values**2, offsets[:-1]) if entries else np.empty(0)
        values = values / np.repeat(np.sqrt(sums), np.diff(offsets))
    return sparse.csr_array((values.astype(np.float32), rows, offsets), (len(entries), concept_count))


def _places(stood: Matrix) -> F4:
    """Return (concepts, 64) the projection that keeps most of where learners stood; the identity where it fits."""
    moments, concepts = stood.shape
    place = np.zeros((concepts, WIDTH), np.float32)
    if concepts <= WIDTH:
        place[:, :concepts] = np.eye(concepts)
        return place
    kept = min(WIDTH, moments - 1)
    if kept < 1:
        return place
    # A fixed start makes the iteration repeatable.
    _, _, found = svds(stood.astype(np.float64), k=kept, v0=np.ones(min(stood.shape)))
    place[:, :kept] = np.asarray(found).T
    return place


def _cells(stood: F4, followed: Matrix, most: int, seed: int) -> tuple[F4, Matrix]:
    """Return (unit centres (64, cells), what followed in each on average (cells, concepts))."""
    moments, concepts = followed.shape
    if moments == 0:
        return np.zeros((WIDTH, 0), np.float32), sparse.csr_array((0, concepts), dtype=np.float32)
    cells = int(np.clip(moments // MOMENTS_A_CELL, 1, most))
    means = faiss.Kmeans(
        WIDTH,
        cells,
        niter=15,
        seed=seed + 1,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=64,
    )
    means.train(stood)
    cell = means.index.search(stood, 1)[1][:, 0]
    share = (1.0 / np.bincount(cell, minlength=cells)[cell]).astype(np.float32)
    members = sparse.csr_array((share, (cell, np.arange(moments))), shape=(cells, moments))
    return np.ascontiguousarray(np.asarray(means.centroids).T, np.float32), members @ followed


def _beside(learner: I4, question: U4, question_concepts: Sparse, concept_count: int) -> Matrix:
    """Return (concepts, concepts) cosines between the sets of learners who practised them."""
    concept, answer = _exercised(question, question_concepts)
    learners = int(learner.max()) + 1 if learner.size else 0
    who = sparse.csr_array(
        (np.ones(concept.size, np.float32), (learner[answer], concept)), (learners, concept_count)
    )
    who.sum_duplicates()
    who.data[:] = 1.0
    length = np.sqrt(np.maximum(np.asarray(who.sum(axis=0)).ravel(), 1.0))
    scaled = who @ sparse.diags_array(1.0 / length)
    return sparse.csr_array(scaled.T @ scaled).astype(np.float32)


def _lists(matrix: Matrix, limit: int) -> tuple[I4, U4, F4]:
    """Return CSR (offsets, rows, values) with the `limit` largest of each row, largest first."""
    matrix = sparse.csr_array(matrix)
    size = matrix.shape[0]
    source = np.repeat(np.arange(size), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, source))
    rank = np.arange(order.size) - matrix.indptr[:-1][source]
    kept = order[rank < limit]
    offsets = np.zeros(size + 1, np.int32)
    np.cumsum(np.bincount(source[kept], minlength=size), out=offsets[1:])
    return offsets, matrix.indices[kept].astype(np.uint32), matrix.data[kept].astype(np.float32)


def _unit(vectors: F4) -> F4:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.ascontiguousarray(np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0))

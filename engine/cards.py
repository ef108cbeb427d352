"""What scoring reads of a question, side by side in memory. Scores nothing.

A pass looks at a hundred questions out of a million: each place in memory that it reads of one is a wait of its own. So
all that is read of a question is kept together, in four cache lines, and questions of one concept in the order of their
shelf, since a source takes neighbours there. Vectors are kept in steps of 1/127 of their largest component: what is
read of them is only how alike two are, and the error of that, some 0.001, is no difference between questions.
"""

from typing import Final

import numpy as np

from engine.catalog import Catalog, Sparse
from engine.collaborative import WIDTH
from engine.jit import kernel, lean_kernel
from engine.learner.pairs import LAST_TWO, MET, PairTable
from engine.learner.score import Weights
from engine.learner.state import Records
from engine.types import F4, F8, I4, U4

STEPS: Final = 127
"""Steps of a question's vector on either side of zero; those of a learner's are `FINE_STEPS`."""
FINE_STEPS: Final = 32767

CARD: Final = np.dtype(
    [
        ("content", "i1", (WIDTH,)),
        ("factor", "i1", (WIDTH,)),
        ("base", "f8"),
        ("evidence", "f8"),
        ("content_step", "f4"),
        ("factor_step", "f4"),
        ("popularity", "f4"),
        ("seconds", "f4"),
        ("bias", "f4"),
        ("slope", "f4"),
        ("met", "f4", (MET,)),
        ("after_own", "f4", (LAST_TWO - 1,)),
        ("after_any", "f4", (LAST_TWO - 1,)),
        ("exercise_set", "i4"),
        ("concept", "u4"),
        ("concepts", "u4"),
    ],
    align=True,
)
"""One record a question. `content`, `factor`: steps; a step is `content_step`, `factor_step`. `base`, `evidence`:
`engine.learner.many.fill_bases`. `bias`, `slope`: the question's own weights. `met`, `after_own`, `after_any`: weights
of its pairs, `engine.learner.pairs`; the last two from outcome bits 1 on. `concept`: the first of `concepts`.
"""

LABEL: Final = np.dtype(
    [("card", "u4"), ("concept", "u4"), ("concepts", "u2"), ("active", "u1")],
    align=True,
)
"""One record a question row, of which candidates are found: its place among the cards, its first concept, how many it
has, and whether it may be asked.
"""

_LINE: Final = 64
"""Bytes of a cache line."""


def make_cards(
    catalog: Catalog,
    shelves: Sparse,
    pairs: PairTable,
    w: Weights,
    bases: F8,
    content: F4,
    factors: F4,
    popularity: F4,
) -> tuple[Records, I4]:
    """Return (cards, (nq,) each question's place among them).

    `shelves` are the concepts' questions, easiest last. Factors past the array's end are zero.
    """
    order = _order(catalog, shelves)
    place = np.empty(catalog.question_count, np.int32)
    place[order] = np.arange(order.shape[0], dtype=np.int32)
    cards = _room(order.shape[0])
    counts, first = _concepts(catalog)
    cards["base"], cards["evidence"] = bases[order, 0], bases[order, 1]
    cards["popularity"], cards["seconds"] = popularity[order], catalog.expected_seconds[order]
    trained = order < w.question.shape[0]
    cards["bias"][trained], cards["slope"][trained] = w.question[order[trained]].T
    cards["met"] = pairs.own[order, :MET]
    cards["after_own"] = pairs.own[order, MET + 1 : MET + LAST_TWO]
    cards["after_any"] = pairs.own[order, MET + LAST_TWO + 1 :]
    cards["exercise_set"] = catalog.exercise_set[order]
    cards["concept"], cards["concepts"] = first[order], counts[order]
    _fill_vectors(order, np.ascontiguousarray(content), np.ascontiguousarray(factors), cards)
    return cards, place


def make_labels(catalog: Catalog, card_of: I4) -> Records:
    """Return the labels (nq,) of questions whose cards are at `card_of` (nq,)."""
    labels = np.zeros(catalog.question_count, LABEL)
    counts, first = _concepts(catalog)
    labels["card"], labels["active"] = card_of, catalog.question_active
    labels["concept"], labels["concepts"] = first, counts
    return labels


def _concepts(catalog: Catalog) -> tuple[I4, U4]:
    """Return how many concepts each question (nq,) has, and its first one, 0 where it has none."""
    own = catalog.question_concepts
    counts = np.diff(own.offsets)
    first = np.zeros(counts.shape[0], np.uint32)
    first[counts > 0] = own.rows[own.offsets[:-1][counts > 0]]
    return counts, first


def _order(catalog: Catalog, shelves: Sparse) -> U4:
    """Return question rows concept by concept as their shelves hold them, each with its first concept."""
    own = catalog.question_concepts
    counts = np.diff(own.offsets)
    listed = shelves.rows[counts[shelves.rows] > 0]
    concept = np.repeat(np.arange(shelves.offsets.shape[0] - 1), np.diff(shelves.offsets))
    first = own.rows[own.offsets[:-1][listed]] == concept[counts[shelves.rows] > 0]
    leading = listed[first]
    rest = np.ones(counts.shape[0], bool)
    rest[leading] = False
    return np.concatenate([leading, np.flatnonzero(rest).astype(np.uint32)])


def _room(count: int) -> Records:
    """Return zeroed cards that begin with a cache line."""
    size = CARD.itemsize
    raw = np.zeros(count * size + _LINE, np.uint8)
    start = -raw.ctypes.data % _LINE
    return raw[start : start + count * size].view(CARD)


@kernel
def _fill_vectors(order: U4, content: F4, factors: F4, cards: Records) -> None:
    """Fill both vectors of every card."""
    for i in range(order.shape[0]):
        row = order[i]
        cards[i].content_step = coarsen(content[row], STEPS, cards[i].content)
        if row < factors.shape[0]:
            cards[i].factor_step = coarsen(factors[row], STEPS, cards[i].factor)


@lean_kernel
def coarsen(vector: F4, steps: int, out: Records) -> float:
    """Fill out (64,) with the components of a vector as whole numbers of steps, at most `steps`; returns one step."""
    most = 0.0
    for j in range(vector.shape[0]):
        most = max(most, abs(float(vector[j])))
    step = most / steps
    for j in range(vector.shape[0]):
        out[j] = int(np.floor(vector[j] / step + 0.5)) if step > 0.0 else 0
    return step


@lean_kernel
def alike(fine: Records, coarse: Records) -> int:
    """Return the inner product of two vectors (64,) in steps: whole numbers, which may be summed in any order."""
    total = np.int32(0)
    for j in range(WIDTH):
        # In 32 bits throughout: 64 · 127 · 32767 fits, and the compiler has instructions for just this.
        total = np.int32(total + np.int32(np.int32(fine[j]) * np.int32(coarse[j])))
    return int(total)


@lean_kernel
def dot(a: F4, b: F4) -> float:
    """Return the inner product of two vectors, four sums side by side; their length is a multiple of 4."""
    # One running sum would wait for itself; reordering is not allowed to the compiler, so it is written out.
    first = second = third = fourth = np.float32(0.0)
    for j in range(0, a.shape[0], 4):
        first += a[j] * b[j]
        second += a[j + 1] * b[j + 1]
        third += a[j + 2] * b[j + 2]
        fourth += a[j + 3] * b[j + 3]
    return float((first + second) + (third + fourth))

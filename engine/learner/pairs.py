"""Weights of pairs laid out by question, so that the many look-ups of one learner are few. Fits nothing.

A model keeps the weights of pairs under 64-bit hashes. The hash can be undone (`engine.learner.features.hash_pair`), so
a key tells which pair of a kind it is the key of: undone once a model, the keys say all that look-ups can find.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.learner.score import Weights
from engine.types import F4, I8, U4

U8 = npt.NDArray[np.uint64]

MET: Final = 5
"""Ways in which a question was met, or not, see `engine.learner.features.pair_key`."""
LAST_TWO: Final = 8
"""Last two outcomes as bits behind a leading 1; entry 0 is none."""

AFTER_OWN: Final = MET
AFTER_ANY: Final = MET + LAST_TWO
WIDTH: Final = MET + 2 * LAST_TWO
"""Columns of a question's own weights start at 0 (by how it was met), here, and here."""

_GOLDEN: Final = 0x9E3779B97F4A7C15
_UNMIX_1: Final = np.uint64(pow(0xBF58476D1CE4E5B9, -1, 1 << 64))
_UNMIX_2: Final = np.uint64(pow(0x94D049BB133111EB, -1, 1 << 64))
"""Inverses of the finaliser's factors modulo 2^64."""


class PairTable(NamedTuple):
    """The weights of the pairs that a question is the first of."""

    own: F4
    """(questions, WIDTH) of the kinds with few second parts; 0 where there is none."""
    code: I8
    """(k,) ascending 2 · last question + its outcome, of the pairs with the question before."""
    row: U4
    """(k,) the question, ascending among equal codes."""
    weight: F4
    """(k,)"""


def by_question(w: Weights, questions: int) -> PairTable:
    """Return what `engine.learner.score.find_pair` finds for the first `questions` rows, but for pairs of concepts."""
    held = np.flatnonzero(w.pair_key)
    weight = w.pair_weight[held]
    plain = _unmixed(w.pair_key[held])
    own = np.zeros((questions, WIDTH), np.float32)
    for kind, (column, size) in enumerate(((0, MET), (AFTER_OWN, LAST_TWO), (AFTER_ANY, LAST_TWO))):
        first, second = _parts(plain, kind)
        known = (first < questions) & (second < size)
        own[first[known], column + second[known]] = weight[known]
    codes, rows, weights = [], [], []
    for outcome in range(2):
        first, second = _parts(plain, 3 + outcome)
        known = first < questions
        codes.append(2 * second[known].astype(np.int64) + outcome)
        rows.append(first[known].astype(np.uint32))
        weights.append(weight[known])
    code, row = np.concatenate(codes), np.concatenate(rows)
    order = np.lexsort((row, code))
    return PairTable(own, code[order], row[order], np.concatenate(weights)[order])


def _unmixed(keys: U8) -> U8:
    """Return what the finaliser of SplitMix64 was given."""
    x = keys ^ (keys >> np.uint64(31)) ^ (keys >> np.uint64(62))
    x = x * _UNMIX_2
    x = x ^ (x >> np.uint64(27)) ^ (x >> np.uint64(54))
    x = x * _UNMIX_1
    return np.asarray(x ^ (x >> np.uint64(30)) ^ (x >> np.uint64(60)), np.uint64)


def _parts(plain: U8, kind: int) -> tuple[U8, U8]:
    """Return (first, second) of the pairs of this kind that have these keys."""
    both = plain ^ np.uint64((kind + 1) * _GOLDEN % (1 << 64))
    return both >> np.uint64(32), both & np.uint64(0xFFFFFFFF)

"""Where a learner is stuck, and which weak prerequisites lie behind it. Reads standing and graph, predicts nothing."""

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.catalog import Catalog
from engine.gap_causes import CauseKind as CauseKind
from engine.gap_causes import Found, causes_behind
from engine.graph import NEARLY_MASTERED, Adjacency
from engine.jit import kernel
from engine.learner import ConceptView, LearnerModel, LearnerState
from engine.learner.features import SHRINK
from engine.learner.score import Weights, read_only
from engine.learner.state import Records
from engine.learner.update import CONCEPT_VARIANCE, find_row, sigmoid, widen
from engine.learner.view import mastery_of, median_of
from engine.types import F8, I4, I8, U1, U4

Flags = npt.NDArray[np.bool_]

LATEST: Final = 3
"""A learner's latest answers to a concept's own questions that tell whether they are stuck."""
LATEST_WRONG: Final = 2
"""Of which at least so many are wrong."""
_KINDS: Final = {int(kind): kind for kind in CauseKind}


class Cause(NamedTuple):
    """A prerequisite behind a gap."""

    row: int
    kind: CauseKind
    path: tuple[int, ...]
    """Rows from the cause up to the concept of the gap, both among them."""


class Gap(NamedTuple):
    """A concept that a learner is stuck at."""

    row: int
    wrong: int
    """Of the last `LATEST` answers to its own questions."""
    causes: list[Cause]
    """The most likely first; empty when everything beneath is sound."""


def _wrong_by_pattern() -> I8:
    """Return (256,) wrong answers among the last `LATEST`, by a concept's pattern of outcomes behind a leading 1."""
    wrong = np.zeros(256, np.int64)
    for pattern in range(1, 256):
        known = min(pattern.bit_length() - 1, LATEST)
        wrong[pattern] = known - (pattern & ((1 << known) - 1)).bit_count()
    return wrong


_WRONG: Final = _wrong_by_pattern()


def wrong_lately(pattern: U1) -> Flags:
    """Return whether concepts with these patterns of outcomes had `LATEST_WRONG` of the last `LATEST` answers wrong."""
    return np.asarray(_WRONG[pattern] >= LATEST_WRONG)


def stuck_rows(state: LearnerState, view: ConceptView, catalog: Catalog) -> tuple[I8, I8]:
    """Return (rows, wrong answers among the last `LATEST`) of concepts that the learner is stuck at, weakest first.

    Stuck: at least `LATEST_WRONG` of the last `LATEST` own answers wrong, and mastery now below `NEARLY_MASTERED`.
    """
    rows = state.concepts["row"].astype(np.int64)
    wrong = _WRONG[state.concepts["pattern"]]
    chosen = (wrong >= LATEST_WRONG) & (rows < catalog.concept_count)
    rows, wrong = rows[chosen], wrong[chosen]
    kept = (catalog.concept_active[rows] == 1) & (view.mastery[rows] < NEARLY_MASTERED)
    rows, wrong = rows[kept], wrong[kept]
    order = np.lexsort((rows, view.mastery[rows]))
    return rows[order], wrong[order]


def find_gaps(
    state: LearnerState,
    view: ConceptView,
    catalog: Catalog,
    *,
    among: Iterable[int] | None = None,
    most: int | None = None,
) -> list[Gap]:
    """Return the gaps of a learner, weakest concept first, at most `most`; only of the rows `among`, where given.

    A prerequisite is weak when what answers speak for (`engine.graph.readiness`, with mastery as it is now) lies below
    `NEARLY_MASTERED`. From the concept one walks down over weak prerequisites. A cause is a weak one that answers show
    to be weak with no other such beneath it; or an untested hard one, the nearest on its way, where nothing beneath it
    is shown to be weak. Shown ones come first, then those on hard edges, then the nearest, then the weakest.
    """
    rows, wrong = stuck_rows(state, view, catalog)
    if among is not None:
        chosen = np.isin(rows, np.fromiter(among, np.int64))
        rows, wrong = rows[chosen], wrong[chosen]
    if not rows.size:
        return []
    rows, wrong = rows[:most], wrong[:most]
    causes = causes_of(rows, view, catalog)
    return [
        Gap(row, count, behind)
        for row, count, behind in zip(rows.tolist(), wrong.tolist(), causes, strict=True)
    ]


def causes_of(rows: I8, view: ConceptView, catalog: Catalog) -> list[list[Cause]]:
    """Return what lies behind gaps at rows (g,), of each the most likely causes first."""
    found = causes_behind(
        rows,
        catalog.prerequisites,
        catalog.order,
        catalog.depth,
        np.ascontiguousarray(view.mastery),
        np.ascontiguousarray(view.mastered),
        (~np.isnan(view.mastered_at)).astype(np.uint8),
        np.ascontiguousarray(view.attempts),
    )
    return _listed(found)


class Footing(NamedTuple):
    """Of a `ConceptView` what gaps are told with, each (concepts,)."""

    mastery: F8
    attempts: U4


def gaps_among(
    state: LearnerState, candidates: I8, catalog: Catalog, model: LearnerModel, now: float
) -> tuple[list[Gap], Footing]:
    """Return the gaps among some rows as `find_gaps` does, without a view of all that can be told of a learner."""
    rows, wrong, found, footing = _gaps_among(
        read_only(state.header), read_only(state.concepts), candidates, model.weights, now, catalog.concept_active,
        catalog.prerequisites, catalog.order, catalog.depth,
    )  # fmt: skip
    gaps = zip(rows.tolist(), wrong.tolist(), _listed(found), strict=True)
    return [Gap(*gap) for gap in gaps], Footing(*footing)


@kernel
def _gaps_among(
    header: Records,
    concepts: Records,
    candidates: I8,
    w: Weights,
    now: float,
    active: U1,
    needs: Adjacency,
    order: U4,
    depth: I4,
) -> tuple[I8, I8, Found, tuple[F8, U4]]:
    """Return rows of gaps, weakest first, how many answers were wrong, what lies behind them; and the footing."""
    n = active.shape[0]
    head = header[0]
    mastery, attempts = np.empty(n), np.zeros(n, np.uint32)
    mastered, once = np.zeros(n, np.uint8), np.zeros(n, np.uint8)
    # As `stand_new`, all rows of which share what the learner brings.
    spread = float(head.variance[0]) + CONCEPT_VARIANCE[0]
    narrowed = math.sqrt(1.0 + SHRINK * spread)
    for row in range(n):
        level = median_of(w, row) + head.mean[0]
        mastery[row] = sigmoid(w.mastery[0] + w.mastery[1] * level / narrowed)
    for at in range(concepts.shape[0]):
        row = widen(concepts[at].row)
        if row >= n:
            break
        mastery[row] = mastery_of(head, concepts, at, row, now, w)[0]
        attempts[row] = concepts[at].attempts
        mastered[row] = concepts[at].mastered
        once[row] = 1 if concepts[at].mastered_at > 0 else 0
    rows, wrong = np.empty(candidates.shape[0], np.int64), np.empty(candidates.shape[0], np.int64)
    count = 0
    for row in candidates:
        at = find_row(concepts, row)
        if at < 0 or row >= n or active[row] != 1 or mastery[row] >= NEARLY_MASTERED:
            continue
        times = _WRONG[concepts[at].pattern]
        if times < LATEST_WRONG:
            continue
        place = count
        while place > 0 and (mastery[row], row) < (mastery[rows[place - 1]], rows[place - 1]):
            rows[place], wrong[place] = rows[place - 1], wrong[place - 1]
            place -= 1
        rows[place], wrong[place] = row, times
        count += 1
    rows = rows[:count]
    found = causes_behind(rows, needs, order, depth, mastery, mastered, once, attempts)
    return rows, wrong[:count], found, (mastery, attempts)


def _listed(found: Found) -> list[list[Cause]]:
    """The causes of each gap, as `causes_behind` found them."""
    counts, kinds, lengths, paths = found
    way = paths.tolist()
    every, start = [], 0
    for kind, length in zip(kinds.tolist(), lengths.tolist(), strict=True):
        path = tuple(way[start : start + length])
        every.append(Cause(path[0], _KINDS[kind], path))
        start += length
    listed, start = [], 0
    for count in counts.tolist():
        listed.append(every[start : start + count])
        start += count
    return listed

"""Where a learner is stuck, and which weak prerequisites lie behind it. Reads standing and graph, predicts nothing."""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.catalog import Catalog
from engine.gap_causes import CauseKind as CauseKind
from engine.gap_causes import causes_behind
from engine.graph import NEARLY_MASTERED
from engine.learner import ConceptView, LearnerState
from engine.types import I8, U1

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


def may_be_stuck(state: LearnerState, rows: Iterable[int]) -> bool:
    """Return whether the latest answers to any of the concept rows say so, before mastery is looked at."""
    wrong = wrong_lately(state.concepts["pattern"])
    return bool(np.isin(state.concepts["row"][wrong], np.fromiter(rows, np.int64)).any())


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
    counts, kinds, lengths, paths = causes_behind(
        rows,
        catalog.prerequisites,
        catalog.order,
        catalog.depth,
        np.ascontiguousarray(view.mastery),
        np.ascontiguousarray(view.mastered),
        np.ascontiguousarray(view.mastered_at),
        np.ascontiguousarray(view.attempts),
    )
    way = paths.tolist()
    ends = np.cumsum(lengths).tolist()
    every = [
        Cause(way[end - length], _KINDS[kind], tuple(way[end - length : end]))
        for kind, length, end in zip(kinds.tolist(), lengths.tolist(), ends, strict=True)
    ]
    stops = np.cumsum(counts).tolist()
    return [every[stop - count : stop] for count, stop in zip(counts.tolist(), stops, strict=True)]

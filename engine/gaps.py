"""Where a learner is stuck, and which weak prerequisites lie behind it. Reads standing and graph, predicts nothing."""

from collections.abc import Iterable
from enum import IntEnum
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.catalog import Catalog
from engine.graph import NEARLY_MASTERED, standing_of
from engine.learner import ConceptView, LearnerState
from engine.types import F8, I8, U1

Flags = npt.NDArray[np.bool_]

LATEST: Final = 3
"""A learner's latest answers to a concept's own questions that tell whether they are stuck."""
LATEST_WRONG: Final = 2
"""Of which at least so many are wrong."""
MOST_CAUSES: Final = 3
"""Causes named of a gap."""

_KEPT: Final = 8
"""Causes followed upwards from one concept: enough for `MOST_CAUSES`, and a bound for dense graphs."""


class CauseKind(IntEnum):
    """What is the matter with a prerequisite. Numbers are the wire API's `GapCauseKind`."""

    FORGOTTEN = 1
    """Mastered once, faded below `NEARLY_MASTERED`."""
    NOT_LEARNED = 2
    """Practised, and below it."""
    UNTESTED = 3
    """No answer speaks for it."""


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
    beneath = _Beneath(view, catalog)
    return [
        Gap(row, count, beneath.causes_of(row))
        for row, count in zip(rows.tolist(), wrong.tolist(), strict=True)
    ]


class _Way(NamedTuple):
    """How a cause reaches a concept above it."""

    kind: CauseKind
    path: tuple[int, ...]
    soft: bool
    """A soft edge lies on it."""


class _Beneath:
    """The weak part of the graph for one learner at one time."""

    def __init__(self, view: ConceptView, catalog: Catalog) -> None:
        faded = view.mastered & (view.mastery >= NEARLY_MASTERED).astype(view.mastered.dtype)
        self._proven: F8 = standing_of(
            catalog.prerequisites, catalog.order, view.mastery, faded, view.attempts
        )[0]
        self._view = view
        self._catalog = catalog
        self._found: dict[int, list[_Way]] = {}
        self._needs: dict[int, list[tuple[int, bool]]] = {}

    def causes_of(self, row: int) -> list[Cause]:
        """What lies behind a gap at `row`."""
        for weak in self._weak_beneath(row):
            self._found[weak] = self._settle(weak)
        return [Cause(way.path[0], way.kind, way.path) for way in self._ways_up(row)[:MOST_CAUSES]]

    def _kind(self, row: int) -> CauseKind:
        if self._view.mastered[row] or not np.isnan(self._view.mastered_at[row]):
            return CauseKind.FORGOTTEN
        return CauseKind.NOT_LEARNED if self._view.attempts[row] > 0 else CauseKind.UNTESTED

    def _weak_needs(self, row: int) -> list[tuple[int, bool]]:
        """(row, soft) of the weak prerequisites; a soft one counts only where answers show it to be weak."""
        found = self._needs.get(row)
        if found is None:
            needs = self._catalog.prerequisites
            edges = slice(needs.offsets[row], needs.offsets[row + 1])
            found = self._needs[row] = [
                (below, not hard)
                for below, hard in zip(needs.rows[edges].tolist(), needs.hard[edges].tolist(), strict=True)
                if self._proven[below] < NEARLY_MASTERED
                and (hard or self._kind(below) is not CauseKind.UNTESTED)
            ]
        return found

    def _weak_beneath(self, row: int) -> list[int]:
        """Weak rows beneath that are not settled yet, each after what it rests on."""
        seen: set[int] = set()
        pending = [row]
        while pending:
            for below, _ in self._weak_needs(pending.pop()):
                if below not in seen and below not in self._found:
                    seen.add(below)
                    pending.append(below)
        return sorted(seen, key=lambda below: int(self._catalog.depth[below]))

    def _ways_up(self, row: int) -> list[_Way]:
        """Ways from the causes beneath to `row`, the best of each cause, most likely first."""
        ways = [
            _Way(way.kind, (*way.path, row), way.soft or soft)
            for below, soft in self._weak_needs(row)
            for way in self._found[below]
        ]
        ways.sort(key=self._rank)
        best: dict[int, _Way] = {}
        for way in ways:
            best.setdefault(way.path[0], way)
        return list(best.values())[:_KEPT]

    def _settle(self, row: int) -> list[_Way]:
        """The causes at or beneath a weak row."""
        shown = [way for way in self._ways_up(row) if way.kind is not CauseKind.UNTESTED]
        return shown or [_Way(self._kind(row), (row,), False)]

    def _rank(self, way: _Way) -> tuple[bool, bool, int, float, int]:
        cause = way.path[0]
        mastery = float(self._view.mastery[cause])
        return way.kind is CauseKind.UNTESTED, way.soft, len(way.path), mastery, cause

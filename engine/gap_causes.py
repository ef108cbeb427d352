"""What lies behind the concepts that a learner is stuck at: ways down through weak prerequisites. `gaps` says which."""

from enum import IntEnum
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from engine.graph import NEARLY_MASTERED, Adjacency, prove
from engine.jit import kernel, lean_kernel
from engine.types import F8, I4, I8, U1, U4

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


_UNTESTED: Final = int(CauseKind.UNTESTED)
_NOT_LEARNED: Final = int(CauseKind.NOT_LEARNED)
_FORGOTTEN: Final = int(CauseKind.FORGOTTEN)


Found: TypeAlias = tuple[I4, U1, I4, U4]
"""Of gaps (g,) how many causes each has; of these, gap after gap, kinds, lengths of paths, and the paths."""


class _Ways(NamedTuple):
    """Ways from causes up to rows: of each row at most `_KEPT`, one a cause, the most likely first."""

    kept: I4
    """(slots,) how many; -1 where they are not known yet."""
    cause: I4
    """(slots, _KEPT)"""
    length: I4
    """(slots, _KEPT) rows on the way, both ends among them."""
    soft: U1
    """(slots, _KEPT) whether a soft edge lies on it."""
    below: I4
    """(slots, _KEPT) the row before the last one; -1 where the way is the cause alone."""
    below_way: I4
    """(slots, _KEPT) which of that row's ways goes on."""


class _Weakness(NamedTuple):
    """What a learner's answers say of the concepts, each (concepts,)."""

    proven: F8
    mastery: F8
    kind: U1
    """`CauseKind`."""


@lean_kernel
def _weak_need(needs: Adjacency, weak: _Weakness, edge: int) -> bool:
    """Whether a prerequisite is weak; a soft one counts only where answers show it to be."""
    below = needs.rows[edge]
    shown = needs.hard[edge] == 1 or weak.kind[below] != _UNTESTED
    return bool(weak.proven[below] < NEARLY_MASTERED and shown)


@lean_kernel
def _precedes(
    weak: _Weakness, ways: _Ways, slot: int, place: int, cause: int, soft: int, length: int
) -> bool:
    """Whether a way is more likely than the one at `place`, by all that ways are ranked by."""
    other = ways.cause[slot, place]
    untested, other_untested = weak.kind[cause] == _UNTESTED, weak.kind[other] == _UNTESTED
    if untested != other_untested:
        return bool(other_untested)
    if soft != ways.soft[slot, place]:
        return bool(soft < ways.soft[slot, place])
    if length != ways.length[slot, place]:
        return bool(length < ways.length[slot, place])
    if weak.mastery[cause] != weak.mastery[other]:
        return bool(weak.mastery[cause] < weak.mastery[other])
    return bool(cause < other)


@lean_kernel
def _put(
    ways: _Ways, slot: int, place: int, cause: int, soft: int, length: int, below: int, way: int
) -> None:
    ways.cause[slot, place] = cause
    ways.soft[slot, place] = soft
    ways.length[slot, place] = length
    ways.below[slot, place] = below
    ways.below_way[slot, place] = way


@lean_kernel
def _ways_up(needs: Adjacency, weak: _Weakness, ways: _Ways, row: int, slot: int) -> None:
    """Fill a slot with the ways from the causes beneath to `row`, the best of each cause, most likely first."""
    count = 0
    for edge in range(needs.offsets[row], needs.offsets[row + 1]):
        if not _weak_need(needs, weak, edge):
            continue
        below = needs.rows[edge]
        for way in range(ways.kept[below]):
            cause = ways.cause[below, way]
            length = ways.length[below, way] + 1
            soft = 1 if needs.hard[edge] == 0 else ways.soft[below, way]
            held = 0
            while held < count and ways.cause[slot, held] != cause:
                held += 1
            if held < count and not _precedes(weak, ways, slot, held, cause, soft, length):
                continue
            if held == count and count < _KEPT:
                count += 1
            # What stands behind moves one place back, over the place that is given up.
            place = min(held, count - 1)
            if held == _KEPT and not _precedes(weak, ways, slot, place, cause, soft, length):
                continue
            while place > 0 and _precedes(weak, ways, slot, place - 1, cause, soft, length):
                _put(
                    ways, slot, place, ways.cause[slot, place - 1], ways.soft[slot, place - 1],
                    ways.length[slot, place - 1], ways.below[slot, place - 1], ways.below_way[slot, place - 1],
                )  # fmt: skip
                place -= 1
            _put(ways, slot, place, cause, soft, length, below, way)
    ways.kept[slot] = count


@lean_kernel
def _settle(needs: Adjacency, weak: _Weakness, ways: _Ways, row: int) -> None:
    """Fill the slot of a weak row with the causes at or beneath it."""
    _ways_up(needs, weak, ways, row, row)
    shown = 0
    while shown < ways.kept[row] and weak.kind[ways.cause[row, shown]] != _UNTESTED:
        shown += 1
    if shown == 0:
        _put(ways, row, 0, row, 0, 1, -1, -1)
        shown = 1
    ways.kept[row] = shown


@kernel
def _weak_beneath(needs: Adjacency, depth: I4, weak: _Weakness, ways: _Ways, row: int, queue: U4) -> U4:
    """Return the weak rows beneath that are not settled yet, each after what it rests on; marks them as met."""
    count = 0
    head = -1
    here = row
    while head < count:
        for edge in range(needs.offsets[here], needs.offsets[here + 1]):
            below = needs.rows[edge]
            if ways.kept[below] < 0 and _weak_need(needs, weak, edge):
                ways.kept[below] = 0
                queue[count] = below
                count += 1
        head += 1
        if head < count:
            here = queue[head]
    found = queue[:count]
    return found[np.argsort(depth[found], kind="mergesort")]


@kernel
def causes_behind(
    rows: I8, needs: Adjacency, order: U4, depth: I4, mastery: F8, mastered: U1, once: U1, attempts: U4
) -> Found:
    """Return what lies behind gaps at `rows` (g,): how many causes each has (g,), and of all causes kind and path.

    The paths, from the cause up to the gap, lie one after the other; their lengths come before them. `order`, `depth`
    are the catalogue's; `mastery`, `mastered`, `attempts` `ConceptView`'s; `once` says what was ever mastered.
    """
    n = mastery.shape[0]
    faded = np.zeros(n, np.uint8)
    weak = _Weakness(np.empty(n), mastery, np.empty(n, np.uint8))
    for row in range(n):
        faded[row] = 1 if mastered[row] and mastery[row] >= NEARLY_MASTERED else 0
        if mastered[row] or once[row]:
            weak.kind[row] = _FORGOTTEN
        else:
            weak.kind[row] = _NOT_LEARNED if attempts[row] > 0 else _UNTESTED
    prove(needs.offsets, needs.rows, needs.hard, order, mastery, faded, attempts, weak.proven)
    slots = n + rows.shape[0]
    ways = _Ways(
        np.full(slots, -1, np.int32),
        np.empty((slots, _KEPT), np.int32),
        np.empty((slots, _KEPT), np.int32),
        np.empty((slots, _KEPT), np.uint8),
        np.empty((slots, _KEPT), np.int32),
        np.empty((slots, _KEPT), np.int32),
    )
    queue = np.empty(n, np.uint32)
    counts = np.empty(rows.shape[0], np.int32)
    total = 0
    for g in range(rows.shape[0]):
        for row in _weak_beneath(needs, depth, weak, ways, rows[g], queue):
            _settle(needs, weak, ways, row)
        _ways_up(needs, weak, ways, rows[g], n + g)
        counts[g] = min(ways.kept[n + g], MOST_CAUSES)
        for way in range(counts[g]):
            total += ways.length[n + g, way]
    kinds, lengths = np.empty(counts.sum(), np.uint8), np.empty(counts.sum(), np.int32)
    paths = np.empty(total, np.uint32)
    told = 0
    end = 0
    for g in range(rows.shape[0]):
        for way in range(counts[g]):
            kinds[told] = weak.kind[ways.cause[n + g, way]]
            lengths[told] = ways.length[n + g, way]
            end += lengths[told]
            paths[end - 1] = rows[g]
            here, at = ways.below[n + g, way], ways.below_way[n + g, way]
            for step in range(2, lengths[told] + 1):
                paths[end - step] = here
                here, at = ways.below[here, at], ways.below_way[here, at]
            told += 1
    return counts, kinds, lengths, paths

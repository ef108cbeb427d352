"""What a learner's answers open and close in the concept graph. Looks at what they changed only.

For a learner without answers the graph stands as `ConceptArrays` holds it, worked out once a catalogue. Practised
concepts, and what they rest on, change the readiness of what needs them, and what else that waits for: a few dozen
concepts of a thousand. The definitions are those of `engine.graph.readiness`.
"""

from typing import NamedTuple

import numpy as np

from engine.graph import NEARLY_MASTERED, carried
from engine.jit import kernel, lean_kernel
from engine.serving import ConceptArrays
from engine.types import F8, I4, U1


class Openness(NamedTuple):
    """How far each concept is proven, ready and waited for; room that `opened` fills."""

    proven: F8
    """(nc,) as `engine.graph.readiness` says."""
    ready: F8
    """(nc,) likewise."""
    missing: I4
    """(nc,) hard prerequisites still lacking."""
    unlock: F8
    """(nc,) min(1, sum of importance(d) / missing(d)) over the closed concepts d that lack it; 0 when it is proven."""
    waiting: I4
    """(nc,) how many closed concepts lack it."""


@kernel
def room_for(size: int) -> Openness:
    """Return room for so many concepts."""
    return Openness(
        np.empty(size), np.empty(size), np.empty(size, np.int32), np.empty(size), np.empty(size, np.int32)
    )


@kernel
def opened(concepts: ConceptArrays, rows: I4, proof: F8, found: Openness) -> None:
    """Fill `found` for a learner whose own proof of the concepts `rows` (k,) is proof (k,), and 0 of all others."""
    found.proven[:] = 0.0
    found.ready[:] = concepts.ready
    found.missing[:] = concepts.missing
    found.unlock[:] = concepts.unlock
    found.waiting[:] = concepts.waiting
    for i in range(rows.shape[0]):
        found.proven[rows[i]] = proof[i]
    held = np.empty(found.proven.shape[0], np.int32)
    count = _hand_down(concepts, found.proven, held)
    seen = np.zeros(found.proven.shape[0], np.uint8)
    for i in range(count):
        c = held[i]
        carries = found.proven[c] >= NEARLY_MASTERED
        for edge in range(concepts.open_offsets[c], concepts.open_offsets[c + 1]):
            d = concepts.open_rows[edge]
            if carries and concepts.open_hard[edge] == 1:
                found.missing[d] -= 1
            if seen[d] == 0:
                seen[d] = 1
                found.ready[d] = carried(
                    concepts.need_offsets, concepts.need_rows, concepts.need_hard, d, found.proven
                )
    seen[:] = 0
    for i in range(count):
        c = held[i]
        if found.proven[c] < NEARLY_MASTERED:
            continue
        found.unlock[c] = 0.0
        found.waiting[c] = 0
        for edge in range(concepts.open_offsets[c], concepts.open_offsets[c + 1]):
            if concepts.open_hard[edge] == 1:
                _wait(concepts, concepts.open_rows[edge], seen, found)


@lean_kernel
def _hand_down(concepts: ConceptArrays, proven: F8, held: I4) -> int:
    """Let what is proven prove what it rests on; fills held with the concepts proven at all, returns how many."""
    count = 0
    for position in range(concepts.order.shape[0] - 1, -1, -1):
        c = concepts.order[position]
        if proven[c] <= 0.0:
            continue
        held[count] = c
        count += 1
        if proven[c] >= NEARLY_MASTERED:
            for edge in range(concepts.need_offsets[c], concepts.need_offsets[c + 1]):
                if concepts.need_hard[edge] == 1:
                    need = concepts.need_rows[edge]
                    proven[need] = max(proven[need], proven[c])
    return count


@lean_kernel
def _wait(concepts: ConceptArrays, d: int, seen: U1, found: Openness) -> None:
    """Count anew what waits for each prerequisite that a concept still lacks."""
    for edge in range(concepts.need_offsets[d], concepts.need_offsets[d + 1]):
        c = concepts.need_rows[edge]
        if concepts.need_hard[edge] == 0 or seen[c] == 1 or found.proven[c] >= NEARLY_MASTERED:
            continue
        seen[c] = 1
        total = 0.0
        count = 0
        for other in range(concepts.open_offsets[c], concepts.open_offsets[c + 1]):
            e = concepts.open_rows[other]
            if concepts.open_hard[other] == 1 and found.missing[e] > 0:
                total += concepts.importance[e] / found.missing[e]
                count += 1
        found.unlock[c] = min(1.0, total)
        found.waiting[c] = count

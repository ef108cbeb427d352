"""The prerequisite graph: order, importance, closure and readiness. Knows nothing of questions, scores or storage.

Arrays in compressed sparse row (CSR) form: neighbours of concept row c are `rows[offsets[c]:offsets[c + 1]]`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from engine.jit import kernel, lean_kernel
from engine.types import F4, F8, I4, I8, NO_ROW, U1, U4, Prerequisite

NEARLY_MASTERED = 0.70
"""Mastery from which a practised prerequisite no longer blocks: the level below which mastery is lost."""

FULLY_READY = 0.85
"""Mastery of a prerequisite at which it no longer lowers readiness: the level at which mastery is earned."""

SOFT_LEAST = 0.2
"""Readiness that is left when no soft prerequisite is known."""

PAGERANK_DAMPING = 0.85
"""Share of a concept's weight that follows its edges (Brin and Page 1998)."""

CREDIT_DEFAULT = 0.5
"""Share of a review that practising a concept gives its hard prerequisites together, when the catalogue says
none."""

CREDIT_FLOOR = 0.05
"""Credit below this share of a review is not counted."""

CREDIT_LIMIT = 16
"""Most concepts that one concept gives credit to; the largest shares are kept."""


class PrerequisiteCycle(ValueError):
    """The prerequisites lead back to where they started; `path` names the concepts, the first one repeated
    last.
    """

    def __init__(self, path: Sequence[str]) -> None:
        self.path = list(path)
        super().__init__("prerequisites form a cycle: " + " -> ".join(self.path))


class Edge(NamedTuple):
    """A prerequisite edge by name: `concept_id` needs `prerequisite_id`."""

    concept_id: str
    prerequisite_id: str


class Adjacency(NamedTuple):
    """Neighbours of every concept row in CSR form, with what each edge carries."""

    offsets: I4
    """(n+1,) start of each row's edges."""
    rows: U4
    """(e,) the neighbour."""
    hard: U1
    """(e,) 1 where the edge blocks, 0 where it only lowers readiness."""
    weight: F4
    """(e,) share of a review of the prerequisite that practising the dependent concept is worth."""


def find_cycle(prerequisites: Mapping[str, Iterable[str]]) -> list[str] | None:
    """Return one cycle as concept ids, the first repeated last, or None when the graph is acyclic.

    `prerequisites` maps a concept id to the ids it needs; ids that are not keys have no prerequisites. A
    concept that needs itself is the cycle [id, id]. Depth-first, iterative, O(concepts + edges).
    """
    done: set[str] = set()
    for start in prerequisites:
        if start in done:
            continue
        path: list[str] = [start]
        on_path = {start}
        pending = [iter(prerequisites[start])]
        while pending:
            following = next(pending[-1], None)
            if following is None:
                pending.pop()
                leaving = path.pop()
                on_path.discard(leaving)
                done.add(leaving)
            elif following in on_path:
                return [*path[path.index(following) :], following]
            elif following not in done:
                path.append(following)
                on_path.add(following)
                pending.append(iter(prerequisites.get(following, ())))
    return None


def break_cycles(
    prerequisites: Mapping[str, Sequence[Prerequisite]],
) -> tuple[dict[str, tuple[Prerequisite, ...]], list[Edge]]:
    """Return the graph without cycles, and the edges that were dropped for it.

    Self-loops always go. Inside each tangle the strongest edges (hard, then of larger weight, then those that
    agree with a depth-first order) are kept first and an edge is dropped only if the kept ones already lead
    back along it, so no dropped edge could be put back alone and the weakest go first.
    """
    kept: dict[str, list[Prerequisite]] = {concept_id: [] for concept_id in prerequisites}
    dropped: list[Edge] = []
    component = _components(prerequisites)
    tangled: list[tuple[str, Prerequisite]] = []
    for concept_id, needs in prerequisites.items():
        for need in needs:
            if need.concept_id == concept_id:
                dropped.append(Edge(concept_id, concept_id))
            elif need.concept_id in component and component[need.concept_id] == component[concept_id]:
                tangled.append((concept_id, need))
            else:
                kept[concept_id].append(need)
    tangled.sort(key=lambda edge: (not edge[1].hard, -(edge[1].encompassed or 0.0)))
    for concept_id, need in tangled:
        if _leads_to(kept, need.concept_id, concept_id):
            dropped.append(Edge(concept_id, need.concept_id))
        else:
            kept[concept_id].append(need)
    gone = set(dropped)
    result = {
        concept_id: tuple(need for need in needs if Edge(concept_id, need.concept_id) not in gone)
        for concept_id, needs in prerequisites.items()
    }
    return result, dropped


def _leads_to(graph: Mapping[str, Sequence[Prerequisite]], start: str, goal: str) -> bool:
    seen = {start}
    pending = [start]
    while pending:
        here = pending.pop()
        if here == goal:
            return True
        for need in graph.get(here, ()):
            if need.concept_id not in seen:
                seen.add(need.concept_id)
                pending.append(need.concept_id)
    return False


def _components(graph: Mapping[str, Sequence[Prerequisite]]) -> dict[str, int]:
    """Number of the strongly connected component of every concept (Tarjan 1972, iterative)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    component: dict[str, int] = {}
    stack: list[str] = []
    for start in graph:
        if start in index:
            continue
        work = [(start, iter(graph[start]))]
        index[start] = low[start] = len(index)
        stack.append(start)
        while work:
            here, needs = work[-1]
            need = next(needs, None)
            if need is None:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[here])
                if low[here] == index[here]:
                    while True:
                        member = stack.pop()
                        component[member] = index[here]
                        if member == here:
                            break
            elif need.concept_id in graph and need.concept_id not in index:
                index[need.concept_id] = low[need.concept_id] = len(index)
                stack.append(need.concept_id)
                work.append((need.concept_id, iter(graph[need.concept_id])))
            elif need.concept_id in graph and need.concept_id not in component:
                low[here] = min(low[here], index[need.concept_id])
    return component


def adjacency(size: int, edges: Sequence[tuple[int, int, bool, float]]) -> tuple[Adjacency, Adjacency]:
    """Return (prerequisites of each row, dependents of each row) for edges (row, prerequisite row, hard,
    weight).
    """
    table = np.array(edges, np.float64).reshape(-1, 4)
    concept, prerequisite = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
    return (
        _csr(size, concept, prerequisite, table[:, 2], table[:, 3]),
        _csr(size, prerequisite, concept, table[:, 2], table[:, 3]),
    )


def _csr(size: int, source: I8, target: I8, hard: F8, weight: F8) -> Adjacency:
    order = np.lexsort((target, source))
    offsets = np.zeros(size + 1, np.int32)
    np.cumsum(np.bincount(source, minlength=size), out=offsets[1:])
    return Adjacency(
        offsets,
        target[order].astype(np.uint32),
        hard[order].astype(np.uint8),
        weight[order].astype(np.float32),
    )


def topological_order(prerequisites: Adjacency, dependents: Adjacency) -> tuple[U4, I4]:
    """Return (rows with every prerequisite before its dependents, depth of each row).

    Depth is the longest chain of prerequisites beneath a row, 0 for a root. Rows on a cycle are missing from
    the order, so that `len(order) < n` tells of one (Kahn 1962).
    """
    size = prerequisites.offsets.shape[0] - 1
    missing = np.diff(prerequisites.offsets).tolist()
    offsets, rows = dependents.offsets.tolist(), dependents.rows.tolist()
    depth = [0] * size
    order = [row for row in range(size) if missing[row] == 0]
    for row in order:
        for dependent in rows[offsets[row] : offsets[row + 1]]:
            depth[dependent] = max(depth[dependent], depth[row] + 1)
            missing[dependent] -= 1
            if missing[dependent] == 0:
                order.append(dependent)
    return np.array(order, np.uint32), np.array(depth, np.int32)


def importance(prerequisites: Adjacency, active: U1, *, tolerance: float = 1e-10, rounds: int = 200) -> F4:
    """Return (n,) PageRank of each active concept, scaled so that the most central one is 1; inactive rows
    are 0.

    Weight flows from a concept to its prerequisites, hard edges carrying twice a soft one: what much else
    rests on ranks high. Power iteration of Brin and Page (1998) until the change in sum is below `tolerance`.
    """
    size = active.shape[0]
    alive = active.astype(np.float64)
    count = alive.sum()
    if count == 0:
        return np.zeros(size, np.float32)
    source = np.repeat(np.arange(size), np.diff(prerequisites.offsets))
    target = prerequisites.rows.astype(np.int64)
    flow = 1.0 + prerequisites.hard.astype(np.float64)
    outgoing = np.bincount(source, flow, minlength=size)
    share = flow / outgoing[source]
    dangling = (outgoing == 0) & (active == 1)
    rank = alive / count
    for _ in range(rounds):
        spread = np.bincount(target, rank[source] * share, minlength=size)
        base = (1.0 - PAGERANK_DAMPING + PAGERANK_DAMPING * rank[dangling].sum()) / count
        following = alive * (base + PAGERANK_DAMPING * spread)
        change = np.abs(following - rank).sum()
        rank = following
        if change < tolerance:
            break
    return np.asarray(rank / rank.max(), np.float32)


def default_credit(hard: bool, hard_count: int) -> float:
    """Share of a review for one prerequisite when the catalogue says none.

    The hard prerequisites of a concept share `CREDIT_DEFAULT`, a soft one gets half of a hard one's share: an
    exercise touches each of several prerequisites a little, a single one often. The idea of fractional
    implicit repetition is Math Academy's ("FIRe"); the numbers are priors of ours.
    """
    share = CREDIT_DEFAULT / max(1, hard_count)
    return share if hard else 0.5 * share


def credit_closure(prerequisites: Adjacency, order: U4) -> tuple[I4, U4, F4]:
    """Return CSR (offsets, rows, weights) of the concepts each concept gives credit to when practised.

    A weight is the largest product of edge weights over all paths; those below `CREDIT_FLOOR` are cut and at
    most `CREDIT_LIMIT` a concept are kept, largest first, ties by row. O(edges · limit).
    """
    size = prerequisites.offsets.shape[0] - 1
    offsets, rows, weights = (
        prerequisites.offsets.tolist(),
        prerequisites.rows.tolist(),
        prerequisites.weight.tolist(),
    )
    closure: list[list[tuple[int, float]]] = [[] for _ in range(size)]
    for row in order.tolist():
        best: dict[int, float] = {}
        for edge in range(offsets[row], offsets[row + 1]):
            below, weight = rows[edge], weights[edge]
            best[below] = max(best.get(below, 0.0), weight)
            for further, share in closure[below]:
                best[further] = max(best.get(further, 0.0), weight * share)
        ranked = sorted(
            ((r, w) for r, w in best.items() if w >= CREDIT_FLOOR), key=lambda pair: (-pair[1], pair[0])
        )
        closure[row] = ranked[:CREDIT_LIMIT]
    lengths = np.array([len(entry) for entry in closure], np.int64)
    starts = np.zeros(size + 1, np.int32)
    np.cumsum(lengths, out=starts[1:])
    flat = [pair for entry in closure for pair in entry]
    return (
        starts,
        np.array([pair[0] for pair in flat], np.uint32),
        np.array([pair[1] for pair in flat], np.float32),
    )


def reach(edges: Adjacency, start: int, *, depth: int = NO_ROW) -> tuple[U4, I4]:
    """Return (rows, distances) reached from row `start` within `depth` steps, nearest first, `start` itself first.

    With the prerequisites' adjacency these are the ancestors, with the dependents' the descendants.
    """
    distance = np.full(edges.offsets.shape[0] - 1, -1, np.int32)
    rows = np.empty(distance.shape[0], np.uint32)
    count = spread(edges.offsets, edges.rows, start, depth, distance, rows)
    found = rows[:count]
    return found, distance[found]


@lean_kernel
def spread(offsets: I4, rows: U4, start: int, depth: int, distance: I4, queue: U4) -> int:
    """Breadth-first distances from `start` into `distance` (n,), preset to -1; visited rows into `queue` (n,).

    Returns how many rows were reached within `depth` steps.
    """
    queue[0] = start
    distance[start] = 0
    count = 1
    head = 0
    while head < count:
        here = queue[head]
        head += 1
        if distance[here] >= depth:
            continue
        for edge in range(offsets[here], offsets[here + 1]):
            following = rows[edge]
            if distance[following] < 0:
                distance[following] = distance[here] + 1
                queue[count] = following
                count += 1
    return count


@lean_kernel
def carried(offsets: I4, rows: U4, hard: U1, c: int, proven: F8) -> float:
    """Return how far its prerequisites carry concept `c`, the ready[c] of `readiness`."""
    worst, soft_sum, soft_count = 1.0, 0.0, 0
    for edge in range(offsets[c], offsets[c + 1]):
        level = proven[rows[edge]]
        ease = min(1.0, max(0.0, (level - 0.5) / (FULLY_READY - 0.5)))
        if hard[edge] == 0:
            soft_sum += ease
            soft_count += 1
        elif level < NEARLY_MASTERED:
            worst = 0.0
        else:
            worst = min(worst, ease)
    if soft_count > 0:
        worst *= SOFT_LEAST + (1.0 - SOFT_LEAST) * soft_sum / soft_count
    return float(worst)


@lean_kernel
def prove(
    offsets: I4, rows: U4, hard: U1, order: U4, mastery: F8, mastered: U1, attempts: U4, proven: F8
) -> None:
    """Fill `proven` (n,) as `readiness` says."""
    for c in range(mastery.shape[0]):
        proven[c] = 1.0 if mastered[c] == 1 else (mastery[c] if attempts[c] > 0 else 0.0)
    for position in range(order.shape[0] - 1, -1, -1):
        c = order[position]
        if proven[c] >= NEARLY_MASTERED:
            for edge in range(offsets[c], offsets[c + 1]):
                if hard[edge] == 1 and proven[rows[edge]] < proven[c]:
                    proven[rows[edge]] = proven[c]


@kernel
def readiness(
    offsets: I4, rows: U4, hard: U1, order: U4, mastery: F8, mastered: U1, attempts: U4, proven: F8, ready: F8
) -> None:
    """How far a learner's prerequisites carry each concept; fills `proven` (n,) and `ready` (n,), both in [0, 1].

    proven[c] is the mastery that answers speak for: 1 when mastered, the mastery when practised, else 0; and at least
    that of every practised concept at `NEARLY_MASTERED` or above that rests on c by hard edges, for who solves
    equations can count. ready[c] = min over hard prerequisites of ease(proven) times (0.2 + 0.8 · mean ease over soft
    ones), where ease(x) = clip((x − 0.5) / (0.85 − 0.5), 0, 1). ready[c] is 0 exactly when a hard prerequisite's proven
    mastery is below `NEARLY_MASTERED`: the concept is closed. `order` lists rows with prerequisites first; the CSR
    arrays are the prerequisites' adjacency.
    """
    prove(offsets, rows, hard, order, mastery, mastered, attempts, proven)
    for c in range(mastery.shape[0]):
        ready[c] = carried(offsets, rows, hard, c, proven)


def standing_of(needs: Adjacency, order: U4, mastery: F8, mastered: U1, attempts: U4) -> tuple[F8, F8]:
    """Return (proven, ready), each (n,), of `readiness` for one learner."""
    size = mastered.shape[0]
    proven, ready = np.empty(size), np.empty(size)
    readiness(
        needs.offsets, needs.rows, needs.hard, order,
        np.ascontiguousarray(mastery), np.ascontiguousarray(mastered), np.ascontiguousarray(attempts), proven, ready,
    )  # fmt: skip
    return proven, ready

"""The prerequisite graph: cycles, order, importance, credit, readiness."""

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import graph
from engine.types import Prerequisite
from tests import naive_recommend as naive
from tests import worlds


def needs(**edges: str) -> dict[str, list[Prerequisite]]:
    return {name: [Prerequisite(need) for need in listed.split()] for name, listed in edges.items()}


def names(edges: dict[str, list[Prerequisite]]) -> dict[str, list[str]]:
    return {name: [need.concept_id for need in listed] for name, listed in edges.items()}


def test_an_acyclic_graph_has_no_cycle() -> None:
    assert graph.find_cycle(names(needs(add="count", multiply="add count", count=""))) is None


@pytest.mark.parametrize(
    ("edges", "cycle"),
    [
        ({"a": ["a"]}, {"a"}),
        ({"a": ["b"], "b": ["a"]}, {"a", "b"}),
        ({"root": [], "a": ["root", "b"], "b": ["c"], "c": ["a"]}, {"a", "b", "c"}),
    ],
)
def test_a_cycle_is_named_by_its_members_in_order(edges: dict[str, list[str]], cycle: set[str]) -> None:
    path = graph.find_cycle(edges)
    assert path is not None
    assert path[0] == path[-1]
    assert set(path) == cycle
    assert all(after in edges[before] for before, after in pairwise(path))


def test_breaking_drops_self_loops_and_the_weakest_edge_of_a_cycle() -> None:
    tangled = {
        "a": [Prerequisite("a"), Prerequisite("b")],
        "b": [Prerequisite("c")],
        "c": [Prerequisite("a", hard=False)],
    }
    kept, dropped = graph.break_cycles(tangled)
    assert set(dropped) == {graph.Edge("a", "a"), graph.Edge("c", "a")}
    assert [need.concept_id for need in kept["a"]] == ["b"]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000))
def test_breaking_leaves_no_cycle_and_drops_nothing_it_need_not(seed: int) -> None:
    rng = random.Random(seed)
    size = rng.randrange(1, 9)
    tangled = {
        str(a): [Prerequisite(str(b), hard=rng.random() < 0.5) for b in range(size) if rng.random() < 0.3]
        for a in range(size)
    }
    kept, dropped = graph.break_cycles(tangled)
    plain = {name: [need.concept_id for need in listed] for name, listed in kept.items()}
    assert graph.find_cycle(plain) is None
    assert sum(map(len, kept.values())) + len(dropped) == sum(map(len, tangled.values()))
    for edge in dropped:
        plain[edge.concept_id].append(edge.prerequisite_id)
        assert graph.find_cycle(plain) is not None
        plain[edge.concept_id].pop()


def test_order_puts_prerequisites_first_and_depth_counts_the_longest_chain() -> None:
    catalog = worlds.graph({"a": [], "b": ["a"], "c": ["a", "b"], "d": ["c", "a"]})
    assert catalog.depth.tolist() == [0, 1, 2, 3]
    place = {row: index for index, row in enumerate(catalog.order.tolist())}
    for row in range(4):
        for need in naive.listed(catalog.prerequisites.offsets, catalog.prerequisites.rows, row):
            assert place[need] < place[row]


def test_importance_is_highest_where_most_rests() -> None:
    catalog = worlds.graph(
        {"count": [], "add": ["count"], "shape": [], "subtract": ["count"], "multiply": ["add"]}
    )
    importance = dict(zip(catalog.concept_ids, catalog.importance.tolist(), strict=True))
    assert importance["count"] == 1.0
    assert importance["count"] > importance["add"] > importance["shape"] > 0.0
    assert importance["shape"] == pytest.approx(importance["multiply"])


def test_importance_is_the_stationary_share_of_a_random_walk() -> None:
    catalog = worlds.at_random(3)
    active = catalog.concept_active.astype(bool)
    size = active.size
    walk = np.zeros((size, size))
    for row in np.flatnonzero(active):
        start, end = catalog.prerequisites.offsets[row : row + 2]
        flow = 1.0 + catalog.prerequisites.hard[start:end]
        if end > start:
            walk[catalog.prerequisites.rows[start:end], row] = flow / flow.sum()
        else:
            walk[active, row] = 1.0 / active.sum()
    jump = active / active.sum()
    full = graph.PAGERANK_DAMPING * walk + (1 - graph.PAGERANK_DAMPING) * np.outer(jump, np.ones(size))
    values, vectors = np.linalg.eig(full[np.ix_(active, active)])
    leading = np.abs(np.real(vectors[:, np.argmax(np.real(values))]))
    assert catalog.importance[active] == pytest.approx(leading / leading.max(), abs=1e-5)
    assert not catalog.importance[~active].any()


def test_credit_multiplies_along_paths_and_takes_the_best() -> None:
    edges = [(1, 0, True, 0.5), (2, 1, True, 0.4), (2, 0, False, 0.3), (3, 2, True, 0.1)]
    below, above = graph.adjacency(4, edges)
    order, _ = graph.topological_order(below, above)
    offsets, rows, weights = graph.credit_closure(below, order)
    credit = [dict(zip(rows[a:b].tolist(), weights[a:b].tolist(), strict=True)) for a, b in pairwise(offsets)]
    assert credit[0] == {}
    assert credit[2] == pytest.approx({1: 0.4, 0: 0.3})
    assert credit[3] == pytest.approx({2: 0.1})


def test_reach_stops_at_its_depth() -> None:
    catalog = worlds.chain("count", "add", "multiply", "power")
    rows, distance = graph.reach(catalog.prerequisites, 3, depth=2)
    assert (rows.tolist(), distance.tolist()) == ([3, 2, 1], [0, 1, 2])
    rows, _ = graph.reach(catalog.dependents, 0)
    assert rows.tolist() == [0, 1, 2, 3]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_spread_equals_its_naive_twin(seed: int) -> None:
    catalog = worlds.at_random(seed)
    start = int(catalog.order[-1])
    rows, distance = graph.reach(catalog.prerequisites, start)
    twin = naive.distances(catalog.prerequisites.offsets, catalog.prerequisites.rows, start)
    assert dict(zip(rows.tolist(), distance.tolist(), strict=True)) == twin


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_readiness_equals_its_naive_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    catalog = worlds.at_random(seed)
    needed, size = catalog.prerequisites, catalog.concept_count
    mastery = rng.choice([0.2, 0.6, 0.7, 0.8, 0.9], size)
    mastered = (rng.random(size) < 0.2).astype(np.uint8)
    attempts = rng.integers(0, 3, size).astype(np.uint32)
    proven, ready = np.empty(size), np.empty(size)
    graph.readiness(
        needed.offsets, needed.rows, needed.hard, catalog.order, mastery, mastered, attempts, proven, ready
    )
    edges = {
        c: [
            (int(needed.rows[e]), bool(needed.hard[e]))
            for e in range(needed.offsets[c], needed.offsets[c + 1])
        ]
        for c in range(size)
    }
    twin_proven, twin_ready = naive.readiness(edges, mastery, mastered, attempts)
    assert proven == pytest.approx(twin_proven)
    assert ready == pytest.approx(twin_ready)


def test_success_further_up_speaks_for_what_it_rests_on() -> None:
    served = worlds.served(worlds.chain("count", "add", "multiply"))
    needed = served.catalog.prerequisites
    proven, ready = np.empty(3), np.empty(3)
    attempts = np.array([0, 0, 5], np.uint32)
    graph.readiness(
        needed.offsets, needed.rows, needed.hard, served.catalog.order,
        np.array([0.6, 0.6, 0.9]), np.zeros(3, np.uint8), attempts, proven, ready,
    )  # fmt: skip
    assert proven.tolist() == [0.9, 0.9, 0.9]
    assert ready.tolist() == [1.0, 1.0, 1.0]

"""Probing inverted lists equals its naive twin, and finds what FAISS finds but for near ties."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.learner.score import read_only
from engine.neighbours import build_index
from engine.probing import InvertedLists, probe
from engine.types import F4
from tests.naive_recommend import in_steps


def around(size: int, seed: int) -> F4:
    """Return vectors (size, 64) around 20 centres."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, 64))
    return (centres[rng.integers(0, 20, size)] + 0.5 * rng.standard_normal((size, 64))).astype(np.float32)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 40))
def test_probing_equals_its_naive_twin(seed: int, probes: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    vectors, centres, query = around(60, seed), around(6, seed + 1), around(1, seed + 2)[0]
    cuts = np.sort(rng.integers(0, 61, 5))
    offsets = np.concatenate([[0], cuts, [60]]).astype(np.int64)
    rows = rng.permutation(1000)[:60].astype(np.uint32)
    room = np.empty(count, np.uint32)
    held = probe(InvertedLists.of(centres, offsets, rows, vectors), read_only(query), probes, room)
    fine = in_steps(query, 32767)
    by_centre = sorted(range(6), key=lambda number: -float(fine @ in_steps(centres[number], 127)))
    looked_at = [
        place for number in by_centre[:probes] for place in range(offsets[number], offsets[number + 1])
    ]
    products = {int(rows[place]): float(fine @ in_steps(vectors[place], 127)) for place in looked_at}
    found = [products[row] for row in room[:held].tolist()]
    assert held == min(count, len(products))
    assert np.allclose(found, sorted(products.values(), reverse=True)[:count], rtol=1e-5, atol=1e-5)
    assert len(set(room[:held].tolist())) == held


def test_the_nearest_are_those_that_faiss_finds_but_for_near_ties() -> None:
    held, fresh = around(4000, 0), around(50, 2)
    index = build_index(held, queries=around(300, 1), exact_below=1000)
    assert index.kind == "ivf"
    found = index.search(fresh, 30)[0]
    same = [len(set(found[i].tolist()) & set(index.nearest(fresh[i], 30).tolist())) for i in range(50)]
    assert np.mean(same) > 0.95 * 30
    products = fresh @ held.T
    for i in range(50):
        worst = min(products[i, row] for row in found[i])
        assert min(products[i, row] for row in index.nearest(fresh[i], 30)) > worst - 0.02 * abs(worst)


def test_an_exact_index_is_one_list_and_an_empty_one_none() -> None:
    held, query = around(300, 0), around(1, 2)[0]
    index = build_index(held)
    assert (index.kind, index.lists.offsets.tolist()) == ("exact", [0, 300])
    room = np.empty(400, np.uint32)
    assert probe(index.lists, read_only(query), 1, room) == 300
    fine = in_steps(query, 32767)
    products = np.array([float(fine @ in_steps(vector, 127)) for vector in held])
    assert np.allclose(products[room[:300]], np.sort(products)[::-1], rtol=1e-5, atol=1e-5)
    empty = build_index(np.zeros((3, 64), np.float32))
    assert probe(empty.lists, read_only(query), 1, room) == 0

"""Nearest vectors: exact where small, close to exact where not, the same after a round trip."""

import faiss
import numpy as np
import pytest

from engine.neighbours import NeighbourIndex, build_index, recall_of
from engine.types import F4, NO_ROW


def vectors(size: int, seed: int = 0, width: int = 16) -> F4:
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((20, width))
    return (centres[rng.integers(0, 20, size)] + 0.5 * rng.standard_normal((size, width))).astype(np.float32)


def test_a_small_index_is_exact() -> None:
    held = vectors(200)
    index = build_index(held)
    rows, products = index.search(held[:5], 10)
    wanted = np.argsort(-(held[:5] @ held.T), axis=1)[:, :10]
    assert index.kind == "exact"
    assert rows.tolist() == wanted.tolist()
    assert products[0, 0] == pytest.approx(held[0] @ held[rows[0, 0]], rel=1e-5)
    assert index.nearest(held[0], 10).tolist() == rows[0].tolist()


def test_zero_vectors_are_never_neighbours() -> None:
    held = vectors(50)
    held[7] = 0.0
    rows, _ = build_index(held).search(held[:1], 50)
    assert 7 not in rows
    assert rows.shape == (1, 49)


def test_a_large_index_finds_what_exact_search_finds() -> None:
    held = vectors(4000)
    queries = vectors(300, seed=1)
    index = build_index(held, queries=queries, exact_below=1000)
    exact = build_index(held)
    fresh = vectors(100, seed=2)
    assert index.kind == "ivf"
    assert index.recall >= 0.97
    found, wanted = index.search(fresh, 100)[0].astype(np.int64), exact.search(fresh, 100)[0].astype(np.int64)
    assert recall_of(found, wanted) >= 0.95
    assert index.nearest(fresh[0], 30).tolist() == index.search(fresh[:1], 30)[0][0].tolist()


@pytest.mark.parametrize("exact_below", [10, 10_000])
def test_an_index_survives_its_bytes(exact_below: int) -> None:
    held = vectors(600)
    index = build_index(held, exact_below=exact_below)
    again = NeighbourIndex.from_bytes(index.to_bytes())
    assert (again.kind, again.probes, again.recall, len(again)) == (
        index.kind,
        index.probes,
        index.recall,
        600,
    )
    for one, other in zip(index.search(held[:9], 20), again.search(held[:9], 20), strict=True):
        assert one.tolist() == other.tolist()


def test_an_empty_index_finds_nothing() -> None:
    index = build_index(np.zeros((3, 8), np.float32))
    assert index.search(np.ones((2, 8), np.float32), 5)[0].shape == (2, 0)
    assert index.nearest(np.ones(8, np.float32), 5).tolist() == []


def test_missing_neighbours_are_marked() -> None:
    held = np.repeat(np.eye(10, dtype=np.float32), 4, axis=0)
    lists = faiss.IndexIVFFlat(faiss.IndexFlatIP(10), 10, 10, faiss.METRIC_INNER_PRODUCT)
    lists.cp.min_points_per_centroid = 1
    lists.train(held)
    lists.add(held)
    index = NeighbourIndex(lists, np.arange(40, dtype=np.uint32), "ivf", 1, 0.5)
    rows, products = index.search(held[:1], 40)
    assert 0 < (rows != NO_ROW).sum() < 40
    assert np.isneginf(products[rows == NO_ROW]).all()
    assert index.nearest(held[0], 40).tolist() == rows[rows != NO_ROW].tolist()


def test_an_index_that_would_read_most_of_its_lists_is_exact() -> None:
    scattered = np.random.default_rng(0).standard_normal((500, 16)).astype(np.float32)
    assert build_index(scattered, exact_below=100).kind == "exact"


def test_other_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="not a neighbour index"):
        NeighbourIndex.from_bytes(b"something else altogether")

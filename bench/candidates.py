"""How much of exact search the neighbour index finds, and what each choice of index costs: the sweep behind it.

python -m bench.candidates [--quick] [--seed 7]. Reads assist2009 below GENIE_DATA for factors of real learners when it
is there, and says so when it is not.
"""

import argparse
import sys
import time
from collections.abc import Callable
from typing import Any

import faiss
import numpy as np

from bench.learner_data import data_folder, load
from bench.output import emit
from engine.catalog import Sparse
from engine.collaborative import (
    CONFIDENCE,
    WIDTH,
    CollaborativeModel,
    Interactions,
    fold_in,
    fold_in_exactly,
    train_collaborative,
)
from engine.neighbours import build_index, recall_of
from engine.types import F4, I8

BENCH = "candidates"
DEPTH = 100
STEPS = (1, 2, 3, 4, 6, 10)


def clustered(size: int, queries: int, seed: int) -> tuple[F4, F4]:
    """Return items in a thousand loose clusters, and queries between a few of them: the hard case for an index."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((1000, WIDTH))
    items = centres[rng.integers(0, 1000, size)] + 0.7 * rng.standard_normal((size, WIDTH))
    items /= np.linalg.norm(items, axis=1, keepdims=True)
    asked = items[rng.integers(0, size, (queries, 8))].mean(axis=1) + items[rng.integers(0, size, queries)]
    return items.astype(np.float32), asked.astype(np.float32)


def search_us(search: Callable[[F4, int], tuple[object, I8]], queries: F4, repeats: int) -> float:
    """Return µs a query, one query a call as in serving, the fastest of several passes."""
    best = np.inf
    for _ in range(repeats):
        start = time.perf_counter()
        for query in queries:
            search(query[np.newaxis], DEPTH)
        best = min(best, time.perf_counter() - start)
    return best / len(queries) * 1e6


def report_choice(name: str, items: F4, queries: F4, repeats: int) -> bool:
    """Report recall and cost of the index that would be built, against exact search."""
    half = len(queries) // 2
    start = time.perf_counter()
    index = build_index(items, queries=queries[:half])
    built = time.perf_counter() - start
    fresh = queries[half:]
    exact = faiss.IndexFlatIP(items.shape[1])
    exact.add(items)
    wanted = exact.search(fresh, DEPTH)[1]
    found = index.search(fresh, DEPTH)[0].astype(np.int64)
    ratio = search_us(index._index.search, fresh, repeats) / search_us(exact.search, fresh, repeats)
    told: dict[str, Any] = {
        "items": len(items),
        "kind": index.kind,
        "probes": index.probes,
        "build_s": round(built, 2),
    }
    emit(BENCH, f"{name}_cost_over_exact", round(ratio, 3), **told)
    return emit(BENCH, f"{name}_recall_at_100", round(recall_of(found, wanted), 4), bar=">= 0.95", **told)


def report_sweep(items: F4, queries: F4, repeats: int) -> None:
    """Report recall and µs of inverted files and graphs at several settings."""
    exact = faiss.IndexFlatIP(WIDTH)
    exact.add(items)
    wanted = exact.search(queries, DEPTH)[1]
    emit(BENCH, "exact_us", round(search_us(exact.search, queries, repeats), 1), items=len(items))
    root = np.sqrt(len(items))
    for factor in (1, 4, 8):
        lists = int(factor * root)
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(WIDTH), WIDTH, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.min_points_per_centroid = 1
        index.train(items)
        index.add(items)
        for share in (0.02, 0.05, 0.1, 0.2):
            index.nprobe = max(1, int(share * lists))
            cost = round(search_us(index.search, queries, repeats), 1)
            recall = round(recall_of(index.search(queries, DEPTH)[1], wanted), 4)
            told: dict[str, Any] = {"items": len(items), "lists": lists, "probes": index.nprobe}
            emit(BENCH, "ivf_recall_at_100", recall, us=cost, **told)
    graph = faiss.IndexHNSWFlat(WIDTH, 16, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = 60
    graph.add(items)
    for breadth in (64, 128, 256):
        graph.hnsw.efSearch = breadth
        cost = round(search_us(graph.search, queries, repeats), 1)
        recall = round(recall_of(graph.search(queries, DEPTH)[1], wanted), 4)
        emit(BENCH, "hnsw_recall_at_100", recall, us=cost, items=len(items), breadth=breadth)


def report_fold_in(model: CollaborativeModel, histories: list[np.ndarray], repeats: int) -> None:
    """Report how near a few steps come to the exact factor: share of its 24 best questions found, and µs."""
    for steps in STEPS:
        shares, spent = [], np.inf
        for rows in histories:
            confidence = np.full(len(rows), CONFIDENCE, np.float32)
            for _ in range(repeats):
                start = time.perf_counter()
                near = fold_in(model.item_factors, model.gram, rows, confidence, steps)
                spent = min(spent, time.perf_counter() - start)
            exactly = fold_in_exactly(model.item_factors, model.gram, rows, confidence)
            best, wanted = (np.argsort(-(model.item_factors @ x))[:24] for x in (near, exactly))
            shares.append(np.intersect1d(best, wanted).size / 24)
        emit(
            BENCH,
            "fold_in_overlap_at_24",
            round(float(np.mean(shares)), 4),
            steps=steps,
            us=round(spent * 1e6, 1),
        )


def real_world(most_learners: int, seed: int) -> tuple[CollaborativeModel, list[np.ndarray]] | None:
    """Return factors trained on a real log and the last 40 questions of some learners, None when it is absent."""
    folder = data_folder() / "assist2009"
    if not folder.exists():
        return None
    data = load(folder, most_learners)
    answers = data.log.answers
    log = Interactions(data.log.learner_of().astype(np.int32), answers.question, answers.correct)
    concepts = Sparse(data.concepts.offsets, data.concepts.concepts)
    model = train_collaborative(log, concepts, int(concepts.rows.max()) + 1, seed=seed, rounds=8)
    ends = data.log.learner_offsets[1:][np.diff(data.log.learner_offsets) >= 20]
    return model, [np.unique(answers.question[end - 20 : end]) for end in ends[:200]]


def main() -> None:
    """Run it and report; the exit code is 1 when a bar does not hold."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", action="store_true", help="small sizes, in seconds")
    options.add_argument("--seed", type=int, default=7)
    chosen = options.parse_args()
    sizes = [2000, 15_000] if chosen.quick else [5000, 20_000, 50_000, 100_000, 1_000_000]
    count, repeats = (100, 1) if chosen.quick else (400, 3)
    held = True
    for size in sizes:
        items, queries = clustered(size, count, chosen.seed)
        held &= report_choice("clustered", items, queries, repeats)
    report_sweep(*clustered(8000 if chosen.quick else 50_000, count, chosen.seed), repeats)
    real = real_world(300 if chosen.quick else 0, chosen.seed)
    if real is None:
        print("assist2009 is absent: no figures on a real log", file=sys.stderr)
    else:
        model, histories = real
        report_fold_in(model, histories[:50] if chosen.quick else histories, repeats)
        learners = model.learner_factors[: 2 * count]
        held &= report_choice("assist2009", model.item_factors, learners, repeats)
    raise SystemExit(0 if held else 1)


if __name__ == "__main__":
    main()

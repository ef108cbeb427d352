"""The sweep behind how others' practice is kept: cells by number, and the moments themselves. Serves nothing."""

import faiss
import numpy as np

from bench.learner_data import DataSet
from bench.output import emit
from bench.ranking_cases import Case, measure
from engine.catalog import Sparse
from engine.guide import SHARPNESS, Guide, follow
from engine.learner.score import read_only
from engine.learner.state import CONCEPT, Records
from engine.peers import Moments, Peers, moments_of, standing_weight, train_peers
from engine.types import F4, I8

CELLS = (16, 64, 256, 1024, 4096)
NEIGHBOURS = 50
"""Moments that are mixed when they are searched one by one."""


def report_sweep(bench: str, data: DataSet, trained: I8, cases: list[Case]) -> None:
    """Print recall@10 of both tasks by what is kept of the trained learners' moments."""
    log = data.log.take(trained)
    concepts = Sparse(data.concepts.offsets.astype(np.int32), data.concepts.concepts.astype(np.uint32))
    count = int(concepts.rows.max()) + 1
    learner, answers = log.learner_of().astype(np.int32), log.answers
    records = [_touched(data, case) for case in cases]
    peers = Peers.nobody()
    for most in CELLS:
        peers = train_peers(
            learner, answers.question, answers.correct, concepts, count, seed=0, most_cells=most
        )
        served = Guide.of(peers)
        scores = np.zeros((len(cases), count), np.float32)
        for place, (case, touched) in enumerate(zip(cases, records, strict=True)):
            follow(served, touched, case.before, scores[place])
        _report(bench, data.name, f"{peers.centre.shape[1]}_cells", cases, scores)
    for profit, correct in (("", answers.correct), ("_without_profit", np.ones_like(answers.correct))):
        moments = moments_of(learner, answers.question, correct, concepts, count)
        _report(
            bench,
            data.name,
            f"{NEIGHBOURS}_moments{profit}",
            cases,
            _nearest(moments, peers.place, cases, records),
        )


def _report(bench: str, name: str, kept: str, cases: list[Case], scores: F4) -> None:
    for task in ("next", "new"):
        found = measure(cases, scores, task)
        recall, ndcg = (round(float(values.mean()), 4) for values in (found.recall, found.ndcg))
        emit(
            bench,
            f"{name}.sweep.{task}.{kept}.recall_at_10",
            recall,
            ndcg_at_10=ndcg,
            cases=len(found.recall),
        )


def _touched(data: DataSet, case: Case) -> Records:
    """Return what the learner's state holds of each concept that `follow` reads."""
    start = int(data.log.learner_offsets[case.learner])
    records = np.zeros(case.seen.size, CONCEPT)
    records["row"], records["attempts"] = case.seen, 1
    offsets, rows = data.concepts.offsets, data.concepts.concepts
    for step, question in enumerate(data.log.answers.question[start : start + case.before].tolist()):
        own = np.searchsorted(case.seen, rows[offsets[question] : offsets[question + 1]])
        records["last_step"][own] = step
    return read_only(records)


def _nearest(moments: Moments, place: F4, cases: list[Case], records: list[Records]) -> F4:
    """Return (cases, concepts) means of what followed the nearest moments, found by exact search."""
    stood = np.asarray(moments.stood @ place, np.float32)
    faiss.normalize_L2(stood)
    index = faiss.IndexFlatIP(stood.shape[1])
    index.add(stood)
    asked = np.zeros((len(cases), stood.shape[1]), np.float32)
    for number, (case, touched) in enumerate(zip(cases, records, strict=True)):
        ages = case.before - 1 - touched["last_step"].astype(np.int64)
        weights = np.array([standing_weight(int(age)) for age in ages], np.float32)
        asked[number] = weights @ place[touched["row"]]
    faiss.normalize_L2(asked)
    near, found = index.search(asked, min(NEIGHBOURS, len(stood)))
    weights = np.maximum(near, 0.0) ** SHARPNESS
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)
    return np.stack(
        [np.asarray(w @ moments.followed[rows].toarray()) for w, rows in zip(weights, found, strict=True)]
    )

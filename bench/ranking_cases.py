"""Whose next concepts are to be told: moments of held-out learners, what they knew, and the measures. Ranks nothing."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from bench.learner_data import DataSet
from engine.learner.rows import ranges
from engine.types import F4, F8, I8

DEPTH = 10
AHEAD = 400
"""Answers after a moment among which the next concepts are looked for."""

LEAST_BEFORE = 5
"""Answers before the earliest moment."""


class Case(NamedTuple):
    """One learner at one moment."""

    learner: int
    before: int
    """Answers given so far; the rest is to be told."""
    seen: I8
    """Rows practised before."""
    current: I8
    """Rows of the question just answered: they do not count as next."""
    following: I8
    """Distinct rows practised next, in order, at most `DEPTH`, without `current`."""
    new: I8
    """Distinct rows practised next that are not in `seen`, in order, at most `DEPTH`."""


class Measured(NamedTuple):
    """Recall and nDCG of one ranking, a value a case."""

    learner: I8
    recall: F8
    ndcg: F8


def rows_of(data: DataSet, start: int, end: int, *, questions: bool) -> tuple[I8, I8]:
    """Return (rows, answer numbers) of answers start..end-1: question rows, or the concepts of each question."""
    question = data.log.answers.question[start:end].astype(np.int64)
    number = np.arange(start, end, dtype=np.int64)
    if questions:
        return question, number
    sizes = np.diff(data.concepts.offsets)[question].astype(np.int64)
    entries = ranges(data.concepts.offsets[question].astype(np.int64), sizes)
    return data.concepts.concepts[entries].astype(np.int64), np.repeat(number, sizes)


def cases_of(data: DataSet, learners: I8, shares: F8, *, questions: bool = False) -> list[Case]:
    """Return the cases of `learners`, cut where the given shares of their answers are before."""
    cases = []
    for learner in learners.tolist():
        start, end = data.log.learner_offsets[learner : learner + 2].tolist()
        for before in np.unique((shares * (end - start)).astype(np.int64)).tolist():
            if not LEAST_BEFORE <= before < end - start:
                continue
            cut = start + before
            seen, number = rows_of(data, start, cut, questions=questions)
            ahead, _ = rows_of(data, cut, min(end, cut + AHEAD), questions=questions)
            current = np.unique(seen[number == cut - 1])
            following = distinct(ahead[~np.isin(ahead, current)])
            known = np.unique(seen)
            cases.append(
                Case(
                    learner,
                    before,
                    known,
                    current,
                    following[:DEPTH],
                    following[~np.isin(following, known)][:DEPTH],
                )
            )
    return cases


def distinct(rows: I8) -> I8:
    """Return the distinct rows in the order of their first appearance."""
    _, first = np.unique(rows, return_index=True)
    return np.asarray(rows[np.sort(first)])


def histories(data: DataSet, cases: list[Case], width: int, *, questions: bool) -> "sparse.csr_matrix":
    """Return (cases, width) how often each row was practised before."""
    parts, lengths = [], []
    for case in cases:
        start = int(data.log.learner_offsets[case.learner])
        rows, _ = rows_of(data, start, start + case.before, questions=questions)
        parts.append(rows)
        lengths.append(rows.size)
    return counted(np.repeat(np.arange(len(cases)), lengths), np.concatenate(parts), (len(cases), width))


def interactions(data: DataSet, learners: I8, width: int, *, questions: bool) -> "sparse.csr_matrix":
    """Return (learners, width) how often each learner practised each row."""
    parts, lengths = [], []
    for learner in learners.tolist():
        start, end = data.log.learner_offsets[learner : learner + 2].tolist()
        rows, _ = rows_of(data, start, end, questions=questions)
        parts.append(rows)
        lengths.append(rows.size)
    return counted(
        np.repeat(np.arange(len(learners)), lengths), np.concatenate(parts), (len(learners), width)
    )


def counted(row: I8, column: I8, shape: tuple[int, int]) -> "sparse.csr_matrix":
    """Return how often each (row, column) occurs."""
    matrix = sparse.csr_matrix((np.ones(row.size, np.float32), (row, column)), shape=shape)
    matrix.sum_duplicates()
    return matrix


def measure(cases: list[Case], scores: F4, task: str) -> Measured:
    """Return recall@10 and nDCG@10 of ranking by `scores` (cases, rows), ties by row.

    `next`: the concepts practised next, the current ones aside; `new`: those never practised before, for which what was
    practised is left out of every ranking. Both divide by what ten places could hold. Cases with nothing to tell are
    passed over.
    """
    gain = 1.0 / np.log2(np.arange(2, DEPTH + 2))
    told: list[tuple[int, float, float]] = []
    for case, values in zip(cases, scores, strict=True):
        wanted = case.following if task == "next" else case.new
        if not wanted.size:
            continue
        ranked = values.astype(np.float64)
        ranked[case.current if task == "next" else case.seen] = -np.inf
        most = min(DEPTH, ranked.size)
        near = np.flatnonzero(ranked >= np.partition(ranked, -most)[-most])
        top = near[np.argsort(-ranked[near], kind="stable")][:most]
        hit = np.isin(top, wanted) & np.isfinite(ranked[top])
        told.append(
            (case.learner, hit.sum() / wanted.size, (hit * gain[:most]).sum() / gain[: wanted.size].sum())
        )
    learner, recall, ndcg = zip(*told, strict=True) if told else ((), (), ())
    return Measured(np.array(learner, np.int64), np.array(recall), np.array(ndcg))


def joined(parts: list[Measured]) -> Measured:
    """Return the cases of several folds as one."""
    return Measured(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def interval(
    ours: Measured, of: str, *, rival: Measured | None = None, seed: int, rounds: int
) -> tuple[float, ...]:
    """Return (value, low, high), 95 % by bootstrap over learners, of a mean, or of its ratio to a rival's."""
    learners, place = np.unique(ours.learner, return_inverse=True)
    size = np.bincount(place)
    mine = np.bincount(place, getattr(ours, of))
    other = size if rival is None else np.bincount(place, getattr(rival, of))
    draws = np.random.default_rng(seed).integers(0, learners.size, (rounds, learners.size))
    ratios = mine[draws].sum(axis=1) / np.maximum(other[draws].sum(axis=1), 1e-12)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(mine.sum() / max(other.sum(), 1e-12)), float(low), float(high)

"""Published models that the learner model is measured against, fitted to the same log. Not used to serve anyone.

Item mean; BKT (Corbett and Anderson 1995) by expectation maximisation; PFA (Pavlik et al. 2009), Best-LR (Gervet et
al. 2020) and DAS3H (Choffin et al. 2019) as regularised logistic regressions on counts, log(1+x) throughout.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np

from engine.learner.features import GLOBAL_NAMES
from engine.learner.model import LearnerModel
from engine.learner.regression import Design, Objective, Progress, TrainSettings, logits, minimise
from engine.learner.rows import Rates, Rows, TrainingLog, build_rows, fill_bases
from engine.learner.score import U8
from engine.types import F4, F8, I4, I8, NO_ROW

NAMES: Final = ("item_mean", "bkt", "pfa", "best_lr", "das3h")
WINDOWS_S: Final = (3600.0, 86400.0, 7 * 86400.0, 30 * 86400.0, np.inf)
"""DAS3H's time windows."""
PENALTY = 1.0
ITERATIONS = 80
BKT_ROUNDS = 20
BKT_LONGEST = 150
"""Answers of a sequence that BKT is fitted to; it predicts all."""


@dataclass(frozen=True, slots=True)
class Split:
    """A log whose answers are marked as training or not; the model may see outcomes of the others as history only."""

    log: TrainingLog
    train: np.ndarray[tuple[int], np.dtype[np.bool_]]
    """(n,) True where an answer may be fitted to."""


def baselines(split: Split, progress: Progress, threads: int = 1) -> dict[str, F8]:
    """Return predictions (n,) of every answer of the split by each model of NAMES."""
    progress("item_mean", 0.0)
    base, rows = _rows(split)
    out = {"item_mean": 1.0 / (1.0 + np.exp(-base.astype(np.float64)))}
    progress("bkt", 0.0)
    out["bkt"] = bkt(split)
    for name, columns in (("pfa", _pfa), ("best_lr", _best_lr), ("das3h", _das3h)):
        progress(name, 0.0)
        index, value, size = columns(split, rows)
        out[name] = _regress(split, index, value, size, threads)
    return out


def _rows(split: Split) -> tuple[F4, Rows]:
    """Return smoothed base logits from training answers alone, and the rows that hold the counts."""
    log, a = split.log, split.log.answers
    fitted = log.only(split.train)
    rates = Rates.tally(fitted, np.zeros(log.learners, np.int64), 1)
    base, evidence = np.empty(a.size, np.float32), np.empty(a.size, np.float32)
    whole = float(fitted.answers.correct.mean())
    unsaid = np.empty(0, np.float32)
    fill_bases(log, np.full(log.learners, -1), rates.question, rates.concept, unsaid, whole, base, evidence)
    sets = LearnerModel.priors().memory_sets
    return base, build_rows(log, base, evidence, sets, float(sets[0, 20]))


Columns = tuple[I4, F4, int]
"""(index (n, width), value (n, width), number of parameters) of a sparse regression."""


def _pfa(split: Split, rows: Rows) -> Columns:
    """A bias, a weight of right and one of wrong answers for each concept."""
    used = rows.concept != NO_ROW
    concept = np.where(used, rows.concept, 0).astype(np.int32)
    size = int(concept.max()) + 1
    index = np.concatenate([concept, size + concept, 2 * size + concept], axis=1)
    counts = rows.concept_values * used[:, :, None]
    value = np.concatenate([used, counts[:, :, 0], counts[:, :, 1]], axis=1)
    return index, value.astype(np.float32), 3 * size


def _question(split: Split) -> tuple[I4, int]:
    question = split.log.answers.question.astype(np.int32)
    return question, int(question.max()) + 1


def _best_lr(split: Split, rows: Rows) -> Columns:
    """PFA, a bias a question, and counts of right and wrong on the question and in all."""
    index, value, size = _pfa(split, rows)
    question, questions = _question(split)
    n = len(question)
    right, wrong = _counts_of_question(split)
    whole = [rows.dense[:, GLOBAL_NAMES.index(name)] for name in ("right", "wrong")]
    plain = np.stack([*whole, np.log1p(right), np.log1p(wrong), np.ones(n)], axis=1)
    places = np.broadcast_to(size + questions + np.arange(plain.shape[1]), plain.shape)
    index = np.concatenate([index, (size + question)[:, None], places], axis=1)
    value = np.concatenate([value, np.ones((n, 1)), plain], axis=1)
    return index.astype(np.int32), value.astype(np.float32), size + questions + plain.shape[1]


def _counts_of_question(split: Split) -> tuple[F8, F8]:
    """Return the learner's earlier (right, wrong) answers (n,) to the same question."""
    a = split.log.answers
    key = split.log.learner_of() << 32 | a.question
    right, tried = _earlier(key, np.arange(a.size, dtype=np.float64), a.correct.astype(np.float64), np.inf)
    return right, tried - right


def _earlier(key: I8, at: F8, correct: F8, window: float) -> tuple[F8, F8]:
    """Return (right, all) earlier entries (n,) of the same key within `window` seconds; entries in time's order."""
    order = np.lexsort((np.arange(len(key)), key))
    k, t, y = key[order], at[order], correct[order]
    total = np.concatenate(([0.0], np.cumsum(y)))
    here = np.arange(len(k))
    first = np.searchsorted(k, k)
    if np.isfinite(window):
        span = t - t.min() if len(t) else t
        wide = float(span.max()) + window + 1.0 if len(t) else 1.0
        group = np.cumsum(np.concatenate(([0], (np.diff(k) != 0).astype(np.int64)))) if len(k) else k
        line = group * wide + span
        first = np.maximum(first, np.searchsorted(line, line - window))
    out_right, out_all = np.empty(len(k)), np.empty(len(k))
    out_right[order] = total[here] - total[first]
    out_all[order] = here - first
    return out_right, out_all


def _das3h(split: Split, rows: Rows) -> Columns:
    """A bias a question and concept, and for each concept and time window weights of right and all answers in it."""
    a = split.log.answers
    n, k = rows.concept.shape
    used = rows.concept != NO_ROW
    concept = np.where(used, rows.concept, 0).astype(np.int32)
    concepts = int(concept.max()) + 1
    question, questions = _question(split)
    row, place = np.nonzero(used)
    key = split.log.learner_of()[row] << 32 | concept[row, place]
    index, value = [question[:, None], questions + concept], [np.ones((n, 1)), used]
    start = questions + concepts
    for window in WINDOWS_S:
        right, tried = _earlier(key, a.answered_at[row], a.correct[row].astype(np.float64), window)
        for amount in (right, tried):
            filled = np.zeros((n, k))
            filled[row, place] = np.log1p(amount)
            index.append(start + concept)
            value.append(filled)
            start += concepts
    index.append(np.full((n, 1), start))
    value.append(np.ones((n, 1)))
    return (
        np.concatenate(index, axis=1).astype(np.int32),
        np.concatenate(value, axis=1).astype(np.float32),
        start + 1,
    )


def _regress(split: Split, index: I4, value: F4, size: int, threads: int) -> F8:
    """Return predictions (n,) of a logistic regression fitted to the training answers."""
    target = split.log.answers.correct.astype(np.float32)

    def part(keep: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Design:
        wide = np.zeros((int(keep.sum()), 0), np.float32)
        return Design(
            wide, np.ascontiguousarray(index[keep]), np.ascontiguousarray(value[keep]), target[keep]
        )

    fitted = part(split.train)
    with ThreadPoolExecutor(threads) as pool:
        objective = Objective(fitted, np.full(size, PENALTY), len(fitted.target), pool)
        w = minimise(objective, np.zeros(size), TrainSettings(), ITERATIONS, None, lambda _stage, _done: None)
    return np.asarray(1.0 / (1.0 + np.exp(-logits(part(np.ones(len(target), bool)), w))))


def _skills(log: TrainingLog) -> I8:
    """Return a skill number (n,) for each distinct set of concepts."""
    a = log.answers
    own = a.weight >= 1.0
    answer = np.repeat(np.arange(a.size), np.diff(a.offsets))[own]
    mixed = (a.concept[own].astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    mixed ^= mixed >> np.uint64(29)
    keys: U8 = np.zeros(a.size, np.uint64)
    np.add.at(keys, answer, mixed * np.uint64(0xBF58476D1CE4E5B9))
    return np.asarray(np.unique(keys, return_inverse=True)[1], np.int64)


def bkt(split: Split) -> F8:
    """Return predictions (n,) of Bayesian knowledge tracing with four parameters a skill (a set of concepts)."""
    log = split.log
    skill = _skills(log)
    key = log.learner_of() * (int(skill.max()) + 1) + skill
    order = np.argsort(key, kind="stable")
    edges = np.flatnonzero(np.concatenate(([True], np.diff(key[order]) != 0)))
    lengths = np.diff(np.concatenate((edges, [len(order)])))
    by_length = np.argsort(-lengths, kind="stable")
    starts, lengths = edges[by_length], lengths[by_length]
    y = log.answers.correct.astype(np.float64)[order]
    may = split.train[order]
    of = skill[order][starts]
    theta = np.tile(np.array([0.4, 0.15, 0.2, 0.1]), (int(skill.max()) + 1, 1))
    fit_lengths = np.minimum(np.add.reduceat(may, edges)[by_length], BKT_LONGEST)
    kept = np.flatnonzero(fit_lengths > 0)
    kept = kept[np.argsort(-fit_lengths[kept], kind="stable")]
    for _ in range(BKT_ROUNDS):
        theta = _bkt_round(y, starts[kept], fit_lengths[kept], of[kept], theta)
    p = np.empty(len(order))
    known = theta[of, 0].copy()
    for t in range(int(lengths.max())):
        live = int(np.searchsorted(-lengths, -t, side="left"))
        learn, guess, slip = theta[of[:live], 1:].T
        at = starts[:live] + t
        p[at] = known[:live] * (1 - slip) + (1 - known[:live]) * guess
        right = known[:live] * (1 - slip) / p[at]
        wrong = known[:live] * slip / (1 - p[at])
        after = np.where(y[at] > 0, right, wrong)
        # Rounding just above 1 would be blown up by a run of wrong answers.
        known[:live] = np.minimum(after + (1 - after) * learn, 1.0)
    out = np.empty(len(order))
    out[order] = p
    return out


def _bkt_round(y: F8, starts: I8, lengths: I8, of: I8, theta: F8) -> F8:
    """Return theta (skills, 4: known at first, learn, guess, slip) after one round of expectation maximisation.

    Sequences (starts, lengths, longest first) are walked together, a step at a time; `of` is each one's skill.
    """
    first, learn, guess, slip = theta[of].T
    forward = []
    known = first.copy()
    longest = int(lengths.max())
    for t in range(longest):
        live = int(np.searchsorted(-lengths, -t, side="left"))
        won = y[starts[:live] + t] > 0
        like1 = np.where(won, 1 - slip[:live], slip[:live])
        like0 = np.where(won, guess[:live], 1 - guess[:live])
        joint = known[:live] * like1
        total = joint + (1 - known[:live]) * like0
        forward.append((live, like1, like0, joint / total, total))
        known[:live] = np.minimum(joint / total + (1 - joint / total) * learn[:live], 1.0)
    sums = np.zeros((len(theta), 7))
    back1, back0 = np.ones(len(starts)), np.ones(len(starts))
    for t in range(longest - 1, -1, -1):
        live, _, _, alpha, _ = forward[t]
        smoothed = alpha * back1[:live]
        smoothed = smoothed / (smoothed + (1 - alpha) * back0[:live])
        right = y[starts[:live] + t]
        np.add.at(sums[:, 2], of[:live], (1 - smoothed) * right)
        np.add.at(sums[:, 3], of[:live], 1 - smoothed)
        np.add.at(sums[:, 4], of[:live], smoothed * (1 - right))
        np.add.at(sums[:, 5], of[:live], smoothed)
        if t == 0:
            np.add.at(sums[:, 0], of[:live], smoothed)
            np.add.at(sums[:, 6], of[:live], 1.0)
            break
        _, like1, like0, _, total = forward[t]
        now1, now0 = like1 * back1[:live] / total, like0 * back0[:live] / total
        before = forward[t - 1][3][:live]
        moved = (1 - before) * learn[:live] * now1
        stayed = (1 - before) * (1 - learn[:live]) * now0
        whole = moved + stayed + before * now1
        np.add.at(sums[:, 1], of[:live], moved / whole)
        back1[:live] = now1
        back0[:live] = learn[:live] * now1 + (1 - learn[:live]) * now0
    chances = np.zeros(len(theta))
    np.add.at(chances, of, np.maximum(lengths - 1, 0))
    unknown_before = np.maximum(sums[:, 3], 1e-9)
    new = np.stack(
        [
            (sums[:, 0] + 0.8) / (sums[:, 6] + 2.0),
            (sums[:, 1] + 0.3) / (unknown_before + 2.0),
            (sums[:, 2] + 0.4) / (sums[:, 3] + 2.0),
            (sums[:, 4] + 0.2) / (sums[:, 5] + 2.0),
        ],
        axis=1,
    )
    return np.clip(new, 0.001, [0.999, 0.9, 0.5, 0.4])

"""How well the learner model predicts real answers, beside published models. Reads no files, prints nothing.

Every prediction is made as online: learner by learner, answer by answer, from the learner's own past only, by a model
fitted to other learners (or, with a split by time, to earlier answers).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from engine.learner.answers import absorb
from engine.learner.baselines import Split, baselines
from engine.learner.metrics import auc, calibration, calibration_error, log_loss, rmse
from engine.learner.model import LearnerModel
from engine.learner.regression import Progress, TrainSettings
from engine.learner.rows import TrainingLog
from engine.learner.score import QuestionConcepts
from engine.learner.state import LearnerState
from engine.learner.training import train
from engine.types import F8, I8

B1 = npt.NDArray[np.bool_]

OURS = "genie"
NEW_LEARNER_ANSWERS = 10
TIME_SPLIT = 0.8
POSITIONS = (0, 5, 10, 20, 50, 100, 200, 500)
"""Bounds of "answers given so far" in the learning curve."""
MEASURES = {"auc": auc, "log_loss": log_loss, "calibration_error": calibration_error, "rmse": rmse}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Predictions of every tested answer by every model, and how good they are."""

    target: F8
    """(n,) 1 right, 0 wrong."""
    fold: I8
    """(n,) which fold tested the answer."""
    position: I8
    """(n,) answers the learner had given before."""
    first_attempt: B1
    """(n,) whether a concept of the question had never been met before."""
    predictions: dict[str, F8]
    """By model, (n,)."""
    training: list[dict[str, float]] = field(default_factory=list)
    """Metrics of each training run."""

    def slices(self) -> dict[str, B1]:
        """Return the named parts of the answers (n,) that are reported."""
        return {
            "all": np.ones(len(self.target), bool),
            "first_attempts": self.first_attempt,
            "new_learners": self.position < NEW_LEARNER_ANSWERS,
        }

    def measure(self, model: str, where: B1 | None = None) -> dict[str, float]:
        """Return every measure of one model, the mean over folds, on the answers `where` (n,)."""
        where = np.ones(len(self.target), bool) if where is None else where
        found = []
        for fold in np.unique(self.fold):
            part = where & (self.fold == fold)
            if part.any():
                found.append([m(self.target[part], self.predictions[model][part]) for m in MEASURES.values()])
        means = np.nanmean(np.array(found), axis=0) if found else np.full(len(MEASURES), np.nan)
        return dict(zip(MEASURES, (float(x) for x in means), strict=True))

    def curve(self, model: str) -> list[tuple[int, int, float]]:
        """Return (answers given so far from, answers tested, AUC) by how many the learner had given."""
        bounds = [*POSITIONS, int(self.position.max(initial=0)) + 1]
        out = []
        for low, high in itertools.pairwise(bounds):
            part = (self.position >= low) & (self.position < high)
            if part.any():
                out.append((low, int(part.sum()), auc(self.target[part], self.predictions[model][part])))
        return out

    def calibration(self, model: str, bins: int = 15) -> tuple[F8, F8, F8]:
        """Return (mean prediction, share right, count), each (bins,)."""
        return calibration(self.target, self.predictions[model], bins)


def folds_by_learner(learners: int, folds: int, seed: int) -> I8:
    """Return a fold number (learners,) for each learner, folds of equal size."""
    return np.asarray(np.random.default_rng(seed).permutation(learners) % folds, np.int64)


def stream(log: TrainingLog, qc: QuestionConcepts, model: LearnerModel) -> F8:
    """Return online predictions (n,) of every answer, base logits taken from `model`."""
    base = model.base_logit(log.answers.question, qc)
    rebased = log._replace(answers=log.answers._replace(base_logit=base))
    out = np.empty(log.answers.size)
    for number in range(log.learners):
        start, stop = log.learner_offsets[number], log.learner_offsets[number + 1]
        if stop > start:
            out[start:stop] = absorb(LearnerState.empty(), rebased.learner(number), model).predicted
    return out


def positions(log: TrainingLog) -> I8:
    """Return how many answers (n,) the learner had given before each."""
    return np.arange(log.answers.size) - np.repeat(log.learner_offsets[:-1], np.diff(log.learner_offsets))


def first_attempts(log: TrainingLog) -> B1:
    """Return whether (n,) each answer met a concept of its question for the first time."""
    a = log.answers
    answer = np.repeat(np.arange(a.size), np.diff(a.offsets))
    key = log.learner_of()[answer] << 32 | a.concept
    first = np.unique(key, return_index=True)[1]
    out = np.zeros(a.size, bool)
    out[answer[first]] = True
    return out


def time_split(log: TrainingLog, timed: bool) -> B1:
    """Return which answers (n,) come first: before the cut in time that 80 % precede, or each learner's first 80 %."""
    if timed:
        return np.asarray(log.answers.answered_at <= np.quantile(log.answers.answered_at, TIME_SPLIT))
    sizes = np.repeat(np.diff(log.learner_offsets), np.diff(log.learner_offsets))
    return np.asarray(positions(log) < TIME_SPLIT * sizes)


def evaluate(
    log: TrainingLog,
    qc: QuestionConcepts,
    *,
    seed: int,
    progress: Progress,
    folds: int = 5,
    by_time: bool = False,
    timed: bool = False,
    with_baselines: bool = True,
    settings: TrainSettings | None = None,
) -> Evaluation:
    """Return predictions of `log` by models fitted without what they predict: folds by learner, or split by time."""
    settings = settings or TrainSettings()
    fold = folds_by_learner(log.learners, folds, seed)[log.learner_of()]
    early = time_split(log, timed) if by_time else None
    rounds = [(0, early)] if early is not None else [(f, fold != f) for f in range(folds)]
    chosen, predicted, training = [], [], []
    for number, fitted in rounds:
        kept = log.only(fitted)
        kept = kept.take(np.flatnonzero(np.diff(kept.learner_offsets) > 0))
        progress(f"fold {number + 1} of {len(rounds)}", number / len(rounds))
        model, metrics = train(
            kept,
            seed=seed,
            version="evaluation",
            difficulty=qc.difficulty,
            progress=progress,
            settings=settings,
        )
        training.append(metrics)
        tested = ~fitted
        p = {OURS: stream(log if by_time else log.only(tested), qc, model)}
        if by_time:
            p[OURS] = p[OURS][tested]
        if with_baselines:
            others = baselines(Split(log, fitted), progress, settings.threads)
            p |= {name: values[tested] for name, values in others.items()}
        chosen.append(np.flatnonzero(tested))
        predicted.append(p)
    order = np.concatenate(chosen)
    return Evaluation(
        target=log.answers.correct[order].astype(np.float64),
        fold=np.zeros(len(order), np.int64) if by_time else fold[order],
        position=positions(log)[order],
        first_attempt=first_attempts(log)[order],
        predictions={name: np.concatenate([p[name] for p in predicted]) for name in predicted[0]},
        training=training,
    )

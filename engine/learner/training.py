"""From a log of answers to a learner model, with what held-out learners say of it. Reads no files, draws no chance."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from engine.learner.features import N_DENSE, N_OWN
from engine.learner.mastery_fit import fit_mastery
from engine.learner.metrics import auc, log_loss
from engine.learner.model import LearnerModel
from engine.learner.regression import (
    Design,
    Layout,
    Objective,
    Progress,
    TrainSettings,
    frequent_pairs,
    logits,
    lookup_pairs,
    minimise,
    pair_table,
    penalties,
    sparse_part,
)
from engine.learner.rows import Rates, TrainingLog, build_rows, fill_bases
from engine.types import F4, F8, I8


class TooLittleData(ValueError):
    """A log with too few learners or answers to fit anything to."""


MOST_FITTED = TrainSettings().most_answers
FEWEST_ANSWERS = 200
FEWEST_LEARNERS = 10


def _silent(stage: str, done: float) -> None:
    """Progress that nobody watches."""


def _bases(log: TrainingLog, fold: I8, rates: Rates, difficulty: F4, whole: float) -> tuple[F4, F4]:
    """Return (base logit with each learner's own fold left out, evidence), each (n,)."""
    base, evidence = np.empty(log.answers.size, np.float32), np.empty(log.answers.size, np.float32)
    fill_bases(log, fold, rates.question, rates.concept, difficulty, whole, base, evidence)
    return base, evidence


def _order(log: TrainingLog, settings: TrainSettings, rng: np.random.Generator) -> tuple[I8, int]:
    """Return (learners to fit on, held-out ones last; how many are held out), within `most_answers`."""
    shuffled = rng.permutation(log.learners)
    sizes = np.diff(log.learner_offsets)[shuffled]
    kept = shuffled[np.cumsum(sizes) <= max(settings.most_answers, sizes[0])]
    held = max(round(settings.held_out * len(kept)), 1) if settings.held_out > 0 else 0
    return kept, held


def _start(previous: LearnerModel | None, layout: Layout, scale: F8) -> F8:
    """Return start parameters: an earlier model's, else zero. `scale` (N_DENSE,) is what features are divided by."""
    w = np.zeros(N_DENSE + layout.size)
    if previous is None:
        return w
    old = previous.weights
    w[:N_DENSE] = old.dense * scale
    sparse = w[N_DENSE:]
    n, c = min(layout.questions, len(old.question)), min(layout.concepts, len(old.concept))
    sparse[: 2 * n] = old.question[:n].ravel()
    sparse[layout.concept : layout.concept + N_OWN * c] = old.concept[:c].ravel()
    sparse[layout.concept_pattern : layout.global_pattern] = old.concept_pattern
    sparse[layout.global_pattern : layout.pair] = old.global_pattern
    lookup_pairs(old, layout.pairs, sparse[layout.pair :])
    return w


def _package(
    w: F8,
    layout: Layout,
    scale: F8,
    rates: Rates,
    whole: float,
    evidence: float,
    version: str,
    previous: LearnerModel | None,
    mastery: F8,
) -> LearnerModel:
    """Return the model that parameters w and `mastery` (4,) make."""
    sparse = w[N_DENSE:].astype(np.float32)
    keys, values = pair_table(layout.pairs, w[N_DENSE + layout.pair :])
    arrays = {
        "question": sparse[: layout.concept].reshape(-1, 2),
        "concept": sparse[layout.concept : layout.concept_pattern].reshape(-1, N_OWN),
        "concept_pattern": sparse[layout.concept_pattern : layout.global_pattern],
        "global_pattern": sparse[layout.global_pattern : layout.pair],
        "pair_key": keys,
        "pair_weight": values,
        "mastery": mastery,
        "question_rate": rates.question.sum(axis=1).astype(np.float32),
        "concept_rate": rates.concept.sum(axis=1).astype(np.float32),
    }
    return LearnerModel.of(
        dense=w[:N_DENSE] / scale,
        constants=np.array([np.log(whole / (1.0 - whole)), evidence, 0.0]),
        version=version,
        arrays=arrays,
        memory_sets=previous.memory_sets if previous else None,
        memory_set=previous.memory_set if previous else 0,
    )


class _Prepared(NamedTuple):
    """A log made ready to be fitted to."""

    design: Design
    """Rows of the learners to fit on, then of those held out; dense features divided by `scale`."""
    layout: Layout
    scale: F8
    fitted: int
    """Rows of the learners to fit on."""
    base: F4
    """(n,) base logits without the learner's own fold."""
    evidence: float
    """Median answers behind a base logit."""
    mastery: F8
    fold: I8
    """(learners,) folds that rates leave out."""


def _prepare(
    log: TrainingLog,
    difficulty: F4,
    settings: TrainSettings,
    rng: np.random.Generator,
    previous: LearnerModel | None,
    progress: Progress,
) -> _Prepared:
    """Build the rows of a log; learners that `_order` holds out come last, and count in no rate."""
    progress("reading", 0.0)
    fold = rng.integers(0, settings.folds, log.learners)
    kept, held = _order(log, settings, rng)
    in_hand = np.setdiff1d(np.arange(log.learners), kept[len(kept) - held :])
    counted = log.take(in_hand)
    rates = Rates.tally(counted, fold[in_hand], settings.folds)
    whole = float(np.clip(counted.answers.correct.mean(), 0.01, 0.99))
    part = log.take(kept)
    part_fold = fold[kept].copy()
    part_fold[len(kept) - held :] = -1
    base, evidence = _bases(part, part_fold, rates, difficulty, whole)
    if settings.rebase:
        part = part._replace(answers=part.answers._replace(base_logit=base))
    progress("features", 0.0)
    sets = previous.memory_sets if previous else LearnerModel.priors().memory_sets
    rows = build_rows(part, base, evidence, sets, float(sets[previous.memory_set if previous else 0, 20]))
    fitted = int(part.learner_offsets[len(kept) - held])
    scale = np.maximum(rows.dense.std(axis=0, dtype=np.float64), 1e-3)
    scale[0] = 1.0
    dense, target = rows.dense, part.answers.correct.astype(np.float32)
    mastery = fit_mastery(dense[:fitted], target[:fitted])
    dense /= scale.astype(np.float32)
    layout = Layout(
        max(len(rates.question), 1),
        max(len(rates.concept), 1),
        frequent_pairs(rows.keys[:fitted], settings.pair_answers),
    )
    index, value = sparse_part(rows, part.answers.question, layout)
    design = Design(dense, index, value, target)
    return _Prepared(design, layout, scale, fitted, base, float(np.median(evidence)), mastery, fold)


def _fit(
    ready: _Prepared, settings: TrainSettings, previous: LearnerModel | None, progress: Progress
) -> tuple[F8, dict[str, float]]:
    """Return parameters, and the metrics of the held-out learners before they joined the closing steps."""
    design, fitted = ready.design, ready.fitted
    held_out = design.target[fitted:].astype(np.float64)

    def chances(w: F8) -> F8:
        return np.asarray(1.0 / (1.0 + np.exp(-logits(design, w, fitted))), np.float64)

    penalty = penalties(ready.layout, settings)
    start = _start(previous, ready.layout, ready.scale)
    check = (lambda w: log_loss(held_out, chances(w))) if len(held_out) else None
    with ThreadPoolExecutor(settings.threads) as pool:
        objective = Objective(design, penalty, fitted, pool)
        w = minimise(objective, start, settings, settings.iterations, check, progress)
        if check is None:
            return w, {}
        p = chances(w)
        plain = 1.0 / (1.0 + np.exp(-ready.base[fitted:].astype(np.float64)))
        metrics = {
            "log_loss": log_loss(held_out, p),
            "auc": auc(held_out, p),
            "base_log_loss": log_loss(held_out, plain),
        }
        closing = Objective(design, penalty, len(design.target), pool)
        return minimise(closing, w, settings, settings.closing_iterations, None, progress), metrics


def train(
    log: TrainingLog,
    *,
    seed: int,
    version: str,
    difficulty: F4 | None = None,
    previous: LearnerModel | None = None,
    progress: Progress = _silent,
    settings: TrainSettings | None = None,
) -> tuple[LearnerModel, dict[str, float]]:
    """Fit a model to `log`, from `previous` on when given; return it with metrics on held-out learners.

    `difficulty` (questions,) is what callers said of questions, NaN where nothing; a model must be fitted to those that
    it will be used with, see `QuestionConcepts`.

    Metrics: log_loss and auc of held-out learners before they join the closing steps; the same of the base rate alone
    (base_log_loss) and the numbers of answers and parameters. The same log and seed give the same model on any
    number of threads.

    Raises:
        TooLittleData: fewer than FEWEST_LEARNERS learners or FEWEST_ANSWERS answers.
    """
    settings = settings or TrainSettings()
    if log.learners < FEWEST_LEARNERS or log.answers.size < FEWEST_ANSWERS:
        raise TooLittleData(
            f"{log.learners} learners with {log.answers.size} answers; at least {FEWEST_LEARNERS} with {FEWEST_ANSWERS}"
        )
    said = np.empty(0, np.float32) if difficulty is None else np.ascontiguousarray(difficulty, np.float32)
    ready = _prepare(log, said, settings, np.random.default_rng(seed), previous, progress)
    w, judged = _fit(ready, settings, previous, progress)
    metrics = {
        "answers": float(log.answers.size),
        "parameters": float(len(w)),
        "fitted_answers": float(ready.fitted),
        **judged,
    }
    every = Rates.tally(log, ready.fold, settings.folds)
    whole = float(np.clip(log.answers.correct.mean(), 0.01, 0.99))
    model = _package(
        w, ready.layout, ready.scale, every, whole, ready.evidence, version, previous, ready.mastery
    )
    return LearnerModel(model.weights, model.memory_sets, model.memory_set, version, metrics), metrics

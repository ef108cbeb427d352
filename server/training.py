"""From the answer log to a new model version, judged on learners that no training has seen. Reads no clock.

A fixed share of the learners, chosen by a digest of their ids, is kept out of every training of the learner model. So
the candidate and the model in use are compared on answers that neither was fitted to.
"""

import hashlib
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from engine.catalog import Catalog, build_catalog
from engine.collaborative import Interactions, train_collaborative
from engine.content import WIDTH, train_content
from engine.learner import LearnerModel, QuestionConcepts
from engine.learner.evaluate import stream
from engine.learner.memory_fit import Reviews, fit_memory
from engine.learner.metrics import auc, calibration_error, log_loss
from engine.learner.regression import TrainSettings
from engine.learner.rows import TrainingLog
from engine.learner.score import read_only
from engine.learner.training import train
from engine.neighbours import build_index
from engine.serving import Models
from engine.types import I8, AnswerBatch
from server.data_rows import time_text
from server.model_parts import load_models, parts_of
from server.models import KEEP_VERSIONS, Manifest, ModelDirectory, ModelError
from store.answer_log import empty_log
from store.api import Partition, Store
from store.catalogs import CatalogRecords, append_memory_set, load_catalog
from store.replay import training_log

JUDGES_IN = 20
"""One learner of this many judges models and is never trained on."""
FEWEST_JUDGED = 100
"""With fewer held-out answers nothing is compared: the candidate is taken. docs/models.md: how little 100 show."""
TOLERANCE_NATS = 0.0005
"""A candidate whose log loss is higher by less than this counts as no worse. A choice, not a measurement."""
MOST_ANSWERS = 4_000_000
"""Answers held in memory at once (by estimate 150 bytes each); of a longer log, whole learners are left out."""
LIBRARIES = ("genie-server", "numpy", "scipy", "numba", "faiss-cpu", "implicit")

Progress = Callable[[str, float], None]
"""Told (stage, share of it done)."""


@dataclass(frozen=True, slots=True)
class Score:
    """How well a model predicts the held-out answers, each from the learner's answers before it."""

    model: str
    log_loss: float
    """Nats an answer."""
    auc: float
    calibration_error: float


@dataclass(frozen=True, slots=True)
class Gathered:
    """The log as training takes it."""

    log: TrainingLog
    """Without the judges."""
    judges: TrainingLog
    learners: int
    first_answered_at: float
    last_answered_at: float
    timed: bool
    """Whether every answer's time was given by its caller."""


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What a training brought about."""

    version: str
    """Empty when nothing was written."""
    previous: str
    data: dict[str, Any]
    held_out_answers: int
    scores: list[Score] = field(default_factory=list)
    """The candidate's, then that of the model in use."""
    refused: str = ""
    """Why the candidate was not taken."""
    pruned: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def train_models(
    store: Store,
    directory: ModelDirectory,
    *,
    now: float,
    seed: int = 0,
    force: bool = False,
    threads: int = 1,
    keep: int = KEEP_VERSIONS,
    progress: Progress = lambda stage, done: None,
) -> TrainingReport:
    """Train all models of a tenant and make them current, unless they are worse than those in use.

    The same log, catalogue, seed and model in use, from which the fit starts, give the same models with one thread.

    Raises:
        TooLittleData: there is nothing to learn from. ModelBusy: another training is at work.
        ModelError: the current version cannot be used for a comparison, and `force` is off.
    """
    with directory.exclusively():
        with store.read(Partition(directory.tenant)) as reader:
            records = load_catalog(reader)
        catalog = build_catalog(
            records.concepts,
            records.questions,
            version=records.version,
            embeddings=np.zeros((len(records.question_ids), WIDTH), np.float32),
        )
        current = _current(directory, store, force=force)
        gathered = gather(store, directory.tenant, progress=progress)
        start, remembered = _with_memory(current.learner, gathered.log, seed, progress)
        candidate = _train(gathered.log, records, catalog, start, seed, threads, progress)
        progress("comparing", 0.0)
        scores = judge(
            gathered.judges, catalog, [("candidate", candidate.learner), (current.version, current.learner)]
        )
        data = _described(gathered, catalog)
        previous = directory.current() or ""
        answers = gathered.judges.answers.size
        refused = "" if force else _refusal(scores, answers)
        if refused:
            return TrainingReport("", previous, data, answers, scores, refused)
        _keep_memory(store, directory.tenant, candidate.learner)
        figures = {"held_out_answers": answers, "fit": candidate.learner.metrics, "memory": remembered}
        manifest = _write(directory, candidate, data, scores, figures, now)
        directory.point(manifest.version)
        pruned = directory.prune(keep)
        progress("comparing", 1.0)
        return TrainingReport(manifest.version, previous, data, answers, scores, "", pruned)


def is_judge(learner_id: str) -> bool:
    """Whether a learner is kept out of training."""
    return _place(learner_id) % JUDGES_IN == 0


def gather(
    store: Store,
    tenant: str,
    *,
    most_answers: int = MOST_ANSWERS,
    judges: bool = True,
    progress: Progress = lambda stage, done: None,
) -> Gathered:
    """Read the log, one learner after the other; beyond `most_answers`, half the learners are left out, repeatedly.

    Without `judges`, nobody is set apart.
    """
    kept: list[tuple[int, AnswerBatch]] = []
    total, share, learners = 0, 64, 0
    first, last, timed = np.inf, -np.inf, True
    for learner_id, log in training_log(store, tenant):
        learners += 1
        place = _place(learner_id)
        first = min(first, float(log.batch.answered_at[0]))
        last = max(last, float(log.batch.answered_at[-1]))
        timed = timed and bool(log.timed.all())
        if place >> share == 0:
            kept.append((place, log.batch))
            total += log.size
        while total > most_answers and share > 0:
            share -= 1
            kept = [entry for entry in kept if entry[0] >> share == 0]
            total = sum(batch.size for _, batch in kept)
        if learners % 64 == 0:
            progress("reading", 0.0)
    judging = [batch for place, batch in kept if judges and place % JUDGES_IN == 0]
    fitting = [batch for place, batch in kept if not judges or place % JUDGES_IN != 0]
    progress("reading", 1.0)
    return Gathered(_joined(fitting), _joined(judging), learners, first, last, timed)


def judge(log: TrainingLog, catalog: Catalog, models: list[tuple[str, LearnerModel]]) -> list[Score]:
    """How well each model predicts a log, answer by answer, with its own base logits throughout."""
    if log.answers.size == 0:
        return []
    concepts = question_concepts(catalog)
    right = log.answers.correct.astype(np.float64)
    scores = []
    for name, model in models:
        predicted = stream(log, concepts, model)
        scores.append(
            Score(
                name, log_loss(right, predicted), auc(right, predicted), calibration_error(right, predicted)
            )
        )
    return scores


def _with_memory(
    model: LearnerModel, log: TrainingLog, seed: int, progress: Progress
) -> tuple[LearnerModel, dict[str, float]]:
    """The model with FSRS weights fitted to the log in use, the published ones where they are no worse; and figures."""
    progress("memory", 0.0)
    fitted, figures = fit_memory(Reviews.of_log(log), seed=seed)
    progress("memory", 1.0)
    same = np.flatnonzero((model.memory_sets == fitted).all(axis=1))
    if not same.size:
        return model.with_memory(fitted), figures
    constants = model.weights.constants.copy()
    constants[2] = fitted[20]
    weights = model.weights._replace(constants=read_only(constants))
    return replace(model, weights=weights, memory_set=int(same[0])), figures


def _keep_memory(store: Store, tenant: str, model: LearnerModel) -> None:
    """See to it that the store knows the weights by the number under which answers will be logged."""
    weights = np.asarray(model.memory_sets[model.memory_set])
    number = store.update(Partition(tenant), lambda tx: append_memory_set(tx, weights))
    if number != model.memory_set:
        raise ModelError(
            f"memory set {model.memory_set} is {number} in the store: something else wrote there"
        )


def _train(
    log: TrainingLog,
    records: CatalogRecords,
    catalog: Catalog,
    start: LearnerModel,
    seed: int,
    threads: int,
    progress: Progress,
) -> Models:
    learner, _ = train(
        log,
        seed=seed,
        version="candidate",
        difficulty=catalog.difficulty,
        previous=start,
        progress=progress,
        settings=replace(TrainSettings(), threads=threads),
    )
    collaborative = train_collaborative(
        Interactions(log.learner_of().astype(np.int32), log.answers.question, log.answers.correct),
        catalog.question_concepts,
        catalog.concept_count,
        seed=seed,
        threads=threads,
        progress=lambda done, rounds: progress("collaborative", done / rounds),
    )
    progress("content", 0.0)
    content = train_content(records.concepts, records.questions, catalog.question_count, seed=seed)
    progress("content", 1.0)
    return Models(
        learner=learner,
        collaborative=collaborative,
        items=build_index(collaborative.item_factors, queries=collaborative.learner_factors),
        content=content,
        version="candidate",
    )


def _current(directory: ModelDirectory, store: Store, *, force: bool) -> Models:
    try:
        return load_models(directory, store)
    except ModelError as error:
        if force:
            return Models.priors()
        raise ModelError(
            f"the model in use cannot be read, so nothing can be compared with it: {error}"
        ) from error


def _refusal(scores: list[Score], answers: int) -> str:
    if answers < FEWEST_JUDGED:
        return ""
    candidate, current = scores
    if candidate.log_loss <= current.log_loss + TOLERANCE_NATS:
        return ""
    return (
        f"on {answers:,} held-out answers the new model's log loss is {candidate.log_loss:.4f}, "
        f"that of {current.model}, which is in use, {current.log_loss:.4f}"
    )


def _write(
    directory: ModelDirectory,
    models: Models,
    data: dict[str, Any],
    scores: list[Score],
    figures: dict[str, Any],
    now: float,
) -> Manifest:
    held_out = {
        score.model: {name: value for name, value in asdict(score).items() if name != "model"}
        for score in scores
    }
    return directory.write(
        parts_of(models),
        created_at=time_text(now),
        data=data,
        metrics={**figures, "held_out": held_out},
        libraries={**{name: _version(name) for name in LIBRARIES}, "python": platform.python_version()},
    )


def _described(gathered: Gathered, catalog: Catalog) -> dict[str, Any]:
    return {
        "first_answered_at": time_text(gathered.first_answered_at),
        "last_answered_at": time_text(gathered.last_answered_at),
        "learners": gathered.learners,
        "fitted_learners": gathered.log.learners,
        "fitted_answers": gathered.log.answers.size,
        "concepts": len(catalog.concept_row),
        "questions": len(catalog.question_row),
        "catalog_version": catalog.version,
    }


def _joined(batches: list[AnswerBatch]) -> TrainingLog:
    """Learners' logs one after the other."""
    sizes = np.array([0, *(batch.size for batch in batches)], np.int64)
    pairs = np.cumsum([0, *(batch.offsets[-1] for batch in batches)])
    if not batches:
        batches = [empty_log().batch]
    offsets = [
        batch.offsets[1:] + np.int32(start) for batch, start in zip(batches, pairs.tolist(), strict=False)
    ]
    columns: list[Any] = [
        np.concatenate([batch[place] for batch in batches]) for place in range(len(AnswerBatch._fields))
    ]
    columns[AnswerBatch._fields.index("offsets")] = np.concatenate([np.zeros(1, np.int32), *offsets])
    learner_offsets: I8 = np.cumsum(sizes)
    return TrainingLog(learner_offsets, AnswerBatch._make(columns))


def question_concepts(catalog: Catalog) -> QuestionConcepts:
    """What the learner model reads of a catalogue."""
    own = catalog.question_concepts
    return QuestionConcepts.of(own.offsets, own.rows, catalog.difficulty)


def _place(learner_id: str) -> int:
    """A learner's place in 0..2^64-1, the same for ever."""
    return int.from_bytes(hashlib.blake2b(learner_id.encode(), digest_size=8, person=b"genie-judge").digest())


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "unknown"

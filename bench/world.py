"""The standard workload W1 and its smaller and larger sisters, built once from a seed and kept on disk. Times nothing.

W1: 100,000 learners with 30 concepts touched each, 50,000 questions, 1,000 concepts in a prerequisite DAG, 64-dimension
embeddings, a trained model. Everything goes through the front doors of store and engine: the catalogue through the
store's upserts, the learner model through training on simulated answers, every learner's state through the kernels that
take answers in. Only the answer log is left out: no bench reads it, and it would be nine tenths of the bytes. So this
is no directory to replay, train or back up from. Of more learners than `DISTINCT`, later ones have the states of
earlier ones again.

    python -m bench.world [--learners 100000] [--questions 50000] [--cache ~/.cache/genie]
"""

import argparse
import contextlib
import dataclasses
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench.output import emit
from engine.catalog import Catalog, build_catalog
from engine.collaborative import REGULARISATION, WIDTH, CollaborativeModel
from engine.learner import LearnerModel, LearnerState, absorb
from engine.learner.features import DENSE_NAMES
from engine.learner.regression import TrainSettings
from engine.learner.rows import TrainingLog
from engine.learner.score import Weights
from engine.learner.training import train
from engine.neighbours import build_index
from engine.peers import Peers, train_peers
from engine.serving import Models
from engine.types import F4, F8, I8, AnswerBatch, Concept, LearnerProfile, Prerequisite, Question
from server.answer_facts import FactSource, answer_facts
from server.model_parts import parts_of
from server.models import ModelDirectory
from store import catalogs, codec
from store.api import Partition, Transaction
from store.learners import write_profile, write_state
from store.lmdb_store import LmdbStore
from store.stores import STATE

VERSION = 1
"""Raised when the same size and seed would give another world."""
TENANT = "default"
SEED = 7
ZIPF = 1.1
ANSWERS_A_CONCEPT = 3
DISTINCT = 20_000
TRAINED_ON = 2_000
"""Learners whose answers the learner model is trained on."""
REACH = 30
"""A learner's concepts lie this close together in the curriculum."""
PREREQUISITE_REACH = 10
HISTORY_DAYS = 60
DAY_SECONDS = 86_400.0
WORDS_A_QUESTION = 8
VOCABULARY = 2_000
CHUNK = 500
"""Learners simulated at a time."""
IN_FLIGHT = 4_000


class Size(NamedTuple):
    """How large a world is."""

    learners: int = 100_000
    questions: int = 50_000
    concepts: int = 1_000
    touched: int = 30

    @property
    def name(self) -> str:
        """Unique among sizes, fit for a path."""
        return f"{self.learners}-{self.questions}-{self.concepts}-{self.touched}"


W1 = Size()


def learner_id(number: int) -> str:
    """Id of a learner, 0 the one who practises most."""
    return f"learner-{number:07d}"


def question_id(row: int) -> str:
    """Id of a question."""
    return f"question-{row:07d}"


def zipf_learners(size: Size, count: int, rng: np.random.Generator) -> I8:
    """Draw `count` learner numbers with P(k) ∝ (k + 1)^-1.1."""
    return np.asarray(np.searchsorted(_zipf(size.learners), rng.random(count)), np.int64)


@cache
def _zipf(count: int) -> F8:
    """The chance of each number or one before it."""
    weight = np.arange(1, count + 1) ** -ZIPF
    return np.asarray(np.cumsum(weight) / weight.sum(), np.float64)


def cache_folder(given: Path | None = None) -> Path:
    """Where worlds are kept: `given`, else GENIE_BENCH_CACHE, else ~/.cache/genie."""
    return (given or Path(os.environ.get("GENIE_BENCH_CACHE", "~/.cache/genie"))).expanduser().resolve()


def concepts_of(size: Size, rng: np.random.Generator) -> list[Concept]:
    """Concepts in a DAG: each after the first few needs one or two of the 10 before it, seven in ten of them hard."""
    listed = []
    for row in range(size.concepts):
        drawn = rng.integers(max(0, row - PREREQUISITE_REACH), max(row, 1), 2 if row >= 10 else 0)
        needs = np.unique(drawn).tolist()
        before = tuple(Prerequisite(f"concept-{need:04d}", hard=bool(rng.random() < 0.7)) for need in needs)
        area = f"area-{row * 10 // size.concepts}"
        listed.append(
            Concept(f"concept-{row:04d}", row, title=f"Concept {row}", area=area, prerequisites=before)
        )
    return listed


def questions_of(size: Size, rng: np.random.Generator) -> list[Question]:
    """Questions spread evenly over concepts, one in ten on the next concept too, with a few words each."""
    first = rng.permutation(np.arange(size.questions) % size.concepts)
    both = rng.random(size.questions) < 0.1
    difficulty = rng.beta(2.0, 3.0, size.questions)
    words = rng.integers(0, VOCABULARY, (size.questions, WORDS_A_QUESTION))
    return [
        Question(
            question_id(row),
            row,
            (concept, (concept + 1) % size.concepts) if pair else (concept,),
            text=" ".join(f"word{word}" for word in said),
            difficulty=hard,
            expected_seconds=30.0,
        )
        for row, (concept, pair, hard, said) in enumerate(
            zip(first.tolist(), both.tolist(), difficulty.tolist(), words.tolist(), strict=True)
        )
    ]


class History(NamedTuple):
    """Simulated answers of some learners, each learner's in order of time."""

    offsets: I8
    facts: AnswerBatch


def simulate(
    size: Size, learners: int, source: FactSource, ended_at: float, rng: np.random.Generator
) -> History:
    """Answers of learners who know more or less, on concepts near where they are in the curriculum."""
    shelf = source.catalog.concept_questions
    per = size.touched * ANSWERS_A_CONCEPT
    place = rng.integers(min(REACH, size.concepts - 1), size.concepts, learners)
    ability = rng.normal(0.0, 1.0, learners)
    rows = np.empty((learners, per), np.uint32)
    for number in range(learners):
        low = max(0, int(place[number]) - REACH)
        near = low + rng.permutation(min(REACH, size.concepts - low))[: size.touched]
        concepts = np.resize(near, per)
        starts, counts = shelf.offsets[concepts], np.diff(shelf.offsets)[concepts]
        rows[number] = shelf.rows[starts + (rng.random(per) * counts).astype(np.int64)]
    hard = source.catalog.difficulty[rows].astype(np.float64)
    chance = 1.0 / (1.0 + np.exp(-(ability[:, None] + 2.0 - 3.0 * hard)))
    at = np.sort(ended_at - rng.uniform(0.0, HISTORY_DAYS * DAY_SECONDS, (learners, per)), axis=1)
    facts = answer_facts(
        source,
        question=rows.ravel(),
        correct=(rng.random(rows.shape) < chance).astype(np.uint8).ravel(),
        answered_at=np.floor(at.ravel() * 1e3) / 1e3,
        duration_ms=rng.integers(8_000, 60_000, rows.size).astype(np.uint32),
        hints=np.zeros(rows.size, np.uint8),
    )
    return History(per * np.arange(learners + 1, dtype=np.int64), facts)


def models_of(size: Size, catalog: Catalog, ended_at: float, rng: np.random.Generator) -> Models:
    """A learner model trained on simulated answers, and factors of the items around a centre for each concept.

    Factors are drawn, not fitted: so few learners would leave most of the questions without any.
    """
    history = simulate(
        size, min(TRAINED_ON, size.learners), FactSource.of(catalog, LearnerModel.priors()), ended_at, rng
    )
    log = TrainingLog(history.offsets, history.facts)
    settings = dataclasses.replace(TrainSettings(), threads=1, iterations=40, closing_iterations=5)
    learner, _ = train(log, seed=SEED, version="world", difficulty=catalog.difficulty, settings=settings)
    peers = train_peers(
        log.learner_of().astype(np.int32),
        log.answers.question,
        log.answers.correct,
        catalog.question_concepts,
        catalog.concept_count,
        seed=SEED,
    )
    own = catalog.question_concepts
    first = own.rows[own.offsets[:-1]]
    factors, content = (_around(size, first, rng) for _ in range(2))
    popularity = rng.random(size.questions).astype(np.float32)
    collaborative = CollaborativeModel(
        item_factors=factors,
        gram=(factors.T @ factors + REGULARISATION * np.eye(WIDTH)).astype(np.float32),
        popularity=popularity,
        peers=peers,
        learner_factors=np.zeros((0, WIDTH), np.float32),
    )
    pairs = rng.integers(0, size.questions, (256, 8))
    index = build_index(factors, queries=factors[pairs].mean(axis=1))
    return Models(learner, collaborative, index, content, version="world")


def _around(
    size: Size, first: "np.ndarray[tuple[int, ...], np.dtype[np.uint32]]", rng: np.random.Generator
) -> F4:
    """Unit vectors (questions, 64) around one centre for each concept."""
    centres = rng.standard_normal((size.concepts, WIDTH), np.float32)
    vectors = centres[first] + np.float32(0.7) * rng.standard_normal((len(first), WIDTH), np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def states_of(
    size: Size, source: FactSource, ended_at: float, rng: np.random.Generator
) -> Iterator[LearnerState]:
    """The states of distinct learners, each the work of the kernels that take answers in."""
    left = min(size.learners, DISTINCT)
    while left > 0:
        history = simulate(size, min(CHUNK, left), source, ended_at, rng)
        for start, stop in zip(history.offsets[:-1].tolist(), history.offsets[1:].tolist(), strict=True):
            answers = history.facts.part(start, stop)
            answers = answers._replace(offsets=answers.offsets - answers.offsets[0])
            yield absorb(LearnerState.empty(), answers, source.model).state
        left -= CHUNK


def _write_catalogue(
    store: LmdbStore, concepts: Sequence[Concept], questions: Sequence[Question], at: float
) -> None:
    own = Partition(TENANT)
    store.update(own, lambda tx: catalogs.upsert_concepts(tx, concepts, now=at))
    for start in range(0, len(questions), 10_000):
        part = questions[start : start + 10_000]
        store.update(own, partial(_upsert_questions, questions=part, at=at))


def _upsert_questions(tx: Transaction, questions: Sequence[Question], at: float) -> None:
    catalogs.upsert_questions(tx, questions, now=at)


def _write_learner(tx: Transaction, state: LearnerState, profile: LearnerProfile) -> None:
    write_profile(tx, profile)
    write_state(tx, state)


def _write_learners(store: LmdbStore, size: Size, states: Sequence[LearnerState], at: float) -> None:
    waiting: deque[Future[None]] = deque()
    for number in range(size.learners):
        name = learner_id(number)
        profile = LearnerProfile(name, created_at=at, updated_at=at)
        state = states[number % len(states)]
        waiting.append(
            store.submit(Partition(TENANT, name), partial(_write_learner, state=state, profile=profile))
        )
        if len(waiting) > IN_FLIGHT:
            waiting.popleft().result()
    for future in waiting:
        future.result()


def _fill(directory: Path, size: Size, seed: int) -> None:
    """Write a world into an empty directory."""
    rng = np.random.default_rng(seed)
    # The newest answers are of the day before the world was built, so that what a bench records later is later.
    ended_at = (time.time() // DAY_SECONDS) * DAY_SECONDS
    concepts, questions = concepts_of(size, rng), questions_of(size, rng)
    catalog = build_catalog(concepts, questions, version=1)
    models = models_of(size, catalog, ended_at, rng)
    store = LmdbStore(directory / STATE, max_group=IN_FLIGHT)
    try:
        _write_catalogue(store, concepts, questions, ended_at)
        states = list(states_of(size, FactSource.of(catalog, models.learner), ended_at, rng))
        _write_learners(store, size, states, ended_at)
    finally:
        store.close()
    place = ModelDirectory(directory, TENANT)
    with place.exclusively():
        manifest = place.write(parts_of(models), created_at="", data={}, metrics={}, libraries={})
        place.point(manifest.version)


def _fingerprint(seed: int) -> str:
    """What a stored world depends on beside its size: another layout of states or models needs another world."""
    layout = repr((LearnerState.HEADER.descr, LearnerState.CONCEPT.descr, LearnerState.RECENT.descr))
    model = (Weights._fields, DENSE_NAMES, CollaborativeModel.__slots__, Peers._fields)
    parts = (VERSION, seed, layout, codec.STATE_RULES, model)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:10]


def built(size: Size = W1, *, seed: int = SEED, cache: Path | None = None) -> Path:
    """Directory of a world, built when it is not there yet. Use it through `opened`."""
    folder = cache_folder(cache)
    directory = folder / f"world-{size.name}-{_fingerprint(seed)}"
    if directory.is_dir():
        return directory
    folder.mkdir(parents=True, exist_ok=True)
    partial_world = Path(tempfile.mkdtemp(prefix=".partial-world-", dir=folder))
    try:
        _fill(partial_world, size, seed)
        with contextlib.suppress(FileExistsError):
            partial_world.rename(directory)
    finally:
        shutil.rmtree(partial_world, ignore_errors=True)
    return directory


@contextlib.contextmanager
def opened(size: Size = W1, *, writable: bool, seed: int = SEED, cache: Path | None = None) -> Iterator[Path]:
    """A data directory to serve a world from, gone afterwards; with `writable` a copy that answers may change."""
    source = built(size, seed=seed, cache=cache)
    folder = cache_folder(cache)
    with tempfile.TemporaryDirectory(prefix="serving-", dir=folder) as name:
        directory = Path(name) / "data"
        directory.mkdir()
        (directory / "models").symlink_to(source / "models")
        if writable:
            subprocess.run(
                [
                    "cp",
                    "-r",
                    "--sparse=always",
                    "--reflink=auto",
                    str(source / STATE),
                    str(directory / STATE),
                ],
                check=True,
            )
        else:
            (directory / STATE).symlink_to(source / STATE)
        yield directory


def main() -> int:
    """Build a world, or say that it is there."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--learners", type=int, default=W1.learners)
    parser.add_argument("--questions", type=int, default=W1.questions)
    parser.add_argument("--concepts", type=int, default=W1.concepts)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument(
        "--cache", type=Path, help="folder of built worlds; GENIE_BENCH_CACHE, or ~/.cache/genie"
    )
    parser.add_argument("--quick", action="store_true", help="500 learners, 2,000 questions, 200 concepts")
    options = parser.parse_args()
    size = Size(options.learners, options.questions, options.concepts)
    if options.quick:
        size = QUICK
    started = time.perf_counter()
    directory = built(size, seed=options.seed, cache=options.cache)
    used = sum(4096 * (file.stat().st_blocks // 8) for file in directory.rglob("*") if file.is_file())
    emit(
        "world",
        "seconds_to_build",
        round(time.perf_counter() - started, 1),
        learners=size.learners,
        questions=size.questions,
        concepts=size.concepts,
        megabytes=round(used / 1e6),
    )
    return 0


QUICK = Size(500, 2_000, 200)
"""Small enough to build within a test."""

if __name__ == "__main__":
    raise SystemExit(main())

"""A catalogue, a model and learners of the standard workload's shape, made from a seed. Measures nothing."""

import numpy as np

from engine.catalog import Catalog, build_catalog
from engine.collaborative import REGULARISATION, WIDTH, CollaborativeModel
from engine.learner import LearnerModel, LearnerState, absorb
from engine.neighbours import build_index
from engine.peers import BESIDE_LIMIT, MOST_CELLS, NEXT_LIMIT, Peers
from engine.serving import Models, Serving, prepare
from engine.types import F4, I4, U4, AnswerBatch, Concept, Prerequisite, Question

NOW = 1_750_000_000.0
TOUCHED = 30
"""Concepts that each learner has practised."""


def catalogue(concepts: int, questions: int, seed: int) -> tuple[Catalog, F4]:
    """Return a catalogue in a prerequisite DAG, a tenth of the questions on two concepts, and its item embeddings."""
    rng = np.random.default_rng(seed)
    listed = [
        Concept(
            f"concept-{row}",
            row,
            title=f"Concept {row}",
            area=f"area-{row * 10 // concepts}",
            prerequisites=tuple(
                Prerequisite(f"concept-{need}", hard=bool(rng.random() < 0.7))
                for need in np.unique(rng.integers(max(0, row - 40), row, 2))
            )
            if row >= TOUCHED
            else (),
        )
        for row in range(concepts)
    ]
    first = rng.integers(0, concepts, questions)
    second = np.where(rng.random(questions) < 0.1, (first + 1) % concepts, first)
    difficulty = rng.beta(2.0, 3.0, questions)
    asked = [
        Question(f"q-{row}", row, (a,) if a == b else (a, b), difficulty=d)
        for row, (a, b, d) in enumerate(
            zip(first.tolist(), second.tolist(), difficulty.tolist(), strict=True)
        )
    ]
    centres = rng.standard_normal((concepts, WIDTH))
    vectors = centres[first] + 0.7 * rng.standard_normal((questions, WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    embeddings = vectors.astype(np.float32)
    return build_catalog(listed, asked, version=1, embeddings=embeddings), embeddings


def serving(concepts: int, questions: int, seed: int) -> Serving:
    """Return such a catalogue ready to serve, with an index over its items and peers at random."""
    catalog, items = catalogue(concepts, questions, seed)
    rng = np.random.default_rng(seed + 1)
    model = CollaborativeModel(
        item_factors=items,
        gram=(items.T @ items + REGULARISATION * np.eye(WIDTH)).astype(np.float32),
        popularity=rng.random(questions).astype(np.float32),
        peers=random_peers(concepts, rng),
        learner_factors=np.zeros((0, WIDTH), np.float32),
    )
    pairs = rng.integers(0, questions, (256, 8))
    index = build_index(items, queries=items[pairs].mean(axis=1))
    return prepare(catalog, Models(LearnerModel.priors(), model, index, version="bench"))


def random_peers(concepts: int, rng: np.random.Generator) -> Peers:
    """Return as much knowledge of other learners as training keeps, about nothing."""

    def lists(size: int, each: int) -> tuple[I4, U4, F4]:
        rows = rng.integers(0, concepts, size * each).astype(np.uint32)
        return (each * np.arange(size + 1)).astype(np.int32), rows, np.full(rows.size, 0.1, np.float32)

    centre = rng.standard_normal((WIDTH, MOST_CELLS))
    return Peers(
        rng.standard_normal((concepts, WIDTH)).astype(np.float32),
        (centre / np.linalg.norm(centre, axis=0)).astype(np.float32),
        *lists(MOST_CELLS, NEXT_LIMIT),
        *lists(concepts, BESIDE_LIMIT),
    )


def learner(served: Serving, seed: int, answers: int = 120) -> LearnerState:
    """Return a learner who has practised the questions of `TOUCHED` concepts over two months."""
    rng = np.random.default_rng(seed)
    catalog = served.catalog
    asked = np.flatnonzero(np.diff(catalog.concept_questions.offsets)[: 2 * TOUCHED])
    known = rng.permutation(asked)[:TOUCHED]
    rows = np.array(
        [rng.choice(catalog.concept_questions.of(int(c))) for c in rng.choice(known, answers)], np.uint32
    )
    at = np.sort(NOW - rng.uniform(0.0, 60 * 86400.0, answers))
    return absorb(
        LearnerState.empty(), facts(served, rows, rng.random(answers) < 0.8, at), served.learner
    ).state


def facts(served: Serving, rows: np.ndarray, right: np.ndarray, at: np.ndarray) -> AnswerBatch:
    """Return answers to question rows as resolved facts."""
    offsets, concepts, weights = served.catalog.exercised_many(rows)
    size, pairs = len(rows), len(concepts)
    return AnswerBatch(
        question=rows.astype(np.uint32),
        correct=right.astype(np.uint8),
        answered_at=np.asarray(at, np.float64),
        base_logit=served.learner.base_logit(rows, served.question_concepts),
        grade=np.where(right, 3, 1).astype(np.uint8),
        duration_ms=np.full(size, 20_000, np.uint32),
        hints=np.zeros(size, np.uint8),
        local_day=(at // 86400).astype(np.int32),
        memory_set=np.zeros(size, np.uint16),
        offsets=offsets,
        concept=concepts,
        weight=weights,
        mastery=np.full(pairs, np.nan, np.float32),
        mastery_sd=np.full(pairs, np.nan, np.float32),
    )

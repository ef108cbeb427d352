"""Random answers and models for the learner tests. Draws from the generator it is given only."""

from __future__ import annotations

import numpy as np

from engine.learner.features import N_CONCEPT_PATTERNS, N_DENSE, N_GLOBAL_PATTERNS, N_OWN
from engine.learner.memory import DEFAULT_WEIGHTS
from engine.learner.model import LearnerModel
from engine.learner.regression import pair_table
from engine.learner.score import U8, QuestionConcepts
from engine.types import AnswerBatch
from tests.naive_learner import Answer

START = 1_700_000_000.0
QUESTIONS = 60
CONCEPTS = 7


def answers(rng: np.random.Generator, n: int, questions: int = QUESTIONS) -> list[Answer]:
    """Return n answers with pauses from seconds to weeks, some questions of two concepts, some that encompass one."""
    history = []
    at = START
    for _ in range(n):
        at += float(rng.choice([0.0, 7.25, 40.0, 1000.0, 5e4, 9e4, 8e5]))
        question = int(rng.integers(questions))
        own = [question % CONCEPTS] + ([(question + 3) % CONCEPTS] if question % 4 == 0 else [])
        pairs = [(c, 1.0) for c in own] + ([((question + 1) % CONCEPTS, 0.25)] if question % 3 == 0 else [])
        correct = int(rng.random() < 0.6)
        grade = int(rng.integers(2, 5)) if correct else 1
        base = float(np.float32(rng.normal()))
        seconds = float(rng.integers(0, 90))
        history.append(Answer(question, correct, at, base, grade, pairs, int(at // 86400), seconds))
    return history


def batch(history: list[Answer]) -> AnswerBatch:
    """Return answers as the arrays that kernels take."""
    sizes = [len(a.pairs) for a in history]
    pairs = [pair for a in history for pair in a.pairs]
    n, m = len(history), len(pairs)
    return AnswerBatch(
        question=np.array([a.question for a in history], np.uint32),
        correct=np.array([a.correct for a in history], np.uint8),
        answered_at=np.array([a.at for a in history], np.float64),
        base_logit=np.array([a.base for a in history], np.float32),
        grade=np.array([a.grade for a in history], np.uint8),
        duration_ms=np.array([round(a.seconds * 1000) for a in history], np.uint32),
        hints=np.zeros(n, np.uint8),
        local_day=np.array([a.day for a in history], np.int32),
        memory_set=np.zeros(n, np.uint16),
        offsets=np.concatenate(([0], np.cumsum(sizes))).astype(np.int32),
        concept=np.array([c for c, _ in pairs], np.uint32),
        weight=np.array([weight for _, weight in pairs], np.float32),
        mastery=np.full(m, np.nan, np.float32),
        mastery_sd=np.full(m, np.nan, np.float32),
    )


def catalog(questions: int = QUESTIONS) -> QuestionConcepts:
    """Return the concepts of `answers`' questions."""
    own = [[q % CONCEPTS] + ([(q + 3) % CONCEPTS] if q % 4 == 0 else []) for q in range(questions)]
    offsets = np.concatenate(([0], np.cumsum([len(o) for o in own])))
    return QuestionConcepts.of(offsets, np.concatenate(own))


def random_model(rng: np.random.Generator, keys: U8 | None = None) -> LearnerModel:
    """Return a model with random weights, and random weights of the pair `keys`."""
    keys = np.unique(rng.integers(1, 2**63, 5, dtype=np.uint64)) if keys is None else keys
    table, values = pair_table(keys, rng.normal(0, 0.3, len(keys)))
    return LearnerModel.of(
        dense=rng.normal(0, 0.2, N_DENSE),
        constants=np.array([0.4, 12.0, 0.0]),
        version="random",
        arrays={
            "question": rng.normal(0, 0.3, (40, 2)).astype(np.float32),
            "concept": rng.normal(0, 0.2, (5, N_OWN)).astype(np.float32),
            "concept_pattern": rng.normal(0, 0.2, N_CONCEPT_PATTERNS).astype(np.float32),
            "global_pattern": rng.normal(0, 0.2, N_GLOBAL_PATTERNS).astype(np.float32),
            "pair_key": table,
            "pair_weight": values,
            "question_rate": np.stack([rng.integers(0, 9, 40), rng.integers(9, 30, 40)], 1).astype(
                np.float32
            ),
            "concept_rate": np.stack([rng.integers(0, 90, 5), rng.integers(90, 300, 5)], 1).astype(
                np.float32
            ),
        },
        memory_sets=DEFAULT_WEIGHTS.reshape(1, -1).copy(),
    )

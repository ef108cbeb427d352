"""Compiles every kernel that serving needs, by using each once on a tiny world. Keeps nothing."""

import numpy as np

from engine.catalog import build_catalog
from engine.collaborative import WIDTH, CollaborativeModel
from engine.explain import Level, explain
from engine.gaps import gaps_among
from engine.learner import LearnerModel, LearnerState, absorb, concept_view, grade_answer, replay
from engine.learner.crowd import Crowd, absorb_crowd
from engine.neighbours import build_index
from engine.peers import Peers
from engine.policy import BUILT_IN
from engine.probing import InvertedLists, probe
from engine.recommend import RecommendQuery, recommend
from engine.serving import Models, prepare
from engine.types import AnswerBatch, Concept, Prerequisite, Question

_CONCEPTS = 3
_QUESTIONS = 12


def warm_up() -> None:
    """Compile, or load from the disk cache, what the first real calls would otherwise wait for."""
    concepts = [
        Concept(str(row), row, prerequisites=(Prerequisite(str(row - 1)),) if row else ())
        for row in range(_CONCEPTS)
    ]
    questions = [Question(str(row), row, (row % _CONCEPTS,), difficulty=0.5) for row in range(_QUESTIONS)]
    catalog = build_catalog(concepts, questions, version=1)
    serving = prepare(catalog, _models())
    question = np.arange(2, dtype=np.uint32)
    offsets, rows, weights = catalog.exercised_many(question)
    correct = np.array([1, 0], np.uint8)
    duration_ms, hints = np.array([1000, 0], np.uint32), np.zeros(2, np.uint8)
    batch = AnswerBatch(
        question=question,
        correct=correct,
        answered_at=np.array([1.0, 2.0]),
        base_logit=serving.learner.base_logit(question, serving.question_concepts),
        grade=grade_answer(correct, duration_ms, catalog.expected_seconds[question] * np.float32(1e3), hints),
        duration_ms=duration_ms,
        hints=hints,
        local_day=np.zeros(2, np.int32),
        memory_set=np.zeros(2, np.uint16),
        offsets=offsets,
        concept=rows,
        weight=weights,
        mastery=np.full(rows.shape[0], np.nan, np.float32),
        mastery_sd=np.full(rows.shape[0], np.nan, np.float32),
    )
    done = absorb(LearnerState.empty(), batch, serving.learner)
    replay(done.batch, serving.learner.memory_sets)
    nobody = LearnerState.empty()
    crowd = Crowd(nobody.header, nobody.concepts, np.zeros(2, np.int64), nobody.recent)
    absorb_crowd(crowd, batch, np.array([0, 2]), serving.learner)
    concept_view(done.state, catalog.concept_count, serving.learner, 3.0)
    gaps_among(done.state, np.arange(_CONCEPTS), catalog, serving.learner, 3.0)
    factors = serving.questions.factors
    lists = InvertedLists.of(factors[:1], np.array([0, 2]), question, factors[:2])
    probe(lists, factors[0], 1, np.empty(1, np.uint32))
    for policy in BUILT_IN.values():
        slate = recommend(RecommendQuery(seed=1, limit=2), done.state, serving, policy, now=3.0)
        if len(slate.items):
            explain(slate, 0, catalog.titles, level=Level.TECHNICAL)


def _models() -> Models:
    """Models with every part that training may give."""
    factors = np.random.default_rng(1).normal(size=(_QUESTIONS, WIDTH)).astype(np.float32)
    collaborative = CollaborativeModel(
        item_factors=factors,
        gram=(factors.T @ factors + np.eye(WIDTH)).astype(np.float32),
        popularity=np.ones(_QUESTIONS, np.float32),
        peers=Peers.nobody(),
        learner_factors=np.zeros((0, WIDTH), np.float32),
    )
    return Models(LearnerModel.priors(), collaborative, build_index(factors))

"""What the demo's model foretells after a wrong answer, held against the simulated learners' true chances."""

import copy
from random import Random

import numpy as np
import pytest

from engine.catalog import build_catalog
from engine.content import WIDTH
from engine.learner import LearnerState
from engine.learner.answers import absorb, predict
from engine.learner.training import train
from engine.types import F8, U4, AnswerBatch
from server.answer_facts import FactSource, answer_facts
from server.demo.classroom import simulate_classroom
from server.demo.curriculum import load_curriculum
from server.demo.story import fill
from server.demo.true_learner import TrueLearner
from server.training import gather, question_concepts
from store.api import Partition
from store.catalogs import load_catalog
from store.memory_store import MemoryStore
from store.replay import training_log

NOW = 1_790_000_000.0
GAPS = (5.0, 60.0, 600.0, 3600.0, 86_400.0)
FITTED = 220
ASKED = 60
"""Learners that the model is fitted to, and others that are asked."""


@pytest.fixture(scope="module")
def foretold() -> tuple[F8, F8, F8, F8]:
    """Per question (n,): the chance foretold, the true one; and both after a wrong answer, (n, GAPS)."""
    store = MemoryStore()
    fill(store, "default", now=NOW)
    with store.read(Partition("default")) as reader:
        records = load_catalog(reader)
    nothing = np.zeros((len(records.question_ids), WIDTH), np.float32)
    catalog = build_catalog(records.concepts, records.questions, version=records.version, embeddings=nothing)
    log = gather(store, "default", judges=False).log.take(np.arange(FITTED))
    source = FactSource.of(catalog, train(log, seed=0, version="t", difficulty=catalog.difficulty)[0])
    concepts = question_concepts(catalog)
    truth = simulate_classroom(load_curriculum(), now=NOW).truth
    rng = Random(1)
    rows = []
    for learner_id, own in [*training_log(store, "default")][FITTED : FITTED + ASKED]:
        base = source.base_logit[own.batch.question]
        state = absorb(LearnerState.empty(), own.batch._replace(base_logit=base), source.model).state
        recent = sorted(state.concepts, key=lambda met: int(met["last_at"]))[-5:]
        for row in (int(met["row"]) for met in recent):
            mine = np.flatnonzero(concepts.concepts == row)
            pair = rng.choice(mine.tolist())
            question = np.searchsorted(concepts.offsets, pair, side="right") - 1
            asked = np.array([question], np.uint32)
            failed = absorb(state, _wrong(source, asked), source.model).state
            said = [predict(state, asked, concepts, source.model, NOW)[0]]
            said += [predict(failed, asked, concepts, source.model, NOW + gap)[0] for gap in GAPS]
            rows.append([*said, *_truth(truth[learner_id], records.question_ids[question])])
    table = np.array(rows)
    width = 1 + len(GAPS)
    return table[:, 0], table[:, width], table[:, 1:width], table[:, width + 1 :]


def test_a_wrong_answer_hardly_moves_the_mean_chance(foretold: tuple[F8, F8, F8, F8]) -> None:
    """Simulated learners learn from failing about as much as failing says of them: single chances may rise."""
    before, _, after, _ = foretold
    change = (after - before[:, None]).mean(axis=0)
    assert (abs(change) < 0.06).all(), change


def test_after_a_wrong_answer_chances_are_near_the_truth(foretold: tuple[F8, F8, F8, F8]) -> None:
    _, true_before, after, true_after = foretold
    failing = 1.0 - true_before
    off = np.average(after - true_after, axis=0, weights=failing)
    assert (abs(off) < 0.035).all(), off


def _wrong(source: FactSource, question: U4) -> AnswerBatch:
    nothing = np.zeros(1, np.uint8)
    return answer_facts(
        source,
        question=question,
        correct=nothing,
        answered_at=np.array([NOW]),
        duration_ms=np.zeros(1, np.uint32),
        hints=nothing,
    )


def _truth(learner: TrueLearner, question_id: str) -> list[float]:
    """The true chance, and the mean of those at each gap after the learner has failed, over what may be learned."""
    after = []
    for chance in range(5):
        twin = copy.copy(learner)
        twin._known, twin._stability_days = learner._known.copy(), learner._stability_days.copy()
        twin._practised_at, twin._rng = learner._practised_at.copy(), Random(f"{question_id} {chance}")
        twin._learn(twin.syllabus.question_at[question_id], False, NOW)
        after.append([twin.chance(question_id, NOW + gap) for gap in GAPS])
    return [learner.chance(question_id, NOW), *np.mean(after, axis=0)]

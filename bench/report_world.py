"""A store on disk with learners who practised for weeks, made from a seed, and a recount of it. Measures nothing."""

from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.types import F8, U1, U4, Concept, LearnerGoal, LearnerProfile, Prerequisite, Question
from server.answer_facts import FactSource, answer_facts
from server.tenants import Tenants
from store.answers import NewAnswers, record_answers
from store.api import Partition, Store, Transaction
from store.catalogs import upsert_concepts, upsert_questions
from store.learners import write_profile
from store.stores import Stores, open_stores

TENANT = "default"
NOW = 1_750_000_000.0
DAY = 86_400.0
TODAY = int(NOW // DAY)
WEEKS = 8
CONCEPTS = 1_000
QUESTIONS = 5_000
TOUCHED = 30
_PENDING = 256


@dataclass(slots=True)
class Recount:
    """What a report on all learners must say of the last week, counted while the answers were made up."""

    active: int = 0
    active_days: int = 0
    answers: int = 0
    correct: int = 0
    milliseconds: int = 0


def make(directory: Path, learners: int, answers_each: int, seed: int) -> Recount:
    """Write catalogue, learners and their answers of the last `WEEKS` weeks, given evenly, taken in week by week."""
    rng = np.random.default_rng(seed)
    concepts = [
        Concept(
            f"concept-{row}",
            row,
            title=f"Concept {row}",
            area=f"Area {row * 10 // CONCEPTS}",
            prerequisites=tuple(
                Prerequisite(f"concept-{need}", hard=bool(rng.random() < 0.7))
                for need in np.unique(rng.integers(max(0, row - 20), row, 2))
            )
            if row
            else (),
        )
        for row in range(CONCEPTS)
    ]
    questions = [
        Question(
            f"q-{row}", row, (row % CONCEPTS,), difficulty=float(rng.beta(2.0, 3.0)), expected_seconds=30.0
        )
        for row in range(QUESTIONS)
    ]
    stores = open_stores(directory)
    try:
        partition = Partition(TENANT)
        stores.state.update(partition, lambda tx: upsert_concepts(tx, concepts, now=NOW))
        stores.state.update(partition, lambda tx: upsert_questions(tx, questions, now=NOW))
        return _learners(stores, learners, answers_each, rng)
    finally:
        stores.close()


def _learners(stores: Stores, learners: int, answers_each: int, rng: np.random.Generator) -> Recount:
    tenants = Tenants(stores.state)
    facts = tenants.bundle(TENANT).facts
    tenants.close()
    recount = Recount()
    pending = []
    for number in range(learners):
        profile = LearnerProfile(
            f"learner-{number:06d}",
            display_name=f"Learner {number}",
            goal=LearnerGoal(concept_id=f"concept-{int(rng.integers(TOUCHED, 3 * TOUCHED))}"),
        )
        practised = _practice(answers_each, rng)
        _count(recount, practised)
        week = ((NOW - practised.at) // (7 * DAY)).astype(int)
        for place in range(WEEKS - 1, -1, -1):
            chosen = week == place
            if chosen.any():
                new = _new(facts, number, practised.of(chosen))
                pending.append(_submit(stores.state, profile, new, facts))
        while len(pending) > _PENDING:
            pending.pop(0).result()
    for operation in pending:
        operation.result()
    return recount


def _submit(store: Store, profile: LearnerProfile, new: NewAnswers, facts: FactSource) -> "Future[object]":
    def record(tx: Transaction) -> None:
        write_profile(tx, profile)
        record_answers(tx, profile.learner_id, new, facts.model)

    return store.submit(Partition(TENANT, profile.learner_id), record)


class _Practised(NamedTuple):
    at: F8
    rows: U4
    right: U1
    took_ms: U4

    def of(self, chosen: npt.NDArray[np.bool_]) -> "_Practised":
        return _Practised._make(column[chosen] for column in self)


def _practice(answers: int, rng: np.random.Generator) -> _Practised:
    """What a learner does who works on neighbouring concepts, in sessions of a dozen answers, in order of time."""
    sessions = min(max(answers // 12, 1), WEEKS * 7)
    days = rng.choice(WEEKS * 7, sessions, replace=False) + rng.uniform(0.3, 0.8, sessions)
    at = np.sort(rng.choice(NOW - days * DAY, answers) + rng.uniform(0.0, 1_200.0, answers))
    known = int(rng.integers(0, 2 * TOUCHED)) + np.sort(rng.integers(0, TOUCHED, answers))
    rows = known + CONCEPTS * rng.integers(0, QUESTIONS // CONCEPTS, answers)
    right = rng.random(answers) < rng.beta(6.0, 2.0)
    took_ms = rng.integers(8_000, 60_000, answers)
    return _Practised(at, rows.astype(np.uint32), right.astype(np.uint8), took_ms.astype(np.uint32))


def _new(facts: FactSource, number: int, practised: _Practised) -> NewAnswers:
    size = len(practised.rows)
    return NewAnswers(
        batch=answer_facts(
            facts,
            question=practised.rows,
            correct=practised.right,
            answered_at=practised.at,
            duration_ms=practised.took_ms,
            hints=np.zeros(size, np.uint8),
        ),
        answer_id=[f"{number}-{at!r}-{place}" for place, at in enumerate(practised.at.tolist())],
        session_id=["session"] * size,
        recommendation_id=[""] * size,
        device=np.zeros(size, np.uint8),
        timed=np.ones(size, np.uint8),
        received_at=float(practised.at[-1]),
    )


def _count(recount: Recount, practised: _Practised) -> None:
    day = (practised.at // DAY).astype(int)
    inside = (day >= TODAY - 7) & (day < TODAY)
    if inside.any():
        recount.active += 1
    recount.answers += int(inside.sum())
    recount.correct += int(practised.right[inside].sum())
    recount.milliseconds += int(practised.took_ms[inside].sum())
    recount.active_days += len(np.unique(day[inside]))

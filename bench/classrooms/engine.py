"""Genie as a teacher, in this process: the calls that the server makes, without the wire and the store."""

from dataclasses import dataclass, field

import numpy as np

from bench.classrooms.play import BETWEEN_ANSWERS_S, Course, Teacher
from bench.worlds.world import DAY_S, Learner, World
from engine.catalog import Catalog, build_catalog
from engine.collaborative import CollaborativeModel, Interactions, train_collaborative
from engine.learner import LearnerModel, LearnerState, absorb
from engine.neighbours import build_index
from engine.policy import Policy
from engine.recommend import Context, RecommendQuery, recommend, seed_of
from engine.serving import Models, Serving, prepare
from engine.types import Concept, Prerequisite, Question
from server.answer_facts import FactSource, answer_facts

SESSION_GAP_S = 1800.0
"""As the server has it: after this long without an answer, a session is over."""


def catalog_of(world: World) -> Catalog:
    """Return a world's catalogue as the server would build it; rows are places in the world's lists."""
    row = {concept.concept_id: place for place, concept in enumerate(world.concepts)}
    concepts = [
        Concept(
            concept.concept_id,
            row[concept.concept_id],
            title=concept.title,
            area=concept.area,
            prerequisites=(
                *(Prerequisite(need) for need in concept.needs),
                *(Prerequisite(need, hard=False) for need in concept.helps),
            ),
        )
        for concept in world.concepts
    ]
    questions = [
        Question(
            question.question_id,
            place,
            tuple(row[concept_id] for concept_id in question.concept_ids),
            text=question.text,
            difficulty=question.difficulty,
            expected_seconds=question.seconds,
        )
        for place, question in enumerate(world.questions)
    ]
    return build_catalog(concepts, questions, version=1)


@dataclass(frozen=True)
class School:
    """A world's catalogue and models, made ready once for all policies."""

    serving: Serving
    facts: FactSource

    @classmethod
    def of(cls, world: World, others: CollaborativeModel | None = None) -> "School":
        """Return the school on documented priors, with what others practised when it is known."""
        catalog = catalog_of(world)
        model = LearnerModel.priors()
        index = None if others is None else build_index(others.item_factors)
        serving = prepare(catalog, Models(model, others, index, version="classroom"))
        return cls(serving, FactSource.of(catalog, model))


@dataclass(frozen=True, slots=True)
class EngineTeacher:
    """A policy of the engine."""

    school: School
    policy: Policy
    seed: int = 0

    @property
    def name(self) -> str:
        """The policy's name."""
        return self.policy.name

    def pupil(self, number: int, learner: Learner) -> "_Enrolled":
        """Return the learner as an empty state."""
        return _Enrolled(self.school, self.policy, f"{self.seed}-learner-{number}")


@dataclass(slots=True)
class _Enrolled:
    school: School
    policy: Policy
    learner_id: str
    state: LearnerState = field(default_factory=LearnerState.empty)

    def choose(self, at: float) -> int:
        """Ask for a slate of one, as the server would."""
        header = self.state.header[0]
        minutes = 0.0
        if self.state.applied and at - float(header["last_at"]) < SESSION_GAP_S:
            minutes = max(at - float(header["session_at"]), 0.0) / 60.0
        query = RecommendQuery(
            seed=seed_of("classroom", self.learner_id, str(self.state.applied)),
            limit=1,
            context=Context(local_hour=int(at // 3600.0 % 24.0), session_minutes=minutes),
        )
        slate = recommend(query, self.state, self.school.serving, self.policy, now=at)
        return int(slate.items["question"][0]) if len(slate.items) else -1

    def note(self, question: int, correct: bool, seconds: float, at: float) -> None:
        """Record the answer, as the server would."""
        batch = answer_facts(
            self.school.facts,
            question=np.array([question], np.uint32),
            correct=np.array([correct], np.uint8),
            answered_at=np.array([at]),
            duration_ms=np.array([round(seconds * 1e3)], np.uint32),
            hints=np.zeros(1, np.uint8),
        )
        self.state = absorb(self.state, batch, self.school.facts.model).state


@dataclass(frozen=True, slots=True)
class History:
    """What learners before this course practised by themselves."""

    log: Interactions

    def counts(self, questions: int) -> list[float]:
        """Return how often each question was practised."""
        return [float(count) for count in np.bincount(self.log.question, minlength=questions)]

    def model(self, world: World, seed: int) -> CollaborativeModel:
        """Return the collaborative model that training would make of it."""
        catalog = catalog_of(world)
        return train_collaborative(self.log, catalog.question_concepts, catalog.concept_count, seed=seed)


def earlier_learners(world: World, teachers: list[Teacher], course: Course, learners: int) -> History:
    """Return the log of `learners` who were taught by `teachers` in turn, before anybody of this course."""
    asked: list[tuple[int, int, bool]] = []
    for number in range(learners):
        # Numbers from a million on: nobody of these is examined.
        learner = world.learner(1_000_000 + number, course.begins_at)
        pupil = teachers[number % len(teachers)].pupil(1_000_000 + number, learner)
        for day in range(course.days):
            at = course.begins_at + DAY_S * day
            for _ in range(course.answers_a_day):
                question = pupil.choose(at)
                said, seconds = world.answer(learner, question, at)
                correct = bool(said)
                pupil.note(question, correct, seconds, at + seconds)
                asked.append((number, question, correct))
                at += seconds + BETWEEN_ANSWERS_S
    columns = list(zip(*asked, strict=True))
    return History(
        Interactions(
            np.array(columns[0], np.int32), np.array(columns[1], np.uint32), np.array(columns[2], np.uint8)
        )
    )

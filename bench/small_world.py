"""A small catalogue and random answers for benches of correctness, where content does not matter. Makes no calls."""

import random
import uuid

from genie.v1 import catalog_service_pb2, practice_service_pb2, resources_pb2

CONCEPTS = 12
QUESTIONS_PER_CONCEPT = 20


def concept_ids() -> list[str]:
    """Ids of the concepts, each the prerequisite of the next."""
    return [f"concept-{number}" for number in range(CONCEPTS)]


def question_ids() -> list[str]:
    """Ids of the questions, by concept."""
    return [f"question-{number}" for number in range(CONCEPTS * QUESTIONS_PER_CONCEPT)]


def upsert_concepts() -> catalog_service_pb2.UpsertConceptsRequest:
    """The concepts, as a chain of soft prerequisites so that every question stays open to everybody."""
    concepts = []
    for number, concept_id in enumerate(concept_ids()):
        before = [
            resources_pb2.Prerequisite(
                concept_id=f"concept-{number - 1}", hardness=resources_pb2.PREREQUISITE_HARDNESS_SOFT
            )
        ]
        concepts.append(resources_pb2.Concept(concept_id=concept_id, prerequisites=before if number else []))
    return catalog_service_pb2.UpsertConceptsRequest(concepts=concepts)


def upsert_questions() -> catalog_service_pb2.UpsertQuestionsRequest:
    """The questions, one concept each."""
    questions = [
        resources_pb2.Question(
            question_id=question_id,
            concept_ids=[f"concept-{number // QUESTIONS_PER_CONCEPT}"],
            difficulty=(number % QUESTIONS_PER_CONCEPT) / QUESTIONS_PER_CONCEPT,
        )
        for number, question_id in enumerate(question_ids())
    ]
    return catalog_service_pb2.UpsertQuestionsRequest(questions=questions)


def random_answer(rng: random.Random, learner_id: str) -> practice_service_pb2.Answer:
    """An answer that was not given before, without a time: it is given when it arrives."""
    return practice_service_pb2.Answer(
        answer_id=uuid.UUID(int=rng.getrandbits(128)).hex,
        learner_id=learner_id,
        question_id=f"question-{rng.randrange(CONCEPTS * QUESTIONS_PER_CONCEPT)}",
        correct=rng.random() < 0.7,
    )

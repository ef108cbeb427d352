"""Tiny catalogues and learners whose right recommendation is obvious. Built through the engine's own front doors."""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from engine.catalog import Catalog, build_catalog
from engine.learner import TARGET_RETENTION, LearnerState, absorb
from engine.learner.score import read_only
from engine.learner.view import VIEW_COUNTS, VIEW_FLOATS, view_concepts
from engine.peers import Peers
from engine.serving import Models, Serving, prepare
from engine.types import F4, I4, U4, AnswerBatch, Concept, Prerequisite, Question

NOON = 1_700_000_000.0
"""A moment that tests call now, epoch seconds."""

DAY_S = 86400.0


def chain(*names: str, each: int = 6) -> Catalog:
    """Return a catalogue in which every concept needs the one before; `each` questions a concept, named count-1 on."""
    return graph({name: names[max(i - 1, 0) : i] for i, name in enumerate(names)}, each=each)


def graph(needs: dict[str, Sequence[str]], *, each: int = 6, soft: Iterable[tuple[str, str]] = ()) -> Catalog:
    """Return a catalogue of these concepts and their hard prerequisites; `soft` holds (concept, prerequisite) pairs."""
    gentle = set(soft)
    concepts = [
        Concept(
            name,
            row,
            title=name.title(),
            prerequisites=(
                *(Prerequisite(need) for need in needs[name]),
                *(Prerequisite(need, hard=False) for of, need in sorted(gentle) if of == name),
            ),
        )
        for row, name in enumerate(needs)
    ]
    questions = [
        Question(
            f"{concept.concept_id}-{number + 1}",
            concept.row * each + number,
            (concept.row,),
            text=f"{concept.title} exercise {number + 1}",
            difficulty=(number + 1) / (each + 1),
        )
        for concept in concepts
        for number in range(each)
    ]
    return build_catalog(concepts, questions, version=1)


def at_random(seed: int, *, concepts: int = 12, questions: int = 60, holes: bool = True) -> Catalog:
    """Return a catalogue with a random graph, questions of one to three concepts, and rows that nothing has."""
    rng = random.Random(seed)
    rows = [row for row in range(concepts + 3) if not holes or row % 5 != 3][:concepts]
    listed = [
        Concept(
            f"c{row}",
            row,
            title=f"Concept {row}",
            area=rng.choice(["", "algebra", "geometry"]),
            typical_seconds=rng.choice([0.0, 30.0, 200.0]),
            prerequisites=tuple(
                Prerequisite(f"c{need}", hard=rng.random() < 0.6, encompassed=rng.choice([0.0, 0.3]))
                for need in rng.sample(rows[:place], min(place, rng.randrange(3)))
            ),
        )
        for place, row in enumerate(rows)
    ]
    asked = [
        Question(
            f"q{row}",
            row,
            tuple(rng.sample(rows, rng.choice([1, 1, 1, 2, 3]))),
            text=" ".join(rng.choices(["sum", "root", "angle", "line", "half"], k=4)),
            difficulty=rng.choice([None, rng.random()]),
            expected_seconds=rng.choice([0.0, 20.0, 400.0]),
        )
        for row in range(questions)
        if not holes or row % 7 != 4
    ]
    return build_catalog(listed, asked, version=seed)


def served(catalog: Catalog) -> Serving:
    """Return the catalogue ready to recommend from, on priors."""
    return prepare(catalog, Models.priors())


def peers_at_random(concepts: int, rng: np.random.Generator, *, cells: int = 9) -> Peers:
    """Return random knowledge of other learners about `concepts` concepts."""

    def lists(size: int) -> tuple[I4, U4, F4]:
        offsets = np.concatenate(([0], np.cumsum(rng.integers(0, 4, size)))).astype(np.int32)
        rows = rng.integers(0, concepts, offsets[-1]).astype(np.uint32)
        return offsets, rows, rng.random(offsets[-1]).astype(np.float32)

    centre = rng.standard_normal((64, cells))
    return Peers(
        rng.standard_normal((concepts, 64)).astype(np.float32),
        (centre / np.linalg.norm(centre, axis=0)).astype(np.float32),
        *lists(cells),
        *lists(concepts),
    )


def practise(
    serving: Serving,
    answers: Sequence[tuple[str, bool]],
    *,
    state: LearnerState | None = None,
    ending: float = NOON,
    apart_s: float = 60.0,
) -> LearnerState:
    """Return the state after (question id, correct) answers, `apart_s` apart, the last one at `ending`."""
    rows = np.array([serving.catalog.question_row[name] for name, _ in answers], np.uint32)
    right = np.array([correct for _, correct in answers], np.uint8)
    size = rows.shape[0]
    at = ending - apart_s * np.arange(size - 1, -1, -1.0)
    offsets, concepts, weights = serving.catalog.exercised_many(rows)
    batch = AnswerBatch(
        question=rows,
        correct=right,
        answered_at=at,
        base_logit=serving.learner.base_logit(rows, serving.question_concepts),
        grade=np.where(right == 1, 3, 1).astype(np.uint8),
        duration_ms=np.full(size, 20_000, np.uint32),
        hints=np.zeros(size, np.uint8),
        local_day=(at // DAY_S).astype(np.int32),
        memory_set=np.zeros(size, np.uint16),
        offsets=offsets,
        concept=concepts,
        weight=weights,
        mastery=np.full(concepts.shape[0], np.nan, np.float32),
        mastery_sd=np.full(concepts.shape[0], np.nan, np.float32),
    )
    return absorb(state or LearnerState.empty(), batch, serving.learner).state


def who_knows(serving: Serving, *concepts: str, ending: float = NOON) -> LearnerState:
    """Return a learner who has answered every question of these concepts correctly, twice over."""
    names = [
        serving.catalog.question_ids[row]
        for concept in concepts
        for row in serving.catalog.concept_questions.of(serving.catalog.concept_row[concept])
    ]
    return practise(serving, [(name, True) for name in names * 2], ending=ending)


def someone(serving: Serving, seed: int, *, answers: int = 40, ending: float = NOON) -> LearnerState:
    """Return a learner with a random history over the whole catalogue."""
    rng = random.Random(seed)
    names = list(serving.catalog.question_row)
    taken = [(rng.choice(names), rng.random() < 0.75) for _ in range(answers)]
    return practise(serving, taken, ending=ending, apart_s=3600.0)


def look(serving: Serving, state: LearnerState, now: float = NOON) -> tuple[Any, Any, Any]:
    """Return (view, counts, mastered) of `engine.learner.view.view_concepts` for every concept row."""
    size = serving.catalog.concept_count
    view, counts = np.empty((size, VIEW_FLOATS)), np.empty((size, VIEW_COUNTS), np.uint32)
    mastered = np.empty(size, np.uint8)
    header, concepts = read_only(state.header), read_only(state.concepts)
    weights = serving.learner.weights
    view_concepts(header, concepts, weights, now, TARGET_RETENTION, view, counts, mastered)
    return view, counts, mastered

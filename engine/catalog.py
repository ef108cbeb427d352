"""An immutable snapshot of concepts and questions as arrays by row. Knows nothing of learners or scores."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np

from engine import content, graph
from engine.graph import Adjacency, PrerequisiteCycle
from engine.types import F4, I4, NO_ROW, U1, U4, Concept, Question

DEFAULT_SECONDS = 45.0
"""Time for a question when neither it, nor its concept, nor its neighbours say."""


class Sparse(NamedTuple):
    """Lists of rows in CSR form: list i is `rows[offsets[i]:offsets[i + 1]]`."""

    offsets: I4
    rows: U4

    def of(self, index: int) -> U4:
        """Return list `index` as a view."""
        return self.rows[self.offsets[index] : self.offsets[index + 1]]


@dataclass(frozen=True, slots=True)
class Catalog:
    """Concepts and questions by row, with everything that follows from them; treat every array as read-only.

    nc concept rows and nq question rows, holes included: a hole has an empty id and `active` 0.
    """

    version: int
    concept_ids: list[str]
    question_ids: list[str]
    concept_row: dict[str, int]
    """Row of every active concept by id."""
    question_row: dict[str, int]
    """Row of every active question by id."""
    titles: list[str]
    """(nc) title of each concept, its id where it has none."""
    areas: list[str]
    """Names behind `area_code`."""
    topics: list[str]
    """Names behind `topic_code`."""

    concept_active: U1
    area_code: I4
    """(nc,) index into `areas`; 0 is the unnamed area."""
    topic_code: I4
    """(nc,) index into `topics`; 0 is the unnamed topic."""
    prerequisites: Adjacency
    """What each concept needs; `weight` holds the default credit where the catalogue said none."""
    dependents: Adjacency
    """What each concept opens up: the same edges, turned round."""
    order: U4
    """(nc,) rows with every prerequisite before its dependents, holes included."""
    depth: I4
    """(nc,) longest chain of prerequisites beneath a concept."""
    importance: F4
    """(nc,) PageRank, the most central concept 1."""
    credit_offsets: I4
    credit_rows: U4
    credit_weights: F4
    """CSR by concept: what practising it also exercises, with the share of a review it is worth."""

    question_active: U1
    question_concepts: Sparse
    """Active concepts of each question, in the order the catalogue lists them."""
    concept_questions: Sparse
    """Active questions of each concept, easiest first by the catalogue's difficulty, ties by row."""
    difficulty: F4
    """(nq,) share of learners expected to fail; NaN where the catalogue does not say."""
    expected_seconds: F4
    """(nq,) the question's own, else its concepts' mean, else the catalogue's median, else
    `DEFAULT_SECONDS`."""
    content: F4
    """(nq, 64) unit vectors in content space, zero for holes; see `engine.content`."""
    exercise_set: I4
    """(nq,) which of the exercise lists below a question has; questions with the same concepts share one."""
    exercises: Sparse
    """Concept rows that each list exercises: the question's own first, then what they encompass."""
    exercise_weights: F4
    """Weight of each entry of `exercises.rows`: 1 for a question's own concepts, less for encompassed
    ones."""

    @property
    def concept_count(self) -> int:
        """Number of concept rows, holes included."""
        return len(self.concept_ids)

    @property
    def question_count(self) -> int:
        """Number of question rows, holes included."""
        return len(self.question_ids)

    def exercised(self, question_row: int) -> tuple[U4, F4]:
        """Return (concept rows, weights) that an answer to the question exercises, its own concepts first at
        1.
        """
        chosen = self.exercise_set[question_row]
        start, end = self.exercises.offsets[chosen], self.exercises.offsets[chosen + 1]
        return self.exercises.rows[start:end], self.exercise_weights[start:end]

    def exercised_many(self, question_rows: U4) -> tuple[I4, U4, F4]:
        """Return CSR (offsets (n+1,), concept rows, weights) of `exercised` for n questions at once."""
        chosen = self.exercise_set[question_rows]
        starts = self.exercises.offsets[chosen]
        lengths = self.exercises.offsets[chosen + 1] - starts
        offsets = np.zeros(chosen.shape[0] + 1, np.int32)
        np.cumsum(lengths, out=offsets[1:])
        entries = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return offsets, self.exercises.rows[entries], self.exercise_weights[entries]

    def encompassed(self, question_row: int) -> tuple[U4, F4]:
        """Return (concept rows, weights) that the question exercises beyond its own concepts."""
        rows, weights = self.exercised(question_row)
        own = len(self.question_concepts.of(question_row))
        return rows[own:], weights[own:]


def build_catalog(
    concepts: Sequence[Concept],
    questions: Sequence[Question],
    *,
    version: int,
    embeddings: F4 | None = None,
) -> Catalog:
    """Build the snapshot of a catalogue; rows come from the entries, and rows that no entry has are holes.

    Prerequisites on concepts that are not there, and a question's concepts that are not there, are passed
    over: what they named was deleted. `embeddings` (nq, 64) replaces the computed content space, for a very
    large catalogue.

    Raises:
        PrerequisiteCycle: the concept graph has a cycle. ValueError: a row or an id occurs twice.
    """
    shelf = _Shelf.of(concepts, questions)
    edges = shelf.edges(concepts)
    prerequisites, dependents = graph.adjacency(len(shelf.concept_ids), edges)
    order, depth = graph.topological_order(prerequisites, dependents)
    if order.shape[0] < len(shelf.concept_ids):
        named = {c.concept_id: [p.concept_id for p in c.prerequisites] for c in concepts}
        raise PrerequisiteCycle(graph.find_cycle(named) or [])
    active = _active(shelf.concept_ids)
    credit_offsets, credit_rows, credit_weights = graph.credit_closure(prerequisites, order)
    own = shelf.own_concepts(questions)
    difficulty = shelf.difficulty(questions)
    exercise_set, exercises, exercise_weights = _exercises(own, credit_offsets, credit_rows, credit_weights)
    areas, area_code = _codes(len(shelf.concept_ids), [(c.row, c.area) for c in concepts])
    topics, topic_code = _codes(len(shelf.concept_ids), [(c.row, c.topic) for c in concepts])
    if embeddings is None:
        embeddings = content.embed_questions(concepts, questions, len(shelf.question_ids))
    return Catalog(
        version=version,
        concept_ids=shelf.concept_ids,
        question_ids=shelf.question_ids,
        concept_row=shelf.concept_row,
        question_row=shelf.question_row,
        titles=shelf.titles(concepts),
        areas=areas,
        topics=topics,
        concept_active=active,
        area_code=area_code,
        topic_code=topic_code,
        prerequisites=prerequisites,
        dependents=dependents,
        order=order,
        depth=depth,
        importance=graph.importance(prerequisites, active),
        credit_offsets=credit_offsets,
        credit_rows=credit_rows,
        credit_weights=credit_weights,
        question_active=_active(shelf.question_ids),
        question_concepts=own,
        concept_questions=invert(own, len(shelf.concept_ids), np.nan_to_num(difficulty, nan=0.5)),
        difficulty=difficulty,
        expected_seconds=shelf.seconds(concepts, questions, own),
        content=embeddings,
        exercise_set=exercise_set,
        exercises=exercises,
        exercise_weights=exercise_weights,
    )


def invert(lists: Sparse, size: int, key: F4) -> Sparse:
    """Return for each of `size` values the indices of the lists that hold it, by ascending `key` then
    index.
    """
    source = np.repeat(np.arange(lists.offsets.shape[0] - 1, dtype=np.uint32), np.diff(lists.offsets))
    order = np.lexsort((source, key[source], lists.rows))
    offsets = np.zeros(size + 1, np.int32)
    np.cumsum(np.bincount(lists.rows, minlength=size), out=offsets[1:])
    return Sparse(offsets, source[order])


@dataclass(frozen=True, slots=True)
class _Shelf:
    """Ids by row and rows by id, while a snapshot is being built."""

    concept_ids: list[str]
    question_ids: list[str]
    concept_row: dict[str, int]
    question_row: dict[str, int]

    @classmethod
    def of(cls, concepts: Sequence[Concept], questions: Sequence[Question]) -> "_Shelf":
        concept_row = _rows((concept.concept_id, concept.row) for concept in concepts)
        question_row = _rows((question.question_id, question.row) for question in questions)
        return cls(_by_row(concept_row), _by_row(question_row), concept_row, question_row)

    def titles(self, concepts: Sequence[Concept]) -> list[str]:
        titles = list(self.concept_ids)
        for concept in concepts:
            titles[concept.row] = concept.title or concept.concept_id
        return titles

    def edges(self, concepts: Sequence[Concept]) -> list[tuple[int, int, bool, float]]:
        edges: list[tuple[int, int, bool, float]] = []
        for concept in concepts:
            present = {p.concept_id: p for p in concept.prerequisites if p.concept_id in self.concept_row}
            hard_count = sum(p.hard for p in present.values())
            for needed in present.values():
                default = graph.default_credit(needed.hard, hard_count)
                weight = default if needed.encompassed is None else needed.encompassed
                edges.append((concept.row, self.concept_row[needed.concept_id], needed.hard, weight))
        return edges

    def own_concepts(self, questions: Sequence[Question]) -> Sparse:
        size = len(self.question_ids)
        lengths = np.zeros(size, np.int64)
        by_row: list[tuple[int, ...]] = [()] * size
        known = [bool(concept_id) for concept_id in self.concept_ids]
        count = len(known)
        for question in questions:
            listed = question.concept_rows
            if not all(row < count and known[row] for row in listed):
                listed = tuple(row for row in listed if row < count and known[row])
            by_row[question.row] = listed
            lengths[question.row] = len(listed)
        offsets = np.zeros(size + 1, np.int32)
        np.cumsum(lengths, out=offsets[1:])
        return Sparse(offsets, np.fromiter(chain.from_iterable(by_row), np.uint32, int(offsets[-1])))

    def difficulty(self, questions: Sequence[Question]) -> F4:
        difficulty = np.full(len(self.question_ids), np.nan, np.float32)
        for question in questions:
            if question.difficulty is not None:
                difficulty[question.row] = question.difficulty
        return difficulty

    def seconds(self, concepts: Sequence[Concept], questions: Sequence[Question], own: Sparse) -> F4:
        typical = np.zeros(len(self.concept_ids) + 1)
        for concept in concepts:
            typical[concept.row] = concept.typical_seconds
        given = np.zeros(len(self.question_ids))
        given[[q.row for q in questions]] = [q.expected_seconds for q in questions]
        source = np.repeat(np.arange(given.shape[0]), np.diff(own.offsets))
        told = typical[own.rows]
        weight = np.bincount(source, told > 0, minlength=given.shape[0])
        mean = np.bincount(source, told, minlength=given.shape[0]) / np.maximum(weight, 1)
        seconds = np.where(given > 0, given, mean)
        stated = seconds[seconds > 0]
        fallback = float(np.median(stated)) if stated.size else DEFAULT_SECONDS
        return np.where(seconds > 0, seconds, fallback).astype(np.float32)


def _rows(entries: Iterable[tuple[str, int]]) -> dict[str, int]:
    rows: dict[str, int] = {}
    for name, row in entries:
        if rows.setdefault(name, row) != row:
            raise ValueError(f"{name!r} has both row {rows[name]} and row {row}")
    return rows


def _by_row(rows: dict[str, int]) -> list[str]:
    ids = [""] * (max(rows.values()) + 1 if rows else 0)
    for name, row in rows.items():
        if ids[row]:
            raise ValueError(f"row {row} belongs to both {ids[row]!r} and {name!r}")
        ids[row] = name
    return ids


def _active(ids: list[str]) -> U1:
    return np.array([bool(name) for name in ids], np.uint8)


def _codes(size: int, named: Sequence[tuple[int, str]]) -> tuple[list[str], I4]:
    """Return (names, (size,) code of each row); code 0 is the empty name."""
    code_of = {"": 0}
    codes = np.zeros(size, np.int32)
    for row, name in named:
        codes[row] = code_of.setdefault(name, len(code_of))
    return list(code_of), codes


def _exercises(own: Sparse, credit_offsets: I4, credit_rows: U4, credit_weights: F4) -> tuple[I4, Sparse, F4]:
    """Return (list number of each question, the lists, their weights), one list a distinct set of
    concepts.
    """
    offsets, rows = own.offsets.tolist(), own.rows.tolist()
    number: dict[tuple[int, ...], int] = {}
    chosen = [number.setdefault(tuple(rows[start:end]), len(number)) for start, end in pairwise(offsets)]
    starts = [0]
    flat_rows: list[int] = []
    flat_weights: list[float] = []
    for concepts in number:
        best: dict[int, float] = {}
        for concept in concepts:
            for entry in range(credit_offsets[concept], credit_offsets[concept + 1]):
                below = int(credit_rows[entry])
                best[below] = max(best.get(below, 0.0), float(credit_weights[entry]))
        further = sorted((row for row in best if row not in concepts), key=lambda row: (-best[row], row))
        flat_rows += [*concepts, *further]
        flat_weights += [1.0] * len(concepts) + [best[row] for row in further]
        starts.append(len(flat_rows))
    lists = Sparse(np.array(starts, np.int32), np.array(flat_rows, np.uint32))
    return np.array(chosen, np.int32), lists, np.array(flat_weights, np.float32)


__all__ = ["DEFAULT_SECONDS", "NO_ROW", "Catalog", "PrerequisiteCycle", "Sparse", "build_catalog", "invert"]

"""ImportCatalog: rows of a stream into the catalogue, in any order, with a problem for each that does not fit."""

import dataclasses
from collections.abc import Iterable
from functools import partial
from typing import Final, NamedTuple

from engine.types import Concept, Question
from genie.v1 import catalog_service_pb2 as pb
from server import convert, errors
from server.rpc import Call
from server.services.catalog_entries import EmbeddingSizes, size_mismatch
from server.services.prerequisites import Cut, Needs, cut_cycles, cycle_text
from server.validate import Violations
from store import catalogs
from store.api import Partition, Store, Transaction

MOST_ROWS: Final = 1_000_000
MOST_PROBLEMS: Final = 1_000
MOST_VIOLATIONS_A_ROW: Final = 8
MOST_HELD_BYTES: Final = 32 * 1_048_576
"""Rows are held back until the stream ends, so that their order does not matter, or until they are this large."""
ENTRIES_A_COMMIT: Final = 500
"""Other writers wait for as long as so many take."""


class _ConceptRow(NamedTuple):
    """A concept and its place in the stream."""

    place: int
    concept: Concept


class _QuestionRow(NamedTuple):
    """A question, its place in the stream, and the ids of its concepts."""

    place: int
    question: Question
    concept_ids: list[str]


class _StoredConcepts(NamedTuple):
    """What one commit of concepts did."""

    created: list[str]
    """With the implied ones."""
    updated: list[str]
    implied: list[str]
    """Created because others need them."""
    cuts: list[Cut]


class _StoredQuestions(NamedTuple):
    """What one commit of questions did."""

    created: int
    updated: int
    version: int
    size: int
    implied: list[str]
    """Concepts created because the questions name them."""
    refused: list[tuple[_QuestionRow, errors.GenieError]]


class CatalogImport:
    """One stream's import: `add` every row, then `finish`."""

    def __init__(self, store: Store, sizes: EmbeddingSizes, call: Call) -> None:
        self._store = store
        self._sizes = sizes
        self._call = call
        self._partition = Partition(call.tenant)
        self._rows = 0
        self._held: list[tuple[int, pb.ImportCatalogRequest]] = []
        self._held_bytes = 0
        self._implied: set[str] = set()
        self._created: set[str] = set()
        self._updated: set[str] = set()
        self._questions_created = 0
        self._questions_updated = 0
        self._problems: list[pb.ImportProblem] = []
        self._problem_rows: set[int] = set()

    def add(self, row: pb.ImportCatalogRequest) -> None:
        """Take a row in. Raises BatchTooLarge past the last one allowed."""
        if self._rows >= MOST_ROWS:
            raise errors.BatchTooLarge(field="entry", size=self._rows + 1, limit=MOST_ROWS)
        self._held.append((self._rows, row))
        self._rows += 1
        self._held_bytes += row.ByteSize()
        if self._held_bytes > MOST_HELD_BYTES:
            self._store_held()

    def finish(self) -> pb.ImportCatalogResponse:
        """Store what is left and sum up."""
        self._store_held()
        with self._store.read(self._partition) as reader:
            version = catalogs.read_counts(reader).version
        return pb.ImportCatalogResponse(
            concepts_created_count=len(self._created),
            concepts_updated_count=len(self._updated),
            concepts_implied_count=len(self._implied),
            questions_created_count=self._questions_created,
            questions_updated_count=self._questions_updated,
            problems_count=len(self._problem_rows),
            problems=sorted(self._problems, key=lambda problem: problem.row_index),
            catalog_version=version,
        )

    def _store_held(self) -> None:
        held, self._held, self._held_bytes = self._held, [], 0
        concepts: dict[str, _ConceptRow] = {}
        questions: list[tuple[int, pb.ImportCatalogRequest]] = []
        for index, row in held:
            if row.WhichOneof("entry") == "question":
                questions.append((index, row))
                continue
            check = Violations()
            if row.WhichOneof("entry") is None:
                check.add("entry", "must hold a concept or a question")
                self._problem(index, "", _refusal(check))
                continue
            concept = convert.concept_from(check.part("concept"), row.concept, now=self._call.now)
            if check.found:
                self._problem(index, concept.concept_id, _refusal(check))
            else:
                concepts[concept.concept_id] = _ConceptRow(index, concept)
        self._store_concepts(concepts)
        for start in range(0, len(questions), ENTRIES_A_COMMIT):
            self._call.check()
            self._store_questions(questions[start : start + ENTRIES_A_COMMIT])

    def _store_concepts(self, rows: dict[str, _ConceptRow]) -> None:
        """Store concepts, each after what it needs: so the graph has no cycle after any of the commits."""
        concepts = {concept_id: row.concept for concept_id, row in rows.items()}
        with self._store.read(self._partition) as reader:
            cuts, order = cut_cycles(Needs(reader, concepts.values()), self._call.check)
        concepts |= _without(concepts, cuts)
        for start in range(0, len(order), ENTRIES_A_COMMIT):
            self._call.check()
            chunk = {
                concept_id: concepts[concept_id] for concept_id in order[start : start + ENTRIES_A_COMMIT]
            }
            done = self._store.update(
                self._partition, partial(_put_concepts, concepts=chunk, now=self._call.now)
            )
            self._created.update(done.created)
            self._updated.update(done.updated)
            self._implied.update(done.implied)
            cuts += done.cuts
        self._implied -= concepts.keys()
        self._updated -= self._created
        for cut in cuts:
            error = errors.PrerequisiteCycle(cycle=cycle_text(cut.cycle))
            self._problem(rows[cut.concept_id].place, cut.concept_id, error, stored_in_part=True)

    def _store_questions(self, rows: Iterable[tuple[int, pb.ImportCatalogRequest]]) -> None:
        sound: list[_QuestionRow] = []
        for index, row in rows:
            check = Violations()
            question = convert.question_from(check.part("question"), row.question, now=self._call.now)
            if check.found:
                self._problem(index, question.question_id, _refusal(check))
            else:
                sound.append(_QuestionRow(index, question, list(row.question.concept_ids)))
        done = self._store.update(self._partition, partial(self._put_questions, rows=sound))
        self._sizes.remember(self._call.tenant, done.version, done.size or None)
        self._created.update(done.implied)
        self._implied.update(done.implied)
        self._questions_created += done.created
        self._questions_updated += done.updated
        for refused, error in done.refused:
            self._problem(refused.place, refused.question.question_id, error)

    def _put_questions(self, tx: Transaction, rows: list[_QuestionRow]) -> _StoredQuestions:
        expected = 0
        if any(row.question.embedding for row in rows):
            expected = self._sizes.expected(tx, self._call.tenant)
        kept: list[_QuestionRow] = []
        refused: list[tuple[_QuestionRow, errors.GenieError]] = []
        for row in rows:
            size = len(row.question.embedding)
            expected = expected or size
            if size and size != expected:
                refused.append((row, size_mismatch(row.question, expected)))
            else:
                kept.append(row)
        named = list(dict.fromkeys(name for row in kept for name in row.concept_ids))
        row_of = dict(zip(named, catalogs.concept_rows(tx, named), strict=True))
        missing = [Concept(name, 0) for name, row in row_of.items() if row is None]
        made = catalogs.upsert_concepts(tx, missing, now=self._call.now)
        row_of |= {concept.concept_id: concept.row for concept in made.entries}
        done = catalogs.upsert_questions(
            tx,
            [
                dataclasses.replace(
                    row.question,
                    concept_rows=tuple(r for name in row.concept_ids if (r := row_of[name]) is not None),
                )
                for row in kept
            ],
            now=self._call.now,
        )
        return _StoredQuestions(
            done.created,
            done.updated,
            done.version,
            expected,
            [concept.concept_id for concept in made.entries],
            refused,
        )

    def _problem(
        self, index: int, entry_id: str, error: errors.GenieError, *, stored_in_part: bool = False
    ) -> None:
        self._problem_rows.add(index)
        if len(self._problems) < MOST_PROBLEMS:
            self._problems.append(
                pb.ImportProblem(
                    row_index=index,
                    entry_id=errors.printable(entry_id),
                    stored_in_part=stored_in_part,
                    error=error.status(),
                )
            )


def _refusal(check: Violations) -> errors.InvalidRequest:
    """What is wrong with a row, in so few words that `MOST_PROBLEMS` fit into a reply."""
    more = max(len(check.found) - MOST_VIOLATIONS_A_ROW, 0)
    return errors.InvalidRequest(check.found[:MOST_VIOLATIONS_A_ROW], unnamed=check.unnamed + more)


def _put_concepts(tx: Transaction, concepts: dict[str, Concept], now: float) -> _StoredConcepts:
    """Store concepts and, empty, those that they need and nobody brought.

    Looks for cycles once more, in case the catalogue has changed since.
    """
    needs = Needs(tx, concepts.values())
    cuts, _ = cut_cycles(needs)
    sound = concepts | _without(concepts, cuts)
    missing = dict.fromkeys(
        needed.concept_id
        for concept in sound.values()
        for needed in concept.prerequisites
        if needed.concept_id not in needs
    )
    before = {concept_id: catalogs.get_concept(tx, concept_id) for concept_id in sound}
    done = catalogs.upsert_concepts(tx, [*(Concept(name, 0) for name in missing), *sound.values()], now=now)
    stored = {concept.concept_id: concept for concept in done.entries}
    return _StoredConcepts(
        created=[*missing, *(name for name, concept in before.items() if concept is None)],
        updated=[n for n, concept in before.items() if concept is not None and concept != stored[n]],
        implied=list(missing),
        cuts=cuts,
    )


def _without(concepts: dict[str, Concept], cuts: Iterable[Cut]) -> dict[str, Concept]:
    """The concepts that lose prerequisites, without them."""
    left_out: dict[str, set[str]] = {}
    for cut in cuts:
        left_out.setdefault(cut.concept_id, set()).add(cut.prerequisite_id)
    return {
        concept_id: dataclasses.replace(
            concepts[concept_id],
            prerequisites=tuple(p for p in concepts[concept_id].prerequisites if p.concept_id not in gone),
        )
        for concept_id, gone in left_out.items()
    }

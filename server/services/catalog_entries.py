"""Concepts and questions between messages and the catalogue's tables: ids, rows, embeddings. Knows no calls."""

import dataclasses
from collections.abc import Collection, Sequence

from engine.catalog import Catalog
from engine.types import Concept, Question
from genie.v1 import resources_pb2
from server import convert, errors
from server.validate import Violations
from store.api import Partition, Reader, Store
from store.catalogs import concept_names, concept_rows, get_concept, list_questions, read_counts

_PAGE = 1_000


def concepts_from(
    check: Violations, field: str, messages: Sequence[resources_pb2.Concept], *, now: float
) -> list[Concept]:
    """The concepts of a batch, whose ids must differ."""
    concepts = [
        convert.concept_from(check.item(field, i), message, now=now) for i, message in enumerate(messages)
    ]
    _differ(check, field, "concept_id", [concept.concept_id for concept in concepts])
    return concepts


def questions_from(
    check: Violations, field: str, messages: Sequence[resources_pb2.Question], *, now: float
) -> list[Question]:
    """The questions of a batch, whose ids must differ; their concepts stay behind in the messages."""
    questions = [
        convert.question_from(check.item(field, i), message, now=now) for i, message in enumerate(messages)
    ]
    _differ(check, field, "question_id", [question.question_id for question in questions])
    return questions


def _differ(check: Violations, field: str, name: str, ids: Sequence[str]) -> None:
    seen: set[str] = set()
    for i, entry_id in enumerate(ids):
        if entry_id in seen:
            check.item(field, i).add(name, f"repeats {errors.printable(entry_id)}")
        seen.add(entry_id)


def with_rows(
    reader: Reader, questions: Sequence[Question], messages: Sequence[resources_pb2.Question]
) -> list[Question]:
    """The questions with the rows of the concepts that their messages name.

    Raises ConceptNotFound for the first that is missing.
    """
    named = list(dict.fromkeys(name for message in messages for name in message.concept_ids))
    row_of: dict[str, int] = {}
    for name, row in zip(named, concept_rows(reader, named), strict=True):
        if row is None:
            raise errors.ConceptNotFound(concept_id=name)
        row_of[name] = row
    return [
        dataclasses.replace(question, concept_rows=tuple(row_of[name] for name in message.concept_ids))
        for question, message in zip(questions, messages, strict=True)
    ]


def question_message(reader: Reader, question: Question) -> resources_pb2.Question:
    """A question as stored, with the ids of its concepts."""
    names = concept_names(reader, question.concept_rows)
    return convert.question_message(question, [names[row] for row in question.concept_rows if row in names])


def concept_message(catalog: Catalog, concept: Concept) -> resources_pb2.Concept:
    """A concept as stored, with its importance as of the snapshot; 0 when that does not hold it yet."""
    row = catalog.concept_row.get(concept.concept_id)
    return convert.concept_message(concept, 0.0 if row is None else float(catalog.importance[row]))


def lost_concept(store: Store, tenant: str, concept_id: str) -> errors.ConceptNotFound | None:
    """What is wrong when the catalogue does not hold a concept that is named.

    Told, not raised: a repeated request gets its earlier reply even if the concept is gone by then.
    """
    if concept_id:
        with store.read(Partition(tenant)) as reader:
            if get_concept(reader, concept_id) is None:
                return errors.ConceptNotFound(concept_id=concept_id)
    return None


def found(lost: errors.ConceptNotFound | None) -> None:
    """Raise what `lost_concept` told, if anything."""
    if lost is not None:
        raise lost


class EmbeddingSizes:
    """How long the embeddings of each tenant's questions are, remembered by catalogue version.

    Finding it out may mean reading every question, which a batch without embeddings does not cause.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, int]] = {}

    def expected(self, reader: Reader, tenant: str) -> int:
        """Return the common length of what is stored; 0 when no question has an embedding."""
        known = self._at(reader, tenant)
        return _size_without(reader, ()) if known is None else known

    def check(self, reader: Reader, tenant: str, questions: Sequence[Question]) -> int | None:
        """Return the common length when `questions` stand in place of those of the same ids; None when not known.

        Raises EmbeddingSizeMismatch for the first that differs.
        """
        given = [question for question in questions if question.embedding]
        if not given:
            return self._at(reader, tenant)
        expected = self.expected(reader, tenant) or len(given[0].embedding)
        if any(len(question.embedding) != expected for question in given):
            expected = _size_without(reader, {q.question_id for q in questions}) or len(given[0].embedding)
        for question in given:
            if len(question.embedding) != expected:
                raise size_mismatch(question, expected)
        return expected

    def remember(self, tenant: str, version: int, size: int | None) -> None:
        """Keep what `check` returned, for the version that was then committed."""
        if size is not None:
            self._known[tenant] = version, size

    def _at(self, reader: Reader, tenant: str) -> int | None:
        version, size = self._known.get(tenant, (-1, 0))
        return size if version == read_counts(reader).version else None


def size_mismatch(question: Question, expected: int) -> errors.EmbeddingSizeMismatch:
    """The error of an embedding that is not as long as the others."""
    return errors.EmbeddingSizeMismatch(
        question_id=question.question_id, size=len(question.embedding), expected_size=expected
    )


def _size_without(reader: Reader, left_out: Collection[str]) -> int:
    """Length of the first embedding among stored questions other than `left_out`; 0 when there is none."""
    after = ""
    while page := list_questions(reader, after=after, limit=_PAGE):
        for question in page:
            if question.embedding and question.question_id not in left_out:
                return len(question.embedding)
        after = page[-1].question_id
    return 0

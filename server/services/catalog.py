"""CatalogService: concepts, questions and the graph between them. Knows no learner."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from google.protobuf.message import Message

from engine.catalog import Catalog
from engine.types import Concept, Question
from genie.v1 import catalog_service_pb2 as pb
from server import convert, errors
from server.idempotency import reply_once
from server.rpc import Call, Requests
from server.services import catalog_entries as entries
from server.services.answers import committed
from server.services.catalog_uses import uses_by_scan, uses_in_snapshot
from server.services.concept_graph import concept_graph
from server.services.imports import CatalogImport
from server.services.paging import Page, open_page, take_page
from server.services.prerequisites import check_sound
from server.tenants import Tenants
from server.validate import Violations
from store import catalogs
from store.api import Partition, Reader, Store, Transaction

MOST_BATCH = 1_000
DEFAULT_PAGE = 100
MOST_PAGE = 1_000
_READ_AT_ONCE = 500

M = TypeVar("M", bound=Message)


class CatalogService:
    """Serves `genie.v1.CatalogService`."""

    def __init__(self, *, store: Store, serving: Store, tenants: Tenants) -> None:
        self._store = store
        self._tenants = tenants
        self._sizes = entries.EmbeddingSizes()

    def upsert_concepts(self, request: pb.UpsertConceptsRequest, call: Call) -> pb.UpsertConceptsResponse:
        """Store concepts, all or none."""
        check = _batch("concepts", request.concepts, request)
        concepts = entries.concepts_from(check, "concepts", request.concepts, now=call.now)
        check.check()

        def reply(tx: Transaction) -> pb.UpsertConceptsResponse:
            check_sound(tx, concepts)
            done = catalogs.upsert_concepts(tx, concepts, now=call.now)
            return pb.UpsertConceptsResponse(
                created_count=done.created,
                updated_count=done.updated,
                unchanged_count=done.unchanged,
                catalog_version=done.version,
            )

        return self._change(request, call, pb.UpsertConceptsResponse, reply)

    def get_concept(self, request: pb.GetConceptRequest, call: Call) -> pb.GetConceptResponse:
        """Read one concept."""
        check = Violations()
        check.identifier("concept_id", request.concept_id)
        check.check()
        with self._store.read(Partition(call.tenant)) as reader:
            concept = catalogs.get_concept(reader, request.concept_id)
        if concept is None:
            raise errors.ConceptNotFound(concept_id=request.concept_id)
        catalog = self._tenants.of(call).catalog
        return pb.GetConceptResponse(concept=entries.concept_message(catalog, concept))

    def list_concepts(self, request: pb.ListConceptsRequest, call: Call) -> pb.ListConceptsResponse:
        """List concepts by id."""
        check = Violations()
        check.text("area", request.area, most=convert.MOST_NAME)
        check.text("topic", request.topic, most=convert.MOST_NAME)
        page = _page(check, request, "ListConcepts", request.area, request.topic, request.tag)

        def wanted(concept: Concept) -> bool:
            return (
                (not request.area or concept.area == request.area)
                and (not request.topic or concept.topic == request.topic)
                and (not request.tag or request.tag in concept.tags)
            )

        catalog = self._tenants.of(call).catalog
        with self._store.read(Partition(call.tenant)) as reader:
            found = filter(wanted, _concepts(reader, page.after, call))
            messages = (entries.concept_message(catalog, concept) for concept in found)
            concepts, token = take_page(page, messages, lambda concept: concept.concept_id)
        return pb.ListConceptsResponse(concepts=concepts, next_page_token=token)

    def delete_concepts(self, request: pb.DeleteConceptsRequest, call: Call) -> pb.DeleteConceptsResponse:
        """Take concepts out that nothing else names, all or none."""
        check = _batch("concept_ids", request.concept_ids, request)
        ids = check.identifiers("concept_ids", request.concept_ids, most=MOST_BATCH)
        check.check()
        catalog = self._tenants.of(call).catalog

        def reply(tx: Transaction) -> pb.DeleteConceptsResponse:
            # The snapshot spares reading the whole catalogue inside the transaction, as long as it is of this version.
            fresh = catalogs.read_counts(tx).version == catalog.version
            uses = uses_in_snapshot(catalog, ids) if fresh else uses_by_scan(tx, ids)
            for concept_id in ids:
                if uses[concept_id]:
                    raise errors.ConceptInUse(concept_id=concept_id, uses_count=uses[concept_id])
            count = catalogs.delete_concepts(tx, ids, now=call.now)
            return pb.DeleteConceptsResponse(
                deleted_count=count, catalog_version=catalogs.read_counts(tx).version
            )

        return self._change(request, call, pb.DeleteConceptsResponse, reply)

    def upsert_questions(self, request: pb.UpsertQuestionsRequest, call: Call) -> pb.UpsertQuestionsResponse:
        """Store questions, all or none."""
        check = _batch("questions", request.questions, request)
        questions = entries.questions_from(check, "questions", request.questions, now=call.now)
        check.check()

        sizes: list[tuple[int, int | None]] = []

        def reply(tx: Transaction) -> pb.UpsertQuestionsResponse:
            resolved = entries.with_rows(tx, questions, request.questions)
            size = self._sizes.check(tx, call.tenant, resolved)
            done = catalogs.upsert_questions(tx, resolved, now=call.now)
            sizes.append((done.version, size))
            return pb.UpsertQuestionsResponse(
                created_count=done.created,
                updated_count=done.updated,
                unchanged_count=done.unchanged,
                catalog_version=done.version,
            )

        response = self._change(request, call, pb.UpsertQuestionsResponse, reply)
        for version, size in sizes[-1:]:
            self._sizes.remember(call.tenant, version, size)
        return response

    def get_question(self, request: pb.GetQuestionRequest, call: Call) -> pb.GetQuestionResponse:
        """Read one question."""
        check = Violations()
        check.identifier("question_id", request.question_id)
        check.check()
        with self._store.read(Partition(call.tenant)) as reader:
            question = catalogs.get_question(reader, request.question_id)
            if question is None:
                raise errors.QuestionNotFound(question_id=request.question_id)
            return pb.GetQuestionResponse(question=entries.question_message(reader, question))

    def list_questions(self, request: pb.ListQuestionsRequest, call: Call) -> pb.ListQuestionsResponse:
        """List questions by id."""
        check = Violations()
        check.identifier("concept_id", request.concept_id, required=False)
        page = _page(check, request, "ListQuestions", request.concept_id, request.tag)
        catalog = self._tenants.of(call).catalog

        def wanted(question: Question) -> bool:
            return not request.tag or request.tag in question.tags

        with self._store.read(Partition(call.tenant)) as reader:
            if request.concept_id:
                listed = _questions_of(reader, catalog, request.concept_id, page.after, call)
            else:
                listed = _questions(reader, page.after, call)
            messages = (entries.question_message(reader, found) for found in filter(wanted, listed))
            questions, token = take_page(page, messages, lambda question: question.question_id)
        return pb.ListQuestionsResponse(questions=questions, next_page_token=token)

    def delete_questions(self, request: pb.DeleteQuestionsRequest, call: Call) -> pb.DeleteQuestionsResponse:
        """Take questions out; answers to them stay."""
        check = _batch("question_ids", request.question_ids, request)
        ids = check.identifiers("question_ids", request.question_ids, most=MOST_BATCH)
        check.check()

        def reply(tx: Transaction) -> pb.DeleteQuestionsResponse:
            count = catalogs.delete_questions(tx, ids, now=call.now)
            return pb.DeleteQuestionsResponse(
                deleted_count=count, catalog_version=catalogs.read_counts(tx).version
            )

        return self._change(request, call, pb.DeleteQuestionsResponse, reply)

    def import_catalog(
        self, requests: "Requests[pb.ImportCatalogRequest]", call: Call
    ) -> pb.ImportCatalogResponse:
        """Take in a whole catalogue, row by row."""
        work = CatalogImport(self._store, self._sizes, call)
        for row in requests:
            work.add(row)
        return work.finish()

    def get_concept_graph(self, request: pb.GetConceptGraphRequest, call: Call) -> pb.GetConceptGraphResponse:
        """The graph, or the neighbourhood of a concept."""
        return concept_graph(request, self._tenants.of(call, fresh=True).catalog)

    def _change(self, request: Any, call: Call, kind: type[M], reply: Callable[[Transaction], M]) -> M:
        """Change the catalogue once for each request id."""
        operation = self._store.submit(
            Partition(call.tenant),
            lambda tx: reply_once(tx, request, call, kind, lambda: reply(tx)),
        )
        return committed(operation, call)


def _batch(field: str, batch: Sequence[object], request: Any) -> Violations:
    """The checks that all batches share. Raises BatchTooLarge."""
    if len(batch) > MOST_BATCH:
        raise errors.BatchTooLarge(field=field, size=len(batch), limit=MOST_BATCH)
    check = Violations()
    check.size(field, len(batch), least=1, most=MOST_BATCH)
    check.identifier("request_id", request.request_id, required=False)
    return check


def _page(check: Violations, request: Any, *filters: object) -> Page:
    """The page asked for, once the request has been found sound."""
    check.text("tag", request.tag, most=convert.MOST_TAG)
    size = check.page_size("page_size", request.page_size, default=DEFAULT_PAGE, most=MOST_PAGE)
    check.check()
    return open_page(request.page_token, size, *filters)


def _concepts(reader: Reader, after: str, call: Call) -> Iterator[Concept]:
    while found := catalogs.list_concepts(reader, after=after, limit=_READ_AT_ONCE):
        call.check()
        yield from found
        after = found[-1].concept_id


def _questions(reader: Reader, after: str, call: Call) -> Iterator[Question]:
    while found := catalogs.list_questions(reader, after=after, limit=_READ_AT_ONCE):
        call.check()
        yield from found
        after = found[-1].question_id


def _questions_of(
    reader: Reader, catalog: Catalog, concept_id: str, after: str, call: Call
) -> Iterator[Question]:
    """Questions of a concept: those the snapshot names, or found by reading all when it is of another version."""
    concept = catalogs.get_concept(reader, concept_id)
    if concept is None:
        return
    if catalogs.read_counts(reader).version != catalog.version:
        yield from (q for q in _questions(reader, after, call) if concept.row in q.concept_rows)
        return
    ids = [catalog.question_ids[row] for row in catalog.concept_questions.of(concept.row)]
    for question_id in sorted(question_id for question_id in ids if question_id > after):
        question = catalogs.get_question(reader, question_id)
        if question is not None:
            yield question

"""CatalogService on stores in memory, and short ways to call it."""

from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest

from genie.v1 import catalog_service_pb2 as pb
from genie.v1 import resources_pb2
from server import errors
from server.rpc import Requests
from server.services.catalog import CatalogService
from server.tenants import Tenants
from store.api import Store
from store.memory_store import MemoryStore
from tests.server.service_calls import NOW, a_call

Concept = resources_pb2.Concept
Question = resources_pb2.Question
Prerequisite = resources_pb2.Prerequisite


class World:
    """A service on stores in memory."""

    def __init__(self) -> None:
        self.store: Store = MemoryStore()
        self.tenants = Tenants(self.store)
        self.service = CatalogService(store=self.store, serving=MemoryStore(), tenants=self.tenants)

    def concepts(self, *concepts: resources_pb2.Concept, **more: Any) -> pb.UpsertConceptsResponse:
        return self.service.upsert_concepts(pb.UpsertConceptsRequest(concepts=concepts, **more), a_call())

    def questions(self, *questions: resources_pb2.Question, **more: Any) -> pb.UpsertQuestionsResponse:
        return self.service.upsert_questions(pb.UpsertQuestionsRequest(questions=questions, **more), a_call())

    def concept(self, concept_id: str) -> resources_pb2.Concept:
        return self.service.get_concept(pb.GetConceptRequest(concept_id=concept_id), a_call()).concept

    def needs(self, concept_id: str) -> list[str]:
        return [edge.concept_id for edge in self.concept(concept_id).prerequisites]

    def graph(self, **request: Any) -> pb.GetConceptGraphResponse:
        return self.service.get_concept_graph(pb.GetConceptGraphRequest(**request), a_call())

    def take(self, *rows: resources_pb2.Concept | resources_pb2.Question) -> pb.ImportCatalogResponse:
        stream = [
            pb.ImportCatalogRequest(concept=row)
            if isinstance(row, resources_pb2.Concept)
            else pb.ImportCatalogRequest(question=row)
            for row in rows
        ]
        return self.stream(stream)

    def stream(self, rows: Sequence[pb.ImportCatalogRequest]) -> pb.ImportCatalogResponse:
        return self.service.import_catalog(
            cast("Requests[pb.ImportCatalogRequest]", iter(rows)), a_call(now=NOW + 1)
        )


def concept(concept_id: str, *needs: str, **more: Any) -> resources_pb2.Concept:
    return Concept(concept_id=concept_id, prerequisites=[Prerequisite(concept_id=n) for n in needs], **more)


def question(question_id: str, *concept_ids: str, **more: Any) -> resources_pb2.Question:
    return Question(question_id=question_id, concept_ids=concept_ids, **more)


def refused(kind: type[errors.GenieError], work: Callable[[], object]) -> dict[str, str]:
    with pytest.raises(kind) as caught:
        work()
    return caught.value.facts


def violations(work: Callable[[], object]) -> list[str]:
    with pytest.raises(errors.InvalidRequest) as caught:
        work()
    return sorted({violation.field for violation in caught.value.violations()})

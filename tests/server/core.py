"""The real services over stores in memory, behind a real gRPC port in the test's own process."""

import contextlib
import functools
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2, status_pb2

from engine.warmup import warm_up
from genie.v1 import (
    analytics_service_pb2_grpc,
    catalog_service_pb2_grpc,
    learner_service_pb2_grpc,
    practice_service_pb2_grpc,
    recommendation_service_pb2_grpc,
    resources_pb2,
)
from genie.v1 import catalog_service_pb2 as catalog_pb
from genie.v1 import learner_service_pb2 as learner_pb
from genie.v1 import practice_service_pb2 as practice_pb
from genie.v1 import recommendation_service_pb2 as recommendation_pb
from server.app import Genie
from server.assembly import policies_of, put_together
from server.config import Settings
from server.errors import DOMAIN
from store.stores import Stores, memory_stores

LEARNER = "ada"
compiled = functools.cache(warm_up)
"""Compiles the kernels, once: a call that waits for the compiler is over any budget."""
TENANT_HEADER = "x-tenant-id"


@dataclass
class Core:
    """A running server, its stores, and short ways to call it for one tenant."""

    genie: Genie
    port: int
    stores: Stores
    channel: grpc.Channel
    tenant: str = "default"
    answers_sent: int = field(default=0, init=False)

    def tenant_of(self, test: str) -> "Core":
        """The same server for a tenant of one test's own, by the test's name."""
        name = f"{re.sub('[^A-Za-z0-9]', '-', test)[:50]}-{zlib.crc32(test.encode()):08x}"
        return Core(self.genie, self.port, self.stores, self.channel, name)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return ((TENANT_HEADER, self.tenant),)

    @property
    def catalog(self) -> catalog_service_pb2_grpc.CatalogServiceStub:
        return catalog_service_pb2_grpc.CatalogServiceStub(self.channel)

    @property
    def learners(self) -> learner_service_pb2_grpc.LearnerServiceStub:
        return learner_service_pb2_grpc.LearnerServiceStub(self.channel)

    @property
    def practice(self) -> practice_service_pb2_grpc.PracticeServiceStub:
        return practice_service_pb2_grpc.PracticeServiceStub(self.channel)

    @property
    def recommendations(self) -> recommendation_service_pb2_grpc.RecommendationServiceStub:
        return recommendation_service_pb2_grpc.RecommendationServiceStub(self.channel)

    @property
    def analytics(self) -> analytics_service_pb2_grpc.AnalyticsServiceStub:
        return analytics_service_pb2_grpc.AnalyticsServiceStub(self.channel)

    def chain(self, *concept_ids: str, questions: int = 10, hard: bool = False) -> None:
        """A catalogue of concepts, each the prerequisite of the next, with questions `concept-0` and on."""
        hardness = (
            resources_pb2.PREREQUISITE_HARDNESS_HARD if hard else resources_pb2.PREREQUISITE_HARDNESS_SOFT
        )
        concepts = [
            resources_pb2.Concept(
                concept_id=concept_id,
                title=concept_id.title(),
                area="Arithmetic",
                prerequisites=[resources_pb2.Prerequisite(concept_id=before, hardness=hardness)]
                if before
                else [],
            )
            for before, concept_id in zip(("", *concept_ids), concept_ids, strict=False)
        ]
        self.catalog.UpsertConcepts(
            catalog_pb.UpsertConceptsRequest(concepts=concepts), metadata=self.metadata
        )
        made = [
            resources_pb2.Question(
                question_id=f"{concept_id}-{number}",
                concept_ids=[concept_id],
                text=f"{concept_id} number {number}",
                difficulty=0.2 + 0.5 * number / questions,
            )
            for concept_id in concept_ids
            for number in range(questions)
        ]
        self.catalog.UpsertQuestions(
            catalog_pb.UpsertQuestionsRequest(questions=made), metadata=self.metadata
        )

    def forget(self, concept_id: str, *, questions: int) -> None:
        """Delete a concept that `chain` made, with its questions."""
        names = [f"{concept_id}-{number}" for number in range(questions)]
        self.catalog.DeleteQuestions(
            catalog_pb.DeleteQuestionsRequest(question_ids=names), metadata=self.metadata
        )
        self.catalog.DeleteConcepts(
            catalog_pb.DeleteConceptsRequest(concept_ids=[concept_id]), metadata=self.metadata
        )

    def create(self, learner_id: str, **profile: Any) -> None:
        """Create a learner."""
        learner = resources_pb2.Learner(learner_id=learner_id, **profile)
        self.learners.CreateLearner(learner_pb.CreateLearnerRequest(learner=learner), metadata=self.metadata)

    def record(self, *answers: practice_pb.Answer) -> practice_pb.RecordAnswersResponse:
        """RecordAnswers."""
        return self.practice.RecordAnswers(
            practice_pb.RecordAnswersRequest(answers=answers), metadata=self.metadata
        )

    def answer(self, question_id: str, correct: bool = True, **more: Any) -> practice_pb.Answer:
        """An answer of `LEARNER` with an id that was not used before."""
        self.answers_sent += 1
        known: dict[str, Any] = {"answer_id": f"answer-{self.answers_sent}", "learner_id": LEARNER}
        return practice_pb.Answer(**(known | {"question_id": question_id, "correct": correct} | more))

    def recommend(self, learner_id: str = LEARNER, **request: Any) -> recommendation_pb.Recommendation:
        """Recommend."""
        return self.recommendations.Recommend(
            recommendation_pb.RecommendRequest(learner_id=learner_id, **request), metadata=self.metadata
        ).recommendation

    def stats(self, learner_id: str = LEARNER) -> Any:
        """GetLearnerStats."""
        return self.learners.GetLearnerStats(
            learner_pb.GetLearnerStatsRequest(learner_id=learner_id), metadata=self.metadata
        ).stats

    def mastery(self, learner_id: str = LEARNER) -> Sequence[Any]:
        """GetMastery of all that the learner has touched."""
        return self.learners.GetMastery(
            learner_pb.GetMasteryRequest(learner_id=learner_id), metadata=self.metadata
        ).masteries


@contextlib.contextmanager
def core(*, stores: Stores | None = None, **settings: object) -> Iterator[Core]:
    """Serve Genie on a free port until the block ends."""
    compiled()
    held = memory_stores() if stores is None else stores
    merged: dict[str, object] = {
        "port": 0,
        "health_probe_seconds": 0.1,
        "recommend_budget_ms": 60_000.0,
        "access_log_ratio": 0.0,
        **settings,
    }
    chosen = Settings(**merged)  # type: ignore[arg-type]
    genie = Genie(chosen, lambda settings, _: put_together(settings, held, policies_of(settings)))
    port = genie.start()
    try:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            yield Core(genie, port, held, channel)
    finally:
        assert genie.drain(notice=False), "calls were left unfinished"


def at(seconds: float) -> Timestamp:
    """A Timestamp of epoch seconds."""
    stamp = Timestamp()
    stamp.FromNanoseconds(round(seconds * 1e6) * 1_000)
    return stamp


def lasting(seconds: float) -> Duration:
    """A Duration of seconds."""
    span = Duration()
    span.FromNanoseconds(round(seconds * 1e6) * 1_000)
    return span


def info_of(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    """The ErrorInfo of an entry's error."""
    info = error_details_pb2.ErrorInfo()
    assert any(detail.Unpack(info) for detail in status.details), status
    assert info.domain == DOMAIN
    return info


def fields_of(status: status_pb2.Status) -> list[str]:
    """The fields at fault that an entry's error names."""
    bad = error_details_pb2.BadRequest()
    found = any(detail.Unpack(bad) for detail in status.details)
    return [violation.field for violation in bad.field_violations] if found else []

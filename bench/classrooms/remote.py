"""Genie as a teacher over gRPC: what a platform would send, in a tenant of its own. Knows nothing of the truth."""

import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import grpc

from bench.worlds.world import Learner, World
from examples.retry import channel
from genie.v1 import (
    catalog_service_pb2,
    catalog_service_pb2_grpc,
    practice_service_pb2,
    practice_service_pb2_grpc,
    recommendation_service_pb2,
    recommendation_service_pb2_grpc,
    resources_pb2,
)
from server.convert import duration, timestamp

CALL_SECONDS = 30.0
"""Longest wait for any call."""


@dataclass
class RemoteSchool:
    """A server, with a world's catalogue in a tenant of its own."""

    world: World
    target: str
    tenant: str = field(default_factory=lambda: f"classroom-{uuid.uuid4().hex[:12]}")
    degraded: int = 0
    """Slates that the server said were less than it could do."""
    slates: Counter[str] = field(default_factory=Counter)
    """Slates by the policy that chose them."""

    def __post_init__(self) -> None:
        """Connect; nothing is sent yet."""
        self.channel: grpc.Channel = channel(self.target)
        self.metadata = (("x-tenant-id", self.tenant),)
        self.practice = practice_service_pb2_grpc.PracticeServiceStub(self.channel)
        self.recommendations = recommendation_service_pb2_grpc.RecommendationServiceStub(self.channel)
        self.places = {question.question_id: place for place, question in enumerate(self.world.questions)}

    def open(self) -> None:
        """Send the catalogue.

        Raises:
            RuntimeError: the server found a problem in it. grpc.RpcError: the call failed.
        """
        stub = catalog_service_pb2_grpc.CatalogServiceStub(self.channel)
        reply = stub.ImportCatalog(catalog_entries(self.world), metadata=self.metadata, timeout=CALL_SECONDS)
        if reply.problems_count:
            raise RuntimeError(f"the server refuses a part of the catalogue: {reply.problems[0]}")

    def close(self) -> None:
        """Hang up; the tenant stays on the server."""
        self.channel.close()


def catalog_entries(world: World) -> Iterator[catalog_service_pb2.ImportCatalogRequest]:
    """Yield a world's catalogue as the messages of ImportCatalog."""
    hard, soft = resources_pb2.PREREQUISITE_HARDNESS_HARD, resources_pb2.PREREQUISITE_HARDNESS_SOFT
    for concept in world.concepts:
        before = [resources_pb2.Prerequisite(concept_id=need, hardness=hard) for need in concept.needs]
        before += [resources_pb2.Prerequisite(concept_id=need, hardness=soft) for need in concept.helps]
        yield catalog_service_pb2.ImportCatalogRequest(
            concept=resources_pb2.Concept(
                concept_id=concept.concept_id, title=concept.title, area=concept.area, prerequisites=before
            )
        )
    for question in world.questions:
        yield catalog_service_pb2.ImportCatalogRequest(
            question=resources_pb2.Question(
                question_id=question.question_id,
                concept_ids=question.concept_ids,
                text=question.text,
                difficulty=question.difficulty,
                expected_duration=duration(question.seconds) if question.seconds else None,
            )
        )


@dataclass(frozen=True)
class RemoteTeacher:
    """A policy of the server; an empty one leaves the choice to the server and its experiments."""

    school: RemoteSchool
    policy: str
    prefix: str = ""
    """Put before learner ids."""

    @property
    def name(self) -> str:
        """The policy's name."""
        return self.policy

    def learner_id(self, number: int) -> str:
        """Return what the server is told of learner `number`."""
        return f"{self.prefix or self.policy}-{number}"

    def pupil(self, number: int, learner: Learner) -> "RemotePupil":
        """Return a learner whom the server has not heard of."""
        return RemotePupil(self.school, self.policy, self.learner_id(number))


@dataclass
class RemotePupil:
    """One learner as the server knows them."""

    school: RemoteSchool
    policy: str
    learner_id: str
    given: int = 0
    recommendation_id: str = ""

    def choose(self, at: float) -> int:
        """Call Recommend for one question, as of the simulated time."""
        reply = self.school.recommendations.Recommend(
            recommendation_service_pb2.RecommendRequest(
                learner_id=self.learner_id,
                limit=1,
                policy=self.policy,
                context=recommendation_service_pb2.RecommendationContext(as_of_time=timestamp(at)),
            ),
            metadata=self.school.metadata,
            timeout=CALL_SECONDS,
        )
        slate = reply.recommendation
        self.school.degraded += slate.degraded
        self.school.slates[slate.policy] += 1
        self.recommendation_id = slate.recommendation_id
        return self.school.places[slate.items[0].question_id] if slate.items else -1

    def note(self, question: int, correct: bool, seconds: float, at: float) -> None:
        """Call RecordAnswers; RuntimeError when the server refuses the answer."""
        self.given += 1
        reply = self.school.practice.RecordAnswers(
            practice_service_pb2.RecordAnswersRequest(
                answers=[
                    practice_service_pb2.Answer(
                        answer_id=f"{self.learner_id}-{self.given}",
                        learner_id=self.learner_id,
                        question_id=self.school.world.questions[question].question_id,
                        correct=correct,
                        answered_at=timestamp(at),
                        duration=duration(seconds),
                        recommendation_id=self.recommendation_id,
                    )
                ]
            ),
            metadata=self.school.metadata,
            timeout=CALL_SECONDS,
        )
        if reply.recorded_count != 1:
            raise RuntimeError(f"the server refuses an answer: {reply.results[0].error}")

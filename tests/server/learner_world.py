"""LearnerService beside the services it works with, on stores in memory, and short ways to call them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from engine.policy import load_policies
from genie.v1 import (
    analytics_service_pb2,
    catalog_service_pb2,
    practice_service_pb2,
    report_pb2,
    resources_pb2,
)
from genie.v1 import learner_service_pb2 as pb
from server import errors
from server.metrics import Meter
from server.services.analytics import AnalyticsService
from server.services.catalog import CatalogService
from server.services.learner import LearnerService
from server.services.practice import PracticeService
from server.services.recommendation import RecommendationService
from server.system_metrics import SystemMetricsReader
from server.tenants import Tenants
from store.api import Store
from store.memory_store import MemoryStore
from tests.server.service_calls import NOW, a_call

DAY = 86_400.0
Learner = resources_pb2.Learner
Goal = resources_pb2.Goal


class World:
    """A chain of concepts, count before add before multiply, with ten questions each, and `shapes` beside it."""

    def __init__(self) -> None:
        self.store: Store = MemoryStore()
        self.serving: Store = MemoryStore()
        self.tenants = Tenants(self.store)
        self.catalog = CatalogService(store=self.store, serving=self.serving, tenants=self.tenants)
        self.practice = PracticeService(store=self.store, tenants=self.tenants)
        policy = load_policies({})["hybrid_v1"]
        self.learners = LearnerService(
            store=self.store, serving=self.serving, tenants=self.tenants, policy=policy
        )
        system = SystemMetricsReader(
            state=self.store, serving=self.serving, meter=Meter(), spool=Path("no-such-directory")
        )
        self.analytics = AnalyticsService(store=self.store, tenants=self.tenants, system=system)
        self.recommendations = RecommendationService(
            store=self.store,
            serving=self.serving,
            tenants=self.tenants,
            policies=load_policies({}),
            default_policy="hybrid_v1",
            budget_seconds=30.0,
            keep_seconds=3_600.0,
        )
        chain = ["count", "add", "multiply"]
        concepts = [
            resources_pb2.Concept(
                concept_id=name,
                area="Numbers",
                prerequisites=[resources_pb2.Prerequisite(concept_id=before)] if before else [],
            )
            for name, before in zip(chain, ["", *chain], strict=False)
        ]
        concepts.append(resources_pb2.Concept(concept_id="shapes", area="Geometry"))
        self.catalog.upsert_concepts(catalog_service_pb2.UpsertConceptsRequest(concepts=concepts), a_call())
        self.catalog.upsert_questions(
            catalog_service_pb2.UpsertQuestionsRequest(
                questions=[
                    resources_pb2.Question(
                        question_id=f"{name}-{i}",
                        concept_ids=[name],
                        expected_duration=Duration(seconds=30),
                    )
                    for name in [*chain, "shapes"]
                    for i in range(10)
                ]
            ),
            a_call(),
        )
        self.given = 0

    def answer(
        self,
        learner_id: str,
        concept: str,
        *,
        at: float,
        correct: bool = True,
        seconds: int = 30,
        count: int = 1,
        arrives: float | None = None,
    ) -> practice_service_pb2.RecordAnswersResponse:
        answers = []
        for i in range(count):
            self.given += 1
            given = Timestamp()
            given.FromNanoseconds(int((at + 60 * i) * 1e9))
            answers.append(
                practice_service_pb2.Answer(
                    answer_id=f"a{self.given}",
                    learner_id=learner_id,
                    question_id=f"{concept}-{self.given % 10}",
                    correct=correct,
                    answered_at=given,
                    duration=Duration(seconds=seconds),
                    session_id="s-1",
                )
            )
        reply = self.practice.record_answers(
            practice_service_pb2.RecordAnswersRequest(answers=answers),
            a_call(now=at + 60 * count if arrives is None else arrives),
        )
        told = practice_service_pb2.RecordAnswersResponse.FromString(reply.SerializeToString())
        assert told.recorded_count == count
        return told

    def create(self, learner_id: str, **profile: Any) -> resources_pb2.Learner:
        request = pb.CreateLearnerRequest(learner=Learner(learner_id=learner_id, **profile))
        return self.learners.create_learner(request, a_call()).learner

    def get(self, learner_id: str) -> resources_pb2.Learner:
        return self.learners.get_learner(pb.GetLearnerRequest(learner_id=learner_id), a_call()).learner

    def update(self, learner: resources_pb2.Learner, *paths: str, now: float = NOW) -> resources_pb2.Learner:
        request = pb.UpdateLearnerRequest(learner=learner, update_mask=FieldMask(paths=paths))
        return self.learners.update_learner(request, a_call(now=now)).learner

    def ids(self, **request: Any) -> list[str]:
        reply = self.learners.list_learners(pb.ListLearnersRequest(**request), a_call())
        return [learner.learner_id for learner in reply.learners]

    def stats(self, learner_id: str, now: float = NOW) -> Any:
        return self.learners.get_learner_stats(
            pb.GetLearnerStatsRequest(learner_id=learner_id), a_call(now=now)
        ).stats

    def mastery(self, now: float = NOW, **request: Any) -> pb.GetMasteryResponse:
        return self.learners.get_mastery(pb.GetMasteryRequest(**request), a_call(now=now))

    def progress(self, now: float = NOW, **request: Any) -> pb.GetLearnerProgressResponse:
        return self.learners.get_learner_progress(pb.GetLearnerProgressRequest(**request), a_call(now=now))

    def profile(self, learner_id: str, now: float = NOW) -> Any:
        return self.learners.get_learning_profile(
            pb.GetLearningProfileRequest(learner_id=learner_id), a_call(now=now)
        ).learning_profile

    def milestones(self, **request: Any) -> pb.ListMilestonesResponse:
        return self.learners.list_milestones(pb.ListMilestonesRequest(**request), a_call())

    def daily(self, learner_id: str, now: float = NOW, **request: Any) -> report_pb2.LearnerReport:
        asked = analytics_service_pb2.GetDailyReportRequest(learner_id=learner_id, **request)
        return self.analytics.get_daily_report(asked, a_call(now=now)).learner_report

    def weekly(self, learner_id: str, now: float = NOW, **request: Any) -> report_pb2.LearnerReport:
        asked = analytics_service_pb2.GetWeeklySummaryRequest(learner_id=learner_id, **request)
        return self.analytics.get_weekly_summary(asked, a_call(now=now)).learner_report

    def tenant_week(self, now: float = NOW, **request: Any) -> report_pb2.TenantReport:
        asked = analytics_service_pb2.GetWeeklySummaryRequest(**request)
        return self.analytics.get_weekly_summary(asked, a_call(now=now)).tenant_report

    def tenant_day(self, now: float = NOW, **request: Any) -> report_pb2.TenantReport:
        asked = analytics_service_pb2.GetDailyReportRequest(**request)
        return self.analytics.get_daily_report(asked, a_call(now=now)).tenant_report

    def goal(self, learner_id: str, now: float = NOW, **request: Any) -> pb.SetGoalResponse:
        call = a_call(now=now, method="/genie.v1.LearnerService/SetGoal")
        return self.learners.set_goal(pb.SetGoalRequest(learner_id=learner_id, **request), call)

    def plan(self, learner_id: str, days: int = 0, now: float = NOW) -> Any:
        return self.learners.plan_practice(
            pb.PlanPracticeRequest(learner_id=learner_id, days=days), a_call(now=now)
        ).days

    def export(self, learner_id: str, now: float = NOW) -> list[pb.ExportLearnerResponse]:
        return list(
            self.learners.export_learner(pb.ExportLearnerRequest(learner_id=learner_id), a_call(now=now))
        )


def refused(kind: type[errors.GenieError], work: Callable[[], object]) -> dict[str, str]:
    with pytest.raises(kind) as caught:
        work()
    return caught.value.facts


def violations(work: Callable[[], object]) -> list[str]:
    with pytest.raises(errors.InvalidRequest) as caught:
        work()
    return sorted({violation.field for violation in caught.value.violations()})

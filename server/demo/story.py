"""What `genie demo` tells on screen: it fills a store and walks a learner through a server. Computes nothing itself."""

import csv
import statistics
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.resources import as_file, files
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc
from rich.console import Console

from engine.learner import LearnerModel
from genie.v1 import (
    explanation_pb2,
    learner_service_pb2,
    learner_service_pb2_grpc,
    practice_service_pb2,
    practice_service_pb2_grpc,
    progress_pb2,
    recommendation_service_pb2_grpc,
    resources_pb2,
)
from genie.v1 import recommendation_service_pb2 as recommendation_pb2
from server.cli.recommend import slate_table
from server.data_tables import ANSWERS, CONCEPTS, LEARNERS, QUESTIONS
from server.demo.classroom import Classroom, simulate_classroom
from server.demo.curriculum import load_curriculum
from server.importing import Import, ImportReport
from store.api import Partition, Store, Table
from store.catalogs import read_counts

TIMEOUT_SECONDS = 30.0
TIMED_CALLS = 50
SLATE = 5
POLICY = "hybrid_greedy"
"""The default policy without its draw, so that what changes in the story changes because of the answer."""
POLICIES = f'[{POLICY}]\nbased_on = "hybrid_v1"\ntemperature = 0.0\n'


def is_filled(store: Store, tenant: str) -> bool:
    """Whether the store holds a catalogue and learners already."""
    with store.read(Partition(tenant)) as reader:
        counts = read_counts(reader)
    return counts.questions > 0 and bool(store.learners(tenant, Table.STATE, limit=1))


def fill(store: Store, tenant: str, *, now: float) -> ImportReport:
    """Import the bundled curriculum and a simulated classroom's history up to `now` (epoch seconds)."""
    classroom = simulate_classroom(load_curriculum(), now=now)
    with TemporaryDirectory(prefix="genie-demo-") as place, _curriculum() as curriculum:
        learners, answers = Path(place, "learners.csv"), Path(place, "answers.csv")
        _write(classroom, learners, answers)
        return Import(store, tenant, LearnerModel.priors(), now=now).files(
            {
                CONCEPTS: curriculum / "concepts.csv",
                QUESTIONS: curriculum / "questions.csv",
                LEARNERS: learners,
                ANSWERS: answers,
            }
        )


@contextmanager
def _curriculum() -> Iterator[Path]:
    with as_file(files("server.demo").joinpath("curriculum")) as folder:
        yield Path(folder)


def _write(classroom: Classroom, learners: Path, answers: Path) -> None:
    with learners.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["learner_id", "display_name", "time_zone", "created_at"])
        for learner in classroom.learners:
            created = datetime.fromtimestamp(learner.created_at, UTC).isoformat()
            writer.writerow([learner.learner_id, learner.display_name, learner.time_zone, created])
    with answers.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        columns = (
            "answer_id",
            "learner_id",
            "question_id",
            "correct",
            "answered_at",
            "duration_ms",
            "session_id",
        )
        writer.writerow(columns)
        for answer in classroom.answers:
            given = datetime.fromtimestamp(answer.answered_at, UTC).isoformat()
            writer.writerow(
                [
                    *(answer.answer_id, answer.learner_id, answer.question_id, int(answer.correct)),
                    *(given, answer.duration_ms, answer.session_id),
                ]
            )


class Story:
    """The walk-through with one learner, over gRPC."""

    def __init__(self, channel: grpc.Channel, console: Console) -> None:
        self._say = console
        self._learners = learner_service_pb2_grpc.LearnerServiceStub(channel)
        self._practice = practice_service_pb2_grpc.PracticeServiceStub(channel)
        self._recommendations = recommendation_service_pb2_grpc.RecommendationServiceStub(channel)

    def tell(self) -> str:
        """Tell it; the learner's id."""
        learner, stats = self._someone()
        self._introduce(learner.display_name or learner.learner_id, stats)
        before = self._slate(learner.learner_id)
        self._say.print(slate_table(before))
        wrong = before.items[0].question_id
        self._answer_wrong(learner.learner_id, wrong, before.recommendation_id)
        after = self._slate(learner.learner_id)
        self._say.print(slate_table(after))
        self._compare(before, after)
        self._why(after)
        self._time(learner.learner_id)
        return learner.learner_id

    def _someone(self) -> tuple[resources_pb2.Learner, progress_pb2.LearnerStats]:
        """A learner worth telling of: well known, with a streak, and with something to review."""
        page = self._learners.ListLearners(
            learner_service_pb2.ListLearnersRequest(page_size=60), timeout=TIMEOUT_SECONDS
        ).learners
        told = []
        for learner in page:
            stats = self._learners.GetLearnerStats(
                learner_service_pb2.GetLearnerStatsRequest(learner_id=learner.learner_id),
                timeout=TIMEOUT_SECONDS,
            ).stats
            told.append((learner, stats))
        return max(told, key=lambda pair: _interest(pair[1]))

    def _introduce(self, name: str, stats: progress_pb2.LearnerStats) -> None:
        self._say.rule("A learner")
        self._say.print(
            f"[bold]{name}[/bold] has given {stats.answers_count} answers, {stats.accuracy:.0%} of them right; "
            f"masters {stats.mastered_concepts_count} of {stats.touched_concepts_count} concepts met, "
            f"{stats.due_concepts_count} are due for review; "
            f"streak {stats.streak.current_days} days (longest {stats.streak.longest_days})."
        )
        self._say.rule("What next?")

    def _slate(self, learner_id: str) -> recommendation_pb2.Recommendation:
        request = recommendation_pb2.RecommendRequest(
            learner_id=learner_id, limit=SLATE, policy=POLICY, request_id=uuid.uuid4().hex
        )
        return self._recommendations.Recommend(request, timeout=TIMEOUT_SECONDS).recommendation

    def _answer_wrong(self, learner_id: str, question_id: str, recommendation_id: str) -> None:
        self._say.rule(f"A wrong answer to {question_id}")
        answer = practice_service_pb2.Answer(
            answer_id=uuid.uuid4().hex,
            learner_id=learner_id,
            question_id=question_id,
            correct=False,
            recommendation_id=recommendation_id,
        )
        started = time.perf_counter()
        reply = self._practice.RecordAnswers(
            practice_service_pb2.RecordAnswersRequest(answers=[answer]), timeout=TIMEOUT_SECONDS
        )
        took_ms = (time.perf_counter() - started) * 1e3
        result = reply.results[0]
        for change in result.mastery_changes:
            how = "exercised" if change.weight == 1.0 else f"touched ({change.weight:.0%})"
            self._say.print(
                f"mastery of {change.concept_id} ({how}): "
                f"[bold]{change.mastery_before:.3f} → {change.mastery_after:.3f}[/bold]"
            )
        self._say.print(
            f"streak now {result.streak.current_days} days; durable on disk and acknowledged in {took_ms:.1f} ms"
        )
        self._say.rule("And now?")

    def _compare(
        self, before: recommendation_pb2.Recommendation, after: recommendation_pb2.Recommendation
    ) -> None:
        old = [item.question_id for item in before.items]
        new = [item.question_id for item in after.items]
        stayed = [question for question in new if question in old]
        self._say.print(
            f"{len(new) - len(stayed)} of {len(new)} questions are new, {len(stayed)} stayed; "
            f"the slate reflects {after.reflected_answers_count} answers (before: {before.reflected_answers_count})."
        )

    def _why(self, slate: recommendation_pb2.Recommendation) -> None:
        found = self._recommendations.ExplainRecommendation(
            recommendation_pb2.ExplainRecommendationRequest(
                recommendation_id=slate.recommendation_id, level=explanation_pb2.EXPLANATION_LEVEL_DETAILED
            ),
            timeout=TIMEOUT_SECONDS,
        ).explanation
        self._say.rule(f"Why {found.question_id}?")
        for sentence in found.main_reasons:
            self._say.print(f"  - {sentence}")
        self._say.print(f"  {found.counterfactual}")

    def _time(self, learner_id: str) -> None:
        times = []
        for _ in range(TIMED_CALLS):
            started = time.perf_counter()
            self._slate(learner_id)
            times.append((time.perf_counter() - started) * 1e3)
        self._say.rule("How long did that take?")
        self._say.print(
            f"{TIMED_CALLS} recommendations over gRPC, one after the other: median {statistics.median(times):.2f} ms, "
            f"slowest {max(times):.2f} ms (client and server on this machine)"
        )


def _interest(stats: progress_pb2.LearnerStats) -> tuple[bool, int]:
    worth = stats.answers_count >= 60 and stats.streak.current_days >= 2 and stats.due_concepts_count >= 1
    return worth, min(stats.streak.current_days, 14) * 10 + min(stats.due_concepts_count, 8)

"""Read-your-writes through the real server: every Recommend reflects every answer acknowledged before it was sent.

Threads draw learners at random and either record an answer or ask for a slate, each call over a randomly chosen one
of several connections, so that answer and slate usually meet different workers. A slate must report at least as many
answers as were acknowledged before the call was sent and at most as many as had been sent when it returned; and it must
not hold a question whose correct answer was the learner's last acknowledged one.

    python -m bench.consistency [--quick] [--operations 10000] [--workers 2]
"""

import argparse
import random
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bench import small_world
from bench.live import LiveServer, channels
from bench.output import emit
from genie.v1 import (
    catalog_service_pb2_grpc,
    explanation_pb2,
    practice_service_pb2,
    practice_service_pb2_grpc,
    recommendation_service_pb2_grpc,
)
from genie.v1 import recommendation_service_pb2 as recommendation_pb2

CONNECTIONS = 6
TIMEOUT_SECONDS = 20.0


@dataclass
class LearnerLedger:
    """What the clients know of one learner, under `lock`."""

    learner_id: str
    lock: threading.Lock = field(default_factory=threading.Lock)
    sent: int = 0
    acknowledged: int = 0
    in_flight: int = 0
    last_right: str = ""


@dataclass
class Tally:
    """What was seen, under `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    left: int = 0
    answers: int = 0
    slates: int = 0
    violations: list[str] = field(default_factory=list)

    def take(self) -> bool:
        """Claim one operation; False when none is left."""
        with self.lock:
            self.left -= 1
            return self.left >= 0


def record(rng: random.Random, channel: grpc.Channel, ledger: LearnerLedger, tally: Tally) -> None:
    """Record one answer and note its acknowledgement."""
    answer = small_world.random_answer(rng, ledger.learner_id)
    with ledger.lock:
        ledger.sent += 1
        ledger.in_flight += 1
    stub = practice_service_pb2_grpc.PracticeServiceStub(channel)
    reply = stub.RecordAnswers(
        practice_service_pb2.RecordAnswersRequest(answers=[answer]),
        timeout=TIMEOUT_SECONDS,
        wait_for_ready=True,
    )
    with ledger.lock:
        ledger.in_flight -= 1
        ledger.acknowledged += 1
        # With another answer under way, nobody can say which of the two is the last.
        ledger.last_right = answer.question_id if answer.correct and not ledger.in_flight else ""
    with tally.lock:
        tally.answers += 1
        if reply.results[0].status != practice_service_pb2.ANSWER_STATUS_RECORDED:
            tally.violations.append(f"answer {answer.answer_id} was not recorded: {reply.results[0]}")


def recommend(channel: grpc.Channel, ledger: LearnerLedger, tally: Tally) -> None:
    """Ask for a slate and hold it against the ledger."""
    with ledger.lock:
        before = ledger.acknowledged
        last_right = "" if ledger.in_flight else ledger.last_right
        sent_before = ledger.sent
    stub = recommendation_service_pb2_grpc.RecommendationServiceStub(channel)
    request = recommendation_pb2.RecommendRequest(
        learner_id=ledger.learner_id, limit=10, explanation_level=explanation_pb2.EXPLANATION_LEVEL_NONE
    )
    slate = stub.Recommend(request, timeout=TIMEOUT_SECONDS, wait_for_ready=True).recommendation
    with ledger.lock:
        after = ledger.sent
    problems = []
    if not before <= slate.reflected_answers_count <= after:
        problems.append(f"slate reflects {slate.reflected_answers_count} answers, not {before} to {after}")
    shown = {item.question_id for item in slate.items}
    if last_right and after == sent_before and last_right in shown:
        problems.append(f"slate holds {last_right}, just answered correctly")
    if not slate.items:
        problems.append("slate is empty")
    with tally.lock:
        tally.slates += 1
        tally.violations.extend(f"{ledger.learner_id}: {problem}" for problem in problems)


def work(seed: int, opened: list[grpc.Channel], ledgers: list[LearnerLedger], tally: Tally) -> None:
    """One client thread."""
    rng = random.Random(seed)
    while tally.take():
        ledger, channel = rng.choice(ledgers), rng.choice(opened)
        try:
            if rng.random() < 0.5:
                record(rng, channel, ledger, tally)
            else:
                recommend(channel, ledger, tally)
        except grpc.RpcError as error:
            with tally.lock:
                tally.violations.append(f"call failed: {error.code()}: {error.details()}")


def run(server: LiveServer, *, operations: int, learners: int, threads: int, seed: int) -> Tally:
    """Drive a server that is SERVING; the tally of what was seen."""
    with channels(server.target, CONNECTIONS) as opened:
        catalog = catalog_service_pb2_grpc.CatalogServiceStub(opened[0])
        catalog.UpsertConcepts(small_world.upsert_concepts(), timeout=TIMEOUT_SECONDS)
        catalog.UpsertQuestions(small_world.upsert_questions(), timeout=TIMEOUT_SECONDS)
        ledgers = [LearnerLedger(f"learner-{number}") for number in range(learners)]
        tally = Tally(left=operations)
        crew = [
            threading.Thread(target=work, args=(seed + number, opened, ledgers, tally))
            for number in range(threads)
        ]
        for thread in crew:
            thread.start()
        for thread in crew:
            thread.join()
    return tally


def main() -> int:
    """Run and report; the exit status says whether the bar holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--operations", type=int, default=10_000)
    parser.add_argument("--learners", type=int, default=40)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="500 operations")
    options = parser.parse_args()
    operations = 500 if options.quick else options.operations
    with (
        tempfile.TemporaryDirectory(prefix="genie-consistency-") as directory,
        LiveServer(Path(directory), workers=options.workers) as server,
    ):
        tally = run(
            server,
            operations=operations,
            learners=options.learners,
            threads=options.threads,
            seed=options.seed,
        )
    for violation in tally.violations[:10]:
        emit("consistency", "violation", 1, what=violation)
    counts = {"answers": tally.answers, "slates": tally.slates, "workers": options.workers}
    return 0 if emit("consistency", "violations", len(tally.violations), bar="== 0", **counts) else 1


if __name__ == "__main__":
    raise SystemExit(main())

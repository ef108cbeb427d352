"""Rolling restarts under load: no call fails but those that the documented retry policy repeats by itself.

Clients record answers and ask for slates without pause while the supervisor is told (SIGHUP) to replace its workers,
one after the other, again and again. Every call that ends in an error after the retry policy did its work is a failure.
At the end every acknowledged answer must be there once.

    python -m bench.drain [--quick] [--restarts 20] [--workers 2]
"""

import argparse
import os
import random
import signal
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bench import small_world
from bench.live import LiveServer, channels
from bench.output import emit
from genie.v1 import (
    catalog_service_pb2_grpc,
    learner_service_pb2,
    learner_service_pb2_grpc,
    practice_service_pb2,
    practice_service_pb2_grpc,
    recommendation_service_pb2_grpc,
)
from genie.v1 import recommendation_service_pb2 as recommendation_pb2

CONNECTIONS = 4
TIMEOUT_SECONDS = 20.0
RESTART_SECONDS = 60.0


@dataclass
class Load:
    """What the clients did, under `lock`."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)
    acknowledged: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    failures: list[str] = field(default_factory=list)


def work(number: int, opened: list[grpc.Channel], load: Load) -> None:
    """One client thread with a learner of its own."""
    rng = random.Random(number)
    learner_id = f"restarts-{number}"
    while not load.stop.is_set():
        channel = rng.choice(opened)
        try:
            if rng.random() < 0.5:
                answer = small_world.random_answer(rng, learner_id)
                practice_service_pb2_grpc.PracticeServiceStub(channel).RecordAnswers(
                    practice_service_pb2.RecordAnswersRequest(answers=[answer]), timeout=TIMEOUT_SECONDS
                )
                with load.lock:
                    load.acknowledged[learner_id] += 1
            else:
                recommendation_service_pb2_grpc.RecommendationServiceStub(channel).Recommend(
                    recommendation_pb2.RecommendRequest(learner_id=learner_id), timeout=TIMEOUT_SECONDS
                )
        except grpc.RpcError as error:
            with load.lock:
                load.failures.append(f"{error.code()}: {error.details()}")
        with load.lock:
            load.calls += 1


def restart(server: LiveServer) -> None:
    """Replace every worker and return when none of the old ones is left. RuntimeError when that takes too long."""
    old = set(server.worker_pids())
    os.kill(server.supervisor_pid, signal.SIGHUP)
    limit = time.monotonic() + RESTART_SECONDS
    while time.monotonic() < limit:
        now = set(server.worker_pids())
        if len(now) == len(old) and not now & old:
            return
        time.sleep(0.05)
    raise RuntimeError(f"workers {sorted(old)} were not all replaced within {RESTART_SECONDS} s")


def run(server: LiveServer, *, restarts: int, threads: int) -> Load:
    """Load a server that is SERVING while its workers are replaced `restarts` times over."""
    load = Load()
    with channels(server.target, CONNECTIONS) as opened:
        catalog = catalog_service_pb2_grpc.CatalogServiceStub(opened[0])
        catalog.UpsertConcepts(small_world.upsert_concepts(), timeout=TIMEOUT_SECONDS)
        catalog.UpsertQuestions(small_world.upsert_questions(), timeout=TIMEOUT_SECONDS)
        crew = [threading.Thread(target=work, args=(number, opened, load)) for number in range(threads)]
        for thread in crew:
            thread.start()
        try:
            for _ in range(restarts):
                restart(server)
        finally:
            load.stop.set()
            for thread in crew:
                thread.join()
        learners = learner_service_pb2_grpc.LearnerServiceStub(opened[0])
        for learner_id, acknowledged in load.acknowledged.items():
            stats = learners.GetLearnerStats(
                learner_service_pb2.GetLearnerStatsRequest(learner_id=learner_id), timeout=TIMEOUT_SECONDS
            ).stats
            if stats.answers_count != acknowledged:
                load.failures.append(
                    f"{learner_id}: {acknowledged} acknowledged, {stats.answers_count} stored"
                )
    return load


def main() -> int:
    """Run and report; the exit status says whether the bar holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--restarts", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--quick", action="store_true", help="2 restarts")
    options = parser.parse_args()
    restarts = 2 if options.quick else options.restarts
    with (
        tempfile.TemporaryDirectory(prefix="genie-drain-") as directory,
        LiveServer(Path(directory), workers=options.workers) as server,
    ):
        load = run(server, restarts=restarts, threads=options.threads)
    for failure in load.failures[:10]:
        emit("drain", "failure", 1, what=failure)
    counts = {"restarts": restarts, "calls": load.calls, "answers": load.acknowledged.total()}
    return 0 if emit("drain", "failed_calls", len(load.failures), bar="== 0", **counts) else 1


if __name__ == "__main__":
    raise SystemExit(main())

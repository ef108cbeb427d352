"""Slates under kill -9: whoever got one finds it in every worker, at once and after any crash, and it was counted once.

Clients take recommendations without a request id through several workers, and look at each at once through another
connection: at its explanation, and at the learner's list. Single workers and the whole server are killed meanwhile.
Then the store is opened offline: the last slates of every learner that were replied must be there, in order, and their
count must lie between the replies and those plus the calls that failed.

    python -m bench.slates_kept [--quick] [--calls 20000] [--kills 12]
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bench.crash import fill
from bench.live import LiveServer, channels
from bench.output import emit
from genie.v1 import recommendation_service_pb2 as pb
from genie.v1 import recommendation_service_pb2_grpc
from store.api import Partition
from store.slates import find_slate, list_slates, settle
from store.stores import open_stores
from store.tallies import Tally, read_sums

TENANT = "default"
THREADS = 4
LEARNERS_A_THREAD = 10
LOOKED_FOR = 40
"""Newest slates of a learner; the store keeps 50, and failed calls may have made some."""
TIMEOUT_SECONDS = 20.0
PAUSE_SECONDS = 0.1
_LOST_CONNECTION = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


@dataclass
class Told:
    """What the clients were told."""

    wanted: int
    replies: int = 0
    failures: int = 0
    """Calls that may have made a slate without anybody being told."""
    slates: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """Ids by learner, in the order of the replies."""
    problems: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Client:
    """One thread with learners of its own."""

    def __init__(self, number: int, opened: Sequence[grpc.Channel], told: Told, rng: random.Random) -> None:
        self._stubs = [
            recommendation_service_pb2_grpc.RecommendationServiceStub(channel) for channel in opened
        ]
        self._learners = [f"learner-{number}-{place}" for place in range(LEARNERS_A_THREAD)]
        self._told = told
        self._rng = rng

    def run(self) -> None:
        """Until there were enough replies."""
        told = self._told
        while told.replies < told.wanted and not told.problems:
            learner_id = self._rng.choice(self._learners)
            request = pb.RecommendRequest(learner_id=learner_id, limit=3)
            try:
                slate = self._stub().Recommend(request, timeout=TIMEOUT_SECONDS).recommendation
            except grpc.RpcError as error:
                self._failed(error)
                continue
            with told.lock:
                if slate.degraded_reason == pb.DEGRADED_REASON_NOT_STORED:
                    told.problems.append("a slate could not be stored")
                told.replies += 1
                told.slates[learner_id].append(slate.recommendation_id)
            self._look(learner_id, slate.recommendation_id)

    def _look(self, learner_id: str, recommendation_id: str) -> None:
        explain = pb.ExplainRecommendationRequest(recommendation_id=recommendation_id, question_id="")
        active = pb.ListActiveRecommendationsRequest(learner_id=learner_id)
        while True:
            try:
                listed = self._stub().ListActiveRecommendations(active, timeout=TIMEOUT_SECONDS)
                break
            except grpc.RpcError as error:
                self._failed(error)
        newest = listed.recommendations[0].recommendation_id if listed.recommendations else "none"
        if newest != recommendation_id:
            self._told.problems.append(f"the list begins with {newest}, not with {recommendation_id}")
        try:
            self._stub().ExplainRecommendation(explain, timeout=TIMEOUT_SECONDS)
        except grpc.RpcError as error:
            if error.code() == grpc.StatusCode.NOT_FOUND:
                self._told.problems.append(f"{recommendation_id}: {error.details()}")

    def _failed(self, error: grpc.RpcError) -> None:
        with self._told.lock:
            self._told.failures += 1
            if error.code() not in _LOST_CONNECTION:
                self._told.problems.append(f"{error.code()}: {error.details()}")
        time.sleep(PAUSE_SECONDS)

    def _stub(self) -> recommendation_service_pb2_grpc.RecommendationServiceStub:
        return self._rng.choice(self._stubs)


def kill_sometimes(server: LiveServer, told: Told, kills: int, rng: random.Random) -> None:
    """Kill while the clients work: mostly one worker, every third time everything."""
    for number in range(kills):
        mark = told.wanted * (number + 1) // (kills + 1)
        while told.replies < mark and not told.problems:
            time.sleep(0.01)
        if number % 3 == 2:
            server.kill()
            server.start()
        elif pids := server.worker_pids():
            os.kill(rng.choice(pids), signal.SIGKILL)


def inspect(directory: Path, told: Told) -> tuple[int, int]:
    """(slates that are missing, how far their count is off), of a store that nobody else has open."""
    stores = open_stores(directory)
    missing = 0
    settle(stores.serving)
    for learner_id, ids in told.slates.items():
        held = [
            slate.recommendation_id for slate in list_slates(stores.serving, Partition(TENANT, learner_id))
        ]
        newest = ids[-LOOKED_FOR:]
        missing += sum(find_slate(stores.serving, TENANT, one) is None for one in newest)
        missing += int([one for one in held if one in newest] != newest[::-1])
    with stores.serving.read(Partition(TENANT)) as reader:
        counted = read_sums(reader)[Tally.RECOMMENDATIONS]
    stores.close()
    off = max(told.replies - counted, counted - told.replies - told.failures, 0)
    return missing, off


def main() -> int:
    """Run and report; the exit status says whether every bar holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="Few calls, one kill.")
    asked = parser.parse_args()
    if asked.quick:
        asked.calls, asked.kills = 300, 1
    rng, told = random.Random(1), Told(asked.calls)
    with tempfile.TemporaryDirectory(prefix="genie-slates-") as directory:
        server = LiveServer(Path(directory), workers=asked.workers)
        try:
            server.start()
            fill(server)
            with channels(server.target, 2 * THREADS, retries=False) as opened:
                crew = [
                    threading.Thread(target=Client(number, opened, told, random.Random(number)).run)
                    for number in range(THREADS)
                ]
                for thread in crew:
                    thread.start()
                kill_sometimes(server, told, asked.kills, rng)
                for thread in crew:
                    thread.join()
            server.kill()
            missing, off = inspect(server.data_directory, told)
        finally:
            if server.running:
                server.kill()
    for problem in told.problems[:20]:
        print(problem, file=sys.stderr)
    facts = {"slates": told.replies, "kills": asked.kills, "failed_calls": told.failures}
    holds = [
        emit("slates_kept", "problems", len(told.problems), bar="== 0", **facts),
        emit("slates_kept", "missing", missing, bar="== 0"),
        emit("slates_kept", "count_off_by", off, bar="== 0"),
    ]
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())

"""What metrics cost a recommendation: processor time of a server's calls with metrics, beside one that counts nothing.

Two servers of one worker over the same small world take turns. Time is the processor's, of the worker alone, so that
neither the client nor the neighbours of a busy machine come in. The small world makes it the harder: a recommendation
is cheaper there than in the standard workload, and the share of the metrics greater.

    python -m bench.metrics_cost [--quick] [--rounds 40] [--calls 250]
"""

import argparse
import math
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import grpc

from bench import small_world
from bench.crash import fill
from bench.live import LiveServer
from bench.output import emit
from genie.v1 import (
    practice_service_pb2,
    practice_service_pb2_grpc,
    recommendation_service_pb2,
    recommendation_service_pb2_grpc,
)
from server import assembly
from server.admission import Drain
from server.app import Assembly
from server.config import Settings
from server.metrics import CallCounters, Meter
from store import serving_store, slates

LEARNERS = 40
ANSWERS = 30
TIMEOUT_SECONDS = 60.0
MOST_SHARE = 0.03


class _Deaf(Meter):
    """A meter that counts nothing."""

    def counter(self, name: str, *labels: str) -> Any:
        return _NOTHING

    def gauge(self, name: str, *labels: str) -> Any:
        return _NOTHING

    def histogram(self, name: str, *labels: str) -> Any:
        return _NOTHING

    def sample(self, look: object) -> None:
        """Not looked at."""


class _Nothing:
    value = 0.0

    def add(self, amount: float = 1.0) -> None:
        """Not counted."""

    set = observe = add


_NOTHING: Any = _Nothing()


def without_metrics(settings: Settings, drain: Drain) -> Assembly:
    """What `genie serve` serves, with nothing counted: neither calls, nor commits, nor slates."""
    quiet: Any = lambda *_: None  # noqa: E731
    for place, name in ((CallCounters, "count"), (serving_store, "tally_slates"), (slates, "tally_slates")):
        setattr(place, name, quiet)
    vars(assembly)["meter_of"] = lambda _: _Deaf()
    return assembly.assemble(settings, drain)


class Pupil:
    """A server and its only worker's processor time."""

    def __init__(self, directory: Path, assemble: str, seed: int) -> None:
        self.server = LiveServer(directory, workers=1, arguments=("--assemble", assemble))
        self.server.start()
        fill(self.server)
        (self._pid,) = self.server.worker_pids()
        self._channel = grpc.insecure_channel(self.server.target)
        self._stub = recommendation_service_pb2_grpc.RecommendationServiceStub(self._channel)
        rng = random.Random(seed)
        practice = practice_service_pb2_grpc.PracticeServiceStub(self._channel)
        for number in range(LEARNERS):
            answers = [small_world.random_answer(rng, f"learner-{number}") for _ in range(ANSWERS)]
            request = practice_service_pb2.RecordAnswersRequest(answers=answers)
            practice.RecordAnswers(request, timeout=TIMEOUT_SECONDS)

    def seconds(self, calls: int) -> float:
        """Processor time that so many recommendations take the worker."""
        before = self._used()
        for number in range(calls):
            request = recommendation_service_pb2.RecommendRequest(
                learner_id=f"learner-{number % LEARNERS}", limit=10
            )
            self._stub.Recommend(request, timeout=TIMEOUT_SECONDS)
        return self._used() - before

    def close(self) -> None:
        """Stop the server."""
        self._channel.close()
        self.server.stop()

    def _used(self) -> float:
        """Seconds on a processor of all threads, from the scheduler's own account in nanoseconds."""
        tasks = Path(f"/proc/{self._pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) * 1e-9


def main() -> int:
    """Run and report; the exit status says whether the bar holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--calls", type=int, default=250, help="In each round, to each server.")
    parser.add_argument("--quick", action="store_true", help="A few rounds of few calls.")
    asked = parser.parse_args()
    if asked.quick:
        asked.rounds, asked.calls = 5, 40
    with tempfile.TemporaryDirectory(prefix="genie-metrics-") as directory:
        pupils = []
        try:
            pupils.append(Pupil(Path(directory) / "with", "server.assembly:assemble", seed=1))
            pupils.append(Pupil(Path(directory) / "without", "bench.metrics_cost:without_metrics", seed=1))
            for pupil in pupils:
                pupil.seconds(asked.calls)
            ratios, spent = [], []
            for number in range(asked.rounds):
                order = pupils if number % 2 else pupils[::-1]
                took = {pupil: pupil.seconds(asked.calls) for pupil in order}
                ratios.append(took[pupils[0]] / took[pupils[1]])
                spent.append(took[pupils[1]] / asked.calls)
        finally:
            for pupil in pupils:
                pupil.close()
    share = statistics.median(ratios) - 1.0
    # Order statistics around the median that hold it with 95 %, whatever the distribution.
    ordered = sorted(ratios)
    reach = math.ceil(0.98 * math.sqrt(len(ordered)))
    middle = len(ordered) // 2
    low, high = ordered[max(middle - reach, 0)] - 1.0, ordered[min(middle + reach, len(ordered) - 1)] - 1.0
    holds = emit(
        "metrics_cost",
        "share_of_recommend",
        round(share, 4),
        bar=f"<= {MOST_SHARE}",
        low=round(low, 4),
        high=round(high, 4),
        call_us_without=round(1e6 * statistics.median(spent), 1),
        rounds=asked.rounds,
        calls=asked.calls,
    )
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())

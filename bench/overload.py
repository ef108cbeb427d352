"""Five times the load that a worker can serve: what still gets done, how long it takes, and how soon all is well again.

Two kinds of it. "storm": callers without manners, who send again the moment they are refused, eight connections with a
hundred calls each. "rate": requests at random moments, five times as many a second as one worker can serve. A few
callers beside them, with a real stub, tell how long a call takes that is admitted, and what a refused one is told.

    python -m bench.overload [--quick | --brief]
"""

import argparse
import threading
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Self

import grpc
import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from bench import load, world
from bench.output import emit
from bench.pair import CONNECTIONS, Cores, Target, cores, kept_to, recommend_target, served
from bench.stand import RECOMMEND
from genie.v1 import recommendation_service_pb2 as pb
from genie.v1 import recommendation_service_pb2_grpc

BENCH = "overload"
TIMES_CAPACITY = 5.0
STREAMS = 100
PROBES = 8
PROBE_SECONDS = 0.04
"""From one call of a probe to its next."""
START_SHARE = 0.2
"""Of the time that the load is offered, this much is not counted: the load generator is starting."""
LONGEST_ADMITTED_MS = 200.0
"""Twice `max_queue_ms`: the wait that is allowed, and as much again for the call itself and the client."""


class Plan(NamedTuple):
    """How much of everything."""

    size: world.Size
    warm: int
    """Requests before anything is measured."""
    requests: int
    rounds: int
    seconds: float
    """Of overload, each round."""


FULL = Plan(world.W1, 30_000, 6_000, 3, 4.0)
BRIEF = Plan(world.Size(10_000, 10_000), 6_000, 2_000, 1, 4.0)
QUICK = Plan(world.QUICK, 200, 300, 1, 1.0)


class Round(NamedTuple):
    """What one overload was like."""

    wall: float
    """Seconds of it that count."""
    calls: int
    good: int
    recovered: float
    """Good replies a second right afterwards."""


class Probes:
    """Callers with a real stub, who call at their own pace while it is entered."""

    def __init__(self, port: int, size: world.Size) -> None:
        self._port = port
        self._size = size
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.admitted: list[float] = []
        """Seconds that each call took that ended OK."""
        self.refused: list[float] = []
        """Seconds that each took that was refused and told when to come back."""
        self.other: list[str] = []

    def __enter__(self) -> Self:
        self._stop.clear()
        self._threads = [threading.Thread(target=self._call, args=(seed,)) for seed in range(PROBES)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _call(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        with grpc.insecure_channel(f"127.0.0.1:{self._port}", options) as channel:
            stub = recommendation_service_pb2_grpc.RecommendationServiceStub(channel)
            while not self._stop.wait(PROBE_SECONDS):
                learner = world.learner_id(int(rng.integers(self._size.learners)))
                started = time.monotonic()
                try:
                    stub.Recommend(pb.RecommendRequest(learner_id=learner, limit=10), timeout=20.0)
                    self.admitted.append(time.monotonic() - started)
                except grpc.RpcError as raised:
                    error: Any = raised
                    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and has_retry_info(error):
                        self.refused.append(time.monotonic() - started)
                    else:
                        self.other.append(f"{error.code()}: {error.details()}")


def has_retry_info(error: grpc.Call) -> bool:
    """Whether an error says when to come back."""
    status = rpc_status.from_call(error)
    return status is not None and any(
        one.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for one in status.details
    )


def _flood(kind: str, target: Target, plan: Plan, peak: float) -> None:
    """Offer the load; returns when the last of its requests has been answered or dropped."""
    if kind == "storm":
        load.closed_for(
            target.url,
            target.body,
            connections=CONNECTIONS,
            streams=STREAMS,
            seconds=plan.seconds,
            core=target.core,
        )
    else:
        load.scheduled(
            target.url,
            target.body,
            rate=TIMES_CAPACITY * peak,
            seconds=plan.seconds,
            core=target.core,
            seed=3,
        )


def _served_rate(target: Target, requests: int) -> float:
    """Good replies a second in a closed loop and to the probes; refusals are replies, too, and count as none."""
    stand = target.stands[0]
    before = stand.figures()
    times = load.closed(target.url, target.body, connections=CONNECTIONS, requests=requests, core=target.core)
    after = stand.figures()
    _, good = _between(before, after)
    return times.rate * good / len(times.took)


def _between(before: dict[str, Any], after: dict[str, Any]) -> tuple[int, int]:
    """Calls that ended between two moments, and how many of them ended well; the probes' among them."""
    calls, good = (after[kind].get(RECOMMEND, 0) - before[kind].get(RECOMMEND, 0) for kind in ("calls", "ok"))
    return calls, good


def _overloaded(kind: str, target: Target, plan: Plan, peak: float) -> Round:
    """Overload the server for some time, then look how it fares."""
    stand = target.stands[0]
    flood = threading.Thread(target=_flood, args=(kind, target, plan, peak))
    flood.start()
    # Only while the load is offered: it takes a moment to start, and refusals that wait outlast it.
    time.sleep(START_SHARE * plan.seconds)
    before, started = stand.figures(), time.monotonic()
    time.sleep((1.0 - START_SHARE) * plan.seconds)
    after, wall = stand.figures(), time.monotonic() - started
    flood.join()
    return Round(wall, *_between(before, after), _served_rate(target, plan.requests // 2))


def report(kind: str, target: Target, plan: Plan) -> bool:
    """Overload the server one way, some times; whether the bars hold.

    The peak is looked for before and after each, and the mean of both counts: the machine's own drift meets all.
    """
    peaks = [target.closed(plan.requests).times]
    rounds: list[Round] = []
    probes = Probes(target.stands[0].port, plan.size)
    for _ in range(plan.rounds):
        with probes:
            rounds.append(_overloaded(kind, target, plan, peaks[-1].rate))
        peaks.append(target.closed(plan.requests).times)
    around = [(one.rate + other.rate) / 2 for one, other in pairwise(peaks)]
    p99 = round(load.joined(peaks).quantile_ms(0.99), 2)
    rates = [round(one.rate, 1) for one in peaks]
    emit(
        BENCH, "peak_calls_per_second", round(float(np.median(rates)), 1), kind=kind, rounds=rates, p99_ms=p99
    )
    facts = {
        "kind": kind,
        "calls_per_second": round(sum(one.calls for one in rounds) / sum(one.wall for one in rounds), 1),
        "refused": sum(one.calls - one.good for one in rounds),
        "probes_refused": len(probes.refused),
        "refusal_p50_ms": round(float(np.median(probes.refused)) * 1e3, 1) if probes.refused else None,
    }
    good = [one.good / one.wall / peak for one, peak in zip(rounds, around, strict=True)]
    held = _held("goodput_over_peak", good, **facts)
    if probes.admitted:
        held &= emit(
            BENCH,
            "admitted_p99_ms",
            round(float(np.quantile(probes.admitted, 0.99)) * 1e3, 1),
            bar=f"<= {LONGEST_ADMITTED_MS:g}",
            kind=kind,
            p50_ms=round(float(np.median(probes.admitted)) * 1e3, 1),
            calls=len(probes.admitted),
        )
    held &= emit(BENCH, "failed_otherwise", len(probes.other), bar="== 0", kind=kind, first=probes.other[:1])
    back = [one.recovered / peak for one, peak in zip(rounds, around, strict=True)]
    return held & _held("recovered_over_peak", back, kind=kind)


def _held(metric: str, ratios: Sequence[float], **facts: object) -> bool:
    """Report the median of the rounds; whether it is enough."""
    rounds = [round(ratio, 3) for ratio in ratios]
    return emit(BENCH, metric, round(float(np.median(ratios)), 3), bar=">= 0.8", rounds=rounds, **facts)


def run(data: Path, plan: Plan, at: Cores) -> bool:
    """Measure the peak, then overload."""
    with kept_to(at.load), served(data, plan.size, at.server) as stands:
        target = recommend_target(stands, plan.size, at.load)
        target.closed(plan.warm)
        held = True
        for kind in ("storm", "rate"):
            held &= report(kind, target, plan)
    return held


def main() -> int:
    """Run and report; the exit status says whether every bar holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it works")
    parser.add_argument("--brief", action="store_true", help="a smaller world")
    parser.add_argument(
        "--cache", type=Path, help="folder of built worlds; GENIE_BENCH_CACHE, or ~/.cache/genie"
    )
    options = parser.parse_args()
    load.h2load()
    plan = QUICK if options.quick else BRIEF if options.brief else FULL
    at = cores()
    with world.opened(plan.size, writable=True, cache=options.cache) as data:
        return 0 if run(data, plan, at) else 1


if __name__ == "__main__":
    raise SystemExit(main())

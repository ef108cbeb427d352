"""What a server costs beside its calls: its start, its memory, its reads, a second worker, larger worlds.

Parts of `bench.serve`, which says how its figures come about.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import load, world
from bench.live import LiveServer
from bench.output import emit
from bench.pair import CONNECTIONS, Cores, Run, recommend_target, served
from bench.stand import private_megabytes
from store.api import Partition
from store.catalogs import read_memory_sets
from store.learners import read_profile, read_state
from store.lmdb_store import LmdbStore
from store.stores import STATE

BENCH = "serve"
WORKER_ROUNDS = 5
GROWTH_RATE = 100.0
"""Calls a second when sizes are compared: far from saturation, so that latency is the work's."""


class Plan(NamedTuple):
    """How much of everything."""

    size: world.Size
    rounds: int
    warm: int
    """Requests before anything is measured, for the state in which a worker is after half a minute of this load."""
    floor_requests: int
    requests: int
    seconds: float
    """Of each run at a fixed rate."""
    batches: int
    learners: Sequence[int]
    questions: Sequence[int]


def quantiles(times: load.Times) -> dict[str, Any]:
    """Latency's quantiles in milliseconds."""
    return {f"p{share * 100:g}_ms": round(times.quantile_ms(share), 3) for share in (0.5, 0.9, 0.99, 0.999)}


def workers(data: Path, plan: Plan, at: Cores) -> bool:
    """Report two workers beside one, in turns.

    On two cores, two workers have to share them with the load. So they are charged with the CPU time that they used and
    with all time that their cores were idle, which at saturation is what they spent waiting for each other and for the
    disk; the load generator's CPU time is not charged. It goes before the workers, or else one of them would wait for
    the load while the other keeps it from the core. One worker alone on its core is charged in the same way.
    """
    speeds: dict[int, list[float]] = {1: [], 2: []}
    with ExitStack() as stack:
        targets = []
        for worker_cores in ((at.server,), (at.server, at.load)):
            stands = stack.enter_context(served(data, plan.size, *worker_cores))
            for stand in stands:
                stand.give_way()
            targets.append(recommend_target(stands, plan.size, at.load))
            # Each worker has pools of its own, to be filled by its own share of the requests.
            targets[-1].closed(plan.warm // 4 * len(stands))
        for target in targets * WORKER_ROUNDS:
            count = len(target.stands)
            run = target.closed_for(plan.seconds / 3, count * CONNECTIONS)
            calls, charged = len(run.times.took), run.cpu + run.idle
            speeds[count].append(count * calls / charged)
            facts: dict[str, Any] = {"calls": calls, "idle_share": round(run.idle / (count * run.wall), 3)}
            emit(
                BENCH,
                "calls_per_second_of_cores",
                round(speeds[count][-1], 1),
                workers=count,
                server_cpu_us_per_call=round(run.cpu_us, 1),
                **facts,
            )
    ratios = [two / one for one, two in zip(speeds[1], speeds[2], strict=True)]
    rounds = [round(ratio, 2) for ratio in ratios]
    ratio = round(float(np.median(ratios)), 2)
    return emit(BENCH, "two_workers_over_one", ratio, bar=">= 1.7", rounds=rounds)


def start(data: Path, plan: Plan) -> bool:
    """Report the time to SERVING of `genie serve` with kernels compiled before."""
    server = LiveServer(data.parent, workers=1)
    server.start()
    server.stop()
    started = time.monotonic()
    server.start()
    took = time.monotonic() - started
    server.stop()
    return emit(BENCH, "start_seconds", round(took, 2), bar="<= 5", questions=plan.size.questions)


def store_reads(data: Path, plan: Plan) -> bool:
    """Report how long it takes to read what is known of a learner, in a process of its own beside the server's."""
    store = LmdbStore(data / STATE)
    try:
        with store.read(Partition(world.TENANT)) as reader:
            sets = read_memory_sets(reader)
        took = []
        for number in world.zipf_learners(plan.size, 5_000, np.random.default_rng(6)).tolist():
            begun = time.perf_counter()
            with store.read(Partition(world.TENANT, world.learner_id(number))) as reader:
                read_profile(reader)
                read_state(reader, sets)
            took.append(time.perf_counter() - begun)
    finally:
        store.close()
    p50, p95 = (float(np.quantile(took, share)) * 1e6 for share in (0.5, 0.95))
    return emit(BENCH, "store_read_p95_ms", round(p95 / 1e3, 4), bar="<= 10", p50_us=round(p50, 1))


def growth(plan: Plan, what: str, at: Cores, bar: str, cache: Path | None) -> bool:
    """Report latency far from saturation by size, all sizes served at once and loaded in turns, and their memory.

    As everywhere, the workers are warm: most calls find their learner's pool. What a call costs that does not, at each
    size, is in the CPU time and the higher quantiles, and what share of the calls these are is reported.
    """
    sizes = [plan.size._replace(**{what: count}) for count in getattr(plan, what)]
    with ExitStack() as stack:
        targets, stands = [], []
        for size in sizes:
            data = stack.enter_context(world.opened(size, writable=False, cache=cache))
            stands.append(stack.enter_context(served(data, size, at.server))[0])
            targets.append(recommend_target(stands[-1:], size, at.load))
            targets[-1].closed(plan.warm // 4)
        runs: list[list[Run]] = [[] for _ in sizes]
        for turn in range(4):
            for target, own in zip(targets, runs, strict=True):
                own.append(target.scheduled(GROWTH_RATE, plan.seconds / 4, turn))
        medians = []
        for size, own, stand in zip(sizes, runs, stands, strict=True):
            times = load.joined([run.times for run in own])
            medians.append(times.quantile_ms(0.5))
            emit(
                BENCH,
                f"p50_ms_by_{what}",
                round(medians[-1], 3),
                learners=size.learners,
                questions=size.questions,
                server_cpu_us_per_call=round(float(np.median([run.cpu_us for run in own])), 1),
                pools_found=round(float(np.median([run.pools for run in own])), 3),
                private_megabytes=round(private_megabytes(stand.pid), 1),
                start_seconds=round(stand.start_seconds, 2),
                **quantiles(times),
            )
    ratio = round(medians[-1] / medians[0], 3)
    return emit(BENCH, f"p50_growth_{what}", ratio, bar=bar, sizes=[getattr(size, what) for size in sizes])

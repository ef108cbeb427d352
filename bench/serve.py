"""Recommend over gRPC beside the floor of any grpc-python server, on one core: throughput, latency, batches, growth.

The floor is an empty unary method on grpc-python's plain server, in a process of its own on the same core with as many
threads; it and the real server take turns, so that drift of the machine meets both. Load comes from h2load on another
core. Requests are for learners drawn with Zipf 1.1, see bench.stand.

    python -m bench.serve [--quick] [--only throughput latency batch workers start learners questions]
"""

import argparse
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import load, world
from bench.live import LiveServer
from bench.output import emit, missed
from bench.pair import (
    ANSWERS_A_CALL,
    ANSWERS_A_SECOND,
    BATCH,
    CONNECTIONS,
    Cores,
    Run,
    Target,
    Writers,
    batch_target,
    cores,
    floor_target,
    recommend_target,
    served,
)
from bench.stand import Stand, private_megabytes
from store.api import Partition
from store.catalogs import read_memory_sets
from store.learners import read_profile, read_state
from store.lmdb_store import LmdbStore
from store.stores import STATE

BENCH = "serve"
LOADS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Shares of its own saturation rate at which latency is looked at, for the curve."""
GROWTH_RATE = 100.0
"""Calls a second when sizes are compared: far from saturation, so that latency is the work's."""


class Plan(NamedTuple):
    """How much of everything."""

    size: world.Size
    rounds: int
    floor_requests: int
    requests: int
    seconds: float
    """Of each run at a fixed rate."""
    batches: int
    learners: Sequence[int]
    questions: Sequence[int]


FULL = Plan(world.W1, 5, 6_000, 4_000, 8.0, 40, (10_000, 100_000, 1_000_000), (5_000, 50_000, 1_000_000))
BRIEF = Plan(
    world.Size(10_000, 10_000), 3, 3_000, 2_000, 3.0, 20, (1_000, 10_000, 50_000), (1_000, 10_000, 50_000)
)
QUICK = Plan(world.QUICK, 1, 300, 200, 0.6, 3, (500,), ())


class Bench(NamedTuple):
    """What is loaded, and how much."""

    floor: Target
    recommend: Target
    batch: Target
    plan: Plan


def quantiles(times: load.Times) -> dict[str, Any]:
    """Latency's quantiles in milliseconds."""
    return {f"p{share * 100:g}_ms": round(times.quantile_ms(share), 3) for share in (0.5, 0.9, 0.99, 0.999)}


def throughput(bench: Bench) -> bool:
    """Report calls a second beside the floor's, in turns."""
    plan = bench.plan
    floors, slates = [], []
    for _ in range(plan.rounds):
        floors.append(bench.floor.closed(plan.floor_requests))
        slates.append(bench.recommend.closed(plan.requests))
    for name, runs in (("floor", floors), ("recommend", slates)):
        times = load.joined([run.times for run in runs])
        rate = round(float(np.median([run.times.rate for run in runs])), 1)
        cpu = round(float(np.median([run.cpu_us for run in runs])), 1)
        facts: dict[str, Any] = {"connections": CONNECTIONS, "calls": len(times.took), **quantiles(times)}
        emit(BENCH, f"{name}_calls_per_second", rate, server_cpu_us_per_call=cpu, **facts)
    ratios = [slate.times.rate / floor.times.rate for floor, slate in zip(floors, slates, strict=True)]
    rounds = [round(ratio, 3) for ratio in ratios]
    return emit(
        BENCH,
        "recommend_over_floor",
        round(float(np.median(ratios)), 3),
        bar=">= 0.5",
        aim=0.75,
        rounds=rounds,
    )


def latency(bench: Bench) -> bool:
    """Report latency at half the floor's saturation rate, with answers written beside."""
    rate = bench.floor.closed(bench.plan.floor_requests).times.rate / 2
    try:
        return _latency(bench, rate)
    except load.NotOk as error:
        why = f"at {rate:.0f} calls a second calls are refused: {error}"
        return missed(BENCH, "p99_over_floor", bar="<= 2.5", why=why)


def _latency(bench: Bench, rate: float) -> bool:
    plan = bench.plan
    port = bench.recommend.stands[0].port
    floors: list[Run] = []
    quiet: list[Run] = []
    busy: list[Run] = []
    writers = []
    for turn in range(2):
        floors.append(bench.floor.scheduled(rate, plan.seconds / 2, turn))
        quiet.append(bench.recommend.scheduled(rate, plan.seconds / 2, turn))
        with Writers(port, plan.size) as writing:
            busy.append(bench.recommend.scheduled(rate, plan.seconds / 2, turn))
        writers.append(writing)
    merged = {
        name: load.joined([run.times for run in runs])
        for name, runs in (("floor", floors), ("recommend_without_writers", quiet), ("recommend", busy))
    }
    for name, times in merged.items():
        mean = round(float(times.took.mean()) * 1e3, 3)
        emit(
            BENCH, f"{name}_latency_ms", mean, rate=round(rate, 1), calls=len(times.took), **quantiles(times)
        )
    took = load.Times(np.zeros(0), np.concatenate([one.took for one in writers]))
    written = sum(one.acknowledged for one in writers) / sum(run.wall for run in busy)
    emit(
        BENCH,
        "answers_written_per_second",
        round(written, 1),
        sent=ANSWERS_A_SECOND,
        answers_a_call=ANSWERS_A_CALL,
        **quantiles(took),
    )
    slate = merged["recommend"]
    ratio = slate.quantile_ms(0.99) / merged["floor"].quantile_ms(0.99)
    held = emit(BENCH, "p99_over_floor", round(ratio, 2), bar="<= 2.5", rate=round(rate, 1))
    held &= emit(BENCH, "recommend_p99_ms", round(slate.quantile_ms(0.99), 2), bar="<= 100")
    held &= emit(BENCH, "recommend_mean_ms", round(float(slate.took.mean()) * 1e3, 2), bar="<= 50")
    return held


def curve(bench: Bench) -> bool:
    """Report latency against load, of the floor and of Recommend: shares of each one's own saturation rate."""
    for name, target in (("floor", bench.floor), ("recommend", bench.recommend)):
        most = target.closed(bench.plan.requests).times.rate
        for share in LOADS:
            run = target.scheduled(most * share, bench.plan.seconds / 4, 9)
            facts: dict[str, Any] = {"of": name, "share": share, "rate": round(most * share, 1)}
            emit(BENCH, "curve_p50_ms", round(run.times.quantile_ms(0.5), 3), **facts, **quantiles(run.times))
    return True


def batch(bench: Bench) -> bool:
    """Report lists a second of BatchRecommend beside calls a second of Recommend."""
    plan = bench.plan
    ratios, rates, cpu = [], [], []
    for _ in range(max(2, plan.rounds // 2)):
        single = bench.recommend.closed(plan.requests // 2)
        many = bench.batch.closed(plan.batches, connections=2)
        rates.append(len(many.times.took) * BATCH / (many.times.took.sum() / 2))
        cpu.append(many.cpu_us / BATCH)
        ratios.append(rates[-1] / single.times.rate)
    emit(
        BENCH,
        "batch_lists_per_second",
        round(float(np.median(rates)), 1),
        learners_a_call=BATCH,
        server_cpu_us_per_list=round(float(np.median(cpu)), 1),
    )
    return emit(BENCH, "batch_over_unary", round(float(np.median(ratios)), 2), bar=">= 4")


def workers(data: Path, plan: Plan, at: Cores) -> bool:
    """Report two workers beside one.

    On two cores, two workers have to share them with the load. So they are charged with the CPU time that they used and
    with all time that their cores were idle, which at saturation is what they spent waiting for each other and for the
    disk; the load generator's CPU time is not charged. One worker alone on its core is charged in the same way.
    """
    speeds = []
    for worker_cores in ((at.server,), (at.server, at.load)):
        with served(data, plan.size, *worker_cores) as stands:
            target = recommend_target(stands, plan.size, at.load)
            target.closed(plan.requests)
            run = target.closed_for(plan.seconds / 2, len(stands) * CONNECTIONS)
            calls, charged = len(run.times.took), run.cpu + run.idle
            speeds.append(len(stands) * calls / charged)
            facts: dict[str, Any] = {
                "calls": calls,
                "idle_share": round(run.idle / (len(stands) * run.wall), 3),
            }
            emit(
                BENCH,
                "calls_per_second_of_cores",
                round(speeds[-1], 1),
                workers=len(stands),
                server_cpu_us_per_call=round(run.cpu_us, 1),
                **facts,
            )
    return emit(BENCH, "two_workers_over_one", round(speeds[1] / speeds[0], 2), bar=">= 1.7")


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


def memory(bench: Bench) -> bool:
    """Report a worker's memory after all the load before."""
    resident = private_megabytes(bench.recommend.stands[0].pid)
    return emit(
        BENCH, "private_megabytes", round(resident, 1), bar="<= 400", questions=bench.plan.size.questions
    )


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
    """Report latency far from saturation by size, all sizes served at once and loaded in turns, and their memory."""
    sizes = [plan.size._replace(**{what: count}) for count in getattr(plan, what)]
    with ExitStack() as stack:
        targets, stands = [], []
        for size in sizes:
            data = stack.enter_context(world.opened(size, writable=False, cache=cache))
            stands.append(stack.enter_context(served(data, size, at.server))[0])
            targets.append(recommend_target(stands[-1:], size, at.load))
        runs: list[list[Run]] = [[] for _ in sizes]
        for turn in range(4):
            for target, own in zip(targets, runs, strict=True):
                own.append(target.scheduled(GROWTH_RATE, plan.seconds / 4, turn))
        medians = []
        for size, own, stand in zip(sizes, runs, stands, strict=True):
            times = load.joined([run.times for run in own[1:]])
            medians.append(times.quantile_ms(0.5))
            emit(
                BENCH,
                f"p50_ms_by_{what}",
                round(medians[-1], 3),
                learners=size.learners,
                questions=size.questions,
                server_cpu_us_per_call=round(float(np.median([run.cpu_us for run in own[1:]])), 1),
                private_megabytes=round(private_megabytes(stand.pid), 1),
                start_seconds=round(stand.start_seconds, 2),
                **quantiles(times),
            )
    ratio = round(medians[-1] / medians[0], 3)
    return emit(BENCH, f"p50_growth_{what}", ratio, bar=bar, sizes=[getattr(size, what) for size in sizes])


def main() -> int:
    """Run and report; the exit status says whether every bar holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it works")
    parser.add_argument("--brief", action="store_true", help="a smaller world, in about a minute")
    parser.add_argument(
        "--only", nargs="+", choices=[*_TOGETHER, "workers", "start", "reads", "learners", "questions"]
    )
    parser.add_argument("--learners", type=int, nargs="+", help="sizes to compare")
    parser.add_argument("--questions", type=int, nargs="+", help="sizes to compare")
    parser.add_argument(
        "--cache", type=Path, help="folder of built worlds; GENIE_BENCH_CACHE, or ~/.cache/genie"
    )
    options = parser.parse_args()
    load.h2load()
    plan = QUICK if options.quick else BRIEF if options.brief else FULL
    plan = plan._replace(
        learners=options.learners or plan.learners, questions=options.questions or plan.questions
    )
    wanted = options.only or [*_TOGETHER, "workers", "start", "reads", "learners", "questions"]
    try:
        return 0 if _measured(plan, wanted, options.cache) else 1
    except load.NotOk as error:
        missed(BENCH, "calls_ok", bar="all of them", why=str(error))
        return 1


def _measured(plan: Plan, wanted: Sequence[str], cache: Path | None) -> bool:
    """Measure what is wanted; whether every bar holds. Raises NotOk."""
    at, held = cores(), True
    together = [part for name, part in _TOGETHER.items() if name in wanted]
    if together or {"workers", "start", "reads"} & set(wanted):
        with world.opened(plan.size, writable=True, cache=cache) as data:
            if "start" in wanted:
                held &= start(data, plan)
            if "reads" in wanted:
                held &= store_reads(data, plan)
            if together:
                held &= _beside_the_floor(data, plan, at, together)
            if "workers" in wanted:
                held &= workers(data, plan, at)
    if "learners" in wanted:
        held &= growth(plan, "learners", at, "<= 1.2", cache)
    if "questions" in wanted and plan.questions:
        held &= growth(plan, "questions", at, "<= 1.5", cache)
    return held


_TOGETHER: dict[str, Callable[[Bench], bool]] = {
    "throughput": throughput,
    "latency": latency,
    "curve": curve,
    "batch": batch,
    "memory": memory,
}
"""Parts that load one server beside the floor, in this order."""


def _beside_the_floor(data: Path, plan: Plan, at: Cores, parts: Sequence[Callable[[Bench], bool]]) -> bool:
    with Stand("floor", core=at.server) as floor, served(data, plan.size, at.server) as stands:
        bench = Bench(
            floor_target(floor.ready(), at.load),
            recommend_target(stands, plan.size, at.load),
            batch_target(stands, plan.size, at.load),
            plan,
        )
        bench.floor.closed(plan.floor_requests)
        bench.recommend.closed(plan.requests)
        held = [part(bench) for part in parts]
        return all(held)


if __name__ == "__main__":
    raise SystemExit(main())

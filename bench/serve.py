"""Recommend over gRPC beside the floor of any grpc-python server, on one core: throughput, latency, batches, growth.

The floor is an empty unary method on grpc-python's plain server, in a process of its own on the same core with as many
threads; it and the real server take turns, so that drift of the machine meets both. Load comes from h2load on another
core. Requests are for learners drawn with Zipf 1.1, see bench.stand.

    python -m bench.serve [--quick] [--only throughput latency batch cold workers start learners questions]
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench import load, world
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
    drawn_batches,
    floor_target,
    kept_to,
    recommend_target,
    served,
)
from bench.sizes import BENCH, Plan, growth, quantiles, start, store_reads, workers
from bench.stand import Stand, private_megabytes

LOADS = (0.1, 0.25, 0.5, 0.75, 0.9)
"""Shares of its own saturation rate at which latency is looked at, for the curve."""
FULL = Plan(
    world.W1, 9, 60_000, 5_000, 4_000, 8.0, 40, (10_000, 100_000, 1_000_000), (5_000, 50_000, 1_000_000)
)
BRIEF = Plan(
    world.Size(10_000, 10_000),
    3,
    6_000,
    3_000,
    2_000,
    3.0,
    20,
    (1_000, 10_000, 50_000),
    (1_000, 10_000, 50_000),
)
QUICK = Plan(world.QUICK, 1, 200, 300, 200, 0.6, 3, (500,), ())


class Bench(NamedTuple):
    """What is loaded, and how much."""

    floor: Target
    recommend: Target
    batch: Target
    plan: Plan


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
        if name == "recommend":
            facts["pools_found"] = round(float(np.median([run.pools for run in runs])), 3)
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


def without_pools(data: Path, plan: Plan, at: Cores) -> bool:
    """Report what every recommendation costs when no learner's pool is kept: as if each came after an answer."""
    with (
        Stand("floor", core=at.server) as stand,
        served(data, plan.size, at.server, settings={"pool_cache_megabytes": 0}) as stands,
    ):
        floor = floor_target(stand.ready(), at.load)
        target = recommend_target(stands, plan.size, at.load)
        many = batch_target(stands, plan.size, at.load)
        ratios, runs, lists = [], [], []
        for turn in range(3):
            empty, run = floor.closed(plan.floor_requests), target.closed(plan.requests // 2)
            batches = many.closed(plan.batches, connections=2)
            if turn:
                runs.append(run)
                ratios.append(run.times.rate / empty.times.rate)
                lists.append(len(batches.times.took) * BATCH / (batches.times.took.sum() / 2))
    times = load.joined([run.times for run in runs])
    rate = float(np.median([run.times.rate for run in runs]))
    emit(
        BENCH,
        "recommend_over_floor_without_pools",
        round(float(np.median(ratios)), 3),
        calls_per_second=round(rate, 1),
        server_cpu_us_per_call=round(float(np.median([run.cpu_us for run in runs])), 1),
        calls=len(times.took),
        **quantiles(times),
    )
    per_second = float(np.median(lists))
    return emit(
        BENCH,
        "batch_over_unary_without_pools",
        round(per_second / rate, 2),
        lists_per_second=round(per_second, 1),
    )


def latency(bench: Bench) -> bool:
    """Report latency at half the floor's saturation rate, with answers written beside.

    Where that is too much for the worker, the bar is missed, and a quarter of the rate is looked at instead.
    """
    rate = bench.floor.closed(bench.plan.floor_requests).times.rate
    for share, name, bar in ((2, "p99_over_floor", "<= 2.5"), (4, "p99_over_floor_at_a_quarter", "")):
        try:
            return _latency(bench, rate / share, name, bar) and share == 2
        except load.NotOk as error:
            missed(
                BENCH, name, bar=bar, why=f"at {rate / share:.0f} calls a second calls are refused: {error}"
            )
    return False


def _latency(bench: Bench, rate: float, name: str, bar: str) -> bool:
    """Report the ratio of the p99s under this name, and what it is of; whether the bars hold. Raises NotOk."""
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
    for what, times in merged.items():
        mean = round(float(times.took.mean()) * 1e3, 3)
        emit(
            BENCH, f"{what}_latency_ms", mean, rate=round(rate, 1), calls=len(times.took), **quantiles(times)
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
    held = emit(BENCH, name, round(ratio, 2), bar=bar, rate=round(rate, 1))
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
    """Report lists a second of BatchRecommend beside calls a second of Recommend for the same learners, one by one.

    A batch's learners are all different, and so fewer of them have a pool that was kept than of as many calls.
    """
    plan, size = bench.plan, bench.plan.size
    groups = drawn_batches(size)
    for stand in bench.recommend.stands:
        stand.ask("draw", learners=[name for group in groups for name in group], batches=groups)
    ratios, rates, cpu, found, alone = [], [], [], [], []
    bench.batch.closed(plan.batches, connections=2)
    for _ in range(max(2, plan.rounds // 3)):
        single = bench.recommend.closed(plan.requests // 2)
        many = bench.batch.closed(plan.batches, connections=2)
        rates.append(len(many.times.took) * BATCH / (many.times.took.sum() / 2))
        cpu.append(many.cpu_us / BATCH)
        found.append(many.pools)
        alone.append(single)
        ratios.append(rates[-1] / single.times.rate)
    emit(
        BENCH,
        "calls_per_second_for_learners_of_batches",
        round(float(np.median([run.times.rate for run in alone])), 1),
        server_cpu_us_per_call=round(float(np.median([run.cpu_us for run in alone])), 1),
        pools_found=round(float(np.median([run.pools for run in alone])), 3),
    )
    emit(
        BENCH,
        "batch_lists_per_second",
        round(float(np.median(rates)), 1),
        learners_a_call=BATCH,
        server_cpu_us_per_list=round(float(np.median(cpu)), 1),
        pools_found=round(float(np.median(found)), 3),
    )
    return emit(BENCH, "batch_over_unary", round(float(np.median(ratios)), 2), bar=">= 4")


def main() -> int:
    """Run and report; the exit status says whether every bar holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it works")
    parser.add_argument("--brief", action="store_true", help="a smaller world, in about a minute")
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*_TOGETHER, "cold", "workers", "start", "reads", "learners", "questions"],
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
    wanted = options.only or [*_TOGETHER, "cold", "workers", "start", "reads", "learners", "questions"]
    try:
        return 0 if _measured(plan, wanted, options.cache) else 1
    except load.NotOk as error:
        missed(BENCH, "calls_ok", bar="all of them", why=str(error))
        return 1


def _measured(plan: Plan, wanted: Sequence[str], cache: Path | None) -> bool:
    """Measure what is wanted; whether every bar holds. Raises NotOk."""
    at, held = cores(), True
    together = [part for name, part in _TOGETHER.items() if name in wanted]
    if together or {"cold", "workers", "start", "reads"} & set(wanted):
        with world.opened(plan.size, writable=True, cache=cache) as data:
            if "start" in wanted:
                held &= start(data, plan)
            if "reads" in wanted:
                held &= store_reads(data, plan)
            if together:
                held &= _beside_the_floor(data, plan, at, together)
            if "cold" in wanted:
                held &= without_pools(data, plan, at)
            if "workers" in wanted:
                held &= workers(data, plan, at)
    if "learners" in wanted:
        held &= growth(plan, "learners", at, "<= 1.2", cache)
    if "questions" in wanted and plan.questions:
        held &= growth(plan, "questions", at, "<= 1.5", cache)
    return held


def memory(bench: Bench) -> bool:
    """Report a worker's memory after all the load before."""
    resident = private_megabytes(bench.recommend.stands[0].pid)
    return emit(
        BENCH, "private_megabytes", round(resident, 1), bar="<= 400", questions=bench.plan.size.questions
    )


_TOGETHER: dict[str, Callable[[Bench], bool]] = {
    "throughput": throughput,
    "latency": latency,
    "curve": curve,
    "batch": batch,
    "memory": memory,
}
"""Parts that load one server beside the floor, in this order."""


def _beside_the_floor(data: Path, plan: Plan, at: Cores, parts: Sequence[Callable[[Bench], bool]]) -> bool:
    with (
        kept_to(at.load),
        Stand("floor", core=at.server) as floor,
        served(data, plan.size, at.server) as stands,
    ):
        bench = Bench(
            floor_target(floor.ready(), at.load),
            recommend_target(stands, plan.size, at.load),
            batch_target(stands, plan.size, at.load),
            plan,
        )
        bench.floor.closed(plan.floor_requests)
        # Slates for the learners who come often: what is measured is a server that has been up for a while.
        bench.recommend.closed(plan.warm)
        held = [part(bench) for part in parts]
        return all(held)


if __name__ == "__main__":
    raise SystemExit(main())

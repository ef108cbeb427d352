"""Where each microsecond of a recommendation goes, from bytes in to bytes out, and what the floor itself costs.

Three views, all in CPU time of the server's core. "floor" and "hollow": an empty call through grpc-python's plain
server, and through this server's own threads and wrapper, in turns. "stages": the handler called in this process with a
context that does nothing, stage by stage, each the mean over drawn learners. "functions": what Python's profiler finds
in the handler, own time, which is inflated by the profiler where calls are many and short; use it for shares. Settings:
what a call costs with other numbers of threads and other switch intervals.

    python -m bench.profile [--quick | --brief] [--settings]
"""

import argparse
import cProfile
import os
import pstats
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import load, world
from bench.output import emit
from bench.pair import Cores, Run, cores, drawn, floor_target, recommend_target, served
from bench.stand import RECOMMEND, Stand
from genie.v1 import recommendation_service_pb2 as pb
from server.app import Genie
from server.assembly import assemble
from server.config import Settings
from server.logs import configure
from server.rpc import bind
from store.api import Partition
from store.learners import read_state

BENCH = "profile"
SIZES = {"full": (world.W1, 3_000), "brief": (world.Size(10_000, 10_000), 1_000), "quick": (world.QUICK, 100)}
TOP = 25
TURNS = 3


class NoContext:
    """What a handler asks of gRPC, answered at once."""

    def time_remaining(self) -> float:
        """No deadline."""
        return 1e9

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """What h2load sends."""
        return (("user-agent", "h2load nghttp2/1.52.0"),)

    def set_trailing_metadata(self, _: object) -> None:
        """Nothing."""

    def is_active(self) -> bool:
        """Always."""
        return True

    def abort(self, code: object, message: str) -> None:
        """A profile of failures is worth nothing."""
        raise RuntimeError(f"{code}: {message}")


def cpu_us(work: Callable[[Any], object], items: Sequence[Any]) -> float:
    """CPU microseconds for one item, the best of three passes."""
    passes = []
    for _ in range(3):
        started = time.process_time()
        for item in items:
            work(item)
        passes.append((time.process_time() - started) / len(items) * 1e6)
    return min(passes)


def report_handler(data: Path, size: world.Size, calls: int) -> None:
    """Report the handler's stages and functions, on this thread alone."""
    configure(level="info", style="json", worker=1, stream=(data / "profile.log").open("w"))
    genie = Genie(Settings(data_directory=data, port=0, experiments="off"), assemble)
    for_recommend: Any = next(
        one for one in genie._assembly.services if one[0].name == "RecommendationService"
    )
    descriptor, service = for_recommend
    handler: Any = bind(descriptor, service, replace(genie.runtime, brief=frozenset()))[RECOMMEND].handler
    learners = drawn(size, calls, seed=1)
    bodies = [pb.RecommendRequest(learner_id=name, limit=10).SerializeToString() for name in learners]
    context, call = NoContext(), handler.unary_unary
    replies = [call(body, context) for body in bodies]
    messages = [pb.RecommendResponse.FromString(reply) for reply in replies]
    store, bundle = service._store, service._tenants.bundle(world.TENANT)

    def read(name: str) -> object:
        with store.read(Partition(world.TENANT, name)) as reader:
            return read_state(reader, bundle.learner_model.memory_sets)

    stages: dict[str, tuple[Callable[[Any], object], Sequence[Any]]] = {
        "handler": (lambda body: call(body, context), bodies),
        "decode_request": (pb.RecommendRequest.FromString, bodies),
        "tenant_bundle": (lambda _: service._tenants.bundle(world.TENANT), bodies),
        "read_state": (read, learners),
        "encode_reply_generated": (lambda message: message.SerializeToString(), messages),
    }
    for name, (work, items) in stages.items():
        emit(BENCH, f"{name}_us", round(cpu_us(work, items), 1), calls=calls)
    emit(BENCH, "reply_bytes", round(float(np.mean([len(reply) for reply in replies])), 1))
    profile = cProfile.Profile(time.thread_time)
    profile.enable()
    for body in bodies:
        call(body, context)
    profile.disable()
    report_functions(profile, calls)


def report_functions(profile: cProfile.Profile, calls: int) -> None:
    """Report the functions with most time of their own."""
    found: Any = pstats.Stats(profile)
    whole = sum(times[2] for times in found.stats.values())
    ranked = sorted(found.stats.items(), key=lambda entry: -entry[1][2])[:TOP]
    for (file, line, name), (_, count, own, whole_time, _) in ranked:
        emit(
            BENCH,
            "function_share",
            round(own / whole, 4),
            function=f"{Path(file).name}:{line} {name}" if line else name,
            own_us=round(own / calls * 1e6, 1),
            with_callees_us=round(whole_time / calls * 1e6, 1),
            times_a_call=round(count / calls, 2),
        )


def report_floor(
    data: Path, size: world.Size, calls: int, at: Cores, variants: Sequence[dict[str, object]]
) -> None:
    """Report CPU and rate over gRPC: the floor's, the hollow server's, and Recommend's by settings."""
    log = data / "hollow.log"
    with Stand("floor", core=at.server) as floor, Stand("hollow", core=at.server, log=log) as hollow:
        targets = {
            "floor": floor_target(floor.ready(), at.load),
            "hollow": recommend_target([hollow.ready()], size, at.load),
        }
        for target in targets.values():
            target.closed(calls)
        runs: dict[str, list[Run]] = {name: [] for name in targets}
        for _ in range(TURNS):
            for name, target in targets.items():
                runs[name].append(target.closed(calls))
        for name, own in runs.items():
            best = min(own, key=lambda run: run.cpu_us)
            emit(BENCH, f"{name}_cpu_us", round(best.cpu_us, 1), rate=round(best.times.rate, 1))
    for variant in variants:
        with served(data, size, at.server, settings=variant) as stands:
            whole = recommend_target(stands, size, at.load)
            whole.closed(calls)
            run = whole.closed(calls)
            emit(
                BENCH,
                "recommend_cpu_us",
                round(run.cpu_us, 1),
                settings=variant,
                rate=round(run.times.rate, 1),
                p50_ms=round(run.times.quantile_ms(0.5), 2),
                p99_ms=round(run.times.quantile_ms(0.99), 2),
                pools_found=round(run.pools, 3),
            )


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it works")
    parser.add_argument("--brief", action="store_true", help="a smaller world")
    parser.add_argument("--settings", action="store_true", help="over gRPC with other numbers of threads too")
    parser.add_argument(
        "--cache", type=Path, help="folder of built worlds; GENIE_BENCH_CACHE, or ~/.cache/genie"
    )
    options = parser.parse_args()
    load.h2load()
    size, calls = SIZES["quick" if options.quick else "brief" if options.brief else "full"]
    at = cores()
    variants: list[dict[str, object]] = [{}]
    if options.settings:
        variants += [
            {"threads": 1},
            {"threads": 2},
            {"threads": 16},
            {"access_log_ratio": 0.0},
            {"pool_cache_megabytes": 0.0},
        ]
    with world.opened(size, writable=True, cache=options.cache) as data:
        report_floor(data, size, calls, at, variants)
        os.sched_setaffinity(0, {at.server})
        report_handler(data, size, calls)
        os.sched_setaffinity(0, set(at))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

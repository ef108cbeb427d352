"""Durable, acknowledged answers a second through the batch call, beside what the disk commits without groups.

The requests are built before the clock starts; then a few callers send them to one worker pinned to a core. "Commits"
are those of the store itself, one small entry each, one after the other, on the same disk in the same run, half of
them before and half after the answers. Learners practise near where they are, so that the world stays the size that
it has; its copy is on the disk before the clock starts. `--parts` tells instead what an answer costs where.

    python -m bench.ingest [--quick | --brief] [--parts]
"""

import argparse
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np

from bench import world
from bench.ingest_parts import BENCH, CALLERS, METHOD, report_parts
from bench.output import emit
from bench.pair import Cores, cores, kept_to, served
from bench.practice import Practice
from genie.v1 import practice_service_pb2
from store.api import Partition, Table, Transaction
from store.lmdb_store import LmdbStore

PAGE = b"\x5a" * 4096


class Plan(NamedTuple):
    """How much of everything."""

    size: world.Size
    calls: int
    """Of each caller, in each round."""
    answers_a_call: int
    commits: int
    """In each round."""
    rounds: int
    parts: dict[int, int]
    """How many calls are taken apart, by the answers of a call."""


FULL = Plan(world.W1, 8, 1_000, 500, 5, {1_000: 40, 10: 200, 1: 400})
BRIEF = Plan(world.Size(10_000, 10_000), 4, 1_000, 200, 2, {1_000: 20, 10: 100, 1: 200})
QUICK = Plan(world.QUICK, 1, 200, 20, 1, {50: 4, 1: 4})


def commits_per_second(folder: Path, count: int) -> float:
    """Commits of the store on this disk, one entry each, nobody else writing."""

    def put(tx: Transaction) -> None:
        tx.put(Table.META, b"", os.urandom(64))

    with tempfile.TemporaryDirectory(dir=folder) as name:
        store = LmdbStore(Path(name) / "commits")
        try:
            store.update(Partition("t"), put)
            started = time.perf_counter()
            for _ in range(count):
                store.update(Partition("t"), put)
            return count / (time.perf_counter() - started)
        finally:
            store.close()


def syncs_per_second(folder: Path, count: int) -> float:
    """Pages written and synced to a file on this disk."""
    with tempfile.TemporaryFile(dir=folder) as file:
        started = time.perf_counter()
        for _ in range(count):
            os.pwrite(file.fileno(), PAGE, 0)
            os.fdatasync(file.fileno())
        return count / (time.perf_counter() - started)


def answers_per_second(port: int, plan: Plan, said: Practice, rng: np.random.Generator) -> float:
    """Acknowledged answers a second of all callers together. RuntimeError when one was not recorded."""
    bodies = [
        [
            said.request(plan.answers_a_call, rng, caller=caller, callers=CALLERS).SerializeToString()
            for _ in range(plan.calls)
        ]
        for caller in range(CALLERS)
    ]
    recorded = [0] * CALLERS
    ready = threading.Barrier(CALLERS + 1)

    def call(number: int) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", 1 << 26)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            grpc.channel_ready_future(channel).result(20.0)
            send: Any = channel.unary_unary(METHOD)
            ready.wait()
            for body in bodies[number]:
                reply = practice_service_pb2.RecordAnswersResponse.FromString(send(body, timeout=60.0))
                recorded[number] += reply.recorded_count

    crew = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
    for thread in crew:
        thread.start()
    ready.wait()
    started = time.perf_counter()
    for thread in crew:
        thread.join()
    took = time.perf_counter() - started
    wanted = CALLERS * plan.calls * plan.answers_a_call
    if sum(recorded) != wanted:
        raise RuntimeError(f"{sum(recorded)} of {wanted} answers were recorded")
    return wanted / took


def run(data: Path, plan: Plan, at: Cores) -> bool:
    """Measure in turns, report, and say whether the bar holds."""
    rng = np.random.default_rng(8)
    ratios, rates, commits, syncs, cpu = [], [], [], [], []
    said = Practice.of(data, plan.size)
    os.sync()
    with kept_to(at.load), served(data, plan.size, at.server) as stands:
        answers_per_second(stands[0].port, plan._replace(calls=1), said, rng)
        for _ in range(plan.rounds):
            first = commits_per_second(data, plan.commits // 2)
            syncs.append(syncs_per_second(data, plan.commits))
            before = stands[0].figures()["cpu"]
            rates.append(answers_per_second(stands[0].port, plan, said, rng))
            used = stands[0].figures()["cpu"] - before
            cpu.append(used / (CALLERS * plan.calls * plan.answers_a_call))
            # The time that a commit took, on average of both halves.
            commits.append(2.0 / (1.0 / first + 1.0 / commits_per_second(data, plan.commits // 2)))
            ratios.append(rates[-1] / commits[-1])
    emit(BENCH, "commits_per_second", round(float(np.median(commits)), 1))
    emit(BENCH, "page_syncs_per_second", round(float(np.median(syncs)), 1))
    emit(
        BENCH,
        "answers_per_second",
        round(float(np.median(rates)), 1),
        answers_a_call=plan.answers_a_call,
        callers=CALLERS,
        server_cpu_us_per_answer=round(float(np.median(cpu)) * 1e6, 1),
    )
    rounds = [round(ratio, 2) for ratio in ratios]
    return emit(BENCH, "answers_over_commits", round(float(np.median(ratios)), 2), bar=">= 20", rounds=rounds)


def main() -> int:
    """Run and report; the exit status says whether the bar holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it works")
    parser.add_argument("--brief", action="store_true", help="a smaller world")
    parser.add_argument(
        "--cache", type=Path, help="folder of built worlds; GENIE_BENCH_CACHE, or ~/.cache/genie"
    )
    parser.add_argument("--parts", action="store_true", help="what an answer costs where, in one process")
    options = parser.parse_args()
    plan = QUICK if options.quick else BRIEF if options.brief else FULL
    if options.parts or options.quick:
        with world.opened(plan.size, writable=True, cache=options.cache) as data:
            report_parts(data, plan.size, plan.parts)
    if options.parts:
        return 0
    at = cores()
    with world.opened(plan.size, writable=True, cache=options.cache) as data:
        return 0 if run(data, plan, at) else 1


if __name__ == "__main__":
    raise SystemExit(main())

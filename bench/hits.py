"""What a recommendation costs whose pool is kept, and one whose pool is not, inside one process. Judges nothing.

CPU microseconds of the calling thread, from the request's message to the reply's bytes, without gRPC and the wrapper
around every method: the median over calls, for batches by list. "again": one learner over and over, so
that all it reads is near the processor. "turns": learners in no order, asked before. "new": the same without a cache of
pools. Slates are moved to their tables between the measurements, as another thread of a server does meanwhile.

    python -m bench.hits [--quick | --brief]
"""

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import world
from bench.output import emit
from bench.profile import NoContext
from genie.v1 import explanation_pb2
from genie.v1 import recommendation_service_pb2 as pb
from server.admission import Drain
from server.app import Genie
from server.assembly import assemble
from server.config import Settings
from server.footprint import settle as settle_memory
from server.logs import configure
from server.pools import PoolCache
from server.rpc import Call
from store.slates import settle

BENCH = "hits"
SIZES = {"full": (world.W1, 1_024), "brief": (world.Size(10_000, 10_000), 1_024), "quick": (world.QUICK, 64)}
BATCH = 64
ROUNDS = 3
"""Times that all learners are asked for before anything is measured, and turns of measuring."""
LIMIT = 10


class Asker:
    """Calls of the service's methods as they come out of the wrapper."""

    def __init__(self, service: Any) -> None:
        """Ask this RecommendationService."""
        self.service = service
        self._drain = Drain()

    def one(self, name: str) -> bytes:
        """The reply for one learner."""
        request = pb.RecommendRequest(learner_id=name, limit=LIMIT)
        reply: bytes = self.service.recommend(request, self._call()).SerializeToString()
        return reply

    def many(self, names: Sequence[str]) -> bytes:
        """The reply for some learners."""
        request = pb.BatchRecommendRequest(
            learner_ids=names, limit=LIMIT, explanation_level=explanation_pb2.EXPLANATION_LEVEL_SIMPLE
        )
        reply: bytes = self.service.batch_recommend(request, self._call()).SerializeToString()
        return reply

    def _call(self) -> Call:
        context: Any = NoContext()
        return Call("/genie.v1.RecommendationService/Recommend", world.TENANT, "0" * 16, context, self._drain)


def report(
    name: str, asker: Asker, work: Callable[[Any], bytes], items: Sequence[Any], lists: int = 1
) -> None:
    """Report the median time of `work`, a list, with the share of lists whose pool was found."""
    maker = asker.service._maker
    settle(maker.serving)
    found, sought = maker.pools.hits, maker.pools.hits + maker.pools.misses
    taken = []
    for item in items:
        started = time.thread_time_ns()
        work(item)
        taken.append(time.thread_time_ns() - started)
    found, sought = maker.pools.hits - found, maker.pools.hits + maker.pools.misses - sought
    median = float(np.median(taken)) / 1e3 / lists
    emit(BENCH, f"{name}_us", round(median, 1), pools_found=round(found / max(sought, 1), 3))


def measure(data: Path, size: world.Size, count: int) -> None:
    """Report a call's and a list's cost."""
    configure(level="info", style="json", worker=1, stream=(data / "hits.log").open("w"))
    genie = Genie(Settings(data_directory=data, port=0, experiments="off"), assemble)
    service: Any = next(one[1] for one in genie._assembly.services if one[0].name == "RecommendationService")
    numbers = np.random.default_rng(1).permutation(size.learners)[:count].tolist()
    names = [world.learner_id(number) for number in numbers]
    groups = [names[start : start + BATCH] for start in range(0, count, BATCH)]
    asker = Asker(service)
    for _ in range(ROUNDS):
        for name in names:
            asker.one(name)
    settle_memory()
    keeping = service._maker
    for _ in range(ROUNDS):
        service._maker = keeping
        report("again", asker, asker.one, names[:1] * count)
        report("turns", asker, asker.one, names)
        report("list_turns", asker, asker.many, groups, BATCH)
        service._maker = replace(keeping, pools=PoolCache())
        report("new", asker, asker.one, names)
        report("list_new", asker, asker.many, groups, BATCH)


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it works")
    parser.add_argument("--brief", action="store_true", help="a smaller world")
    parser.add_argument(
        "--cache", type=Path, help="folder of built worlds; GENIE_BENCH_CACHE, or ~/.cache/genie"
    )
    options = parser.parse_args()
    size, count = SIZES["quick" if options.quick else "brief" if options.brief else "full"]
    with world.opened(size, writable=True, cache=options.cache) as data:
        measure(data, size, count)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

"""How often a call finds its learner's pool in the cache of the server, by how learners come. Makes no pool.

Traces are replayed through the real cache, with pools of 7 to 11 kB that hold nothing, and through one in which the
pool asked for longest ago makes room. The second half of a trace counts. "zipf": learners drawn with Zipf 1.1, as
everywhere in the benches; "answers": the same, and three of ten come back after an answer, so that their pool is old;
"drift": a tenth of the learners change places with each other twenty times; "sessions": 400 learners at a time, each
asks eight times on average, three of ten times after an answer, and is followed by another; "walk": beside the first
kind, a job walks over all learners in turn, with three of ten calls.

    python -m bench.kept_pools [--quick] [--requests 400000]
"""

import argparse
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.output import emit
from engine.types import I8, U1
from server.moments import Moment
from server.pools import PoolCache

BENCH = "kept_pools"
LEARNERS = 100_000
SIZES_MB = (16.0, 32.0, 64.0, 96.0)
REQUESTS = 400_000
QUICK_REQUESTS = 4_000
ALWAYS = Moment(0.0, np.inf)
AFTER_ANSWER = 0.3
AT_A_TIME = 400
ASKS = 8
KINDS = ("zipf", "answers", "drift", "sessions", "walk")


@dataclass(slots=True)
class Hollow:
    """What the cache asks of a pool."""

    nbytes: int

    def apart(self) -> "Hollow":
        """Itself."""
        return self


class Oldest:
    """Pools up to a number of bytes; the one that was asked for longest ago makes room."""

    def __init__(self, megabytes: float) -> None:
        self._left = int(megabytes * (1 << 20))
        self._known: OrderedDict[Hashable, tuple[object, Hollow]] = OrderedDict()

    def find(self, name: Hashable, made: object, _: float) -> Hollow | None:
        """As `PoolCache.find`."""
        entry = self._known.get(name)
        if entry is None or entry[0] != made:
            return None
        self._known.move_to_end(name)
        return entry[1]

    def keep(self, name: Hashable, made: object, _: object, pool: Hollow) -> None:
        """As `PoolCache.keep`."""
        before = self._known.pop(name, None)
        self._left += 0 if before is None else before[1].nbytes
        self._known[name] = made, pool
        self._left -= pool.nbytes
        while self._left < 0:
            self._left += self._known.popitem(last=False)[1][1].nbytes


def zipf(rng: np.random.Generator, count: int, power: float = 1.1) -> I8:
    """Learners (count,) by rank, the most frequent 0."""
    weights = np.cumsum(1.0 / np.arange(1, LEARNERS + 1) ** power)
    ranks: I8 = np.searchsorted(weights, rng.random(count) * weights[-1])
    return ranks


def trace(kind: str, count: int, rng: np.random.Generator) -> tuple[I8, U1]:
    """Who asks (count,), and whether an answer came since they asked last (count,)."""
    learners, answered = zipf(rng, count), np.zeros(count, np.uint8)
    if kind in ("answers", "sessions"):
        answered = (rng.random(count) < AFTER_ANSWER).astype(np.uint8)
    if kind == "drift":
        place = rng.permutation(LEARNERS)
        for part in np.array_split(np.arange(count), 20):
            learners[part] = place[learners[part]]
            moved = rng.choice(LEARNERS, LEARNERS // 10, replace=False)
            place[moved] = place[rng.permutation(moved)]
    elif kind == "walk":
        walks = rng.random(count) < AFTER_ANSWER
        learners[walks] = np.arange(count)[walks] % LEARNERS
    elif kind == "sessions":
        newcomers = iter(zipf(rng, count + AT_A_TIME, 0.8).tolist())
        present = [next(newcomers) for _ in range(AT_A_TIME)]
        leaves = rng.random(count) < 1.0 / ASKS
        for turn, seat in enumerate(rng.integers(0, AT_A_TIME, count).tolist()):
            learners[turn] = present[seat]
            if leaves[turn]:
                present[seat] = next(newcomers)
    return learners, answered


def replay(cache: Any, learners: I8, answered: U1) -> float:
    """The share of the second half that found its pool."""
    sizes = np.random.default_rng(1).integers(7_000, 11_000, LEARNERS).tolist()
    version = [0] * LEARNERS
    found, half = 0, len(learners) // 2
    for place, (learner, changed) in enumerate(zip(learners.tolist(), answered.tolist(), strict=True)):
        version[learner] += changed
        name = ("tenant", f"learner-{learner}", "hybrid_v1", (10, -1, False, 0.0, -1, ()))
        made = (1, 2, version[learner], 3, 4)
        if cache.find(name, made, 0.0) is None:
            cache.keep(name, made, ALWAYS, Hollow(sizes[learner]))
        elif place >= half:
            found += 1
    return found / (len(learners) - half)


def main() -> int:
    """Replay every kind of trace with every size of cache."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("--quick", action="store_true", help="a hundredth of the requests, in one cache")
    options = parser.parse_args()
    count = QUICK_REQUESTS if options.quick else options.requests
    for kind in KINDS:
        learners, answered = trace(kind, count, np.random.default_rng(1))
        for megabytes in SIZES_MB[:1] if options.quick else SIZES_MB:
            cache = PoolCache(megabytes)
            share = replay(cache, learners, answered)
            least = replay(Oldest(megabytes), learners, answered)
            emit(
                BENCH,
                "pools_found",
                round(share, 3),
                trace=kind,
                megabytes=megabytes,
                pools=cache.held,
                oldest_goes=round(least, 3),
            )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

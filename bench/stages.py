"""What each stage of the pass costs for learners who come in no order, on a trained world. Judges nothing.

Every learner is another one, so that what a stage reads of learners, questions and look-up tables is as cold as while
serving. A stage's figure is the median over learners of this thread's processor time, less what an empty kernel with
the same arguments takes; "pass" is all of it at once, the slate's Python object included.

    python -m bench.stages [--quick | --brief] [--learners 2000]
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import world
from bench.output import emit
from engine.candidates import MAX_CANDIDATES, Candidates, gather
from engine.catalog import build_catalog
from engine.collaborative import WIDTH
from engine.draw import LOT, draw
from engine.guide import follow
from engine.jit import lean_kernel
from engine.learner import LearnerState
from engine.learner.many import score_candidates
from engine.learner.score import read_only
from engine.learner.view import VIEW_COUNTS, VIEW_FLOATS, Standing, stand
from engine.likes import fill_likes
from engine.pipeline import Desk, _meet, describe, lay_out
from engine.policy import BUILT_IN, SOURCES, TERMS
from engine.recommend import RecommendQuery, _asked, recommend, recommend_many
from engine.scoring import SAME, lean, score
from engine.serving import Likes, Serving, prepare
from engine.slate import ITEM
from engine.survey import HISTORY, NOW, SURVEY_WIDTH, survey
from server.model_parts import load_models
from server.models import ModelDirectory
from store import catalogs
from store.api import Partition
from store.learners import read_state
from store.lmdb_store import LmdbStore
from store.stores import STATE

BENCH = "stages"
SIZES = {
    "full": (world.W1, 2_000),
    "brief": (world.Size(10_000, 10_000), 1_000),
    "quick": (world.QUICK, 50),
}
POLICY = BUILT_IN["hybrid_v1"]
LIMIT = 10
WARM = 20
"""First learners that are not counted."""


def opened(data: Path, size: world.Size, count: int) -> tuple[Serving, list[LearnerState]]:
    """A world made ready to serve, and `count` of its learners, drawn evenly."""
    store = LmdbStore(data / STATE)
    try:
        own = Partition(world.TENANT)
        with store.read(own) as reader:
            records = catalogs.load_catalog(reader)
        catalog = build_catalog(records.concepts, records.questions, version=records.version)
        served = prepare(catalog, load_models(ModelDirectory(data, world.TENANT), store))
        numbers = np.random.default_rng(1).permutation(size.learners)[:count]
        states = []
        for number in numbers.tolist():
            with store.read(Partition(world.TENANT, world.learner_id(number))) as reader:
                states.append(read_state(reader, served.learner.memory_sets))
    finally:
        store.close()
    return served, states


@lean_kernel
def nothing(*_: object) -> None:
    """Take what a stage takes."""


class Stopwatch:
    """Processor time of this thread by stage, a figure a learner."""

    def __init__(self) -> None:
        """Start without figures."""
        self._taken: dict[str, list[int]] = {}

    def time(self, name: str, work: Callable[..., Any], *arguments: Any, is_kernel: bool = True) -> Any:
        """Return what the work returns, its time noted; of a kernel, less what calling one takes."""
        spent = 0
        if is_kernel:
            started = time.thread_time_ns()
            nothing(*arguments)
            spent = time.thread_time_ns() - started
        started = time.thread_time_ns()
        found = work(*arguments)
        self._taken.setdefault(name, []).append(time.thread_time_ns() - started - spent)
        return found

    def median_us(self) -> dict[str, float]:
        """Each stage's median without the first learners."""
        return {name: float(np.median(taken[WARM:])) / 1e3 for name, taken in self._taken.items()}


class Stages:
    """The pass taken apart, one learner at a time, with room that is used again."""

    def __init__(self, served: Serving) -> None:
        """Make room."""
        size = served.catalog.concept_count
        self._served = served
        self._view, self._counts = np.empty((size, VIEW_FLOATS)), np.empty((size, VIEW_COUNTS), np.uint32)
        self._mastered, self._place = np.empty(size, np.uint8), np.empty(size, np.int32)
        self._outlook = np.empty((size, SURVEY_WIDTH), np.float32)
        self._wishes = np.empty((len(SOURCES), size), np.float32)
        self._items, self._lots = np.zeros(MAX_CANDIDATES, ITEM), np.zeros(MAX_CANDIDATES, LOT)
        self._led = np.empty(size, np.float32)
        self._usual = read_only(np.zeros(size, np.uint8))
        self.watch = Stopwatch()

    def walk(self, state: LearnerState, seed: int, now: float) -> int:
        """Take one learner through all stages; returns the number of candidates."""
        served, watch = self._served, self.watch
        model, concepts, questions = served.learner, served.concepts, served.questions
        view, counts, mastered, place = self._view, self._counts, self._mastered, self._place
        outlook, wishes = self._outlook, self._wishes
        query = RecommendQuery(seed=seed, limit=LIMIT, target_success=POLICY.target_success)
        empty = np.empty((1, WIDTH), np.float32)
        room = Likes(empty, empty.copy(), np.empty((1, 24), np.uint32))
        recents = read_only(state.recent[np.newaxis])
        watch.time("likes", fill_likes, served.bound, recents, np.zeros(1, np.int64), room, is_kernel=False)
        asked = watch.time("ask", _asked, [query], [state], served, POLICY, [now], [None], is_kernel=False)
        settings, recent = asked.settings[0], asked.recents[0]
        settings[HISTORY] = state.applied
        factor, profile, near = asked.likes.factor[0], asked.likes.profile[0], asked.likes.near[0]
        memory = model.memory_sets[model.memory_set]
        standing = Standing(view, counts, mastered, place)
        watch.time(
            "survey", survey, concepts, served.peers, asked.headers, asked.touched, model.weights, memory, profile,
            settings, seed, standing, outlook, wishes,
        )  # fmt: skip
        watch.time(
            "of_survey_stand", stand, asked.headers, asked.touched, model.weights, settings[NOW], standing
        )  # fmt: skip
        watch.time("of_survey_follow", follow, served.peers, asked.touched, state.applied, self._led)
        found = Candidates.room(len(recent))
        none = asked.rows
        held = watch.time(
            "gather", gather, concepts, questions, outlook, wishes, POLICY.limits, near, none, recent, settings,
            seed, LIMIT, found,
        )  # fmt: skip
        met, predicted = np.empty(MAX_CANDIDATES, np.int32), np.empty(held)
        _meet(found, held, recent, met)
        watch.time(
            "predict", score_candidates, asked.headers, asked.touched, recent, found.rows[:held], met, place, view,
            questions.cards, found.cards[:held], (questions.after_code, questions.after_row, questions.after_weight),
            served.question_concepts, model.weights, settings[NOW], predicted,
        )  # fmt: skip
        watch.time("lean", lean, concepts, questions, outlook, found, predicted)
        values, scores = np.empty((held, len(TERMS)), np.float32), np.empty(held)
        watch.time(
            "score", score, concepts, questions, outlook, found, predicted, recent, none, factor, profile,
            served.even_take_up, settings, POLICY.signed, values, scores, np.empty(len(TERMS)),
        )  # fmt: skip
        desk = Desk(view, counts, mastered, place, outlook, self._wishes, met, predicted, values, scores)
        items, lots = self._items[:held], self._lots[:held]
        watch.time("describe", describe, found, desk, questions.cards, settings, items)
        watch.time("lay_out", lay_out, scores, found, POLICY.temperature, self._usual, True, lots)
        shown = min(LIMIT, held)
        chosen, sameness = np.empty(shown, np.int64), np.empty(shown, np.float32)
        chances, final = np.empty(shown), np.empty(shown)
        penalty = float(POLICY.signed[SAME])
        watch.time(
            "draw", draw, lots, penalty, POLICY.temperature, seed, chosen, sameness, chances, final
        )  # fmt: skip
        return int(held)


def report(served: Serving, states: list[LearnerState]) -> None:
    """Report the stages, then the pass of one and of many."""
    now = max(state.last_answered_at for state in states) + 3600.0
    stages = Stages(served)
    held = [stages.walk(state, seed, now) for seed, state in enumerate(states)]

    def tell(metric: str, value: float) -> None:
        emit(BENCH, metric, round(value, 1), learners=len(states), questions=served.catalog.question_count)

    for name, microseconds in stages.watch.median_us().items():
        tell(f"{name}_us", microseconds)
    watch = Stopwatch()
    for seed, state in enumerate(states):
        query = RecommendQuery(seed=seed, limit=LIMIT)
        watch.time(
            "pass", lambda: recommend(query, state, served, POLICY, now=now), is_kernel=False  # noqa: B023
        )  # fmt: skip
    for name, microseconds in watch.median_us().items():
        tell(f"{name}_us", microseconds)
    queries = [RecommendQuery(seed=seed, limit=LIMIT) for seed in range(len(states))]
    started = time.thread_time()
    recommend_many(queries, states, served, POLICY, now=now)
    each = (time.thread_time() - started) / len(states)
    tell("pass_of_many_us", each * 1e6)
    tell("candidates", float(np.mean(held)))


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="seconds, to see that it works")
    parser.add_argument("--brief", action="store_true", help="a smaller world")
    parser.add_argument("--learners", type=int, default=0, help="how many learners; by size if not said")
    parser.add_argument(
        "--cache", type=Path, help="folder of built worlds; GENIE_BENCH_CACHE, or ~/.cache/genie"
    )
    options = parser.parse_args()
    size, learners = SIZES["quick" if options.quick else "brief" if options.brief else "full"]
    with world.opened(size, writable=True, cache=options.cache) as data:
        served, states = opened(data, size, options.learners or learners)
    report(served, states)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

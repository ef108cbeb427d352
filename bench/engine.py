"""What one recommendation costs inside the engine, by size of catalogue and by stage, and kernels against plain Python.

python -m bench.engine [--quick] [--seed 7]
"""

import argparse
import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.engine_world import NOW, facts, learner, serving
from bench.output import emit
from engine.candidates import Candidates, gather
from engine.explain import Level, explain
from engine.learner import TARGET_RETENTION, LearnerState, absorb, predict, replay
from engine.learner.memory import DEFAULT_WEIGHTS
from engine.learner.score import read_only
from engine.learner.view import VIEW_COUNTS, VIEW_FLOATS, Standing, stand, view_concepts
from engine.memo import Memo
from engine.policy import BUILT_IN, SOURCES
from engine.recommend import RecommendQuery, recommend, recommend_many
from engine.serving import Serving
from engine.slate import Slate
from engine.survey import READY, STANDING, SURVEY_WIDTH, survey
from tests import naive_learner
from tests import naive_recommend as naive

BENCH = "engine"
POLICY = BUILT_IN["hybrid_v1"]
CONCEPTS = 1000


def fastest_us(work: Callable[[], object], repeats: int) -> float:
    """Return the least processor time of several runs: what the work costs when nothing interferes."""
    work()
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best * 1e6


def round_robin(work: list[Callable[[], object]], repeats: int) -> list[float]:
    """Return the fastest of each, taken in turns so that drift of the machine meets all of them alike."""
    best = [np.inf] * len(work)
    for _ in range(repeats):
        for place, one in enumerate(work):
            best[place] = min(best[place], fastest_us(one, 3))
    return best


def report_recommendation(sizes: list[int], learners: int, repeats: int, seed: int) -> bool:
    """Report one recommendation's µs by catalogue size, mean over learners of each one's fastest."""
    worlds = [serving(CONCEPTS, size, seed) for size in sizes]
    states = [[learner(world, seed + i) for i in range(learners)] for world in worlds]

    def one(world: Serving, state: LearnerState) -> Callable[[], object]:
        return lambda: recommend(RecommendQuery(seed=1), state, world, POLICY, now=NOW)

    work = [one(world, state) for world, those in zip(worlds, states, strict=True) for state in those]
    times = np.array(round_robin(work, repeats)).reshape(len(sizes), learners)
    by_size = dict(zip(sizes, times.mean(axis=1).tolist(), strict=True))
    for size, microseconds in by_size.items():
        emit(
            BENCH,
            "recommend_us",
            round(microseconds, 1),
            questions=size,
            concepts=CONCEPTS,
            learners=learners,
        )
    growth = by_size[sizes[-1]] / by_size[sizes[-2]]
    held = emit(BENCH, "recommend_growth", round(growth, 3), bar="<= 1.5", sizes=sizes[-2:])
    report_pass(worlds[-2], states[-2], repeats)
    report_stages(worlds[-2], states[-2][0], repeats)
    return held


def report_pass(world: Serving, states: list[LearnerState], repeats: int) -> None:
    """Report what a learner costs in a pass of many, beside a pass of one, and what a memory of likes saves."""
    queries = [RecommendQuery(seed=place) for place in range(len(states))]

    def alone() -> None:
        for query, state in zip(queries, states, strict=True):
            recommend_many([query], [state], world, POLICY, now=NOW)

    def forgetful() -> None:
        forgotten = dataclasses.replace(world, likes=Memo(len(states)))
        recommend_many(queries, states, forgotten, POLICY, now=NOW)

    work: list[Callable[[], object]] = [
        alone,
        lambda: recommend_many(queries, states, world, POLICY, now=NOW),
        forgetful,
    ]
    single, many, anew = (taken / len(states) for taken in round_robin(work, repeats))
    emit(BENCH, "pass_of_one_us", round(single, 1), questions=world.catalog.question_count)
    emit(
        BENCH, "pass_of_many_us", round(many, 1), questions=world.catalog.question_count, learners=len(states)
    )
    emit(BENCH, "pass_of_many_over_one", round(many / single, 3))
    emit(BENCH, "likes_us", round(anew - many, 1), questions=world.catalog.question_count)


def report_stages(world: Serving, state: LearnerState, repeats: int) -> None:
    """Report what each stage costs, and how many times slower its naive twin is."""
    size = world.catalog.concept_count
    header, touched, recent = read_only(state.header), read_only(state.concepts), read_only(state.recent)
    view, counts = np.empty((size, VIEW_FLOATS)), np.empty((size, VIEW_COUNTS), np.uint32)
    mastered, place = np.empty(size, np.uint8), np.empty(size, np.int32)
    weights, memory = world.learner.weights, world.learner.memory_sets[0]
    asked = np.array([NOW, POLICY.target_success, TARGET_RETENTION, -1.0, 0.0, 0.0, 0.0, state.applied])
    profile = world.questions.content[0].copy()
    out, wishes = np.empty((size, SURVEY_WIDTH), np.float32), np.full((len(SOURCES), size), -1.0, np.float32)
    nobody = read_only(np.zeros(0, np.uint32))

    def gathered() -> tuple[int, Candidates]:
        found = Candidates.room(recent.shape[0])
        return (
            gather(
                world.concepts, world.questions, out, wishes, POLICY.limits, nobody, nobody, recent, asked, 1, 10, found
            ),
            found,
        )  # fmt: skip

    standing = Standing(view, counts, mastered, place)
    survey_args = (
        world.concepts,
        world.peers,
        header,
        touched,
        weights,
        memory,
        profile,
        asked,
        1,
        standing,
        out,
        wishes,
    )
    view_concepts(header, touched, weights, NOW, TARGET_RETENTION, view, counts, mastered)
    survey(*survey_args)
    held, found = gathered()
    slate = recommend(RecommendQuery(seed=1), state, world, POLICY, now=NOW)
    stages: dict[str, Callable[[], object]] = {
        "view": lambda: view_concepts(
            header, touched, weights, NOW, TARGET_RETENTION, view, counts, mastered
        ),
        "stand": lambda: stand(header, touched, weights, NOW, standing),
        "survey": lambda: survey(*survey_args),
        "gather": gathered,
        "predict": lambda: predict(state, found.rows[:held], world.question_concepts, world.learner, NOW),
        "store": slate.to_bytes,
        "load": lambda: Slate.from_bytes(slate.to_bytes()),
        "explain": lambda: explain(slate, 0, world.catalog.titles, level=Level.TECHNICAL),
    }
    if world.models.items is not None:
        index = world.models.items
        stages["neighbours"] = lambda: index.nearest(profile, 24)
    for name, microseconds in zip(stages, round_robin(list(stages.values()), repeats), strict=True):
        emit(BENCH, f"{name}_us", round(microseconds, 1), questions=world.catalog.question_count)
    emit(BENCH, "candidates", held)
    twins = _twins(world, state, view, counts, mastered, profile, out, wishes)
    for name, twin in twins.items():
        ratio = fastest_us(twin, 2) / fastest_us(stages[name], 20)
        emit(BENCH, f"{name}_naive_over_kernel", round(ratio, 1))


def _twins(
    world: Serving,
    state: LearnerState,
    view: np.ndarray,
    counts: np.ndarray,
    mastered: np.ndarray,
    profile: np.ndarray,
    out: np.ndarray,
    wishes: np.ndarray,
) -> dict[str, Callable[[], Any]]:
    """Return the naive twins of the survey and of gathering, on the same learner."""
    told = {"objective": -1, "seed": 1, "target": POLICY.target_success, "history": state.applied}
    memory = world.learner.memory_sets[0]
    assert world.models.collaborative is not None
    peers = world.models.collaborative.peers
    ready, standing = out[:, READY].tolist(), out[:, STANDING].tolist()
    wanted = {source: wishes[place].tolist() for place, source in enumerate(SOURCES)}
    quotas = dict(zip(SOURCES, POLICY.quotas, strict=True))
    return {
        "survey": lambda: naive.survey(
            world.concepts, state.concepts, view, counts, mastered, peers, memory, profile, told
        ),
        "gather": lambda: naive.gather(
            world.concepts, world.questions, ready, standing, wanted, quotas, [], set(), POLICY.target_success, 1, 10
        ),
    }  # fmt: skip


def report_update(answers: int, seed: int) -> bool:
    """Report the update of mastery and memory by one answer, against the same in plain Python.

    The plain twin reads windows off the whole history, so the history is kept short: a hundred answers. What `absorb`
    adds to the update, predictions and masteries before and after, is reported apart.
    """
    world = serving(CONCEPTS, 2000, seed)
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, 60, answers).astype(np.uint32)
    right, at = rng.random(answers) < 0.8, NOW + 60.0 * np.arange(answers)
    batch = facts(world, rows, right, at)
    state = LearnerState.empty()
    logged = absorb(state, batch, world.learner).batch
    each = fastest_us(lambda: replay(logged, world.learner.memory_sets), 30) / answers
    shown = fastest_us(lambda: absorb(state, batch, world.learner), 30) / answers
    first = facts(world, rows[:1], right[:1], at[:1])
    alone = fastest_us(lambda: absorb(state, first, world.learner), 100)
    history = [
        naive_learner.Answer(
            question=int(rows[i]),
            correct=int(right[i]),
            at=float(at[i]),
            base=float(batch.base_logit[i]),
            grade=int(batch.grade[i]),
            pairs=[
                (int(batch.concept[p]), float(batch.weight[p]))
                for p in range(batch.offsets[i], batch.offsets[i + 1])
            ],
            day=int(at[i] // 86400),
            seconds=20.0,
        )
        for i in range(answers)
    ]

    def plainly() -> None:
        twin = naive_learner.Learner([float(w) for w in DEFAULT_WEIGHTS])
        for answer in history:
            twin.answer(answer)

    slow = fastest_us(plainly, 3) / answers
    emit(BENCH, "update_us", round(each, 2), answers_in_one_call=answers)
    emit(BENCH, "update_and_show_us", round(shown, 2), answers_in_one_call=answers)
    emit(BENCH, "update_alone_us", round(alone, 1), answers_in_one_call=1)
    emit(BENCH, "update_naive_us", round(slow, 1))
    return emit(BENCH, "update_kernel_over_naive", round(each / slow, 4), bar="<= 0.02")


def main() -> None:
    """Run it and report; the exit code is 1 when a bar does not hold."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--quick", "--brief", action="store_true", help="small sizes, in seconds")
    options.add_argument("--seed", type=int, default=7)
    chosen = options.parse_args()
    sizes = [2000, 8000, 16000] if chosen.quick else [5000, 50_000, 1_000_000]
    learners, repeats = (4, 5) if chosen.quick else (40, 20)
    held = report_recommendation(sizes, learners, repeats, chosen.seed)
    held &= report_update(100, chosen.seed)
    raise SystemExit(0 if held else 1)


if __name__ == "__main__":
    main()

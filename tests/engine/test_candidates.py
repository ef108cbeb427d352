"""Gathering equals its naive twin; blocked, resting and closed questions never come up."""

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import candidates as k
from engine.catalog import build_catalog
from engine.learner import LearnerState
from engine.learner.score import read_only
from engine.policy import BUILT_IN, SOURCES
from engine.serving import Serving
from engine.types import Concept, Prerequisite, Question
from tests import naive_recommend as naive
from tests import worlds
from tests.engine.test_survey import surveyed, with_followers


def gathered(
    served: Serving,
    state: Any,
    *,
    policy: str = "hybrid_v1",
    blocked: tuple[int, ...] = (),
    neighbours: tuple[int, ...] = (),
    seed: int = 1,
    wanted: int = 10,
) -> tuple[list[int], k.Candidates, Any, Any]:
    """Return (rows, buffers, survey, wishes)."""
    out, wishes = surveyed(served, state, seed=seed)
    found = k.Candidates.room(len(blocked) + state.recent.shape[0])
    held = k.gather(
        served.concepts,
        served.questions,
        out,
        wishes,
        BUILT_IN[policy].limits,
        read_only(np.array(neighbours, np.uint32)),
        read_only(np.array(blocked, np.uint32)),
        read_only(state.recent),
        np.array([worlds.NOON, 0.85, 0.9, -1.0, 0.0, 0.0, 0.0, state.applied]),
        seed,
        wanted,
        found,
    )
    return found.rows[:held].tolist(), found, out, wishes


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(BUILT_IN)), st.integers(0, 30), st.integers(1, 60))
def test_gather_equals_its_naive_twin(seed: int, policy: str, answers: int, wanted: int) -> None:
    served = with_followers(seed)
    rng = np.random.default_rng(seed)
    state = worlds.someone(served, seed, answers=answers) if answers else LearnerState.empty()
    size = served.catalog.question_count
    blocked = tuple(int(row) for row in rng.integers(0, size + 50, rng.integers(0, 40)))
    neighbours = tuple(int(row) for row in rng.permutation(size)[:20])
    rows, found, out, wishes = gathered(
        served, state, policy=policy, blocked=blocked, neighbours=neighbours, seed=seed, wanted=wanted
    )
    resting = {
        int(r["question"]) for r in state.recent if r["last"] == 1 and worlds.NOON - float(r["at"]) < k.REST_S
    }
    twin = naive.gather(
        served.concepts,
        served.questions,
        [float(x) for x in out[:, 0]],
        [float(x) for x in out[:, 6]],
        {source: [float(x) for x in wishes[i]] for i, source in enumerate(SOURCES)},
        dict(zip(SOURCES, BUILT_IN[policy].quotas, strict=True)),
        list(neighbours),
        set(blocked) | resting,
        0.85,
        seed,
        wanted,
    )
    assert rows == twin.rows
    masks = {
        row: {source for i, source in enumerate(SOURCES) if mask >> i & 1}
        for row, mask in zip(rows, found.sources, strict=False)
    }
    assert masks == twin.sources
    assert found.concepts[: len(rows)].tolist() == [twin.concepts[row] for row in rows]
    assert found.counts.tolist() == [twin.counts[source] for source in SOURCES]


def test_questions_lie_near_the_wanted_difficulty() -> None:
    served = worlds.served(worlds.chain("count", each=600))
    beginner = worlds.practise(served, [(f"count-{i}", False) for i in range(500, 504)])
    expert = worlds.practise(served, [(f"count-{i}", True) for i in range(1, 12)] * 3)

    def hardness(state: Any) -> float:
        rows, *_ = gathered(served, state, policy="zone_v1", wanted=1)
        return float(served.catalog.difficulty[rows].mean())

    assert hardness(beginner) < hardness(expert) - 0.2


def test_a_question_just_answered_right_rests_and_a_wrong_one_does_not() -> None:
    served = worlds.served(worlds.chain("count"))
    state = worlds.practise(served, [("count-1", True), ("count-2", False)])
    rows, *_ = gathered(served, state)
    assert served.catalog.question_row["count-1"] not in rows
    assert served.catalog.question_row["count-2"] in rows
    yesterday = worlds.practise(served, [("count-1", True)], ending=worlds.NOON - k.REST_S - 1.0)
    assert served.catalog.question_row["count-1"] in gathered(served, yesterday)[0]


def test_a_question_of_an_open_and_a_closed_concept_stays_out() -> None:
    count, add = Concept("count", 0), Concept("add", 1, prerequisites=(Prerequisite("count"),))
    asked = [Question("one", 0, (0,)), Question("both", 1, (0, 1)), Question("sum", 2, (1,))]
    served = worlds.served(build_catalog([count, add], asked, version=1))
    assert gathered(served, LearnerState.empty(), wanted=100)[0] == [0]


def test_no_more_candidates_than_there_is_room_for() -> None:
    served = worlds.served(worlds.graph({f"c{i}": [] for i in range(120)}, each=5))
    rows, *_ = gathered(served, LearnerState.empty(), wanted=400)
    assert len(rows) == len(set(rows)) <= k.MAX_CANDIDATES

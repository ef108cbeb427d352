"""The draw equals its naive twin, its propensities are those of the draw, and a slate survives its bytes."""

from collections import Counter
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.candidates import Candidates
from engine.draw import LOT, draw
from engine.learner import LearnerState
from engine.learner.state import Records
from engine.pipeline import lay_out
from engine.policy import BUILT_IN
from engine.recommend import RecommendQuery, recommend
from engine.slate import HEAD, Slate
from tests import naive_slate, worlds

PENALTY = BUILT_IN["hybrid_v1"].weight("diversity")


def lots_of(scores: list[float], concepts: list[int], review: list[bool], temperature: float) -> Records:
    found = Candidates.room(0)
    found.concepts[: len(concepts)] = concepts
    found.sources[: len(concepts)] = [1 if flag else 2 for flag in review]
    lots = np.zeros(len(scores), LOT)
    lay_out(np.array(scores), found, temperature, np.zeros(100, np.uint8), False, lots)
    return lots


def drawn(
    lots: Records, temperature: float, seed: int, count: int
) -> tuple[list[int], list[float], list[float], list[float], float]:
    chosen, sameness = np.empty(count, np.int64), np.empty(count, np.float32)
    propensity, final = np.empty(count), np.empty(count)
    left = draw(lots, -PENALTY, temperature, seed, chosen, sameness, propensity, final)
    return chosen.tolist(), sameness.tolist(), propensity.tolist(), final.tolist(), left


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.0003, 0.01, 0.2]))
def test_draw_equals_its_naive_twin(seed: int, temperature: float) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 25))
    scores = rng.random(n).round(2).tolist()
    concepts, review = rng.integers(0, 5, n).tolist(), (rng.random(n) < 0.4).tolist()
    count = int(rng.integers(1, n + 1))
    lots = lots_of(scores, concepts, review, temperature)
    chosen, sameness, propensity, final, left = drawn(lots, temperature, seed, count)
    twin = naive_slate.draw(scores, concepts, review, PENALTY, temperature, seed, count)
    assert chosen == [pick for pick, *_ in twin]
    assert sameness == pytest.approx([same for _, same, *_ in twin])
    assert propensity == pytest.approx([odds for *_, odds, _ in twin], rel=1e-12)
    assert final == pytest.approx([score for *_, score in twin], rel=1e-15)
    assert left == naive_slate.best_left(scores, concepts, review, PENALTY, chosen)


def test_propensities_are_the_frequencies_of_the_draw() -> None:
    runs = 6000
    lots = lots_of([0.5, 0.48, 0.45, 0.3], [0, 0, 1, 2], [True, False, False, False], 0.05)
    seen: Counter[tuple[int, ...]] = Counter()
    told: dict[tuple[int, ...], float] = {}
    for seed in range(runs):
        chosen, _, propensity, _, _ = drawn(lots, 0.05, seed, 2)
        seen[tuple(chosen)] += 1
        told[tuple(chosen)] = propensity[0] * propensity[1]
    assert sum(told.values()) == pytest.approx(1.0, abs=0.01)
    assert set(told) <= set(permutations(range(4), 2))
    for pair, chance in told.items():
        assert seen[pair] / runs == pytest.approx(
            chance, abs=4.0 * (chance * (1 - chance) / runs) ** 0.5 + 1e-3
        )


def test_one_concept_twice_gives_way_to_another() -> None:
    chosen, *_ = drawn(lots_of([0.50, 0.49, 0.47], [0, 0, 1], [False, True, True], 0.0), 0.0, 1, 3)
    assert chosen == [0, 2, 1]


def test_reviews_and_new_material_are_interleaved() -> None:
    scores = [0.50, 0.49, 0.48, 0.47]
    chosen, *_ = drawn(lots_of(scores, [0, 1, 2, 3], [True, True, True, False], 0.0), 0.0, 1, 4)
    assert chosen == [0, 1, 3, 2]


def test_a_cold_draw_takes_the_best_with_certainty() -> None:
    chosen, _, propensity, _, left = drawn(lots_of([0.1, 0.9, 0.5], [0, 1, 2], [False] * 3, 0.0), 0.0, 5, 2)
    assert (chosen, propensity) == ([1, 2], [1.0, 1.0])
    assert left < 0.1


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_a_slate_survives_its_bytes(seed: int) -> None:
    served = worlds.served(worlds.at_random(seed))
    slate = recommend(
        RecommendQuery(seed=seed, limit=7, objective=0),
        worlds.someone(served, seed),
        served,
        BUILT_IN["hybrid_v1"],
        now=worlds.NOON,
    )
    again = Slate.from_bytes(slate.to_bytes())
    assert again.to_bytes() == slate.to_bytes()
    assert np.array_equal(again.contributions, slate.contributions)
    assert (again.policy, again.reason, again.seed, again.objective) == ("hybrid_v1", slate.reason, seed, 0)


@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"\x09" + b[1:], lambda b: b[:20], lambda b: b""]
)
def test_damaged_bytes_are_refused(damage: "type[bytes]") -> None:
    served = worlds.served(worlds.chain("count"))
    slate = recommend(
        RecommendQuery(seed=1), LearnerState.empty(), served, BUILT_IN["zone_v1"], now=worlds.NOON
    )
    with pytest.raises(ValueError, match="slate"):
        Slate.from_bytes(damage(slate.to_bytes()))


def test_a_slate_from_before_pools_is_read_with_its_one_seed() -> None:
    served = worlds.served(worlds.chain("count"))
    slate = recommend(
        RecommendQuery(seed=77), LearnerState.empty(), served, BUILT_IN["hybrid_v1"], now=worlds.NOON
    )
    data = slate.to_bytes()
    old = b"\x01" + data[1 : HEAD.itemsize - 8] + data[HEAD.itemsize :]
    again = Slate.from_bytes(old)
    assert (again.seed, again.pool_seed) == (77, 77)
    assert again.to_bytes() == data
    with pytest.raises(ValueError, match="slate"):
        Slate.from_bytes(old[:-1])


def test_a_draw_goes_on_where_odds_against_the_best_vanish() -> None:
    """Far behind the best, chances are those among what is left."""
    scores = [1.0, 0.1, 0.1 + 1e-4, 0.1]
    lots = lots_of(scores, [0, 1, 2, 3], [False] * 4, 0.001)
    assert lots["odds"][1:].max() < 1e-300
    chosen, _, propensity, *_ = drawn(lots, 0.001, 3, 2)
    twin = naive_slate.draw(scores, [0, 1, 2, 3], [False] * 4, PENALTY, 0.001, 3, 2)
    assert chosen == [pick for pick, *_ in twin]
    assert propensity == pytest.approx([odds for *_, odds, _ in twin], rel=1e-12)
    assert 0.2 < propensity[1] < 0.5

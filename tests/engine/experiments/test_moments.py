"""Moments are exact: any order, any grouping, any detour ends in the same numbers."""

import math
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.experiments.moments import EMPTY, LARGEST, SUM_BYTES, Moments, Observation

numbers = st.floats(min_value=-1e6, max_value=1e6, allow_nan=False).map(lambda x: round(x, 6))
observations = st.tuples(numbers, numbers, numbers)
groups = st.lists(observations, min_size=1, max_size=20)


def two_pass(seen: list[Observation]) -> list[float]:
    """The centred numbers the slow and obvious way."""
    columns = np.array(seen, dtype=np.longdouble)
    v, d, x = (columns - columns.mean(axis=0)).T
    products = [v * v, d * d, x * x, v * d, v * x, d * x, v * v * v]
    return [float(len(seen)), *map(float, columns.mean(axis=0)), *(float(p.sum()) for p in products)]


@given(groups)
@settings(max_examples=60)
def test_rows_are_means_and_centred_sums(seen: list[Observation]) -> None:
    size = max(1.0, max(abs(number) for one in seen for number in one))
    for power, ours, theirs in zip(
        [0, 1, 1, 1, 2, 2, 2, 2, 2, 2, 3], Moments.of(seen).row(), two_pass(seen), strict=True
    ):
        assert ours == pytest.approx(theirs, rel=1e-12, abs=1e-13 * len(seen) * size**power)


@given(groups, groups, groups)
@settings(max_examples=40)
def test_merging_is_associative_and_commutative_to_the_bit(
    a: list[Observation], b: list[Observation], c: list[Observation]
) -> None:
    one, two, three = Moments.of(a), Moments.of(b), Moments.of(c)
    assert one.merge(two).merge(three) == one.merge(two.merge(three)) == Moments.of(c + b + a)
    assert one.merge(EMPTY) == one == EMPTY.merge(one)


@given(groups, observations)
@settings(max_examples=40)
def test_remove_undoes_add_to_the_bit(seen: list[Observation], one: Observation) -> None:
    before = Moments.of(seen)
    value, denominator, covariate = one
    during = before.add(value, denominator=denominator, covariate=covariate)
    assert during.n == before.n + 1
    assert during.remove(value, denominator=denominator, covariate=covariate) == before


@given(groups, observations)
@settings(max_examples=40)
def test_replace_is_as_if_the_new_number_had_come_at_once(seen: list[Observation], new: Observation) -> None:
    assert Moments.of(seen).replace(seen[0], new) == Moments.of([new, *seen[1:]])


def test_late_shuffled_and_corrected_reports_end_in_the_same_bits() -> None:
    rng = random.Random(5)
    final = [(rng.expovariate(0.03), float(rng.randint(1, 9)), rng.gauss(40, 10)) for _ in range(300)]
    expected = Moments.of(final)
    for _ in range(3):
        paths = [[(0.0, 1.0, x), (v / 3, d, x), (v, d, x)] for v, d, x in final]
        moves = [move for path in paths for move in pairwise(path)]
        # Moves of one learner stay in order; learners interleave at random.
        order = sorted(range(len(moves)), key=lambda i: (i % 2, rng.random()))
        moments = Moments.of([path[0] for path in paths])
        for i in order:
            moments = moments.replace(*moves[i])
        assert moments == expected


def test_nist_numacc4() -> None:
    # NIST StRD, NumAcc4: 1001 numbers around 1e7 whose standard deviation is 0.1 exactly.
    moments = Moments.of([10000000.2, *[10000000.1, 10000000.3] * 500])
    assert moments.mean == pytest.approx(10000000.2, rel=1e-15)
    assert math.sqrt(moments.variance) == pytest.approx(0.1, rel=1e-8)


def test_a_mean_of_a_billion_costs_the_variance_nothing() -> None:
    plain, shifted = Moments.of([1.0, 2.0, 4.0]), Moments.of([1e9 + 1.0, 1e9 + 2.0, 1e9 + 4.0])
    assert shifted.variance == plain.variance == pytest.approx(7.0 / 3.0, rel=1e-15)


def test_raw_sums_of_other_systems_are_read() -> None:
    told, seen = Moments.from_sums(n=3, total=7.0, total_of_squares=21.0), Moments.of([1.0, 2.0, 4.0])
    # All but the third moment, which raw sums do not tell.
    assert told.sums()[:10] == seen.sums()[:10]


def test_sums_survive_a_record() -> None:
    moments = Moments.of([(LARGEST, -LARGEST, 0.5), (-LARGEST, 3.0, 1e-9)])
    packed = [s.to_bytes(SUM_BYTES, "big", signed=True) for s in moments.sums()]
    assert Moments(*(int.from_bytes(p, "big", signed=True) for p in packed)) == moments


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 2 * LARGEST])
def test_numbers_that_cannot_be_held_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="value must be finite"):
        EMPTY.add(bad)
    with pytest.raises(ValueError, match="covariate must be finite"):
        EMPTY.add(1.0, covariate=bad)


def test_who_is_not_in_cannot_be_taken_out() -> None:
    with pytest.raises(ValueError, match="n of at least 1"):
        EMPTY.remove(1.0)
    with pytest.raises(ValueError, match="no learner with value 5"):
        Moments.of([1.0, 1.0]).remove(5.0)


@pytest.mark.parametrize(("n", "squares"), [(0, 1.0), (2, 1.0), (2, math.nan)])
def test_impossible_sums_are_refused(n: int, squares: float) -> None:
    with pytest.raises(ValueError, match=r"n must be|total"):
        Moments.from_sums(n=n, total=2.0, total_of_squares=squares)


def test_nobody_has_no_mean_and_one_has_no_variance() -> None:
    assert math.isnan(EMPTY.mean)
    assert math.isnan(Moments.of([3.0]).variance)
    assert Moments.of([3.0]).centred().mean_v == 3.0

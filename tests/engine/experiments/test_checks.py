"""Sample ratios and corrections for asking many questions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.experiments.checks import (
    benjamini_hochberg,
    holm,
    learners_for_skew,
    sample_ratio,
    unequal_exposure_p,
)

shares = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12)


@pytest.mark.parametrize(("counts", "weights"), [([500, 600], [0.5, 0.5]), ([500, 600, 0], [0.5, 0.5, 0.0])])
def test_sample_ratio_known_answer(counts: list[int], weights: list[float]) -> None:
    found = sample_ratio([counts], [weights])
    assert found.p == pytest.approx(0.0026, abs=5e-5)
    assert found.df == 1


def test_a_changed_split_is_no_mismatch_when_each_phase_is_filled_as_planned() -> None:
    by_phase = sample_ratio([[900, 100], [500, 500]], [[0.9, 0.1], [0.5, 0.5]])
    assert by_phase.p == 1.0
    assert by_phase.df == 2
    assert sample_ratio([[1400, 600]], [[0.5, 0.5]]).p < 1e-6


def test_a_sample_too_uneven_is_found_at_any_look() -> None:
    assert sample_ratio([[5000, 5600]], [[0.5, 0.5]]).sequential_p < 0.001
    assert sample_ratio([[5000, 5010]], [[0.5, 0.5]]).sequential_p == 1.0


def test_the_sequential_check_seldom_cries_wolf_however_often_it_is_asked() -> None:
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(100):
        treated = np.cumsum(rng.random(4000) < 0.5)
        looks = range(100, 4000, 100)
        ps = [
            sample_ratio([[k - int(treated[k - 1]), int(treated[k - 1])]], [[1, 1]]).sequential_p
            for k in looks
        ]
        alarms += min(ps) <= 0.05
    assert alarms <= 5


def test_phases_without_learners_say_nothing() -> None:
    assert sample_ratio([[0, 0]], [[0.5, 0.5]]).p == sample_ratio([], []).p == 1.0


@pytest.mark.parametrize(
    ("counts", "weights", "text"),
    [
        ([[1, 2]], [], "counts has 1 phases but weights has 0"),
        ([[1, 2]], [[1.0]], "shape"),
        ([[1, -2]], [[0.5, 0.5]], "counts must be at least 0"),
        ([[1, 2]], [[0.0, 0.0]], "positive sum"),
    ],
)
def test_counts_that_do_not_fit_are_refused(
    counts: list[list[int]], weights: list[list[float]], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        sample_ratio(counts, weights)


def test_exposure_that_depends_on_the_arm_is_noticed() -> None:
    assert unequal_exposure_p([900, 700], [1000, 1000]) < 1e-6
    assert unequal_exposure_p([900, 905], [1000, 1000]) > 0.5
    assert unequal_exposure_p([0, 0], [1000, 1000]) == unequal_exposure_p([5, 0], [5, 0]) == 1.0
    with pytest.raises(ValueError, match="exposed must be at most assigned"):
        unequal_exposure_p([11, 5], [10, 10])


def test_benjamini_hochberg_known_answer() -> None:
    # From tea-tasting's test suite (MIT).
    adjusted = benjamini_hochberg([0.005, 0.06, 0.007, 0.04, 0.01, 0.03])
    assert adjusted == pytest.approx([0.02, 0.06, 0.02, 0.048, 0.02, 0.045], abs=1e-12)


def test_holm_by_hand() -> None:
    # 3 x .01; then max(.03, 2 x .02); then max(.04, 1 x .03).
    assert holm([0.02, 0.01, 0.03]) == pytest.approx([0.04, 0.03, 0.04])


@given(shares)
@settings(max_examples=60)
def test_corrections_keep_order_and_never_help(p: list[float]) -> None:
    raw = np.array(p)
    for adjusted in (holm(p), benjamini_hochberg(p)):
        assert (adjusted >= raw - 1e-15).all()
        assert (adjusted <= 1.0).all()
        assert (np.diff(adjusted[np.argsort(raw, kind="stable")]) >= -1e-15).all()
    assert (holm(p) >= benjamini_hochberg(p) - 1e-15).all()


def test_skew_of_two_asks_for_1420_learners_an_arm() -> None:
    assert learners_for_skew(2.0) == 1420.0

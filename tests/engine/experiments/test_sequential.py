"""Sequences: the interval and the p-value say the same, and looking often does not hurt."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.experiments.sequential import (
    HybridRule,
    always_valid_p,
    half_width,
    mixture_precision,
    one_sided_half_width,
    one_sided_p,
)

effects = st.floats(-0.5, 0.5)
errors = st.floats(0.01, 0.2)
sizes = st.integers(10, 100_000)


@given(effects, errors, sizes)
@settings(max_examples=100)
def test_p_is_below_alpha_exactly_where_the_interval_excludes_zero(effect: float, se: float, n: int) -> None:
    setting = {"alpha": 0.05, "planned": 4000.0}
    excluded = abs(effect) > half_width(se, n, **setting)
    assert (always_valid_p(effect, se, n, **setting) < 0.05) == excluded


@given(effects, errors, sizes)
@settings(max_examples=100)
def test_one_sided_p_agrees_with_its_bound_and_ignores_improvements(effect: float, se: float, n: int) -> None:
    setting = {"alpha": 0.01, "planned": 4000.0}
    excluded = effect + one_sided_half_width(se, n, **setting) < 0
    p = one_sided_p(effect, se, n, **setting)
    assert (p < 0.01) == excluded
    assert effect < 0 or p == 1.0


def test_precision_is_the_papers_choice() -> None:
    # 5.9915 + ln(1 + 5.9915) = 7.9362 for alpha 0.05 and one planned learner.
    assert mixture_precision(alpha=0.05, planned=1.0) == pytest.approx(7.9362, abs=1e-4)


def test_the_sequence_is_tightest_beside_the_fixed_interval_near_the_planned_sample() -> None:
    n = np.arange(50, 40_000)
    relative = half_width(np.ones_like(n, dtype=float), n, alpha=0.05, planned=4000.0) / 1.959964
    assert abs(int(n[relative.argmin()]) - 4000) < 200
    assert relative.min() > 1.0


def test_nothing_is_said_while_the_error_is_unknown() -> None:
    for se in (0.0, np.nan):
        assert half_width(se, 10, alpha=0.05, planned=100.0) == np.inf
        assert always_valid_p(1.0, se, 10, alpha=0.05, planned=100.0) == 1.0
        assert one_sided_p(-1.0, se, 10, alpha=0.05, planned=100.0) == 1.0


def test_looking_at_every_event_rejects_a_true_null_less_often_than_alpha() -> None:
    rng = np.random.default_rng(3)
    runs, learners = 400, 1000
    n = np.arange(1, learners + 1)
    mean = np.cumsum(rng.normal(0, 1, (runs, learners)), axis=1) / n
    se = 1.0 / np.sqrt(n) * np.ones((runs, 1))
    always = (always_valid_p(mean, se, n, alpha=0.05, planned=1000.0) <= 0.05).any(axis=1).mean()
    naive = (np.abs(mean) > 1.96 * se)[:, 100:].any(axis=1).mean()
    assert always <= 0.05 < 0.2 < naive


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ({"sequential_alpha": 0.0}, "sequential_alpha must be between 0 and 1"),
        ({"final_alpha": 1.0}, "final_alpha must be between 0 and 1"),
        ({"minimum_per_arm": 1}, "minimum_per_arm must be at least 2, got 1"),
    ],
)
def test_rules_out_of_bounds_are_refused(bad: dict[str, float], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        HybridRule(**bad)  # type: ignore[arg-type]


def test_a_plan_without_learners_is_refused() -> None:
    with pytest.raises(ValueError, match="planned must be positive, got 0"):
        mixture_precision(alpha=0.05, planned=0.0)

"""Planned samples against published answers, and against each other."""

from functools import partial

import numpy as np
import pytest

from engine.experiments.moments import Moments
from engine.experiments.planning import (
    detectable_effect,
    plan_sample,
    power_of_t_test,
    sample_size_per_arm,
    sample_size_t_test,
)


def test_learners_an_arm_known_answer() -> None:
    assert sample_size_t_test(d=0.5) == pytest.approx(63.7656, abs=1e-4)
    assert power_of_t_test(d=0.5, n_per_arm=63.7656) == pytest.approx(0.8, abs=1e-6)


def test_formula_by_hand() -> None:
    # (1.959964 + 0.841621)² · (1 + 1) / 0.5²
    assert sample_size_per_arm(effect=0.5, variance_control=1.0, variance_treatment=1.0) == pytest.approx(
        62.791, abs=1e-3
    )


def test_a_covariate_saves_its_squared_correlation() -> None:
    setting = {"effect": 0.1, "variance_control": 2.0, "variance_treatment": 2.0}
    assert sample_size_per_arm(**setting, correlation=0.7) == pytest.approx(
        0.51 * sample_size_per_arm(**setting)
    )


def test_detectable_effect_is_the_inverse_of_the_sample_size() -> None:
    n = sample_size_per_arm(effect=0.2, variance_control=1.0, variance_treatment=3.0, correlation=0.4)
    back = detectable_effect(
        n_control=n, n_treatment=n, variance_control=1.0, variance_treatment=3.0, correlation=0.4
    )
    assert back == pytest.approx(0.2)


def history(correlation: float = 0.0, n: int = 4000) -> Moments:
    """Practice minutes of past learners, mean 30 and standard deviation 30."""
    rng = np.random.default_rng(6)
    x = rng.normal(0, 1, n)
    y = 30 + 30 * (correlation * x + np.sqrt(1 - correlation**2) * rng.normal(0, 1, n))
    return Moments.of(zip(y.tolist(), [1.0] * n, x.tolist(), strict=True))


def test_the_plan_of_the_original_design() -> None:
    # 15 % of a mean with coefficient of variation 1: 2 · 15.7 / .0225 learners in all.
    plan = plan_sample(history(), target_lift=0.15, learners_per_day=100, duration_days=30)
    assert plan.planned_sample == pytest.approx(1395, rel=0.1)
    assert plan.days == pytest.approx(plan.planned_sample / 100, rel=0.01)
    assert plan.enough_time
    assert plan.detectable_lift < 0.15
    assert not plan_sample(history(), target_lift=0.15, learners_per_day=10, duration_days=30).enough_time


def test_uneven_shares_more_arms_and_covariates_move_the_plan_the_right_way() -> None:
    ask = partial(plan_sample, target_lift=0.1, learners_per_day=100.0, duration_days=30.0)
    even, related = ask(history()), history(0.7)
    assert ask(history(), share_control=0.8, share_treatment=0.2).planned_sample > 1.5 * even.planned_sample
    several = ask(history(), share_control=0.25, share_treatment=0.25, comparisons=3)
    assert several.planned_sample > 1.2 * even.planned_sample
    saved = ask(related, use_covariate=True).planned_sample / ask(related).planned_sample
    assert saved == pytest.approx(0.51, abs=0.04)


def test_a_planned_sample_has_its_power() -> None:
    rng = np.random.default_rng(8)
    n = int(sample_size_per_arm(effect=0.5, variance_control=1.0, variance_treatment=4.0))
    gap = rng.normal(0.5, 2.0, (4000, n)).mean(axis=1) - rng.normal(0.0, 1.0, (4000, n)).mean(axis=1)
    assert (np.abs(gap) > 1.96 * np.sqrt(5.0 / n)).mean() == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"effect": 0.0}, "effect must be finite and other than 0, got 0"),
        ({"variance_control": 0.0}, "variance_control must be positive and finite, got 0"),
        ({"power": 1.0}, "power must be between 0 and 1"),
        ({"correlation": 1.0}, "correlation must be between -1 and 1"),
    ],
)
def test_sizes_out_of_bounds_are_refused(change: dict[str, float], text: str) -> None:
    good = {"effect": 0.5, "variance_control": 1.0, "variance_treatment": 1.0}
    with pytest.raises(ValueError, match=text):
        sample_size_per_arm(**{**good, **change})


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"target_lift": 0.0}, "target_lift must be finite and other than 0"),
        ({"learners_per_day": 0.0}, "learners_per_day must be positive"),
        ({"share_control": 0.7}, "shares must sum to at most 1"),
        ({"comparisons": 0}, "comparisons must be at least 1"),
        ({"history": Moments.of([1.0])}, "history needs at least 2 learners, got 1"),
        ({"history": Moments.of([1.0, -1.0])}, "history needs a mean other than 0"),
        ({"history": Moments.of([1.0, 1.0])}, "variance of history must be positive"),
    ],
)
def test_plans_out_of_bounds_are_refused(change: dict[str, object], text: str) -> None:
    good: dict[str, object] = {
        "history": history(n=10), "target_lift": 0.1, "learners_per_day": 9.0, "duration_days": 3.0
    }  # fmt: skip
    setting = {**good, **change}
    with pytest.raises(ValueError, match=text):
        plan_sample(setting.pop("history"), **setting)  # type: ignore[arg-type]

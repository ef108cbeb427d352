"""Estimates against published answers, and in the corners where nothing can be said yet."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special

from engine.experiments.estimates import (
    MeanEstimate,
    adjusted_variance,
    difference,
    effect_size,
    linearised_variance,
    margin_contrast,
    mean_estimate,
    noncentrality,
    relative_lift,
)
from engine.experiments.moments import Moments
from engine.experiments.sequential import always_valid_p, half_width

NEAR = 1e-5
# Sums of the two arms in GrowthBook's test suite (MIT).
SUMS_A = {"total": 1396.87, "total_of_squares": 52377.9767}
B = Moments.from_sums(n=3461, total=2422.7, total_of_squares=134698.29)


def estimate(moments: Moments) -> MeanEstimate:
    return mean_estimate(n=moments.n, mean=moments.mean, variance=moments.variance)


def test_relative_lift_known_answer() -> None:
    lift = relative_lift(estimate(Moments.from_sums(n=3407, **SUMS_A)), estimate(B))
    assert lift.lift == pytest.approx(0.70732, abs=NEAR)
    assert (lift.lower, lift.upper) == pytest.approx((-0.03526, 1.44989), abs=NEAR)
    assert lift.p == pytest.approx(0.06191, abs=NEAR)


def test_absolute_difference_known_answer() -> None:
    diff = difference(estimate(Moments.from_sums(n=3407, **SUMS_A)), estimate(B))
    assert diff.effect == pytest.approx(0.29, abs=NEAR)
    assert (diff.lower, diff.upper) == pytest.approx((0.04538, 0.53462), abs=NEAR)
    assert diff.p == pytest.approx(0.02016, abs=NEAR)


def test_proportions_known_answer() -> None:
    arms = [mean_estimate(n=n, mean=k / n, variance=k / n * (1 - k / n)) for k, n in ((14, 28), (16, 30))]
    lift = relative_lift(*arms)
    assert (lift.lower, lift.upper) == pytest.approx((-0.47767, 0.61101), abs=NEAR)
    assert lift.p == pytest.approx(0.80707, abs=NEAR)


def test_sequential_lift_known_answer() -> None:
    lift = relative_lift(estimate(Moments.from_sums(n=3000, **SUMS_A)), estimate(B))
    width = half_width(lift.se, 6461, alpha=0.05, planned=1000)
    assert lift.lift == pytest.approx(0.50336, abs=NEAR)
    assert (lift.lift - width, lift.lift + width) == pytest.approx((-0.55844, 1.56516), abs=NEAR)
    assert always_valid_p(lift.lift, lift.se, 6461, alpha=0.05, planned=1000) == 1.0


def test_hedges_g_known_answer() -> None:
    size = effect_size(effect=1.5, var_c=4.0, var_t=4.0, n_c=20, n_t=20)
    assert size.d == pytest.approx(0.75)
    assert size.g == pytest.approx(0.73508, abs=NEAR)
    assert size.g_lower < size.g < size.g_upper


@given(st.floats(-35.0, 35.0), st.floats(8.0, 1e6), st.sampled_from([0.005, 0.025, 0.5, 0.975, 0.995]))
@settings(max_examples=100)
def test_noncentrality_inverts_the_distribution(t: float, df: float, probability: float) -> None:
    lam = noncentrality(t, df, probability)
    assert special.nctdtr(df, lam, t) == pytest.approx(probability, abs=1e-7)


def test_beyond_the_reach_of_the_distribution_the_bounds_are_wide_not_wrong() -> None:
    # Five learners and a t of 33.5, where scipy's noncentral t answers NaN near the lower bound.
    low, high = noncentrality(33.5, 3.0, [0.995, 0.005])
    assert special.nctdtr(3.0, high, 33.5) == pytest.approx(0.005, abs=1e-7)
    assert -np.inf < low < 1.0
    assert noncentrality(-33.5, 3.0, 0.005) == pytest.approx(-low)


def test_one_call_for_many_is_many_calls() -> None:
    rng = np.random.default_rng(1)
    n, mean, variance = rng.integers(5, 900, (2, 6)), rng.normal(3, 1, (2, 6)), rng.gamma(2, 2, (2, 6))
    control, treatment = (mean_estimate(n=n[i], mean=mean[i], variance=variance[i]) for i in (0, 1))
    together, lifts = difference(control, treatment), relative_lift(control, treatment)
    for i in range(6):
        pair = [mean_estimate(n=n[a, i], mean=mean[a, i], variance=variance[a, i]) for a in (0, 1)]
        assert difference(*pair).p == together.p[i]
        assert relative_lift(*pair).log_upper == lifts.log_upper[i]


def test_tiny_p_values_do_not_underflow_to_zero() -> None:
    control = mean_estimate(n=1000, mean=0.0, variance=1.0)
    treatment = mean_estimate(n=1000, mean=0.6, variance=1.0)
    assert 0.0 < difference(control, treatment).p < 1e-30


@pytest.mark.parametrize(("n", "variance"), [(0, 1.0), (1, 1.0), (50, 0.0)])
def test_what_cannot_be_estimated_is_unbounded_and_not_significant(n: int, variance: float) -> None:
    control = mean_estimate(n=n, mean=1.0, variance=variance)
    treatment = mean_estimate(n=n, mean=2.0, variance=variance)
    diff, lift = difference(control, treatment), relative_lift(control, treatment)
    assert diff.p == lift.p == 1.0
    assert [*map(float, (diff.lower, diff.upper, lift.lower, lift.upper))] == [-np.inf, np.inf] * 2
    size = effect_size(effect=1.0, var_c=variance, var_t=variance, n_c=n, n_t=n)
    assert np.isnan(size.g)
    assert [float(size.g_lower), float(size.g_upper)] == [-np.inf, np.inf]


def test_lift_from_a_control_of_zero_is_unknown_not_an_error() -> None:
    control = mean_estimate(n=50, mean=0.0, variance=1.0)
    lift = relative_lift(control, mean_estimate(n=50, mean=1.0, variance=1.0))
    assert np.isnan(lift.lift)
    assert [float(lift.lower), float(lift.log_upper)] == [-np.inf, np.inf]


def test_ratio_variance_is_that_of_the_linearised_learner() -> None:
    rng = np.random.default_rng(2)
    d = rng.poisson(5, 500) + 1.0
    m = rng.binomial(d.astype(int), 0.3).astype(float)
    ratio = m.mean() / d.mean()
    direct = np.var((m - ratio * d) / d.mean(), ddof=1)
    cov = np.cov(m, d)
    ours = linearised_variance(
        ratio=ratio, mean_d=d.mean(), var_m=cov[0, 0], var_d=cov[1, 1], cov_md=cov[0, 1]
    )
    assert ours == pytest.approx(direct, rel=1e-12)


def test_best_theta_leaves_the_unexplained_share() -> None:
    # var(Y) = 4, var(X) = 1, correlation 0.7, so theta = 1.4 leaves 1 - 0.49 of the variance.
    assert adjusted_variance(var_y=4.0, var_x=1.0, cov_yx=1.4, theta=1.4) == pytest.approx(4.0 * 0.51)


def test_margin_contrast_is_zero_exactly_at_the_margin() -> None:
    control = mean_estimate(n=100, mean=10.0, variance=4.0)
    for sign, mean in ((1.0, 9.0), (-1.0, 11.0)):
        value, se = margin_contrast(
            control, mean_estimate(n=100, mean=mean, variance=4.0), sign=sign, margin=0.1
        )
        assert value == pytest.approx(0.0)
        assert se > 0.0


def test_alpha_outside_its_bounds_is_refused_by_name_and_value() -> None:
    arm = mean_estimate(n=10, mean=1.0, variance=1.0)
    for refused in (difference, relative_lift):
        with pytest.raises(ValueError, match=r"alpha must be between 0 and 1.*got 1\.5"):
            refused(arm, arm, alpha=1.5)

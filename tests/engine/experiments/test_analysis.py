"""One look: estimates by metric and arm, strata, adjustment, running minima, concerns."""

import math
from dataclasses import replace

import numpy as np
import pytest

from engine.experiments.analysis import analyse
from engine.experiments.estimates import difference, mean_estimate
from engine.experiments.moments import EMPTY, Moments, Observation
from engine.experiments.plan import Kind, MetricPlan, PhaseSnapshot, Role, Running
from engine.experiments.results import Concern
from tests.engine.experiments.worlds import ARMS, PRIMARY, exact, look, means, phase, plan

NEW = ARMS[1]


def related(rng: np.random.Generator, n: int, lift: float, correlation: float = 0.7) -> list[Observation]:
    """Learners with mean 30, standard deviation 10, and a covariate of mean 5 with this correlation."""
    x = rng.normal(0.0, 1.0, n)
    y = 30.0 + lift + 10.0 * (correlation * x + math.sqrt(1 - correlation**2) * rng.normal(0.0, 1.0, n))
    return list(zip(y.tolist(), [1.0] * n, (5.0 + x).tolist(), strict=True))


def test_one_phase_is_the_plain_welch_test() -> None:
    found = analyse(plan(), means(30.0, 31.0)).comparison(PRIMARY.name, NEW)
    direct = difference(*(mean_estimate(n=500, mean=m, variance=100.0) for m in (30.0, 31.0)))
    assert found.effect == pytest.approx(1.0)
    assert [found.se, found.df, found.p] == pytest.approx([*map(float, (direct.se, direct.df, direct.p))])
    assert found.interval == pytest.approx((float(direct.lower), float(direct.upper)))
    assert found.lift == pytest.approx(1.0 / 30.0)
    assert found.cohens_d == pytest.approx(0.1)
    assert found.hedges_g_interval.lower < found.hedges_g < found.hedges_g_interval.upper
    assert found.sequence.lower < found.interval.lower < found.interval.upper < found.sequence.upper


def test_a_changed_split_does_not_turn_into_an_effect() -> None:
    # No effect in either phase, but learners of the second are better and mostly treated.
    phases = [
        phase({PRIMARY.name: [exact(900, 20.0), exact(100, 20.0)]}, [0.9, 0.1]),
        phase({PRIMARY.name: [exact(100, 40.0), exact(900, 40.0)]}, [0.1, 0.9]),
    ]
    results = analyse(plan(), look(*phases))
    found = results.comparison(PRIMARY.name, NEW)
    assert found.effect == pytest.approx(0.0, abs=1e-9)
    assert results.sample_ratio.p == 1.0
    pooled = {arm.arm: arm.mean for arm in results.arm_means}
    assert pooled[NEW] - pooled[ARMS[0]] == pytest.approx(16.0)


def test_equal_phases_together_are_as_good_as_one() -> None:
    one = analyse(plan(), look(phase({PRIMARY.name: [exact(1000, 30.0), exact(1000, 31.0)]})))
    half = phase({PRIMARY.name: [exact(500, 30.0), exact(500, 31.0)]})
    two = analyse(plan(), look(half, half))
    assert two.comparisons[0].se == pytest.approx(one.comparisons[0].se, rel=1e-3)
    assert two.comparisons[0].df == pytest.approx(one.comparisons[0].df, rel=2e-3)


def test_a_phase_without_two_learners_in_each_arm_is_left_out_and_said() -> None:
    phases = [
        phase({PRIMARY.name: [exact(500, 30.0), exact(500, 30.0)]}),
        phase({PRIMARY.name: [exact(40, 31.0), exact(1, 31.0)]}),
    ]
    found = analyse(plan(), look(*phases)).comparisons[0]
    assert (found.n_control, found.n_treatment) == (500, 500)
    assert found.effect == pytest.approx(0.0)
    assert [c.concern for c in found.cautions] == [Concern.PHASE_LEFT_OUT]
    assert "41 learners" in found.cautions[0].sentence


def test_the_covariate_saves_half_and_leaves_the_effect_in_place() -> None:
    rng = np.random.default_rng(1)
    moments = {PRIMARY.name: [Moments.of(related(rng, 3000, lift)) for lift in (0.0, 1.0)]}
    metric = replace(PRIMARY, use_covariate=True)
    plain, adjusted = (analyse(plan(m), look(phase(moments))).comparisons[0] for m in (PRIMARY, metric))
    assert plain.variance_saved == 0.0
    assert adjusted.variance_saved == pytest.approx(0.49, abs=0.04)
    assert adjusted.se == pytest.approx(plain.se * math.sqrt(1 - adjusted.variance_saved))
    assert abs(adjusted.effect - 1.0) < 3 * adjusted.se
    assert adjusted.mean_control == pytest.approx(30.0, abs=0.6)


def test_a_constant_covariate_changes_nothing() -> None:
    metric = replace(PRIMARY, use_covariate=True)
    plain, adjusted = (analyse(plan(m), means(30.0, 31.0)).comparisons[0] for m in (PRIMARY, metric))
    assert adjusted.se == plain.se
    assert adjusted.variance_saved == 0.0


def test_ratios_are_of_sums_not_of_learners() -> None:
    clicks = MetricPlan(name="click_through", kind=Kind.RATIO)
    arms = [
        Moments.of([(1.0, 10.0, 0.0), (5.0, 10.0, 0.0), (0.0, 80.0, 0.0)]),
        Moments.of([(2.0, 10.0, 0.0), (9.0, 30.0, 0.0), (4.0, 60.0, 0.0)]),
    ]
    results = analyse(plan(clicks), look(phase({PRIMARY.name: [exact(3, 1.0)] * 2, clicks.name: arms})))
    found = results.comparison(clicks.name, NEW)
    assert (found.mean_control, found.mean_treatment) == pytest.approx((0.06, 0.15))
    assert [arm.mean for arm in results.arm_means if arm.metric == clicks.name] == pytest.approx([0.06, 0.15])


def test_a_proportion_has_the_variance_of_its_mean() -> None:
    metric = replace(PRIMARY, kind=Kind.PROPORTION)
    arms = [Moments.of([1.0] * k + [0.0] * (n - k)) for k, n in ((14, 28), (16, 30))]
    found = analyse(plan(metric), look(phase({metric.name: arms}))).comparisons[0]
    assert found.lift_interval == pytest.approx((-0.47767, 0.61101), abs=1e-5)
    assert found.se == pytest.approx(math.sqrt(0.25 / 28 + 16 * 14 / 900 / 30))


def test_running_p_values_only_fall() -> None:
    first = analyse(plan(), means(30.0, 32.0))
    low = first.comparisons[0].running_p
    assert low == first.comparisons[0].sequential_p < 1.0
    later = analyse(plan(), replace(means(30.0, 30.0), running=first.running)).comparisons[0]
    assert later.sequential_p == 1.0
    assert later.running_p == low


def test_nothing_sequential_before_the_minimum_nor_for_open_ended_metrics() -> None:
    few = analyse(plan(), means(30.0, 60.0, n=99)).comparisons[0]
    endless = analyse(plan(replace(PRIMARY, open_ended=True)), means(30.0, 60.0)).comparisons[0]
    for found in (few, endless):
        assert found.running_p == 1.0
        assert found.sequence == (-math.inf, math.inf)
        assert found.p < 1e-6
    assert [c.concern for c in endless.cautions] == [Concern.OPEN_ENDED]
    assert few.cautions == ()


def test_secondary_metrics_are_corrected_by_rate_and_guardrails_by_family() -> None:
    names = ["a", "b", "c"]
    snapshot = look(
        phase(
            {name: [exact(500, 30.0), exact(500, 31.0 + i)] for i, name in enumerate([PRIMARY.name, *names])}
        )
    )
    rate = analyse(plan(*(MetricPlan(name=n) for n in names)), snapshot)
    family = analyse(plan(*(MetricPlan(name=n, role=Role.GUARDRAIL) for n in names)), snapshot)
    p = [rate.comparison(n, NEW).p for n in names]
    assert [rate.comparison(n, NEW).p_adjusted for n in names] == pytest.approx([p[0], 1.5 * p[1], 3 * p[2]])
    assert [family.comparison(n, NEW).p_adjusted for n in names] == pytest.approx([p[0], 2 * p[1], 3 * p[2]])
    assert rate.comparison(PRIMARY.name, NEW).p_adjusted == rate.comparison(PRIMARY.name, NEW).p


def test_harm_is_judged_for_guardrails_only_and_against_their_margin() -> None:
    metrics = [
        MetricPlan(name="strict", role=Role.GUARDRAIL),
        MetricPlan(name="lenient", role=Role.GUARDRAIL, margin=0.2),
        MetricPlan(name="errors", role=Role.GUARDRAIL, higher_is_better=False),
        MetricPlan(name="other"),
    ]
    worse = [exact(500, 30.0), exact(500, 26.0)]
    results = analyse(plan(*metrics), look(phase({PRIMARY.name: worse} | {m.name: worse for m in metrics})))
    harm = {c.metric: c.harm_p for c in results.comparisons}
    assert harm["strict"] is not None
    assert harm["strict"] < 0.001
    assert (harm["lenient"], harm["errors"], harm["other"]) == (1.0, 1.0, None)


def test_concerns_are_said_in_words() -> None:
    skewed = look(phase({PRIMARY.name: [exact(500, 30.0, skewed=True), exact(500, 30.0, skewed=True)]}))
    near_zero = means(0.1, 0.2)
    assert [c.concern for c in analyse(plan(), skewed).comparisons[0].cautions] == [Concern.SMALL_FOR_SKEW]
    assert [c.concern for c in analyse(plan(), near_zero).comparisons[0].cautions] == [Concern.LIFT_UNSTABLE]
    moments = {PRIMARY.name: [exact(500, 30.0), exact(800, 30.0)]}
    results = analyse(plan(), look(phase(moments, assigned=[1000, 1000])))
    assert [c.concern for c in results.cautions] == [Concern.SAMPLE_RATIO, Concern.UNEQUAL_EXPOSURE]


def test_an_experiment_without_learners_can_be_asked() -> None:
    for snapshot in (
        look(elapsed_days=0.0),
        look(phase({PRIMARY.name: [EMPTY, EMPTY]})),
        look(PhaseSnapshot(weights=[1, 1], exposed=[0, 0], moments={})),
    ):
        results = analyse(plan(), snapshot)
        assert results.sample == 0
        assert results.comparisons[0].p == 1.0
        assert math.isnan(results.comparisons[0].lift)
        assert results.arm_means[0].interval == (-math.inf, math.inf)


def test_days_to_decision_follow_the_rate_and_end_with_the_duration() -> None:
    assert analyse(plan(), means(30.0, 30.0)).days_to_decision == pytest.approx(10.0)
    assert analyse(plan(), means(30.0, 30.0, n=50)).days_to_decision == pytest.approx(20.0)
    assert analyse(plan(), means(30.0, 30.0, n=1000)).days_to_decision == 0.0
    assert analyse(plan(), look(elapsed_days=0.0)).days_to_decision is None
    first_minute = replace(means(30.0, 30.0, n=5), elapsed_days=0.001)
    assert analyse(plan(), first_minute).days_to_decision is None, "a burst is no rate"
    assert analyse(plan(), replace(means(30.0, 30.0, n=1000), elapsed_days=0.001)).days_to_decision == 0.0
    assert analyse(plan(), look(elapsed_days=99.0)).days_to_decision == 0.0


def test_control_and_each_treatment_are_compared_on_their_own() -> None:
    arms = ("old", "b", "c")
    results = analyse(plan(arms=arms), means(30.0, 31.0, 33.0))
    assert [results.comparison(PRIMARY.name, arm).effect for arm in arms[1:]] == pytest.approx([1.0, 3.0])
    with pytest.raises(KeyError, match="practice_minutes in old"):
        results.comparison(PRIMARY.name, "old")


def test_snapshots_that_do_not_fit_the_plan_are_refused() -> None:
    with pytest.raises(ValueError, match="must have 2 entries, got 3"):
        analyse(plan(), means(1.0, 2.0, 3.0))
    with pytest.raises(ValueError, match=r"not planned: \['other'\]"):
        analyse(plan(), look(phase({"other": [EMPTY, EMPTY]})))


def test_a_plan_names_all_its_faults_at_once() -> None:
    with pytest.raises(
        ValueError, match=r"exactly 1 primary.*planned_sample must.*alpha must be.*margin of x"
    ) as caught:
        plan(PRIMARY, replace(PRIMARY, name="x", margin=1.0), planned_sample=0, alpha=0.0)
    assert "arms" not in str(caught.value)


def test_results_do_not_depend_on_the_order_of_earlier_minima() -> None:
    running = Running(effect={("gone", "x"): 0.5})
    found = analyse(plan(), replace(means(30.0, 32.0), running=running))
    assert set(found.running.effect) == {(PRIMARY.name, NEW)}

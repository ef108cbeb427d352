"""The same numbers as tea-tasting and statsmodels, on experiments drawn at random."""

from typing import Any

import numpy as np
import pytest

from engine.experiments.analysis import analyse
from engine.experiments.checks import benjamini_hochberg, holm
from engine.experiments.estimates import difference, mean_estimate, relative_lift
from engine.experiments.moments import Moments
from engine.experiments.plan import Kind, MetricPlan, Role
from engine.experiments.planning import power_of_t_test, sample_size_t_test
from tests.engine.experiments.worlds import ARMS, look, phase, plan

WHY = "an oracle only: pip install tea-tasting statsmodels"


@pytest.fixture(scope="module")
def tea() -> Any:
    return pytest.importorskip("tea_tasting", reason=WHY)


def aggregates(tea: Any, moments: Moments) -> Any:
    c = moments.centred()
    below = c.n - 1
    return tea.aggr.Aggregates(
        count_=c.n,
        mean_={"v": c.mean_v, "d": c.mean_d, "x": c.mean_x},
        var_={"v": c.s_vv / below, "d": c.s_dd / below, "x": c.s_xx / below},
        cov_={("d", "v"): c.s_vd / below, ("v", "x"): c.s_vx / below, ("d", "x"): c.s_dx / below},
    )


@pytest.mark.parametrize("use_covariate", [False, True])
@pytest.mark.parametrize("kind", [Kind.MEAN, Kind.RATIO])
def test_whole_analyses_agree_with_tea_tasting(tea: Any, kind: Kind, use_covariate: bool) -> None:
    rng = np.random.default_rng([len(kind), use_covariate])
    metric = MetricPlan(name="m", role=Role.PRIMARY, kind=kind, use_covariate=use_covariate)
    theirs_metric = tea.RatioOfMeans("v", "d" if kind is Kind.RATIO else None, "x" if use_covariate else None)
    for _ in range(25):
        arms = []
        for n in rng.integers(5, 120, 2):
            x = rng.normal(10, 3, n)
            d = rng.poisson(5, n) + 1.0
            y = x + rng.exponential(4, n) + d
            arms.append(Moments.of(list(zip(y.tolist(), d.tolist(), x.tolist(), strict=True))))
        ours = analyse(plan(metric), look(phase({"m": arms}))).comparison("m", ARMS[1])
        theirs = theirs_metric.analyze_aggregates(*(aggregates(tea, arm) for arm in arms))
        assert [
            ours.mean_control, ours.mean_treatment, ours.effect, *ours.interval, ours.lift,
            *ours.lift_log_interval, ours.p, ours.effect / ours.se,
        ] == pytest.approx(
            [
                theirs.control, theirs.treatment, theirs.effect_size, theirs.effect_size_ci_lower,
                theirs.effect_size_ci_upper, theirs.rel_effect_size, theirs.rel_effect_size_ci_lower,
                theirs.rel_effect_size_ci_upper, theirs.pvalue, theirs.statistic,
            ],
            rel=1e-9,
        )  # fmt: skip


def test_random_moment_sets_agree_with_tea_tasting(tea: Any) -> None:
    # bench/experiments.py does the same with 10,000.
    rng = np.random.default_rng(9)
    n, mean, variance = rng.integers(2, 5000, (2, 300)), rng.gamma(3, 2, (2, 300)), rng.gamma(2, 2, (2, 300))
    arms = [mean_estimate(n=n[i], mean=mean[i], variance=variance[i]) for i in (0, 1)]
    diff, lift = difference(*arms), relative_lift(*arms)
    metric = tea.Mean("v")
    for i in range(300):
        both = [
            tea.aggr.Aggregates(count_=n[a, i], mean_={"v": mean[a, i]}, var_={"v": variance[a, i]})
            for a in (0, 1)
        ]
        theirs = metric.analyze_aggregates(*both)
        assert [diff.lower[i], diff.upper[i], diff.p[i], lift.log_lower[i], lift.log_upper[i]] == pytest.approx(
            [
                theirs.effect_size_ci_lower, theirs.effect_size_ci_upper, theirs.pvalue,
                theirs.rel_effect_size_ci_lower, theirs.rel_effect_size_ci_upper,
            ],
            rel=1e-9,
        )  # fmt: skip


def test_corrections_and_power_agree_with_statsmodels() -> None:
    multi = pytest.importorskip("statsmodels.stats.multitest", reason=WHY)
    power = pytest.importorskip("statsmodels.stats.power", reason=WHY)
    rng = np.random.default_rng(10)
    for size in (1, 2, 9):
        p = rng.random(size) ** 3
        assert holm(p) == pytest.approx(multi.multipletests(p, method="holm")[1], rel=1e-12)
        assert benjamini_hochberg(p) == pytest.approx(multi.multipletests(p, method="fdr_bh")[1], rel=1e-12)
    for d in (0.2, 0.5, 1.0):
        test = power.TTestIndPower()
        assert sample_size_t_test(d=d) == pytest.approx(test.solve_power(d, alpha=0.05, power=0.8), rel=1e-6)
        assert power_of_t_test(d=d, n_per_arm=40) == pytest.approx(test.power(d, 40, 0.05), rel=1e-9)

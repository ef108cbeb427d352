"""Verdicts in worlds whose answer is obvious."""

from dataclasses import replace

import numpy as np
import pytest

from engine.experiments.analysis import analyse
from engine.experiments.moments import EMPTY
from engine.experiments.plan import Decision, ExperimentPlan, MetricPlan, Role, Snapshot, Verdict
from engine.experiments.sequential import always_valid_p
from tests.engine.experiments.worlds import ARMS, HALF, PRIMARY, exact, look, means, phase, plan

OLD, NEW = ARMS
GUARDRAIL = MetricPlan(name="accuracy", role=Role.GUARDRAIL, margin=0.02)


def verdict(made: ExperimentPlan, snapshot: Snapshot) -> Decision:
    return analyse(made, snapshot).decision


@pytest.mark.parametrize(
    ("snapshot", "expected", "arm"),
    [
        (means(30.0, 31.0, n=200), Verdict.CONTINUE, None),
        (means(30.0, 35.0), Verdict.SHIP, NEW),
        (means(30.0, 25.0), Verdict.STOP_HARM, NEW),
        (means(30.0, 29.4, n=900), Verdict.STOP_FUTILE, None),
        (means(30.0, 31.2, n=HALF), Verdict.SHIP, NEW),
        (means(30.0, 28.8, n=HALF), Verdict.STOP_HARM, NEW),
        (means(30.0, 30.2, n=HALF, sd=30.0), Verdict.STOP_FUTILE, None),
        (replace(means(30.0, 30.5, n=50), elapsed_days=30.0), Verdict.STOP_FUTILE, None),
        (look(elapsed_days=1.0), Verdict.CONTINUE, None),
    ],
    ids=[
        "early",
        "ship",
        "harm",
        "futile",
        "ship at end",
        "harm at end",
        "nothing at end",
        "time up",
        "empty",
    ],
)
def test_obvious_worlds(snapshot: Snapshot, expected: Verdict, arm: str | None) -> None:
    found = verdict(plan(), snapshot)
    assert (found.verdict, found.arm) == (expected, arm)
    assert found.final == (expected is not Verdict.CONTINUE)


def test_the_sentence_says_what_to_do_and_how_sure_it_is() -> None:
    assert verdict(plan(), means(30.0, 35.0)).sentence == (
        "Ship collaborative_filtering_v2: practice_minutes is +16.7 % (always-valid 99 % interval "
        "+8.4 % to +24.9 %) against content_based_v1."
    )
    assert verdict(plan(), means(30.0, 29.4, n=900)).sentence.startswith(
        "Stop: an improvement of 5 % in practice_minutes is ruled out"
    )
    assert verdict(plan(), means(30.0, 30.4, n=200)).sentence.startswith(
        "Continue: 400 of 2000 learners are in"
    )


def test_what_has_ended_is_not_told_to_go_on() -> None:
    found = verdict(plan(), replace(means(30.0, 30.4, n=200), ended=True))
    assert found.verdict is Verdict.CONTINUE
    assert found.sentence == "Ended before anything was shown: 400 of 2000 learners were in."
    assert verdict(plan(), replace(means(30.0, 35.0), ended=True)).verdict is Verdict.SHIP


def test_less_can_be_better() -> None:
    made = plan(replace(PRIMARY, higher_is_better=False))
    assert verdict(made, means(30.0, 25.0)).verdict is Verdict.SHIP
    assert verdict(made, means(30.0, 35.0)).verdict is Verdict.STOP_HARM
    assert verdict(made, means(30.0, 30.6, n=900)).verdict is Verdict.STOP_FUTILE


def harmed(by: float, n: int = 500) -> Snapshot:
    return look(
        phase(
            {
                PRIMARY.name: [exact(n, 30.0), exact(n, 36.0)],
                GUARDRAIL.name: [exact(n, 30.0), exact(n, 30.0 - by)],
            }
        )
    )


def test_a_harmed_guardrail_rolls_back_even_a_success() -> None:
    found = verdict(plan(GUARDRAIL), harmed(6.0))
    assert (found.verdict, found.arm) == (Verdict.ROLLED_BACK, NEW)
    assert found.sentence.startswith(
        "Rolled back to content_based_v1: collaborative_filtering_v2 harms accuracy by more than the 2 % allowed "
        "(now -20.0 %"
    )
    assert verdict(plan(GUARDRAIL), harmed(0.5)).verdict is Verdict.SHIP
    assert verdict(plan(GUARDRAIL), harmed(6.0, n=99)).verdict is Verdict.CONTINUE


def test_harm_once_shown_is_not_forgotten() -> None:
    made = plan(GUARDRAIL)
    first = analyse(made, harmed(6.0))
    assert verdict(made, replace(harmed(0.0), running=first.running)).verdict is Verdict.ROLLED_BACK


def test_arms_filled_unevenly_make_the_rest_void() -> None:
    uneven = look(phase({PRIMARY.name: [exact(3000, 30.0), exact(3500, 40.0)]}))
    found = verdict(plan(planned_sample=20_000), uneven)
    assert found.verdict is Verdict.INVALID
    assert "planned ratio" in found.sentence
    # The plain chi-square speaks at the planned end only, where it is looked at once.
    slightly = phase({PRIMARY.name: [exact(900, 30.0), exact(1080, 30.5)]})
    assert verdict(plan(planned_sample=20_000), look(slightly)).verdict is Verdict.CONTINUE
    assert verdict(plan(planned_sample=1980), look(slightly)).verdict is Verdict.INVALID


def test_open_ended_metrics_decide_at_the_planned_end_only() -> None:
    made = plan(replace(PRIMARY, open_ended=True))
    assert verdict(made, means(30.0, 40.0)).verdict is Verdict.CONTINUE
    assert verdict(made, means(30.0, 40.0, n=HALF)).verdict is Verdict.SHIP


def test_a_final_verdict_stands() -> None:
    shipped = verdict(plan(), means(30.0, 35.0))
    assert verdict(plan(), replace(means(30.0, 20.0), standing=shipped)) == shipped


def test_the_best_of_several_arms_is_shipped_and_all_must_fail_to_stop() -> None:
    made = plan(arms=("old", "b", "c"))
    best = verdict(made, means(30.0, 35.0, 37.0))
    assert (best.verdict, best.arm) == (Verdict.SHIP, "c")
    assert verdict(made, means(30.0, 25.0, 30.5)).verdict is Verdict.CONTINUE
    assert verdict(made, means(30.0, 25.0, 26.0)).verdict is Verdict.STOP_HARM


def test_several_arms_share_the_sequential_alpha() -> None:
    # A p-value between .005 and .01 ships one arm, but not when two arms were tried.
    effect = next(
        e
        for e in np.arange(2.0, 4.0, 0.01)
        if 0.005 < always_valid_p(e, (200.0 / 500) ** 0.5, 1000, alpha=0.01, planned=2000) < 0.01
    )
    assert verdict(plan(), means(30.0, 30.0 + effect)).verdict is Verdict.SHIP
    two = plan(arms=("old", "b", "c"))
    assert verdict(two, means(30.0, 30.0 + effect, 30.0)).verdict is Verdict.CONTINUE


def test_learners_without_the_primary_metric_do_not_bring_the_end_nearer() -> None:
    made = plan(MetricPlan(name="other"))
    snapshot = look(phase({"other": [exact(HALF, 1.0)] * 2, PRIMARY.name: [EMPTY, EMPTY]}))
    assert verdict(made, snapshot).verdict is Verdict.CONTINUE


@pytest.mark.parametrize("seed", range(5))
def test_a_true_null_watched_to_the_end_is_called_futile(seed: int) -> None:
    rng = np.random.default_rng(seed)
    made = plan()
    arms, snapshot = [EMPTY, EMPTY], look(elapsed_days=0.0)
    for event in range(2 * HALF + 200):
        arm = int(rng.random() < 0.5)
        arms[arm] = arms[arm].add(30.0 + 10.0 * float(rng.standard_normal()))
        if event % 50 == 0 or event >= 2 * HALF:
            results = analyse(
                made, replace(look(phase({PRIMARY.name: list(arms)})), running=snapshot.running)
            )
            snapshot = replace(snapshot, running=results.running)
            if results.decision.final:
                break
    assert results.decision.verdict is Verdict.STOP_FUTILE

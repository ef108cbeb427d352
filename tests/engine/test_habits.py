"""Streak, daily goal and consistency from days of answers."""

import numpy as np
import pytest

from engine import habits
from engine.learner import LearnerModel, LearnerState, absorb
from engine.types import AnswerBatch

DAY = 86_400.0
START = 20_000


def practised(days: dict[int, float], correct: list[int] | None = None) -> LearnerState:
    """A learner who practised so many minutes on the days START + key, in one answer each."""
    n = len(days)
    chosen = sorted(days)
    batch = AnswerBatch(
        question=np.arange(n, dtype=np.uint32),
        correct=np.array([1] * n if correct is None else correct, np.uint8),
        answered_at=np.array([(START + day) * DAY + 3_600.0 for day in chosen]),
        base_logit=np.zeros(n, np.float32),
        grade=np.full(n, 3, np.uint8),
        duration_ms=np.array([round(days[day] * 60_000) for day in chosen], np.uint32),
        hints=np.zeros(n, np.uint8),
        local_day=np.array([START + day for day in chosen], np.int32),
        memory_set=np.zeros(n, np.uint16),
        offsets=np.arange(n + 1, dtype=np.int32),
        concept=np.zeros(n, np.uint32),
        weight=np.ones(n, np.float32),
        mastery=np.full(n, np.nan, np.float32),
        mastery_sd=np.full(n, np.nan, np.float32),
    )
    return absorb(LearnerState.empty(), batch, LearnerModel.priors()).state


def test_nobody_has_a_streak_before_the_first_answer() -> None:
    streak = habits.streak(LearnerState.empty(), START)
    assert streak == habits.Streak(0, 0, 0, 0, False, None)


def test_a_streak_is_broken_by_a_missed_day_and_today_is_not_missed_yet() -> None:
    state = practised({0: 5, 1: 5, 2: 5})
    assert habits.streak(state, START + 2) == habits.Streak(3, 3, 0, 0, True, START + 2)
    assert habits.streak(state, START + 3) == habits.Streak(3, 3, 0, 0, False, START + 2)
    assert habits.streak(state, START + 4) == habits.Streak(0, 3, 0, 0, False, START + 2)


def test_a_freeze_earned_carries_the_streak_over_a_missed_day() -> None:
    state = practised(dict.fromkeys(range(7), 5))
    assert habits.streak(state, START + 6).freezes == 1
    carried = habits.streak(state, START + 8)
    assert (carried.current_days, carried.freezes, carried.freezes_spent) == (7, 0, 1)
    assert habits.streak(state, START + 9).current_days == 0


def test_the_goal_is_ten_minutes_until_three_days_are_known() -> None:
    for state in (LearnerState.empty(), practised({0: 60, 1: 60})):
        goal = habits.daily_goal(state, START + 2)
        assert (goal.target_seconds, goal.practised_seconds, goal.adaptive) == (600.0, 0.0, True)


def test_the_goal_is_a_little_above_the_median_day_and_a_break_changes_nothing() -> None:
    state = practised({0: 10, 1: 20, 2: 90, 5: 20})
    soon, later = habits.daily_goal(state, START + 6), habits.daily_goal(state, START + 20)
    assert soon.target_seconds == later.target_seconds == 22 * 60.0


def test_today_does_not_move_its_own_goal() -> None:
    goal = habits.daily_goal(practised({0: 10, 1: 10, 2: 10, 3: 100}), START + 3)
    assert goal.target_seconds == 11 * 60.0
    assert goal.practised_seconds == 6_000.0
    assert goal.progress == 1.0


@pytest.mark.parametrize(("minutes", "target"), [(1, 300.0), (600, 7_200.0)])
def test_the_goal_stays_within_bounds(minutes: float, target: float) -> None:
    state = practised(dict.fromkeys(range(5), minutes))
    assert habits.daily_goal(state, START + 5).target_seconds == target


def test_a_chosen_goal_does_not_adapt() -> None:
    goal = habits.daily_goal(practised({0: 10, 1: 10, 2: 10}), START + 2, chosen_seconds=1_200.0)
    assert (goal.target_seconds, goal.adaptive, goal.progress) == (1_200.0, False, 0.5)


def test_consistency_weighs_recent_weeks_more_and_forgives_two_days_off() -> None:
    first_week = practised(dict.fromkeys(range(5), 5))
    assert habits.consistency(first_week, START + 6, START) is None
    assert habits.consistency(first_week, START + 7, START) == 1.0
    faded = habits.consistency(first_week, START + 14, START)
    assert faded == pytest.approx(0.8 / 1.8)
    back = practised({**dict.fromkeys(range(5), 5), **dict.fromkeys(range(14, 21), 5)})
    assert habits.consistency(back, START + 21, START) == pytest.approx((0.64 + 1.0) / (0.64 + 0.8 + 1.0))


def test_consistency_looks_no_further_back_than_the_state_remembers() -> None:
    state = practised(dict.fromkeys(range(60), 5))
    assert habits.consistency(state, START + 60, START) == 1.0


def test_active_share_counts_from_the_first_answer() -> None:
    state = practised({0: 5, 4: 5, 9: 5})
    assert habits.active_share(state, START + 5, START) is None
    assert habits.active_share(state, START + 9, START) == pytest.approx(0.3)
    assert habits.active_share(state, START + 100, START) == 0.0
    assert habits.active_share(LearnerState.empty(), START, START - 100) is None


@pytest.mark.parametrize(("length", "next_one"), [(0, 3), (3, 7), (99, 100), (100, 365), (365, None)])
def test_the_next_milestone_lies_ahead(length: int, next_one: int | None) -> None:
    assert habits.next_milestone(length) == next_one


def test_milestones_from_a_week_on_earn_a_freeze() -> None:
    assert [habits.freezes_with(milestone) for milestone in (3, 7, 14, 30, 60, 100, 365)] == [
        0,
        1,
        1,
        1,
        1,
        1,
        1,
    ]
    month = practised(dict.fromkeys([*range(24), *range(26, 33)], 5))
    # Two freezes went on days 24 and 25; days 28 and 30 of the streak (25 + 5) earned two anew.
    assert habits.streak(month, START + 32) == habits.Streak(31, 31, 2, 2, True, START + 32)


def risks(days: dict[int, float], today: int) -> list[habits.Risk]:
    return habits.risks(practised(days), START + today)


def test_nobody_is_at_risk_who_keeps_to_the_usual() -> None:
    assert habits.risks(LearnerState.empty(), START) == []
    every_other_day = dict.fromkeys(range(0, 40, 2), 5.0)
    assert risks(every_other_day, 38) == risks(every_other_day, 42) == []


def test_a_streak_without_a_freeze_is_at_risk_until_today_is_practised() -> None:
    assert risks({0: 5, 1: 5, 2: 5}, 3) == [habits.Risk.STREAK_ENDING]
    assert risks({0: 5, 1: 5, 2: 5}, 2) == []
    assert risks({0: 5, 1: 5}, 2) == []
    week = dict.fromkeys(range(7), 5.0)
    assert risks(week, 7) == []  # a freeze in hand covers today
    assert risks(week, 8) == [habits.Risk.STREAK_ENDING]


def test_away_is_longer_than_usual_and_not_gone() -> None:
    daily = dict.fromkeys(range(10), 5.0)
    assert habits.Risk.AWAY not in risks(daily, 12)
    assert habits.Risk.AWAY in risks(daily, 13)
    weekly = {0: 5.0, 7: 5.0, 14: 5.0, 21: 5.0}
    assert risks(weekly, 35) == []
    assert habits.Risk.AWAY in risks(weekly, 36)
    assert risks(daily, 9 + 28) == [habits.Risk.AWAY]
    assert risks(daily, 9 + 29) == []
    assert habits.Risk.AWAY not in risks({0: 5.0}, 7)
    assert habits.Risk.AWAY in risks({0: 5.0}, 8)


def test_declining_is_less_than_half_of_the_two_weeks_before() -> None:
    before = dict.fromkeys(range(0, 14, 2), 10.0)
    assert habits.Risk.DECLINING in risks({**before, 15: 10.0, 20: 10.0, 27: 10.0}, 27)
    assert habits.Risk.DECLINING not in risks({**before, 15: 10.0, 20: 10.0, 25: 10.0, 27: 10.0}, 27)
    assert habits.Risk.DECLINING not in risks({0: 90.0, 1: 90.0, 27: 1.0}, 27)


@pytest.mark.parametrize(("right", "struggling"), [(7, True), (13, False)])
def test_struggling_is_failing_more_than_half(right: int, struggling: bool) -> None:
    outcomes = [1] * right + [0] * (20 - right)
    outcomes = outcomes[::2] + outcomes[1::2]
    state = practised(dict.fromkeys(range(20), 5), correct=outcomes)
    share = habits.recent_accuracy(state)
    weights = [0.95**i for i in range(19, -1, -1)]
    assert share == pytest.approx(
        sum(w * o for w, o in zip(weights, outcomes, strict=True)) / sum(weights), abs=1e-4
    )
    assert (habits.Risk.STRUGGLING in habits.risks(state, START + 19)) == struggling
    assert habits.Risk.STRUGGLING not in habits.risks(
        practised(dict.fromkeys(range(19), 5), correct=[0] * 19), START + 18
    )

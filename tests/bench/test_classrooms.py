"""Classrooms are played as said: baselines do what they are named for, figures are paired, over gRPC as in process."""

from collections.abc import Iterator

import numpy as np
import pytest

from bench.classrooms.baselines import (
    IN_A_ROW,
    STUCK_AFTER,
    PopularTeacher,
    ReviewQueue,
    Textbook,
    UniformTeacher,
)
from bench.classrooms.engine import EngineTeacher, School
from bench.classrooms.figures import Resampled, best_of, column
from bench.classrooms.observer import Observer
from bench.classrooms.play import Course, Outcome, play_course, play_week
from bench.classrooms.staff import Plan, play, play_all, play_remotely
from bench.worlds import WORLDS
from bench.worlds.threshold_growth import ThresholdGrowth
from bench.worlds.world import DAY_S
from engine.policy import BUILT_IN
from tests.server.core import Core, core

BEGINS = 1_750_000_000.0
SHORT = Course(BEGINS, days=2, answers_a_day=5)
WORLD = WORLDS["all_or_none"](7)
CONCEPT = [question.concept_ids[0] for question in WORLD.questions]


@pytest.fixture(scope="module")
def served() -> Iterator[Core]:
    with core(log_level="error") as running:
        yield running


def outcome(gain: float) -> Outcome:
    return Outcome(0.0, gain, 10, 5, 3.0, 2, 1)


def test_the_textbook_goes_on_after_three_right_in_a_row_and_does_not_stick_for_ever() -> None:
    pupil = Textbook(WORLD).pupil(0, None)
    first = CONCEPT[pupil.choose(0.0)]
    assert first == WORLD.concepts[0].concept_id
    for right in (True, True, False, True, True):
        pupil.note(pupil.choose(0.0), right, 1.0, 0.0)
        assert CONCEPT[pupil.choose(0.0)] == first
    pupil.note(pupil.choose(0.0), True, 1.0, 0.0)
    second = CONCEPT[pupil.choose(0.0)]
    assert second == WORLD.concepts[1].concept_id
    for _ in range(STUCK_AFTER):
        assert CONCEPT[pupil.choose(0.0)] == second
        pupil.note(pupil.choose(0.0), False, 1.0, 0.0)
    assert CONCEPT[pupil.choose(0.0)] == WORLD.concepts[2].concept_id


def test_the_textbook_begins_again_at_its_end() -> None:
    pupil = Textbook(WORLD).pupil(0, None)
    for _ in range(IN_A_ROW * len(WORLD.concepts)):
        pupil.note(pupil.choose(0.0), True, 1.0, 0.0)
    assert CONCEPT[pupil.choose(0.0)] == WORLD.concepts[0].concept_id


def test_the_review_queue_brings_back_what_is_due_before_anything_new() -> None:
    pupil = ReviewQueue(WORLD).pupil(0, None)
    at = BEGINS
    for _ in range(2):
        question = pupil.choose(at)
        pupil.note(question, True, 1.0, at)
        at += 300.0
    first = CONCEPT[question]
    assert CONCEPT[pupil.choose(at)] != first, "due in a day"
    assert CONCEPT[pupil.choose(at + 2 * DAY_S)] == first
    pupil.note(question, False, 1.0, at)
    assert CONCEPT[pupil.choose(at + 100.0)] == first, "missed: soon again"


def test_popularity_leads_from_the_most_practised_to_the_least_and_back_to_what_was_wrong() -> None:
    pupil = PopularTeacher([1.0, 9.0, 5.0]).pupil(0, None)
    asked = []
    for right in (True, False, True, True):
        asked.append(pupil.choose(0.0))
        pupil.note(asked[-1], right, 1.0, 0.0)
    assert asked == [1, 2, 0, 2]


def test_a_course_is_as_long_as_said_and_the_same_each_time() -> None:
    teacher = EngineTeacher(School.of(WORLD), BUILT_IN["hybrid_v1"])
    first = play_course(WORLD, teacher, 3, SHORT)
    assert (first.answers, first.days, first.last_day) == (10, 2, 1)
    assert play_course(WORLD, teacher, 3, SHORT) == first


def test_only_the_wilful_leave() -> None:
    leavers = WORLDS["leavers"](7)
    free = [play_week(leavers, Textbook(leavers), n, SHORT) for n in range(8)]
    assert len({one.answers for one in free}) > 4
    assert min(one.days for one in free) < 7
    assert play_week(WORLD, Textbook(WORLD), 0, SHORT, days=2).answers == 160


def test_how_many_processes_play_makes_no_difference() -> None:
    plan = Plan("all_or_none", SHORT, ("random", "curriculum", "oracle", "zone_v1"), earlier=3)
    alone, together = play(plan, range(3), week=False), play_all(plan, 3, week=False, processes=2)
    assert alone == together
    assert list(alone.course) == ["random", "curriculum", "oracle", "zone_v1"]


def test_an_unknown_policy_is_refused() -> None:
    with pytest.raises(KeyError, match="hybrid_v9"):
        play(Plan("all_or_none", SHORT, ("hybrid_v9",), earlier=3), range(1), week=False)


def test_shares_are_zero_at_random_one_at_the_oracle_and_paired() -> None:
    again = Resampled(50, seed=1)
    luck = np.random.default_rng(2).normal(0.0, 1.0, 50)
    zero, one = luck, luck + 2.0
    half = again.share(luck + 1.0, zero, one)
    assert half.value == pytest.approx(0.5)
    assert half.low == pytest.approx(half.high), "what learners share cancels"
    assert again.share(zero, zero, one).value == pytest.approx(0.0)
    assert again.share(one, zero, one).value == pytest.approx(1.0)


def test_an_interval_holds_the_value_and_narrows_with_more_learners() -> None:
    rng = np.random.default_rng(3)
    few, many = (Resampled(n, 1).mean(rng.normal(1.0, 1.0, n)) for n in (20, 2000))
    assert few.low < few.value < few.high
    assert many.high - many.low < (few.high - few.low) / 4
    assert Resampled(9, 1).ratio(np.full(9, 3.0), np.full(9, 2.0)).value == pytest.approx(1.5)


def test_the_best_is_the_one_with_the_largest_mean_of_those_named() -> None:
    outcomes = {
        "a": [outcome(0.1), outcome(0.3)],
        "b": [outcome(0.0), outcome(0.9)],
        "c": [outcome(1.0), outcome(1.0)],
    }
    assert best_of(outcomes, ["a", "b", "absent"]) == "b"
    assert column(outcomes["a"], "gain").tolist() == pytest.approx([0.1, 0.3])


def test_a_running_server_teaches_over_the_wire(served: Core) -> None:
    import time

    course = Course(time.time() - 7 * DAY_S, days=2, answers_a_day=5)
    plan = Plan(
        "leavers", course, ("random", "hybrid_v1", "oracle"), earlier=3, target=f"127.0.0.1:{served.port}"
    )
    played = play_remotely(plan, 3, week=True)
    assert played.degraded == 0
    assert [one.answers for one in played.course["hybrid_v1"]] == [10, 10, 10]
    assert all(one.answers > 0 for one in played.week["hybrid_v1"])
    here = play(Plan("leavers", course, ("random", "oracle"), earlier=3), range(3), week=True)
    assert played.course["oracle"] == here.course["oracle"], (
        "who asks nothing of the server does the same without it"
    )
    assert played.week["random"] == here.week["random"]


def test_an_observer_learns_from_answers_alone() -> None:
    """Who knows the laws and sees the answers teaches better than chance, and never looks into the learner."""
    world = ThresholdGrowth(3)
    course = Course(BEGINS, days=3, answers_a_day=10)
    observer = Observer(world, course.exam_at, seed=1)
    pupil = observer.pupil(0, None)
    first = pupil.choose(BEGINS)
    assert 0 <= first < len(world.questions)
    taught = [play_course(world, observer, number, course).gain for number in range(3)]
    lucky = [play_course(world, UniformTeacher(world, 1), number, course).gain for number in range(3)]
    assert sum(taught) > sum(lucky)

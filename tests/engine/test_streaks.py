"""Days that carried streaks on and days on which streaks end, against the state's own kernel and a day-by-day walk."""

from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.learner import Absorbed, LearnerModel, LearnerState, absorb
from engine.streaks import StreakLengths, follow, milestones_since, stand_of, streak_lengths
from engine.types import AnswerBatch

START = 20_000
GAPS = st.lists(st.sampled_from([0, 0, 1, 1, 1, 1, 1, 1, 2, 3, 4, 9]), max_size=60)
"""Days from answer to answer."""
TRAVELS = st.lists(st.tuples(st.floats(0.0, 5.0), st.sampled_from([-1, 0, 0, 0, 1])), min_size=1, max_size=60)
"""Days on the clock from answer to answer, and how far off the calendar of the place is."""


def days_of(gaps: list[int]) -> list[int]:
    return [START + sum(gaps[:place]) for place in range(len(gaps) + 1)]


def noon(day: int) -> float:
    return (day + 0.5) * 86_400.0


def at_noon(days: list[int]) -> list[tuple[int, float]]:
    return [(day, noon(day)) for day in days]


def answered(answers: list[tuple[int, float]]) -> LearnerState:
    """The state after answers on these days at these times."""
    return absorbed(answers).state


def absorbed(answers: list[tuple[int, float]]) -> Absorbed:
    """What answers on these days at these times change."""
    n = len(answers)
    batch = AnswerBatch(
        question=np.arange(n, dtype=np.uint32),
        correct=np.ones(n, np.uint8),
        answered_at=np.array([at for _, at in answers]),
        base_logit=np.zeros(n, np.float32),
        grade=np.full(n, 3, np.uint8),
        duration_ms=np.full(n, 1_000, np.uint32),
        hints=np.zeros(n, np.uint8),
        local_day=np.array([day for day, _ in answers], np.int32),
        memory_set=np.zeros(n, np.uint16),
        offsets=np.arange(n + 1, dtype=np.int32),
        concept=np.zeros(n, np.uint32),
        weight=np.ones(n, np.float32),
        mastery=np.full(n, np.nan, np.float32),
        mastery_sd=np.full(n, np.nan, np.float32),
    )
    return absorb(LearnerState.empty(), batch, LearnerModel.priors())


def test_nobody_has_a_streak_before_the_first_answer() -> None:
    assert stand_of(LearnerState.empty()) is None
    assert follow(None, []) == (None, ([], Counter()))


@given(TRAVELS)
def test_the_streak_is_the_one_of_the_state_travels_included(travels: list[tuple[float, int]]) -> None:
    now, answers = noon(START), []
    for passed, off in travels:
        now += passed * 86_400.0
        answers.append((int(now // 86_400.0) + off, now))
    stand, _ = follow(None, answers)
    assert stand == stand_of(answered(answers))


def lengths(answers: list[tuple[int, float]]) -> StreakLengths:
    return streak_lengths(np.array([d for d, _ in answers], np.int32), np.array([at for _, at in answers]))


@given(TRAVELS)
def test_streaks_worked_out_from_days_are_those_of_the_kernel(travels: list[tuple[float, int]]) -> None:
    now, answers = noon(START), []
    for passed, off in travels:
        now += passed * 0.4 * 86_400.0
        answers.append((int(now // 86_400.0) + off, now))
    done, found = absorbed(answers), lengths(answers)
    assert found.streak.tolist() == done.streak.tolist()
    assert found.milestone.tolist() == done.milestone.tolist()


def test_no_answers_no_streaks() -> None:
    assert [column.shape for column in lengths([])] == [(0,), (0,)]


def test_a_milestone_is_new_once_in_a_streak() -> None:
    def news(before: list[int], after: list[int]) -> list[tuple[int, int]]:
        was, now = lengths(at_noon(before)), lengths(at_noon(after))
        places = milestones_since(was, np.array(before, np.int32), now, np.array(after, np.int32))
        return [(after[place], int(now.milestone[place])) for place in places]

    assert news([1, 3, 4], [1, 2, 3, 4]) == [(3, 3)]
    assert news([1, 2, 4, 5, 6], [1, 2, 3, 4, 5, 6]) == []  # moved from day 6 to day 3
    assert news([1, 2, 3, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7]) == [(7, 7)]  # two streaks become one
    assert news([11, 12, 13], [1, 2, 3, 11, 12, 13]) == [(3, 3)]  # another streak, before


@given(GAPS, st.integers(0, 60))
def test_a_streak_ends_on_the_first_morning_that_the_state_counts_none(gaps: list[int], cut: int) -> None:
    state = answered(at_noon(days_of(gaps)[: cut + 1]))
    stand = stand_of(state)
    assert stand is not None
    assert state.streak_on(stand.ends_on - 1)[0] == stand.days
    assert state.streak_on(stand.ends_on)[0] == 0


@settings(deadline=None)
@given(GAPS)
def test_counts_are_those_of_a_walk_over_the_calendar(gaps: list[int]) -> None:
    days = days_of(gaps)
    _, changes = follow(None, at_noon(days))
    kept, ends = [], Counter[int]()
    practised = sorted(set(days))
    for before, day in pairwise(practised):
        state = answered(at_noon([earlier for earlier in practised if earlier < day]))
        if state.streak_on(day)[0]:
            kept.append(day)
        else:
            ends[next(d for d in range(before, day + 1) if not state.streak_on(d)[0])] += 1
    now = answered(at_noon(practised))
    ends[next(d for d in range(practised[-1], practised[-1] + 9) if not now.streak_on(d)[0])] += 1
    assert changes.kept == kept
    assert +changes.ends == ends
    assert not -changes.ends


@given(GAPS, st.integers(0, 60))
def test_taken_in_parts_it_is_the_same(gaps: list[int], cut: int) -> None:
    answers = at_noon(days_of(gaps))
    whole, all_changes = follow(None, answers)
    middle, first = follow(None, answers[:cut])
    end, second = follow(middle, answers[cut:])
    assert end == whole
    assert first.kept + second.kept == all_changes.kept
    first.ends.update(second.ends)
    assert {day: n for day, n in first.ends.items() if n} == {
        day: n for day, n in all_changes.ends.items() if n
    }

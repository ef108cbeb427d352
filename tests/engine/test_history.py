"""Days and areas against a count by hand."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.history import area_history, day_history, practice_seconds
from engine.types import AnswerBatch

CONCEPTS = 6

_answer = st.tuples(
    st.integers(0, 4),
    st.booleans(),
    st.lists(
        st.tuples(st.integers(0, CONCEPTS), st.booleans(), st.integers(1, 9), st.integers(-1, 1)), max_size=3
    ),
)


def log_of(
    answers: list[tuple[int, bool, list[tuple[int, bool, int, int]]]],
) -> tuple[AnswerBatch, "np.ndarray[tuple[int], np.dtype[np.int8]]"]:
    """Answers (day, correct, pairs (concept, own, mastery in tenths, crossed)) as a log, an hour apart."""
    pairs = [pair for _, _, own in answers for pair in own]
    n = len(answers)
    batch = AnswerBatch(
        question=np.zeros(n, np.uint32),
        correct=np.array([correct for _, correct, _ in answers], np.uint8),
        answered_at=np.arange(n, dtype=np.float64) * 3_600.0,
        base_logit=np.zeros(n, np.float32),
        grade=np.full(n, 3, np.uint8),
        duration_ms=np.full(n, 2_000, np.uint32),
        hints=np.zeros(n, np.uint8),
        local_day=np.array([day for day, _, _ in answers], np.int32),
        memory_set=np.zeros(n, np.uint16),
        offsets=np.concatenate(([0], np.cumsum([len(own) for _, _, own in answers]))).astype(np.int32),
        concept=np.array([pair[0] for pair in pairs], np.uint32),
        weight=np.array([1.0 if pair[1] else 0.3 for pair in pairs], np.float32),
        mastery=np.array([pair[2] / 10 for pair in pairs], np.float32),
        mastery_sd=np.zeros(len(pairs), np.float32),
    )
    return batch, np.array([pair[3] for pair in pairs], np.int8)


@settings(max_examples=100, deadline=None)
@given(st.lists(_answer, max_size=20))
def test_days_are_what_counting_gives(
    answers: list[tuple[int, bool, list[tuple[int, bool, int, int]]]],
) -> None:
    batch, crossed = log_of(answers)
    everything = np.ones(batch.size, np.bool_), np.ones(len(crossed), np.bool_)
    days = day_history(batch, crossed, chosen=everything[0], pair_chosen=everything[1])
    expected = sorted({day for day, _, _ in answers})
    assert days.day.tolist() == expected
    for i, day in enumerate(expected):
        own = [answer for answer in answers if answer[0] == day]
        assert days.answers[i] == len(own)
        assert days.correct[i] == sum(answer[1] for answer in own)
        assert days.seconds[i] == 2.0 * len(own)
        for found, kind in ((days.mastered, 1), (days.lost, -1)):
            assert found[i] == len({pair[0] for answer in own for pair in answer[2] if pair[3] == kind})


@settings(max_examples=100, deadline=None)
@given(st.lists(_answer, max_size=20))
def test_areas_are_what_following_them_gives(
    answers: list[tuple[int, bool, list[tuple[int, bool, int, int]]]],
) -> None:
    answers = sorted(answers, key=lambda answer: answer[0])
    batch, _ = log_of(answers)
    area_code = np.array([0, 0, 1, 1, 2, 2], np.int32)
    chosen = np.array([True, True, True, False, True, True])
    history = area_history(batch, area_code, chosen)
    found = {
        (int(a), int(d)): (round(float(m), 5), int(t))
        for a, d, m, t in zip(history.area, history.day, history.mean_mastery, history.touched, strict=True)
    }
    expected: dict[tuple[int, int], tuple[float, int]] = {}
    last: dict[int, float] = {}
    for day, _, pairs in answers:
        touched = set()
        for concept, own, tenths, _ in pairs:
            if own and concept < CONCEPTS and chosen[concept]:
                last[concept] = tenths / 10
                touched.add(int(area_code[concept]))
        for area in touched:
            held = [mastery for concept, mastery in last.items() if area_code[concept] == area]
            expected[area, day] = (round(sum(held) / len(held), 5), len(held))
    assert found == expected


def test_an_answer_without_a_duration_counts_the_time_since_the_one_before() -> None:
    batch, _ = log_of([(0, True, [])] * 4)
    batch = batch._replace(
        duration_ms=np.array([0, 0, 5_000, 0], np.uint32), answered_at=np.array([0.0, 200.0, 700.0, 1_001.0])
    )
    assert practice_seconds(batch).tolist() == [0.0, 200.0, 5.0, 0.0]

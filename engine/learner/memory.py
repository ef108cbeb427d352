"""Forgetting: FSRS-6 stability, difficulty and retrievability. Knows one memory at a time, nothing of concepts.

Formulas: the FSRS-6 algorithm as published by Open Spaced Repetition (https://github.com/open-spaced-repetition,
"The Algorithm") and held in tests against the `fsrs` package. Stability S is the time in days until recall falls to
90 %; difficulty D runs from 1 to 10; grades are 1 again, 2 hard, 3 good, 4 easy.
"""

import math
from typing import Final, NamedTuple

import numpy as np

from engine.jit import lean_kernel
from engine.types import F4, F8, I8, U1, U4

DEFAULT_WEIGHTS: Final = np.array(
    (
        *(0.212, 1.2931, 2.3065, 8.2956, 6.4133, 0.8334, 3.0194, 0.001, 1.8722, 0.1666, 0.796),
        *(1.4835, 0.0614, 0.2629, 1.6483, 0.6014, 1.8729, 0.5425, 0.0912, 0.0658, 0.1542),
    )
)
"""The 21 published default weights w0..w20."""
DEFAULT_WEIGHTS.flags.writeable = False

MINIMUM_STABILITY = 0.001
SECONDS_A_DAY = 86400.0
LONGEST_INTERVAL_DAYS = 36500.0
TARGET_RETENTION = 0.9

EASY_SHARE = 0.5
HARD_SHARE = 2.0


def grade_answer(correct: U1, duration_ms: U4, expected_ms: F4, hints: U1) -> U1:
    """Return FSRS grades (n,) from what was seen of each answer, see `grade_of`. All arguments have shape (n,)."""
    grades = np.empty(len(correct), np.uint8)
    _grade_all(
        np.ascontiguousarray(correct, np.uint8),
        np.ascontiguousarray(duration_ms, np.uint32),
        np.ascontiguousarray(expected_ms, np.float32),
        np.ascontiguousarray(hints, np.uint8),
        grades,
    )
    return grades


@lean_kernel
def grade_of(correct: int, duration_ms: float, expected_ms: float, hints: int) -> int:
    """Grade an answer as FSRS does.

    Wrong is again (1). Right is hard (2) with a hint or at over twice the expected time, easy (4) without hints in
    under half of it, good (3) otherwise, and when either time is unknown (0).
    """
    known = expected_ms > 0.0 and duration_ms > 0.0
    if correct == 0:
        return 1
    if hints > 0 or (known and duration_ms > HARD_SHARE * expected_ms):
        return 2
    return 4 if known and duration_ms < EASY_SHARE * expected_ms else 3


@lean_kernel
def _grade_all(correct: U1, duration_ms: U4, expected_ms: F4, hints: U1, grades: U1) -> None:
    for i in range(grades.shape[0]):
        grades[i] = grade_of(correct[i], 1.0 * duration_ms[i], 1.0 * expected_ms[i], hints[i])


@lean_kernel
def recall_factor(decay: float) -> float:
    """F = 0.9^(-1/w20) - 1, the same for all memories; `decay` is w20."""
    return float(0.9 ** (-1.0 / decay) - 1.0)


@lean_kernel
def recalled(days: float, stability: float, decay: float, factor: float) -> float:
    """As `retrievability`, with the factor at hand."""
    return float((1.0 + factor * max(days, 0.0) / stability) ** -decay)


@lean_kernel
def retrievability(days: float, stability: float, decay: float) -> float:
    """Chance of recall after `days`: (1 + F*t/S)^(-w20), F as `recall_factor` says; `decay` is w20."""
    return recalled(days, stability, decay, recall_factor(decay))


@lean_kernel
def days_until(stability: float, retention: float, decay: float) -> float:
    """Days until retrievability falls to `retention`, the inverse of `retrievability`; not rounded."""
    factor = recall_factor(decay)
    return float(stability / factor * (retention ** (-1.0 / decay) - 1.0))


@lean_kernel
def first_difficulty(grade: int, w: F8) -> float:
    """Difficulty D0 after a first review, before it is held to 1..10."""
    return float(w[4] - math.exp(w[5] * (grade - 1)) + 1.0)


class Forgetting(NamedTuple):
    """What FSRS weights come to that is the same for all memories, worked out once by `forgetting`."""

    factor: float
    """`recall_factor`."""
    growth: float
    """e^w8"""
    relief: float
    """e^(w17·w18), by which a lapse lowers stability at least."""


@lean_kernel
def forgetting(w: F8) -> Forgetting:
    """Return what FSRS weights (21,) come to."""
    return Forgetting(recall_factor(w[20]), math.exp(w[8]), math.exp(w[17] * w[18]))


@lean_kernel
def stability_after(
    stability: float, difficulty: float, days: float, grade: int, recall: float, w: F8, f: Forgetting
) -> float:
    """Return the stability after a review `days` after the last one, where recall was `recall`; it has begun before."""
    if days < 1.0:
        growth = math.exp(w[17] * (grade - 3 + w[18])) * stability ** -w[19]
        return float(stability * (max(growth, 1.0) if grade > 1 else growth))
    if grade == 1:
        lapse = (
            w[11]
            * difficulty ** -w[12]
            * ((stability + 1.0) ** w[13] - 1.0)
            * math.exp((1.0 - recall) * w[14])
        )
        return float(min(lapse, stability / f.relief))
    push = w[15] if grade == 2 else (w[16] if grade == 4 else 1.0)
    gain = f.growth * (11.0 - difficulty) * stability ** -w[9] * (math.exp((1.0 - recall) * w[10]) - 1.0)
    return float(stability * (1.0 + gain * push))


@lean_kernel
def review(stability: float, difficulty: float, days: float, grade: int, w: F8) -> tuple[float, float]:
    """Return (stability, difficulty) after a review `days` whole days after the last one.

    `stability` 0 means a first review. Less than a day since the last review is the same-day rule. `w` has shape (21,).
    """
    if stability <= 0.0:
        return max(w[grade - 1], MINIMUM_STABILITY), min(max(first_difficulty(grade, w), 1.0), 10.0)
    # Of one memory, only what its grade asks for.
    growth = math.exp(w[8]) if grade > 1 else 0.0
    relief = math.exp(w[17] * w[18]) if grade == 1 else 0.0
    recall = retrievability(days, stability, w[20]) if days >= 1.0 else 1.0
    after = stability_after(stability, difficulty, days, grade, recall, w, Forgetting(0.0, growth, relief))
    moved = difficulty - w[6] * (grade - 3) * (10.0 - difficulty) / 9.0
    harder = w[7] * first_difficulty(4, w) + (1.0 - w[7]) * moved
    return max(after, MINIMUM_STABILITY), min(max(harder, 1.0), 10.0)


@lean_kernel
def schedule(
    grades: U1, at: F8, w: F8, retention: float, stability: F8, difficulty: F8, recall: F8, interval_s: I8
) -> None:
    """Walk one card through its reviews as the reference scheduler does, with its default learning steps.

    Learning steps 1 and 10 minutes, one relearning step of 10 minutes, no fuzz. Inputs: grades (n,), times (n,) epoch
    seconds not decreasing, w (21,). Outputs, each (n,): stability and difficulty after the review, retrievability just
    before it by whole days (NaN at the first), and the interval to the next review in seconds.
    """
    s = 0.0
    d = 0.0
    learning = True
    step = 0
    steps = 2
    for i in range(grades.shape[0]):
        grade = int(grades[i])
        days = math.floor((at[i] - at[i - 1]) / SECONDS_A_DAY) if i > 0 else 0.0
        recall[i] = retrievability(days, s, w[20]) if i > 0 else math.nan
        s, d = review(s, d, days, grade, w)
        stability[i] = s
        difficulty[i] = d
        wait = -1.0
        if learning:
            if grade == 1:
                step = 0
                wait = 60.0 if steps == 2 else 600.0
            elif grade == 2:
                wait = (330.0 if steps == 2 else 900.0) if step == 0 else 600.0
            elif grade == 3 and step + 1 < steps:
                step += 1
                wait = 600.0
            else:
                learning = False
        elif grade == 1:
            learning = True
            steps = 1
            step = 0
            wait = 600.0
        if wait < 0.0:
            days_on = np.round(days_until(s, retention, w[20]))
            wait = min(max(days_on, 1.0), LONGEST_INTERVAL_DAYS) * SECONDS_A_DAY
        interval_s[i] = int(wait)

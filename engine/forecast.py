"""How fast a learner moves, and when a goal may be mastered, with its uncertainty. Reads counts, knows no concept.

The forecast has two unknowns. Answers for a concept: each answer masters a concept with a small chance, so mastered
concepts in n answers are a Poisson count of rate λ, with a gamma prior on λ worth `PRIOR_CONCEPTS` concepts in
`PRIOR_CONCEPTS` · `PRIOR_ANSWERS` answers; the answers that k further concepts take are then gamma(k) over gamma, a
scaled beta prime variable (Gelman et al., Bayesian Data Analysis, ch. 2, for the conjugate pair). Answers a day: a
gamma variable with the mean of the days looked at, and the standard errors of that mean and of the mean over the days
that the goal will take, widened by `PACE_DRIFT`.
"""

from typing import Final, NamedTuple

import numpy as np
from scipy import special

from engine.types import F8, I8

WINDOW_DAYS: Final = 28
"""Days that speed is read from."""
PRIOR_CONCEPTS: Final = 6.0
PRIOR_ANSWERS: Final = 50.0
"""What is believed of answers for a concept before any was mastered, and how many concepts that belief weighs."""
PACE_DRIFT: Final = 0.8
"""Relative standard deviation of the pace to come about the pace seen, beyond chance: terms, holidays, moods.

These three were chosen with `bench/goal_dates.py`: with weaker priors and less drift, chances said were too extreme.
"""
FARTHEST_DAYS: Final = 3652.0
"""Ten years: further ahead no date is named."""
EARLY: Final = 0.1
LATE: Final = 0.9
"""Quantiles of the interval that goes with a date: 80 % between them."""

_GRID: Final = 32


class Speed(NamedTuple):
    """How fast a learner moved over a window of days."""

    days: int
    answers_per_week: float
    seconds_per_week: float
    mastered_per_week: float
    """Net of what was lost."""
    mastered_per_week_sd: float
    """Of a Poisson count of all that was mastered and lost, and one more."""
    answers_per_concept: float
    """NaN when nothing was mastered, net."""


class Forecast(NamedTuple):
    """When k further concepts may be mastered, in days from now, with chances `EARLY`, 0.5 and `LATE`."""

    early_days: float
    median_days: float
    late_days: float
    median_answers: float
    days: F8
    """Equally likely outcomes, ascending."""

    def chance_within(self, days: float) -> float:
        """Return the chance, 0 to 1, that no more than `days` are needed."""
        return float(np.searchsorted(self.days, days, side="right") / self.days.shape[0])


def speed(answers: I8, seconds: F8, mastered: I8, lost: I8) -> Speed:
    """Return the speed over a window; all (d,), a value a day, days without practice among them.

    Raises:
        ValueError: no day is given.
    """
    days = answers.shape[0]
    if days == 0:
        raise ValueError("a speed needs at least one day")
    weeks = days / 7.0
    gained, gone = int(mastered.sum()), int(lost.sum())
    net = gained - gone
    return Speed(
        days=days,
        answers_per_week=float(answers.sum() / weeks),
        seconds_per_week=float(seconds.sum() / weeks),
        mastered_per_week=net / weeks,
        mastered_per_week_sd=float(np.sqrt(gained + gone + 1) / weeks),
        answers_per_concept=float(answers.sum() / net) if net > 0 else np.nan,
    )


def forecast(concepts: float, answers: I8, mastered: int) -> Forecast | None:
    """Return when `concepts` > 0 further concepts may be mastered, if practice goes on; None without practice.

    `answers` (d,) are the answers of each day looked at, days without practice among them; `mastered` the concepts
    mastered on them, net of those lost (below 0 counts as 0).

    Raises:
        ValueError: `concepts` is not above 0.
    """
    if not concepts > 0.0:
        raise ValueError(f"concepts must be above 0, not {concepts}")
    given = float(answers.sum())
    if given == 0.0:
        return None
    middles = (np.arange(_GRID) + 0.5) / _GRID
    shape = PRIOR_CONCEPTS + max(mastered, 0)
    share = special.betaincinv(concepts, shape, middles)
    needed = (PRIOR_CONCEPTS * PRIOR_ANSWERS + given) * share / (1.0 - share)
    days = answers.shape[0]
    mean = given / days
    # A day's count varies at least as a Poisson count does, also where all days seen were alike.
    variance = max(float(answers.var(ddof=1)) if days > 1 else 0.0, mean)
    ahead = max(float(needed[_GRID // 2]) / mean, 1.0)
    spread = variance / mean**2 * (1.0 / days + 1.0 / ahead) + PACE_DRIFT**2
    pace = special.gammaincinv(1.0 / spread, middles) * spread * mean
    outcomes = np.sort((needed[:, None] / pace[None, :]).ravel())
    early, median, late = (float(outcomes[int(chance * outcomes.shape[0])]) for chance in (EARLY, 0.5, LATE))
    return Forecast(early, median, late, float(needed[_GRID // 2]), outcomes)

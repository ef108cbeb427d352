"""From outcomes of single learners to figures with intervals. Plays nothing and prints nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.classrooms.play import Outcome
from bench.worlds.world import Array

RESAMPLES = 2000
"""Bootstrap resamples of learners; 95 % intervals are percentiles."""

Outcomes = Mapping[str, Sequence[Outcome]]
"""Of each teacher, by learner: learner i is the same person under every teacher."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A value with its 95 % interval over learners."""

    value: float
    low: float
    high: float

    def rounded(self, digits: int = 4) -> dict[str, float]:
        """Return the interval as facts of a line."""
        return {"low": round(self.low, digits), "high": round(self.high, digits)}


class Resampled:
    """Learners drawn again and again, the same draws for every teacher, so that ratios are paired."""

    def __init__(self, learners: int, seed: int) -> None:
        rng = np.random.default_rng([seed, learners])
        self._rows = rng.integers(0, learners, (RESAMPLES, learners))

    def means(self, values: Array) -> tuple[float, Array]:
        """Return (mean, (resamples,) means)."""
        return float(values.mean()), values[self._rows].mean(axis=1)

    def mean(self, values: Array) -> Figure:
        """Return the mean over learners."""
        value, drawn = self.means(values)
        return _figure(value, drawn)

    def ratio(self, over: Array, under: Array) -> Figure:
        """Return mean(over) / mean(under)."""
        (a, a_drawn), (b, b_drawn) = self.means(over), self.means(under)
        return _figure(_divide(a, b), _divide(a_drawn, b_drawn))

    def share(self, values: Array, zero: Array, one: Array) -> Figure:
        """Return where the mean lies between the mean of `zero` and that of `one`."""
        (v, v_drawn), (z, z_drawn), (o, o_drawn) = self.means(values), self.means(zero), self.means(one)
        return _figure(_divide(v - z, o - z), _divide(v_drawn - z_drawn, o_drawn - z_drawn))


def column(outcomes: Sequence[Outcome], name: str) -> Array:
    """Return one number of every learner."""
    return np.array([getattr(outcome, name) for outcome in outcomes], np.float64)


def best_of(outcomes: Outcomes, names: Sequence[str], number: str = "gain") -> str:
    """Return the teacher of `names` whose learners have the largest mean."""
    return max(
        (name for name in names if name in outcomes),
        key=lambda name: float(column(outcomes[name], number).mean()),
    )


def _divide(a: "float | Array", b: "float | Array") -> Array:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.divide(a, b))


def _figure(value: "float | Array", drawn: Array) -> Figure:
    low, high = np.nanpercentile(drawn, [2.5, 97.5]) if np.isfinite(drawn).any() else (np.nan, np.nan)
    return Figure(float(value), float(low), float(high))

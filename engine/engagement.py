"""How likely learners take up what a source offers in an area, learned online from feedback. Knows no single
question.
"""

from dataclasses import dataclass

import numpy as np

from engine.policy import SOURCES
from engine.types import F4, F8

PRIOR_TAKEN = 2.0
PRIOR_LEFT = 2.0
"""Pseudo-observations behind every cell: even odds, soon outweighed."""

HALF_LIFE_S = 14 * 86400.0
"""What was observed this long ago counts half: tastes and catalogues change."""


@dataclass(frozen=True, slots=True)
class Engagement:
    """Decayed counts of offers taken up and left, by source and area; a beta belief a cell. Immutable."""

    taken: F8
    """(sources, areas) as of `at`."""
    left: F8
    """(sources, areas) as of `at`."""
    at: float
    """Epoch seconds to which the counts are decayed."""

    @classmethod
    def empty(cls, areas: int) -> "Engagement":
        """Return what is believed before any feedback."""
        return cls(np.zeros((len(SOURCES), areas)), np.zeros((len(SOURCES), areas)), 0.0)

    def observe(self, sources: int, area: int, weight: float, at: float) -> "Engagement":
        """Return the belief after one piece of feedback on a question offered by `sources` (a mask) in
        `area`.

        `weight` from −1 (dismissed) over 0 (shown only: says nothing) to 1 (completed). The credit is shared
        evenly among the sources. Feedback that arrives late counts by its own age, so the order of arrival
        does not matter. An area that is new widens the table.
        """
        newest = max(self.at, at)
        size = max(self.taken.shape[1], area + 1)
        taken = np.zeros((len(SOURCES), size))
        left = np.zeros((len(SOURCES), size))
        kept = 0.5 ** ((newest - self.at) / HALF_LIFE_S) if self.at else 0.0
        taken[:, : self.taken.shape[1]] = kept * self.taken
        left[:, : self.left.shape[1]] = kept * self.left
        bits = [source for source in range(len(SOURCES)) if sources >> source & 1]
        share = 0.5 ** ((newest - at) / HALF_LIFE_S) / max(len(bits), 1)
        for source in bits:
            taken[source, area] += share * max(weight, 0.0)
            left[source, area] += share * max(-weight, 0.0)
        return Engagement(taken, left, newest)

    def take_up(self, areas: int) -> F4:
        """Return (sources, areas) float32 chances that an offer is taken up; unseen areas have the prior's
        even odds.
        """
        chance = np.full((len(SOURCES), areas), PRIOR_TAKEN / (PRIOR_TAKEN + PRIOR_LEFT), np.float32)
        shared = min(areas, self.taken.shape[1])
        taken, left = self.taken[:, :shared], self.left[:, :shared]
        chance[:, :shared] = (taken + PRIOR_TAKEN) / (taken + left + PRIOR_TAKEN + PRIOR_LEFT)
        return chance

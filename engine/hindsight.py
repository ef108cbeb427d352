"""What a policy would have chosen from at a moment that is past: every candidate with its terms. Draws nothing.

It is the pool that a slate was drawn from, or would have been.
"""

from dataclasses import dataclass

import numpy as np

from engine.learner import LearnerState
from engine.off_policy import chances
from engine.policy import Policy
from engine.recommend import RecommendQuery, pools_of
from engine.scoring import SAME
from engine.serving import Serving
from engine.types import F4, F8, U2, U4


@dataclass(frozen=True, slots=True)
class Options:
    """The n candidates of one moment."""

    rows: U4
    """(n,) question rows."""
    concepts: U4
    """(n,) for which they were proposed."""
    sources: U2
    """(n,) bit masks."""
    values: F4
    """(n, terms); `diversity` is 0, as for the first question of a slate."""
    scores: F8
    """(n,)"""

    def first(self, policy: Policy) -> F8:
        """Return (n,) the chance of each to be shown first; without candidates nothing."""
        nothing = np.zeros(self.scores.shape[0])
        return chances(self.scores, nothing, float(policy.signed[SAME]), policy.temperature)

    def chance_of(self, row: int, policy: Policy) -> float:
        """Return the chance that question `row` is shown first, 0 when it is no candidate."""
        return float(self.first(policy)[self.rows == row].sum())


def options(
    query: RecommendQuery,
    state: LearnerState,
    serving: Serving,
    policy: Policy,
    *,
    now: float,
    take_up: F4 | None = None,
) -> Options:
    """Return the candidates from which `engine.recommend.recommend` draws, given the same arguments."""
    pool = pools_of([query], [state], serving, policy, moments=[now], take_ups=[take_up])[0]
    held = pool.items
    return Options(held["question"], held["concept"], held["sources"], held["values"], held["score"])

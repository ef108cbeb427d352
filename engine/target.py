"""Which success to aim at for one learner: the policy's, moved within bounds by how the last answers went. Ranks
nothing.

Thompson sampling (Thompson 1933; Russo et al. 2018) over AIMS aims about the policy's target, at most its reach away.
The reward of an aim is how near it brings success to the target; the belief about the learner's success under the
current aim is a beta distribution over the last answers, fading by half in some fourteen, and an aim is taken to move
success by as much as it differs from the target. Who succeeds too often, and would be bored, is given harder questions;
who fails too often, and would lose heart, easier ones. Nothing is stored: the belief is read from the learner's state,
and the draw is seeded by the request, so that a slate can be made again.
"""

import math
from typing import Final

from engine.jit import lean_kernel
from engine.learner.score import read_only
from engine.learner.state import LearnerState, Records
from engine.learner.update import GLOBAL_DECAY
from engine.policy import Policy
from engine.survey import chance

AIMS: Final = 5
"""Aims tried, evenly over the policy's target ± its reach."""

PRIOR_ANSWERS = 6.0
"""Answers at the target that a learner is taken to have given before the first."""

WINDOW = 2
"""Which of the header's windows of outcomes is looked at: decay .95, half gone after 14 answers."""

_COUNTER = 424243
"""Draws of the target take counters from here on."""


@lean_kernel
def recent_success(header: Records) -> tuple[float, float]:
    """Return (right, tried) of the last answers, each faded by `GLOBAL_DECAY[WINDOW]` an answer since.

    `header` (1,) is the state's.
    """
    decay = GLOBAL_DECAY[WINDOW]
    tried = (1.0 - decay ** float(header[0].applied)) / (1.0 - decay)
    right = (float(header[0].outcome[WINDOW]) + tried) / 2.0
    return min(max(right, 0.0), tried), tried


@lean_kernel
def aim(header: Records, success: float, reach: float, seed: int) -> float:
    """Return the success to aim at, within `success` ± `reach`; `header` (1,) is the state's."""
    if reach <= 0.0 or header[0].applied == 0:
        return success
    right, tried = recent_success(header)
    answers = tried + PRIOR_ANSWERS
    mean = (right + PRIOR_ANSWERS * success) / answers
    # The beta distribution by its first two moments: normal enough with six answers and more.
    deviation = math.sqrt(mean * (1.0 - mean) / (answers + 1.0))
    radius = math.sqrt(-2.0 * math.log(1.0 - chance(seed, _COUNTER)))
    drawn = mean + deviation * radius * math.cos(2.0 * math.pi * chance(seed, _COUNTER + 1))
    half = (AIMS - 1) / 2.0
    steps = round(max(-half, min(half, (success - drawn) / reach * half)))
    return success + reach * steps / half


def target_for(state: LearnerState, policy: Policy, seed: int) -> float:
    """Return the success to aim at, within `policy.target_success` ± `policy.target_reach`; pure."""
    return aim(read_only(state.header), policy.target_success, policy.target_reach, seed)

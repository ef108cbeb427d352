"""Simulated classrooms whose true models are not Genie's own. The worlds by name; each stands alone."""

from collections.abc import Callable, Mapping

from bench.worlds.activation import Activation
from bench.worlds.all_or_none import AllOrNone
from bench.worlds.leavers import Leavers
from bench.worlds.threshold_growth import ThresholdGrowth
from bench.worlds.world import World

WORLDS: Mapping[str, Callable[[int], World]] = {
    "threshold_growth": ThresholdGrowth,
    "all_or_none": AllOrNone,
    "leavers": Leavers,
    "activation": Activation,
}
"""From name to what makes the world from a seed."""

HELD_OUT = frozenset({"activation"})
"""Worlds that nothing is tuned on and no bar is about."""

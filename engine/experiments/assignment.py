"""Which arm a learner is in: a pure function of seed, learner id and plan. Remembers nobody.

The learner's number in [0, 1) falls into an arm's range or into none. As in GrowthBook's scheme each
arm owns a stretch of [0, 1) as wide as its weight and uses the first `coverage` of it, so a growing
ramp only ever lets learners in and moves none. Changing weights moves learners, which is why it opens
a new phase: a learner exposed in an earlier phase keeps that phase's arm when the caller names it.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_right
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

_UNIT = 2.0**-53
_FNV_OFFSET, _FNV_PRIME, _MASK = 0x811C9DC5, 0x01000193, 0xFFFFFFFF


class Hashing(StrEnum):
    """How an id becomes a number in [0, 1).

    BLAKE2B is the default: 53 bits, independent between seeds. The others give the arms of
    GrowthBook's two hash versions to a platform that already buckets with it. Version 1 correlates
    sibling experiments (it appends the seed, so equal endings stay together): never start with it.
    """

    BLAKE2B = "blake2b"
    GROWTHBOOK_V2 = "growthbook_v2"
    GROWTHBOOK_V1 = "growthbook_v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class RampStep:
    """From `at_s` (seconds since the epoch) on, `coverage` of the learners take part."""

    at_s: float
    coverage: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One split of the traffic: a weight an arm (summing to 1) and how coverage grows within it."""

    weights: tuple[float, ...]
    ramp: tuple[RampStep, ...] = (RampStep(at_s=-math.inf, coverage=1.0),)

    def coverage_at(self, now_s: float) -> float:
        """Share of learners taking part at `now_s`; 0 before the first step."""
        step = bisect_right(self.ramp, now_s, key=lambda s: s.at_s)
        return self.ramp[step - 1].coverage if step else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerSlot:
    """An experiment's stretch [start, end) of a layer: experiments of one layer never share a learner."""

    layer: str
    start: float
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AssignmentPlan:
    """All that decides who is where. `arms[0]` is control; `rolled_back` sends everyone there.

    Raises ValueError naming the offending value on construction.
    """

    seed: str
    arms: tuple[str, ...]
    phases: tuple[Phase, ...]
    hashing: Hashing = Hashing.BLAKE2B
    slot: LayerSlot | None = None
    rolled_back: bool = False

    def __post_init__(self) -> None:
        """Check arms, weights, ramps and slot once, so that assigning never fails."""
        if len(self.arms) < 2 or len(set(self.arms)) != len(self.arms):
            raise ValueError(f"arms must be at least 2 different names, got {self.arms}")
        if not self.phases:
            raise ValueError("phases must have at least 1 entry, got 0")
        if self.slot and not 0.0 <= self.slot.start < self.slot.end <= 1.0:
            raise ValueError(f"slot must have 0 <= start < end <= 1, got {self.slot.start}, {self.slot.end}")
        for phase in self.phases:
            _check_phase(phase, len(self.arms))


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Where a learner is: `arm` None when outside the experiment."""

    arm: str | None
    phase: int


class Assigner:
    """A plan made ready to assign quickly, at a fixed time: build anew when the ramp or plan moves on."""

    __slots__ = ("_bounds", "_hash", "_layer", "_plan")

    def __init__(self, plan: AssignmentPlan, *, now_s: float) -> None:
        """Lay out the ranges of every phase: past phases at full ramp, the last as of `now_s`."""
        self._plan = plan
        self._hash = hasher(plan.hashing, plan.seed)
        self._layer = _blake2b(plan.slot.layer, b"genie.layer") if plan.slot else None
        last = len(plan.phases) - 1
        self._bounds = tuple(
            _bounds(phase.weights, phase.coverage_at(now_s if i == last else math.inf))
            for i, phase in enumerate(plan.phases)
        )

    def index_of(self, learner_id: str, *, phase: int = -1) -> int:
        """Arm number of a learner, −1 when outside. Raises IndexError for a phase the plan lacks.

        `phase` is that of the learner's first exposure when known, else the current one.
        """
        slot = self._plan.slot
        if slot and self._layer and not slot.start <= self._layer(learner_id) < slot.end:
            return -1
        # Between the even and the odd bound lies an arm, between the odd and the next even one nobody.
        place = bisect_right(self._bounds[phase], self._hash(learner_id))
        if not place & 1:
            return -1
        return 0 if self._plan.rolled_back else place >> 1

    def assign(self, learner_id: str, *, phase: int = -1) -> Assignment:
        """Arm of a learner and the phase it counts in. Raises IndexError for a phase the plan lacks."""
        arm = self.index_of(learner_id, phase=phase)
        return Assignment(
            arm=self._plan.arms[arm] if arm >= 0 else None,
            phase=phase if phase >= 0 else len(self._plan.phases) + phase,
        )


def hasher(hashing: Hashing, seed: str) -> Callable[[str], float]:
    """The function from learner id to [0, 1) of a scheme and seed."""
    if hashing is Hashing.BLAKE2B:
        return _blake2b(seed, b"genie.arm")
    if hashing is Hashing.GROWTHBOOK_V2:
        start = fnv1a_32(seed)
        return lambda learner_id: fnv1a_32(str(fnv1a_32(learner_id, start))) % 10000 / 10000
    return lambda learner_id: fnv1a_32(seed, fnv1a_32(learner_id)) % 1000 / 1000


def fnv1a_32(text: str, start: int = _FNV_OFFSET) -> int:
    """FNV-1a, 32 bits, over UTF-16 code units (an emoji is two), as GrowthBook's JavaScript does.

    `start` continues an earlier hash: hash(a + b) = hash(b, hash(a)).
    """
    state = start
    if text.isascii():
        for unit in text.encode("ascii"):
            state = ((state ^ unit) * _FNV_PRIME) & _MASK
        return state
    units = memoryview(text.encode("utf-16-le", "surrogatepass")).cast("H")
    for unit in units:
        state = ((state ^ unit) * _FNV_PRIME) & _MASK
    return state


def check_layer(slots: Iterable[LayerSlot]) -> None:
    """Raise ValueError when two slots of one layer overlap, naming both."""
    ordered = sorted(slots, key=lambda s: (s.layer, s.start, s.end))
    for a, b in pairwise(ordered):
        if a.layer == b.layer and b.start < a.end:
            raise ValueError(
                f"slots of layer {a.layer} must not overlap, "
                f"got [{a.start}, {a.end}) and [{b.start}, {b.end})"
            )


def _blake2b(seed: str, purpose: bytes) -> Callable[[str], float]:
    # The purpose keeps layers independent of arms; the zero byte keeps (ab, c) apart from (a, bc).
    base = hashlib.blake2b(seed.encode() + b"\0", digest_size=8, person=purpose)

    def number(learner_id: str) -> float:
        state = base.copy()
        state.update(learner_id.encode())
        # 53 bits: all 64 would round up to 1.0 now and then.
        return (int.from_bytes(state.digest(), "little") >> 11) * _UNIT

    return number


def _bounds(weights: tuple[float, ...], coverage: float) -> tuple[float, ...]:
    """Start and end of each arm's covered stretch, flattened and rising."""
    flat: list[float] = []
    start = 0.0
    for weight in weights:
        flat += (start, start + coverage * weight)
        start += weight
    if coverage == 1.0:
        flat[-1] = 1.0
    return tuple(flat)


def _check_phase(phase: Phase, arms: int) -> None:
    if len(phase.weights) != arms:
        raise ValueError(f"weights must have one entry an arm ({arms}), got {len(phase.weights)}")
    if not all(0.0 <= w <= 1.0 for w in phase.weights) or abs(math.fsum(phase.weights) - 1.0) > 1e-9:
        raise ValueError(f"weights must be shares that sum to 1, got {phase.weights}")
    if not phase.ramp:
        raise ValueError("ramp must have at least 1 step, got 0")
    if not all(0.0 <= step.coverage <= 1.0 for step in phase.ramp):
        raise ValueError(f"coverage must be between 0 and 1, got {[s.coverage for s in phase.ramp]}")
    for a, b in pairwise(phase.ramp):
        if not (a.at_s < b.at_s and a.coverage <= b.coverage):
            raise ValueError(
                "ramp must rise in time and coverage, "
                f"got {a.coverage} at {a.at_s} before {b.coverage} at {b.at_s}"
            )

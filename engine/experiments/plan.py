"""What an experiment set out to measure, and what has been seen so far. Values only."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from engine.experiments.moments import Moments
from engine.experiments.sequential import HybridRule

MetricArm = tuple[str, str]
"""(metric name, treatment arm)."""


class Role(StrEnum):
    """What a metric is for: to decide on, to learn from, or to protect."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    GUARDRAIL = "guardrail"


class Kind(StrEnum):
    """How a learner's observation is read: a number, a zero or one, or a value over a denominator."""

    MEAN = "mean"
    PROPORTION = "proportion"
    RATIO = "ratio"


class Verdict(StrEnum):
    """What to do now. All but CONTINUE are final."""

    CONTINUE = "continue"
    SHIP = "ship"
    STOP_FUTILE = "stop_futile"
    STOP_HARM = "stop_harm"
    ROLLED_BACK = "rolled_back"
    INVALID = "invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A verdict, the arm it names if any, and the sentence that explains it."""

    verdict: Verdict
    sentence: str
    arm: str | None = None

    @property
    def final(self) -> bool:
        """Nothing that comes later changes it."""
        return self.verdict is not Verdict.CONTINUE


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricPlan:
    """One metric. `margin` is the relative harm a guardrail tolerates (0.02 is two per cent).

    `use_covariate` adjusts by the pre-period covariate (CUPED). `open_ended` metrics grow for as long
    as a learner stays, so what was counted changes after the fact: they are shown, never used to stop.
    """

    name: str
    role: Role = Role.SECONDARY
    kind: Kind = Kind.MEAN
    higher_is_better: bool = True
    use_covariate: bool = False
    open_ended: bool = False
    margin: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentPlan:
    """Everything fixed before the first learner is exposed. `arms[0]` is control.

    `planned_sample` is N*, learners of control and one treatment together; `target_improvement` the
    relative improvement of the primary metric worth having (0.15 is 15 per cent, always positive).
    `alpha` is for reported fixed intervals; decisions follow `rule`, rollback `guardrail_alpha` and
    `sample_ratio_alpha`. Raises ValueError on construction, naming every violation.
    """

    name: str
    arms: tuple[str, ...]
    metrics: tuple[MetricPlan, ...]
    planned_sample: int
    target_improvement: float
    duration_days: float
    alpha: float = 0.05
    rule: HybridRule = field(default_factory=HybridRule)
    guardrail_alpha: float = 0.01
    sample_ratio_alpha: float = 0.001

    def __post_init__(self) -> None:
        """Check everything once, all violations in one message."""
        problems = [text for bad, text in self._bounds() if bad]
        if problems:
            raise ValueError("; ".join(problems))

    def _bounds(self) -> list[tuple[bool, str]]:
        names = [metric.name for metric in self.metrics]
        primaries = [metric.name for metric in self.metrics if metric.role is Role.PRIMARY]
        shares = ("alpha", "guardrail_alpha", "sample_ratio_alpha")
        return [
            (len(self.arms) < 2, f"arms must be at least 2, got {len(self.arms)}"),
            (len(set(self.arms)) != len(self.arms), f"arms must differ, got {self.arms}"),
            (len(set(names)) != len(names), f"metrics must have different names, got {names}"),
            (len(primaries) != 1, f"metrics must have exactly 1 primary, got {primaries}"),
            (self.planned_sample < 4, f"planned_sample must be at least 4, got {self.planned_sample}"),
            (
                not 0.0 < self.target_improvement < math.inf,
                f"target_improvement must be positive and finite, got {self.target_improvement}",
            ),
            (
                not 0.0 < self.duration_days < math.inf,
                f"duration_days must be positive and finite, got {self.duration_days}",
            ),
            *(
                (
                    not 0.0 < getattr(self, name) < 1.0,
                    f"{name} must be between 0 and 1, both excluded, got {getattr(self, name)}",
                )
                for name in shares
            ),
            *(
                (
                    not 0.0 <= m.margin < 1.0,
                    f"margin of {m.name} must be at least 0 and below 1, got {m.margin}",
                )
                for m in self.metrics
            ),
        ]

    @property
    def primary(self) -> MetricPlan:
        """The metric decided on."""
        return next(metric for metric in self.metrics if metric.role is Role.PRIMARY)


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseSnapshot:
    """What one phase has seen. Sequences are by arm, in the plan's order.

    `moments` maps a metric's name to each arm's moments; an absent metric has none yet. `assigned`
    counts learners who met the experiment at all, when known, to compare with those `exposed`.
    """

    weights: Sequence[float]
    exposed: Sequence[int]
    moments: Mapping[str, Sequence[Moments]]
    assigned: Sequence[int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """Smallest always-valid p-values so far; keep it between looks, it is what peeking may build on."""

    effect: Mapping[MetricArm, float] = field(default_factory=dict)
    harm: Mapping[MetricArm, float] = field(default_factory=dict)
    futility: Mapping[MetricArm, float] = field(default_factory=dict)
    sample_ratio: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that is known at one look: phases, days since the start, and what earlier looks concluded.

    `standing` is a final decision taken before; it stands, whatever comes in late. `ended` says that nobody joins
    any more.
    """

    phases: Sequence[PhaseSnapshot]
    elapsed_days: float
    running: Running = field(default_factory=Running)
    standing: Decision | None = None
    ended: bool = False

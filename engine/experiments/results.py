"""What an experiment says at one look, as small immutable values. Computes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from engine.experiments.checks import SampleRatio
from engine.experiments.plan import Decision, Role, Running


class Interval(NamedTuple):
    """Lower and upper bound; infinite while nothing can be said."""

    lower: float
    upper: float


class Concern(StrEnum):
    """Why an estimate should be read with care."""

    SMALL_FOR_SKEW = "small_for_skew"
    OPEN_ENDED = "open_ended"
    UNEQUAL_EXPOSURE = "unequal_exposure"
    SAMPLE_RATIO = "sample_ratio"
    PHASE_LEFT_OUT = "phase_left_out"
    LIFT_UNSTABLE = "lift_unstable"


class Caution(NamedTuple):
    """A concern with the sentence a person would want beside it."""

    concern: Concern
    sentence: str


class ArmMean(NamedTuple):
    """One metric in one arm, phases together and unadjusted, with its fixed interval."""

    metric: str
    arm: str
    n: int
    mean: float
    interval: Interval


class Comparison(NamedTuple):
    """One metric of one treatment against control, stratified by phase.

    Effects are treatment minus control in the metric's unit; lifts are relative (0.1 is ten per cent).
    `p` is the fixed-sample test, trustworthy at one look planned beforehand; `p_adjusted` corrects it
    for the number of metrics and arms of its role (Holm, for secondary metrics Benjamini-Hochberg).
    `sequence`, `lift_sequence`, `sequential_p` and its minimum so far `running_p` hold at every look;
    they are unbounded and 1 before the minimum sample and for open-ended metrics. `harm_p` is the
    running p-value against "no worse than the margin", set for guardrails. `variance_saved` is the
    share of the squared error that the covariate removed.
    """

    metric: str
    arm: str
    role: Role
    n_control: int
    n_treatment: int
    mean_control: float
    mean_treatment: float
    effect: float
    se: float
    df: float
    interval: Interval
    p: float
    p_adjusted: float
    lift: float
    lift_interval: Interval
    lift_log_interval: Interval
    sequence: Interval
    lift_sequence: Interval
    sequential_p: float
    running_p: float
    harm_p: float | None
    cohens_d: float
    hedges_g: float
    hedges_g_interval: Interval
    variance_saved: float
    cautions: tuple[Caution, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentResults:
    """Everything one look says. `running` goes into the next look's snapshot.

    `sample` counts the smaller of the pairs (control and a treatment) with a primary value, to set
    beside `planned_sample`; `days_to_decision` is None in the first day, which tells no rate yet.
    """

    decision: Decision
    sample: int
    planned_sample: int
    days_to_decision: float | None
    arm_means: tuple[ArmMean, ...]
    comparisons: tuple[Comparison, ...]
    sample_ratio: SampleRatio
    cautions: tuple[Caution, ...]
    running: Running

    def comparison(self, metric: str, arm: str) -> Comparison:
        """The comparison of one metric and treatment. Raises KeyError when there is none."""
        for found in self.comparisons:
            if found.metric == metric and found.arm == arm:
                return found
        raise KeyError(f"no comparison of {metric} in {arm}")

"""Experiments whose truth is known: plans and snapshots for the tests."""

from collections.abc import Sequence

import numpy as np

from engine.experiments.moments import Moments
from engine.experiments.plan import ExperimentPlan, MetricPlan, PhaseSnapshot, Role, Snapshot

PRIMARY = MetricPlan(name="practice_minutes", role=Role.PRIMARY)
ARMS = ("content_based_v1", "collaborative_filtering_v2")
HALF = 1000


def plan(*metrics: MetricPlan, arms: tuple[str, ...] = ARMS, **changes: object) -> ExperimentPlan:
    """An experiment with `PRIMARY` and any further metrics, sized for its target in the worlds below."""
    setting: dict[str, object] = {
        "name": "which recommender",
        "arms": arms,
        "metrics": metrics if any(m.role is Role.PRIMARY for m in metrics) else (PRIMARY, *metrics),
        "planned_sample": 2 * HALF,
        "target_improvement": 0.05,
        "duration_days": 30.0,
        **changes,
    }
    return ExperimentPlan(**setting)  # type: ignore[arg-type]


def exact(n: int, mean: float, sd: float = 10.0, skewed: bool = False) -> Moments:
    """n learners with exactly this mean and sample standard deviation."""
    if n < 2:
        return Moments.of([mean] * n)
    shape = np.linspace(-1.0, 1.0, n) if not skewed else np.linspace(0.0, 1.0, n) ** 40
    shape = (shape - shape.mean()) / shape.std(ddof=1)
    return Moments.of((mean + sd * shape).tolist())


def phase(
    moments: dict[str, list[Moments]], weights: Sequence[float] | None = None, **changes: object
) -> PhaseSnapshot:
    """A phase in which everyone exposed has a value of the first metric."""
    counts = [m.n for m in next(iter(moments.values()))]
    setting: dict[str, object] = {
        "weights": weights or [1.0 / len(counts)] * len(counts), "exposed": counts, "moments": moments, **changes
    }  # fmt: skip
    return PhaseSnapshot(**setting)  # type: ignore[arg-type]


def look(*phases: PhaseSnapshot, elapsed_days: float = 10.0, **changes: object) -> Snapshot:
    """A snapshot ten days in."""
    return Snapshot(phases=phases, elapsed_days=elapsed_days, **changes)  # type: ignore[arg-type]


def means(*values: float, n: int = 500, sd: float = 10.0) -> Snapshot:
    """One phase, `n` learners an arm, the primary metric at these means."""
    return look(phase({PRIMARY.name: [exact(n, value, sd) for value in values]}))

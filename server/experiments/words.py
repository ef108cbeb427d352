"""Numbers of an experiment as people read them. Draws nothing, calls nothing."""

import math
from typing import Any

from genie.v1 import experiment_pb2 as resources
from genie.v1 import experiment_results_pb2 as results_pb

DAY_SECONDS = 86_400.0


def state(value: int) -> str:
    """`RUNNING`."""
    return resources.ExperimentState.Name(resources.ExperimentState.ValueType(value)).removeprefix(
        "EXPERIMENT_STATE_"
    )


_ENDED = (resources.EXPERIMENT_STATE_STOPPED, resources.EXPERIMENT_STATE_ROLLED_BACK)


def verdict(results: results_pb.ExperimentResults) -> str:
    """`STOP FUTILE`; `NO VERDICT` for an experiment that ended before there was one."""
    if results.state in _ENDED and results.verdict == results_pb.EXPERIMENT_VERDICT_CONTINUE:
        return "NO VERDICT"
    name = results_pb.ExperimentVerdict.Name(results.verdict)
    return name.removeprefix("EXPERIMENT_VERDICT_").replace("_", " ")


def role(value: int) -> str:
    """`primary`."""
    return (
        resources.MetricRole.Name(resources.MetricRole.ValueType(value)).removeprefix("METRIC_ROLE_").lower()
    )


def bounds(interval: results_pb.ResultInterval) -> tuple[float, float]:
    """Lower and upper bound, infinite where unbounded."""
    return (
        interval.lower if interval.HasField("lower") else -math.inf,
        interval.upper if interval.HasField("upper") else math.inf,
    )


def percent(share: float, *, signed: bool = True) -> str:
    """`+4.2 %`; a dash for what is not known."""
    if not math.isfinite(share):
        return "∞" if share > 0 else "−∞" if share < 0 else "–"
    return f"{100.0 * share:{'+' if signed else ''}.1f} %"


def number(message: Any, field: str) -> str:
    """An optional number to four digits; a dash when it is unset."""
    return f"{getattr(message, field):.4g}" if message.HasField(field) else "–"


def interval(found: results_pb.ResultInterval) -> str:
    """`+1.0 % to +7.4 %` of a lift."""
    low, high = bounds(found)
    return "–" if math.isinf(low) and math.isinf(high) else f"{percent(low)} to {percent(high)}"


def days(message: Any, field: str) -> str:
    """A duration in days; a dash when it is unset."""
    if not message.HasField(field):
        return "–"
    return f"{getattr(message, field).ToTimedelta().total_seconds() / DAY_SECONDS:.1f} days"


def decision(results: results_pb.ExperimentResults) -> str:
    """`decision in 9.5 days`, `decision in 7 hours`, or why no time is given."""
    if results.state in _ENDED:
        return "ended"
    if results.state == resources.EXPERIMENT_STATE_DRAFT:
        return "not started"
    if not results.HasField("time_to_decision"):
        return "too early to say when it is decided"
    left = results.time_to_decision.ToTimedelta().total_seconds()
    if left <= 0.0:
        return "decision due"
    if left < 2.0 * DAY_SECONDS:
        hours = math.ceil(left / 3_600.0)
        return f"decision in {hours} hour{'s' if hours > 1 else ''}"
    return f"decision in {left / DAY_SECONDS:.1f} days"


def p_value(p: float) -> str:
    """`.0123`, `< .0001`."""
    return "< .0001" if p < 1e-4 else f"{p:.4f}".lstrip("0") if p < 1.0 else "1"

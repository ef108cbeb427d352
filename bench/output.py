"""How benches report: one JSON object a line on standard output."""

import json
import operator
from collections.abc import Callable

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
}


def emit(bench: str, metric: str, value: float, *, bar: str = "", **facts: object) -> bool:
    """Print one figure. `bar` is a comparison and a number, such as ">= 0.95"; returns whether it holds."""
    holds = True
    line: dict[str, object] = {"bench": bench, "metric": metric, "value": value}
    if bar:
        comparison, number = bar.split()
        holds = _COMPARISONS[comparison](value, float(number))
        line.update(bar=bar, holds=holds)
    print(json.dumps({**line, **facts}), flush=True)
    return holds


def missed(bench: str, metric: str, *, bar: str, why: str) -> bool:
    """Print that a figure with a bar could not be had; False, as a bar that does not hold."""
    print(
        json.dumps({"bench": bench, "metric": metric, "value": None, "bar": bar, "holds": False, "why": why}),
        flush=True,
    )
    return False

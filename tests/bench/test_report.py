"""What is drawn and told of benches' figures, and how two revisions are compared."""

import json
from xml.etree import ElementTree

import numpy as np
import pytest

from bench.compare import ratio
from bench.report import Line, plots, read, table

LINES: list[Line] = [
    {"bench": "serve", "metric": "recommend_over_floor", "value": 0.612, "bar": ">= 0.5", "holds": True},
    {"bench": "serve", "metric": "p99_over_floor", "value": None, "bar": "<= 2.5", "holds": False},
    {"bench": "serve", "metric": "calls", "value": 3},
    *(
        {"bench": "serve", "metric": f"{of}_latency_ms", "value": 1.0, "rate": 1_234.5}
        | {f"p{share}_ms": scale * place for place, share in enumerate(("50", "90", "99", "99.9"), 1)}
        for of, scale in (("floor", 1.0), ("recommend", 2.0))
    ),
    *(
        {
            "bench": "serve",
            "metric": "curve_p50_ms",
            "value": 1.0,
            "of": "floor",
            "rate": rate,
            "p99_ms": rate / 9,
        }
        for rate in (300.0, 100.0, 200.0)
    ),
    *(
        {"bench": "serve", "metric": "p50_ms_by_learners", "value": 1.0, "learners": 10**power}
        | {"p50_ms": 1.0, "private_megabytes": 100.0}
        for power in (4, 5, 6)
    ),
]


def test_the_table_holds_every_bar_and_nothing_else() -> None:
    assert table(LINES).splitlines()[2:] == [
        "| `serve` | recommend_over_floor | 0.612 | >= 0.5 | yes |",
        "| `serve` | p99_over_floor | none | <= 2.5 | **no** |",
    ]


def test_lines_that_are_no_figures_are_passed_over() -> None:
    text = ["make: entering", *(json.dumps(line) for line in LINES), ""]
    assert read(text) == LINES


def test_every_plot_is_whole_and_its_points_lie_inside() -> None:
    drawn = plots(LINES)
    assert set(drawn) == {
        "speed-latency.svg",
        "speed-load.svg",
        "speed-latency-by-learners.svg",
        "speed-memory-by-learners.svg",
    }
    assert "Latency at 1,234 calls a second" in drawn["speed-latency.svg"]
    for svg in drawn.values():
        root = ElementTree.fromstring(svg)
        _, _, width, height = (float(side) for side in root.attrib["viewBox"].split())
        lines = [element.attrib["points"] for element in root if element.tag.endswith("polyline")]
        assert lines
        points = np.array([pair.split(",") for line in lines for pair in line.split()], np.float64)
        assert (points >= 0.0).all()
        assert (points <= [width, height]).all()
        assert (np.diff(points[: len(lines[0].split()), 0]) > 0.0).all(), "joined from left to right"


def test_figures_that_are_absent_are_not_drawn() -> None:
    assert plots(LINES[:3]) == {}


def test_a_ratio_of_two_revisions_has_the_interval_of_its_rounds() -> None:
    assert ratio([2.0, 4.0], [1.0, 2.0]) == pytest.approx((0.5, 0.5, 0.5))
    value, low, high = ratio([1.0, 1.0, 1.0], [1.1, 1.3, 1.2])
    assert low < value < high
    assert value == pytest.approx((1.1 * 1.3 * 1.2) ** (1 / 3))
    # Student's t with two degrees of freedom at 95 % is 4.303.
    deviation = np.log([1.1, 1.3, 1.2]).std(ddof=1) / np.sqrt(3)
    assert high / value == pytest.approx(np.exp(4.3027 * deviation), rel=1e-4)

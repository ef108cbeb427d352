"""Lines that benches printed, as a Markdown table of the bars and SVG plots. Runs no bench.

make bench | tee figures.jsonl
python -m bench.report figures.jsonl --into docs/plots
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from math import log10
from pathlib import Path
from typing import Any, NamedTuple

Line = dict[str, Any]
WIDTH, HEIGHT, LEFT, BOTTOM = 560, 320, 64, 48
COLOURS = ("#1b6ca8", "#c2571a", "#3c8d40", "#7b4fa3")


class Curve(NamedTuple):
    """Points to join, by rising x."""

    name: str
    points: Sequence[tuple[float, float]]


def read(lines: Iterable[str]) -> list[Line]:
    """The JSON objects among lines of text."""
    return [json.loads(line) for line in lines if line.startswith("{")]


def table(lines: Sequence[Line]) -> str:
    """Every figure that has a bar."""
    rows = ["| bench | what | value | bar | holds |", "|---|---|---|---|---|"]
    for line in lines:
        if "bar" in line:
            value = "none" if line["value"] is None else f"{line['value']:,}"
            holds = "yes" if line["holds"] else "**no**"
            kind = f" ({line['kind']})" if "kind" in line else ""
            rows.append(f"| `{line['bench']}` | {line['metric']}{kind} | {value} | {line['bar']} | {holds} |")
    return "\n".join(rows) + "\n"


def latency_curves(lines: Sequence[Line]) -> list[Curve]:
    """Share of calls (x: how many nines, as a share above) by latency, of the runs at a fixed rate."""
    shares = {"p50_ms": 50.0, "p90_ms": 90.0, "p99_ms": 99.0, "p99.9_ms": 99.9}
    places = {name: place for place, name in enumerate(shares)}
    return [
        Curve(line["metric"].removesuffix("_latency_ms"), [(places[n], line[n]) for n in shares])
        for line in lines
        if line["metric"].endswith("_latency_ms")
    ]


def load_curves(lines: Sequence[Line]) -> list[Curve]:
    """p99 by calls a second."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        if line["metric"] == "curve_p50_ms":
            found.setdefault(line["of"], []).append((line["rate"], line["p99_ms"]))
    return [Curve(name, sorted(points)) for name, points in found.items()]


def growth_curves(lines: Sequence[Line], what: str, figure: str) -> list[Curve]:
    """A figure by size."""
    points = [(line[what], line[figure]) for line in lines if line["metric"] == f"p50_ms_by_{what}"]
    return [Curve(figure, sorted(points))] if len(points) > 1 else []


def plot(
    curves: Sequence[Curve],
    title: str,
    x_name: str,
    y_name: str,
    *,
    ticks: Sequence[str] = (),
    log_x: bool = False,
) -> str:
    """Curves as an SVG; y from 0, x as given, by its logarithm, or with `ticks` as names of 0, 1, 2, …."""
    across = [log10(x) if log_x else x for curve in curves for x, _ in curve.points]
    low, high = min(across), max(across)
    top = max(y for curve in curves for _, y in curve.points) * 1.05 or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        share = ((log10(x) if log_x else x) - low) / ((high - low) or 1.0)
        return LEFT + share * (WIDTH - LEFT - 16), (HEIGHT - BOTTOM) - y / top * (HEIGHT - BOTTOM - 32)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{title}</text>',
        f'<text x="{WIDTH - 16}" y="{HEIGHT - 6}" text-anchor="end">{x_name}</text>',
        f'<text x="{LEFT}" y="36" fill="#555">{y_name}</text>',
    ]
    for step in range(5):
        y = top * step / 4
        _, at = place(curves[0].points[0][0], y)
        parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 16}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{y:.3g}</text>')
    for x in sorted({x for curve in curves for x, _ in curve.points}):
        at, _ = place(x, 0.0)
        name = ticks[int(x)] if ticks else f"{x:,.0f}"
        if ticks or len(curves[0].points) <= 4 or x in {point[0] for point in curves[-1].points[::2]}:
            parts.append(f'<text x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{name}</text>')
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        joined = " ".join("{:.1f},{:.1f}".format(*place(x, y)) for x, y in curve.points)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="2"/>')
        name = curve.name.replace("_", " ")
        parts.append(f'<text x="{LEFT + 12}" y="{56 + 16 * number}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def plots(lines: Sequence[Line]) -> dict[str, str]:
    """File name → SVG, of everything that there are figures for."""
    nines = ("p50", "p90", "p99", "p99.9")
    found = {}
    if curves := latency_curves(lines):
        rate = next(line["rate"] for line in lines if line["metric"].endswith("_latency_ms"))
        title = f"Latency at {rate:,.0f} calls a second"
        found["speed-latency.svg"] = plot(curves, title, "of calls", "ms", ticks=nines)
    if curves := load_curves(lines):
        found["speed-load.svg"] = plot(curves, "p99 by load, one core", "calls/s", "ms")
    for what in ("learners", "questions"):
        for figure, name, unit in (
            ("p50_ms", "latency", "ms"),
            ("private_megabytes", "memory", "MB a worker"),
        ):
            if curves := growth_curves(lines, what, figure):
                title = f"{'p50' if name == 'latency' else 'Memory'} by {what}"
                found[f"speed-{name}-by-{what}.svg"] = plot(curves, title, what, unit, log_x=True)
    return found


def main() -> int:
    """Print the table and write the plots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "figures", nargs="?", type=Path, help="lines that benches printed; standard input unless given"
    )
    parser.add_argument("--into", type=Path, help="folder for the plots; none are drawn unless given")
    options = parser.parse_args()
    text = options.figures.read_text() if options.figures else sys.stdin.read()
    lines = read(text.splitlines())
    print(table(lines), end="")
    if options.into:
        options.into.mkdir(parents=True, exist_ok=True)
        for name, svg in plots(lines).items():
            (options.into / name).write_text(svg)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

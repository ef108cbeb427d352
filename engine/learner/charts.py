"""Plots of an evaluation as SVG text. Draws lines and points only; writes no file."""

from __future__ import annotations

from collections.abc import Sequence

from engine.learner.evaluate import OURS, Evaluation

WIDTH, HEIGHT, MARGIN = 460, 400, 52
COLOURS = ("#1b6ca8", "#d1495b", "#66a182", "#edae49", "#7a5195", "#8d96a3")

Line = tuple[str, Sequence[float], Sequence[float]]
"""(name, x, y)"""


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_ticks: Sequence[tuple[float, str]],
    diagonal: bool = False,
) -> str:
    """Return an SVG of one or more lines with points; points that are not finite are left out."""

    def sx(x: float) -> float:
        return MARGIN + (x - x_range[0]) / (x_range[1] - x_range[0]) * (WIDTH - 2 * MARGIN)

    def sy(y: float) -> float:
        return HEIGHT - MARGIN - (y - y_range[0]) / (y_range[1] - y_range[0]) * (HEIGHT - 2 * MARGIN)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{WIDTH / 2}" y="22" text-anchor="middle" font-size="14">{title}</text>',
        f'<text x="{WIDTH / 2}" y="{HEIGHT - 10}" text-anchor="middle">{x_label}</text>',
        f'<text x="14" y="{HEIGHT / 2}" text-anchor="middle" transform="rotate(-90 14 {HEIGHT / 2})">{y_label}</text>',
        f'<rect x="{MARGIN}" y="{MARGIN}" width="{WIDTH - 2 * MARGIN}" height="{HEIGHT - 2 * MARGIN}" '
        'fill="none" stroke="#bbb"/>',
    ]
    for x, name in x_ticks:
        parts.append(f'<text x="{sx(x):.1f}" y="{HEIGHT - MARGIN + 16}" text-anchor="middle">{name}</text>')
    for step in range(6):
        y = y_range[0] + (y_range[1] - y_range[0]) * step / 5
        parts.append(f'<text x="{MARGIN - 6}" y="{sy(y) + 4:.1f}" text-anchor="end">{y:.2f}</text>')
        parts.append(f'<path d="M{MARGIN} {sy(y):.1f}H{WIDTH - MARGIN}" stroke="#eee"/>')
    if diagonal:
        ends = f"M{sx(x_range[0]):.1f} {sy(x_range[0]):.1f}L{sx(x_range[1]):.1f} {sy(x_range[1]):.1f}"
        parts.append(f'<path d="{ends}" stroke="#999" stroke-dasharray="4 4"/>')
    for number, (name, xs, ys) in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        points = [(sx(x), sy(y)) for x, y in zip(xs, ys, strict=True) if x == x and y == y]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        parts.append(
            f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>' if points else ""
        )
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{colour}"/>' for x, y in points]
        at = MARGIN + 16 + 15 * number
        parts.append(f'<text x="{MARGIN + 10}" y="{at}" fill="{colour}">{name}</text>')
    return "\n".join([*parts, "</svg>"])


def evaluation_charts(name: str, found: Evaluation) -> dict[str, str]:
    """Return the plots of an evaluation as SVG: "calibration", and "answers", AUC by how many were given before."""
    lines: list[Line] = []
    for model in found.predictions:
        said, seen, _ = found.calibration(model)
        lines.append((model, said.tolist(), seen.tolist()))
    calibration = line_chart(
        lines,
        title=f"Calibration, {name}",
        x_label="predicted",
        y_label="share right",
        x_range=(0, 1),
        y_range=(0, 1),
        x_ticks=[(x / 5, f"{x / 5:.1f}") for x in range(6)],
        diagonal=True,
    )
    curves = {model: found.curve(model) for model in found.predictions}
    bounds = [low for low, _, _ in curves[OURS]]
    answers = line_chart(
        [
            (model, list(range(len(curve))), [value for _, _, value in curve])
            for model, curve in curves.items()
        ],
        title=f"AUC by answers given before, {name}",
        x_label="answers given from",
        y_label="AUC",
        x_range=(0, max(len(bounds) - 1, 1)),
        y_range=(0.6, 0.9),
        x_ticks=[(i, str(bound)) for i, bound in enumerate(bounds)],
    )
    return {"calibration": calibration, "answers": answers}

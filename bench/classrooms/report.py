"""A report of a run as files: JSON lines, a Markdown table and a plot. Works nothing out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from bench.classrooms.figures import Figure

LEFT, TOP, ROW, GAP, SCALE = 190, 44, 15, 26, 420
"""Pixels: room for names, for the title, a bar, between worlds, and from 0 to 1."""
COLOURS: Mapping[str, str] = {"hybrid_v1": "#d1495b", "oracle": "#8d96a3"}
OTHER, SIMPLE_COLOUR = "#9dc3e0", "#1b6ca8"


@dataclass(frozen=True, slots=True)
class Row:
    """What one teacher reached in one world."""

    teacher: str
    simple: bool
    gain: Figure
    share: Figure | None
    """Of the oracle's gain; None without an oracle."""
    correct: float
    """Share of answers right."""
    minutes: Figure | None
    """In 7 days of free will; None where learners have none."""
    days: float = 0.0
    """Practised, of those 7."""


Worlds = Mapping[str, Sequence[Row]]


def write_report(
    folder: Path, worlds: Worlds, lines: Sequence[Mapping[str, object]], *, learners: int
) -> None:
    """Write classroom.jsonl, classroom.md and classroom.svg into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classroom.jsonl").write_text(
        "".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8"
    )
    (folder / "classroom.md").write_text(markdown(worlds, learners), encoding="utf-8")
    (folder / "classroom.svg").write_text(plot(worlds), encoding="utf-8")


def markdown(worlds: Worlds, learners: int) -> str:
    """Return a table a world, the best gain first."""
    parts = [f"{learners} learners under every teacher; 95 % intervals from resampling learners.\n"]
    for world, rows in worlds.items():
        wilful = any(row.minutes for row in rows)
        heads = ["teacher", "gain of the exam", "share of the oracle's", "answers right"]
        heads += ["minutes in 7 days", "days of 7"] if wilful else []
        table = [f"## {world}\n", _line(heads), _line(["---"] * len(heads))]
        for row in sorted(rows, key=lambda row: -row.gain.value):
            cells = [_name(row), _interval(row.gain, 3), _interval(row.share, 2), f"{row.correct:.2f}"]
            cells += [_interval(row.minutes, 1), f"{row.days:.1f}"] if wilful else []
            table.append(_line(cells))
        parts.append("\n".join(table) + "\n")
    return "\n".join(parts)


def plot(worlds: Worlds) -> str:
    """Return an SVG of the share of the oracle's gain, a group of bars a world, with intervals."""
    shown = {world: [row for row in rows if row.share] for world, rows in worlds.items()}
    shown = {world: rows for world, rows in shown.items() if rows}
    height = TOP + sum(ROW * len(rows) + GAP for rows in shown.values()) + 30
    width = LEFT + SCALE + 110
    zero = LEFT + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{width / 2}" y="20" text-anchor="middle" font-size="14">'
        "Exam gain: 0 = random questions, 1 = greedy oracle</text>",
    ]
    for step in range(6):
        x = zero + SCALE * step / 5 * 0.9
        parts.append(f'<path d="M{x:.1f} {TOP - 10}V{height - 26}" stroke="#ddd"/>')
        parts.append(f'<text x="{x:.1f}" y="{height - 10}" text-anchor="middle">{step / 5:.1f}</text>')
    y = float(TOP)
    for world, rows in shown.items():
        parts.append(f'<text x="8" y="{y + 4:.1f}" font-weight="bold">{escape(world)}</text>')
        y += 10
        for row in sorted(rows, key=lambda row: -(row.share.value if row.share else 0.0)):
            parts += _bar(row, zero, y)
            y += ROW
        y += GAP - 10
    return "\n".join([*parts, "</svg>\n"])


def _bar(row: Row, zero: float, y: float) -> list[str]:
    assert row.share is not None

    def x(share: float) -> float:
        # What lies far outside the scale is drawn at its edge; the table has the figure.
        return zero + SCALE * 0.9 * min(max(share, -0.14), 1.2)

    colour = COLOURS.get(row.teacher, SIMPLE_COLOUR if row.simple else OTHER)
    start, end = sorted((zero, x(row.share.value)))
    middle = y + ROW / 2 - 2
    return [
        f'<text x="{zero - 70:.1f}" y="{y + 9:.1f}" text-anchor="end">{escape(row.teacher)}</text>',
        f'<rect x="{start:.1f}" y="{y:.1f}" width="{end - start:.1f}" height="{ROW - 4}" fill="{colour}"/>',
        f'<path d="M{x(row.share.low):.1f} {middle:.1f}H{x(row.share.high):.1f}" stroke="#333"/>',
    ]


def _name(row: Row) -> str:
    return f"**{row.teacher}**" if row.teacher == "hybrid_v1" else row.teacher


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _interval(figure: Figure | None, digits: int) -> str:
    if figure is None:
        return "–"
    return f"{figure.value:.{digits}f} ({figure.low:.{digits}f} to {figure.high:.{digits}f})"

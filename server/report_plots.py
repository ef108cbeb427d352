"""Plots of reports as SVG inside HTML: bars by day, bars by name, a line of tiny bars. Knows no report."""

from collections.abc import Sequence
from html import escape
from typing import Final

WIDTH: Final = 760
HEIGHT: Final = 180
ROW: Final = 22
LABEL: Final = 260
COLOURS: Final = ("#0b7285", "#e67700", "#5f3dc4")

Series = tuple[str, Sequence[float]]
"""(name, values)"""


def day_bars(days: Sequence[str], series: Sequence[Series], title: str) -> str:
    """Bars by day, the series stacked on one another, with the sum over each bar."""
    sums = [sum(values) for values in zip(*(values for _, values in series), strict=True)]
    most = max([*sums, 1e-9])
    step = (WIDTH - 20) / max(len(days), 1)
    base = HEIGHT - 36
    drawn = []
    for place, day in enumerate(days):
        x, y = 10 + step * place, float(base)
        for colour, (_, values) in zip(COLOURS, series, strict=False):
            height = values[place] / most * (base - 24)
            y -= height
            drawn.append(_bar(x + step * 0.15, y, step * 0.7, height, colour))
        middle = x + step / 2
        drawn.append(_text(middle, y - 4, f"{sums[place]:,.0f}", "middle"))
        drawn.append(_text(middle, base + 15, day, "middle"))
    return _svg(drawn + _legend(series), HEIGHT, title)


def name_bars(names: Sequence[str], series: Sequence[Series], title: str, *, most: float = 0.0) -> str:
    """A row a name, the series stacked to the right, with the sum behind; `most` is the full width, 0 the longest."""
    sums = [sum(values) for values in zip(*(values for _, values in series), strict=True)]
    full = most or max([*sums, 1e-9])
    drawn = []
    for place, name in enumerate(names):
        y, x = 6 + ROW * place, float(LABEL)
        drawn.append(_text(LABEL - 8, y + 14, name if len(name) <= 38 else name[:37] + "…", "end"))
        for colour, (_, values) in zip(COLOURS, series, strict=False):
            width = values[place] / full * (WIDTH - LABEL - 60)
            drawn.append(_bar(x, y + 3, width, ROW - 8, colour))
            x += width
        shown = f"{sums[place]:.0%}" if most == 1.0 else f"{sums[place]:,.0f}"
        drawn.append(_text(x + 6, y + 14, shown, "start"))
    height = ROW * len(names) + (30 if len(series) > 1 else 10)
    return _svg(drawn + (_legend(series, at=height - 8) if len(series) > 1 else []), height, title)


def tiny_bars(values: Sequence[float], title: str) -> str:
    """Bars without words, to stand in a line of text."""
    most = max([*values, 1e-9])
    bars = [
        _bar(9 * place, 20 - max(18 * value / most, 1.0), 7, max(18 * value / most, 1.0), COLOURS[0])
        for place, value in enumerate(values)
    ]
    size = f"width='{9 * len(values)}' height='20'"
    return f"<svg class='tiny' {size} role='img' aria-label='{escape(title)}'>{''.join(bars)}</svg>"


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return (
        f"<rect x='{x:.1f}' y='{y:.1f}' width='{max(width, 0):.1f}' height='{height:.1f}' fill='{colour}'/>"
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}'>{escape(text)}</text>"


def _legend(series: Sequence[Series], at: float = HEIGHT - 4) -> list[str]:
    parts = []
    for place, (colour, (name, _)) in enumerate(zip(COLOURS, series, strict=False)):
        x = 10 + 180 * place
        parts += [_bar(x, at - 9, 10, 10, colour), _text(x + 15, at, name, "start")]
    return parts


def _svg(drawn: Sequence[str], height: float, title: str) -> str:
    return (
        f"<svg viewBox='0 0 {WIDTH} {height}' role='img' aria-label='{escape(title)}'>{''.join(drawn)}</svg>"
    )

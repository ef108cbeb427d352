"""Groups of bars with their intervals as SVG text. Writes no file."""

from collections.abc import Mapping, Sequence

from engine.learner.charts import COLOURS

BAR, GAP, HEIGHT, MARGIN = 26, 40, 360, 52

Span = tuple[float, float, float]
"""(value, low, high)"""


def bar_chart(bars: Mapping[str, Sequence[Span]], groups: Sequence[str], *, title: str) -> str:
    """Return an SVG with one group of bars a name in `groups`; `bars` holds a value a group for every series.

    The axis starts at 0 and ends at 1, or above the largest value.
    """
    top = max(1.0, *(high for spans in bars.values() for _, _, high in spans))
    group = len(bars) * BAR + GAP
    width = 2 * MARGIN + len(groups) * group + 130

    def sy(value: float) -> float:
        return HEIGHT - MARGIN - value / top * (HEIGHT - 2 * MARGIN)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{width}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{MARGIN}" y="22" font-size="14">{title}</text>',
    ]
    for step in range(6):
        value = top * step / 5
        parts.append(f'<path d="M{MARGIN} {sy(value):.1f}H{width - 150}" stroke="#eee"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{sy(value) + 4:.1f}" text-anchor="end">{value:.2f}</text>')
    for place, name in enumerate(groups):
        left = MARGIN + GAP / 2 + place * group
        middle = left + len(bars) * BAR / 2
        parts.append(f'<text x="{middle:.0f}" y="{HEIGHT - MARGIN + 16}" text-anchor="middle">{name}</text>')
        for number, spans in enumerate(bars.values()):
            value, low, high = spans[place]
            x = left + number * BAR
            colour = COLOURS[number % len(COLOURS)]
            parts.append(
                f'<rect x="{x:.0f}" y="{sy(value):.1f}" width="{BAR - 4}" height="{sy(0.0) - sy(value):.1f}" '
                f'fill="{colour}"/>'
            )
            parts.append(f'<path d="M{x + BAR / 2 - 2:.0f} {sy(low):.1f}V{sy(high):.1f}" stroke="#333"/>')
    for number, series in enumerate(bars):
        y = MARGIN + 16 * number
        parts.append(
            f'<rect x="{width - 140}" y="{y}" width="10" height="10" fill="{COLOURS[number % len(COLOURS)]}"/>'
        )
        parts.append(f'<text x="{width - 125}" y="{y + 9}">{series}</text>')
    return "\n".join((*parts, "</svg>")) + "\n"

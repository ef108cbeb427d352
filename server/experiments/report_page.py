"""Results as one HTML page with plots, for people who own products. Loads nothing, calls no server."""

import math
from collections.abc import Sequence
from html import escape

from genie.v1 import experiment_pb2 as resources
from genie.v1 import experiment_results_pb2 as results_pb
from genie.v1 import experiment_service_pb2 as pb
from server.experiments import words

WIDTH, HEIGHT, MARGIN = 760, 260, 56
COLOURS = ("#5b6770", "#0b7285", "#c2255c", "#e67700", "#5f3dc4", "#2b8a3e", "#364fc7", "#862e9c")
MOST_LIFT = 2.0
"""Lifts beyond this are drawn at the edge: early bands are as wide as anything."""

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#212529;max-width:820px;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:0}.state{color:#5b6770}.verdict{border-left:6px solid #0b7285;background:#f1f3f5;padding:.8rem 1rem}
.SHIP{border-color:#2b8a3e}.STOP_HARM,.ROLLED_BACK,.INVALID{border-color:#c92a2a}.STOP_FUTILE{border-color:#e67700}
table{border-collapse:collapse;width:100%;font-size:14px}th,td{text-align:left;padding:.3rem .5rem;
border-bottom:1px solid #dee2e6}td.n{text-align:right;font-variant-numeric:tabular-nums}
svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:#495057}.caution{color:#a61e4d}
"""


def report_page(experiment: resources.Experiment, reply: pb.GetResultsResponse) -> str:
    """The whole page; it names no other file and runs no script."""
    results = reply.results
    verdict = words.verdict(results)
    cautions = [caution.sentence for caution in results.cautions]
    cautions += [
        f"{c.metric}, {c.arm}: {caution.sentence}" for c in results.comparisons for caution in c.cautions
    ]
    sections = [
        f"<h1>{escape(experiment.name)}</h1><p class='state'>{words.state(results.state)}, "
        f"looked at {_when(results)}</p>",
        f"<p>{escape(experiment.hypothesis)}</p>" if experiment.hypothesis else "",
        f"<div class='verdict {verdict.replace(' ', '_')}'><strong>{verdict}</strong><br>"
        f"{escape(results.verdict_sentence)}</div>",
        "".join(f"<p class='caution'>Read with care: {escape(text)}</p>" for text in cautions),
        "<h2>What was compared</h2>",
        _facts(experiment, results),
        f"<h2>Lift of {escape(experiment.metrics[0].definition.name)} over time</h2>",
        "<p>The band holds however often one looks; the experiment may stop early when it leaves zero.</p>",
        _lift_plot(experiment, reply),
        "<h2>Learners exposed, by arm</h2>",
        _exposure_plot(experiment, reply),
        f"<p>Sample ratio: p = {words.p_value(results.sample_ratio.p_value)} at this look, "
        f"{words.p_value(results.sample_ratio.always_valid_p_value)} at every look.</p>",
        "<h2>Every metric</h2>",
        "<p>Thick: 95 % interval of one look. Thin: the interval that holds at every look.</p>",
        forest_plot(results),
        _table(results),
    ]
    title = escape(experiment.name)
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        f"<style>{_STYLE}</style></head><body>{''.join(sections)}</body></html>\n"
    )


def _when(results: results_pb.ExperimentResults) -> str:
    return results.look_time.ToDatetime().strftime("%Y-%m-%d %H:%M UTC")


def _facts(experiment: resources.Experiment, results: results_pb.ExperimentResults) -> str:
    plan = experiment.sample_plan
    rows = [
        ("Arms", ", ".join(f"{arm.name} ({arm.algorithm})" for arm in experiment.arms)),
        ("Worth having", f"{experiment.target_improvement_percent:g} % improvement"),
        ("Planned", f"{experiment.duration_days} days, {plan.planned_sample} learners in two arms"),
        ("In so far", f"{results.sample} learners; {words.decision(results)}"),
    ]
    if experiment.end_reason:
        rows.append(("Ended", experiment.end_reason))
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>" for name, text in rows)
    return f"<table>{cells}</table>"


class _Axes:
    """From numbers to places on a plot."""

    def __init__(self, xs: tuple[float, float], ys: tuple[float, float]) -> None:
        self._x0, self._x1 = xs if xs[1] > xs[0] else (xs[0], xs[0] + 1.0)
        self._y0, self._y1 = ys if ys[1] > ys[0] else (ys[0] - 0.5, ys[0] + 0.5)

    def x(self, value: float) -> float:
        return MARGIN + (value - self._x0) / (self._x1 - self._x0) * (WIDTH - 2 * MARGIN)

    def y(self, value: float) -> float:
        bounded = min(max(value, self._y0), self._y1)
        return HEIGHT - MARGIN / 2 - (bounded - self._y0) / (self._y1 - self._y0) * (HEIGHT - MARGIN)

    def frame(self, low: str, high: str, start: str, end: str) -> str:
        left, right, bottom = MARGIN, WIDTH - MARGIN, HEIGHT - MARGIN / 2
        return (
            f"<line x1='{left}' y1='{bottom}' x2='{right}' y2='{bottom}' stroke='#adb5bd'/>"
            f"<line x1='{left}' y1='{MARGIN / 2}' x2='{left}' y2='{bottom}' stroke='#adb5bd'/>"
            f"<text x='{left - 6}' y='{bottom}' text-anchor='end'>{low}</text>"
            f"<text x='{left - 6}' y='{MARGIN / 2 + 10}' text-anchor='end'>{high}</text>"
            f"<text x='{left}' y='{HEIGHT - 8}'>{start}</text>"
            f"<text x='{right}' y='{HEIGHT - 8}' text-anchor='end'>{end}</text>"
        )


def _points(reply: pb.GetResultsResponse) -> list[tuple[float, results_pb.ResultPoint]]:
    """(time, look) of the history and of the look now."""
    now = results_pb.ResultPoint(exposed_counts=[arm.exposed_count for arm in reply.results.arms])
    now.look_time.CopyFrom(reply.results.look_time)
    primary = [c for c in reply.results.comparisons if c.role == resources.METRIC_ROLE_PRIMARY]
    for c in primary:
        now.lifts.add(
            lift=c.lift if c.HasField("lift") else None,
            interval=c.lift_interval,
            always_valid_interval=c.lift_always_valid_interval,
        )
    return [(point.look_time.ToMicroseconds() / 1e6, point) for point in (*reply.history, now)]


def _lift_plot(experiment: resources.Experiment, reply: pb.GetResultsResponse) -> str:
    points = _points(reply)
    treatments = [arm.name for arm in experiment.arms[1:]]
    ends = [
        bound
        for _, point in points
        for lift in point.lifts
        for bound in (*words.bounds(lift.interval), *words.bounds(lift.always_valid_interval))
        if math.isfinite(bound)
    ]
    if not ends:
        return "<p>Nothing can be estimated yet.</p>"
    tight = [b for lift in points[-1][1].lifts for b in words.bounds(lift.always_valid_interval)]
    reach = max((abs(b) for b in tight if math.isfinite(b)), default=max(map(abs, ends)))
    limit = min(max(4.0 * reach, 0.05), MOST_LIFT, max(map(abs, ends)))
    axes = _Axes((points[0][0], points[-1][0]), (-limit, limit))
    zero = axes.y(0.0)
    drawn = [
        axes.frame(words.percent(-limit), words.percent(limit), "start", "now"),
        f"<line x1='{MARGIN}' y1='{zero:.1f}' x2='{WIDTH - MARGIN}' y2='{zero:.1f}' stroke='#ced4da' "
        "stroke-dasharray='4'/>",
    ]
    for place, name in enumerate(treatments):
        colour = COLOURS[(place + 1) % len(COLOURS)]
        own = [(at, point.lifts[place]) for at, point in points if place < len(point.lifts)]
        known = [(at, lift) for at, lift in own if lift.HasField("lift")]
        bands = [(at, *words.bounds(lift.always_valid_interval)) for at, lift in known]
        bands = [band for band in bands if math.isfinite(band[1])]
        upper = [f"{axes.x(at):.1f},{axes.y(high):.1f}" for at, _, high in bands]
        lower = [f"{axes.x(at):.1f},{axes.y(low):.1f}" for at, low, _ in reversed(bands)]
        line = " ".join(f"{axes.x(at):.1f},{axes.y(lift.lift):.1f}" for at, lift in known)
        drawn.append(f"<polygon points='{' '.join(upper + lower)}' fill='{colour}' opacity='.18'/>")
        drawn.append(f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='2'/>")
        drawn.append(_legend(place, name, colour))
    return _svg(drawn, HEIGHT, "Lift over time")


def _exposure_plot(experiment: resources.Experiment, reply: pb.GetResultsResponse) -> str:
    points = _points(reply)
    most = max((max(point.exposed_counts, default=0) for _, point in points), default=0)
    axes = _Axes((points[0][0], points[-1][0]), (0.0, float(max(most, 1))))
    drawn = [axes.frame("0", str(most), "start", "now")]
    for place, arm in enumerate(experiment.arms):
        colour = COLOURS[place % len(COLOURS)]
        line = " ".join(
            f"{axes.x(at):.1f},{axes.y(float(point.exposed_counts[place])):.1f}" for at, point in points
        )
        drawn.append(f"<polyline points='{line}' fill='none' stroke='{colour}' stroke-width='2'/>")
        drawn.append(_legend(place, arm.name, colour))
    return _svg(drawn, HEIGHT, "Learners exposed over time")


def forest_plot(results: results_pb.ExperimentResults) -> str:
    """A row a metric and treatment: the lift with both of its intervals."""
    rows = [c for c in results.comparisons if c.HasField("lift")]
    if not rows:
        return "<p>Nothing can be estimated yet.</p>"
    ends = [abs(b) for c in rows for b in (c.lift, *words.bounds(c.lift_interval)) if math.isfinite(b)]
    limit = min(max([0.05, *(1.3 * end for end in ends)]), MOST_LIFT)
    left, right, step = 300.0, WIDTH - 20.0, 30
    height = step * len(rows) + 40

    def x(value: float) -> float:
        return left + (min(max(value, -limit), limit) + limit) / (2 * limit) * (right - left)

    drawn = [
        f"<line x1='{x(0):.1f}' y1='10' x2='{x(0):.1f}' y2='{height - 25}' stroke='#adb5bd'/>",
        f"<text x='{left}' y='{height - 6}'>{words.percent(-limit)}</text>",
        f"<text x='{right}' y='{height - 6}' text-anchor='end'>{words.percent(limit)}</text>",
    ]
    for place, c in enumerate(rows):
        y = 24 + step * place
        colour = COLOURS[1] if c.role == resources.METRIC_ROLE_PRIMARY else COLOURS[0]
        label = escape(f"{c.metric} ({words.role(c.role)}), {c.arm}")
        drawn.append(f"<text x='0' y='{y + 4}'>{label[:60]}</text>")
        for interval, width in ((c.lift_always_valid_interval, 1), (c.lift_interval, 5)):
            low, high = words.bounds(interval)
            if math.isfinite(low) and math.isfinite(high):
                drawn.append(
                    f"<line x1='{x(low):.1f}' y1='{y}' x2='{x(high):.1f}' y2='{y}' stroke='{colour}' "
                    f"stroke-width='{width}'/>"
                )
        drawn.append(f"<circle cx='{x(c.lift):.1f}' cy='{y}' r='5' fill='{colour}'/>")
    return _svg(drawn, height, "Lift of every metric")


def _table(results: results_pb.ExperimentResults) -> str:
    head = "".join(
        f"<th>{name}</th>"
        for name in (
            "metric",
            "arm",
            "control",
            "treatment",
            "lift",
            "95 %",
            "always valid",
            "p",
            "Hedges’ g",
        )
    )
    rows = []
    for c in results.comparisons:
        lift = c.lift if c.HasField("lift") else math.nan
        cells = [
            words.number(c, "control_mean"),
            words.number(c, "treatment_mean"),
            words.percent(lift),
            words.interval(c.lift_interval),
            words.interval(c.lift_always_valid_interval),
            words.p_value(c.adjusted_p_value),
            words.number(c, "hedges_g"),
        ]
        numbers = "".join(f"<td class='n'>{escape(cell)}</td>" for cell in cells)
        rows.append(f"<tr><td>{escape(c.metric)}</td><td>{escape(c.arm)}</td>{numbers}</tr>")
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _legend(place: int, name: str, colour: str) -> str:
    y = MARGIN / 2 + 14 + 16 * place
    return (
        f"<rect x='{MARGIN + 12}' y='{y - 9}' width='10' height='10' fill='{colour}'/>"
        f"<text x='{MARGIN + 27}' y='{y}'>{escape(name)}</text>"
    )


def _svg(drawn: Sequence[str], height: float, title: str) -> str:
    return (
        f"<svg viewBox='0 0 {WIDTH} {height}' role='img' aria-label='{title}'><title>{title}</title>"
        f"{''.join(drawn)}</svg>"
    )

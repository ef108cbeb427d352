"""Results as a live terminal view: arms, lifts with their intervals drawn, the verdict in words. Calls no server."""

import math

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from genie.v1 import experiment_pb2 as resources
from genie.v1 import experiment_results_pb2 as results_pb
from server.experiments import words

BAR_CELLS = 41
LEAST_SCALE = 0.05
MOST_SCALE = 1.0

_COLOURS = {
    results_pb.EXPERIMENT_VERDICT_CONTINUE: "cyan",
    results_pb.EXPERIMENT_VERDICT_SHIP: "green",
    results_pb.EXPERIMENT_VERDICT_STOP_FUTILE: "yellow",
}


def view(experiment: resources.Experiment, results: results_pb.ExperimentResults) -> RenderableType:
    """One look as a page of the terminal."""
    colour = _COLOURS.get(results.verdict, "red")
    sentence = Text(results.verdict_sentence)
    head = f"{experiment.name}: {words.state(results.state)}"
    parts: list[RenderableType] = [
        Panel(sentence, title=f"{words.verdict(results)}", border_style=colour, subtitle=head),
        _progress(results),
        _arms(results),
        _lifts(results),
    ]
    notes = [caution.sentence for caution in results.cautions]
    notes += [
        f"{c.metric}, {c.arm}: {caution.sentence}" for c in results.comparisons for caution in c.cautions
    ]
    parts += [Text(f"! {note}", style="yellow") for note in notes]
    return Group(*parts)


def _progress(results: results_pb.ExperimentResults) -> Text:
    share = min(results.sample / max(results.planned_sample, 1), 1.0)
    done = round(share * BAR_CELLS)
    bar = "█" * done + "░" * (BAR_CELLS - done)
    ratio = words.p_value(results.sample_ratio.always_valid_p_value)
    return Text(
        f"{bar} {results.sample} of {results.planned_sample} learners, {words.decision(results)}, "
        f"sample ratio p {ratio}"
    )


def _arms(results: results_pb.ExperimentResults) -> Table:
    table = Table(title="Arms", title_justify="left")
    for name in ("arm", "exposed", "assigned"):
        table.add_column(name, justify="left" if name == "arm" else "right", overflow="fold")
    metrics = [mean.metric for mean in results.arms[0].means] if results.arms else []
    for metric in metrics:
        table.add_column(metric, justify="right")
    for arm in results.arms:
        means = [words.number(mean, "mean") for mean in arm.means]
        table.add_row(arm.arm, str(arm.exposed_count), str(arm.assigned_count), *means)
    return table


def _lifts(results: results_pb.ExperimentResults) -> Table:
    scale = _scale(results)
    title = f"Lift over control: ─ always valid, ━ 95 %, scale ±{100 * scale:.0f} %"
    table = Table(title=title, title_justify="left")
    for name in ("metric", "arm", "lift", "", "always valid", "p"):
        table.add_column(name, overflow="fold", no_wrap=name == "")
    for c in results.comparisons:
        lift = c.lift if c.HasField("lift") else math.nan
        metric = c.metric if c.role == resources.METRIC_ROLE_PRIMARY else f"{c.metric} ({words.role(c.role)})"
        p = c.harm_p_value if c.HasField("harm_p_value") else c.always_valid_p_value
        table.add_row(
            metric,
            c.arm,
            words.percent(lift),
            draw(lift, words.bounds(c.lift_interval), words.bounds(c.lift_always_valid_interval), scale),
            words.interval(c.lift_always_valid_interval),
            words.p_value(p),
        )
    return table


def _scale(results: results_pb.ExperimentResults) -> float:
    """The lift at the ends of the drawing: what holds every bounded interval, within reason."""
    ends = [
        abs(bound)
        for c in results.comparisons
        for bound in (*words.bounds(c.lift_interval), *words.bounds(c.lift_always_valid_interval))
        if math.isfinite(bound)
    ]
    return min(max([LEAST_SCALE, *ends]), MOST_SCALE)


def draw(
    lift: float,
    fixed: tuple[float, float],
    sequence: tuple[float, float],
    scale: float,
    cells: int = BAR_CELLS,
) -> str:
    """An interval in an interval around a zero line; ends that do not fit are arrows."""
    middle = cells // 2

    def cell(value: float) -> int:
        return min(max(middle + round(value / scale * middle), 0), cells - 1)

    line = [" "] * cells
    if not math.isnan(lift):
        for (low, high), mark in ((sequence, "─"), (fixed, "━")):
            for place in range(cell(max(low, -scale)), cell(min(high, scale)) + 1):
                line[place] = mark
    line[middle] = "┼" if line[middle] != " " else "│"
    if not math.isnan(lift):
        if sequence[0] < -scale:
            line[0] = "←"
        if sequence[1] > scale:
            line[-1] = "→"
        line[cell(lift)] = "●"
    return "".join(line)

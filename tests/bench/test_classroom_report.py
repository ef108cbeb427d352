"""What a run leaves behind: lines, a table and a plot that say the same."""

import json
from pathlib import Path
from xml.etree import ElementTree

from bench.classroom import Run
from bench.classrooms.figures import Figure
from bench.classrooms.report import Row, markdown, plot, write_report


def row(teacher: str, gain: float, share: float | None, minutes: float | None = None) -> Row:
    def about(value: float | None) -> Figure | None:
        return None if value is None else Figure(value, value - 0.1, value + 0.1)

    reached = about(gain)
    assert reached is not None
    return Row(teacher, False, reached, about(share), 0.7, about(minutes), 4.0)


WORLDS = {
    "steps": [row("random", 0.1, 0.0), row("hybrid_v1", 0.4, 0.75), row("oracle", 0.5, 1.0)],
    "leavers & co": [row("random", 0.1, 0.0, 20.0), row("hybrid_v1", 0.2, 40.0, 33.0)],
    "no oracle": [row("random", 0.1, None)],
}


def test_a_table_has_the_best_first_and_minutes_only_where_there_are_any() -> None:
    steps, leavers, without = markdown(WORLDS, 12).split("## ")[1:]
    assert [line.split(" | ")[0] for line in steps.splitlines()[4:7]] == [
        "| oracle",
        "| **hybrid_v1**",
        "| random",
    ]
    assert "0.75 (0.65 to 0.85)" in steps
    assert "minutes" not in steps
    assert "33.0 (32.9 to 33.1)" in leavers
    assert "–" in without


def test_a_plot_is_an_svg_with_a_bar_a_share() -> None:
    drawing = ElementTree.fromstring(plot(WORLDS))
    name = "{http://www.w3.org/2000/svg}"
    assert len(drawing.findall(f"{name}rect")) == 1 + 5
    texts = [text.text for text in drawing.findall(f"{name}text")]
    assert "leavers & co" in texts
    assert "no oracle" not in texts
    widths = [float(bar.get("width", "0")) for bar in drawing.findall(f"{name}rect")[1:]]
    assert max(widths) < float(drawing.get("width", "0")), "even what lies far outside the scale stays inside"


def test_a_report_holds_every_line(tmp_path: Path) -> None:
    run = Run()
    run.tell("a", 1.0, ">= 2", of="b")
    run.tell("c", 3.0)
    write_report(tmp_path / "deep", WORLDS, run.lines, learners=12)
    lines = [json.loads(line) for line in (tmp_path / "deep" / "classroom.jsonl").read_text().splitlines()]
    assert lines[0] == {
        "bench": "classroom",
        "metric": "a",
        "value": 1.0,
        "bar": ">= 2",
        "holds": False,
        "of": "b",
    }
    assert len(lines) == 2
    assert not run.held

"""Dashboard, alert rules and Prometheus configuration: as their tools want them, and of metrics that there are."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy import dashboard
from deploy.panels import rows

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy" / "prometheus"
NAME = re.compile(r"\bgenie_[a-z_]+")
PANELS = [panel for row in rows() for panel in row.panels]


def documented() -> set[str]:
    """Names of the metrics page, with those that a histogram is made of."""
    found = set()
    for line in (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) > 2 and cells[1].startswith("`genie_"):
            name = cells[1].strip("`")
            parts = ("_bucket", "_sum", "_count") if cells[2] == "histogram" else ("",)
            found |= {name + part for part in parts}
    return found


def shown(kind: str) -> Iterator[dict[str, Any]]:
    """Entries of the dashboard's file that are panels, or rows."""
    file = json.loads(dashboard.PATH.read_text(encoding="utf-8"))
    return (entry for entry in file["panels"] if (entry["type"] == "row") == (kind == "row"))


def promtool(*arguments: object) -> None:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run([program, *map(str, arguments)], cwd=PROMETHEUS, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def alerts() -> dict[str, str]:
    """Alert → its rule, as text."""
    parts = (PROMETHEUS / "alerts.yml").read_text(encoding="utf-8").split("- alert: ")[1:]
    return {part.split("\n")[0]: part for part in parts}


def test_the_file_is_what_the_program_writes() -> None:
    assert dashboard.main(["--check"]) == 0, "run: python -m deploy.dashboard"


def test_every_panel_asks_for_metrics_that_there_are() -> None:
    known = documented()
    assert len(known) > 40
    for panel in PANELS:
        for query in panel.queries:
            asked = set(NAME.findall(query.expression))
            assert asked, panel.title
            assert asked <= known, f"{panel.title}: {asked - known}"
    assert set(NAME.findall("".join(alerts().values()))) <= known


def test_panels_fill_the_grid_without_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for entry in [*shown("row"), *shown("panel")]:
        place = entry["gridPos"]
        assert 0 <= place["x"] <= place["x"] + place["w"] <= dashboard.WIDTH
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, entry["title"]
        taken |= cells
    numbers = [entry["id"] for entry in [*shown("row"), *shown("panel")]]
    assert len(numbers) == len(set(numbers)) > 35


def test_prometheus_takes_configuration_and_rules() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "alerts.yml")


def test_alerts_call_when_they_should_and_only_then() -> None:
    tested = (PROMETHEUS / "alerts_test.yml").read_text(encoding="utf-8")
    untested = [name for name in alerts() if f'alertname="{name}"' not in tested]
    assert not untested
    promtool("test", "rules", "alerts_test.yml")


def test_the_runbook_has_a_line_for_every_alert() -> None:
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    lines = re.findall(r"^\| `(Genie\w+)` \|", page, re.MULTILINE)
    assert lines == list(alerts())

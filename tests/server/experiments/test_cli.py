"""`genie experiment`: what a person types, and what they read."""

import json
import math
import random
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from engine.experiments.assignment import Assigner
from server.cli import program
from server.experiments.live import draw
from tests.server.experiments.world import Lab, lab

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def running() -> Iterator[Lab]:
    with lab() as opened:
        yield opened


@pytest.fixture
def run(running: Lab) -> Run:
    def go(*arguments: str, tenant: str = "cli") -> Result:
        caller = ["experiment", "--target", f"127.0.0.1:{running.port}", "--tenant", tenant]
        return CliRunner().invoke(program, [*caller, *arguments], env={"COLUMNS": "200"})

    return go


def fill(running: Lab, experiment_id: str, learners: int = 300) -> None:
    own = Lab(running.genie, running.port, running.store, running.channel, tenant="cli")
    rng = random.Random(1)
    assigner = Assigner(own.record(experiment_id).assignment(), now_s=time.time())
    reports = []
    for number in range(learners):
        learner = f"learner-{number}"
        treated = assigner.index_of(learner) == 1
        reports.append(own.exposure(experiment_id, learner, report_id="e"))
        reports.append(own.value(learner, "practice_minutes", rng.gauss(30.0 if treated else 20.0, 5.0)))
    own.report(*reports)


def test_the_life_of_an_experiment_by_hand(run: Run, running: Lab, tmp_path: Path) -> None:
    made = run(
        "create",
        "By <hand>",
        "--sample=200",
        "--guardrail=accuracy=2%",
        "--secondary=click_through",
        "--start",
    )
    assert made.exit_code == 0, made.output
    assert "RUNNING" in made.output
    assert "50.0%  content_based_v1" in made.output
    experiment_id = made.output.split()[0]
    fill(running, experiment_id)
    shown = run("results", "By <hand>")
    assert "SHIP" in shown.output, shown.output
    assert "●" in shown.output
    watched = run("watch", experiment_id, "--updates=1")
    assert "SHIP" in watched.output
    assert watched.output.endswith("\n")
    assert '"verdict": "EXPERIMENT_VERDICT_SHIP"' in run("results", experiment_id, "--json").output
    listed = run("reports", "By <hand>", "learner-7")
    assert "practice_minutes" in listed.output
    assert "exposed: " in listed.output
    page = tmp_path / "report.html"
    assert run("report", experiment_id, "-o", str(page)).exit_code == 0
    check_page(page.read_text(encoding="utf-8"))
    deeper = tmp_path / "new" / "report.html"
    assert run("report", experiment_id, "-o", str(deeper)).exit_code == 0
    assert deeper.is_file()
    nowhere = run("report", experiment_id, "-o", str(page / "report.html"))
    assert nowhere.exit_code == 1
    assert f"genie: cannot write {page}/report.html: {page} is no directory" in nowhere.stderr
    assert "20.0%  content_based_v1" in run("split", experiment_id, "0.2,0.8").output
    assert "By <hand>" in run("list", "--active").output
    assert "STOPPED" in run("stop", experiment_id, "--reason=Shipped.").output
    assert "Shipped." in running_reason(running, experiment_id)


def running_reason(running: Lab, experiment_id: str) -> str:
    own = Lab(running.genie, running.port, running.store, running.channel, tenant="cli")
    return own.record(experiment_id).end_reason


class Page(HTMLParser):
    """Counts what is drawn, and what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href")]


def check_page(text: str) -> None:
    page = Page()
    page.feed(text)
    assert page.tags.count("svg") == 3
    assert page.tags.count("circle") == 1, "one metric can be compared"
    assert not page.loads
    assert "script" not in page.tags
    assert "By &lt;hand&gt;" in text
    assert "nan" not in text
    assert "Ship collaborative_filtering_v2" in text


def test_mistakes_are_told_in_words(run: Run) -> None:
    unknown = run("create", "Wrong", "--treatment=magic")
    assert unknown.exit_code == 1
    assert "UNKNOWN_ALGORITHM" in unknown.output
    assert "content_based_v1" in unknown.output
    assert "EXPERIMENT_NOT_FOUND" in run("start", "nothing").output
    assert run("create", "Wrong", "--split=half").exit_code == 2
    assert run("create", "Wrong", "--guardrail=accuracy=much").exit_code == 2


def test_what_has_no_option_comes_from_a_file(run: Run, running: Lab, tmp_path: Path) -> None:
    file = tmp_path / "more.json"
    file.write_text(
        '{"layer": {"name": "home", "end": 0.5}, "ramp": [{"coverage": 0.25}], "hypothesis": "Yes."}'
    )
    made = run("create", "From a file", "--fields", str(file))
    assert made.exit_code == 0, made.output
    own = Lab(running.genie, running.port, running.store, running.channel, tenant="cli")
    record = own.record(made.output.split()[0])
    assert record.layer == ("home", 0.0, 0.5)
    assert record.phases[0].ramp == ((0.0, 0.25),)
    file.write_text('{"layr": {}}')
    assert run("create", "From a file", "--fields", str(file)).exit_code == 2


def test_an_interval_is_drawn_around_its_lift() -> None:
    line = draw(0.5, (0.25, 0.75), (0.0, 1.0), 1.0, 21)
    assert len(line) == 21
    assert line[15] == "●"
    assert line[10] == "┼"
    assert (line[13], line[18]) == ("━", "━") or (line[12], line[17]) == ("━", "━")
    assert line[20] == "─"
    assert line[:10].strip() == ""
    unbounded = draw(0.0, (-0.5, 0.5), (-math.inf, math.inf), 1.0, 21)
    assert (unbounded[0], unbounded[-1]) == ("←", "→")
    assert draw(math.nan, (-math.inf, math.inf), (-math.inf, math.inf), 1.0, 5) == "  │  "


def test_an_experiment_that_was_stopped_is_not_told_to_go_on(run: Run, tmp_path: Path) -> None:
    experiment_id = run("create", "Stopped", "--start").output.split()[0]
    run("results", experiment_id)
    run("stop", experiment_id)
    shown = run("results", experiment_id).output
    assert "Ended before anything was shown: 0 of " in shown
    assert "NO VERDICT" in shown
    assert "ontinue" not in shown
    page = tmp_path / "stopped.html"
    assert run("report", experiment_id, "-o", str(page)).exit_code == 0
    assert "Ended before anything was shown" in page.read_text(encoding="utf-8")


def test_an_experiment_that_knows_nothing_yet_is_shown_as_well(run: Run, tmp_path: Path) -> None:
    made = run("create", "Empty", "--treatment=random_v1", "--treatment=zone_v1", "--secondary=accuracy")
    experiment_id = made.output.split()[0]
    assert "33.3%  zone_v1" in made.output
    assert "CONTINUE" in run("results", experiment_id).output
    empty = json.loads(run("results", experiment_id, "--json").stdout)["results"]
    means = [mean for arm in empty["arms"] for mean in arm["means"]]
    assert len(means) == 6
    assert not any("mean" in mean for mean in means)
    page = tmp_path / "empty.html"
    assert run("report", experiment_id, "-o", str(page)).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert "Nothing can be estimated yet" in text
    assert "nan" not in text

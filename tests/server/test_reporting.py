"""Reports as files: what stands in them, how they appear, and that the page needs nothing else."""

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import json_format
from google.type.date_pb2 import Date

from genie.v1 import report_pb2
from server.report_page import report_page
from server.reporting import Written, write_reports
from server.services.reports import WEEK_SPAN, Period
from tests.server.learner_world import DAY, Goal, World
from tests.server.service_calls import NOW

ALONE = {"meta", "rect", "br"}
"""Elements without an end."""


class Page(HTMLParser):
    """Follows elements in and out, and keeps what a reader sees."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.elements: list[str] = []
        self.seen = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs
        if tag not in ALONE:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.seen += data


@pytest.fixture
def world() -> Iterator[World]:
    """Four learners: one stuck with a goal, one steady, one away, one new."""
    made = World()
    made.create(
        "stuck", display_name="<b>Grace & co</b>", labels={"class": "7b"}, goal=Goal(concept_id="multiply")
    )
    for learner in ("steady", "away"):
        made.create(learner, labels={"class": "7a"})
        for ago in range(12, 0 if learner == "steady" else 5, -1):
            made.answer(learner, "count", at=NOW - ago * DAY, count=3)
    made.answer("stuck", "count", at=NOW - 3 * DAY, correct=False, count=2)
    made.answer("stuck", "add", at=NOW - 2 * DAY, correct=False, count=3)
    made.create("young")
    yield made
    made.tenants.close()


def write(world: World, folder: Path, **more: Any) -> tuple[Written, list[report_pb2.LearnerReport], Page]:
    jsonl, page = folder / "week.jsonl", folder / "week.html"
    written = write_reports(
        world.store,
        "default",
        world.tenants.bundle("default"),
        Period.over(NOW, "UTC", WEEK_SPAN),
        now=NOW,
        jsonl=jsonl,
        page=page,
        title="Weekly <report>",
        **more,
    )
    reports = [json_format.Parse(line, report_pb2.LearnerReport()) for line in jsonl.read_text().splitlines()]
    return written, reports, Page(page.read_text())


def test_every_learner_has_a_line_that_is_the_services_report(world: World, tmp_path: Path) -> None:
    written, reports, _ = write(world, tmp_path)
    assert [report.learner_id for report in reports] == ["away", "steady", "stuck", "young"]
    for report in reports:
        assert report == world.weekly(report.learner_id)
    assert written.report == world.tenant_week()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["week.html", "week.jsonl"]


def test_the_page_is_sound_and_needs_nothing_else(world: World, tmp_path: Path) -> None:
    _, _, page = write(world, tmp_path)
    assert page.open == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.elements)
    assert not {"src", "href", "onclick"} & {name for name, _ in page.attributes}
    assert not re.search(r"url\(|https?:", (tmp_path / "week.html").read_text())
    assert page.elements.count("svg") >= 5
    for told in ("Weekly <report>", "<b>Grace & co</b>", "steady", "young"):
        assert told in page.seen
    assert "Stuck at add: count is not learned" in page.seen
    assert "away for longer than usual" in page.seen
    assert "Goal multiply: 3 concepts to go, about" in page.seen
    assert "80 % between" in page.seen
    assert "3 of 4 learners practised" in re.sub(r"(\d)of", r"\1 of", page.seen)


def test_only_learners_with_the_labels_are_told_of(world: World, tmp_path: Path) -> None:
    written, reports, page = write(world, tmp_path, labels=frozenset({("class", "7a")}))
    assert [report.learner_id for report in reports] == ["away", "steady"]
    assert written.report.learners_count == 2
    assert "Grace" not in page.seen


def test_the_page_says_whom_it_leaves_out(world: World, tmp_path: Path) -> None:
    written, reports, page = write(world, tmp_path, page_learners=1)
    assert (written.learners_on_page, len(reports)) == (1, 4)
    assert page.elements.count("details") == 1
    assert "The other 3 are in the JSONL file" in page.seen


def test_a_report_that_fails_leaves_no_file(world: World, tmp_path: Path) -> None:
    def fail(_: int) -> None:
        raise KeyboardInterrupt

    for number in range(100):
        world.create(f"more-{number}")
    with pytest.raises(KeyboardInterrupt):
        write(world, tmp_path, progress=fail)
    assert list(tmp_path.iterdir()) == []


def test_a_page_about_nobody_is_sound() -> None:
    day = Date(year=2026, month=5, day=4)
    nobody = report_pb2.TenantReport(period=report_pb2.ReportPeriod(first_date=day, last_date=day))
    page = Page("".join(report_page(nobody, [], title="Daily report", shown=0)))
    assert page.open == []
    assert "0 learners practised" in page.seen

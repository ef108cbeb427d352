"""`genie top`: what it shows of a real server and of made-up numbers, once, as JSON, and while the server is away."""

import io
import json
import sys
import threading
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console

from genie.v1 import system_metrics_pb2 as pb
from server.cli import program, top
from tests.server.core import Core
from tests.server.core import core as serving_core
from tests.waiting import PATIENCE_SECONDS, eventually

NOW = 1_800_000_000


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with serving_core(log_level="error") as running:
        running.chain("count", "add")
        running.record(*(running.answer(f"count-{number}") for number in range(3)))
        running.recommend()
        yield running


def run(port: int, *arguments: str) -> Result:
    return CliRunner().invoke(
        program, ["top", *arguments, "--target", f"127.0.0.1:{port}"], env={"COLUMNS": "160"}
    )


def metrics(**more: object) -> pb.SystemMetrics:
    """A busy server."""
    known: dict[str, object] = {
        "read_time": Timestamp(seconds=NOW),
        "window": Duration(seconds=60),
        "calls_count": 1_200,
        "p50_latency_ms": 1.25,
        "p99_latency_ms": 8.5,
        "cache_hit_rate": 0.875,
        "answers_today": 12_345,
        "methods": [
            pb.MethodMetrics(
                method="genie.v1.RecommendationService/Recommend",
                calls_count=600,
                calls_per_second=10.0,
                p99_latency_ms=7.5,
            )
        ],
        "model": pb.ModelMetrics(version="v0002", train_time=Timestamp(seconds=NOW - 3 * 86_400)),
        "workers": [
            pb.WorkerMetrics(worker="1", serving=True, start_time=Timestamp(seconds=NOW - 7_300)),
            pb.WorkerMetrics(worker="2", resident_bytes=150 << 20),
        ],
    }
    return pb.SystemMetrics(**(known | more))  # type: ignore[arg-type]


def shown(found: pb.SystemMetrics, rates: list[float] | None = None, *, away: bool = False) -> str:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(top.view(found, rates or [], away=away))
    return console.export_text()


def test_everything_is_on_one_screen() -> None:
    text = shown(metrics(), [1.0, 2.0, 20.0])
    for part in ("20.0", "1.25 ms", "8.50 ms", "87.5%", "12,345", "Recommend", "v0002, 3 d old", "150 MiB"):
        assert part in text, part
    assert "1 of 2 processes serve" in text
    assert "NOT SERVING" in text
    assert "2 h" in text
    assert "▁▁█ 20.0" in text
    assert len(text.splitlines()) < 24, "a terminal's height"


def test_what_is_not_known_is_a_dash_and_trouble_is_said() -> None:
    text = shown(pb.SystemMetrics())
    assert "priors" in text
    assert "–" in text
    assert "0 of 0 processes" in text
    broken = metrics(model=pb.ModelMetrics(version="v0001", failed=True))
    assert "the newest model cannot be used" in shown(broken)
    assert "NO ANSWER" in shown(metrics(), away=True)


def test_once_shows_a_real_servers_numbers(core: Core) -> None:
    core.stats()
    result = run(core.port, "--once", "--window", "300")
    assert result.exit_code == 0, result.output
    assert "processes serve" in result.output
    assert "GetLearnerStats" in result.output
    found = json.loads(run(core.port, "--once", "--json").stdout)
    assert int(found["answers_today"]) == 3
    assert int(found["recommendations_generated_today"]) == 1
    other = json.loads(run(core.port, "--once", "--json", "--tenant", "nobody").stdout)
    assert int(other["answers_today"]) == 0


def test_a_pipe_gets_a_look_after_the_other(core: Core) -> None:
    result = run(core.port, "--updates", "2", "--interval", "1", "--json")
    assert result.exit_code == 0, result.output
    assert result.stdout.count('"read_time"') == 2


def test_where_nobody_answers_it_says_so() -> None:
    with serving_core(log_level="error") as gone:
        port = gone.port
    result = run(port, "--once")
    assert result.exit_code == 1
    assert "no server answers" in result.stderr
    assert run(1, "--interval", "0.5").exit_code == 2


def test_it_waits_for_a_server_that_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top, "AGAIN_SECONDS", 0.05)
    seen: list[bool] = []
    view = top.view

    def watched(found: pb.SystemMetrics, rates: list[float], *, away: bool = False) -> object:
        seen.append(away)
        return view(found, rates, away=away)

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    with serving_core(log_level="error") as first:
        port = first.port
        arguments = ["--target", f"127.0.0.1:{port}", "--updates", "3", "--interval", "1"]
        monkeypatch.setattr(top, "view", watched)
        monkeypatch.setattr(sys, "stdout", Terminal())
        running = threading.Thread(target=lambda: top.command.main(arguments, standalone_mode=False))
        running.start()
        eventually(lambda: len(seen) >= 2)
    eventually(lambda: True in seen)
    with serving_core(log_level="error", port=port):
        running.join(PATIENCE_SECONDS)
    assert not running.is_alive()
    assert seen[-1] is False

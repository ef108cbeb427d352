"""What a process counts, what all processes count together, and what a kill leaves of it."""

import json
import math
import os
import signal
import subprocess
import sys
import threading
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server import metrics
from server.metric_board import RETIRED, SLICE_SECONDS, SLICES, Board, Boards
from server.metric_table import EDGES, METRICS, Kind, quantile
from server.metrics import CallCounters, Meter, calls_of

CALLS = "genie_calls_total"
DURATION = "genie_call_duration_seconds"
SAY = "/genie.tests.Echo/Say"
NAME = SAY[1:]

CHILD = """
import sys
from pathlib import Path
from server.metrics import CallCounters, Meter
meter = Meter(Path(sys.argv[1]), worker=sys.argv[2])
counters = CallCounters(meter)
meter.gauge("genie_serving").set(1.0)
for number in range(int(sys.argv[3])):
    counters.count("/genie.tests.Echo/Say", "OK", 0.001)
    counters.count("/genie.tests.Echo/CountUp", "OK")
print("counted", flush=True)
sys.stdin.read()
if sys.argv[4] == "close":
    meter.close()
"""


@contextmanager
def counting(
    directory: Path, worker: str, calls: int, end: str = "close"
) -> Iterator["subprocess.Popen[str]"]:
    """A process that has counted, and waits; it closes its meter at the end unless it is killed."""
    command = [sys.executable, "-c", CHILD, str(directory), worker, str(calls), end]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "counted\n"
        yield process
    finally:
        process.communicate()


def calls(directory: Path) -> float:
    return calls_of(Boards(directory).read(now=0.0, seconds=0.0).totals).get((NAME, "OK"), 0.0)


def test_a_counter_a_gauge_and_a_histogram_hold_what_they_were_given() -> None:
    meter = Meter()
    shed = meter.counter("genie_calls_shed_total", "SERVER_OVERLOADED")
    shed.add()
    shed.add(2.5)
    meter.gauge("genie_calls_limit", "unary").set(128)
    group = meter.histogram("genie_store_group_operations", "state")
    for size in (1, 1, 2, 3, 4, 5, 256, 10**9):
        group.observe(size)
    reading = meter.read()
    assert reading.totals["genie_calls_shed_total", "SERVER_OVERLOADED"].tolist() == [3.5]
    assert reading.live["1"]["genie_calls_limit", "unary"] == 128.0
    total, *buckets = reading.totals["genie_store_group_operations", "state"].tolist()
    assert total == 1 + 1 + 2 + 3 + 4 + 5 + 256 + 10**9
    assert buckets == [2, 1, 2, 1, 0, 0, 0, 0, 1, 0, 0, 1]


def test_the_same_series_asked_for_twice_is_one() -> None:
    meter = Meter()
    for _ in range(3):
        meter.counter("genie_calls_shed_total", "TOO_MANY_STREAMS").add()
    assert meter.read().totals["genie_calls_shed_total", "TOO_MANY_STREAMS"].tolist() == [3.0]


def test_metrics_that_are_not_in_the_table_are_refused() -> None:
    meter = Meter()
    with pytest.raises(KeyError):
        meter.counter("genie_surprises_total")
    with pytest.raises(ValueError, match="is a gauge"):
        meter.counter("genie_serving")
    with pytest.raises(ValueError, match="labels"):
        meter.counter(CALLS, "one")


@given(st.floats(0.0, 1e4))
def test_a_time_lies_between_the_edges_of_its_bucket(seconds: float) -> None:
    meter = Meter()
    meter.histogram("genie_store_commit_seconds", "state").observe(seconds)
    buckets = meter.read_own().totals["genie_store_commit_seconds", "state"][1:]
    place = int(np.flatnonzero(buckets)[0])
    edges = [0.0, *EDGES[Kind.SECONDS], math.inf]
    assert edges[place] <= seconds <= edges[place + 1]


@given(st.lists(st.floats(1e-4, 60.0), min_size=1), st.floats(0.0, 1.0))
def test_a_quantile_is_off_by_a_quarter_at_most(values: list[float], share: float) -> None:
    edges = EDGES[Kind.SECONDS]
    buckets = [0] * (len(edges) + 1)
    for value in values:
        buckets[bisect_left(edges, value)] += 1
    exact = sorted(values)[max(math.ceil(share * len(values)) - 1, 0)]
    assert exact / 1.2501 <= quantile(share, buckets, edges) <= exact * 1.2501


def test_a_quantile_of_nothing_is_0() -> None:
    assert quantile(0.99, [0, 0, 0], [1.0, 2.0]) == 0.0
    assert quantile(0.99, [0, 0, 5], [1.0, 2.0]) == 2.0


def test_figures_of_just_now_forget_what_is_older(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1e9]
    monkeypatch.setattr(metrics, "time", lambda: now[0])
    meter = Meter()
    counters = CallCounters(meter)
    for _ in range(10):
        counters.count(SAY, "OK", 0.002)
        now[0] += SLICE_SECONDS
    now[0] -= SLICE_SECONDS
    assert meter.read(30.0).recent[DURATION, NAME, "OK"][1:].sum() == 3
    assert meter.read(1e9).recent[DURATION, NAME, "OK"][1:].sum() == 10
    now[0] += SLICES * SLICE_SECONDS
    counters.count(SAY, "OK", 0.002)
    reading = meter.read()
    assert reading.recent[DURATION, NAME, "OK"][1:].sum() == 1
    assert reading.totals[DURATION, NAME, "OK"][1:].sum() == 11
    assert reading.totals[DURATION, NAME, "OK"][0] == pytest.approx(0.022)


def test_threads_lose_no_count() -> None:
    meter = Meter()
    counters = CallCounters(meter)

    def work() -> None:
        for _ in range(5_000):
            counters.count(SAY, "OK", 0.001)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls_of(meter.read().totals) == {(NAME, "OK"): 20_000}


def test_processes_are_added_up_and_gauges_told_apart(tmp_path: Path) -> None:
    with counting(tmp_path, "1", 100), counting(tmp_path, "2", 20):
        reading = Boards(tmp_path).read(now=0.0, seconds=0.0)
        assert calls_of(reading.totals) == {
            (NAME, "OK"): 120,
            ("genie.tests.Echo/CountUp", "OK"): 120,
        }
        assert {worker: held[("genie_serving",)] for worker, held in reading.live.items()} == {
            "1": 1.0,
            "2": 1.0,
        }
    assert Boards(tmp_path).read(now=0.0, seconds=0.0).live == {}


def test_what_was_counted_outlives_a_kill_and_is_folded_once(tmp_path: Path) -> None:
    for round_ in range(1, 4):
        with counting(tmp_path, "1", 50) as process:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert calls(tmp_path) == 50 * round_
        assert calls(tmp_path) == 50 * round_
        assert not list(tmp_path.glob("*.board")), "dead boards are folded"


def test_a_process_that_starts_folds_what_dead_ones_left(tmp_path: Path) -> None:
    for _ in range(3):
        with counting(tmp_path, "1", 10):
            pass
    assert len(list(tmp_path.glob("*.board"))) == 3
    meter = Meter(tmp_path)
    meter.start()
    assert len(list(tmp_path.glob("*.board"))) == 1
    meter.close()
    assert calls(tmp_path) == 30


def test_a_fold_that_was_cut_short_adds_nothing_twice(tmp_path: Path) -> None:
    with counting(tmp_path, "1", 50) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    (path,) = tmp_path.glob("*.board")
    content = path.read_bytes()
    assert calls(tmp_path) == 50
    path.write_bytes(content)
    assert calls(tmp_path) == 50, "its name is among those that were folded"
    assert not path.exists()
    assert calls(tmp_path) == 50


def test_a_torn_file_of_earlier_counts_costs_those_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with counting(tmp_path, "1", 5):
        pass
    assert calls(tmp_path) == 5
    (tmp_path / RETIRED).write_text('{"folded": [')
    with counting(tmp_path, "1", 7):
        assert calls(tmp_path) == 7
    assert "begin anew" in caplog.text


def test_of_a_worker_and_its_replacement_the_newer_one_speaks(tmp_path: Path) -> None:
    first, second = Meter(tmp_path, "1"), Meter(tmp_path, "1")
    first.gauge("genie_serving").set(0.0)
    second.gauge("genie_serving").set(1.0)
    assert Boards(tmp_path).read(now=0.0, seconds=0.0).live["1"][("genie_serving",)] == 1.0
    second.close()
    first.close()


def test_a_full_board_counts_on_without_publishing(caplog: pytest.LogCaptureFixture) -> None:
    board = Board(None, "1", size=4_096)
    places = [board.place(("a", str(number)), 8) for number in range(100)]
    for place in places:
        place.cells[place.start] += 1.0
    published = board.read()
    assert 0 < len(published) < 100
    assert all(series.values[0] == 1.0 for series in published)
    assert caplog.text.count("too many series") == 1


def test_a_board_has_room_for_every_method_and_status() -> None:
    meter = Meter()
    counters = CallCounters(meter)
    for method in range(60):
        for code in ("OK", "INVALID_ARGUMENT"):
            counters.count(f"/genie.v1.SomeService/Method{method:02d}", code, 0.001)
    assert len(calls_of(meter.read().totals)) == 120


def test_a_directory_that_cannot_be_used_costs_the_metrics_only(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    meter = Meter(tmp_path / "file" / "metrics")
    meter.counter("genie_calls_shed_total", "X").add()
    assert meter.read().totals["genie_calls_shed_total", "X"].tolist() == [1.0]


def test_a_counter_kept_elsewhere_is_followed_and_a_failing_sampler_hinders_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    meter = Meter()
    kept = [0.0]

    def fail() -> None:
        raise RuntimeError("no")

    meter.sample(fail)
    meter.sample_counter(lambda: kept[0], "genie_cache_requests_total", "catalogue", "hit")
    for hits in (3.0, 5.0, 5.0):
        kept[0] = hits
        meter.look()
    assert meter.read().totals["genie_cache_requests_total", "catalogue", "hit"].tolist() == [5.0]
    assert "could not be sampled" in caplog.text


def test_names_follow_the_conventions() -> None:
    for name, metric in METRICS.items():
        assert name == metric.name
        assert name.startswith("genie_")
        assert name.endswith("_total") == (metric.kind is Kind.COUNTER)
        assert not name.endswith(("_count", "_sum", "_bucket"))
        assert metric.about.endswith(".")


def test_retired_counts_are_plain_json(tmp_path: Path) -> None:
    with counting(tmp_path, "1", 3):
        pass
    calls(tmp_path)
    held = json.loads((tmp_path / RETIRED).read_text())
    assert all(isinstance(value, float) for _, values in held["series"] for value in values)

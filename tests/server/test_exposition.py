"""The Prometheus endpoint: every family documented, every number the one that was counted, promtool satisfied."""

import dataclasses
import os
import re
import shutil
import signal
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from bench.live import LiveServer, free_port
from genie.v1 import learner_service_pb2 as learner_pb
from genie.v1 import learner_service_pb2_grpc
from server.exposition import (
    ALL_TENANTS,
    LEARNING,
    LEARNING_GAUGES,
    MOST_TENANTS,
    OTHERS,
    Endpoint,
    Exposition,
)
from server.metric_board import Reading
from server.metric_table import METRICS
from server.metrics import CallCounters, Meter
from server.tally_figures import learning_figures
from store.api import Partition, StoreFull, StoreUnavailable
from store.serving_store import ServingStore
from store.stores import Stores, memory_stores
from store.tallies import Tally, tally
from tests.server.core import Core, core
from tests.server.slate_calls import change_maker
from tests.waiting import PATIENCE_SECONDS

REPOSITORY = Path(__file__).resolve().parents[2]
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def scraped(text: str) -> Samples:
    """Every sample by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def exposed(exposition: Exposition) -> str:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(exposition)
    return generate_latest(registry).decode()


def of(meter: Meter, stores: Stores | None = None, spool: Path = Path("no-such-directory")) -> Exposition:
    return Exposition(meter.read, stores or memory_stores(), spool)


@pytest.fixture(scope="module")
def served() -> Iterator[Core]:
    with core() as running:
        running.chain("count", questions=4)
        running.record(running.answer("count-0"), running.answer("count-1", correct=False))
        running.recommend(limit=2)
        yield running


@pytest.fixture(scope="module")
def text(served: Core) -> str:
    return exposed(of(served.genie.runtime.counters.meter, served.stores))


def test_promtool_finds_nothing_to_mend(text: str) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, text=True, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_numbers_are_those_that_were_counted(text: str) -> None:
    samples = scraped(text)
    default = ("tenant", "default")
    assert samples["genie_answers_total", (default,)] == 2
    assert samples["genie_answers_correct_total", (default,)] == 1
    assert samples["genie_recommendations_total", (default,)] == 1
    assert samples["genie_recommended_questions_total", (default,)] == 2
    assert samples["genie_active_learners", (("days", "7"), default)] == 1
    assert samples["genie_learners", (default,)] == 1
    method = ("method", "genie.v1.PracticeService/RecordAnswers")
    assert samples["genie_calls_total", (("code", "OK"), method)] == 1
    assert samples["genie_call_duration_seconds_count", (("code", "OK"), method)] == 1
    assert samples["genie_call_duration_seconds_sum", (("code", "OK"), method)] > 0.0
    assert samples["genie_workers", ()] == 1
    assert samples["genie_model_info", (default, ("version", "priors"), ("worker", "1"))] == 1
    assert ("genie_model_trained_time_seconds", (default, ("worker", "1"))) not in samples
    assert samples["genie_calls_shed_total", (("reason", "SERVER_OVERLOADED"),)] == 0, (
        "there from the beginning"
    )


def test_every_family_is_documented_and_there() -> None:
    page = (REPOSITORY / "docs" / "metrics.md").read_text()
    told = dict(re.findall(r"^\| `(genie_\w+)` \| (\w+) \|", page, re.MULTILINE))
    found = {}
    for family in text_string_to_metric_families(exposed(of(Meter()))):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = family.type
        assert family.documentation.endswith(".")
    assert told == found
    assert set(found) == {*METRICS, *LEARNING, *LEARNING_GAUGES, *OTHERS}


def test_documented_labels_are_those_that_are_told(text: str) -> None:
    page = (REPOSITORY / "docs" / "metrics.md").read_text()
    rows = re.findall(r"^\| `(genie_\w+)` \| \w+ \|([^|]*)\|", page, re.MULTILINE)
    told = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    for family in text_string_to_metric_families(text):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        for sample in family.samples:
            assert set(sample.labels) - {"le"} == told[name]


def test_a_histogram_is_cumulative_and_adds_up() -> None:
    meter = Meter()
    counters = CallCounters(meter)
    for seconds in (0.0, 1e-4, 1e-3, 0.02, 0.02, 100.0):
        counters.count("/a.B/C", "OK", seconds)
    samples = scraped(exposed(of(meter)))
    buckets = sorted(
        (float(dict(labels)["le"]), value)
        for (name, labels), value in samples.items()
        if name == "genie_call_duration_seconds_bucket"
    )
    counts = [value for _, value in buckets]
    assert counts == sorted(counts)
    assert buckets[-1] == (float("inf"), 6.0)
    for edge, count in buckets:
        assert count == sum(seconds <= edge for seconds in (0.0, 1e-4, 1e-3, 0.02, 0.02, 100.0))
    key = (("code", "OK"), ("method", "a.B/C"))
    assert samples["genie_call_duration_seconds_sum", key] == pytest.approx(100.0411)
    assert samples["genie_call_duration_seconds_count", key] == 6


def test_many_tenants_are_told_together() -> None:
    stores = memory_stores()
    for number in range(MOST_TENANTS + 1):
        stores.state.update(Partition(f"t-{number}"), lambda tx: tally(tx, 20_000, Tally.ANSWERS, 2))
    samples = scraped(exposed(of(Meter(), stores)))
    answers = {labels: value for (name, labels), value in samples.items() if name == "genie_answers_total"}
    assert answers == {(("tenant", ALL_TENANTS),): 2.0 * (MOST_TENANTS + 1)}


def test_the_spool_is_measured(tmp_path: Path) -> None:
    (tmp_path / "1.spool").write_bytes(b"123")
    (tmp_path / "2.spool").write_bytes(b"4567")
    (tmp_path / "3.refused").write_bytes(b"x")
    samples = scraped(exposed(of(Meter(), spool=tmp_path)))
    assert samples["genie_experiment_spool_segments", ()] == 2
    assert samples["genie_experiment_spool_bytes", ()] == 7


def test_the_endpoint_answers_over_http() -> None:
    endpoint = Endpoint(of(Meter()), "127.0.0.1", 0)
    endpoint.start()
    try:
        with urllib.request.urlopen(
            f"http://127.0.0.1:{endpoint.port}/metrics", timeout=PATIENCE_SECONDS
        ) as reply:
            assert reply.headers["Content-Type"].startswith("text/plain")
            assert "genie_workers" in reply.read().decode()
    finally:
        endpoint.close()


def test_figures_of_processes_are_told_while_the_store_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse() -> None:
        raise StoreUnavailable("no disk")

    stores = memory_stores()
    stores.state.update(Partition("t"), lambda tx: tally(tx, 20_000, Tally.ANSWERS, 2))
    exposition = of(Meter(), stores)
    with monkeypatch.context() as failing:
        failing.setattr(stores.state, "tenants", refuse)
        for _ in range(3):
            samples = scraped(exposed(exposition))
            assert samples["genie_workers", ()] == 1
            assert not any(name == "genie_answers_total" for name, _ in samples)
    assert caplog.text.count("metrics of learning cannot be read") == 1
    assert scraped(exposed(exposition))["genie_answers_total", (("tenant", "t"),)] == 2


def test_figures_of_learning_are_told_while_slates_cannot_be_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise StoreFull("no room")

    serving = ServingStore(tmp_path)
    try:
        serving.update(Partition("t"), lambda tx: tally(tx, 20_000, Tally.RECOMMENDATIONS, 2))
        monkeypatch.setattr(serving, "move", refuse)
        stores = dataclasses.replace(memory_stores(), serving=serving)
        key = ("genie_recommendations_total", (("tenant", "t"),))
        assert scraped(exposed(of(Meter(), stores)))[key] == 2
        assert learning_figures(stores.state, serving, "t", 20_000).today[Tally.RECOMMENDATIONS] == 2
    finally:
        monkeypatch.undo()
        serving.close()


def test_a_scrape_that_fails_is_logged_and_not_printed(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    def fail() -> Reading:
        raise RuntimeError("no numbers")

    endpoint = Endpoint(Exposition(fail, memory_stores(), Path("no-such-directory")), "127.0.0.1", 0)
    endpoint.start()
    try:
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{endpoint.port}/metrics", timeout=PATIENCE_SECONDS)
        assert refused.value.code == 500
        refused.value.close()
    finally:
        endpoint.close()
    (line,) = [record for record in caplog.records if record.message == "a scrape failed"]
    assert "RuntimeError: no numbers" in vars(line)["facts"]["exception"]
    assert capfd.readouterr().err == ""


def test_a_connection_that_fails_is_logged_unless_its_caller_has_gone(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    endpoint = Endpoint(of(Meter()), "127.0.0.1", 0)
    try:
        for error in (ConnectionResetError("gone"), ValueError("odd")):
            try:
                raise error
            except Exception:
                endpoint._server.handle_error(None, ("127.0.0.1", 1))
    finally:
        endpoint._server.server_close()
    (line,) = caplog.records
    assert line.exc_info is not None
    assert isinstance(line.exc_info[1], ValueError)
    assert capfd.readouterr().err == ""


@pytest.mark.processes
def test_one_endpoint_speaks_for_all_workers_and_outlives_a_kill(tmp_path: Path) -> None:
    port = free_port()
    server = LiveServer(tmp_path, workers=2, settings={"GENIE_METRICS_ADDRESS": f"127.0.0.1:{port}"})

    def scrape() -> Samples:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_SECONDS) as reply:
            return scraped(reply.read().decode())

    key = ("genie_calls_total", (("code", "OK"), ("method", "genie.v1.LearnerService/CreateLearner")))
    with server:
        with grpc.insecure_channel(server.target) as channel:
            stub = learner_service_pb2_grpc.LearnerServiceStub(channel)
            for number in range(5):
                request = learner_pb.CreateLearnerRequest()
                request.learner.learner_id = f"l-{number}"
                stub.CreateLearner(request, timeout=PATIENCE_SECONDS, wait_for_ready=True)
        before = scrape()
        assert before["genie_workers", ()] == 2
        assert before[key] == 5
        assert before["genie_learners_created_total", (("tenant", "default"),)] == 5
        first = {pid for pid in server.worker_pids() if _serves(pid)}
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        assert scrape()[key] == 5, "what killed workers counted stays"


def _serves(pid: int) -> bool:
    """Whether a process is a worker, by its command line."""
    return b"worker" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def test_recommendations_that_are_degraded_are_counted_by_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def counted(running: Core) -> dict[str, float]:
        text = exposed(of(running.genie.runtime.counters.meter))
        return {
            dict(labels)["reason"]: value
            for (name, labels), value in scraped(text).items()
            if name.startswith("genie_recommendations_degraded") and name.endswith("_total")
        }

    def refuse(*_: object, **__: object) -> None:
        raise StoreUnavailable("no disk")

    with core(log_level="critical") as running:
        running.chain("count", questions=4)
        change_maker(monkeypatch, running, budget_seconds=60.0)
        assert not running.recommend().degraded
        assert sum(counted(running).values()) == 0
        change_maker(monkeypatch, running, budget_seconds=0.0)
        assert all(running.recommend().degraded for _ in range(3))
        change_maker(monkeypatch, running, budget_seconds=60.0)
        monkeypatch.setattr(running.stores.serving, "submit_bulk", refuse)
        assert all(running.recommend().degraded for _ in range(2))
        assert counted(running) == {"TIME_BUDGET": 3, "NOT_STORED": 2}


def test_look_ups_of_all_caches_are_counted(text: str) -> None:
    caches = {
        dict(labels)["cache"]: value
        for (name, labels), value in scraped(text).items()
        if name == "genie_cache_requests_total" and dict(labels)["result"] == "hit"
    }
    assert set(caches) == {"catalogue", "neighbours", "pools"}
    assert caches["catalogue"] > 0

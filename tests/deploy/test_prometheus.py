"""A real Prometheus over a live server with traffic: every panel shows something, every alert can be worked out."""

import contextlib
import itertools
import json
import math
import shutil
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from deploy.panels import FAULT, OR_NONE, rows
from genie.v1 import analytics_service_pb2 as analytics_pb
from genie.v1 import (
    analytics_service_pb2_grpc,
    learner_service_pb2_grpc,
    practice_service_pb2_grpc,
    recommendation_service_pb2_grpc,
)
from genie.v1 import learner_service_pb2 as learner_pb
from genie.v1 import practice_service_pb2 as practice_pb
from genie.v1 import recommendation_service_pb2 as pb
from server.cli import program
from server.convert import timestamp
from server.port import reserve_port
from tests.deploy.test_monitoring import PROMETHEUS, alerts
from tests.server import data_world
from tests.server.data_world import write_world
from tests.server.experiments.processes import ServiceProcess, service_process
from tests.waiting import PATIENCE_SECONDS, eventually

DAY = 86_400.0
DAYS_BACK = (2.0, 1.0, 0.0)
"""A streak that was carried on."""
KINDS = (pb.FEEDBACK_KIND_SHOWN, pb.FEEDBACK_KIND_CLICKED)

pytestmark = [
    pytest.mark.processes,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not installed"),
]


def free_address() -> str:
    held, _, port = reserve_port("127.0.0.1", 0)
    held.close()
    return f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ServiceProcess, str, Path]]:
    """A server over learners, answers and a trained model, and where its metrics are."""
    folder = tmp_path_factory.mktemp("monitored")
    data = folder / "data"
    write_world(folder / "files", data_world.answers(learners=30, each=20))
    for command in (["import", str(folder / "files")], ["train"]):
        done = CliRunner().invoke(program, [*command, "--data-directory", str(data)])
        assert done.exit_code == 0, done.output
    address = free_address()
    options = ("--port=0", "--max-streams=1", f"--metrics-address={address}", "--access-log-ratio=0")
    with service_process(data, "127.0.0.1:0", *options, command="serve", event="serving") as running:
        yield running, address, data


def spoil_model(data: Path) -> None:
    """Make a model current that cannot be used."""
    models = data / "models" / "default"
    broken = models / "v9999-deadbeef"
    broken.mkdir()
    (broken / "manifest.json").write_text("{")
    (models / "current").write_text(broken.name)


class Traffic:
    """Calls of every kind that a panel tells of, again and again."""

    def __init__(self, target: str) -> None:
        self._target = target
        self._stop = threading.Event()
        self._numbers = itertools.count()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.failure: BaseException | None = None

    def __enter__(self) -> "Traffic":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_SECONDS)

    def _run(self) -> None:
        try:
            with grpc.insecure_channel(self._target) as channel:
                while not self._stop.wait(0.1):
                    self._call(channel, next(self._numbers))
        except BaseException as error:
            self.failure = error

    def _call(self, channel: grpc.Channel, number: int) -> None:
        recommendations = recommendation_service_pb2_grpc.RecommendationServiceStub(channel)
        learner = f"grown-{number}"
        slate = recommendations.Recommend(pb.RecommendRequest(learner_id=learner)).recommendation
        question_id = slate.items[0].question_id
        practice = practice_service_pb2_grpc.PracticeServiceStub(channel)
        now = time.time()
        answers = [
            practice_pb.Answer(
                answer_id=f"answer-{number}-{back}",
                learner_id=learner,
                question_id=question_id,
                correct=number % 4 != 0,
                answered_at=timestamp(now - back * DAY),
            )
            for back in DAYS_BACK
        ]
        for answer in answers:
            answer.duration.FromSeconds(20)
        practice.RecordAnswers(practice_pb.RecordAnswersRequest(answers=answers))
        events = [
            pb.FeedbackEvent(
                event_id=f"event-{number}-{kind}",
                learner_id=learner,
                recommendation_id=slate.recommendation_id,
                question_id=question_id,
                kind=kind,
            )
            for kind in KINDS
        ]
        recommendations.RecordFeedback(pb.RecordFeedbackRequest(events=events))
        learners = learner_service_pb2_grpc.LearnerServiceStub(channel)
        with contextlib.suppress(grpc.RpcError):
            learners.GetLearner(learner_pb.GetLearnerRequest(learner_id="nobody"))
        watch = analytics_service_pb2_grpc.AnalyticsServiceStub(channel).WatchSystemMetrics
        streams = [watch(analytics_pb.WatchSystemMetricsRequest()) for _ in range(2)]
        for stream in streams:
            # The second is one too many.
            with contextlib.suppress(grpc.RpcError):
                next(stream)
        for stream in streams:
            stream.cancel()


class Prometheus:
    """A running Prometheus, asked by its HTTP interface."""

    def __init__(self, address: str) -> None:
        self._address = address

    def get(self, path: str, **query: str) -> Any:
        url = f"http://{self._address}/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as reply:
            return json.loads(reply.read())

    def values(self, expression: str) -> list[float]:
        """Of every series of the answer; not a number where one divides by nothing."""
        reply = self.get("api/v1/query", query=expression)
        assert reply["status"] == "success", expression
        return [float(series["value"][1]) for series in reply["data"]["result"]]

    def rules(self) -> dict[str, dict[str, Any]]:
        groups = self.get("api/v1/rules")["data"]["groups"]
        return {rule["name"]: rule for group in groups for rule in group["rules"]}


@pytest.fixture(scope="module")
def prometheus(
    server: tuple[ServiceProcess, str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """A Prometheus with our configuration, but quicker, and with the server as its target."""
    folder = tmp_path_factory.mktemp("prometheus")
    text = (PROMETHEUS / "prometheus.yml").read_text(encoding="utf-8")
    text = text.replace("127.0.0.1:9464", server[1]).replace("interval: 15s", "interval: 1s")
    (folder / "prometheus.yml").write_text(text, encoding="utf-8")
    shutil.copy(PROMETHEUS / "alerts.yml", folder)
    address = free_address()
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
        try:
            found = Prometheus(address)
            eventually(lambda: reachable(found))
            yield found
        finally:
            process.terminate()
            process.wait(PATIENCE_SECONDS)


def reachable(prometheus: Prometheus) -> bool:
    try:
        return bool(prometheus.get("api/v1/targets")["data"]["activeTargets"])
    except OSError:
        return False


def asked(expression: str) -> str:
    """A panel's query as Grafana sends it.

    Less what stands in for what never happened, unless it asks for faults of the server: no caller can bring one about.
    """
    for name, value in (("$job", "genie"), ("$tenant", ".*"), ("$__rate_interval", "10s")):
        expression = expression.replace(name, value)
    return expression if FAULT in expression else expression.replace(OR_NONE, "")


def test_every_panel_shows_something(
    server: tuple[ServiceProcess, str, Path], prometheus: Prometheus
) -> None:
    running, _, data = server
    empty = {query.expression for row in rows() for panel in row.panels for query in panel.queries}

    def ask() -> bool:
        for expression in list(empty):
            if any(map(math.isfinite, prometheus.values(asked(expression)))):
                empty.discard(expression)
        return not empty

    with Traffic(running.target) as traffic:
        eventually(lambda: prometheus.values("genie_model_trained_time_seconds"))
        spoil_model(data)
        eventually(ask, told=lambda: str(traffic.failure or empty))
        for name in ("GenieModelFailed", "GenieSheddingCalls"):
            eventually(partial(is_seen, prometheus, name), told=partial(str, name))
    assert traffic.failure is None


def is_seen(prometheus: Prometheus, alert: str) -> bool:
    """Whether the alert's condition holds, for however short a time."""
    return prometheus.rules()[alert]["state"] in ("pending", "firing")


def test_every_alert_is_worked_out(prometheus: Prometheus) -> None:
    eventually(lambda: prometheus.rules().keys() == alerts().keys())

    def all_healthy() -> bool:
        return {rule["health"] for rule in prometheus.rules().values()} == {"ok"}

    eventually(all_healthy, told=lambda: str(prometheus.rules()))
    for name in ("GenieUnreachable", "GenieNotServing", "GenieCommitsFailing", "GenieStoreNearlyFull"):
        assert prometheus.rules()[name]["state"] == "inactive", name

"""A real experiment service behind a port in the test's own process, and short ways to talk to it."""

import contextlib
import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from engine.experiments.assignment import Assigner
from genie.v1 import experiment_pb2, experiment_service_pb2_grpc
from genie.v1 import experiment_service_pb2 as pb
from server.app import Genie
from server.assembly import experiments_of, policies_of
from server.assembly import put_together as recommender_put_together
from server.config import Settings
from server.convert import timestamp
from server.experiments.assembly import put_together
from store.api import Store
from store.experiments import ExperimentRecord, find_experiment
from store.memory_store import MemoryStore
from store.stores import Stores, memory_stores
from tests.server.core import Core, compiled
from tests.waiting import PATIENCE_SECONDS

NAME = "Collaborative or not"


@dataclass
class Lab:
    """A running service, its store, and ways to call it for one tenant."""

    genie: Genie
    port: int
    store: Store
    channel: grpc.Channel
    tenant: str = "default"
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    @property
    def stub(self) -> experiment_service_pb2_grpc.ExperimentServiceStub:
        return experiment_service_pb2_grpc.ExperimentServiceStub(self.channel)

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        return (("x-tenant-id", self.tenant),)

    def create(self, **fields: Any) -> experiment_pb2.Experiment:
        """Create an experiment exactly like the original design's, but for `fields`."""
        return self.stub.CreateExperiment(creation(**fields), metadata=self.metadata).experiment

    def start(self, experiment_id: str, **fields: Any) -> experiment_pb2.Experiment:
        request = pb.StartExperimentRequest(experiment_id=experiment_id, **fields)
        return self.stub.StartExperiment(request, metadata=self.metadata).experiment

    def stop(self, experiment_id: str, **fields: Any) -> experiment_pb2.Experiment:
        request = pb.StopExperimentRequest(experiment_id=experiment_id, **fields)
        return self.stub.StopExperiment(request, metadata=self.metadata).experiment

    def split(self, experiment_id: str, *weights: float, **fields: Any) -> experiment_pb2.Experiment:
        request = pb.ChangeSplitRequest(experiment_id=experiment_id, traffic_split=weights, **fields)
        return self.stub.ChangeSplit(request, metadata=self.metadata).experiment

    def report(self, *reports: pb.Report, size: int = 100) -> pb.ReportMetricsResponse:
        return self.stub.ReportMetrics(batches(reports, size), metadata=self.metadata)

    def results(self, experiment_id: str, **fields: Any) -> pb.GetResultsResponse:
        request = pb.GetResultsRequest(experiment_id=experiment_id, **fields)
        return self.stub.GetResults(request, metadata=self.metadata)

    def watch(self, experiment_id: str, seconds: float = 0.1) -> Any:
        interval = Duration()
        interval.FromMilliseconds(round(seconds * 1e3))
        request = pb.WatchResultsRequest(experiment_id=experiment_id, min_interval=interval)
        return self.stub.WatchResults(request, metadata=self.metadata, timeout=PATIENCE_SECONDS)

    def record(self, experiment_id: str) -> ExperimentRecord:
        """What the store holds."""
        held = find_experiment(self.store, self.tenant, experiment_id)
        assert held is not None
        return held

    def exposure(self, experiment_id: str, learner_id: str, phase: int = 0, **fields: Any) -> pb.Report:
        """The exposure that a recommender would report."""
        record = self.record(experiment_id)
        arm = Assigner(record.assignment(), now_s=time.time()).assign(learner_id, phase=phase).arm
        known: dict[str, Any] = {"report_id": f"exposure-{next(self.numbers)}", "arm": arm} | fields
        return pb.Report(
            report_id=known["report_id"],
            learner_id=learner_id,
            event_time=timestamp(known.get("at", time.time())),
            exposure=pb.Exposure(
                experiment_id=experiment_id,
                arm=known["arm"],
                phase=phase,
                assigned_only=known.get("assigned_only", False),
                covariates=known.get("covariates", {}),
            ),
        )

    def value(self, learner_id: str, source: str, value: float, **fields: Any) -> pb.Report:
        """A metric's value."""
        report_id = fields.pop("report_id", None) or f"value-{next(self.numbers)}"
        at = fields.pop("at", None) or time.time()
        return pb.Report(
            report_id=report_id,
            learner_id=learner_id,
            event_time=timestamp(at),
            metric_value=pb.MetricValue(source=source, value=value, **fields),
        )


def creation(**fields: Any) -> pb.CreateExperimentRequest:
    """The original design's experiment, but for `fields`."""
    known: dict[str, Any] = {
        "name": NAME,
        "hypothesis": "Learners practise more when questions come from learners like them.",
        "control_algorithm": "content_based_v1",
        "treatment_algorithm": "collaborative_filtering_v2",
        "primary_metric": "practice_minutes",
        "target_improvement_percent": 15.0,
        "duration_days": 30,
    }
    return pb.CreateExperimentRequest(**(known | fields))


def batches(reports: Iterable[pb.Report], size: int = 100) -> Iterator[pb.ReportMetricsRequest]:
    """Reports as the messages of a stream."""
    waiting = list(reports)
    for start in range(0, len(waiting), size):
        yield pb.ReportMetricsRequest(reports=waiting[start : start + size])


@contextlib.contextmanager
def lab(*, store: Store | None = None, **settings: object) -> Iterator[Lab]:
    """Serve experiments on a free port until the block ends."""
    held = MemoryStore() if store is None else store
    merged: dict[str, object] = {"port": 0, "health_probe_seconds": 0.1, "access_log_ratio": 0.0, **settings}
    chosen = Settings(**merged)  # type: ignore[arg-type]
    genie = Genie(chosen, lambda settings, drain: put_together(settings, held, policies_of(settings), drain))
    port = genie.start()
    try:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            yield Lab(genie, port, held, channel)
    finally:
        assert genie.drain(notice=False), "calls were left unfinished"


@contextlib.contextmanager
def school(directory: Path, address: str, *, stores: Stores | None = None) -> Iterator[Core]:
    """A recommender that works with the experiment service at `address`, on a free port until the block ends."""
    compiled()
    held = memory_stores() if stores is None else stores
    settings = Settings(
        port=0,
        health_probe_seconds=0.1,
        access_log_ratio=0.0,
        recommend_budget_ms=60_000.0,
        data_directory=directory,
        experiments="elsewhere",
        experiments_address=address,
    )
    policies = policies_of(settings)
    junction = experiments_of(settings, held, policies)
    genie = Genie(settings, lambda settings, _: recommender_put_together(settings, held, policies, junction))
    port = genie.start()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
            yield Core(genie, port, held, channel)
    finally:
        assert genie.drain(notice=False), "calls were left unfinished"

"""`genie experiments` as a process: it serves, says that it lives, and survives SIGKILL without losing or doubling."""

import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2

from genie.v1 import experiment_service_pb2 as pb
from genie.v1 import experiment_service_pb2_grpc
from server.convert import timestamp
from tests.server.experiments.processes import service_process
from tests.server.experiments.world import batches, creation

pytestmark = pytest.mark.processes

LEARNERS = 200


def reports_of(
    stub: experiment_service_pb2_grpc.ExperimentServiceStub, experiment_id: str
) -> list[pb.Report]:
    """An exposure and minutes for every learner."""
    found = []
    for number in range(LEARNERS):
        learner_id = f"learner-{number}"
        ask = pb.AssignVariantRequest(experiment_id=experiment_id, learner_id=learner_id)
        arm = stub.AssignVariant(ask).arm
        exposure = pb.Exposure(experiment_id=experiment_id, arm=arm)
        minutes = pb.MetricValue(source="practice_minutes", value=number * 0.1)
        known = {"learner_id": learner_id, "event_time": timestamp(time.time())}
        found.append(pb.Report(report_id="e", exposure=exposure, **known))  # type: ignore[arg-type]
        found.append(pb.Report(report_id="m", metric_value=minutes, **known))  # type: ignore[arg-type]
    return found


def test_a_killed_service_loses_and_doubles_nothing(tmp_path: Path) -> None:
    with service_process(tmp_path) as running, grpc.insecure_channel(running.target) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        asked = health_pb2.HealthCheckRequest(service="genie.v1.ExperimentService")
        assert check(asked).status == health_pb2.HealthCheckResponse.SERVING
        stub = experiment_service_pb2_grpc.ExperimentServiceStub(channel)
        made = stub.CreateExperiment(creation()).experiment
        stub.StartExperiment(pb.StartExperimentRequest(experiment_id=made.experiment_id))
        reports = reports_of(stub, made.experiment_id)
        call = stub.ReportMetrics.future(batches(reports, 5))
        time.sleep(0.02)
        running.kill_worker()
        failed: Any = call.exception()
        assert failed is None or failed.code() is grpc.StatusCode.UNAVAILABLE
        running.wait("worker serves", count=2)
        reply = stub.ReportMetrics(batches(reports, 50), wait_for_ready=True)
        assert reply.recorded_count + reply.duplicate_count == 2 * LEARNERS
        results = stub.GetResults(pb.GetResultsRequest(experiment_id=made.experiment_id)).results
        assert sum(arm.exposed_count for arm in results.arms) == LEARNERS
        total = sum(arm.means[0].mean * arm.means[0].learners_count for arm in results.arms)
        assert total == pytest.approx(sum(number * 0.1 for number in range(LEARNERS)), abs=1e-9)

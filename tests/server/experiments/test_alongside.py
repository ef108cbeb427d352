"""`genie serve` with the experiment service alongside: it starts it, works on without it, and nothing is lost."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from genie.v1 import experiment_service_pb2 as pb
from genie.v1 import experiment_service_pb2_grpc
from genie.v1 import practice_service_pb2 as practice_pb
from tests.server.core import Core
from tests.server.experiments.processes import ServiceProcess, service_process
from tests.server.experiments.world import creation
from tests.waiting import PATIENCE_SECONDS, eventually

pytestmark = pytest.mark.processes

LEARNERS = 30


def of_worker(running: ServiceProcess, event: str, worker: int) -> dict[str, Any]:
    """The latest line of a worker with this event."""
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = [line for line in running.events() if line["event"] == event and line["worker"] == worker]
        return bool(found)

    eventually(there)
    return found[-1]


def test_the_service_dies_and_nothing_is_lost(tmp_path: Path) -> None:
    with service_process(tmp_path, "127.0.0.1:0", "--port=0", command="serve", event="serving") as running:
        target = str(of_worker(running, "started", 2)["address"])
        with grpc.insecure_channel(target) as lab, grpc.insecure_channel(running.target) as channel:
            core = Core(None, 0, None, channel)  # type: ignore[arg-type]
            core.chain("counting", "adding")
            stub = experiment_service_pb2_grpc.ExperimentServiceStub(lab)
            made = stub.CreateExperiment(creation(treatment_algorithm="random_v1")).experiment
            stub.StartExperiment(pb.StartExperimentRequest(experiment_id=made.experiment_id))
            core.recommend("somebody", policy="random_v1")
            core.recommend("unseen")
            path = tmp_path / "experiment_snapshots" / "tenant-default.experiments"
            eventually(lambda: path.exists() and made.experiment_id.encode() in path.read_bytes())
            os.kill(int(of_worker(running, "worker serves", 2)["pid"]), signal.SIGKILL)
            policies = set()
            for number in range(LEARNERS):
                slate = core.recommend(f"learner-{number}")
                policies.add(slate.policy)
                answer = practice_pb.Answer(
                    answer_id="a-1",
                    learner_id=f"learner-{number}",
                    question_id=slate.items[0].question_id,
                    correct=True,
                    duration=Duration(seconds=60 * (number + 1)),
                )
                core.record(answer)
            assert policies == {"content_based_v1", "random_v1"}

            def minutes() -> tuple[int, float]:
                request = pb.GetResultsRequest(experiment_id=made.experiment_id)
                arms = stub.GetResults(request, wait_for_ready=True, timeout=PATIENCE_SECONDS).results.arms
                total = sum(arm.means[0].mean * arm.means[0].learners_count for arm in arms)
                return sum(arm.exposed_count for arm in arms), round(total, 6)

            wanted = (LEARNERS, LEARNERS * (LEARNERS + 1) / 2)
            eventually(lambda: minutes() == wanted)
            time.sleep(0.5)
            assert minutes() == wanted

"""Kill -9 on the experiment service under load: no report is lost, none counts twice, moments are equal to the bit.

Clients stream exposures and metric values, shuffled, many of them more than once, until the service's process is
killed at a random moment; its supervisor starts it again, and what was not acknowledged is sent again. In the end the
store is opened offline and its moments are held against those of a store in memory that took in every report once.

    python -m bench.experiment_crash [--quick] [--rounds 20] [--seed 1]
"""

import argparse
import random
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bench.output import emit
from engine.experiments.assignment import Assigner
from engine.experiments.plan import PhaseSnapshot
from genie.v1 import experiment_pb2 as resources
from genie.v1 import experiment_service_pb2 as pb
from genie.v1 import experiment_service_pb2_grpc
from server.convert import timestamp
from store.api import Partition, Store, Transaction
from store.experiment_cells import snapshots
from store.experiment_reports import (
    ReportOutcome,
    ReportRecord,
    place_everyone,
    record_reports,
)
from store.experiments import ExperimentRecord, find_experiment
from store.lmdb_store import LmdbStore
from store.memory_store import MemoryStore
from store.stores import EXPERIMENTS
from tests.server.experiments.processes import ServiceProcess, service_process
from tests.server.experiments.world import batches, creation

BENCH = "experiment_crash"
TENANT = "default"
CLIENTS = 4
LEARNERS_A_ROUND = 150
VALUES_A_LEARNER = 6
REPEATED_SHARE = 0.2
MOST_BATCH = 20
SHORTEST_LOAD_SECONDS = 0.02
LONGEST_LOAD_SECONDS = 0.6


@dataclass
class Client:
    """What one client has to tell, and what it was told."""

    open: list[pb.Report] = field(default_factory=list)
    acknowledged: list[pb.Report] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def send(self, channel: grpc.Channel, rng: random.Random) -> bool:
        """One stream with part of what is open, and repeats; False when the service went away."""
        part = self.open[: rng.randint(1, 10 * MOST_BATCH)]
        again = rng.sample(self.acknowledged, int(REPEATED_SHARE * min(len(self.acknowledged), len(part))))
        sent = [*part, *again, *rng.sample(part, int(REPEATED_SHARE * len(part)))]
        rng.shuffle(sent)
        stub = experiment_service_pb2_grpc.ExperimentServiceStub(channel)
        try:
            reply = stub.ReportMetrics(batches(sent, rng.randint(1, MOST_BATCH)), timeout=20)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.UNAVAILABLE:
                self.refused.append(f"{error.code()}: {error.details()}")
            return False
        self.refused += [f"{error.report_id}: {error.error.message}" for error in reply.errors]
        if reply.recorded_count + reply.duplicate_count != len(sent):
            self.refused.append(f"{len(sent)} sent, but {reply}")
        del self.open[: len(part)]
        self.acknowledged += part
        return True


def new_reports(rng: random.Random, record: ExperimentRecord, turn: int) -> list[pb.Report]:
    """Exposures and values of learners who were not there before, in no order."""
    assigner = Assigner(record.assignment(), now_s=time.time())
    found = []
    for number in range(LEARNERS_A_ROUND):
        learner_id = f"learner-{turn}-{number}"
        now = timestamp(time.time())
        arm = record.arms[assigner.index_of(learner_id)]
        exposure = pb.Exposure(
            experiment_id=record.experiment_id, arm=arm, covariates={"minutes": rng.gauss(20.0, 5.0)}
        )
        found.append(pb.Report(report_id="met", learner_id=learner_id, event_time=now, exposure=exposure))
        for place in range(rng.randrange(VALUES_A_LEARNER)):
            source = rng.choice(("minutes", "accuracy"))
            value = pb.MetricValue(source=source, value=rng.expovariate(0.1), denominator=1.0)
            found.append(
                pb.Report(report_id=f"v-{place}", learner_id=learner_id, event_time=now, metric_value=value)
            )
    rng.shuffle(found)
    return found


def load(running: ServiceProcess, clients: Sequence[Client], seconds: float, rng: random.Random) -> None:
    """Let the clients send until the service is killed under them."""
    stop = threading.Event()

    def work(client: Client, own: random.Random) -> None:
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(running.target, options) as channel:
            while client.open and not stop.is_set() and client.send(channel, own):
                pass

    crew = [threading.Thread(target=work, args=(client, random.Random(rng.random()))) for client in clients]
    for thread in crew:
        thread.start()
    time.sleep(seconds)
    running.kill_worker()
    stop.set()
    for thread in crew:
        thread.join()


def settle(running: ServiceProcess, clients: Sequence[Client], rng: random.Random) -> None:
    """Send what is still open."""
    with grpc.insecure_channel(running.target) as channel:
        for client in clients:
            while client.open:
                client.send(channel, rng)


def once_each(record: ExperimentRecord, reports: Sequence[pb.Report]) -> list[PhaseSnapshot]:
    """Moments of a store that took in every report once, in order."""
    store: Store = MemoryStore()
    partition = Partition(TENANT, record.experiment_id)
    assigner = place_everyone(record)
    for report in reports:
        entry = _entry(record, report)

        def take(
            tx: Transaction, learner: str = report.learner_id, entry: ReportRecord = entry
        ) -> list[ReportOutcome]:
            return record_reports(tx, record, learner, [entry], assigner)

        assert store.update(partition, take) == [ReportOutcome.RECORDED]
    with store.read(partition) as reader:
        return snapshots(reader, record)


def _entry(record: ExperimentRecord, report: pb.Report) -> ReportRecord:
    at = report.event_time.seconds + report.event_time.nanos * 1e-9
    if report.HasField("exposure"):
        arm, covariates = record.arms.index(report.exposure.arm), dict(report.exposure.covariates)
        return ReportRecord(report_id=report.report_id, at=at, arm=arm, covariates=covariates)
    value = report.metric_value
    return ReportRecord(
        report_id=report.report_id,
        at=at,
        source=value.source,
        value=value.value,
        denominator=value.denominator,
    )


def begin(running: ServiceProcess) -> str:
    """A running experiment with a metric of every kind."""
    minutes = resources.MetricDefinition(name="minutes", use_covariate=True)
    request = creation(primary_metric="minutes", secondary_metrics=["accuracy"], metric_definitions=[minutes])
    with grpc.insecure_channel(running.target) as channel:
        stub = experiment_service_pb2_grpc.ExperimentServiceStub(channel)
        experiment_id = stub.CreateExperiment(request).experiment.experiment_id
        stub.StartExperiment(pb.StartExperimentRequest(experiment_id=experiment_id))
    return str(experiment_id)


def stored(directory: Path, experiment_id: str) -> tuple[ExperimentRecord, list[PhaseSnapshot]]:
    """The experiment and its moments, read beside the running service."""
    store = LmdbStore(directory / EXPERIMENTS)
    try:
        record = find_experiment(store, TENANT, experiment_id)
        assert record is not None
        with store.read(Partition(TENANT, experiment_id)) as reader:
            return record, snapshots(reader, record)
    finally:
        store.close()


def run(directory: Path, *, rounds: int, seed: int) -> bool:
    """Crash the service `rounds` times, then compare; whether every bar holds."""
    rng = random.Random(seed)
    clients = [Client() for _ in range(CLIENTS)]
    resent = 0
    with service_process(directory) as running:
        experiment_id = begin(running)
        record, _ = stored(directory, experiment_id)
        for turn in range(rounds):
            running.wait("worker serves", count=turn + 1)
            resent += sum(len(client.open) for client in clients)
            for report in new_reports(rng, record, turn):
                rng.choice(clients).open.append(report)
            load(running, clients, rng.uniform(SHORTEST_LOAD_SECONDS, LONGEST_LOAD_SECONDS), rng)
        running.wait("worker serves", count=rounds + 1)
        settle(running, clients, rng)
    reports = [report for client in clients for report in client.acknowledged]
    _, held = stored(directory, experiment_id)
    wanted = once_each(record, reports)
    refused = [text for client in clients for text in client.refused]
    for text in refused[:5]:
        emit(BENCH, "refusal", 1, what=text)
    exposed = sum(map(sum, (phase.exposed for phase in held)))
    lost = LEARNERS_A_ROUND * rounds - exposed
    facts = f"{rounds} rounds, {len(reports)} reports, {resent} open at a crash"
    return all(
        [
            emit(BENCH, "refused", len(refused), bar="== 0", of=facts),
            emit(BENCH, "learners_lost_or_doubled", abs(lost), bar="== 0", of=facts),
            emit(BENCH, "phases_whose_moments_differ", _differing(held, wanted), bar="== 0", of=facts),
        ]
    )


def _differing(held: Sequence[PhaseSnapshot], wanted: Sequence[PhaseSnapshot]) -> int:
    return sum(a != b for a, b in zip(held, wanted, strict=True))


def main() -> int:
    """Run and report; the exit status says whether every bar holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="3 rounds")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="genie-experiment-crash-") as directory:
        held = run(Path(directory), rounds=3 if options.quick else options.rounds, seed=options.seed)
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""What watchers cost the experiment service: idle ones by the thousand, active experiments by the dozen.

    python -m bench.experiment_watchers [--quick] [--watchers 1000] [--experiments 50] [--seconds 10]

The service runs in a process of its own. Reported: its memory and CPU with nobody watching, with all watchers idle,
and while every experiment takes in reports; how long a report call takes meanwhile; and how long after its sending a
watcher sees an event's effect.
"""

import argparse
import os
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import grpc

from bench.output import emit
from genie.v1 import experiment_pb2, experiment_service_pb2_grpc
from genie.v1 import experiment_service_pb2 as pb
from server.convert import timestamp
from tests.server.experiments.processes import ServiceProcess, service_process
from tests.server.experiments.world import creation

BENCH = "experiment_watchers"
STREAMS_A_CHANNEL = 90
REPORTS_A_CALL = 20
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """Memory and CPU of the process that serves."""

    def __init__(self, running: ServiceProcess) -> None:
        supervisor = running.process.pid
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        self._place = Path("/proc", children[0])

    def memory_mb(self) -> float:
        """Resident memory."""
        pages = int((self._place / "statm").read_text().split()[1])
        return round(pages * PAGE_BYTES / 1e6, 1)

    def cpu_seconds(self) -> float:
        """Time computed so far."""
        fields = (self._place / "stat").read_text().rsplit(") ", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def cpu_share(self, seconds: float) -> float:
        """Cores used over the next `seconds`."""
        before = self.cpu_seconds()
        time.sleep(seconds)
        return round((self.cpu_seconds() - before) / seconds, 3)


def own_channel(target: str) -> grpc.Channel:
    """A channel with a connection of its own."""
    return grpc.insecure_channel(target, [("grpc.use_local_subchannel_pool", 1)])


def drain_stream(stream: Any, first: threading.Semaphore) -> None:
    """Read a stream until it ends."""
    try:
        next(stream)
        first.release()
        for _ in stream:
            pass
    except grpc.RpcError:
        return


def open_watchers(target: str, experiment_id: str, count: int) -> list[grpc.Channel]:
    """`count` watchers, each with its first results."""
    channels: list[grpc.Channel] = []
    first = threading.Semaphore(0)
    for number in range(count):
        if number % STREAMS_A_CHANNEL == 0:
            channels.append(own_channel(target))
        stub = experiment_service_pb2_grpc.ExperimentServiceStub(channels[-1])
        stream = stub.WatchResults(pb.WatchResultsRequest(experiment_id=experiment_id))
        threading.Thread(target=drain_stream, args=(stream, first), daemon=True).start()
    for _ in range(count):
        if not first.acquire(timeout=60):
            raise RuntimeError("a watcher got no results")
    return channels


def reports_for(experiment: experiment_pb2.Experiment, turn: int, stub: Any) -> list[pb.Report]:
    """A turn of reports about new learners."""
    found = []
    for number in range(REPORTS_A_CALL // 2):
        learner_id = f"learner-{turn}-{number}"
        ask = pb.AssignVariantRequest(experiment_id=experiment.experiment_id, learner_id=learner_id)
        exposure = pb.Exposure(experiment_id=experiment.experiment_id, arm=stub.AssignVariant(ask).arm)
        value = pb.MetricValue(
            source="practice_minutes", value=number, experiment_id=experiment.experiment_id
        )
        now = timestamp(time.time())
        found.append(pb.Report(report_id="e", learner_id=learner_id, event_time=now, exposure=exposure))
        found.append(pb.Report(report_id="m", learner_id=learner_id, event_time=now, metric_value=value))
    return found


def seen_after(stub: Any, experiment: experiment_pb2.Experiment, rounds: int) -> list[float]:
    """Seconds from sending an exposure until a watcher is told of it."""
    waits = []
    stream = stub.WatchResults(pb.WatchResultsRequest(experiment_id=experiment.experiment_id))
    count = sum(arm.exposed_count for arm in next(stream).results.arms)
    for number in range(rounds):
        time.sleep(0.7)
        learner_id = f"seen-{number}"
        ask = pb.AssignVariantRequest(experiment_id=experiment.experiment_id, learner_id=learner_id)
        exposure = pb.Exposure(experiment_id=experiment.experiment_id, arm=stub.AssignVariant(ask).arm)
        report = pb.Report(
            report_id="e", learner_id=learner_id, event_time=timestamp(time.time()), exposure=exposure
        )
        sent = time.monotonic()
        stub.ReportMetrics(iter([pb.ReportMetricsRequest(reports=[report])]))
        before = count
        while count == before:
            count = sum(arm.exposed_count for arm in next(stream).results.arms)
        waits.append(time.monotonic() - sent)
    stream.cancel()
    return waits


def run(watchers: int, experiments: int, seconds: float, rounds: int) -> bool:
    """Measure and report; whether every bar holds."""
    held = True
    with (
        tempfile.TemporaryDirectory(prefix="genie-watchers-") as directory,
        service_process(Path(directory)) as running,
        own_channel(running.target) as channel,
    ):
        process = Process(running)
        stub = experiment_service_pb2_grpc.ExperimentServiceStub(channel)
        made = [
            stub.CreateExperiment(creation(name=f"Number {number}")).experiment
            for number in range(experiments + 1)
        ]
        for experiment in made:
            stub.StartExperiment(pb.StartExperimentRequest(experiment_id=experiment.experiment_id))
        emit(BENCH, "memory_mb_no_watchers", process.memory_mb())
        emit(BENCH, "cpu_cores_no_watchers", process.cpu_share(seconds))
        # One place is left for the watcher that is timed.
        channels = open_watchers(running.target, made[0].experiment_id, watchers - 1)
        emit(BENCH, "memory_mb_idle_watchers", process.memory_mb(), watchers=watchers)
        emit(BENCH, "cpu_cores_idle_watchers", process.cpu_share(seconds), watchers=watchers)
        busy, calls = [], []
        limit = time.monotonic() + seconds
        before, started, turn = process.cpu_seconds(), time.monotonic(), 0
        while time.monotonic() < limit:
            for experiment in made[1:]:
                reports = reports_for(experiment, turn, stub)
                sent = time.monotonic()
                reply = stub.ReportMetrics(iter([pb.ReportMetricsRequest(reports=reports)]))
                calls.append(time.monotonic() - sent)
                busy.append(reply.recorded_count)
            turn += 1
        used = (process.cpu_seconds() - before) / (time.monotonic() - started)
        facts: dict[str, Any] = {"watchers": watchers, "experiments": experiments}
        emit(BENCH, "cpu_cores_active", round(used, 3), reports=sum(busy), **facts)
        emit(BENCH, "memory_mb_active", process.memory_mb(), **facts)
        emit(BENCH, "report_call_ms_p50", round(1e3 * statistics.median(calls), 2), **facts)
        held &= emit(BENCH, "report_call_ms_worst", round(1e3 * max(calls), 2), bar="<= 1000", **facts)
        waits = seen_after(stub, made[1], rounds)
        held &= emit(BENCH, "seconds_until_seen_worst", round(max(waits), 3), bar="<= 1", **facts)
        everyone = seen_after(stub, made[0], rounds)
        # The watchers' own side computes in this process as well: no bar.
        emit(BENCH, "seconds_until_seen_when_all_are_told", round(max(everyone), 3), **facts)
        held &= emit(BENCH, "events_seen", len(waits), bar=f"== {rounds}", **facts)
        for one in channels:
            one.close()
    return held


def main() -> int:
    """Run and report; the exit status says whether every bar holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--watchers", type=int, default=1_000)
    parser.add_argument("--experiments", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--quick", action="store_true", help="50 watchers, 5 experiments, 1 s")
    options = parser.parse_args()
    if options.quick:
        return 0 if run(50, 5, 1.0, 3) else 1
    return 0 if run(options.watchers, options.experiments, options.seconds, 20) else 1


if __name__ == "__main__":
    raise SystemExit(main())

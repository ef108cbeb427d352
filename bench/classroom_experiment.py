"""Does the experiment service find that learners practise more with Genie than with a textbook? End to end over gRPC.

A platform with a textbook tries Genie: a server with experiments on, learners of world (c), who leave when bored or
frustrated, one week each. The experiment service assigns them; control goes through the textbook, which is the
platform's own, treatment is served by `hybrid_v1`. The platform reports minutes practised, and the service decides.

    python -m bench.classroom_experiment [--quick] [--learners 500] [--world FILE] [--seed 11]
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import grpc

from bench.classrooms.baselines import Textbook
from bench.classrooms.play import Course, Outcome, Pupil, play_week
from bench.classrooms.remote import CALL_SECONDS, RemotePupil, RemoteSchool
from bench.classrooms.staff import Plan
from bench.live import LiveServer, free_port
from bench.output import emit
from bench.worlds.world import DAY_S, Learner, World
from genie.v1 import experiment_pb2, experiment_results_pb2, experiment_service_pb2_grpc
from genie.v1 import experiment_service_pb2 as pb
from server.convert import timestamp

BENCH = "classroom_experiment"
TEXTBOOK, TREATMENT, METRIC = "textbook_v1", "hybrid_v1", "week_minutes"
TARGET_PERCENT = 15.0
LOOK_EVERY = 20
"""Learners between two looks; the service's verdict holds however often one looks."""
HEARD_SECONDS = 60.0
"""Longest wait until workers have heard of the experiment, and until its service has heard of their exposures."""

POLICIES = f"""
# What control gets is the platform's own; the server only has to know its name, and is never asked for it.
[{TEXTBOOK}]
based_on = "popularity_v1"
"""


@dataclass
class Platform:
    """A learning platform: its learners, its server, its experiment."""

    world: World
    school: RemoteSchool
    lab: experiment_service_pb2_grpc.ExperimentServiceStub
    course: Course
    experiment_id: str = ""

    def begin(self, planned: int) -> None:
        """Create and start the experiment."""
        definition = experiment_pb2.MetricDefinition(name=METRIC)
        created = self.lab.CreateExperiment(
            pb.CreateExperimentRequest(
                name="Textbook or Genie",
                hypothesis="Learners practise more when questions are neither too easy nor too hard.",
                control_algorithm=TEXTBOOK,
                treatment_algorithm=TREATMENT,
                primary_metric=METRIC,
                metric_definitions=[definition],
                target_improvement_percent=TARGET_PERCENT,
                duration_days=30,
                planned_sample=planned,
            ),
            metadata=self.school.metadata,
            timeout=CALL_SECONDS,
        )
        self.experiment_id = created.experiment.experiment_id
        self.lab.StartExperiment(
            pb.StartExperimentRequest(experiment_id=self.experiment_id),
            metadata=self.school.metadata,
            timeout=CALL_SECONDS,
        )

    def week(self, number: int) -> Outcome:
        """Let a learner practise for a week in the arm the service assigns, and report the minutes."""
        learner_id = f"learner-{number}"
        assigned = self.lab.AssignVariant(
            pb.AssignVariantRequest(experiment_id=self.experiment_id, learner_id=learner_id),
            metadata=self.school.metadata,
            timeout=CALL_SECONDS,
        )
        if assigned.algorithm == TEXTBOOK:
            exposure = pb.Exposure(experiment_id=self.experiment_id, arm=assigned.arm, phase=assigned.phase)
            now = timestamp(time.time())
            self.report(pb.Report(report_id="met", learner_id=learner_id, event_time=now, exposure=exposure))
        teacher = _Arm(self, learner_id, by_textbook=assigned.algorithm == TEXTBOOK)
        outcome = play_week(self.world, teacher, number, self.course)
        value = pb.MetricValue(source=METRIC, value=outcome.minutes, experiment_id=self.experiment_id)
        now = timestamp(time.time())
        self.report(pb.Report(report_id="week", learner_id=learner_id, event_time=now, metric_value=value))
        return outcome

    def report(self, report: pb.Report) -> None:
        """Send one report; RuntimeError when it does not count."""
        reply = self.lab.ReportMetrics(
            iter([pb.ReportMetricsRequest(reports=[report])]),
            metadata=self.school.metadata,
            timeout=CALL_SECONDS,
        )
        if reply.recorded_count != 1:
            raise RuntimeError(f"the experiment service did not take a report: {reply}")

    def results(self) -> experiment_results_pb2.ExperimentResults:
        """Take a look."""
        request = pb.GetResultsRequest(experiment_id=self.experiment_id)
        return self.lab.GetResults(request, metadata=self.school.metadata, timeout=CALL_SECONDS).results

    def results_with(self, learners: int) -> experiment_results_pb2.ExperimentResults:
        """Take a look at `learners`: workers tell of their exposures a moment after the call."""
        limit = time.monotonic() + HEARD_SECONDS
        while True:
            found = self.results()
            if sum(arm.exposed_count for arm in found.arms) >= learners or time.monotonic() > limit:
                return found
            time.sleep(0.1)


@dataclass(frozen=True)
class _Arm:
    """The teacher that a learner's arm stands for."""

    platform: Platform
    learner_id: str
    by_textbook: bool
    name: str = "arm"

    def pupil(self, number: int, learner: Learner) -> Pupil:
        # No policy is named: the experiment decides what the server serves.
        served = RemotePupil(self.platform.school, "", self.learner_id)
        if not self.by_textbook:
            return served
        return _Reading(Textbook(self.platform.world).pupil(number, learner), served)


@dataclass
class _Reading:
    """Reads the textbook; the platform records the answers with the server all the same."""

    book: Pupil
    served: RemotePupil

    def choose(self, at: float) -> int:
        return self.book.choose(at)

    def note(self, question: int, correct: bool, seconds: float, at: float) -> None:
        self.book.note(question, correct, seconds, at)
        self.served.note(question, correct, seconds, at)


def wait_until_heard(platform: Platform) -> None:
    """Return when workers serve the treatment's policy to those assigned to it; RuntimeError when they never do.

    The first learner assigned to it is asked for again and again: their week follows, so nobody is exposed who does not
    practise.
    """
    numbers = range(1000)
    treated = next(number for number in numbers if _algorithm(platform, number) == TREATMENT)
    probe = RemotePupil(platform.school, "", f"learner-{treated}")
    limit = time.monotonic() + HEARD_SECONDS
    while platform.school.slates[TREATMENT] == 0:
        if time.monotonic() > limit:
            raise RuntimeError("the workers have not heard of the experiment")
        probe.choose(platform.course.begins_at)
        time.sleep(0.1)
    platform.school.slates.clear()


def _algorithm(platform: Platform, number: int) -> str:
    request = pb.AssignVariantRequest(experiment_id=platform.experiment_id, learner_id=f"learner-{number}")
    reply = platform.lab.AssignVariant(request, metadata=platform.school.metadata, timeout=CALL_SECONDS)
    return str(reply.algorithm)


def conduct(
    platform: Platform, learners: int
) -> tuple[int, Sequence[experiment_results_pb2.ExperimentResults]]:
    """Play week after week until the service has its verdict or nobody is left; return (learners, the looks)."""
    looks = []
    for number in range(learners):
        platform.week(number)
        if (number + 1) % LOOK_EVERY == 0 or number + 1 == learners:
            looks.append(platform.results_with(number + 1))
            if looks[-1].verdict != experiment_results_pb2.EXPERIMENT_VERDICT_CONTINUE:
                break
    return number + 1, looks


def judge(
    platform: Platform, learners: int, result: experiment_results_pb2.ExperimentResults, *, judged: bool
) -> bool:
    """Print what the service says; whether every bar holds."""
    found = result.comparisons[0]
    ship = result.verdict == experiment_results_pb2.EXPERIMENT_VERDICT_SHIP
    interval = found.lift_always_valid_interval
    facts = {
        "learners": learners,
        "control_minutes": round(found.control_mean, 2),
        "treatment_minutes": round(found.treatment_mean, 2),
        "always_valid_low": round(1.0 + interval.lower, 3) if interval.HasField("lower") else None,
        "always_valid_high": round(1.0 + interval.upper, 3) if interval.HasField("upper") else None,
        "always_valid_p": found.always_valid_p_value,
        "p": found.p_value,
    }
    exposed = sum(arm.exposed_count for arm in result.arms)
    others = sum(platform.school.slates.values()) - platform.school.slates[TREATMENT]
    return all(
        [
            emit(BENCH, "learners_not_exposed", learners - exposed, bar="== 0"),
            emit(
                BENCH, "slates_of_other_policies", others, bar="== 0", of=sum(platform.school.slates.values())
            ),
            emit(BENCH, "degraded_slates", platform.school.degraded, bar="== 0"),
            emit(
                BENCH,
                "minutes_treatment_over_control",
                round(1.0 + found.lift, 3),
                bar=f">= {1.0 + TARGET_PERCENT / 100.0}" if judged else "",
                **facts,
            ),
            emit(
                BENCH,
                "found_significant",
                int(ship),
                bar="== 1" if judged else "",
                verdict=experiment_results_pb2.ExperimentVerdict.Name(result.verdict),
                sentence=result.verdict_sentence,
            ),
        ]
    )


def run(directory: Path, options: argparse.Namespace) -> bool:
    """Start a server with experiments, play, and judge."""
    (directory / "policies.toml").write_text(POLICIES)
    address = f"127.0.0.1:{free_port()}"
    settings = {
        "GENIE_EXPERIMENTS": "alongside",
        "GENIE_EXPERIMENTS_ADDRESS": address,
        "GENIE_POLICIES_FILE": str(directory / "policies.toml"),
        # Anything that the experiment did not decide shows by its policy.
        "GENIE_DEFAULT_POLICY": "random_v1",
        "GENIE_ACCESS_LOG_RATIO": "0",
        # What is taught is looked at here, not how fast: a busy machine must not change a slate.
        "GENIE_RECOMMEND_BUDGET_MS": "30000",
    }
    learners = 8 if options.quick else options.learners
    course = Course(time.time() - 7 * DAY_S)
    world = Plan(str(options.world), course, seed=options.seed).make_world()
    with LiveServer(directory, workers=1, settings=settings) as server:
        school = RemoteSchool(world, server.target)
        school.open()
        with grpc.insecure_channel(address) as channel:
            platform = Platform(
                world, school, experiment_service_pb2_grpc.ExperimentServiceStub(channel), course
            )
            platform.begin(planned=learners)
            wait_until_heard(platform)
            played, looks = conduct(platform, learners)
            for look in looks[:-1]:
                found = look.comparisons[0]
                emit(BENCH, "look", round(found.lift, 3), learners=look.sample, p=found.always_valid_p_value)
            held = judge(platform, played, looks[-1], judged=not options.quick)
        school.close()
    return held


def main() -> int:
    """Run and report; the exit status says whether every bar holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="8 learners: too few for a verdict")
    parser.add_argument("--world", default="leavers", help="a world here, or a Python file")
    parser.add_argument("--learners", type=int, default=500)
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="genie-classroom-") as directory:
        return 0 if run(Path(directory), options) else 1


if __name__ == "__main__":
    raise SystemExit(main())

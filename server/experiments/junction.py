"""Where recommendations and experiments meet: which policy a learner gets, and what is reported of it.

Nothing here waits for the experiment service. Assignment is worked out from the last snapshot; reports go to a spool
on disk, and a thread of its own delivers them and asks for news.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from engine.experiments.assignment import Assigner
from engine.policy import Policy
from genie.v1 import experiment_service_pb2 as pb
from genie.v1 import practice_service_pb2
from genie.v1 import recommendation_service_pb2 as recommendation_pb
from server.convert import timestamp
from server.experiments.link import Link
from server.experiments.snapshot import Active, Snapshot
from server.experiments.spool import SPOOL, Spool
from server.rpc import Call
from server.validate import MOST_ID_CHARACTERS
from store.api import Partition, Store, StoreError
from store.codec import digest
from store.experiment_meetings import Meeting, find_meeting, keep_meeting

SNAPSHOTS = "experiment_snapshots"
"""Directory below the data directory."""

_RECORDED = frozenset(
    {practice_service_pb2.ANSWER_STATUS_RECORDED, practice_service_pb2.ANSWER_STATUS_DUPLICATE}
)
_FED_BACK = frozenset(
    {recommendation_pb.FEEDBACK_STATUS_RECORDED, recommendation_pb.FEEDBACK_STATUS_DUPLICATE}
)
_LOG = logging.getLogger("genie.experiments")


class Placement(NamedTuple):
    """The experiment that decides a learner's policy."""

    policy: Policy
    experiment: Active
    arm: int
    phase: int
    meeting: Meeting | None


class Junction:
    """What the recommender's services ask and tell. Thread-safe; one a worker."""

    def __init__(self, directory: Path, serving: Store, policies: Mapping[str, Policy]) -> None:
        self._snapshot = Snapshot(directory / SNAPSHOTS)
        self._spool = Spool(directory / SPOOL)
        self._serving = serving
        self._policies = policies
        self._link: Link | None = None
        self._before: Callable[[Partition, float], Mapping[str, float]] | None = None

    def look_back(self, before: Callable[[Partition, float], Mapping[str, float]]) -> None:
        """Send along with exposures what `before` tells of a learner at a moment, by source of a metric."""
        self._before = before

    def connect(self, address: str) -> None:
        """Begin to talk with the service at host:port."""
        self._link = Link(address, self._snapshot, self._spool)
        self._link.start()

    def close(self) -> None:
        """Deliver what can be delivered quickly, and stop."""
        self._spool.rotate()
        if self._link is not None:
            self._link.close()

    def place(self, tenant: str, learner_id: str, now: float) -> Placement | None:
        """What decides this learner's policy; None when no experiment does. The first one started wins."""
        for experiment in self._snapshot.of(tenant) or ():
            assigner = experiment.assigner(now)
            meeting = self._meeting(Partition(tenant, learner_id), experiment.experiment_id)
            phase = len(experiment.plan.phases) - 1 if meeting is None else meeting.phase
            arm = _index(assigner, learner_id, phase)
            policy = self._policies.get(experiment.algorithms[arm]) if arm >= 0 else None
            if policy is not None:
                return Placement(policy, experiment, arm, phase, meeting)
        return None

    def shown(self, placement: Placement, learner_id: str, call: Call, *, as_assigned: bool) -> None:
        """A slate is about to be returned; `as_assigned` says that it is the work of the arm's policy."""
        meeting, experiment = placement.meeting, placement.experiment
        if not experiment.counts or (meeting is not None and (meeting.exposed or not as_assigned)):
            return
        report = pb.Report(
            report_id=f"met:{experiment.experiment_id}:{round(call.now * 1e6)}",
            learner_id=learner_id,
            event_time=timestamp(call.now),
            correlation_id=call.correlation_id,
            exposure=pb.Exposure(
                experiment_id=experiment.experiment_id,
                arm=experiment.arms[placement.arm],
                phase=placement.phase,
                assigned_only=not as_assigned,
                covariates=self._covariates(experiment, Partition(call.tenant, learner_id), call.now),
            ),
        )
        # First the report: a meeting remembered without one would never be told.
        self._spool.append(call.tenant, [report])
        try:
            keep_meeting(
                self._serving,
                Partition(call.tenant, learner_id),
                experiment.experiment_id,
                Meeting(placement.phase, as_assigned),
                at=call.now,
            )
        except StoreError:
            _LOG.exception("a meeting with an experiment could not be kept")

    def answered(
        self,
        call: Call,
        answers: Sequence[practice_service_pb2.Answer],
        results: Sequence[practice_service_pb2.AnswerResult],
    ) -> None:
        """Answers were committed, now or by an earlier call."""
        wanted = self._wanted(call.tenant)
        if not wanted:
            return
        reports: list[pb.Report] = []
        for answer, result in zip(answers, results, strict=True):
            if result.status in _RECORDED:
                sources = wanted(answer.learner_id)
                reports += _answer_reports(answer, result, sources) if sources else ()
        self._append(call, reports)

    def fed_back(
        self,
        call: Call,
        events: Sequence[recommendation_pb.FeedbackEvent],
        results: Sequence[recommendation_pb.FeedbackResult],
    ) -> None:
        """Feedback was committed, now or by an earlier call."""
        wanted = self._wanted(call.tenant)
        if not wanted:
            return
        reports = []
        for event, result in zip(events, results, strict=True):
            counts = _CLICKS.get(event.kind)
            if counts is None or result.status not in _FED_BACK:
                continue
            if "click_through" in wanted(event.learner_id):
                value = pb.MetricValue(source="click_through", value=counts[0], denominator=counts[1])
                reports.append(
                    pb.Report(
                        report_id=_report_id(event.event_id, "click_through"),
                        learner_id=event.learner_id,
                        event_time=result.event_time,
                        metric_value=value,
                    )
                )
        self._append(call, reports)

    def erased(self, learner_id: str, call: Call, at: float) -> None:
        """A learner is, or is about to be, erased as of `at`: experiments forget, whatever the tenant has and had."""
        report = pb.Report(
            report_id=f"erased:{round(at * 1e6)}",
            learner_id=learner_id,
            event_time=timestamp(at),
            erasure=pb.Erasure(),
            correlation_id=call.correlation_id,
        )
        self._spool.append(call.tenant, [report], even_if_full=True)

    def _meeting(self, partition: Partition, experiment_id: str) -> Meeting | None:
        try:
            return find_meeting(self._serving, partition, experiment_id)
        except StoreError:
            # What may be lost must not keep a learner from a recommendation.
            _LOG.exception("a meeting with an experiment could not be read")
            return None

    def _covariates(self, experiment: Active, partition: Partition, now: float) -> Mapping[str, float]:
        """By metric, for those that the experiment adjusts and the recommender can tell of."""
        if self._before is None or not experiment.covariates:
            return {}
        try:
            known = self._before(partition, now)
        except StoreError:
            _LOG.exception("what came before an experiment could not be read")
            return {}
        return {name: known[source] for name, source in experiment.covariates.items() if source in known}

    def _wanted(self, tenant: str) -> "Callable[[str], frozenset[str]] | None":
        """From a learner to what the experiments it takes part in measure; None when there are none."""
        counting = [experiment for experiment in self._snapshot.of(tenant) or () if experiment.counts]
        if not counting:
            return None
        now = time.time()

        def sources(learner_id: str) -> frozenset[str]:
            found: frozenset[str] = frozenset()
            for experiment in counting:
                assigner = experiment.assigner(now)
                phases = range(len(experiment.plan.phases))
                if any(_index(assigner, learner_id, phase) >= 0 for phase in phases):
                    found |= experiment.sources
            return found

        return sources

    def _append(self, call: Call, reports: Sequence[pb.Report]) -> None:
        for report in reports:
            report.correlation_id = call.correlation_id
        if reports:
            self._spool.append(call.tenant, reports)


_CLICKS: Mapping[int, tuple[float, float]] = {
    recommendation_pb.FEEDBACK_KIND_SHOWN: (0.0, 1.0),
    recommendation_pb.FEEDBACK_KIND_CLICKED: (1.0, 0.0),
}
"""Kind of event → (clicks, chances)."""


def _index(assigner: Assigner, learner_id: str, phase: int) -> int:
    try:
        return assigner.index_of(learner_id, phase=phase)
    except IndexError:
        # A snapshot older than the meeting, after a restart without the service.
        return assigner.index_of(learner_id)


def _report_id(cause: str, source: str) -> str:
    # Ids of answers and events may be as long as those of reports.
    plain = f"{source}:{cause}"
    return plain if len(plain) <= MOST_ID_CHARACTERS else f"{source}:#{digest(cause).hex()}"


def _answer_reports(
    answer: practice_service_pb2.Answer, result: practice_service_pb2.AnswerResult, sources: frozenset[str]
) -> Iterator[pb.Report]:
    """What an answer says of each source."""
    gain = sum(
        change.mastery_after - change.mastery_before
        for change in result.mastery_changes
        if change.weight >= 1.0
    )
    minutes = answer.duration.ToMicroseconds() / 60e6
    for source, value, denominator in (
        ("activity", 1.0, 0.0),
        ("practice_minutes", minutes, 0.0),
        ("accuracy", float(answer.correct), 1.0),
        ("mastery_gain", gain, 0.0),
    ):
        if source in sources:
            yield pb.Report(
                report_id=_report_id(answer.answer_id, source),
                learner_id=answer.learner_id,
                event_time=result.answered_at,
                metric_value=pb.MetricValue(source=source, value=value, denominator=denominator),
            )

"""From reports as sent to reports in the store: checks, whom they concern, commits. Decides nothing."""

import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from genie.v1 import experiment_service_pb2 as pb
from server import errors
from server.experiments.errors import ExperimentNotFound
from server.rpc import Call
from server.services.answers import committed
from server.validate import Violations
from store.api import Partition, Store, Transaction
from store.experiment_reports import (
    MOST_VALUE,
    ReportOutcome,
    ReportRecord,
    erase_learner,
    place_everyone,
    record_reports,
)
from store.experiments import DRAFT, ExperimentRecord, find_experiment, list_experiments, read_experiment

MOST_REPORTS = 1_000
MOST_SOURCE = 64
MOST_COVARIATES = 32
MOST_ERRORS = 100
LATE_SECONDS = 60 * 86_400.0
"""Reports without an experiment's id still reach one that ended this long ago."""
MOST_TENANTS = 1_000
"""With so many remembered, those of past moments are dropped."""
DIRECTORY_SECONDS = 1.0
"""How long another process's new experiment may stay unknown to reports that name none."""

_Group = list[tuple[int, str, ReportRecord | float]]
"""Of one experiment: (place of the report, learner, report, or the time up to which the learner is erased)."""


class Directory:
    """The experiments of each tenant, remembered for a moment."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._held: dict[str, tuple[float, list[ExperimentRecord]]] = {}

    def of(self, tenant: str) -> Sequence[ExperimentRecord]:
        """All experiments that were ever started."""
        with self._lock:
            until, records = self._held.get(tenant, (0.0, []))
            if time.monotonic() < until:
                return records
        records = [record for record in list_experiments(self._store, tenant) if record.state != DRAFT]
        now = time.monotonic()
        with self._lock:
            if len(self._held) >= MOST_TENANTS:
                self._held = {name: held for name, held in self._held.items() if now < held[0]}
            self._held[tenant] = (now + DIRECTORY_SECONDS, records)
        return records

    def forget(self, tenant: str) -> None:
        """Something about the tenant's experiments has changed."""
        with self._lock:
            self._held.pop(tenant, None)


@dataclass(slots=True)
class Tally:
    """What became of the reports of a call."""

    reply: pb.ReportMetricsResponse = field(default_factory=pb.ReportMetricsResponse)

    def refuse(self, report: pb.Report, error: errors.GenieError) -> None:
        """Count a report that cannot be taken."""
        self.reply.rejected_count += 1
        if len(self.reply.errors) < MOST_ERRORS:
            self.reply.errors.add(
                report_id=report.report_id, error=error.status(), correlation_id=report.correlation_id
            )

    def count(self, index: int, report: pb.Report, outcomes: Iterable[ReportOutcome]) -> None:
        """Count a report, the one at `index` of its message, by what its experiments made of it."""
        found = set(outcomes)
        if ReportOutcome.REUSED in found:
            self.refuse(report, errors.IdempotencyKeyReused(field="report_id", id=report.report_id))
        elif ReportOutcome.MISPLACED in found:
            self.refuse(report, _misplaced(index))
        elif ReportOutcome.RECORDED in found:
            self.reply.recorded_count += 1
        elif ReportOutcome.DUPLICATE in found:
            self.reply.duplicate_count += 1
        else:
            self.reply.ignored_count += 1


def take_reports(
    store: Store, directory: Directory, messages: Sequence[pb.ReportMetricsRequest], call: Call, tally: Tally
) -> list[Partition]:
    """Record the reports of messages, wait for the commits, and count them; the experiments that took any in."""
    sent = [(index, report) for message in messages for index, report in enumerate(message.reports)]
    groups: dict[str, _Group] = {}
    outcomes: dict[int, list[ReportOutcome]] = {}
    known = {record.experiment_id: record for record in directory.of(call.tenant)}
    for place, (index, report) in enumerate(sent):
        try:
            concerned = _concerned(store, call, known, report, Violations().item("reports", index))
            for record in concerned:
                entry = _entry(report, record)
                groups.setdefault(record.experiment_id, []).append((place, report.learner_id, entry))
            outcomes[place] = []
        except errors.GenieError as error:
            tally.refuse(report, error)
    pending = []
    for experiment_id, group in groups.items():
        partition = Partition(call.tenant, experiment_id)
        work = partial(_take_in, group=group, now=call.now)
        pending.append((partition, store.submit(partition, work)))
    changed = []
    for partition, operation in pending:
        results = committed(operation, call)
        for place, outcome in results:
            outcomes[place].append(outcome)
        if any(outcome is ReportOutcome.RECORDED for _, outcome in results):
            changed.append(partition)
    for place, found in outcomes.items():
        tally.count(*sent[place], found)
    return changed


def _take_in(tx: Transaction, *, group: _Group, now: float) -> list[tuple[int, ReportOutcome]]:
    record = read_experiment(tx)
    if record is None:
        return [(place, ReportOutcome.IGNORED) for place, _, _ in group]
    assigner = place_everyone(record)
    by_learner: dict[str, list[tuple[int, ReportRecord]]] = {}
    found = []
    for place, learner_id, entry in group:
        if isinstance(entry, ReportRecord):
            by_learner.setdefault(learner_id, []).append((place, entry))
        else:
            late = _takes_late(record, now)
            found.append((place, erase_learner(tx, record, learner_id, entry, remember=late)))
    for learner_id, own in by_learner.items():
        outcomes = record_reports(tx, record, learner_id, [report for _, report in own], assigner)
        found += [(place, outcome) for (place, _), outcome in zip(own, outcomes, strict=True)]
    return found


def _concerned(
    store: Store, call: Call, known: dict[str, ExperimentRecord], report: pb.Report, check: Violations
) -> Sequence[ExperimentRecord]:
    """The experiments a report is for. Raises InvalidRequest, ExperimentNotFound."""
    now = call.now
    check.identifier("report_id", report.report_id)
    check.identifier("learner_id", report.learner_id)
    check.identifier("correlation_id", report.correlation_id, required=False)
    if report.HasField("event_time"):
        check.timestamp("event_time", report.event_time, now=now)
    else:
        check.add("event_time", "must be given")
    kind = report.WhichOneof("event")
    named = ""
    if kind == "exposure":
        named = report.exposure.experiment_id
        _check_exposure(check.part("exposure"), report.exposure)
    elif kind == "metric_value":
        named = report.metric_value.experiment_id
        _check_value(check.part("metric_value"), report.metric_value)
    elif kind is None:
        check.add("event", "must be given: an exposure, a metric value or an erasure")
    check.check()
    if kind == "erasure":
        return list(known.values())
    if named:
        record = known.get(named) or find_experiment(store, call.tenant, named)
        if record is None:
            raise ExperimentNotFound(experiment_id=named)
        return [record]
    source = report.metric_value.source
    return [
        record
        for record in known.values()
        if any(metric.source == source for metric in record.metrics) and _takes_late(record, now)
    ]


def _takes_late(record: ExperimentRecord, now: float) -> bool:
    """Whether reports without its id still reach the experiment."""
    return not record.ended_at or record.ended_at > now - LATE_SECONDS


def _check_exposure(check: Violations, exposure: pb.Exposure) -> None:
    check.identifier("experiment_id", exposure.experiment_id)
    check.identifier("arm", exposure.arm)
    check.whole("phase", exposure.phase, least=0, most=1_000)
    check.size("covariates", len(exposure.covariates), most=MOST_COVARIATES)
    for name, value in exposure.covariates.items():
        check.text("covariates", name, most=MOST_SOURCE, required=True)
        check.number(f"covariates[{name!r}]", value, least=-MOST_VALUE, most=MOST_VALUE)


def _check_value(check: Violations, value: pb.MetricValue) -> None:
    check.text("source", value.source, most=MOST_SOURCE, required=True)
    check.number("value", value.value, least=-MOST_VALUE, most=MOST_VALUE)
    check.number("denominator", value.denominator, least=-MOST_VALUE, most=MOST_VALUE)
    check.identifier("experiment_id", value.experiment_id, required=False)


def _entry(report: pb.Report, experiment: ExperimentRecord) -> ReportRecord | float:
    at = report.event_time.seconds + report.event_time.nanos * 1e-9
    if report.HasField("erasure"):
        return at
    exposure = report.exposure
    if report.HasField("metric_value"):
        value = report.metric_value
        return ReportRecord(
            report_id=report.report_id,
            at=at,
            source=value.source,
            value=value.value,
            denominator=value.denominator,
            correlation_id=report.correlation_id,
        )
    names = {metric.name for metric in experiment.metrics if metric.use_covariate}
    return ReportRecord(
        report_id=report.report_id,
        at=at,
        arm=experiment.arms.index(exposure.arm) if exposure.arm in experiment.arms else -1,
        phase=exposure.phase,
        assigned_only=exposure.assigned_only,
        covariates={name: value for name, value in sorted(exposure.covariates.items()) if name in names},
        correlation_id=report.correlation_id,
    )


def _misplaced(index: int) -> errors.GenieError:
    path = f"reports[{index}].exposure.arm"
    return errors.InvalidRequest(
        [errors.Violation(path, "is not the arm that the learner has in that phase")]
    )

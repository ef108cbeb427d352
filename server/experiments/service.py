"""ExperimentService: the life of experiments, reports in, results out. Estimates and verdicts belong to the engine."""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TypeVar

from google.protobuf.message import Message

from engine.experiments.assignment import Assigner
from engine.experiments.moments import EMPTY
from engine.policy import Policy
from genie.v1 import experiment_pb2 as resources
from genie.v1 import experiment_service_pb2 as pb
from server import errors
from server.admission import Drain
from server.experiments.analyst import Analyst
from server.experiments.creation import History, digest_of, drafted, planned, split_from
from server.experiments.errors import (
    ExperimentLayerTaken,
    ExperimentNameTaken,
    ExperimentNotFound,
    ExperimentStateWrong,
)
from server.experiments.intake import MOST_REPORTS, Directory, Tally, take_reports
from server.experiments.messages import (
    STATES,
    experiment_message,
    point_message,
    report_message,
    state_name,
)
from server.idempotency import fingerprint, reply_once
from server.rpc import Call, Requests
from server.services.answers import committed
from server.services.paging import open_page, take_page
from server.validate import Violations
from store.api import Partition, Store, Transaction
from store.experiment_cells import snapshots
from store.experiment_reports import list_reports, phase_of
from store.experiments import (
    DRAFT,
    ROLLED_BACK,
    RUNNING,
    STOPPED,
    ExperimentRecord,
    PhaseRecord,
    find_experiment,
    list_experiments,
    read_experiment,
    read_history,
    write_experiment,
)
from store.requests import once

DEFAULT_A_PAGE = 100
MOST_A_PAGE = 1_000
MOST_PHASES = 64
MOST_REASON = 1_000
MESSAGES_A_COMMIT = 4
LEAST_HISTORY = 30
"""Learners an earlier control arm must have to tell what a metric looks like."""
LEAST_WATCH_SECONDS = 0.1
DEFAULT_WATCH_SECONDS = 0.5
MOST_WATCH_SECONDS = 3_600.0
WATCH_CHECK_SECONDS = 5.0
"""How often a watcher with nothing to tell is asked whether it is still there."""

M = TypeVar("M", bound=Message)


def _report_key(report: pb.Report) -> str:
    """Orders reports by time."""
    return f"{report.event_time.ToMicroseconds():016x}{report.report_id}"


class ExperimentService:
    """Serves `genie.v1.ExperimentService`; see its proto for what each method promises."""

    def __init__(
        self,
        *,
        store: Store,
        analyst: Analyst,
        policies: Mapping[str, Policy],
        drain: Drain,
        most_watchers: int,
    ) -> None:
        self._store = store
        self._analyst = analyst
        self._algorithms = frozenset(policies)
        self._directory = Directory(store)
        self._drain = drain
        self._most_watchers = most_watchers
        self._layers = threading.Lock()
        """Held from looking whether a layer's stretch is free until it is taken."""

    def create_experiment(
        self, request: pb.CreateExperimentRequest, call: Call
    ) -> pb.CreateExperimentResponse:
        """Write a draft down."""
        draft = drafted(request, self._algorithms, now=call.now)
        self._claim(request, call)
        draft = replace(draft, sample=planned(draft, request, self._history(call, draft)))
        digest = digest_of(request)

        def create(tx: Transaction) -> ExperimentRecord:
            held = read_experiment(tx)
            if held is None:
                write_experiment(tx, draft)
                return draft
            if held.request_digest != digest:
                raise ExperimentNameTaken(name=held.name, experiment_id=held.experiment_id)
            return held

        partition = Partition(call.tenant, draft.experiment_id)
        record = committed(self._store.submit(partition, create), call)
        return pb.CreateExperimentResponse(experiment=experiment_message(record))

    def start_experiment(self, request: pb.StartExperimentRequest, call: Call) -> pb.StartExperimentResponse:
        """Start a draft."""
        self._check_change(Violations(), request)

        def start(record: ExperimentRecord) -> ExperimentRecord:
            first = replace(record.phases[0], started_at=call.now)
            return replace(record, state=RUNNING, started_at=call.now, phases=(first,))

        with self._layers:
            record = self._find(call.tenant, request.experiment_id)
            if record.state == DRAFT:
                self._check_layer(call.tenant, record)
            return self._change(request, call, (DRAFT,), pb.StartExperimentResponse, start)

    def change_split(self, request: pb.ChangeSplitRequest, call: Call) -> pb.ChangeSplitResponse:
        """Open a new phase."""
        record = self._find(call.tenant, request.experiment_id)
        check = Violations()
        weights = split_from(check, request.traffic_split, len(record.arms))
        self._check_change(check, request)

        def split(record: ExperimentRecord) -> ExperimentRecord:
            if len(record.phases) >= MOST_PHASES:
                full = Violations()
                full.add("traffic_split", f"would open another phase; at most {MOST_PHASES} are allowed")
                full.check()
            ramp = record.phases[-1].ramp
            phase = PhaseRecord(weights=weights, ramp=ramp, started_at=call.now)
            return replace(record, phases=(*record.phases, phase))

        return self._change(request, call, (RUNNING,), pb.ChangeSplitResponse, split)

    def stop_experiment(self, request: pb.StopExperimentRequest, call: Call) -> pb.StopExperimentResponse:
        """End a running experiment, or let go of one that was rolled back."""
        check = Violations()
        check.text("reason", request.reason, most=MOST_REASON)
        self._check_change(check, request)

        def stop(record: ExperimentRecord) -> ExperimentRecord:
            if record.state == ROLLED_BACK:
                return replace(record, state=STOPPED)
            return replace(record, state=STOPPED, ended_at=call.now, end_reason=request.reason)

        return self._change(request, call, (RUNNING, ROLLED_BACK), pb.StopExperimentResponse, stop)

    def get_experiment(self, request: pb.GetExperimentRequest, call: Call) -> pb.GetExperimentResponse:
        """Read an experiment."""
        record = self._find(call.tenant, request.experiment_id)
        return pb.GetExperimentResponse(experiment=experiment_message(record))

    def list_experiments(self, request: pb.ListExperimentsRequest, call: Call) -> pb.ListExperimentsResponse:
        """List experiments by id."""
        check = Violations()
        check.enum("state", request.state, resources.ExperimentState)
        size = check.page_size("page_size", request.page_size, default=DEFAULT_A_PAGE, most=MOST_A_PAGE)
        check.check()
        page = open_page(request.page_token, size, request.state, request.active_only)
        messages = (
            experiment_message(record)
            for record in list_experiments(self._store, call.tenant, after=page.after)
            if request.state in (resources.EXPERIMENT_STATE_UNSPECIFIED, STATES[record.state])
            and (record.state == RUNNING or not request.active_only)
        )
        found, token = take_page(page, messages, lambda message: message.experiment_id)
        return pb.ListExperimentsResponse(experiments=found, next_page_token=token)

    def assign_variant(self, request: pb.AssignVariantRequest, call: Call) -> pb.AssignVariantResponse:
        """Tell which arm a learner is in."""
        check = Violations()
        check.identifier("learner_id", request.learner_id)
        check.check()
        record = self._find(call.tenant, request.experiment_id)
        if record.state not in (RUNNING, ROLLED_BACK):
            return pb.AssignVariantResponse()
        with self._store.read(Partition(call.tenant, record.experiment_id)) as reader:
            first = phase_of(reader, request.learner_id)
        assigned = Assigner(record.assignment(), now_s=call.now).assign(
            request.learner_id, phase=-1 if first is None else first
        )
        if assigned.arm is None:
            return pb.AssignVariantResponse()
        algorithm = record.algorithms[record.arms.index(assigned.arm)]
        return pb.AssignVariantResponse(
            in_experiment=True, arm=assigned.arm, algorithm=algorithm, phase=assigned.phase
        )

    def report_metrics(
        self, requests: "Requests[pb.ReportMetricsRequest]", call: Call
    ) -> pb.ReportMetricsResponse:
        """Take in exposures and metric values; what has arrived together shares commits."""
        tally = Tally()
        while arrived := requests.take(MESSAGES_A_COMMIT):
            call.renew()
            check = Violations()
            for message in arrived:
                check.size("reports", len(message.reports), least=1, most=MOST_REPORTS)
                if len(message.reports) > MOST_REPORTS:
                    raise errors.BatchTooLarge(field="reports", size=len(message.reports), limit=MOST_REPORTS)
            check.check()
            for partition in take_reports(self._store, self._directory, arrived, call, tally):
                self._analyst.changed(partition)
        return tally.reply

    def list_reports(self, request: pb.ListReportsRequest, call: Call) -> pb.ListReportsResponse:
        """List what is held of a learner."""
        check = Violations()
        check.identifier("learner_id", request.learner_id)
        size = check.page_size("page_size", request.page_size, default=DEFAULT_A_PAGE, most=MOST_A_PAGE)
        check.check()
        record = self._find(call.tenant, request.experiment_id)
        page = open_page(request.page_token, size, "ListReports", record.experiment_id, request.learner_id)
        with self._store.read(Partition(call.tenant, record.experiment_id)) as reader:
            held = list_reports(reader, request.learner_id)
        messages = (report_message(record, request.learner_id, report) for report in held)
        wanted = sorted((m for m in messages if _report_key(m) > page.after), key=_report_key)
        reports, token = take_page(page, wanted, _report_key)
        return pb.ListReportsResponse(reports=reports, next_page_token=token)

    def get_results(self, request: pb.GetResultsRequest, call: Call) -> pb.GetResultsResponse:
        """Look at an experiment now."""
        record = self._find(call.tenant, request.experiment_id)
        partition = Partition(call.tenant, record.experiment_id)
        reply = pb.GetResultsResponse(results=self._analyst.results(partition))
        if request.include_history:
            with self._store.read(partition) as reader:
                reply.history.extend(map(point_message, read_history(reader)))
        return reply

    def watch_results(self, request: pb.WatchResultsRequest, call: Call) -> Iterator[pb.WatchResultsResponse]:
        """Send the results now and whenever they change."""
        check = Violations()
        pause = DEFAULT_WATCH_SECONDS
        if request.HasField("min_interval"):
            given = check.duration("min_interval", request.min_interval, most_seconds=MOST_WATCH_SECONDS)
            pause = max(given, LEAST_WATCH_SECONDS)
        check.check()
        record = self._find(call.tenant, request.experiment_id)
        if self._analyst.watchers() >= self._most_watchers:
            raise errors.TooManyStreams(limit=self._most_watchers)
        partition = Partition(call.tenant, record.experiment_id)
        watch = self._analyst.watch(partition)
        self._drain.listen(watch.woken.set)
        try:
            sent = None
            while True:
                watch.woken.clear()
                results = self._analyst.latest(partition)
                if results is not sent:
                    sent = results
                    yield pb.WatchResultsResponse(results=results)
                    if results.state in (STATES[STOPPED], STATES[ROLLED_BACK]):
                        return
                    call.pause(pause)
                while not (
                    watch.woken.wait(min(WATCH_CHECK_SECONDS, call.remaining())) or self._drain.started
                ):
                    call.check()
                if self._drain.started:
                    raise errors.ServerDraining()
        finally:
            self._drain.forget(watch.woken.set)
            self._analyst.forget(partition, watch)

    def _find(self, tenant: str, experiment_id: str) -> ExperimentRecord:
        check = Violations()
        check.identifier("experiment_id", experiment_id)
        check.check()
        record = find_experiment(self._store, tenant, experiment_id)
        if record is None:
            raise ExperimentNotFound(experiment_id=experiment_id)
        return record

    def _check_change(
        self,
        check: Violations,
        request: pb.StartExperimentRequest | pb.StopExperimentRequest | pb.ChangeSplitRequest,
    ) -> None:
        check.identifier("experiment_id", request.experiment_id)
        check.identifier("request_id", request.request_id, required=False)
        check.check()

    def _claim(
        self,
        request: pb.CreateExperimentRequest
        | pb.StartExperimentRequest
        | pb.StopExperimentRequest
        | pb.ChangeSplitRequest,
        call: Call,
    ) -> None:
        """See to it that a request id means one request, whatever experiment it names. Raises IdempotencyKeyReused."""
        if request.request_id:
            digest = fingerprint(request)
            operation = self._store.submit(
                Partition(call.tenant),
                lambda tx: once(tx, call.method, request.request_id, digest, bytes, now=call.now),
            )
            committed(operation, call)

    def _change(
        self,
        request: pb.StartExperimentRequest | pb.StopExperimentRequest | pb.ChangeSplitRequest,
        call: Call,
        needed: tuple[str, ...],
        kind: type[M],
        change: Callable[[ExperimentRecord], ExperimentRecord],
    ) -> M:
        """Take an experiment from one of the states `needed` to what `change` makes of it; the reply of type `kind`."""
        partition = Partition(call.tenant, request.experiment_id)
        self._find(call.tenant, request.experiment_id)
        self._claim(request, call)

        def apply(tx: Transaction) -> M:
            record = read_experiment(tx)
            if record is None:
                raise ExperimentNotFound(experiment_id=request.experiment_id)
            if record.state not in needed:
                raise ExperimentStateWrong(
                    experiment_id=request.experiment_id,
                    state=state_name(record.state),
                    needed_state=" or ".join(map(state_name, needed)),
                )
            changed = change(record)
            write_experiment(tx, changed)
            return kind(experiment=experiment_message(changed))

        operation = self._store.submit(
            partition, lambda tx: reply_once(tx, request, call, kind, lambda: apply(tx))
        )
        reply = committed(operation, call)
        self._directory.forget(call.tenant)
        self._analyst.changed(partition)
        return reply

    def _check_layer(self, tenant: str, record: ExperimentRecord) -> None:
        if record.layer is None:
            return
        name, start, end = record.layer
        for other in list_experiments(self._store, tenant):
            if other.layer is None or other.state != RUNNING or other.layer[0] != name:
                continue
            if other.layer[1] < end and start < other.layer[2]:
                raise ExperimentLayerTaken(layer=name, experiment_id=other.experiment_id)

    def _history(self, call: Call, draft: ExperimentRecord) -> History | None:
        """What the primary metric looked like in the latest experiment that measured it the same way."""
        primary = draft.metrics[0]
        alike = [
            record
            for record in list_experiments(self._store, call.tenant)
            if record.started_at
            and record.experiment_id != draft.experiment_id
            and any(replace(m, role=primary.role, margin=0.0) == primary for m in record.metrics)
        ]
        for record in sorted(alike, key=lambda record: -record.started_at):
            with self._store.read(Partition(call.tenant, record.experiment_id)) as reader:
                phases = snapshots(reader, record)
            control = EMPTY
            for phase in phases:
                control = control.merge(phase.moments.get(primary.name, (EMPTY,))[0])
            days = ((record.ended_at or call.now) - record.started_at) / 86_400.0
            exposed = sum(sum(phase.exposed) for phase in phases)
            if control.n >= LEAST_HISTORY and days > 0.0:
                return History(control, exposed / days)
        return None

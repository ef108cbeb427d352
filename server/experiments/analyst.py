"""Looks at experiments whenever something has changed, keeps what was concluded, and tells those who watch.

Looks are taken on a thread of their own, at most every `gap_seconds` an experiment, so that a flood of reports costs
a few looks a second; guardrails are judged whether or not anybody watches.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from engine.experiments.analysis import analyse
from engine.experiments.plan import PhaseSnapshot, Snapshot, Verdict
from engine.experiments.results import ExperimentResults
from genie.v1 import experiment_results_pb2 as results_pb
from server.experiments.errors import ExperimentNotFound
from server.experiments.messages import DAY_SECONDS, results_message, same_results
from server.logs import log
from store.api import Partition, Store, StoreError, Transaction
from store.experiment_cells import snapshots
from store.experiment_reports import due, settle
from store.experiments import (
    DRAFT,
    ROLLED_BACK,
    RUNNING,
    ExperimentRecord,
    HistoryPoint,
    LookRecord,
    list_experiments,
    merge_look,
    read_experiment,
    read_look,
    write_point,
)

GAP_SECONDS = 0.25
TICK_SECONDS = 30.0
"""Running experiments are looked at this often even when nothing is reported: windows pass, time runs out."""
SPARSE_SHARE = 1.0 / 200.0
"""A look is kept for the history when so much of the time since the start has passed since the last one kept."""

_LOG = logging.getLogger("genie.experiments")


class Watch:
    """One watcher of one experiment: `woken` is set when there is something new."""

    def __init__(self) -> None:
        self.woken = threading.Event()


class Analyst:
    """The latest results of every experiment. Thread-safe."""

    def __init__(self, store: Store, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        self._look_lock = threading.Lock()
        self._dirty: dict[Partition, None] = {}
        self._looked_at: dict[Partition, float] = {}
        self._kept_at: dict[Partition, float] = {}
        self._latest: dict[Partition, results_pb.ExperimentResults] = {}
        self._watches: dict[Partition, set[Watch]] = {}
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="analyst", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def close(self) -> None:
        """Stop looking; what was concluded is stored already."""
        self._stopping = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()

    def changed(self, partition: Partition) -> None:
        """Something was committed about this experiment."""
        with self._lock:
            self._dirty[partition] = None
        self._wake.set()

    def results(self, partition: Partition) -> results_pb.ExperimentResults:
        """What there is to say now. Raises ExperimentNotFound."""
        with self._lock:
            latest = self._latest.get(partition)
            fresh = partition not in self._dirty
        if latest is not None and fresh:
            return latest
        return self._look(partition)

    def latest(self, partition: Partition) -> results_pb.ExperimentResults:
        """What the last look said; a first look when there was none. Raises ExperimentNotFound."""
        return self._latest.get(partition) or self._look(partition)

    def watch(self, partition: Partition) -> Watch:
        """Be told of changes, until `forget`."""
        watch = Watch()
        with self._lock:
            self._watches.setdefault(partition, set()).add(watch)
        return watch

    def forget(self, partition: Partition, watch: Watch) -> None:
        """The watcher has gone."""
        with self._lock:
            self._watches[partition].discard(watch)
            if not self._watches[partition]:
                del self._watches[partition]

    def watchers(self) -> int:
        """How many watch."""
        with self._lock:
            return sum(map(len, self._watches.values()))

    def _run(self) -> None:
        next_tick = 0.0
        while not self._stopping:
            now = time.monotonic()
            try:
                if now >= next_tick:
                    next_tick = now + TICK_SECONDS
                    self._mark_running()
                pause = self._look_at_changed(now, next_tick)
            except StoreError:
                _LOG.exception("experiments cannot be looked at")
                pause = 1.0
            self._wake.wait(pause)

    def _mark_running(self) -> None:
        for tenant in self._store.tenants():
            for record in list_experiments(self._store, tenant):
                if record.state == RUNNING:
                    self.changed(Partition(tenant, record.experiment_id))

    def _look_at_changed(self, now: float, next_tick: float) -> float:
        """Look at what is due; seconds until something may be due again."""
        self._wake.clear()
        with self._lock:
            dirty = list(self._dirty)
        pause = max(next_tick - now, 0.0)
        for partition in dirty:
            wait = self._looked_at.get(partition, -GAP_SECONDS) + GAP_SECONDS - time.monotonic()
            if wait > 0.0:
                pause = min(pause, wait)
                continue
            try:
                self._look(partition)
            except ExperimentNotFound:
                with self._lock:
                    self._dirty.pop(partition, None)
            except StoreError:
                self.changed(partition)
                raise
            except Exception:
                _LOG.exception("an experiment cannot be looked at")
        return pause

    def _look(self, partition: Partition) -> results_pb.ExperimentResults:
        with self._look_lock:
            with self._lock:
                self._dirty.pop(partition, None)
            self._looked_at[partition] = time.monotonic()
            message = self._take(partition, self._clock())
            with self._lock:
                before = self._latest.get(partition)
                if before is not None and same_results(before, message):
                    return before
                self._latest[partition] = message
                for watch in self._watches.get(partition, ()):
                    watch.woken.set()
            return message

    def _take(self, partition: Partition, now: float) -> results_pb.ExperimentResults:
        """One look: count what is due, estimate, conclude, keep the conclusion."""
        self._settle(partition, now)
        with self._store.read(partition) as reader:
            record = read_experiment(reader)
            if record is None:
                raise ExperimentNotFound(experiment_id=partition.learner_id)
            held = read_look(reader)
            phases = snapshots(reader, record)
        results = _analysed(record, phases, held, now)
        if record.state != DRAFT:
            record, results = self._keep(partition, record, results, phases, held, now)
        return results_message(record, results, phases, now)

    def _settle(self, partition: Partition, now: float) -> None:
        def count(tx: Transaction) -> int:
            record = read_experiment(tx)
            return 0 if record is None else settle(tx, record, now)

        while True:
            with self._store.read(partition) as reader:
                if not due(reader, now):
                    return
            if not self._store.update(partition, count):
                return

    def _keep(
        self,
        partition: Partition,
        record: ExperimentRecord,
        results: ExperimentResults,
        phases: list[PhaseSnapshot],
        held: LookRecord,
        now: float,
    ) -> tuple[ExperimentRecord, ExperimentResults]:
        concluded = LookRecord.of(
            results.running, results.decision if results.decision.final else None, held.at
        )
        gap = max(1.0, (now - record.started_at) * SPARSE_SHARE)
        point = None
        if record.state == RUNNING and now - self._kept_at.get(partition, 0.0) >= gap:
            point = _point(record, results, phases, now)
        if point is None and concluded == held:
            return record, results

        def keep(tx: Transaction) -> ExperimentRecord | None:
            kept = merge_look(tx, results.running, results.decision, now)
            if point is not None:
                write_point(tx, point)
            return kept

        kept = self._store.update(partition, keep) or record
        if point is not None:
            self._kept_at[partition] = now
        if kept.state == ROLLED_BACK and record.state == RUNNING:
            log(
                _LOG,
                logging.WARNING,
                "an experiment was rolled back",
                tenant=partition.tenant,
                experiment=record.name,
                why=kept.end_reason,
            )
        elif results.decision.final and not held.verdict:
            log(
                _LOG,
                logging.INFO,
                "an experiment reached a verdict",
                tenant=partition.tenant,
                experiment=record.name,
                verdict=results.decision.sentence,
            )
        return kept, results


def _analysed(
    record: ExperimentRecord, phases: list[PhaseSnapshot], held: LookRecord, now: float
) -> ExperimentResults:
    until = min(now, record.ended_at or now)
    elapsed = max(until - record.started_at, 0.0) / DAY_SECONDS if record.started_at else 0.0
    standing = held.standing()
    results = analyse(
        record.plan(),
        Snapshot(
            phases=phases,
            elapsed_days=elapsed,
            running=held.running(),
            standing=standing,
            ended=record.ended_at > 0.0,
        ),
    )
    if record.state != RUNNING and standing is None and results.decision.verdict is Verdict.ROLLED_BACK:
        # Nothing is left to roll back; the estimates say what happened.
        said = "A guardrail was harmed, but the experiment had ended before."
        decision = replace(results.decision, verdict=Verdict.STOP_HARM, sentence=said)
        return replace(results, decision=decision)
    return results


def _point(
    record: ExperimentRecord, results: ExperimentResults, phases: list[PhaseSnapshot], now: float
) -> HistoryPoint:
    primary = record.metrics[0].name
    lifts = []
    for arm in record.arms[1:]:
        c = results.comparison(primary, arm)
        lifts.append((c.lift, *c.lift_interval, *c.lift_sequence))
    exposed = tuple(sum(phase.exposed[i] for phase in phases) for i in range(len(record.arms)))
    return HistoryPoint(at=now, exposed=exposed, lifts=tuple(lifts))

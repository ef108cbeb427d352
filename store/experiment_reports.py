"""From reports to what learners contribute: each report counts once, in any order. Adds up no learners.

All reports of a learner are kept: an exposure that comes to light late moves the learner's windows, and then
what counts is worked out anew. What a learner contributes is the sum of whole numbers (fixed point), so that
neither the order nor the batching of reports leaves a trace.

EXPERIMENT_REPORT   learner digest, report digest -> report
EXPERIMENT_LEARNER  learner digest                -> who the learner is to the experiment, sums a metric
EXPERIMENT_DUE      when (u64), metric (u16), learner digest -> nothing: a window that has yet to pass
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import islice
from typing import Final

from engine.experiments.assignment import Assigner
from engine.experiments.moments import FRACTION_BITS, LARGEST, Observation
from engine.experiments.plan import Kind
from store.api import Reader, Table, Transaction
from store.codec import DIGEST_BYTES, RecordCodec, digest
from store.experiment_cells import change_moments, count_learner
from store.experiments import DRAFT, ExperimentRecord, MetricRecord

MOST_VALUE = 1e6
"""Largest size of a reported value: a learner's sum then stays far below what moments take."""
SETTLED_A_TURN = 1_000

_LEARNER_SUM_BYTES = 20
_NEVER = math.inf


class ReportOutcome(IntEnum):
    """What became of a report."""

    RECORDED = 1
    DUPLICATE = 2
    IGNORED = 3
    REUSED = 4
    MISPLACED = 5
    """An exposure to an arm or phase that is not the learner's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRecord:
    """A report about a learner: an exposure when `source` is empty, else a value of that source."""

    report_id: str
    at: float
    source: str = ""
    value: float = 0.0
    denominator: float = 0.0
    arm: int = 0
    phase: int = 0
    assigned_only: bool = False
    covariates: dict[str, float] = field(default_factory=dict)
    correlation_id: str = field(default="", compare=False)
    """Of the call that caused it, which a repeat need not share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerRecord:
    """Who a learner is to an experiment. `met` and `exposed` are (time, phase, report id), the earliest."""

    arm: int = 0
    met: tuple[float, int, str] | None = None
    exposed: tuple[float, int, str] | None = None
    covariates: dict[str, float] = field(default_factory=dict)
    sums: bytes = b""
    """A metric: value and denominator, signed, in fixed point."""
    counted: int = 0
    """Bit a metric that waits for its window: whether the learner counts already."""
    erased_at: float = -math.inf
    """Reports up to then are forgotten, and taken no more."""

    def cell_phase(self) -> int:
        """The phase the learner counts in."""
        first = self.exposed or self.met
        return 0 if first is None else first[1]


_REPORT: Final = RecordCodec(ReportRecord)
_LEARNER: Final = RecordCodec(LearnerRecord)


def record_reports(
    tx: Transaction,
    experiment: ExperimentRecord,
    learner_id: str,
    reports: Sequence[ReportRecord],
    assigner: Assigner,
) -> list[ReportOutcome]:
    """Take in reports about one learner; `assigner` is `place_everyone(experiment)`."""
    places = {assigner.index_of(learner_id, phase=phase) for phase in range(len(experiment.phases))}
    outcomes, fresh = [], []
    owner = digest(learner_id)
    before = _learner(tx, owner)
    seen: dict[bytes, bytes] = {}
    for report in reports:
        outcome = _relevance(experiment, report, learner_id, places, assigner)
        if report.at <= before.erased_at:
            outcome = ReportOutcome.IGNORED
        if outcome is ReportOutcome.RECORDED:
            key, value = owner + digest(report.report_id), _REPORT.encode(report)
            held = seen.get(key) or tx.get(Table.EXPERIMENT_REPORT, key)
            if held is None:
                seen[key] = value
                tx.put(Table.EXPERIMENT_REPORT, key, value)
                fresh.append(report)
            else:
                same = held == value or _REPORT.decode(held) == report
                outcome = ReportOutcome.DUPLICATE if same else ReportOutcome.REUSED
        outcomes.append(outcome)
    if fresh:
        after = _with_reports(tx, experiment, owner, before, fresh)
        if after != before:
            tx.put(Table.EXPERIMENT_LEARNER, owner, _LEARNER.encode(after))
            _move(tx, experiment, owner, before, after)
    return outcomes


def erase_learner(
    tx: Transaction, experiment: ExperimentRecord, learner_id: str, at: float, *, remember: bool
) -> ReportOutcome:
    """Forget what was reported of a learner up to `at`, as if it had never been.

    With `remember`, what was reported up to then and comes later is refused: before or after makes no difference.
    """
    owner = digest(learner_id)
    before = _learner(tx, owner)
    if before.erased_at >= at:
        return ReportOutcome.DUPLICATE
    kept = []
    for report in _reports(tx, owner):
        if report.at <= at:
            tx.delete(Table.EXPERIMENT_REPORT, owner + digest(report.report_id))
        else:
            kept.append(report)
    bare = LearnerRecord(erased_at=at if remember else -math.inf)
    after = _with_reports(tx, experiment, owner, bare, kept)
    if after.exposed == before.exposed:
        after = replace(after, counted=before.counted)
    _move(tx, experiment, owner, before, after)
    if after == LearnerRecord():
        known = tx.delete(Table.EXPERIMENT_LEARNER, owner)
        return ReportOutcome.RECORDED if known else ReportOutcome.IGNORED
    tx.put(Table.EXPERIMENT_LEARNER, owner, _LEARNER.encode(after))
    return ReportOutcome.RECORDED


def place_everyone(experiment: ExperimentRecord) -> Assigner:
    """Who belongs to which arm, once the ramp lets everybody in and whatever has become of the experiment."""
    return Assigner(replace(experiment.assignment(), rolled_back=False), now_s=_NEVER)


def due(reader: Reader, now: float) -> bool:
    """Whether windows have passed that `settle` has yet to count."""
    return any(True for _ in islice(reader.scan(Table.EXPERIMENT_DUE, stop=_due_key(now, 0, b"")), 1))


def settle(tx: Transaction, experiment: ExperimentRecord, now: float) -> int:
    """Count learners whose windows have passed, some at a time; how many were counted."""
    entries = list(islice(tx.scan(Table.EXPERIMENT_DUE, stop=_due_key(now, 0, b"")), SETTLED_A_TURN))
    for key, _ in entries:
        tx.delete(Table.EXPERIMENT_DUE, key)
        metric, owner = int.from_bytes(key[8:10], "big"), key[10:]
        value = tx.get(Table.EXPERIMENT_LEARNER, owner)
        if value is None:
            continue
        before = _LEARNER.decode(value)
        after = replace(before, counted=before.counted | 1 << metric)
        tx.put(Table.EXPERIMENT_LEARNER, owner, _LEARNER.encode(after))
        _move(tx, experiment, owner, before, after)
    return len(entries)


def phase_of(reader: Reader, learner_id: str) -> int | None:
    """The phase in which the learner was first exposed; None when that has not happened."""
    value = reader.get(Table.EXPERIMENT_LEARNER, digest(learner_id))
    exposed = None if value is None else _LEARNER.decode(value).exposed
    return None if exposed is None else exposed[1]


def list_reports(reader: Reader, learner_id: str) -> list[ReportRecord]:
    """Everything that was reported of the learner to the experiment, in no particular order."""
    return _reports(reader, digest(learner_id))


def _relevance(
    experiment: ExperimentRecord,
    report: ReportRecord,
    learner_id: str,
    places: set[int],
    assigner: Assigner,
) -> ReportOutcome:
    """RECORDED for what is to be kept, else why not."""
    ended = experiment.ended_at or _NEVER
    if experiment.state == DRAFT or not experiment.started_at <= report.at <= ended or places == {-1}:
        return ReportOutcome.IGNORED
    if not report.source:
        known = 0 <= report.phase < len(experiment.phases) and report.arm >= 0
        if not known or assigner.index_of(learner_id, phase=report.phase) != report.arm:
            return ReportOutcome.MISPLACED
    elif not any(metric.source == report.source for metric in experiment.metrics):
        return ReportOutcome.IGNORED
    return ReportOutcome.RECORDED


def _with_reports(
    tx: Transaction,
    experiment: ExperimentRecord,
    owner: bytes,
    before: LearnerRecord,
    fresh: Sequence[ReportRecord],
) -> LearnerRecord:
    """The learner after new reports; worked out from all of them when the windows have moved."""
    after = before
    for report in fresh:
        if report.source:
            continue
        place = (report.at, report.phase, report.report_id)
        if after.met is None or place < after.met:
            after = replace(after, met=place, arm=after.arm if after.exposed else report.arm)
        if not report.assigned_only and (after.exposed is None or place < after.exposed):
            after = replace(after, exposed=place, arm=report.arm, covariates=report.covariates)
    exposed = after.exposed
    if exposed is None:
        return after
    counting: Sequence[ReportRecord] = fresh
    if exposed != before.exposed:
        counting = _reports(tx, owner)
        after = replace(after, sums=b"")
    return replace(after, sums=_added(experiment, after.sums, counting, exposed[0]))


def _learner(reader: Reader, owner: bytes) -> LearnerRecord:
    value = reader.get(Table.EXPERIMENT_LEARNER, owner)
    return LearnerRecord() if value is None else _LEARNER.decode(value)


def _reports(reader: Reader, owner: bytes) -> list[ReportRecord]:
    held = reader.scan(Table.EXPERIMENT_REPORT, start=owner, stop=owner + b"\xff" * (DIGEST_BYTES + 1))
    return [_REPORT.decode(value) for _, value in held]


def _added(
    experiment: ExperimentRecord, sums: bytes, reports: Sequence[ReportRecord], exposed_at: float
) -> bytes:
    """The sums with reports that fall into the metrics' windows."""
    found = _decode_sums(sums, len(experiment.metrics))
    for report in reports:
        for place, metric in enumerate(experiment.metrics):
            if report.source == metric.source and _inside(metric, report.at - exposed_at):
                value, denominator = found[place]
                found[place] = (value + _fixed(report.value), denominator + _fixed(report.denominator))
    return _encode_sums(found)


def _inside(metric: MetricRecord, after_exposure: float) -> bool:
    start = metric.window_start_s
    return start <= after_exposure < start + metric.window_s


def _move(
    tx: Transaction, experiment: ExperimentRecord, owner: bytes, before: LearnerRecord, after: LearnerRecord
) -> None:
    """Take what the learner counted out of the moments and counts, and put in what counts now."""
    _move_counts(tx, experiment, before, after)
    old_sums = _decode_sums(before.sums, len(experiment.metrics))
    new_sums = _decode_sums(after.sums, len(experiment.metrics))
    old_cell, new_cell = (before.cell_phase(), before.arm), (after.cell_phase(), after.arm)
    for place, metric in enumerate(experiment.metrics):
        if metric.when_complete and before.exposed != after.exposed:
            _move_due(tx, metric, place, owner, before, after)
        old = _observation(metric, place, before, old_sums[place])
        new = _observation(metric, place, after, new_sums[place])
        if old == new and old_cell == new_cell:
            continue
        if old is not None:
            change_moments(tx, place, old_cell, old, enters=False)
        if new is not None:
            change_moments(tx, place, new_cell, new, enters=True)


def _move_due(
    tx: Transaction,
    metric: MetricRecord,
    place: int,
    owner: bytes,
    before: LearnerRecord,
    after: LearnerRecord,
) -> None:
    span = metric.window_start_s + metric.window_s
    if before.exposed is not None:
        tx.delete(Table.EXPERIMENT_DUE, _due_key(before.exposed[0] + span, place, owner))
    if after.exposed is not None and not after.counted >> place & 1:
        tx.put(Table.EXPERIMENT_DUE, _due_key(after.exposed[0] + span, place, owner), b"")


def _observation(
    metric: MetricRecord, place: int, learner: LearnerRecord, sums: tuple[int, int]
) -> Observation | None:
    """What the learner contributes to the metric now; None while it does not count."""
    if learner.exposed is None or (metric.when_complete and not learner.counted >> place & 1):
        return None
    value, denominator = (min(max(math.ldexp(number, -FRACTION_BITS), -LARGEST), LARGEST) for number in sums)
    covariate = learner.covariates.get(metric.name, 0.0) if metric.use_covariate else 0.0
    if metric.kind is Kind.PROPORTION:
        return (1.0 if value > 0.0 else 0.0, 1.0, covariate)
    return (value, denominator if metric.kind is Kind.RATIO else 1.0, covariate)


def _move_counts(
    tx: Transaction, experiment: ExperimentRecord, before: LearnerRecord, after: LearnerRecord
) -> None:
    for learner, step in ((before, -1), (after, 1)):
        if learner.met is not None:
            place = (learner.cell_phase(), learner.arm)
            count_learner(tx, experiment, place, step, exposed=learner.exposed is not None)


def _fixed(number: float) -> int:
    return int(math.ldexp(number, FRACTION_BITS))


def _encode_sums(sums: Sequence[tuple[int, int]]) -> bytes:
    return b"".join(n.to_bytes(_LEARNER_SUM_BYTES, "little", signed=True) for pair in sums for n in pair)


def _decode_sums(packed: bytes, metrics: int) -> list[tuple[int, int]]:
    if not packed:
        return [(0, 0)] * metrics
    width = _LEARNER_SUM_BYTES
    numbers = [
        int.from_bytes(packed[i : i + width], "little", signed=True) for i in range(0, len(packed), width)
    ]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _due_key(at: float, metric: int, owner: bytes) -> bytes:
    return max(math.ceil(at), 0).to_bytes(8, "big") + metric.to_bytes(2, "big") + owner

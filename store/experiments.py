"""Experiments as stored: what was planned, where they stand, what earlier looks said. Takes in no reports.

Each experiment is a partition of its own (tenant, experiment id), so that its plan, its moments and the ids of
the reports behind them change together. The id is made from the name, which is therefore unique in the tenant.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from engine.experiments.assignment import AssignmentPlan, Hashing, LayerSlot, Phase, RampStep
from engine.experiments.plan import (
    Decision,
    ExperimentPlan,
    Kind,
    MetricArm,
    MetricPlan,
    Role,
    Running,
    Verdict,
)
from store.api import Partition, Reader, Store, Table, Transaction
from store.codec import RecordCodec

DRAFT = "draft"
RUNNING = "running"
STOPPED = "stopped"
ROLLED_BACK = "rolled_back"

PAGE = 256
"""Experiments read at a time when all are listed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRecord:
    """A metric of an experiment: what of a learner's reports it counts, and what it is for."""

    name: str
    source: str
    role: Role
    kind: Kind
    window_start_s: float = 0.0
    """Seconds after the first exposure."""
    window_s: float = math.inf
    """Seconds; infinite for an open-ended metric."""
    when_complete: bool = False
    """A learner counts once the window has passed, not before."""
    higher_is_better: bool = True
    use_covariate: bool = False
    margin: float = 0.0

    def plan(self) -> MetricPlan:
        """The metric as the statistics know it."""
        return MetricPlan(
            name=self.name,
            role=self.role,
            kind=self.kind,
            higher_is_better=self.higher_is_better,
            use_covariate=self.use_covariate,
            open_ended=math.isinf(self.window_s),
            margin=self.margin,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRecord:
    """One split of the traffic; `ramp` holds (seconds after the experiment's start, coverage)."""

    weights: tuple[float, ...]
    ramp: tuple[tuple[float, float], ...] = ()
    started_at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleRecord:
    """The sample plan; `days` and `detectable_lift` are 0 when nothing tells how many learners come a day."""

    planned_sample: int
    basis: str
    days: float = 0.0
    detectable_lift: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExperimentRecord:
    """Everything about an experiment but what was seen. Times are epoch seconds, 0 while they lie ahead."""

    experiment_id: str
    name: str
    hypothesis: str
    arms: tuple[str, ...]
    algorithms: tuple[str, ...]
    metrics: tuple[MetricRecord, ...]
    target_improvement: float
    duration_days: int
    sample: SampleRecord
    phases: tuple[PhaseRecord, ...]
    seed: str
    hashing: Hashing = Hashing.BLAKE2B
    layer: tuple[str, float, float] | None = None
    state: str = DRAFT
    created_at: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0
    end_reason: str = ""
    request_digest: bytes = b""
    """Digest of what it was created from."""

    def plan(self) -> ExperimentPlan:
        """What the statistics are told before the first learner."""
        return ExperimentPlan(
            name=self.name,
            arms=self.arms,
            metrics=tuple(metric.plan() for metric in self.metrics),
            planned_sample=self.sample.planned_sample,
            target_improvement=self.target_improvement,
            duration_days=float(self.duration_days),
        )

    def assignment(self) -> AssignmentPlan:
        """What decides who is where."""
        return AssignmentPlan(
            seed=self.seed,
            arms=self.arms,
            phases=tuple(self._phase(phase) for phase in self.phases),
            hashing=self.hashing,
            slot=None
            if self.layer is None
            else LayerSlot(layer=self.layer[0], start=self.layer[1], end=self.layer[2]),
            rolled_back=self.state == ROLLED_BACK,
        )

    def _phase(self, phase: PhaseRecord) -> Phase:
        if not phase.ramp:
            return Phase(weights=phase.weights)
        steps = tuple(RampStep(at_s=self.started_at + after, coverage=share) for after, share in phase.ramp)
        return Phase(weights=phase.weights, ramp=steps)


@dataclass(frozen=True, slots=True, kw_only=True)
class LookRecord:
    """What looks have concluded so far: smallest p-values as (metric, arm, p), and a final decision if any."""

    at: float = 0.0
    effect: tuple[tuple[str, str, float], ...] = ()
    harm: tuple[tuple[str, str, float], ...] = ()
    futility: tuple[tuple[str, str, float], ...] = ()
    sample_ratio: float = 1.0
    verdict: str = ""
    sentence: str = ""
    arm: str = ""

    @classmethod
    def of(cls, running: Running, standing: Decision | None, at: float) -> "LookRecord":
        """A record of minima and decision."""
        effect, harm, futility = (
            tuple((metric, arm, p) for (metric, arm), p in sorted(minima.items()))
            for minima in (running.effect, running.harm, running.futility)
        )
        return cls(
            at=at,
            effect=effect,
            harm=harm,
            futility=futility,
            sample_ratio=running.sample_ratio,
            verdict="" if standing is None else standing.verdict.value,
            sentence="" if standing is None else standing.sentence,
            arm="" if standing is None else standing.arm or "",
        )

    def running(self) -> Running:
        """The minima as the statistics take them."""
        return Running(
            effect={(metric, arm): p for metric, arm, p in self.effect},
            harm={(metric, arm): p for metric, arm, p in self.harm},
            futility={(metric, arm): p for metric, arm, p in self.futility},
            sample_ratio=self.sample_ratio,
        )

    def standing(self) -> Decision | None:
        """The final decision, if one was reached."""
        if not self.verdict:
            return None
        return Decision(verdict=Verdict(self.verdict), sentence=self.sentence, arm=self.arm or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPoint:
    """What one look said of the primary metric: for each treatment (lift, fixed bounds, always-valid bounds)."""

    at: float
    exposed: tuple[int, ...]
    lifts: tuple[tuple[float, float, float, float, float], ...]


_EXPERIMENT: Final = RecordCodec(ExperimentRecord)
_LOOK: Final = RecordCodec(LookRecord)
_POINT: Final = RecordCodec(HistoryPoint)


def experiment_id_of(name: str) -> str:
    """The id of the experiment with this name."""
    return "x-" + hashlib.blake2b(name.encode(), digest_size=6).hexdigest()


def read_experiment(reader: Reader) -> ExperimentRecord | None:
    """The partition's experiment."""
    value = reader.get(Table.EXPERIMENT)
    return None if value is None else _EXPERIMENT.decode(value)


def write_experiment(tx: Transaction, record: ExperimentRecord) -> None:
    """Keep the experiment as it stands now."""
    tx.put(Table.EXPERIMENT, b"", _EXPERIMENT.encode(record))


def find_experiment(store: Store, tenant: str, experiment_id: str) -> ExperimentRecord | None:
    """The experiment with this id."""
    with store.read(Partition(tenant, experiment_id)) as reader:
        return read_experiment(reader)


def list_experiments(store: Store, tenant: str, *, after: str = "") -> Iterator[ExperimentRecord]:
    """The tenant's experiments with ids > `after`, by id."""
    while ids := store.learners(tenant, Table.EXPERIMENT, after=after, limit=PAGE):
        for experiment_id in ids:
            record = find_experiment(store, tenant, experiment_id)
            if record is not None:
                yield record
        after = ids[-1]


def read_look(reader: Reader) -> LookRecord:
    """What looks have concluded so far."""
    value = reader.get(Table.EXPERIMENT_LOOK)
    return LookRecord() if value is None else _LOOK.decode(value)


def merge_look(tx: Transaction, running: Running, decision: Decision, now: float) -> ExperimentRecord | None:
    """Take one look's conclusions in, and roll the experiment back if they say so; the experiment as it stands.

    Minima stay minima and the first final decision stands, in whatever order looks are written.
    """
    record = read_experiment(tx)
    if record is None:
        return None
    held = read_look(tx)
    before = held.running()
    merged = Running(
        effect=_least(before.effect, running.effect),
        harm=_least(before.harm, running.harm),
        futility=_least(before.futility, running.futility),
        sample_ratio=min(before.sample_ratio, running.sample_ratio),
    )
    standing = held.standing() or (decision if decision.final else None)
    look = LookRecord.of(merged, standing, now)
    if replace(look, at=0.0) != replace(held, at=0.0):
        tx.put(Table.EXPERIMENT_LOOK, b"", _LOOK.encode(look))
    if standing is not None and standing.verdict is Verdict.ROLLED_BACK and record.state == RUNNING:
        record = replace(record, state=ROLLED_BACK, ended_at=now, end_reason=standing.sentence)
        write_experiment(tx, record)
    return record


def _least(a: Mapping[MetricArm, float], b: Mapping[MetricArm, float]) -> dict[MetricArm, float]:
    return {key: min(a.get(key, 1.0), b.get(key, 1.0)) for key in {**a, **b}}


def write_point(tx: Transaction, point: HistoryPoint) -> None:
    """Add to what earlier looks said; a point of the same millisecond is replaced."""
    tx.put(Table.EXPERIMENT_HISTORY, round(point.at * 1e3).to_bytes(8, "big"), _POINT.encode(point))


def read_history(reader: Reader) -> list[HistoryPoint]:
    """What earlier looks said, oldest first."""
    return [_POINT.decode(value) for _, value in reader.scan(Table.EXPERIMENT_HISTORY)]

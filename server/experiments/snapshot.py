"""The experiments that a worker knows of: who gets which policy, worked out locally. Calls nobody.

What the service said last is kept on disk, a file a tenant that has experiments, so that assignment goes on when the
service is away and after a restart. Of tenants without experiments, whose names anybody may make up, some are
remembered and nothing is kept.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf.message import DecodeError

from engine.experiments.assignment import Assigner, AssignmentPlan, Hashing, LayerSlot, Phase, RampStep
from genie.v1 import experiment_pb2 as resources
from genie.v1 import experiment_service_pb2 as pb
from store.home import write_file

MOST_WITHOUT = 1_000
"""Tenants without experiments that are remembered; the one seen longest ago is forgotten, and asked about anew."""
MOST_STRANGERS = 1_000
"""Tenants that wait to be asked about for the first time; further ones have to come again."""
A_TURN = 50
"""Tenants of each of these kinds that are asked about at a time."""
_PREFIX, _SUFFIX = "tenant-", ".experiments"
_HASHINGS = {
    resources.ASSIGNMENT_HASHING_BLAKE2B: Hashing.BLAKE2B,
    resources.ASSIGNMENT_HASHING_GROWTHBOOK_V2: Hashing.GROWTHBOOK_V2,
    resources.ASSIGNMENT_HASHING_GROWTHBOOK_V1: Hashing.GROWTHBOOK_V1,
}
_LOG = logging.getLogger("genie.experiments")


@dataclass(slots=True)
class Active:
    """An experiment that assigns learners."""

    experiment_id: str
    arms: tuple[str, ...]
    algorithms: tuple[str, ...]
    sources: frozenset[str]
    """What its metrics read."""
    covariates: Mapping[str, str]
    """Name → source of the metrics that are adjusted by what was before."""
    counts: bool
    """Whether it collects: a rolled-back experiment gives everybody control and counts nobody."""
    plan: AssignmentPlan
    _assigner: Assigner | None = None
    _until: float = 0.0

    @classmethod
    def of(cls, message: resources.Experiment) -> "Active":
        """An experiment as the service describes it. Raises ValueError when no assignment follows from it."""
        start = message.start_time.ToMicroseconds() / 1e6
        rolled_back = message.state == resources.EXPERIMENT_STATE_ROLLED_BACK
        layer = message.layer if message.HasField("layer") else None
        plan = AssignmentPlan(
            seed=message.seed,
            arms=tuple(arm.name for arm in message.arms),
            phases=tuple(_phase(phase, start) for phase in message.phases),
            hashing=_HASHINGS.get(message.hashing, Hashing.BLAKE2B),
            slot=None if layer is None else LayerSlot(layer=layer.name, start=layer.start, end=layer.end),
            rolled_back=rolled_back,
        )
        return cls(
            experiment_id=message.experiment_id,
            arms=plan.arms,
            algorithms=tuple(arm.algorithm for arm in message.arms),
            sources=frozenset(metric.definition.source for metric in message.metrics),
            covariates={
                metric.definition.name: metric.definition.source
                for metric in message.metrics
                if metric.definition.use_covariate
            },
            counts=not rolled_back,
            plan=plan,
        )

    def assigner(self, now: float) -> Assigner:
        """Who is where at `now` (epoch seconds); made anew only when the ramp takes a step."""
        made = self._assigner
        if made is None or now >= self._until:
            steps = [step.at_s for step in self.plan.phases[-1].ramp if step.at_s > now]
            made = Assigner(self.plan, now_s=now)
            self._assigner, self._until = made, min(steps, default=float("inf"))
        return made


def _phase(phase: resources.ExperimentPhase, start: float) -> Phase:
    weights = tuple(phase.weights)
    if not phase.ramp:
        return Phase(weights=weights)
    steps = (
        RampStep(at_s=start + step.after_start.ToMicroseconds() / 1e6, coverage=step.coverage)
        for step in phase.ramp
    )
    return Phase(weights=weights, ramp=tuple(steps))


@dataclass(slots=True)
class _Without:
    """A tenant that has no experiments; moments on the monotonic clock."""

    asked_at: float
    seen_at: float


class Snapshot:
    """The active experiments of each tenant, oldest first, and whom to ask about next. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._lock = threading.Lock()
        self._held: dict[str, tuple[bytes, tuple[Active, ...]]] = {}
        self._without: dict[str, _Without] = {}
        self._strangers: dict[str, None] = {}
        """Tenants that were seen and of which nothing is known, in the order in which they came."""
        for path in directory.glob(f"{_PREFIX}*{_SUFFIX}"):
            tenant = path.name.removeprefix(_PREFIX).removesuffix(_SUFFIX)
            try:
                content = path.read_bytes()
                if content:
                    self._take(tenant, content)
                else:
                    path.unlink(missing_ok=True)
            except (OSError, DecodeError, ValueError):
                _LOG.exception("a snapshot of experiments cannot be read")

    def of(self, tenant: str) -> Sequence[Active] | None:
        """The active experiments of a tenant that is seen now; None when nothing is known of the tenant."""
        held = self._held.get(tenant)
        if held is not None:
            return held[1]
        without = self._without.get(tenant)
        if without is not None:
            without.seen_at = time.monotonic()
            return ()
        if len(self._strangers) < MOST_STRANGERS:
            self._strangers[tenant] = None
        return None

    def strangers(self) -> list[str]:
        """Some tenants that were seen and are still to be asked about."""
        return list(self._strangers)[:A_TURN]

    def turn(self) -> list[str]:
        """Whom to ask about again: all with experiments; some without, first those seen since they were asked about.

        Forgets those without that are too many.
        """
        with self._lock:
            quiet = sorted(self._without.items(), key=lambda item: item[1].seen_at)
            for tenant, _ in quiet[: max(len(quiet) - MOST_WITHOUT, 0)]:
                del self._without[tenant]
            quiet.sort(key=lambda item: (item[1].seen_at <= item[1].asked_at, item[1].asked_at))
            return [*self._held, *[tenant for tenant, _ in quiet if tenant in self._without][:A_TURN]]

    def update(self, tenant: str, experiments: Sequence[resources.Experiment]) -> None:
        """What the service says now."""
        if not experiments:
            self._forget(tenant)
            return
        ordered = sorted(experiments, key=lambda e: (e.start_time.ToMicroseconds(), e.experiment_id))
        content = pb.ListExperimentsResponse(experiments=ordered).SerializeToString(deterministic=True)
        held = self._held.get(tenant)
        if held is not None and held[0] == content:
            return
        self._take(tenant, content)
        try:
            with self._lock:
                write_file(self._path(tenant), content)
        except OSError:
            _LOG.exception("a snapshot of experiments cannot be written")

    def _take(self, tenant: str, content: bytes) -> None:
        message = pb.ListExperimentsResponse.FromString(content)
        active = tuple(Active.of(experiment) for experiment in message.experiments)
        with self._lock:
            self._held[tenant] = (content, active)
            self._without.pop(tenant, None)
            self._strangers.pop(tenant, None)

    def _forget(self, tenant: str) -> None:
        """The tenant has no experiments, or none any more."""
        now = time.monotonic()
        with self._lock:
            without = self._without.setdefault(tenant, _Without(now, now))
            without.asked_at = now
            self._strangers.pop(tenant, None)
            had = self._held.pop(tenant, None)
        if had is not None:
            try:
                self._path(tenant).unlink(missing_ok=True)
            except OSError:
                _LOG.exception("a snapshot of experiments cannot be removed")

    def _path(self, tenant: str) -> Path:
        return self._directory / f"{_PREFIX}{tenant}{_SUFFIX}"


def still_active(experiment: resources.Experiment, now: float | None = None) -> bool:
    """Whether the experiment decides what learners get: it runs, or was rolled back within its planned time."""
    if experiment.state == resources.EXPERIMENT_STATE_RUNNING:
        return True
    end = experiment.start_time.seconds + experiment.duration_days * 86_400
    when = time.time() if now is None else now
    return experiment.state == resources.EXPERIMENT_STATE_ROLLED_BACK and when < end

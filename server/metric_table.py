"""Every metric of a process: its name, kind, labels and meaning, once. Counts nothing.

Names and units follow Prometheus: base units, `_total` for counters. What the store counts itself (answers, learners)
is in `server.exposition`, read from its tallies.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

FINEST_SECONDS = 2.0**-14
"""Upper edge of the first bucket of a time, 61 µs."""
OCTAVES = 20
STEPS = 4
"""Buckets an octave: an estimate from them is at most a quarter of the value off, before interpolation."""
TIME_BUCKETS = 2 + OCTAVES * STEPS
SIZE_BUCKETS = 12


class Kind(Enum):
    """How a metric behaves."""

    COUNTER = "counter"
    """Rises. The sum of all processes that there ever were."""
    GAUGE = "gauge"
    """As it stands in each live process."""
    SECONDS = "seconds"
    """A histogram of times, each octave in four buckets."""
    SIZES = "sizes"
    """A histogram of whole numbers by powers of two."""

    @property
    def cells(self) -> int:
        """Numbers that a series of it holds: a histogram's are its sum, then its buckets."""
        return {Kind.SECONDS: 1 + TIME_BUCKETS, Kind.SIZES: 1 + SIZE_BUCKETS}.get(self, 1)


@dataclass(frozen=True, slots=True)
class Metric:
    """What is known of a metric."""

    name: str
    kind: Kind
    about: str
    labels: tuple[str, ...] = ()
    recent: bool = False
    """Whether the last minutes are kept apart too, in slices, for figures of just now."""


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "genie_calls_total",
            Kind.COUNTER,
            "Calls that ended, by method and status code; refused ones and streams included.",
            ("method", "code"),
        ),
        Metric(
            "genie_call_duration_seconds",
            Kind.SECONDS,
            "Time that unary calls took in the server, waiting for a thread not included; refused calls are not timed.",
            ("method", "code"),
            recent=True,
        ),
        Metric(
            "genie_calls_shed_total",
            Kind.COUNTER,
            "Calls refused to protect the server, by the reason that the caller was told.",
            ("reason",),
            recent=True,
        ),
        Metric(
            "genie_calls_in_flight",
            Kind.GAUGE,
            "Calls taken and not finished, waiting ones included.",
            ("pool",),
        ),
        Metric(
            "genie_calls_queued",
            Kind.GAUGE,
            "Calls taken that wait for a thread (the queue's depth).",
            ("pool",),
        ),
        Metric("genie_calls_limit", Kind.GAUGE, "Calls in flight from which on more are refused.", ("pool",)),
        Metric(
            "genie_serving",
            Kind.GAUGE,
            "1 while the process reports SERVING, 0 while it drains or cannot write.",
        ),
        Metric(
            "genie_start_time_seconds", Kind.GAUGE, "When the process started, seconds since the Unix epoch."
        ),
        Metric("genie_resident_bytes", Kind.GAUGE, "Memory of the process, shared maps included."),
        Metric("genie_cpu_seconds_total", Kind.COUNTER, "Processor time used."),
        Metric(
            "genie_store_commit_seconds",
            Kind.SECONDS,
            "Time of a group commit, waiting for the disk included.",
            ("store",),
            recent=True,
        ),
        Metric(
            "genie_store_group_operations",
            Kind.SIZES,
            "Operations that shared a commit.",
            ("store",),
            recent=True,
        ),
        Metric(
            "genie_store_failures_total", Kind.COUNTER, "Group commits that failed as a whole.", ("store",)
        ),
        Metric("genie_store_used_bytes", Kind.GAUGE, "Bytes in use in the store's file.", ("store",)),
        Metric(
            "genie_store_limit_bytes", Kind.GAUGE, "Bytes to which the store's file may grow.", ("store",)
        ),
        Metric(
            "genie_cache_requests_total",
            Kind.COUNTER,
            "Look-ups in a cache, by result: hit or miss.",
            ("cache", "result"),
            recent=True,
        ),
        Metric(
            "genie_recommendations_degraded_total",
            Kind.COUNTER,
            "Recommendations that could not be all they should, by the reason that the caller was told.",
            ("reason",),
        ),
        Metric(
            "genie_model_info",
            Kind.GAUGE,
            "1 for the model version in use by tenant; priors when nothing was trained.",
            ("tenant", "version"),
        ),
        Metric(
            "genie_model_trained_time_seconds",
            Kind.GAUGE,
            "When the model in use was trained, seconds since the Unix epoch; absent when nothing was trained.",
            ("tenant",),
        ),
        Metric(
            "genie_model_failed",
            Kind.GAUGE,
            "1 while the newest model cannot be used and the one before, or priors, stand in.",
            ("tenant",),
        ),
    )
}


def _time_edges() -> list[float]:
    edges = [FINEST_SECONDS]
    for octave in range(OCTAVES):
        start = FINEST_SECONDS * 2.0**octave
        edges += [start * (1.0 + (step + 1) / STEPS) for step in range(STEPS)]
    return edges


EDGES: Mapping[Kind, list[float]] = {
    Kind.SECONDS: _time_edges(),
    Kind.SIZES: [float(1 << place) for place in range(SIZE_BUCKETS - 1)],
}
"""Largest value of each bucket but the last, which holds everything above."""


def quantile(share: float, buckets: Sequence[float], edges: Sequence[float]) -> float:
    """The value below which the `share` of what was counted lies, interpolated inside its bucket; 0 for nothing.

    For the last bucket, which has no upper edge, its lower edge.
    """
    wanted = share * float(sum(buckets))
    passed = 0.0
    for place, count in enumerate(buckets):
        if count and passed + count >= wanted:
            if place >= len(edges):
                break
            low = edges[place - 1] if place else 0.0
            return low + (edges[place] - low) * max(wanted - passed, 0.0) / float(count)
        passed += count
    return edges[-1] if passed or any(buckets) else 0.0

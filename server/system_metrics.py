"""SystemMetrics from what the processes have counted and what the store has. Serves nobody, counts nothing."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.types import F8
from genie.v1 import system_metrics_pb2 as pb
from server import convert
from server.experiments.spool import SUFFIX
from server.metric_board import SLICE_SECONDS, Key, Reading
from server.metric_table import EDGES, Kind, quantile
from server.metrics import Meter, calls_of
from server.tally_figures import LearningFigures, learning_figures
from store.api import Store
from store.stores import STATE
from store.tallies import Tally, utc_day

FAULTS = frozenset({"INTERNAL", "UNKNOWN", "UNAVAILABLE", "DATA_LOSS"})
"""Status codes that mean the server failed, not its caller."""
POLLED = "genie.v1.ExperimentService/ListExperiments"
"""What workers ask the experiment service every second; beside the callers' calls it would hide what those take."""
LEAST_WINDOW_SECONDS = 10.0
MOST_WINDOW_SECONDS = 300.0

_DURATION = "genie_call_duration_seconds"
_MS_A_MINUTE = 60_000.0
_UNARY = ("unary", "recommend")
"""Pools that serve unary calls."""


class Times(NamedTuple):
    """What a histogram of times says, in milliseconds."""

    calls: int
    mean_ms: float
    p50_ms: float
    p99_ms: float


class SystemMetricsReader:
    """Reads the numbers of now."""

    def __init__(self, *, state: Store, serving: Store, meter: Meter, spool: Path) -> None:
        """`spool` is the directory of reports that wait for the experiment service."""
        self._state = state
        self._serving = serving
        self._meter = meter
        self._spool = spool

    def read(self, tenant: str, now: float, window_seconds: float) -> pb.SystemMetrics:
        """The numbers, those of learning for the tenant. Raises StoreError."""
        figures = learning_figures(self._state, self._serving, tenant, utc_day(now))
        reading = self._meter.read(window_seconds)
        covered = covered_seconds(reading, now, window_seconds)
        calls = calls_of(reading.recent)
        asked = {key: n for key, n in calls.items() if key[0] != POLLED}
        durations = {key: values for key, values in reading.recent.items() if key[:2] != (_DURATION, POLLED)}
        times = times_of(_sum(durations, _DURATION))
        message = pb.SystemMetrics(
            read_time=convert.timestamp(now),
            window=convert.duration(covered),
            avg_latency_ms=times.mean_ms,
            p50_latency_ms=times.p50_ms,
            p99_latency_ms=times.p99_ms,
            methods=_methods(reading.recent, calls, covered),
            calls_count=round(sum(asked.values())),
            failed_calls_count=round(sum(n for (_, code), n in asked.items() if code in FAULTS)),
            shed_calls_count=round(float(_sum(reading.recent, "genie_calls_shed_total")[:1].sum())),
            store=_store(reading),
            model=_model(reading, tenant),
            workers=[_worker(name, held) for name, held in sorted(reading.live.items(), key=_number)],
            experiment_spool_segments_count=sum(1 for _ in self._spool.glob(f"*{SUFFIX}")),
        )
        rate = hit_rate(reading.recent)
        if rate is not None:
            message.cache_hit_rate = rate
        _fill_learning(message, figures)
        return message


def covered_seconds(reading: Reading, now: float, window_seconds: float) -> float:
    """What the slices of a window cover: the last one is not full, and nothing is older than the oldest process."""
    slices = max(round(window_seconds / SLICE_SECONDS), 1)
    covered = (slices - 1) * SLICE_SECONDS + now % SLICE_SECONDS
    started = [held.get(("genie_start_time_seconds",), now) for held in reading.live.values()]
    return max(min(covered, now - min(started, default=now)), 1e-3)


def times_of(histogram: F8) -> Times:
    """Count, mean and quantiles of a histogram of times; zeros when it is empty."""
    if not len(histogram) or not histogram[1:].sum():
        return Times(0, 0.0, 0.0, 0.0)
    count, buckets = float(histogram[1:].sum()), histogram[1:].tolist()
    edges = EDGES[Kind.SECONDS]
    return Times(
        round(count),
        1e3 * float(histogram[0]) / count,
        1e3 * quantile(0.5, buckets, edges),
        1e3 * quantile(0.99, buckets, edges),
    )


def hit_rate(sums: Mapping[Key, F8]) -> float | None:
    """Share of look-ups in all caches that were hits; None without look-ups."""
    hits = float(_sum(sums, "genie_cache_requests_total", last="hit")[:1].sum())
    misses = float(_sum(sums, "genie_cache_requests_total", last="miss")[:1].sum())
    return hits / (hits + misses) if hits + misses else None


def _sum(sums: Mapping[Key, F8], name: str, *, last: str | None = None) -> F8:
    """All series of a metric together, or those whose last label is `last`; empty when there are none."""
    found = [values for key, values in sums.items() if key[0] == name and last in (None, key[-1])]
    return np.sum(found, axis=0) if found else np.zeros(0)


def _methods(
    sums: Mapping[Key, F8], calls: Mapping[tuple[str, str], float], seconds: float
) -> list[pb.MethodMetrics]:
    messages = []
    for method in {method for method, _ in calls}:
        codes = {code: n for (name, code), n in calls.items() if name == method}
        timed = [values for key, values in sums.items() if key[:2] == (_DURATION, method)]
        times = times_of(np.sum(timed, axis=0) if timed else np.zeros(0))
        count = sum(codes.values())
        if count:
            messages.append(
                pb.MethodMetrics(
                    method=method,
                    calls_count=round(count),
                    failed_calls_count=round(sum(n for code, n in codes.items() if code in FAULTS)),
                    calls_per_second=count / seconds,
                    avg_latency_ms=times.mean_ms,
                    p50_latency_ms=times.p50_ms,
                    p99_latency_ms=times.p99_ms,
                )
            )
    return sorted(messages, key=lambda message: (-message.calls_count, message.method))


def _store(reading: Reading) -> pb.StoreMetrics:
    commits = times_of(reading.recent.get(("genie_store_commit_seconds", STATE), np.zeros(0)))
    groups = reading.recent.get(("genie_store_group_operations", STATE), np.zeros(2))
    count = float(groups[1:].sum())
    used = [held.get(("genie_store_used_bytes", STATE), 0.0) for held in reading.live.values()]
    return pb.StoreMetrics(
        commits_count=commits.calls,
        mean_group_size=float(groups[0]) / count if count else 0.0,
        p50_commit_ms=commits.p50_ms,
        p99_commit_ms=commits.p99_ms,
        used_bytes=_whole(max(used, default=0.0)),
    )


def _model(reading: Reading, tenant: str) -> pb.ModelMetrics | None:
    """What a process that serves the tenant tells; the newest version while they change over."""
    message = None
    for held in reading.live.values():
        trained = held.get(("genie_model_trained_time_seconds", tenant), math.nan)
        for key, value in held.items():
            if key[:2] != ("genie_model_info", tenant) or not value > 0.0:
                continue
            told = pb.ModelMetrics(version=key[2], failed=held.get(("genie_model_failed", tenant), 0.0) > 0.0)
            if math.isfinite(trained) and trained > 0.0:
                told.train_time.CopyFrom(convert.timestamp(trained))
            if message is None or told.train_time.ToNanoseconds() > message.train_time.ToNanoseconds():
                message = told
    return message


def _worker(name: str, held: Mapping[Key, float]) -> pb.WorkerMetrics:
    return pb.WorkerMetrics(
        worker=name,
        start_time=convert.timestamp(held.get(("genie_start_time_seconds",), 0.0)),
        serving=held.get(("genie_serving",), 0.0) > 0.0,
        calls_in_flight_count=_whole(sum(held.get(("genie_calls_in_flight", name), 0.0) for name in _UNARY)),
        queued_calls_count=_whole(sum(held.get(("genie_calls_queued", name), 0.0) for name in _UNARY)),
        streams_count=_whole(held.get(("genie_calls_in_flight", "stream"), 0.0)),
        resident_bytes=_whole(held.get(("genie_resident_bytes",), 0.0)),
    )


def _fill_learning(message: pb.SystemMetrics, figures: LearningFigures) -> None:
    today = figures.today
    message.recommendations_generated_today = today[Tally.RECOMMENDATIONS]
    message.total_active_learners = figures.learners
    if figures.active_week:
        minutes = figures.week_practice_ms / _MS_A_MINUTE
        message.avg_practice_minutes_per_user = minutes / figures.active_week
    message.concepts_mastered_today = today[Tally.MASTERED]
    if figures.streak_maintenance is not None:
        message.streak_maintenance_rate = figures.streak_maintenance
    if figures.click_through is not None:
        message.click_through_rate = figures.click_through
    message.dau, message.wau, message.mau = figures.active_day, figures.active_week, figures.active_month
    message.answers_today = today[Tally.ANSWERS]
    if today[Tally.ANSWERS]:
        message.accuracy_today = today[Tally.CORRECT] / today[Tally.ANSWERS]
    message.practice_minutes_today = today[Tally.PRACTICE_MS] / _MS_A_MINUTE
    message.sessions_started_today = today[Tally.SESSIONS_STARTED]
    message.learners_created_today = today[Tally.CREATED]


def _number(item: tuple[str, object]) -> tuple[int, str]:
    return (int(item[0]) if item[0].isdecimal() else 0, item[0])


def _whole(value: float) -> int:
    return round(value) if math.isfinite(value) else 0

"""`genie top`: how a running server fares, live in a terminal. Shows what WatchSystemMetrics says; counts nothing."""

import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import grpc
from google.protobuf.duration_pb2 import Duration
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from genie.v1 import analytics_service_pb2 as pb
from genie.v1 import analytics_service_pb2_grpc, system_metrics_pb2
from server.cli.client import client_options, connection, metadata, print_message

METHODS_SHOWN = 12
HISTORY = 60
"""Messages whose calls a second are drawn."""
AGAIN_SECONDS = 1.0
"""Pause before a server that has gone is asked again."""
SLOW_MS = 100.0
"""Above the budget of a recommendation."""

_BARS = "▁▂▃▄▅▆▇█"
_GONE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})


@click.command(name="top")
@click.option("--once", is_flag=True, help="Print the numbers once and end, for scripts.")
@click.option(
    "--interval",
    type=click.FloatRange(1.0, 3_600.0),
    default=2.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option(
    "--window",
    type=click.FloatRange(10.0, 300.0),
    default=60.0,
    show_default=True,
    help="Seconds that figures of calls cover.",
)
@click.option("--updates", type=click.IntRange(0), default=0, help="End after so many looks; 0 goes on.")
@client_options
def command(
    once: bool,
    interval: float,
    window: float,
    updates: int,
    target: str,
    tenant: str,
    timeout_seconds: float,
    tls_ca_file: Path | None,
    as_json: bool,
) -> None:
    """Show how a server fares, of all its workers, live. Ctrl-C ends it.

    Figures of learning are of the tenant. While the server is away, the last numbers stay and it is asked again. With
    --json it prints an object for each look.
    """
    covered = Duration()
    covered.FromMilliseconds(round(window * 1e3))
    pause = Duration()
    pause.FromMilliseconds(round(interval * 1e3))
    with connection(target, tls_ca_file) as channel:
        stub = analytics_service_pb2_grpc.AnalyticsServiceStub(channel)
        request = pb.GetSystemMetricsRequest(window=covered)
        first = stub.GetSystemMetrics(request, timeout=timeout_seconds, metadata=metadata(tenant)).metrics
        if once:
            _print(first, as_json)
            return
        watch = pb.WatchSystemMetricsRequest(interval=pause, window=covered)
        looks = _looks(stub, watch, tenant, updates)
        try:
            if as_json or not sys.stdout.isatty():
                for found in looks:
                    if found is not None:
                        _print(found, as_json)
            else:
                _live(looks, first)
        except KeyboardInterrupt:
            pass


def _looks(
    stub: Any, request: pb.WatchSystemMetricsRequest, tenant: str, most: int
) -> "Iterator[system_metrics_pb2.SystemMetrics | None]":
    """What the server says; None whenever it turns out to be away."""
    count = 0
    while True:
        stream = stub.WatchSystemMetrics(request, metadata=metadata(tenant))
        try:
            for message in stream:
                yield message.metrics
                count += 1
                if count == most:
                    return
        except grpc.RpcError as error:
            call: Any = error
            if call.code() not in _GONE:
                raise
            yield None
            time.sleep(AGAIN_SECONDS)
        finally:
            stream.cancel()


def _print(found: system_metrics_pb2.SystemMetrics, as_json: bool) -> None:
    if as_json:
        print_message(found)
    else:
        Console().print(view(found, []))


def _live(
    looks: "Iterator[system_metrics_pb2.SystemMetrics | None]", first: system_metrics_pb2.SystemMetrics
) -> None:
    rates: deque[float] = deque(maxlen=HISTORY)
    last = first
    with Live(view(first, rates), console=Console(), auto_refresh=False, screen=True) as live:
        for found in looks:
            if found is not None:
                last = found
                rates.append(calls_per_second(found))
            live.update(view(last, rates, away=found is None), refresh=True)


def calls_per_second(found: system_metrics_pb2.SystemMetrics) -> float:
    """Calls that ended, a second of the window."""
    return found.calls_count / max(found.window.ToMilliseconds() / 1e3, 1e-3)


def view(
    found: system_metrics_pb2.SystemMetrics,
    rates: "deque[float] | list[float]",
    *,
    away: bool = False,
) -> RenderableType:
    """Everything on one screen; `rates` are calls a second of earlier looks, oldest first."""
    parts: list[RenderableType] = [_heading(found, away), _figures(found)]
    if rates:
        parts.append(Text(f"calls/s {sparkline(rates)} {rates[-1]:,.1f}", style="cyan"))
    if found.methods:
        parts.append(_methods(found))
    return Group(*parts, _workers(found))


def _heading(found: system_metrics_pb2.SystemMetrics, away: bool) -> Text:
    when = found.read_time.ToDatetime()
    model = found.model.version or "priors"
    if found.model.HasField("train_time"):
        model += f", {_span(found.read_time.seconds - found.model.train_time.seconds)} old"
    serving = sum(worker.serving for worker in found.workers)
    text = Text.assemble(
        ("Genie", "bold"),
        f"  {when:%Y-%m-%d %H:%M:%S} UTC, over {found.window.ToMilliseconds() / 1e3:.0f} s",
        f"  model {model}",
        f"  {serving} of {len(found.workers)} processes serve",
    )
    if found.model.failed:
        text.append("  the newest model cannot be used", "bold red")
    if away:
        text.append("  NO ANSWER, trying again", "bold red")
    return text


def _figures(found: system_metrics_pb2.SystemMetrics) -> Table:
    """The figures of now in columns: name over value."""
    store, seconds = found.store, max(found.window.ToMilliseconds() / 1e3, 1e-3)
    grid = Table.grid(padding=(0, 3))
    rows: tuple[tuple[tuple[str, str, bool], ...], ...] = (
        (
            ("calls/s", f"{calls_per_second(found):,.1f}", False),
            ("p50", _ms(found.p50_latency_ms), False),
            ("p99", _ms(found.p99_latency_ms), found.p99_latency_ms > SLOW_MS),
            ("failed", str(found.failed_calls_count), found.failed_calls_count > 0),
            ("shed", str(found.shed_calls_count), found.shed_calls_count > 0),
            ("cache hits", _share(found, "cache_hit_rate"), False),
        ),
        (
            ("commits/s", f"{store.commits_count / seconds:,.1f}", False),
            ("commit p50", _ms(store.p50_commit_ms), False),
            ("commit p99", _ms(store.p99_commit_ms), False),
            ("group", f"{store.mean_group_size:.1f}", False),
            ("store", _bytes(store.used_bytes), False),
            ("spool", f"{found.experiment_spool_segments_count} files", False),
        ),
        (
            ("answers today", f"{found.answers_today:,}", False),
            ("right", _share(found, "accuracy_today"), False),
            ("slates today", f"{found.recommendations_generated_today:,}", False),
            ("click-through", _share(found, "click_through_rate"), False),
            ("mastered today", f"{found.concepts_mastered_today:,}", False),
            ("streaks kept", _share(found, "streak_maintenance_rate"), False),
        ),
        (
            ("learners today", f"{found.dau:,}", False),
            ("in 7 days", f"{found.wau:,}", False),
            ("in 30 days", f"{found.mau:,}", False),
            ("ever", f"{found.total_active_learners:,}", False),
            ("new today", f"{found.learners_created_today:,}", False),
            ("minutes/week", f"{found.avg_practice_minutes_per_user:.1f}", False),
        ),
    )
    for row in rows:
        grid.add_row(*(Text(name, style="dim") for name, _, _ in row))
        grid.add_row(*(Text(value, style="bold red" if bad else "bold") for _, value, bad in row))
    return grid


def _methods(found: system_metrics_pb2.SystemMetrics) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("method", overflow="fold")
    for title in ("calls/s", "mean", "p50", "p99", "failed"):
        table.add_column(title, justify="right")
    for method in found.methods[:METHODS_SHOWN]:
        table.add_row(
            method.method.rpartition("/")[2],
            f"{method.calls_per_second:,.1f}",
            _ms(method.avg_latency_ms),
            _ms(method.p50_latency_ms),
            _ms(method.p99_latency_ms),
            Text(str(method.failed_calls_count), style="red" if method.failed_calls_count else ""),
        )
    return table


def _workers(found: system_metrics_pb2.SystemMetrics) -> Table:
    table = Table(box=None, pad_edge=False)
    for title in ("process", "state", "up", "in flight", "queued", "streams", "memory"):
        table.add_column(title, justify="left" if title in ("process", "state") else "right")
    for worker in found.workers:
        state = Text("serving") if worker.serving else Text("NOT SERVING", style="bold red")
        table.add_row(
            worker.worker,
            state,
            _span(found.read_time.seconds - worker.start_time.seconds),
            str(worker.calls_in_flight_count),
            str(worker.queued_calls_count),
            str(worker.streams_count),
            _bytes(worker.resident_bytes),
        )
    return table


def sparkline(values: "deque[float] | list[float]") -> str:
    """Values as bars, the tallest for the greatest of them."""
    top = max(values) or 1.0
    return "".join(_BARS[min(int(value / top * len(_BARS)), len(_BARS) - 1)] for value in values)


def _share(found: system_metrics_pb2.SystemMetrics, field: str) -> str:
    return f"{getattr(found, field):.1%}" if found.HasField(field) else "–"  # type: ignore[arg-type]


def _ms(milliseconds: float) -> str:
    return f"{milliseconds:.2f} ms" if milliseconds < SLOW_MS else f"{milliseconds:,.0f} ms"


def _bytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB" if size < 2**33 else f"{size / 2**30:,.1f} GiB"


def _span(seconds: float) -> str:
    for length, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"

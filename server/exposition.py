"""Metrics as Prometheus reads them: gathered when asked, served over HTTP. Counts nothing."""

import io
import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from socket import AF_INET, AF_INET6
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from engine.types import F8
from server.admission import Throttle
from server.experiments.spool import SUFFIX
from server.logs import log
from server.metric_board import Key, Reading
from server.metric_table import EDGES, METRICS, STEPS, Kind
from server.metrics import calls_of
from server.tally_figures import LearningFigures, learning_figures
from store.api import Store, StoreError
from store.stores import Stores
from store.tallies import Tally, feedback_cell, utc_day

MOST_TENANTS = 100
"""With more, their numbers are told together: a series each would be too many for Prometheus."""
ALL_TENANTS = "all"
FEEDBACK_KINDS = ("shown", "clicked", "started", "completed", "dismissed")
"""Kinds of feedback from 1, as the wire API numbers them."""

LEARNING: Mapping[str, tuple[Tally, str]] = {
    "genie_answers_total": (Tally.ANSWERS, "Answers recorded."),
    "genie_answers_correct_total": (Tally.CORRECT, "Answers that were right."),
    "genie_answers_late_total": (Tally.LATE, "Answers older than one recorded before."),
    "genie_practice_seconds_total": (Tally.PRACTICE_MS, "Time that answers took, as far as callers said."),
    "genie_concepts_mastered_total": (Tally.MASTERED, "Times that a learner came to master a concept."),
    "genie_concepts_lost_total": (Tally.LOST, "Times that mastery was lost again."),
    "genie_learners_created_total": (
        Tally.CREATED,
        "Learners created, or come with a first answer or session.",
    ),
    "genie_learners_deleted_total": (Tally.DELETED, "Learners erased."),
    "genie_sessions_started_total": (Tally.SESSIONS_STARTED, "Sessions opened."),
    "genie_sessions_ended_total": (Tally.SESSIONS_ENDED, "Sessions closed."),
    "genie_recommendations_total": (Tally.RECOMMENDATIONS, "Slates recommended."),
    "genie_recommended_questions_total": (Tally.RECOMMENDED, "Questions on slates."),
    "genie_streaks_kept_total": (Tally.STREAKS_KEPT, "Days on which a learner's streak was carried on."),
}
"""Counters of learning by tenant: what each counts."""
LEARNING_GAUGES: Mapping[str, str] = {
    "genie_active_learners": "Learners with an answer in so many last UTC days, today included.",
    "genie_learners": "Learners with an answer, ever, who were not erased.",
    "genie_streak_maintenance_ratio": "Streak days kept, by those and streaks lost, in the last 7 complete days.",
}
OTHERS: Mapping[str, str] = {
    "genie_feedback_total": "Feedback events by kind.",
    "genie_workers": "Processes that live, the experiment service alongside included.",
    "genie_experiment_spool_segments": "Files of reports that wait for the experiment service.",
    "genie_experiment_spool_bytes": "Size of the reports that wait for the experiment service.",
    "genie_build_info": "1 for the version that runs.",
}
_TELL_SECONDS = 60.0
_LOG = logging.getLogger("genie.metrics")


class Exposition(Collector):
    """All metrics of a server, read anew at every scrape."""

    def __init__(self, read: Callable[[], Reading], stores: Stores, spool: Path) -> None:
        """`read` adds up what the processes have counted; `spool` holds what waits for the experiment service."""
        self._read = read
        self._stores = stores
        self._spool = spool
        self._unread = Throttle(interval_seconds=_TELL_SECONDS)

    def collect(self) -> Iterable[Metric]:
        """Every family, also those of which there is no series yet; those of learning when the store can be read."""
        reading = self._read()
        yield from _of_processes(reading)
        yield from _of_learning(self._figures())
        yield from self._others(reading)

    def _figures(self) -> Mapping[str, LearningFigures]:
        """Those of each tenant, or of all together; none while the store cannot be read."""
        try:
            return _figures(self._stores.state, self._stores.serving)
        except StoreError as error:
            if self._unread.passes():
                log(_LOG, logging.ERROR, "metrics of learning cannot be read", why=str(error))
            return {}

    def _others(self, reading: Reading) -> Iterator[Metric]:
        yield _gauge("genie_workers", OTHERS["genie_workers"], [((), float(len(reading.live)))])
        sizes = []
        for path in self._spool.glob(f"*{SUFFIX}"):
            with suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
        for what, value in (("segments", len(sizes)), ("bytes", sum(sizes))):
            name = f"genie_experiment_spool_{what}"
            yield _gauge(name, OTHERS[name], [((), float(value))])
        version = metadata.version("genie-server")
        yield _gauge("genie_build_info", OTHERS["genie_build_info"], [((version,), 1.0)], ["version"])


class Endpoint:
    """Answers HTTP GET with the metrics until closed. `start` it once."""

    def __init__(self, exposition: Exposition, host: str, port: int) -> None:
        """Listen; port 0 takes any free one. Raises OSError."""
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Described(exposition))
        kind = _Server6 if ":" in host else _Server
        self._server = kind((host, port), _Quiet)
        self._server.set_app(make_wsgi_app(registry))
        self._thread = threading.Thread(target=self._server.serve_forever, name="metrics-http", daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._server.shutdown()
        self._server.server_close()


class _Described(Collector):
    """Keeps the registry from gathering everything at its registration, only to learn the names."""

    def __init__(self, collector: Exposition) -> None:
        self._collector = collector

    def collect(self) -> Iterable[Metric]:
        return self._collector.collect()

    def describe(self) -> Iterable[Metric]:
        return []


class _Server(ThreadingMixIn, WSGIServer):
    """A thread a scrape, on a port that the supervisor holds for whoever serves it."""

    daemon_threads = True
    allow_reuse_port = True
    address_family = AF_INET

    def server_bind(self) -> None:
        # HTTPServer would look its own name up, which takes long where there is no name server.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = "genie", int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with a connection; that its caller has gone tells nobody anything."""
        if not isinstance(sys.exception(), ConnectionError):
            _LOG.exception("a scrape failed")


class _Server6(_Server):
    address_family = AF_INET6


class _Stack(io.StringIO):
    """Takes the stack that wsgiref would print, and logs it."""

    def flush(self) -> None:
        if stack := self.getvalue():
            log(_LOG, logging.ERROR, "a scrape failed", exception=stack.rstrip())
        self.seek(0)
        self.truncate()


class _Quiet(WSGIRequestHandler):
    def get_stderr(self) -> io.StringIO:
        """Where wsgiref tells of what an answer failed by."""
        return _Stack()

    def log_message(self, format: str, *args: Any) -> None:
        """A line for every scrape would tell nobody anything."""


def _of_processes(reading: Reading) -> Iterator[Metric]:
    for name, metric in METRICS.items():
        labels = list(metric.labels)
        if metric.kind is Kind.GAUGE:
            series = [
                ((*key[1:], worker), value)
                for worker, held in sorted(reading.live.items())
                for key, value in held.items()
                if key[0] == name and not math.isnan(value)
            ]
            yield _gauge(name, metric.about, series, [*labels, "worker"])
        elif metric.kind is Kind.COUNTER:
            family = CounterMetricFamily(name, metric.about, labels=labels)
            if name == "genie_calls_total":
                for key, calls in sorted(calls_of(reading.totals).items()):
                    family.add_metric(list(key), calls)
            else:
                for values, numbers in _series(reading, name):
                    family.add_metric(values, float(numbers[0]))
            yield family
        else:
            yield _histogram(reading, name)


def _histogram(reading: Reading, name: str) -> Metric:
    """The family, of times with a bucket an octave: four would be more than a dashboard can use."""
    metric = METRICS[name]
    family = HistogramMetricFamily(name, metric.about, labels=list(metric.labels))
    edges = EDGES[metric.kind]
    step = STEPS if metric.kind is Kind.SECONDS else 1
    for values, numbers in _series(reading, name):
        passed = numbers[1:].cumsum()
        buckets = [(repr(edges[place]), float(passed[place])) for place in range(0, len(edges), step)]
        family.add_metric(values, [*buckets, ("+Inf", float(passed[-1]))], sum_value=float(numbers[0]))
    return family


def _series(reading: Reading, name: str) -> list[tuple[list[str], F8]]:
    """Values of the labels, and numbers, of every series of a metric."""
    found: list[tuple[Key, F8]] = [
        (key, numbers) for key, numbers in reading.totals.items() if key[0] == name
    ]
    return [(list(key[1:]), numbers) for key, numbers in sorted(found, key=lambda item: item[0])]


def _of_learning(figures: Mapping[str, LearningFigures]) -> Iterator[Metric]:
    for name, (tally, about) in LEARNING.items():
        scale = 1e-3 if tally is Tally.PRACTICE_MS else 1.0
        counter = CounterMetricFamily(name, about, labels=["tenant"])
        for tenant, found in figures.items():
            counter.add_metric([tenant], found.sums[tally] * scale)
        yield counter
    feedback = CounterMetricFamily(
        "genie_feedback_total", OTHERS["genie_feedback_total"], labels=["tenant", "kind"]
    )
    for tenant, found in figures.items():
        for number, kind in enumerate(FEEDBACK_KINDS, 1):
            feedback.add_metric([tenant, kind], found.sums[feedback_cell(number)])
    yield feedback
    active = [
        ((tenant, days), float(count))
        for tenant, found in figures.items()
        for days, count in (("1", found.active_day), ("7", found.active_week), ("30", found.active_month))
    ]
    learners = [((tenant,), float(found.learners)) for tenant, found in figures.items()]
    streaks = [
        ((tenant,), found.streak_maintenance)
        for tenant, found in figures.items()
        if found.streak_maintenance is not None
    ]
    told = LEARNING_GAUGES
    yield _gauge("genie_active_learners", told["genie_active_learners"], active, ["tenant", "days"])
    yield _gauge("genie_learners", told["genie_learners"], learners, ["tenant"])
    yield _gauge(
        "genie_streak_maintenance_ratio", told["genie_streak_maintenance_ratio"], streaks, ["tenant"]
    )


def _figures(state: Store, serving: Store) -> dict[str, LearningFigures]:
    """The figures of each tenant, or of all together when there are many."""
    today = utc_day(time.time())
    tenants = sorted({*state.tenants(), *serving.tenants()})
    figures = {tenant: learning_figures(state, serving, tenant, today) for tenant in tenants}
    if len(figures) <= MOST_TENANTS:
        return figures
    return {ALL_TENANTS: LearningFigures.together(list(figures.values()))}


def _gauge(
    name: str, about: str, series: Iterable[tuple[tuple[str, ...], float]], labels: list[str] | None = None
) -> Metric:
    family = GaugeMetricFamily(name, about, labels=labels or [])
    for values, value in series:
        family.add_metric(list(values), value)
    return family

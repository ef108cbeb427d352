"""Counters, gauges and histograms of a process, and what all processes have counted together. Publishes nothing.

Counting costs about a microsecond and never fails a call. Numbers live in a board (server.metric_board), so that they
outlive the process; without a directory they live in memory, and so they do while it cannot be used, as on a full disk.
"""

import logging
import os
import threading
from bisect import bisect_left
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import time

from engine.types import F8
from server.logs import log
from server.metric_board import SLICE_SECONDS, SLICES, Board, Boards, Key, Place, Reading
from server.metric_table import EDGES, METRICS, Kind, Metric

DIRECTORY = "metrics"
"""Below the data directory."""
SAMPLE_SECONDS = 1.0
AGAIN_SECONDS = 30.0
"""How often a directory that could not be used is tried again."""
DEFAULT_WINDOW_SECONDS = 300.0

_LOG = logging.getLogger("genie.metrics")


class _Cells:
    """Where one series is counted up now: in its current slice, or in the numbers themselves without slices."""

    __slots__ = ("_at", "_cells", "_lock", "_place", "_until")

    def __init__(self, place: Place, lock: threading.Lock) -> None:
        self._place = place
        self._cells = place.cells
        self._lock = lock
        self._at = place.start
        self._until = 0.0 if place.slices else float("inf")

    def _turn(self, now: float) -> None:
        """Go on to the slice of `now`. What it held is of an earlier period and joins the numbers. Needs the lock."""
        period, place, cells = int(now) // SLICE_SECONDS, self._place, self._cells
        at = place.slices + period % SLICES * (1 + place.width)
        if cells[at] != period:
            for cell in range(place.width):
                held, cells[at + 1 + cell] = cells[at + 1 + cell], 0.0
                cells[place.start + cell] += held
            cells[at] = period
        self._at = at + 1
        self._until = (period + 1.0) * SLICE_SECONDS


class Counter(_Cells):
    """A number that rises."""

    __slots__ = ()

    def add(self, amount: float = 1.0) -> None:
        """Count `amount` more."""
        now = time()
        with self._lock:
            if now >= self._until:
                self._turn(now)
            self._cells[self._at] += amount


class Gauge:
    """A number as it stands."""

    __slots__ = ("_at", "_cells")

    def __init__(self, place: Place) -> None:
        self._cells = place.cells
        self._at = place.start

    def set(self, value: float) -> None:
        """Note the value; NaN takes the series out of what is published."""
        self._cells[self._at] = value


class Histogram(_Cells):
    """How often which values came."""

    __slots__ = ("_edges",)

    def __init__(self, place: Place, lock: threading.Lock, edges: list[float]) -> None:
        super().__init__(place, lock)
        self._edges = edges

    def observe(self, value: float) -> None:
        """Count one value: seconds, or a whole number."""
        bucket = bisect_left(self._edges, value) + 1
        now = time()
        cells = self._cells
        with self._lock:
            if now >= self._until:
                self._turn(now)
            at = self._at
            cells[at] += value
            cells[at + bucket] += 1.0


class Meter:
    """All metrics of a process; the table says which there are. Thread-safe.

    Raises KeyError for a metric that the table does not know, ValueError when the labels do not fit.
    """

    def __init__(self, directory: Path | None = None, worker: str = "1") -> None:
        """`directory` is where the boards of all processes lie. One that cannot be used costs the metrics only."""
        self.worker = worker
        self._boards: Boards | None = None
        self._unused: Path | None = None
        """The directory, while it cannot be used."""
        try:
            self._board = Board(directory, worker)
            self._boards = None if directory is None else Boards(directory)
        except OSError as error:
            why = str(error)
            log(_LOG, logging.ERROR, "metrics are kept in memory until they can be kept on file", why=why)
            self._board = Board(None, worker)
            self._unused = directory
        self._again_at = time() + AGAIN_SECONDS
        self._lock = threading.Lock()
        self._making = threading.Lock()
        self._places: dict[Key, Place] = {}
        self._samples: list[Callable[[], None]] = []
        self._sampling: threading.Thread | None = None
        self._stop = threading.Event()
        self.gauge("genie_start_time_seconds").set(time())
        self.sample(self._sample_process)

    def counter(self, name: str, *labels: str) -> Counter:
        """The counter with these values of its labels, in the table's order. Keep it: finding it takes time."""
        return Counter(self._place(_metric(name, Kind.COUNTER), labels), self._lock)

    def gauge(self, name: str, *labels: str) -> Gauge:
        """The gauge with these values of its labels."""
        return Gauge(self._place(_metric(name, Kind.GAUGE), labels))

    def histogram(self, name: str, *labels: str) -> Histogram:
        """The histogram with these values of its labels."""
        metric = _metric(name, Kind.SECONDS, Kind.SIZES)
        return Histogram(self._place(metric, labels), self._lock, EDGES[metric.kind])

    def sample(self, look: Callable[[], None]) -> None:
        """Call `look` every second, and before the numbers are read here, to set gauges."""
        self._samples.append(look)

    def sample_counter(self, count: Callable[[], float], name: str, *labels: str) -> None:
        """A counter that somebody else keeps, in this process: `count` returns what it has risen to.

        For code that must not know of metrics. When it begins anew, as with a cache that was replaced, only what it
        rises to from there counts. A kill loses what was counted in the last second.
        """
        counter = self.counter(name, *labels)
        seen = 0.0
        one_at_a_time = threading.Lock()

        def look() -> None:
            nonlocal seen
            with one_at_a_time:
                now = count()
                if now > seen:
                    counter.add(now - seen)
                seen = now

        self.sample(look)

    def start(self) -> None:
        """Begin to sample, and fold what earlier processes have left behind."""
        self._read_all(now=0.0, seconds=0.0)
        self._sampling = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._sampling.start()

    def look(self) -> None:
        """Sample now. What one sampler raises is logged and keeps no other from its turn."""
        for look in list(self._samples):
            try:
                look()
            except Exception:
                _LOG.exception("a metric could not be sampled")
        with self._making, self._lock:
            self._board.refresh()

    def read(self, seconds: float = DEFAULT_WINDOW_SECONDS) -> Reading:
        """What all processes of the directory have counted; `recent` of the last `seconds`, to a slice."""
        self.look()
        return self._read_all(time(), seconds)

    def read_own(self, seconds: float = DEFAULT_WINDOW_SECONDS) -> Reading:
        """The same for this process alone."""
        self.look()
        return self._read_own(time(), seconds)

    def _read_all(self, now: float, seconds: float) -> Reading:
        """Everything, or what is counted here when the directory cannot be used."""
        if self._boards is not None:
            try:
                return self._boards.read(now=now, seconds=seconds)
            except OSError:
                _LOG.exception("metrics of other processes cannot be read")
        return self._read_own(now, seconds)

    def _read_own(self, now: float, seconds: float) -> Reading:
        reading = Reading()
        board = self._board.read()
        reading.take(board, now=now, seconds=seconds)
        reading.live[self.worker] = {series.key: float(series.values[0]) for series in board}
        return reading

    def close(self) -> None:
        """Sample a last time and leave the board to be folded."""
        self._stop.set()
        if self._sampling is not None:
            self._sampling.join()
        self.look()
        self._board.close()

    def _place(self, metric: Metric, labels: tuple[str, ...]) -> Place:
        if len(labels) != len(metric.labels):
            raise ValueError(f"{metric.name} has the labels {metric.labels}; {labels} do not fit")
        key = (metric.name, *labels)
        with self._making:
            place = self._places.get(key)
            if place is None:
                place = self._places[key] = self._board.place(
                    key, metric.kind.cells, sliced=metric.recent, summed=metric.kind is not Kind.GAUGE
                )
            return place

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self._show()
            self.look()

    def _show(self) -> None:
        """Have a board that had to be in memory shown on file, once the directory can be used."""
        if self._unused is None or time() < self._again_at:
            return
        self._again_at = time() + AGAIN_SECONDS
        with suppress(OSError):
            self._board.show(self._unused)
            self._boards = Boards(self._unused)
            self._unused = None
            log(_LOG, logging.INFO, "metrics are kept on file again")

    def _sample_process(self) -> None:
        times = os.times()
        self._set("genie_cpu_seconds_total", times.user + times.system)
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[1])
        self._set("genie_resident_bytes", float(pages * os.sysconf("SC_PAGE_SIZE")))

    def _set(self, name: str, value: float) -> None:
        place = self._place(METRICS[name], ())
        place.cells[place.start] = value


SHED_REASONS = ("SERVER_OVERLOADED", "TOO_MANY_STREAMS")
"""Reasons that are told from the beginning, so that the first refusal is a rise that alerts can see."""


class CallCounters:
    """Counts finished calls by method and status code."""

    def __init__(self, meter: Meter | None = None) -> None:
        self.meter = Meter() if meter is None else meter
        self._untimed: dict[tuple[str, str], Counter] = {}
        self._times: dict[tuple[str, str], Histogram] = {}
        self._shed = {reason: self.meter.counter("genie_calls_shed_total", reason) for reason in SHED_REASONS}

    def count(self, method: str, code: str, seconds: float | None = None) -> None:
        """Add one call of `method`, as gRPC names it; `seconds` is None where time says nothing, as for streams."""
        key = (method, code)
        if seconds is None:
            untimed = self._untimed.get(key)
            if untimed is None:
                untimed = self._untimed[key] = self.meter.counter("genie_calls_total", method[1:], code)
            untimed.add()
            return
        times = self._times.get(key)
        if times is None:
            times = self._times[key] = self.meter.histogram("genie_call_duration_seconds", method[1:], code)
        times.observe(seconds)

    def shed(self, method: str, code: str, reason: str) -> None:
        """Add one call that was refused to protect the server."""
        self.count(method, code)
        counter = self._shed.get(reason)
        if counter is None:
            counter = self._shed[reason] = self.meter.counter("genie_calls_shed_total", reason)
        counter.add()


def calls_of(sums: Mapping[Key, F8]) -> dict[tuple[str, str], float]:
    """Calls by (method, code) in a reading's sums, timed and untimed ones together."""
    calls: dict[tuple[str, str], float] = {}
    for (name, *labels), values in sums.items():
        if name == "genie_calls_total":
            count = float(values[0])
        elif name == "genie_call_duration_seconds":
            count = float(values[1:].sum())
        else:
            continue
        method, code = labels
        calls[method, code] = calls.get((method, code), 0.0) + count
    return calls


def _metric(name: str, *kinds: Kind) -> Metric:
    metric = METRICS[name]
    if metric.kind not in kinds:
        raise ValueError(f"{name} is a {metric.kind.value}")
    return metric

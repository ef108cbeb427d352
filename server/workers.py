"""Keeps N worker processes alive on one port: start, replace, restart in turn, drain. Never touches gRPC itself.

The supervisor reserves the port with a bound socket that never listens; each worker listens on the same port with
SO_REUSEPORT. Between the supervisor and each worker runs one socket pair: the worker writes a byte when it serves, and
one a second to show that it still runs (`server.lifeline`); either side's end tells the other that its peer is gone.
"""

import collections
import heapq
import logging
import os
import selectors
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from server.logs import log
from server.worker_process import how, reaped, received, started

BEAT = b"S"
"""What a worker writes to its control socket once it answers calls, and every BEAT_SECONDS from then on."""
BEAT_SECONDS = 1.0
EXIT_CONFIGURATION = 78
"""Exit code of a worker whose settings cannot be used (EX_CONFIG of sysexits.h): starting it again is no help."""
MOST_FAILED_STARTS = 5
"""Starts in a row that may fail before the supervisor gives up, when no other worker serves."""

_LOG = logging.getLogger("genie.supervisor")
_FIRST_BACKOFF_SECONDS = 0.1
_MOST_BACKOFF_SECONDS = 5.0
_STEADY_SECONDS = 5.0
"""A worker that served for less than this counts as failed when it dies."""
_KILL_MARGIN_SECONDS = 10.0
_LAST_WORDS_SECONDS = 2.0
"""Time that a hanging worker has to write what its threads do."""
_LATE_SECONDS = 2.0
"""A supervisor that looks so much later than it meant to was stopped itself, or found no processor."""


@dataclass(eq=False, slots=True)
class _Worker:
    """One process."""

    slot: int
    process: "subprocess.Popen[bytes]"
    control: socket.socket
    started_at: float
    kill_at: float
    """When it is killed: for not serving yet, for not having drained, or for hanging."""
    heard_at: float
    """When it last showed that it runs."""
    replaces: "_Worker | None" = None
    serving_since: float | None = None
    draining: bool = False
    hangs: bool = False


@dataclass(eq=False, slots=True)
class _Slot:
    """A place for one worker; counts the failures in a row."""

    companion: bool = False
    """Its worker serves something else beside the workers: nothing waits for it, and it keeps nothing alive."""
    failures: int = 0
    workers: list[_Worker] = field(default_factory=list)


class Supervisor:
    """Runs workers until told to stop by SIGTERM or SIGINT; SIGHUP replaces them one by one."""

    def __init__(
        self,
        *,
        workers: int,
        command: Callable[[int, int], Sequence[str]],
        start_seconds: float,
        drain_seconds: float,
        hang_seconds: float = 0.0,
        on_serving: Callable[[], None] = lambda: None,
        companions: int = 0,
    ) -> None:
        """`command(slot, control descriptor)` is a worker's command line; `drain_seconds` the longest drain.

        A worker that serves and has not been heard of for `hang_seconds` is killed, unless that is 0.
        `on_serving` is called once, when all workers serve for the first time. The slots past `workers` are for
        `companions`, which are kept alive too, but which the workers can do without.
        """
        self._command = command
        self._start_seconds = start_seconds
        self._drain_seconds = drain_seconds
        self._hang_seconds = hang_seconds or float("inf")
        self._on_serving = on_serving
        self._slots = [_Slot(companion=slot >= workers) for slot in range(workers + companions)]
        self._selector = selectors.DefaultSelector()
        self._due: list[tuple[float, int]] = []
        """Heap of (when, slot): workers to start."""
        self._signals: collections.deque[int] = collections.deque()
        self._to_replace: collections.deque[_Worker] = collections.deque()
        self._replacing = False
        self._replace_again = False
        self._announced = False
        self._stopping = False
        self._exit_code = 0
        self._had_terminal = _has_terminal()

    def run(self) -> int:
        """Supervise until the last worker has gone; the exit code. Takes over the process's signal handlers."""
        wake_reader, wake_writer = socket.socketpair()
        for end in (wake_reader, wake_writer):
            end.setblocking(False)
        self._selector.register(wake_reader, selectors.EVENT_READ, None)
        handled = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in handled}
        # It is meant for workers (`server.lifeline`), who inherit that it is ignored until they are ready for it.
        before[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        wakeup_before = signal.set_wakeup_fd(wake_writer.fileno(), warn_on_full_buffer=False)
        try:
            for slot in range(len(self._slots)):
                self._start(slot)
            while not self._stopping or self._workers():
                self._step(wake_reader)
        finally:
            signal.set_wakeup_fd(wakeup_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            for worker in self._workers():
                worker.process.kill()
            self._selector.close()
            wake_reader.close()
            wake_writer.close()
        log(_LOG, logging.INFO, "all workers have stopped", exit_code=self._exit_code)
        return self._exit_code

    def _step(self, wake_reader: socket.socket) -> None:
        looked = time.monotonic()
        events = self._selector.select(self._next_timer())
        # Signals first: one that went to the whole process group makes workers leave, and that is no death.
        while self._signals:
            self._obey(self._signals.popleft())
        for key, _ in events:
            worker: _Worker | None = key.data
            if worker is None:
                wake_reader.recv(4096)
            elif received(worker.control):
                self._heard(worker)
            else:
                self._gone(worker)
        now = time.monotonic()
        while self._due and self._due[0][0] <= now:
            self._start(heapq.heappop(self._due)[1])
        if now - looked > BEAT_SECONDS + _LATE_SECONDS:
            # Nothing was looked at for longer than was meant to be: the workers may have been stopped, too.
            for worker in self._workers():
                worker.heard_at = now
        for worker in self._workers():
            self._keep_in_time(worker, now)

    def _keep_in_time(self, worker: _Worker, now: float) -> None:
        if worker.kill_at <= now:
            what = "draining took too long" if worker.draining else "starting took too long"
            what = "it hangs" if worker.hangs else what
            log(_LOG, logging.ERROR, f"{what}: killing a worker", pid=worker.process.pid)
            worker.process.kill()
            worker.kill_at = now + _KILL_MARGIN_SECONDS
        elif _runs(worker) and now - worker.heard_at >= self._hang_seconds:
            log(
                _LOG,
                logging.ERROR,
                "a worker hangs",
                worker=worker.slot + 1,
                pid=worker.process.pid,
                silent_seconds=round(now - worker.heard_at, 1),
            )
            worker.hangs = True
            worker.process.send_signal(signal.SIGUSR1)
            worker.kill_at = now + _LAST_WORDS_SECONDS

    def _next_timer(self) -> float | None:
        timers = [worker.kill_at for worker in self._workers()] + [when for when, _ in self._due[:1]]
        if self._hang_seconds < float("inf"):
            timers.append(time.monotonic() + BEAT_SECONDS)
        soonest = min(timers, default=float("inf"))
        return None if soonest == float("inf") else max(soonest - time.monotonic(), 0.0)

    def _workers(self) -> list[_Worker]:
        return [worker for slot in self._slots for worker in slot.workers]

    def _any_serving(self) -> bool:
        serving = (worker for slot in self._slots if not slot.companion for worker in slot.workers)
        return any(worker.serving_since is not None and not worker.draining for worker in serving)

    def _start(self, slot: int, replaces: _Worker | None = None) -> None:
        if self._stopping:
            return
        try:
            process, ours = started(partial(self._command, slot))
        except OSError as error:
            # Too many files or processes, no memory, no interpreter: those that serve must not suffer.
            log(_LOG, logging.ERROR, "a worker cannot be started", worker=slot + 1, why=str(error))
            if replaces is None:
                self._start_again(slot, str(error))
            else:
                self._give_up_replacing()
            return
        now = time.monotonic()
        worker = _Worker(slot, process, ours, now, now + self._start_seconds, now, replaces)
        self._slots[slot].workers.append(worker)
        self._selector.register(ours, selectors.EVENT_READ, worker)
        log(_LOG, logging.DEBUG, "worker started", worker=slot + 1, pid=process.pid)

    def _heard(self, worker: _Worker) -> None:
        worker.heard_at = time.monotonic()
        if worker.draining:
            return
        if worker.hangs:
            worker.hangs = False
            worker.kill_at = float("inf")
            log(_LOG, logging.WARNING, "a worker runs again", worker=worker.slot + 1, pid=worker.process.pid)
        if worker.serving_since is None:
            self._serves(worker)

    def _serves(self, worker: _Worker) -> None:
        worker.serving_since = time.monotonic()
        worker.kill_at = float("inf")
        log(_LOG, logging.INFO, "worker serves", worker=worker.slot + 1, pid=worker.process.pid)
        old = worker.replaces
        if old is not None:
            worker.replaces = None
            if old in self._slots[worker.slot].workers:
                self._drain(old, signal.SIGHUP)
            else:
                self._replace_next()
        needed = (slot for slot in self._slots if not slot.companion)
        if not self._announced and all(any(w.serving_since for w in slot.workers) for slot in needed):
            self._announced = True
            self._on_serving()

    def _gone(self, worker: _Worker) -> None:
        self._selector.unregister(worker.control)
        worker.control.close()
        code = reaped(worker.process)
        slot = self._slots[worker.slot]
        slot.workers.remove(worker)
        if self._stopping:
            return
        if worker.draining:
            self._replace_next()
            return
        log(
            _LOG,
            logging.ERROR,
            "a worker died",
            worker=worker.slot + 1,
            pid=worker.process.pid,
            how=how(code),
            served=worker.serving_since is not None,
        )
        if worker.replaces is not None:
            self._give_up_replacing()
        if slot.workers:
            # An older worker still serves, or a newer one is on its way.
            return
        since = worker.serving_since
        served_seconds = None if since is None else time.monotonic() - since
        self._start_again(worker.slot, how(code), served_seconds, refused=code == EXIT_CONFIGURATION)

    def _start_again(
        self, number: int, last: str, served_seconds: float | None = None, *, refused: bool = False
    ) -> None:
        """Have a slot's worker started, after a pause when it keeps failing; `refused` its settings."""
        slot = self._slots[number]
        if served_seconds is not None and served_seconds >= _STEADY_SECONDS:
            slot.failures = 0
        hopeless = served_seconds is None and (refused or slot.failures + 1 >= MOST_FAILED_STARTS)
        if hopeless and not slot.companion and not self._any_serving():
            log(
                _LOG,
                logging.CRITICAL,
                "workers cannot start; giving up: see the lines above for the cause",
                failed_starts=slot.failures + 1,
                last=last,
            )
            self._exit_code = EXIT_CONFIGURATION if refused else 1
            self._stop()
            return
        wait = min(_FIRST_BACKOFF_SECONDS * 2.0 ** (slot.failures - 1), _MOST_BACKOFF_SECONDS)
        heapq.heappush(self._due, (time.monotonic() + (wait if slot.failures else 0.0), number))
        slot.failures += 1

    def _on_signal(self, number: int, _: object) -> None:
        self._signals.append(number)

    def _obey(self, number: int) -> None:
        if number == signal.SIGHUP and not (self._had_terminal and not _has_terminal()):
            self._replace_all()
        elif not self._stopping:
            log(_LOG, logging.INFO, "stopping", signal=signal.Signals(number).name)
            self._stop()
        else:
            log(_LOG, logging.WARNING, "told to stop again: killing the workers")
            self._exit_code = 1
            for worker in self._workers():
                worker.process.kill()

    def _stop(self) -> None:
        self._stopping = True
        self._due.clear()
        self._to_replace.clear()
        for worker in self._workers():
            self._drain(worker, signal.SIGTERM)

    def _drain(self, worker: _Worker, number: signal.Signals) -> None:
        worker.draining = True
        if worker.hangs:
            # It cannot finish anything, and may hold up others that can.
            worker.process.kill()
            return
        worker.kill_at = time.monotonic() + self._drain_seconds + _KILL_MARGIN_SECONDS
        worker.process.send_signal(number)

    def _replace_all(self) -> None:
        if self._stopping:
            return
        if self._replacing:
            self._replace_again = True
            return
        self._replacing = True
        self._to_replace.extend(worker for worker in self._workers() if worker.serving_since is not None)
        log(_LOG, logging.INFO, "replacing workers one by one", workers=len(self._to_replace))
        self._replace_next()

    def _replace_next(self) -> None:
        while self._to_replace:
            old = self._to_replace.popleft()
            if old in self._slots[old.slot].workers and not old.draining:
                self._start(old.slot, replaces=old)
                return
        if self._replacing:
            self._replacing = False
            log(_LOG, logging.INFO, "all workers are replaced")
            if self._replace_again:
                self._replace_again = False
                self._replace_all()

    def _give_up_replacing(self) -> None:
        self._to_replace.clear()
        self._replacing = self._replace_again = False
        log(_LOG, logging.ERROR, "a replacement did not come up: the old workers stay")


def _runs(worker: _Worker) -> bool:
    """Whether it is expected to be heard of."""
    return worker.serving_since is not None and not worker.draining and not worker.hangs


def _has_terminal() -> bool:
    """Whether standard input is a terminal that still exists; SIGHUP from a closed one means "stop"."""
    try:
        return os.isatty(0)
    except OSError:
        return False

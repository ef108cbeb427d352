"""A real server of several worker processes for benches and end-to-end tests, on a free port and its own directory."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import grpc

from server.cli.client import is_serving

ANNOUNCEMENT = b'"event": "serving"'
"""What the supervisor logs when all workers serve for the first time."""
START_SECONDS = 300.0
"""Longest wait for SERVING; a first start compiles the kernels."""


SETTINGS = {"GENIE_EXPERIMENTS": "off"}
"""What every server here is started with: its processes are the supervisor and the workers, and no others."""


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LiveServer:
    """`genie serve` in a process group of its own. Start it, kill it, start it again: the data stays."""

    def __init__(
        self,
        directory: Path,
        *,
        workers: int = 2,
        settings: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        """`settings` go into the environment, `arguments` to `genie serve`."""
        self.directory = directory
        self.workers = workers
        self.port = free_port()
        self.settings = {**SETTINGS, **(settings or {})}
        self.arguments = arguments
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._logged_before = 0

    @property
    def target(self) -> str:
        """Where to call: "host:port"."""
        return f"127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        """What the processes wrote to standard error."""
        return self.directory / "server.log"

    @property
    def data_directory(self) -> Path:
        """Where the server keeps its stores and models."""
        return self.directory / "data"

    @property
    def running(self) -> bool:
        """Whether it was started, and neither stopped nor killed since."""
        return self._process is not None

    def start(self, *, wait: bool = True) -> None:
        """Start the supervisor and its workers; with `wait`, return when all workers serve."""
        self.directory.mkdir(parents=True, exist_ok=True)
        self._log = self.log_path.open("ab")
        self._logged_before = self._log.tell()
        environment = {**os.environ, **self.settings}
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "server", "serve", "--host", "127.0.0.1", "--port", str(self.port)),
                *("--workers", str(self.workers), "--data-directory", str(self.data_directory)),
                *self.arguments,
            ],
            env=environment,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        if wait:
            self.wait_serving()

    def wait_serving(self, seconds: float = START_SECONDS) -> None:
        """Return when all workers serve. RuntimeError with the log's end when the server ends or hangs."""
        limit = time.monotonic() + seconds
        while time.monotonic() < limit:
            if self._process is not None and self._process.poll() is not None:
                break
            if is_serving(self.target) and self._announced():
                return
            time.sleep(0.05)
        tail = self.log_path.read_text(errors="replace")[-2000:]
        raise RuntimeError(f"the server on port {self.port} is not SERVING:\n{tail}")

    def _announced(self) -> bool:
        """Whether the supervisor has said that all workers serve; health speaks for the first of them."""
        with self.log_path.open("rb") as log:
            log.seek(self._logged_before)
            return ANNOUNCEMENT in log.read()

    @property
    def supervisor_pid(self) -> int:
        """Process id of the supervisor."""
        assert self._process is not None, "not started"
        return self._process.pid

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that live now."""
        children = Path(f"/proc/{self.supervisor_pid}/task/{self.supervisor_pid}/children")
        with contextlib.suppress(OSError):
            return [int(pid) for pid in children.read_text().split()]
        return []

    def kill(self) -> None:
        """SIGKILL to every process of the server at once, as a power cut would have it."""
        assert self._process is not None, "not started"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._finish(10.0)

    def stop(self, seconds: float = 60.0) -> int:
        """SIGTERM, wait for the drain, return the exit status."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self._finish(seconds)

    def _finish(self, seconds: float) -> int:
        assert self._process is not None
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10.0)
            raise
        finally:
            if self._log is not None:
                self._log.close()
        self._process = None
        return status

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


@contextlib.contextmanager
def channels(target: str, count: int, *, retries: bool = True) -> Iterator[list[grpc.Channel]]:
    """`count` channels with a connection each, so that they reach different workers.

    With `retries` they have the documented retry policy.
    """
    from examples.retry import channel

    options = [] if retries else [("grpc.enable_retries", 0)]
    opened = [channel(target, own_connection=True, options=options) for _ in range(count)]
    try:
        yield opened
    finally:
        for one in opened:
            one.close()

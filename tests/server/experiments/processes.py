"""A `genie experiments` or `genie serve` of its own, for tests and benches that kill it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

START_SECONDS = 300.0
"""A server that starts compiles its kernels if nobody did before."""


@dataclass
class ServiceProcess:
    """The supervisor's process, its log, and where the service listens."""

    process: "subprocess.Popen[bytes]"
    log_path: Path
    target: str = ""

    def events(self) -> list[dict[str, object]]:
        """The log lines so far."""
        return [json.loads(line) for line in self.log_path.read_text().splitlines() if line.startswith("{")]

    def wait(self, event: str, count: int = 1) -> dict[str, object]:
        """The `count`th line with this event."""
        limit = time.monotonic() + START_SECONDS
        while time.monotonic() < limit:
            found = [line for line in self.events() if line["event"] == event]
            if len(found) >= count:
                return found[count - 1]
            assert self.process.poll() is None, self.log_path.read_text()
            time.sleep(0.05)
        raise AssertionError(f"no {event!r} in time:\n{self.log_path.read_text()}")

    def kill_worker(self) -> None:
        """SIGKILL to the process that serves; its supervisor starts another."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in children:
            os.kill(int(pid), signal.SIGKILL)


@contextlib.contextmanager
def service_process(
    directory: Path,
    address: str = "127.0.0.1:0",
    *options: str,
    command: str = "experiments",
    event: str = "serving experiments",
) -> Iterator[ServiceProcess]:
    """Run `genie COMMAND` over the data in `directory` until the block ends, then drain it.

    It serves where the log line `event` says.
    """
    directory.mkdir(parents=True, exist_ok=True)
    log_path = directory / "experiments.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "server", command, "--log-format=json"),
                *(f"--experiments-address={address}", f"--data-directory={directory}", *options),
            ],
            env={name: value for name, value in os.environ.items() if not name.startswith("GENIE_")},
            stderr=log,
            stdout=log,
        )
        running = ServiceProcess(process, log_path)
        try:
            running.target = str(running.wait(event)["address"])
            yield running
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                assert process.wait(60) == 0, log_path.read_text()
            except subprocess.TimeoutExpired:
                process.kill()
                raise

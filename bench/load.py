"""Unary load from h2load, a C program that nobody here wrote: closed loop for throughput, a fixed schedule for latency.

h2load counts HTTP statuses only; whether the replies are OK is for the server's own count to say (bench.stand), and no
time is reported of a run in which the two disagree.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.types import F8

INSTALL = "h2load is not installed; on Debian and Ubuntu: apt-get install nghttp2-client"
HEADERS = ("content-type: application/grpc", "te: trailers")
MOST_STREAMS = 100
"""Calls under way on one connection when the schedule, not the reply, says when to send."""
RUN_SECONDS = 300.0


class NotOk(RuntimeError):
    """A run with replies that are not OK: its times say nothing."""


class Times(NamedTuple):
    """One run's requests, in order of their end."""

    started: F8
    """(n,) seconds since the Unix epoch."""
    took: F8
    """(n,) seconds from sending to the end of the reply."""

    @property
    def rate(self) -> float:
        """Replies a second while every connection was busy: the first and last twentieth are not counted."""
        ended = np.sort(self.started + self.took)
        cut = len(ended) // 20
        return float((len(ended) - 2 * cut - 1) / (ended[len(ended) - cut - 1] - ended[cut]))

    def quantile_ms(self, share: float) -> float:
        """Latency in milliseconds below which `share` of the requests lie."""
        return float(np.quantile(self.took, share) * 1e3)


def joined(runs: Sequence[Times]) -> Times:
    """Several runs as one."""
    return Times(*(np.concatenate(column) for column in zip(*runs, strict=True)))


def h2load() -> str:
    """Path of the program. SystemExit, saying how to install it, when it is not there."""
    found = shutil.which("h2load")
    if found is None:
        raise SystemExit(INSTALL)
    return found


def frame(message: bytes) -> bytes:
    """A serialised message as the body of a gRPC request."""
    return b"\0" + len(message).to_bytes(4, "big") + message


def closed(url: str, message: bytes, *, connections: int, requests: int, core: int) -> Times:
    """Every connection sends its next request when the reply to the last has come. Raises NotOk."""
    with tempfile.TemporaryDirectory(prefix="genie-load-") as name:
        command = _command(Path(name), "0", message)
        command += ["-n", str(requests), "-c", str(connections), "-m", "1", url]
        return _finished(_started(command, core), Path(name) / "times-0.tsv", requests)


def closed_for(
    url: str, message: bytes, *, connections: int, seconds: float, core: int, streams: int = 1
) -> Times:
    """The same for some time, `streams` at once on each connection; those under way at its end are dropped."""
    with tempfile.TemporaryDirectory(prefix="genie-load-") as name:
        command = _command(Path(name), "0", message)
        command += ["-D", f"{round(seconds * 1e3)}ms", "-c", str(connections), "-m", str(streams), url]
        return _finished(_started(command, core), Path(name) / "times-0.tsv", None)


def scheduled(
    url: str, message: bytes, *, rate: float, seconds: float, core: int, seed: int, connections: int = 4
) -> Times:
    """Requests at random moments (a Poisson process of `rate` a second), whether or not replies have come.

    Each connection is a process of h2load's with a schedule of its own. Raises NotOk.
    """
    rng = np.random.default_rng(seed)
    with tempfile.TemporaryDirectory(prefix="genie-load-") as name:
        folder, running = Path(name), []
        for number in range(connections):
            count = max(2, int(rng.poisson(rate * seconds / connections)))
            moments = np.sort(rng.uniform(0.0, seconds, count)) * 1e3
            script = folder / f"script-{number}.tsv"
            script.write_text("".join(f"{at:.3f}\t{url}\n" for at in moments.tolist()))
            command = _command(folder, str(number), message)
            command += ["-c", "1", "-m", str(MOST_STREAMS), f"--timing-script-file={script}"]
            running.append((_started(command, core), folder / f"times-{number}.tsv", count))
        return joined([_finished(*one) for one in running])


def _command(folder: Path, number: str, message: bytes) -> list[str]:
    body = folder / f"body-{number}.bin"
    body.write_bytes(frame(message))
    command = [h2load(), "-t", "1", "-d", str(body), f"--log-file={folder / f'times-{number}.tsv'}"]
    for header in HEADERS:
        command += ["-H", header]
    return command


def _started(command: list[str], core: int) -> "subprocess.Popen[str]":
    pinned = ["taskset", "-c", str(core), *command] if shutil.which("taskset") else command
    return subprocess.Popen(
        pinned, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, "LC_ALL": "C"}
    )


def _finished(process: "subprocess.Popen[str]", log: Path, requests: int | None) -> Times:
    said, _ = process.communicate(timeout=RUN_SECONDS)
    if process.returncode:
        raise NotOk(f"h2load ended with {process.returncode}: {said[-400:]}")
    columns = np.loadtxt(log, dtype=np.float64, ndmin=2)
    good = int((columns[:, 1] == 200.0).sum()) if len(columns) else 0
    if good != (len(columns) if requests is None else requests) or not good:
        raise NotOk(f"{good} of {requests} replies came: {said[-400:]}")
    return Times(columns[:, 0] / 1e6, columns[:, 2] / 1e6)

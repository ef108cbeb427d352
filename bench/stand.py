"""A server process in a bench's hands: pinned to a core, with figures of its own to tell. Generates no load.

Of three kinds, all told what to do by lines on standard input: "worker" is one worker of
the real server with its default settings, whose requests for slates can be drawn from a list: h2load sends one body
only, so the service is handed the next of the drawn requests in place of the decoded one, which is as long. "floor" is
grpc-python's plain server with one method that returns an empty message, the floor of every server built on it.
"hollow" is one worker of the real server whose services do nothing: what this server adds to the floor by itself.
"""

import argparse
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import grpc
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message

FLOOR_METHOD = "/genie.bench.Floor/Nothing"
RECOMMEND = "/genie.v1.RecommendationService/Recommend"
BATCH_RECOMMEND = "/genie.v1.RecommendationService/BatchRecommend"
START_SECONDS = 300.0
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_MAPPED = re.compile(rb"^[0-9a-f]+-[0-9a-f]+ (\S{4}) .*$")
_LAST = 10
"""How nice a process is that lets others go first, from −20 to 19."""


class Stand:
    """The bench's end of a server process."""

    def __init__(
        self, kind: str, *, core: int | None, arguments: Sequence[str] = (), log: Path | None = None
    ) -> None:
        """Start it; `core` is the one it may use (None: any). It listens when `ready` returns."""
        self.core = core
        self.started_at = time.monotonic()
        self._log: IO[bytes] | None = log.open("ab") if log is not None else None
        command = [sys.executable, "-c", "from bench.stand import main; main()", kind, *arguments]
        if core is not None:
            command += ["--core", str(core)]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env={**os.environ, **dict.fromkeys(_ONE_THREAD, "1")},
        )
        self.port = 0
        self.start_seconds = 0.0

    def ready(self) -> "Stand":
        """Wait until it serves."""
        self.port = int(self._told()["port"])
        self.start_seconds = time.monotonic() - self.started_at
        return self

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def give_way(self) -> None:
        """Let others go first on its core."""
        for thread in Path(f"/proc/{self.pid}/task").iterdir():
            os.setpriority(os.PRIO_PROCESS, int(thread.name), _LAST)

    def ask(self, command: str, **facts: object) -> dict[str, Any]:
        """Tell it something and return its reply."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": command, **facts}) + "\n")
        self._process.stdin.flush()
        return self._told()

    def figures(self) -> dict[str, Any]:
        """CPU seconds used, calls by method that ended OK, and all calls by method, so far."""
        return self.ask("figures")

    def _told(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server process ended with {self._process.wait()}")
        told: dict[str, Any] = json.loads(line)
        return told

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self._log is not None:
            self._log.close()


def private_megabytes(pid: int) -> float:
    """Resident memory of a process beyond maps that it shares with others by their nature (files mapped as shared)."""
    private, shared = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_bytes().splitlines():
        mapped = _MAPPED.match(line)
        if mapped:
            shared = mapped.group(1).endswith(b"s")
        elif not shared and line.startswith((b"Private_Clean:", b"Private_Dirty:")):
            private += int(line.split()[1])
    return private / 1024


class _Drawn:
    """A RecommendationService whose requests for slates are the next of a list, in place of those decoded."""

    def __init__(self, service: Any) -> None:
        self._service = service
        self._singles: Callable[[Any], Message] = lambda request: request
        self._batches: Callable[[Any], Message] = lambda request: request

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    def draw(self, singles: Callable[[], Message] | None, batches: Callable[[], Message] | None) -> None:
        """Take what these return from now on; with None, requests are served as sent."""
        self._singles = (lambda _: singles()) if singles else (lambda request: request)
        self._batches = (lambda _: batches()) if batches else (lambda request: request)

    def recommend(self, request: Any, call: Any) -> Any:
        """As the service does."""
        return self._service.recommend(self._singles(request), call)

    def recommend_many(self, requests: Any, calls: Any) -> Any:
        """As the service does."""
        return self._service.recommend_many([self._singles(request) for request in requests], calls)

    def batch_recommend(self, request: Any, call: Any) -> Any:
        """As the service does."""
        return self._service.batch_recommend(self._batches(request), call)


def _tell(**facts: object) -> None:
    print(json.dumps(facts), flush=True)


def _listen(answer: Callable[[dict[str, Any]], dict[str, object]]) -> None:
    """Answer commands until standard input ends."""
    for line in sys.stdin:
        _tell(**answer(json.loads(line)))


def _worker(options: argparse.Namespace) -> None:
    from genie.v1 import explanation_pb2
    from genie.v1 import recommendation_service_pb2 as pb
    from server.app import Assembly, Genie
    from server.assembly import assemble
    from server.config import Settings
    from server.footprint import settle
    from server.logs import configure

    drawn: list[_Drawn] = []

    def assembly(settings: Settings, drain: Any) -> Assembly:
        whole = assemble(settings, drain)
        services: list[tuple[Any, object]] = []
        for descriptor, instance in whole.services:
            if descriptor.name == "RecommendationService":
                drawn.append(_Drawn(instance))
                services.append((descriptor, drawn[0]))
            else:
                services.append((descriptor, instance))
        return replace(whole, services=services)

    given = json.loads(options.settings)
    settings = Settings(data_directory=Path(options.data), port=options.port, experiments="off", **given)
    configure(level=settings.log_level, style="json", worker=1)
    genie = Genie(settings, assembly)
    port = genie.start()
    settle()

    def answer(command: dict[str, Any]) -> dict[str, object]:
        if command["command"] == "draw":
            learners, batches = command.get("learners"), command.get("batches")
            names, groups = itertools.cycle(learners or ()), itertools.cycle(batches or ())
            # Made as they are asked for: that many kept messages would count as the worker's memory.
            simple = explanation_pb2.EXPLANATION_LEVEL_SIMPLE
            drawn[0].draw(
                (lambda: pb.RecommendRequest(learner_id=next(names), limit=10)) if learners else None,
                (
                    lambda: pb.BatchRecommendRequest(
                        learner_ids=next(groups), limit=10, explanation_level=simple
                    )
                )
                if batches
                else None,
            )
            return {}
        if command["command"] == "switch_interval":
            sys.setswitchinterval(command["seconds"])
            return {}
        return _figures(genie)

    _tell(port=port)
    _listen(answer)
    genie.drain(notice=False)


class _Nothing:
    """A service whose unary methods return an empty message."""

    def __getattr__(self, name: str) -> Any:
        return lambda request, call: Empty()


def _hollow(options: argparse.Namespace) -> None:
    from genie.v1 import recommendation_service_pb2 as pb
    from server.app import Assembly, Genie
    from server.config import Settings
    from server.logs import configure

    service = pb.DESCRIPTOR.services_by_name["RecommendationService"]
    settings = Settings(port=options.port, experiments="off", **json.loads(options.settings))
    configure(level=settings.log_level, style="json", worker=1)
    genie = Genie(
        settings, lambda *_: Assembly(services=[(service, _Nothing())], brief=frozenset({RECOMMEND}))
    )
    _tell(port=genie.start())
    _listen(lambda _: _figures(genie))
    genie.drain(notice=False)


def _figures(genie: Any) -> dict[str, object]:
    """What a worker has used and counted so far."""
    from server.metrics import calls_of

    totals = genie.runtime.counters.meter.read_own().totals
    ok: dict[str, int] = {}
    every: dict[str, int] = {}
    for (method, code), count in calls_of(totals).items():
        every["/" + method] = every.get("/" + method, 0) + int(count)
        if code == "OK":
            ok["/" + method] = int(count)
    caches = {
        " ".join(labels): float(values[0])
        for (name, *labels), values in totals.items()
        if name == "genie_cache_requests_total"
    }
    return {"cpu": time.process_time(), "ok": ok, "calls": every, "caches": caches}


def _floor(options: argparse.Namespace) -> None:
    lock, calls = threading.Lock(), [0]

    def nothing(_: bytes, context: grpc.ServicerContext) -> bytes:
        with lock:
            calls[0] += 1
        return b""

    service, method = FLOOR_METHOD[1:].split("/")
    server = grpc.server(ThreadPoolExecutor(options.threads))
    server.add_generic_rpc_handlers(
        (
            grpc.method_handlers_generic_handler(
                service, {method: grpc.unary_unary_rpc_method_handler(nothing)}
            ),
        )
    )
    port = server.add_insecure_port(f"127.0.0.1:{options.port}")
    server.start()
    _tell(port=port)
    _listen(
        lambda _: {
            "cpu": time.process_time(),
            "ok": {FLOOR_METHOD: calls[0]},
            "calls": {FLOOR_METHOD: calls[0]},
        }
    )
    server.stop(None)


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("worker", "hollow", "floor"))
    parser.add_argument("--core", type=int)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--data", default="")
    parser.add_argument("--settings", default="{}", help="settings that differ from their defaults, as JSON")
    parser.add_argument("--threads", type=int, default=8)
    options = parser.parse_args()
    if options.core is not None:
        os.sched_setaffinity(0, {options.core})
    {"worker": _worker, "hollow": _hollow, "floor": _floor}[options.kind](options)
    sys.stdout.flush()
    os._exit(0)

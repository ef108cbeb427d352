"""Health: overall and by service, with the store's state, through a drain, and on threads of its own."""

import queue
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue
from grpc_health.v1 import health_pb2, health_pb2_grpc

from server import app, intake
from tests.server.raw_caller import RawCaller
from tests.server.serving import Running, failure, serving
from tests.waiting import PATIENCE_SECONDS, eventually

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
ONE_STATUS = 7
"""Bytes of a status on the wire."""
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Disk:
    """A store that can be told to fail."""

    def __init__(self) -> None:
        self.broken = False

    def probe(self) -> None:
        if self.broken:
            raise OSError("the disk is gone")


def stub(running: Running) -> Any:
    return health_pb2_grpc.HealthStub(running.channel)


def request(service: str = "") -> health_pb2.HealthCheckRequest:
    return health_pb2.HealthCheckRequest(service=service)


def watching(running: Running, service: str = "") -> "queue.Queue[int | str]":
    """Statuses as they arrive, then "end"."""
    found: queue.Queue[int | str] = queue.Queue()

    def follow() -> None:
        try:
            for reply in stub(running).Watch(request(service)):
                found.put(reply.status)
            found.put("end")
        except grpc.RpcError as error:
            found.put(str(error))

    threading.Thread(target=follow, daemon=True).start()
    return found


def test_check_knows_the_whole_and_each_service() -> None:
    with serving() as running:
        for service in ("", "genie.tests.Echo"):
            assert stub(running).Check(request(service)).status == SERVING
        error = failure(lambda: stub(running).Check(request("genie.tests.Nothing")))
        assert error.code() is grpc.StatusCode.NOT_FOUND


def test_a_store_that_cannot_be_written_shows_and_so_does_its_recovery() -> None:
    disk = Disk()
    with serving(probe=disk.probe) as running:
        statuses = watching(running, "genie.tests.Echo")
        assert statuses.get(timeout=PATIENCE_SECONDS) == SERVING
        disk.broken = True
        assert statuses.get(timeout=PATIENCE_SECONDS) == NOT_SERVING
        assert stub(running).Check(request()).status == NOT_SERVING
        disk.broken = False
        assert statuses.get(timeout=PATIENCE_SECONDS) == SERVING


def test_a_server_may_start_with_a_broken_store() -> None:
    disk = Disk()
    disk.broken = True
    with serving(probe=disk.probe) as running:
        assert stub(running).Check(request()).status == NOT_SERVING


def test_an_unknown_service_can_be_watched() -> None:
    with serving() as running:
        statuses = watching(running, "genie.tests.Nothing")
        assert statuses.get(timeout=PATIENCE_SECONDS) == UNKNOWN


def test_a_drain_tells_watchers_and_does_not_wait_for_them() -> None:
    with serving(drain_seconds=30.0, drain_notice_seconds=0.2) as running:
        statuses = [watching(running) for _ in range(3)]
        assert [found.get(timeout=PATIENCE_SECONDS) for found in statuses] == [SERVING] * 3
        drained = threading.Thread(target=running.genie.drain, kwargs={"notice": True})
        drained.start()
        assert [found.get(timeout=PATIENCE_SECONDS) for found in statuses] == [NOT_SERVING] * 3
        assert stub(running).Check(request()).status == NOT_SERVING
        drained.join(timeout=PATIENCE_SECONDS)
        assert not drained.is_alive()
        assert [found.get(timeout=PATIENCE_SECONDS) for found in statuses] == ["end"] * 3


def test_a_watcher_that_goes_is_forgotten() -> None:
    with serving() as running:
        watch = stub(running).Watch(request())
        assert next(watch).status == SERVING
        watch.cancel()
        assert failure(lambda: next(watch)).code() is grpc.StatusCode.CANCELLED
        running.genie.health.set_serving(False)
        running.genie.health.set_serving(True)
        assert stub(running).Check(request()).status == SERVING


def test_a_busy_worker_still_says_that_it_lives(tmp_path: Path) -> None:
    with serving(threads=1, max_concurrent_calls=1) as running:
        busy = running.client.say.future(StringValue(value=f"hold {tmp_path}"))
        assert stub(running).Check(request()).status == SERVING
        assert not busy.done(), "answered without waiting"
        (tmp_path / "go").touch()
        busy.result()


@pytest.mark.parametrize("method", ["Check", "Watch"])
def test_undecodable_bytes_are_the_callers_fault(method: str) -> None:
    with serving() as running:
        raw: Any = running.channel.unary_stream(f"/grpc.health.v1.Health/{method}")
        error = failure(lambda: list(raw(b"\xff\xff")))
        assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("window", [0, ONE_STATUS])
def test_watchers_who_do_not_read_hold_up_neither_the_status_nor_a_drain(window: int) -> None:
    disk = Disk()
    with serving(probe=disk.probe, drain_seconds=PATIENCE_SECONDS) as running:
        health = running.genie.health
        with RawCaller(running.port, window=window) as raw:
            for _ in range(5):
                raw.call(WATCH, b"")
            eventually(lambda: len(health._watchers) == 5)
            assert stub(running).Check(request(), timeout=PATIENCE_SECONDS).status == SERVING
            statuses = watching(running)
            assert statuses.get(timeout=PATIENCE_SECONDS) == SERVING
            disk.broken = True
            assert statuses.get(timeout=PATIENCE_SECONDS) == NOT_SERVING
            disk.broken = False
            assert statuses.get(timeout=PATIENCE_SECONDS) == SERVING
            drained = threading.Thread(target=running.genie.drain, kwargs={"notice": False})
            drained.start()
            assert statuses.get(timeout=PATIENCE_SECONDS) == NOT_SERVING
            assert statuses.get(timeout=PATIENCE_SECONDS) == "end"
            eventually(lambda: not health._watchers)
        drained.join()


def test_callers_who_ask_for_nothing_give_way_to_those_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_MOST_READ", 3)
    with serving() as running, RawCaller(running.port, window=0) as raw:
        calls = running.genie._direct
        assert calls is not None
        for _ in range(3):
            raw.call(CHECK, None)
        eventually(lambda: calls.open == 3)
        for _ in range(3):
            raw.call(CHECK, None)
            raw.call(CHECK, b"")
            raw.call(WATCH, None)
            assert stub(running).Check(request(), timeout=PATIENCE_SECONDS).status == SERVING
    eventually(lambda: calls.open == 0)


def test_watches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "_MOST_WATCHES", 2)
    with serving() as running:
        watches = [stub(running).Watch(request()) for _ in range(2)]
        assert [next(watch).status for watch in watches] == [SERVING] * 2
        error = failure(lambda: next(stub(running).Watch(request())))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert stub(running).Check(request()).status == SERVING
        watches[0].cancel()
        eventually(lambda: running.genie._watches.unfinished == 1)
        assert next(stub(running).Watch(request())).status == SERVING

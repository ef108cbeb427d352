"""Bytes that are no calls: whatever comes in at the port, the server lives and nothing of it is a fault of ours."""

import logging
import random
import socket
from collections.abc import Iterator

import pytest

from bench import fuzz
from tests.server.core import Core, core
from tests.waiting import PATIENCE_SECONDS

TIMES = {"slow_loris": 1}


@pytest.fixture(scope="module")
def served() -> Iterator[Core]:
    with core(log_level="error") as running:
        running.chain("count")
        # The first call loads the kernels, which may take longer than an attacker waits.
        running.recommend()
        yield running


def address(served: Core) -> tuple[str, int]:
    return "127.0.0.1", served.port


def faults(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What the server logged as its own fault; gRPC logs headers that are no text as errors of its own."""
    ours = [record for record in caplog.records if record.name.startswith(("genie", "grpc._server"))]
    return [record.getMessage() for record in ours if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("name", sorted(fuzz.ATTACKS))
def test_the_server_lives(served: Core, name: str, caplog: pytest.LogCaptureFixture) -> None:
    rng = random.Random(3)
    with caplog.at_level(logging.WARNING):
        for _ in range(TIMES.get(name, 12)):
            fuzz.ATTACKS[name](rng, address(served))
        assert fuzz.complaint(f"127.0.0.1:{served.port}") == ""
    assert faults(caplog) == []


def test_a_good_call_by_hand_is_answered(served: Core) -> None:
    """The attacks change calls that would have been good ones."""
    reply = fuzz.exchange(address(served), fuzz.OPENING, fuzz.good_request(), linger=5.0)
    assert b"count-" in reply


ANY_BYTES = [b"\xff\xfe", b"\x80", "é😀".encode(), b"a b", b"x" * 300]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in (b"user-agent", b"x-anything") for value in ANY_BYTES),
        *((b"x-correlation-id", value) for value in (*ANY_BYTES, b"\xc3\xa9")),
    ],
)
def test_headers_that_mean_nothing_to_us_may_hold_any_bytes(served: Core, name: bytes, value: bytes) -> None:
    request = fuzz.good_request(more={name: value})
    reply = fuzz.exchange(address(served), fuzz.OPENING, request, linger=5.0)
    assert b"count-" in reply


@pytest.mark.parametrize("value", ANY_BYTES)
def test_a_tenant_of_any_bytes_is_refused(
    served: Core, value: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    request = fuzz.good_request(more={b"x-tenant-id": value})
    reply = fuzz.exchange(address(served), fuzz.OPENING, request, linger=5.0)
    assert b"grpc-status" in reply
    assert faults(caplog) == []


def test_streams_left_open_give_their_threads_back(served: Core) -> None:
    rng = random.Random(5)
    limit = served.genie._streams.limit
    for _ in range(limit):
        fuzz.vanishing_streams(rng, address(served))
    results = served.practice.StreamAnswers(iter(()), timeout=PATIENCE_SECONDS)
    assert list(results) == []


def test_many_idle_connections_do_not_keep_others_out(served: Core) -> None:
    idle = [socket.create_connection(address(served), 5) for _ in range(100)]
    try:
        assert fuzz.complaint(f"127.0.0.1:{served.port}") == ""
    finally:
        for one in idle:
            one.close()

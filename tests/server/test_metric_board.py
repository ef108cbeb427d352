"""Boards that a power cut has torn, that cannot be folded, or that the disk has no room for: metrics go on."""

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from server import metric_board, metrics
from server.metric_board import Board, Boards
from server.metrics import CallCounters, Meter, calls_of
from tests.server.test_metrics import NAME, SAY, calls, counting
from tests.waiting import PATIENCE_SECONDS, eventually

HEAD_BYTES = 24
TORN = "are damaged"


def without_tail(content: bytes) -> bytes:
    """A board of which a power cut has left the first page."""
    return content[:4_096].ljust(len(content), b"\0")


def with_head_only(content: bytes) -> bytes:
    return content[:HEAD_BYTES].ljust(len(content), b"\0")


def with_head_that_promises_too_much(content: bytes) -> bytes:
    return content[:8] + b"\xff" * 16 + content[HEAD_BYTES:]


def with_key_that_is_none(content: bytes) -> bytes:
    return content.replace(b'["genie', b'"[genie', 1)


def cut_off(content: bytes) -> bytes:
    return content[:1_000]


def emptied(_: bytes) -> bytes:
    return b""


def of_zeros(content: bytes) -> bytes:
    return bytes(len(content))


@pytest.mark.parametrize(
    "tear",
    [
        without_tail,
        with_head_only,
        with_head_that_promises_too_much,
        with_key_that_is_none,
        cut_off,
        emptied,
        of_zeros,
    ],
)
def test_a_torn_board_costs_what_it_counted_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tear: Callable[[bytes], bytes]
) -> None:
    torn, whole = Meter(tmp_path, "1"), Meter(tmp_path, "2")
    for meter in (torn, whole):
        # Several pages of series.
        counters = CallCounters(meter)
        for number in range(50):
            counters.count(f"/genie.tests.Echo/Call{number:02d}", "OK", 0.001)
        counters.count(SAY, "OK", 0.001)
        meter.close()
    (path,) = tmp_path.glob("1-*.board")
    path.write_bytes(tear(path.read_bytes()))
    meter = Meter(tmp_path, "3")
    meter.start()
    try:
        assert calls(tmp_path) == 1, "those of the whole one"
        assert meter.read().live.keys() == {"3"}
        assert caplog.text.count(TORN) == 1
        assert [found.name[0] for found in tmp_path.glob("*.board")] == ["3"], "it is gone as any dead one"
    finally:
        meter.close()


def test_a_live_process_whose_board_is_torn_is_told_once_and_left_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    torn, whole = Meter(tmp_path, "1"), Meter(tmp_path, "2")
    try:
        for meter in (torn, whole):
            CallCounters(meter).count(SAY, "OK", 0.001)
        (path,) = tmp_path.glob("1-*.board")
        with path.open("r+b") as file:
            file.seek(HEAD_BYTES)
            file.write(bytes(10_000))
        for _ in range(3):
            reading = whole.read()
            assert calls_of(reading.totals) == {(NAME, "OK"): 1}
            assert set(reading.live) == {"1", "2"}
        assert caplog.text.count(TORN) == 1
        assert path.exists()
        assert torn.read_own().totals == {}, "its own process reads no more of it"
    finally:
        torn.close()
        whole.close()


def test_a_board_without_its_head_yet_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / f"1-{1:020d}-1.board"
    path.write_bytes(bytes(4_096))
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert Boards(tmp_path).read(now=0.0, seconds=0.0).live == {"1": {}}
    assert not caplog.records


def test_dead_boards_that_cannot_be_folded_are_read_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    meter = Meter(tmp_path)
    CallCounters(meter).count(SAY, "OK", 0.001)
    meter.close()
    boards = Boards(tmp_path)
    with monkeypatch.context() as full:
        full.setattr(metric_board, "write_file", refuse)
        for _ in range(2):
            assert calls_of(boards.read(now=0.0, seconds=0.0).totals) == {(NAME, "OK"): 1}
    assert caplog.text.count("cannot be folded") == 1
    assert calls(tmp_path) == 1
    assert not list(tmp_path.glob("*.board"))


def test_a_process_starts_and_reads_itself_when_the_directory_is_lost(tmp_path: Path) -> None:
    meter = Meter(tmp_path / "metrics")
    shutil.rmtree(tmp_path / "metrics")
    (tmp_path / "metrics").write_text("")
    CallCounters(meter).count(SAY, "OK", 0.001)
    meter.start()
    try:
        assert calls_of(meter.read().totals) == {(NAME, "OK"): 1}
    finally:
        meter.close()


def test_metrics_of_a_process_that_started_on_a_full_disk_come_to_be_kept_on_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        tried.release()
        raise OSError(errno.ENOSPC, "No space left on device")

    tried = threading.Semaphore(0)
    monkeypatch.setattr(metrics, "SAMPLE_SECONDS", 0.01)
    monkeypatch.setattr(metrics, "AGAIN_SECONDS", 0.0)
    with monkeypatch.context() as full:
        full.setattr(os, "posix_fallocate", refuse)
        meter = Meter(tmp_path)
        counters = CallCounters(meter)
        counters.count(SAY, "OK", 0.001)
        meter.start()
        again = [tried.acquire(timeout=PATIENCE_SECONDS) for _ in range(3)]
    try:
        assert all(again)
        assert caplog.text.count("metrics are kept in memory") == 1
        eventually(lambda: calls(tmp_path) == 1)
        (path,) = tmp_path.glob("*.board")
        counters.count(SAY, "OK", 0.001)
        counters.count(SAY, "INTERNAL", 0.001)
        eventually(lambda: calls(tmp_path) == 2)
        with counting(tmp_path, "2", 10):
            reading = meter.read()
            assert calls_of(reading.totals)[NAME, "OK"] == 12
            assert calls_of(reading.totals)[NAME, "INTERNAL"] == 1
            assert set(reading.live) == {"1", "2"}
        counters.count(SAY, "OK", 0.001)
    finally:
        meter.close()
    assert calls(tmp_path) == 13
    assert not path.exists(), "folded as any dead one"


def test_a_board_that_finds_no_room_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with pytest.raises(OSError, match="No space left"):
        Board(tmp_path, "1")
    assert not list(tmp_path.iterdir())

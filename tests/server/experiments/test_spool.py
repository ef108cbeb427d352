"""Reports on disk: kept whole, delivered by whoever is there, never twice at a time."""

import errno
import multiprocessing
import os
from pathlib import Path

import pytest

from genie.v1 import experiment_service_pb2 as pb
from server.experiments import spool as spool_module
from server.experiments.spool import Spool


def reports(*names: str) -> list[pb.Report]:
    return [pb.Report(report_id=name, learner_id="ada") for name in names]


def held(spool: Spool) -> list[tuple[str, list[str]]]:
    """(tenant, report ids) of every segment that can be had."""
    found = []
    for path in spool.waiting():
        with spool.open(path) as segment:
            for tenant, batch in segment.batches if segment else ():
                message = pb.ReportMetricsRequest.FromString(batch)
                found.append((tenant, [report.report_id for report in message.reports]))
    return found


def test_a_segment_can_be_had_once_it_is_closed_and_is_gone_once_delivered(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append("a", reports("1", "2"))
    spool.append("b", reports("3"))
    assert held(spool) == [], "somebody writes it"
    spool.rotate()
    assert held(spool) == [("a", ["1", "2"]), ("b", ["3"])]
    spool.append("a", reports("4"))
    spool.rotate(only_large=True)
    assert len(held(spool)) == 2
    (first, _) = spool.waiting()
    with spool.open(first) as segment, Spool(tmp_path).open(first) as other:
        assert segment is not None
        assert other is None, "one delivers at a time"
        segment.delivered = True
    spool.rotate()
    assert held(spool) == [("a", ["4"])]


def test_a_segment_that_was_refused_is_put_aside(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append("a", reports("1"))
    spool.rotate()
    with spool.open(spool.waiting()[0]) as segment:
        assert segment is not None
        segment.refused = True
    assert held(spool) == []
    assert len(list(tmp_path.glob("*.refused"))) == 1


def test_a_record_that_was_not_written_whole_ends_its_segment(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append("a", reports("1"))
    spool.append("a", reports("2"))
    spool.rotate()
    (path,) = spool.waiting()
    path.write_bytes(path.read_bytes()[:-1])
    assert held(spool) == [("a", ["1"])]
    damaged = bytearray(path.read_bytes())
    damaged[12] ^= 1
    path.write_bytes(bytes(damaged))
    assert held(spool) == []


def short_of_room(monkeypatch: pytest.MonkeyPatch, bytes_left: int) -> None:
    """Segments take so many bytes more, and then nothing."""
    write, left = os.write, bytes_left

    def some(descriptor: int, content: bytes) -> int:
        nonlocal left
        if not left:
            raise OSError(errno.ENOSPC, "no room")
        written = write(descriptor, content[:left])
        left -= written
        return written

    monkeypatch.setattr(os, "write", some)


@pytest.mark.parametrize("bytes_left", [0, 5, 12])
@pytest.mark.parametrize("stuck", [False, True], ids=["taken back", "left behind"])
def test_what_comes_after_a_full_disk_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bytes_left: int, stuck: bool
) -> None:
    def refuse(descriptor: int, size: int) -> None:
        raise OSError(errno.EIO, "broken")

    spool = Spool(tmp_path)
    spool.append("a", reports("1"))
    with monkeypatch.context() as full:
        short_of_room(full, bytes_left)
        if stuck:
            full.setattr(os, "ftruncate", refuse)
        spool.append("a", reports("2"))
        spool.append("a", reports("3"))
    spool.append("a", reports("4"))
    spool.rotate()
    assert [one for one in held(spool) if one[1]] == [("a", ["1"]), ("a", ["4"])]


def test_a_segment_whose_end_cannot_be_read_is_told_and_put_aside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path)
    spool.append("a", reports("1"))
    spool.rotate()
    (path,) = spool.waiting()
    with path.open("ab") as file:
        file.write(b"rest")
    with spool.open(path) as segment:
        assert segment is not None
        assert len(segment.batches) == 1
        segment.delivered = True
    assert spool.waiting() == []
    (aside,) = tmp_path.glob("*.refused")
    assert aside.read_bytes().endswith(b"rest")
    assert "could not be read to its end" in caplog.text


def test_many_reports_become_several_messages(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    spool.append("a", reports(*map(str, range(1_200))))
    spool.rotate()
    assert [len(ids) for _, ids in held(spool)] == [500, 500, 200]


def write_and_die(directory: Path) -> None:
    Spool(directory).append("a", reports("last words"))
    os._exit(9)


def test_what_a_dead_worker_left_is_delivered_by_another(tmp_path: Path) -> None:
    child = multiprocessing.get_context("spawn").Process(target=write_and_die, args=(tmp_path,))
    child.start()
    child.join()
    assert held(Spool(tmp_path)) == [("a", ["last words"])]


def test_a_full_spool_drops_rather_than_fills_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool_module, "MOST_SPOOL_BYTES", 10)
    spool = Spool(tmp_path)
    spool.append("a", reports("1"))
    spool.rotate()
    spool.waiting()
    spool.append("a", reports("2"))
    spool.rotate()
    assert held(spool) == [("a", ["1"])]

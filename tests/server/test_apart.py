"""Work in a process apart: what it returns and raises comes back, and what ends it is told as a sentence."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server.cli.apart import apart
from server.cli.doctor_stores import _advice
from store.api import StoreCorrupt, StoreError, StoreFull, StoreTooNew, StoreUnavailable
from store.lmdb_store import LmdbStore
from tests.waiting import eventually


def doubled(number: int) -> tuple[int, int]:
    print("this is no answer")
    return os.getpid(), 2 * number


def fails(told: str) -> None:
    raise StoreCorrupt(told)


def is_ended(number: int) -> None:
    os.kill(os.getpid(), number)


def leaves() -> None:
    os._exit(7)


def names_itself_and_waits(place: Path) -> None:
    place.with_suffix(".new").write_text(str(os.getpid()))
    place.with_suffix(".new").rename(place)
    signal.pause()


def test_what_is_returned_and_raised_comes_back() -> None:
    process, result = apart(doubled, 21)
    assert result == 42
    assert process != os.getpid()
    with pytest.raises(StoreCorrupt, match="as it is told"):
        apart(fails, "as it is told")


@pytest.mark.parametrize("name", ["SIGBUS", "SIGSEGV", "SIGABRT"])
def test_what_ends_it_as_damaged_files_do_is_damage(name: str) -> None:
    with pytest.raises(
        StoreCorrupt, match=f"the store's file is damaged: reading it ended the process by {name}"
    ):
        apart(is_ended, signal.Signals[name].value)


def test_any_other_end_is_none() -> None:
    with pytest.raises(StoreUnavailable, match="SIGKILL"):
        apart(is_ended, signal.SIGKILL.value)
    with pytest.raises(StoreUnavailable, match="exit code 7"):
        apart(leaves)


def test_it_ends_with_who_asked_for_it(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from server.cli.apart import apart; from tests.server import test_apart\n"
        f"apart(test_apart.names_itself_and_waits, Path({str(tmp_path / 'pid')!r}))"
    )
    asking = subprocess.Popen([sys.executable, "-c", code])
    try:
        eventually((tmp_path / "pid").exists)
    finally:
        asking.kill()
        asking.wait()
    working = Path("/proc") / (tmp_path / "pid").read_text()
    eventually(lambda: not working.exists() or "\nState:\tZ" in (working / "status").read_text())


def test_the_advice_is_for_what_is_wrong(tmp_path: Path) -> None:
    assert "restore a backup" in _advice(StoreCorrupt("x"))
    assert "newer Genie" in _advice(StoreTooNew("x"))
    assert "make room" in _advice(StoreFull("x"))
    for cause, wanted in (
        (PermissionError(13, "x"), "let this user write"),
        (OSError(30, "x"), "let this user write"),
        (OSError(5, "x"), "look at the disk"),
    ):
        error = StoreUnavailable("x")
        error.__cause__ = cause
        assert wanted in _advice(error)
    with pytest.raises(StoreError) as caught:
        LmdbStore(tmp_path / "s", map_bytes=1 << 50, max_bytes=1 << 50)
    assert "more memory" in _advice(caught.value)

"""What was made before settling stays, out of the collector's sight; what was freed goes back."""

import gc
import sys
from pathlib import Path

import pytest

from server.footprint import settle


def resident_kb() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))


def test_what_was_made_is_frozen() -> None:
    gc.unfreeze()
    kept = [[number] for number in range(1_000)]
    try:
        settle()
        assert gc.get_freeze_count() >= len(kept)
    finally:
        gc.unfreeze()


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux what is resident")
def test_freed_memory_goes_back() -> None:
    # Blocks too small to be mapped each by itself, and one behind them that stays: the C library keeps such memory.
    blocks = [bytearray(100_000) for _ in range(400)]
    last = bytearray(100_000)
    del blocks
    before = resident_kb()
    settle()
    gc.unfreeze()
    assert resident_kb() < before - 20_000
    assert last

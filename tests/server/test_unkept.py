"""Slates that could not be kept: a line now and then, with a stack only where it says more than the reason."""

import logging

import pytest

from server.admission import Throttle
from server.services.unkept import Unkept
from store.api import StoreFull, StoreUnavailable


def test_a_flood_is_told_now_and_then_with_its_count(caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    unkept = Unkept(
        logging.getLogger("genie.recommend"), Throttle(interval_seconds=10.0, clock=lambda: now[0])
    )
    for _ in range(100):
        unkept.add(StoreFull("no room"))
    now[0] = 10.0
    for _ in range(100):
        unkept.add(StoreFull("no room"))
    assert [vars(line)["facts"] for line in caplog.records] == [
        {"slates": 1, "why": "no room"},
        {"slates": 100, "why": "no room"},
    ]
    assert all(line.message == "a slate could not be kept" and not line.exc_info for line in caplog.records)


def test_what_is_no_full_disk_comes_with_its_stack(caplog: pytest.LogCaptureFixture) -> None:
    Unkept(logging.getLogger("genie.recommend")).add(StoreUnavailable("no disk"))
    (line,) = caplog.records
    assert line.exc_info is not None
    assert vars(line)["facts"] == {"slates": 1, "why": "no disk"}

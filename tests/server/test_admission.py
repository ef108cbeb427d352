"""Counting calls, the moment of the drain, and reports that do not flood."""

import threading

import pytest

from server.admission import CallPool, Drain, Throttle


def test_a_pool_counts_what_it_was_handed_until_it_is_finished() -> None:
    hold = threading.Event()
    pool = CallPool(threads=1, limit=2, name="test")
    futures = [pool.submit(hold.wait, 10.0) for _ in range(2)]
    assert pool.full
    hold.set()
    assert all(future.result() for future in futures)
    failing = pool.submit(int, "x")
    with pytest.raises(ValueError, match="invalid literal"):
        failing.result()
    pool.shutdown()
    assert pool.unfinished == 0


def test_a_drain_wakes_each_listener_once_and_late_ones_at_once() -> None:
    drain = Drain()
    heard: list[str] = []

    def forgotten() -> None:
        heard.append("forgotten")

    drain.listen(lambda: heard.append("early"))
    drain.listen(forgotten)
    drain.forget(forgotten)
    drain.begin()
    drain.begin()
    drain.listen(lambda: heard.append("late"))
    assert heard == ["early", "late"]


def test_a_throttle_lets_one_event_an_interval_through() -> None:
    now = [100.0]
    throttle = Throttle(interval_seconds=1.0, clock=lambda: now[0])
    passed = []
    for step in range(25):
        now[0] = 100.0 + step * 0.1
        passed.append(throttle.passes())
    assert [step for step, through in enumerate(passed) if through] == [0, 10, 20]

"""Counting calls, the moment of the drain, and reports that do not flood."""

import threading
from functools import partial
from types import SimpleNamespace

import pytest

from server import admission
from server.admission import CallPool, Drain, Pace, RefusalPool, Throttle
from tests.waiting import PATIENCE_SECONDS, eventually


def test_a_pool_counts_what_it_was_handed_until_it_is_finished(caplog: pytest.LogCaptureFixture) -> None:
    hold = threading.Event()
    pool = CallPool(threads=1, limit=2, name="test")
    for _ in range(2):
        pool.submit(hold.wait, PATIENCE_SECONDS)
    assert pool.full
    hold.set()
    eventually(lambda: pool.unfinished == 0)
    pool.submit(int, "x")
    eventually(lambda: pool.unfinished == 0)
    assert "outside its handler" in caplog.text, "and the thread lives on"
    done: list[int] = []
    pool.submit(done.append, 1)
    pool.shutdown()
    assert done == [1]
    assert pool.unfinished == 0


def test_a_pool_runs_as_many_at_once_as_it_has_threads_in_the_order_of_arrival() -> None:
    pool = CallPool(threads=2, limit=100, name="test")
    both = threading.Barrier(2)
    order: list[int] = []
    for _ in range(2):
        pool.submit(both.wait, PATIENCE_SECONDS)
    eventually(lambda: pool.unfinished == 0)
    hold = threading.Event()
    pool.submit(hold.wait, PATIENCE_SECONDS)
    for number in range(20):
        pool.submit(order.append, number)
    eventually(lambda: len(order) == 20)
    hold.set()
    pool.shutdown()
    assert order == list(range(20))


def test_calls_that_would_wait_too_long_are_refused_and_no_longer_once_the_queue_is_short(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, turn = [0.0], threading.Semaphore(0)
    monkeypatch.setattr(admission, "time", SimpleNamespace(monotonic=lambda: now[0]))
    pool = CallPool(threads=1, limit=1_000, name="test", queue_seconds=0.05)

    def ends_after_20_ms() -> None:
        left = pool.unfinished
        now[0] += 0.02
        turn.release()
        eventually(lambda: pool.unfinished < left)

    for _ in range(5):
        pool.submit(turn.acquire)
    refuses = partial(getattr, pool, "full")
    assert not refuses(), "how fast calls end is not known yet"
    for _ in range(3):
        ends_after_20_ms()
    assert not refuses(), "two calls of 20 ms take no longer than 50 ms"
    for _ in range(9):
        pool.submit(turn.acquire)
    assert refuses(), "eleven would"
    for _ in range(10):
        ends_after_20_ms()
    assert not refuses()
    turn.release()
    pool.shutdown()


@pytest.mark.parametrize(
    ("ends", "seconds"),
    [
        ([], 0.0),
        ([(1.0, True)], 0.0),
        ([(1.0, True), (1.5, True)], 0.5),
        ([(1.0, True), (1.5, True), (2.5, True)], 0.5),
        ([(1.0, True), (1.5, True), (1.6, False), (9.0, True), (9.1, True)], 0.424),
        ([(1.0, False), (1.5, False)], 0.0),
        ([(1.0, True), (1.1, True), (2.0, True)], 0.12),
    ],
)
def test_pace_is_the_time_between_ends_while_calls_wait(
    ends: list[tuple[float, bool]], seconds: float
) -> None:
    pace = Pace()
    for now, waiting in ends:
        pace.finished(now, waiting)
    assert pace.seconds == pytest.approx(seconds)


def test_refusals_are_at_once_up_to_a_rate_and_then_delayed() -> None:
    now = [0.0]
    drain = Drain()
    pool = RefusalPool(drain=drain, refusals_per_second=2.0, burst=3, most_waiting=2, clock=lambda: now[0])
    refused: list[int] = []
    for number in range(5):
        pool.submit(refused.append, number)
    assert refused == [0, 1, 2]
    assert pool.waiting <= 2
    eventually(lambda: pool.waiting == 1)
    pool.submit(refused.append, 5)
    assert (pool.waiting, pool.wait_seconds) == (2, 1.0)
    pool.submit(refused.append, 6)
    assert refused == [0, 1, 2, 6], "with so many waiting, memory is dearer than time"
    now[0] = 0.5
    eventually(lambda: 3 in refused)
    assert 4 not in refused
    drain.begin()
    eventually(lambda: len(refused) == 7)
    pool.submit(refused.append, 7)
    assert refused[-1] == 7, "a worker that stops has no storm to fear"


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

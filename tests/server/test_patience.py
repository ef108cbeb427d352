"""How long calls wait for what is being made ready: all of them together as long as one, and a share of the time."""

import pytest

from server.patience import MOST_ASIDE, SHARE, Patience


class Clock:
    """Goes when told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def patience(clock: Clock) -> Patience:
    return Patience(0.5, clock=clock)


def test_all_calls_wait_until_the_same_moment(patience: Patience, clock: Clock) -> None:
    wait = patience.wait()
    clock.now += 10.0
    assert wait.left() == pytest.approx(0.5), "begins with the first call"
    clock.now += 0.3
    assert wait.left() == pytest.approx(0.2)
    clock.now += 30.0
    assert wait.left() == 0.0
    assert not wait.put_aside()


def test_few_are_put_aside_for_one_wait(patience: Patience) -> None:
    wait = patience.wait()
    assert [wait.put_aside() for _ in range(MOST_ASIDE + 1)] == [True] * MOST_ASIDE + [False]
    assert patience.wait().put_aside()


def test_what_nobody_waited_for_costs_no_patience(patience: Patience, clock: Clock) -> None:
    wait = patience.wait()
    clock.now += 60.0
    wait.end()
    assert patience.left() == pytest.approx(0.5)


def test_a_short_wait_leaves_most_of_it_and_it_comes_back(patience: Patience, clock: Clock) -> None:
    wait = patience.wait()
    wait.left()
    clock.now += 0.1
    wait.end()
    assert patience.left() == pytest.approx(0.4, abs=0.1 * SHARE + 1e-9)
    clock.now += 100.0
    assert patience.left() == pytest.approx(0.5)


def test_one_thing_after_another_is_waited_for_a_share_of_the_time(patience: Patience, clock: Clock) -> None:
    waited, began = 0.0, clock.now
    for _ in range(200):
        wait = patience.wait()
        first = clock.now
        for _ in range(100):
            waited += 0.01 if wait.left() > 0.0 else 0.0
            clock.now += 0.01
        assert clock.now > first
        wait.end()
    assert waited / (clock.now - began) == pytest.approx(SHARE, abs=0.05)

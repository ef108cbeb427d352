"""Speed and forecasts: sums by hand, and worlds whose future is known."""

import math

import numpy as np
import pytest

from engine.forecast import forecast, speed
from engine.types import F8, I8


def days(*values: float) -> I8:
    return np.array(values, np.int64)


def test_speed_is_what_the_window_says() -> None:
    found = speed(days(10, 0, 4, 0), np.array([60.0, 0.0, 24.0, 0.0]), days(2, 0, 1, 0), days(0, 0, 1, 0))
    assert found.days == 4
    assert found.answers_per_week == pytest.approx(14 / 4 * 7)
    assert found.seconds_per_week == pytest.approx(84 / 4 * 7)
    assert found.mastered_per_week == pytest.approx(2 / 4 * 7)
    assert found.mastered_per_week_sd == pytest.approx(math.sqrt(5) / 4 * 7)
    assert found.answers_per_concept == pytest.approx(7.0)
    nothing = speed(days(5), np.array([9.0]), days(0), days(1))
    assert nothing.mastered_per_week == -7.0
    assert math.isnan(nothing.answers_per_concept)
    with pytest.raises(ValueError, match="at least one day"):
        speed(days(), np.zeros(0), days(), days())


def test_without_practice_nothing_is_foretold() -> None:
    assert forecast(3, days(0, 0, 0), 0) is None
    with pytest.raises(ValueError, match="above 0"):
        forecast(0, days(1), 0)


def test_a_forecast_follows_the_evidence() -> None:
    steady = days(*[20] * 28)
    few, many = forecast(2, steady, 20), forecast(8, steady, 20)
    slow, busy = forecast(2, steady, 2), forecast(2, 2 * steady, 40)
    assert few is not None
    assert many is not None
    assert slow is not None
    assert busy is not None
    assert few.early_days < few.median_days < few.late_days
    assert few.median_days < many.median_days
    assert few.median_days < slow.median_days
    assert busy.median_days == pytest.approx(few.median_days / 2, rel=0.1)
    # 20 concepts in 560 answers: 2 more take about 56 answers, three days; the pace's median lies below its mean.
    assert few.median_answers == pytest.approx(56.0, rel=0.1)
    assert 2.8 < few.median_days < 4.0
    # The more concepts, the smaller the part of chance.
    assert many.late_days / many.early_days < few.late_days / few.early_days
    assert few.chance_within(0.0) == 0.0
    assert few.chance_within(few.median_days) == pytest.approx(0.5, abs=0.01)
    assert few.chance_within(1e9) == 1.0


def simulated(rng: np.random.Generator, concepts: int) -> tuple[I8, int, float]:
    """(answers a day, concepts mastered) over four weeks of a learner, and the days that `concepts` more then take."""
    rate = rng.gamma(6.0, 1.0 / 300.0)
    active, mean = rng.uniform(0.3, 1.0), rng.uniform(8.0, 40.0)

    def day() -> int:
        return int(rng.poisson(mean)) if rng.random() < active else 0

    seen = np.array([day() for _ in range(28)])
    drift = math.exp(rng.normal(-0.2, 0.65))
    left, passed = float(rng.gamma(concepts, 1.0 / rate)), 0.0
    while left > 0.0:
        given = drift * day()
        passed += min(left / given, 1.0) if given else 1.0
        left -= given
    return seen, int(rng.poisson(rate * seen.sum())), passed


@pytest.mark.parametrize("concepts", [3, 8, 25])
def test_the_interval_holds_as_often_as_it_says(concepts: int) -> None:
    rng = np.random.default_rng(7 + concepts)
    early = late = median = known = 0
    for _ in range(400):
        seen, mastered, needed = simulated(rng, concepts)
        found = forecast(concepts, seen, mastered)
        if found is None:
            continue
        known += 1
        early += needed < found.early_days
        median += needed < found.median_days
        late += needed > found.late_days
    assert known > 390
    # 80 % between, half on either side of the median.
    assert 0.72 <= 1.0 - (early + late) / known <= 0.90
    assert 0.38 <= median / known <= 0.62


def test_days_without_evidence_widen_the_forecast() -> None:
    alike: F8 = np.full(28, 10.0)
    bursts = np.zeros(28)
    bursts[::7] = 70.0
    regular, uneven = forecast(5, alike.astype(np.int64), 10), forecast(5, bursts.astype(np.int64), 10)
    assert regular is not None
    assert uneven is not None
    assert regular.late_days / regular.early_days < uneven.late_days / uneven.early_days

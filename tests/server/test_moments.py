"""Moments last as long as little changes: what moves smoothly by a hundredth of its time, what jumps not at all."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.learner.memory import DEFAULT_WEIGHTS, retrievability
from engine.recommend import Context, fatigue
from server.local_days import local_hour
from server.moments import LENGTHS, SHARE, Moment, moment_at
from tests.server.service_calls import NOW

DAY = 86_400.0
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"]

times = st.floats(1.5e9, 1.9e9)
aways = st.floats(-60.0, 6.0).map(lambda power: 10.0**power if power > -6.0 else 0.0)
learners = st.text("abc", min_size=1)
places = st.floats(0.0, 1.0, exclude_max=True)


def between(moment: Moment, place: float) -> float:
    """A time in a moment."""
    return min(moment.start + place * (moment.end - moment.start), math.nextafter(moment.end, 0.0))


@given(times, aways, learners, learners, st.sampled_from([*ZONES, None]), places)
def test_a_moment_is_the_same_for_every_time_in_it(
    now: float, away: float, tenant: str, learner: str, zone: str | None, place: float
) -> None:
    moment = moment_at(tenant, learner, now, last_answered_at=now - away, time_zone=zone)
    assert moment.holds(now)
    assert not moment.holds(moment.end)
    other = between(moment, place)
    assert moment_at(tenant, learner, other, last_answered_at=now - away, time_zone=zone) == moment


@given(times, aways, learners, places)
def test_what_has_passed_since_the_last_answer_grows_by_a_hundredth_or_half_a_minute(
    now: float, away: float, learner: str, place: float
) -> None:
    last = now - away
    moment = moment_at("t", learner, now, last_answered_at=last, time_zone="UTC")
    assert moment.start >= last, "what was learned is never ahead"
    assert moment.end - moment.start <= max(LENGTHS[0], SHARE * (moment.start - last) + 1e-6)
    assert moment.end - moment.start <= LENGTHS[-1]


@given(times, st.floats(-3600.0, -1e-3), learners)
def test_a_last_answer_that_is_yet_to_come_ends_the_moment_before_it(
    now: float, away: float, learner: str
) -> None:
    moment = moment_at("t", learner, now, last_answered_at=now - away, time_zone="UTC")
    assert moment.end <= now - away
    assert moment.end - moment.start <= LENGTHS[0]


@given(times, st.floats(0.01, 1e4), st.floats(2.0, 7.0), st.floats(0.0, 3.0), st.floats(0.1, 0.8), learners)
def test_recall_hardly_falls_within_a_moment(
    now: float, stability: float, away: float, before: float, decay: float, learner: str
) -> None:
    last = now - 10.0**away
    practised = last - (10.0**before - 1.0) * DAY
    moment = moment_at("t", learner, now, last_answered_at=last, time_zone=None)

    def fall(exponent: float) -> float:
        first, end = ((at - practised) / DAY for at in moment)
        return retrievability(first, stability, exponent) - retrievability(end, stability, exponent)

    if moment.end - moment.start > LENGTHS[0]:
        assert fall(decay) <= 0.0024
        assert fall(float(DEFAULT_WEIGHTS[20])) <= 0.001


@given(times, st.sampled_from(ZONES), learners, places)
def test_no_moment_goes_over_the_edge_of_the_night(now: float, zone: str, learner: str, place: float) -> None:
    moment = moment_at("t", learner, now, last_answered_at=0.0, time_zone=zone)
    told = {
        fatigue(Context(local_hour=local_hour(at, zone)))
        for at in (moment.start, between(moment, place), now)
    }
    assert len(told) == 1


@pytest.mark.parametrize("edge", [22, 6])
def test_night_begins_and_ends_on_the_hour_where_the_learner_is(edge: int) -> None:
    hour = NOW - NOW % DAY + (edge - 5.75) * 3_600.0
    for number in range(20):
        learner = f"learner-{number}"
        after = moment_at("t", learner, hour, last_answered_at=0.0, time_zone="Asia/Kathmandu")
        before = moment_at("t", learner, hour - 1.0, last_answered_at=0.0, time_zone="Asia/Kathmandu")
        assert (before.end, after.start) == (hour, hour)
    elsewhere = [moment_at("t", f"{n}", hour, last_answered_at=0.0, time_zone="UTC").start for n in range(20)]
    assert len(set(elsewhere)) > 10


@pytest.mark.parametrize("away", [60.0, 3 * DAY, NOW])
def test_moments_of_learners_do_not_begin_together(away: float) -> None:
    starts = {
        moment_at("t", f"learner-{n}", NOW, last_answered_at=NOW - away, time_zone=None).start
        for n in range(50)
    }
    assert len(starts) > 40


@pytest.mark.parametrize(
    ("away", "length"),
    [(100.0, 30.0), (5_000.0, 30.0), (7_000.0, 60.0), (4e4, 300.0), (2e5, 900.0), (NOW, 900.0)],
)
def test_the_longer_a_learner_has_been_away_the_longer_a_moment(away: float, length: float) -> None:
    lengths = set()
    for n in range(50):
        moment = moment_at("t", f"learner-{n}", NOW, last_answered_at=NOW - away, time_zone=None)
        lengths.add(moment.end - moment.start)
    assert max(lengths) == pytest.approx(length)

"""Streaks, freezes and consistency against a life lived date by date: years, time zones, clocks that change, travel."""

import random
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import habits
from engine.learner import Absorbed, LearnerModel, LearnerState, absorb
from engine.types import AnswerBatch
from server.local_days import local_day

ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "Australia/Lord_Howe",
    "Asia/Kathmandu",
    "Asia/Tehran",
    "Pacific/Auckland",
    "Pacific/Honolulu",
    "Pacific/Kiritimati",
    "Pacific/Niue",
)


class Practice(NamedTuple):
    """An answer, and the zone that the learner was in."""

    at: datetime
    zone: str

    @property
    def date(self) -> date:
        return self.at.astimezone(ZoneInfo(self.zone)).date()


class Life:
    """What a learner's calendar shows, one date at a time."""

    def __init__(self, *, travels: bool) -> None:
        self.travels = travels
        self.practised: set[date] = set()
        self.newest: Practice | None = None
        self.newest_date = date.min
        self.streak = self.longest = self.freezes = self.spent = 0
        self.milestones: list[tuple[date, int]] = []

    def missed_before(self, today: date, at: datetime) -> int:
        """Dates without practice since the newest one with practice, for which there was time."""
        missed = 0
        day = self.newest_date + timedelta(days=1)
        while day < today:
            missed += 1
            day += timedelta(days=1)
        if self.travels and self.newest is not None:
            while missed > 0 and at - self.newest.at < timedelta(days=missed, hours=-1):
                missed -= 1
        return missed

    def practise(self, practice: Practice) -> None:
        today = practice.date
        if self.newest is None or today > self.newest_date:
            missed = self.missed_before(today, practice.at) if self.newest is not None else 99
            if missed <= self.freezes:
                for _ in range(missed):
                    self.freezes -= 1
                    self.spent += 1
                self.streak += 1
            else:
                self.streak = 1
            if self.streak in (3, 7, 14, 30, 60, 100, 365):
                self.milestones.append((today, self.streak))
            if self.streak % 7 == 0 or self.streak in (30, 60, 100, 365):
                self.freezes = min(2, self.freezes + 1)
            self.longest = max(self.longest, self.streak)
            self.newest_date = today
        self.newest = practice
        self.practised.add(today)

    def read(self, today: date, at: datetime) -> tuple[int, int, int, int]:
        """(streak, longest, freezes, freezes used) as they stand."""
        missed = self.missed_before(today, at) if self.newest is not None else 0
        if self.streak == 0 or missed > self.freezes:
            return 0, self.longest, self.freezes, self.spent
        return self.streak, self.longest, self.freezes - missed, self.spent + missed

    def consistency(self, today: date, first: date) -> float | None:
        """Share of five days a week, by weeks that end yesterday, each 0.8 of the one after it."""
        total = weight = 0.0
        for week in range(5):
            days = [today - timedelta(days=7 * week + back) for back in range(1, 8)]
            if days[-1] < first:
                break
            done = sum(day in self.practised for day in days)
            total += 0.8**week * min(done / 5, 1.0)
            weight += 0.8**week
        return total / weight if weight else None


def lived(seed: int, *, travels: bool) -> list[Practice]:
    """Years of practice: daily for a while, then not, late in the evening or at any hour."""
    rng = random.Random(seed)
    at = datetime(rng.randint(2012, 2024), 1, 1, tzinfo=UTC) + timedelta(hours=rng.uniform(0, 8_000))
    zone = rng.choice(ZONES)
    practices: list[Practice] = []
    while len(practices) < 400:
        usual = rng.choice((23.0, 24.0, 24.0, 30.0, 60.0))
        for _ in range(rng.randint(1, 60)):
            at += timedelta(hours=max(rng.gauss(usual, rng.choice((0.5, 4.0))), 0.01))
            if travels and rng.random() < 0.15:
                zone = rng.choice(ZONES)
            practices += [Practice(at, zone)]
            if rng.random() < 0.1:
                at += timedelta(days=rng.randint(1, 4))
    return practices


def answered(practices: list[Practice]) -> Absorbed:
    """The answers as the server takes them in: their days are those of the learner's zone at that time."""
    n = len(practices)
    times = [practice.at.timestamp() for practice in practices]
    batch = AnswerBatch(
        question=np.zeros(n, np.uint32),
        correct=np.ones(n, np.uint8),
        answered_at=np.array(times),
        base_logit=np.zeros(n, np.float32),
        grade=np.full(n, 3, np.uint8),
        duration_ms=np.full(n, 60_000, np.uint32),
        hints=np.zeros(n, np.uint8),
        local_day=np.array([local_day(t, p.zone) for t, p in zip(times, practices, strict=True)], np.int32),
        memory_set=np.zeros(n, np.uint16),
        offsets=np.arange(n + 1, dtype=np.int32),
        concept=np.zeros(n, np.uint32),
        weight=np.ones(n, np.float32),
        mastery=np.full(n, np.nan, np.float32),
        mastery_sd=np.full(n, np.nan, np.float32),
    )
    return absorb(LearnerState.empty(), batch, LearnerModel.priors())


@pytest.mark.parametrize("travels", [False, True])
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32), pause_hours=st.floats(0.0, 120.0))
def test_a_life_of_practice_is_counted_as_its_calendar_shows(
    travels: bool, seed: int, pause_hours: float
) -> None:
    """Who stays in one zone is counted by the calendar alone, however clocks change; who travels, by time as well."""
    practices = lived(seed, travels=travels)
    life = Life(travels=travels)
    streaks = []
    for practice in practices:
        life.practise(practice)
        streaks.append(life.streak)
    done = answered(practices)
    assert done.streak.tolist() == streaks
    reached = [(p.date, int(m)) for p, m in zip(practices, done.milestone, strict=True) if m]
    assert reached == life.milestones

    zone = practices[-1].zone
    now = practices[-1].at + timedelta(hours=pause_hours)
    today = Practice(now, zone).date
    day = local_day(now.timestamp(), zone)
    standing = habits.streak(done.state, day, now.timestamp())
    found = (standing.current_days, standing.longest_days, standing.freezes, standing.freezes_spent)
    assert found == life.read(today, now)
    assert standing.practised_today == (today in life.practised)
    first = Practice(practices[0].at, zone).date
    expected = life.consistency(today, first)
    assert habits.consistency(done.state, day, (first - date(1970, 1, 1)).days) == pytest.approx(expected)


def test_a_date_that_a_traveller_skipped_is_not_missed() -> None:
    """Monday evening in Honolulu, then Wednesday morning in Auckland, thirteen hours later: Tuesday never was."""
    honolulu, auckland = "Pacific/Honolulu", "Pacific/Auckland"
    monday = [
        Practice(datetime(2025, 1, 5, 6, tzinfo=UTC) + timedelta(days=day), honolulu) for day in range(3)
    ]
    wednesday = Practice(monday[-1].at + timedelta(hours=13), auckland)
    assert (wednesday.date - monday[-1].date).days == 2
    state = answered(monday).state
    now = wednesday.at.timestamp()
    assert habits.streak(state, local_day(now, auckland), now).current_days == 3
    assert answered([*monday, wednesday]).streak.tolist() == [1, 2, 3, 4]
    stayed = Practice(monday[-1].at + timedelta(hours=48), honolulu)
    assert answered([*monday, stayed]).streak.tolist() == [1, 2, 3, 1]

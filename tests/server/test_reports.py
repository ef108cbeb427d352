"""Reports on days and weeks against a recount of every answer, said slowly."""

import math
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from google.protobuf.json_format import MessageToDict
from google.type.date_pb2 import Date

from genie.v1 import progress_pb2
from server import convert, errors
from tests.server.learner_world import DAY, Goal, World, refused, violations
from tests.server.service_calls import NOW

TODAY = int(NOW // DAY)
ZONES = {"berlin": "Europe/Berlin", "tokyo": "Asia/Tokyo", "lima": "America/Lima", "utc": "UTC"}


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.tenants.close()


class Sent(NamedTuple):
    """An answer as it was sent."""

    learner: str
    concept: str
    at: float
    correct: bool
    seconds: int

    @property
    def day(self) -> int:
        local = datetime.fromtimestamp(self.at, UTC).astimezone(ZoneInfo(ZONES[self.learner]))
        return (local.date() - datetime(1970, 1, 1).date()).days


def practised(world: World, seed: int) -> list[Sent]:
    """Four learners in four zones over six weeks, some answers late."""
    rng = random.Random(seed)
    sent = []
    for learner, zone in ZONES.items():
        world.create(learner, time_zone=zone)
        at = NOW - 45 * DAY
        while at < NOW:
            at += rng.choice((40.0, 90.0, 400.0, 3_000.0, 0.4 * DAY, 0.9 * DAY, 1.3 * DAY))
            concept = rng.choice(("count", "count", "add", "multiply", "shapes"))
            sent.append(Sent(learner, concept, at, rng.random() < 0.7, rng.choice((20, 30, 50))))
    sent = [answer for answer in sent if answer.at < NOW]
    rng.shuffle(sent)
    late = sent[:20]
    for answer in sorted(sent[20:], key=lambda answer: answer.at) + late:
        world.answer(
            answer.learner,
            answer.concept,
            at=answer.at,
            correct=answer.correct,
            seconds=answer.seconds,
            arrives=NOW if answer in late else None,
        )
    return sent


def recount(sent: list[Sent], first: int, last: int) -> dict[str, Any]:
    """What must stand in `PracticeTotals`, but for mastery."""
    inside = [answer for answer in sent if first <= answer.day <= last]
    sessions = 0
    for learner in ZONES:
        mine = sorted((a for a in sent if a.learner == learner), key=lambda a: a.at)
        for before, answer in zip([None, *mine], mine, strict=False):
            if (before is None or answer.at - before.at > 1_800) and first <= answer.day <= last:
                sessions += 1
    return {
        "active_days_count": len({(a.learner, a.day) for a in inside}),
        "sessions_count": sessions,
        "answers_count": len(inside),
        "correct_count": sum(a.correct for a in inside),
        "seconds": sum(a.seconds for a in inside),
    }


def told(totals: Any) -> dict[str, Any]:
    names = ("active_days_count", "sessions_count", "answers_count", "correct_count")
    return {name: getattr(totals, name) for name in names} | {"seconds": totals.practice_duration.seconds}


def events(world: World, learner: str, first: int, last: int) -> tuple[int, int]:
    """(mastered, lost) on these days as GetLearnerProgress counts them over the whole log."""
    days = world.progress(learner_id=learner, days=365).days
    chosen = [day for day in days if first <= convert.day_number(day.date) <= last]
    return sum(d.mastered_concepts_count for d in chosen), sum(d.lost_concepts_count for d in chosen)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_reports_equal_a_recount(world: World, seed: int) -> None:
    sent = practised(world, seed)
    for last in (TODAY - 1, TODAY - 20):
        first = last - 6
        date = convert.calendar_date(last)
        mastered = lost = 0
        for learner in ZONES:
            report = world.weekly(learner, last_date=date)
            mine = [answer for answer in sent if answer.learner == learner]
            assert told(report.practice) == recount(mine, first, last)
            assert told(report.practice_before) == recount(mine, first - 7, first - 1)
            found = (report.practice.mastered_concepts_count, report.practice.lost_concepts_count)
            assert found == events(world, learner, first, last)
            mastered, lost = mastered + found[0], lost + found[1]
            shown = {convert.day_number(day.date): day.answers_count for day in report.days}
            days = sorted({answer.day for answer in mine if first <= answer.day <= last})
            assert shown == {day: sum(answer.day == day for answer in mine) for day in days}
            one = world.daily(learner, date=date)
            assert told(one.practice) == recount(mine, last, last)
            assert told(one.practice_before) == recount(mine, last - 1, last - 1)
        week = world.tenant_week(last_date=date)
        assert told(week.practice) == recount(sent, first, last)
        assert told(week.practice_before) == recount(sent, first - 7, first - 1)
        assert (week.practice.mastered_concepts_count, week.practice.lost_concepts_count) == (mastered, lost)
        inside = [answer for answer in sent if first <= answer.day <= last]
        assert week.active_learners_count == len({answer.learner for answer in inside})
        assert [convert.day_number(day.date) for day in week.days] == list(range(first, last + 1))
        for day in week.days:
            of_day = [answer for answer in inside if answer.day == convert.day_number(day.date)]
            assert day.answers_count == len(of_day)
            assert day.active_learners_count == len({answer.learner for answer in of_day})
            assert day.practice_duration.seconds == sum(answer.seconds for answer in of_day)
        for concept in week.hardest_concepts:
            of_concept = [answer for answer in inside if answer.concept == concept.concept_id]
            assert concept.answers_count == len(of_concept) >= 5
            assert concept.correct_count == sum(answer.correct for answer in of_concept)
            assert concept.learners_count == len({answer.learner for answer in of_concept})
        ranks = [concept.smoothed_accuracy for concept in week.hardest_concepts]
        assert ranks == sorted(ranks)


def test_a_report_stands_beside_what_the_other_methods_say(world: World) -> None:
    practised(world, 4)
    world.goal("utc", goal=Goal(concept_id="multiply"))
    report, stats = world.weekly("utc"), world.stats("utc")
    progress = world.progress(learner_id="utc")
    assert report.streak == stats.streak
    assert report.daily_goal == stats.daily_goal
    assert report.risks == stats.risks
    assert report.consistency == stats.consistency
    assert report.mastered_total_count == stats.mastered_concepts_count
    assert report.due_concepts_count == stats.due_concepts_count
    assert list(report.path) == list(world.plan("utc"))
    assert report.gaps == world.profile("utc").gaps
    assert report.goal_projection == progress.goal_projection
    assert report.velocity.answers_per_week == progress.velocity.answers_per_week
    assert report.velocity.mastered_concepts_per_week == progress.velocity.mastered_concepts_per_week
    for area, other in zip(report.areas, progress.areas, strict=True):
        assert (area.area, area.concepts_count, area.touched_concepts_count) == (
            other.area,
            other.concepts_count,
            other.touched_concepts_count,
        )
        assert area.mean_mastery == pytest.approx(other.mean_mastery)


def test_what_was_mastered_and_lost_is_named(world: World) -> None:
    world.answer("u-1", "count", at=NOW - 3 * DAY, count=12)
    world.answer("u-1", "shapes", at=NOW - 20 * DAY, count=12)
    world.answer("u-1", "shapes", at=NOW - 2 * DAY, correct=False, count=6)
    week = world.weekly("u-1")
    assert list(week.mastered_concept_ids) == ["count"]
    assert list(week.lost_concept_ids) == ["shapes"]
    assert not world.daily("u-1").mastered_concept_ids


def test_streaks_held_and_kept(world: World) -> None:
    def on(learner: str, *days_ago: int) -> None:
        for ago in days_ago:
            world.answer(learner, "count", at=math.floor(NOW / DAY) * DAY - ago * DAY + 3_600)

    on("kept", *range(9, 0, -1))
    on("broke", 9, 8, 7, 4, 3, 2, 1)
    on("stopped", 9, 8, 7)
    on("frozen", *range(14, 3, -1), 1)  # eleven days, of which the seventh earned a freeze: one of two missed
    on("covered", *range(21, 1, -1))  # two freezes in hand, one covers yesterday
    on("came", 3, 2, 1)
    week = world.tenant_week()
    assert (week.streaks_held_count, week.streaks_kept_count) == (5, 2)
    assert week.streaks_kept_share == pytest.approx(2 / 5)
    assert (week.learners_count, week.new_learners_count) == (6, 1)
    assert week.milestones_count == 6
    past = world.tenant_week(last_date=convert.calendar_date(TODAY - 3))
    # "frozen" began anew after that week: its streak counts as broken, though a freeze carried it to the last day.
    assert (past.streaks_held_count, past.streaks_kept_count) == (2, 1)


def test_a_streak_that_a_late_answer_made_whole_is_kept(world: World) -> None:
    for ago in (3, 1, 2):
        world.answer("u-1", "count", at=NOW - ago * DAY, arrives=NOW)
    day = world.tenant_day()
    assert (day.streaks_held_count, day.streaks_kept_count) == (1, 1)
    # The streak's first day lies before the days of the report, and so did the arrival of its answer.
    for ago in (9, 8, 6):
        world.answer("u-2", "count", at=NOW - ago * DAY)
    world.answer("u-2", "count", at=NOW - 7 * DAY, arrives=NOW - 6 * DAY + 300)
    for ago in (5, 4, 3, 2, 1):
        world.answer("u-2", "count", at=NOW - ago * DAY)
    for last in (6, 5, 2, 1):
        day = world.tenant_day(date=convert.calendar_date(TODAY - last))
        assert (day.streaks_held_count, day.streaks_kept_count) == (1 + (last == 2) + (last == 1),) * 2


def test_a_zone_told_after_the_first_answer_does_not_move_its_day(world: World) -> None:
    midnight = math.floor(NOW / DAY) * DAY
    for ago in range(10, 0, -1):
        world.answer("u-1", "count", at=midnight - ago * DAY + 23.5 * 3_600)
    world.create("u-1", time_zone="Asia/Tokyo")
    # In Tokyo it was the day after, but the answers count for the days with which they were logged.
    days = [world.tenant_day(date=convert.calendar_date(TODAY - ago)) for ago in (10, 9)]
    assert [(day.active_learners_count, day.new_learners_count) for day in days] == [(1, 1), (1, 0)]
    today = convert.day_number(world.weekly("u-1").period.last_date) + 1
    velocity = world.weekly("u-1").velocity
    assert velocity == world.progress(learner_id="u-1").velocity
    assert velocity.days_count == today - (TODAY - 10) + 1
    assert world.stats("u-1").consistency == world.weekly("u-1").consistency == 1.0
    # An answer that was given before all others, and came last.
    world.answer("u-1", "count", at=midnight - 20 * DAY + 3_600, arrives=NOW)
    assert world.tenant_day(date=convert.calendar_date(TODAY - 20)).new_learners_count == 1
    assert world.tenant_day(date=convert.calendar_date(TODAY - 10)).new_learners_count == 0


def test_who_is_at_risk_and_what_many_are_stuck_at(world: World) -> None:
    for learner in ("a", "b", "c"):
        world.answer(learner, "count", at=NOW - 9 * DAY, correct=False, count=2)
        world.answer(learner, "add", at=NOW - 8.5 * DAY, correct=False, count=2)
    world.answer("gone", "count", at=NOW - 40 * DAY)
    world.create("d", display_name="Dana")
    week = world.tenant_week()
    assert (week.learners_count, week.active_learners_count, week.lapsed_learners_count) == (5, 0, 1)
    assert not week.HasField("practice_duration_per_active_learner")
    assert not week.HasField("streaks_kept_share")
    assert week.at_risk_learners_count == 3
    assert [(count.reason, count.learners_count) for count in week.risk_counts] == [
        (progress_pb2.RISK_REASON_AWAY, 3)
    ]
    assert [learner.learner_id for learner in week.at_risk_learners] == ["a", "b", "c"]
    gaps = [(gap.concept_id, gap.cause_concept_id, gap.learners_count) for gap in week.common_gaps]
    assert gaps == [("count", "", 3), ("add", "count", 3)]
    # Path of the next week: a review of both concepts for three learners, of count for one, and what is open.
    reviews = {concept.concept_id: concept.review_learners_count for concept in week.path}
    assert reviews["count"] == 4
    assert reviews["add"] == 3
    openings = {concept.concept_id: concept.opening_learners_count for concept in week.path}
    plans = [world.plan(learner) for learner in ("a", "b", "c", "d", "gone")]
    for concept, count in openings.items():
        assert count == sum(concept in day.opening_concept_ids for plan in plans for day in plan)


def test_a_day_is_the_learners_own_and_yesterday_unless_named(world: World) -> None:
    midnight = math.floor(NOW / DAY) * DAY
    world.create("tokyo", time_zone="Asia/Tokyo")
    world.answer("tokyo", "count", at=midnight - 5 * 3_600)  # 04:00 of today in Tokyo
    noon = midnight + 3_600
    report = world.daily("tokyo", noon)
    assert MessageToDict(report.period) == MessageToDict(world.daily("tokyo", noon).period)
    assert convert.day_number(report.period.last_date) == TODAY - 1
    assert report.practice.answers_count == 0
    assert world.daily("tokyo", noon, date=convert.calendar_date(TODAY)).practice.answers_count == 1
    # In Tokyo the day is over nine hours before it is in UTC.
    later = midnight + 16 * 3_600
    assert convert.day_number(world.daily("tokyo", later).period.last_date) == TODAY
    assert convert.day_number(world.tenant_day(later).period.last_date) == TODAY - 1


def test_nobody_and_nothing(world: World) -> None:
    empty = world.tenant_week()
    assert (empty.learners_count, len(empty.days), empty.practice.answers_count) == (0, 7, 0)
    world.create("new")
    report = world.weekly("new")
    assert not report.days
    told_fields = {field.name for field, _ in report.ListFields()}
    assert not told_fields & {"consistency", "velocity", "goal_projection"}
    assert len(report.path) == 7
    assert refused(errors.LearnerNotFound, lambda: world.weekly("nobody")) == {"learner_id": "nobody"}


def test_dates_that_are_none_are_refused(world: World) -> None:
    world.create("new")
    tomorrow = datetime.fromtimestamp(NOW, UTC).date() + timedelta(days=1)
    wrong = [
        Date(year=2026, month=2, day=30),
        Date(year=2026, month=5),
        Date(year=1969, month=12, day=31),
        Date(year=tomorrow.year, month=tomorrow.month, day=tomorrow.day + 1),
    ]
    for date in wrong:
        assert violations(partial(world.daily, "new", date=date)) == ["date"]
        assert violations(partial(world.tenant_week, last_date=date)) == ["last_date"]

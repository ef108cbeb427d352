"""GetLearnerProgress: days, areas, speed and goal from a learner's whole log. Costs in proportion to its answers."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from engine.catalog import Catalog
from engine.forecast import FARTHEST_DAYS, WINDOW_DAYS, forecast, speed
from engine.history import DayHistory, area_history, day_history, every_day
from engine.learner import ConceptView
from engine.streaks import StreakLengths, streak_lengths
from engine.types import LearnerGoal, LearnerProfile
from genie.v1 import learner_service_pb2 as pb
from genie.v1 import progress_pb2, resources_pb2
from server import convert
from server.learner_views import milestone_messages
from server.local_days import local_day
from server.services.paging import Page, take_page
from server.services.plans import goal_gap
from store.answer_log import AnswerLog

Flags = npt.NDArray[np.bool_]


def progress_message(
    profile: LearnerProfile,
    log: AnswerLog,
    catalog: Catalog,
    view: ConceptView,
    now: float,
    area: str,
    days: int,
) -> pb.GetLearnerProgressResponse:
    """The reply for the last `days` days; `log` in the order in which it is applied."""
    today = local_day(now, profile.time_zone)
    first_day = today + 1 - days
    all_days = whole_history(log)
    first = int(log.batch.local_day[0]) if log.size else None
    shown = all_days if not area else _history(log, *_chosen(log, catalog, area))
    return pb.GetLearnerProgressResponse(
        days=day_messages(shown, first_day=first_day),
        areas=area_messages(log, catalog, view, area, first_day=first_day),
        velocity=velocity_message(all_days, first, today, before=True),
        goal_projection=projection_message(profile.goal, all_days, first, view, catalog, today, now),
    )


def whole_history(log: AnswerLog) -> DayHistory:
    """Every day of a log, over all areas."""
    return _history(log, np.ones(log.size, np.bool_), np.ones(len(log.batch.concept), np.bool_))


def velocity_message(
    days: DayHistory, first: int | None, today: int, *, before: bool
) -> progress_pb2.Velocity | None:
    """How fast the learner moved in the four weeks up to `today`; None before the first answer, given on day `first`.

    `days` are complete for these four weeks and, with `before`, for those before them.
    """
    if first is None or first > today:
        return None
    start = max(first, today + 1 - WINDOW_DAYS)
    latest = every_day(days, start, today)
    found = speed(latest.answers, latest.seconds, latest.mastered, latest.lost)
    message = progress_pb2.Velocity(
        days_count=found.days,
        answers_per_week=found.answers_per_week,
        practice_duration_per_week=convert.duration(found.seconds_per_week),
        mastered_concepts_per_week=found.mastered_per_week,
        mastered_concepts_per_week_sd=found.mastered_per_week_sd,
    )
    if before and first <= start - WINDOW_DAYS:
        earlier = every_day(days, start - WINDOW_DAYS, start - 1)
        net = int(earlier.mastered.sum() - earlier.lost.sum())
        message.mastered_concepts_per_week_before = net * 7.0 / WINDOW_DAYS
    if not np.isnan(found.answers_per_concept):
        message.answers_per_mastered_concept = found.answers_per_concept
    return message


def projection_message(
    goal: LearnerGoal,
    days: DayHistory,
    first: int | None,
    view: ConceptView,
    catalog: Catalog,
    today: int,
    now: float,
) -> progress_pb2.GoalProjection | None:
    """When the goal's concept may be mastered; None without one that the catalogue holds. `days` as for the speed."""
    gap = goal_gap(goal, view, catalog)
    if gap is None:
        return None
    message = progress_pb2.GoalProjection(concept_id=goal.concept_id, gap_concepts_count=len(gap))
    if not gap or first is None or first > today:
        return message
    latest = every_day(days, max(first, today + 1 - WINDOW_DAYS), today)
    found = forecast(len(gap), latest.answers, int(latest.mastered.sum() - latest.lost.sum()))
    if found is None:
        return message
    for field, ahead in (
        (message.earliest_date, found.early_days),
        (message.expected_date, found.median_days),
        (message.latest_date, found.late_days),
    ):
        if ahead <= FARTHEST_DAYS:
            field.CopyFrom(convert.calendar_date(today + round(ahead)))
    if found.median_days <= FARTHEST_DAYS:
        message.expected_answers = found.median_answers
    if goal.due_at > 0.0:
        message.on_time_chance = found.chance_within((goal.due_at - now) / convert.DAY_SECONDS)
    return message


def streaks_of(log: AnswerLog) -> StreakLengths:
    """What each answer of a whole log, in the order in which it is applied, did to the streak.

    What was told stands, unless an answer came late: then streaks are those of the days as they are known now.
    """
    if not log.late.any():
        return StreakLengths(log.streak, log.milestone)
    return streak_lengths(log.batch.local_day, log.batch.answered_at)


def reached_milestones(log: AnswerLog) -> list[tuple[int, int]]:
    """(Day, streak in days) of every milestone that a whole log leads to, in its order."""
    milestone = streaks_of(log).milestone
    at = np.flatnonzero(milestone)
    return list(zip(log.batch.local_day[at].tolist(), milestone[at].tolist(), strict=True))


def milestones_page(log: AnswerLog, page: Page) -> pb.ListMilestonesResponse:
    """A page of the milestones of a whole log, oldest first; a page's key is day and length of the streak."""
    # No answer is given before 1970, but its day may lie one before.
    keyed = ((f"{day + 1:08d}-{streak:04d}", day, streak) for day, streak in sorted(reached_milestones(log)))
    following = ((day, streak) for key, day, streak in keyed if key > page.after)
    messages = (message for day, streak in following for message in milestone_messages(streak, day))
    milestones, token = take_page(page, messages, _milestone_key)
    return pb.ListMilestonesResponse(milestones=milestones, next_page_token=token)


def _milestone_key(message: resources_pb2.Milestone) -> str:
    reached = message.reached_date
    day = convert.day_number(reached)
    return f"{day + 1:08d}-{message.threshold:04d}"


def area_rows(catalog: Catalog, area: str) -> Flags:
    """(nc,) which concepts are of the area; all there are when it is empty."""
    chosen: Flags = catalog.concept_active == 1
    if area:
        chosen &= catalog.area_code == (catalog.areas.index(area) if area in catalog.areas else -1)
    return chosen


def day_messages(days: DayHistory, *, first_day: int) -> list[progress_pb2.DayProgress]:
    """Days with answers from `first_day` on."""
    return [
        progress_pb2.DayProgress(
            date=convert.calendar_date(int(days.day[i])),
            answers_count=int(days.answers[i]),
            correct_count=int(days.correct[i]),
            practice_duration=convert.duration(float(days.seconds[i])),
            mastered_concepts_count=int(days.mastered[i]),
            lost_concepts_count=int(days.lost[i]),
        )
        for i in np.flatnonzero(days.day >= first_day)
    ]


def area_messages(
    log: AnswerLog, catalog: Catalog, view: ConceptView, area: str, *, first_day: int
) -> list[progress_pb2.AreaProgress]:
    """Areas by name, as the learner stands now and stood at the end of each day from `first_day` on."""
    rows = area_rows(catalog, area)
    history = area_history(log.batch, catalog.area_code, rows)
    messages = []
    for code in sorted(set(catalog.area_code[rows].tolist()), key=lambda code: catalog.areas[code]):
        of_area = np.flatnonzero(rows & (catalog.area_code == code))
        points = np.flatnonzero((history.area == code) & (history.day >= first_day))
        messages.append(
            progress_pb2.AreaProgress(
                area=catalog.areas[code],
                concepts_count=len(of_area),
                touched_concepts_count=int((view.attempts[of_area] > 0).sum()),
                mastered_concepts_count=int(view.mastered[of_area].sum()),
                mean_mastery=float(view.mastery[of_area].mean()),
                points=[
                    progress_pb2.MasteryPoint(
                        date=convert.calendar_date(int(history.day[i])),
                        mean_mastery=float(history.mean_mastery[i]),
                        touched_concepts_count=int(history.touched[i]),
                    )
                    for i in points
                ],
            )
        )
    return messages


def area_standings(catalog: Catalog, view: ConceptView) -> list[progress_pb2.AreaProgress]:
    """Every area by name, as the learner stands now."""
    there = np.flatnonzero(catalog.concept_active)
    code, size = catalog.area_code[there], len(catalog.areas)
    concepts = np.bincount(code, minlength=size)
    touched = np.bincount(code, view.attempts[there] > 0, minlength=size)
    mastered = np.bincount(code, view.mastered[there], minlength=size)
    mastery = np.bincount(code, view.mastery[there], minlength=size) / np.maximum(concepts, 1)
    return [
        progress_pb2.AreaProgress(
            area=catalog.areas[place],
            concepts_count=int(concepts[place]),
            touched_concepts_count=int(touched[place]),
            mastered_concepts_count=int(mastered[place]),
            mean_mastery=float(mastery[place]),
        )
        for place in sorted(np.flatnonzero(concepts).tolist(), key=lambda place: catalog.areas[place])
    ]


def _history(log: AnswerLog, answers: Flags, pairs: Flags) -> DayHistory:
    return day_history(log.batch, log.crossed, chosen=answers, pair_chosen=pairs)


def _chosen(log: AnswerLog, catalog: Catalog, area: str) -> tuple[Flags, Flags]:
    """((n,) answers of the area, (m,) pairs of the area): an answer belongs to the areas of its question's concepts."""
    facts = log.batch
    rows = area_rows(catalog, area)
    known = facts.concept < rows.shape[0]
    pairs = np.zeros(len(facts.concept), np.bool_)
    pairs[known] = rows[facts.concept[known]]
    own = pairs & (facts.weight >= 1.0)
    answers = np.array([own[start:end].any() for start, end in pairwise(facts.offsets.tolist())], np.bool_)
    return answers, pairs

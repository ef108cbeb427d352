"""GetLearningProfile: how a learner learns, each part only when the evidence carries it. Reads no store."""

from collections import Counter
from typing import Final

import numpy as np

from engine import habits
from engine.catalog import Catalog
from engine.gaps import find_gaps
from engine.history import better_hours, session_seconds
from engine.learner import ConceptView, LearnerState
from engine.policy import Policy
from engine.recommend import pool_seed_of
from engine.target import target_for
from engine.types import LearnerProfile
from genie.v1 import progress_pb2
from server import convert
from server.learner_views import gap_messages, masteries, touched_rows
from server.local_days import local_day, local_hour
from server.rpc import Call
from store.answer_log import AnswerLog

LATEST_ANSWERS: Final = 500
"""Answers that pace and hours are read from."""
LEAST_ANSWERS: Final = 5
"""Evidence for recent accuracy and pace."""
LEAST_ANSWERS_FOR_HOURS: Final = 20
LEAST_ATTEMPTS: Final = 3
"""Answers of its own that a concept needs to be called strong or weak."""
MOST_HOURS: Final = 3
MOST_CONCEPTS: Final = 5
MOST_GAPS: Final = 10
LEAST_SESSIONS: Final = 3
"""Sessions that a usual length is read from."""


def learning_profile_message(
    profile: LearnerProfile,
    state: LearnerState,
    first_day: int | None,
    view: ConceptView,
    catalog: Catalog,
    latest: AnswerLog,
    policy: Policy,
    call: Call,
) -> progress_pb2.LearningProfile:
    """The profile now; `latest` are the learner's newest answers, at most `LATEST_ANSWERS`, in any order.

    `first_day` is that of the first answer, None before it; `policy` is that of whoever names none.
    """
    now = call.now
    header = state.header[0]
    seed = pool_seed_of(call.tenant, profile.learner_id, state.applied)
    message = progress_pb2.LearningProfile(
        learner_id=profile.learner_id,
        evidence_answers_count=state.applied,
        target_success=target_for(state, policy, seed),
    )
    if first_day is None:
        return message
    message.ability = float(header["mean"][0])
    message.ability_sd = float(np.sqrt(header["variance"][0]))
    if state.applied >= LEAST_ANSWERS:
        message.recent_accuracy = habits.recent_accuracy(state) or 0.0
    recall = view.retrievability[touched_rows(state, catalog)]
    if np.isfinite(recall).any():
        message.mean_retrievability = float(np.nanmean(recall))
    pace = _pace(latest, catalog)
    if pace is not None:
        message.pace_ratio = pace
    today = local_day(now, profile.time_zone)
    days = habits.practice_days(state, today + 1, habits.GOAL_DAYS)
    if days.shape[0] >= habits.GOAL_EVIDENCE_DAYS and np.median(days) > 0.0:
        message.typical_daily_duration.CopyFrom(convert.duration(float(np.median(days))))
    share = habits.active_share(state, today, first_day)
    if share is not None:
        message.active_days_share = share
    session = _session_seconds(latest)
    if session is not None:
        message.typical_session_duration.CopyFrom(convert.duration(session))
    hours = [local_hour(at, profile.time_zone) for at in latest.batch.answered_at.tolist()]
    message.preferred_hours.extend(_preferred_hours(hours))
    surprise = latest.batch.correct.astype(np.float64) - latest.predicted
    message.best_hours.extend(better_hours(np.array(hours, np.int64), surprise)[:MOST_HOURS])
    strong, weak = _extremes(state, view, catalog)
    message.strengths.extend(masteries(catalog, view, strong, now))
    message.weaknesses.extend(masteries(catalog, view, weak, now))
    message.gaps.extend(gap_messages(find_gaps(state, view, catalog, most=MOST_GAPS), view, catalog))
    return message


def _pace(latest: AnswerLog, catalog: Catalog) -> float | None:
    """The median of time taken over time expected; None without enough timed answers to questions that are there."""
    facts = latest.batch
    known = (facts.duration_ms > 0) & (facts.question < catalog.question_count)
    known[known] = catalog.question_active[facts.question[known]] == 1
    if int(known.sum()) < LEAST_ANSWERS:
        return None
    expected = catalog.expected_seconds[facts.question[known]].astype(np.float64)
    return float(np.median(facts.duration_ms[known] / 1e3 / expected))


def _session_seconds(latest: AnswerLog) -> float | None:
    """The median length of sessions; None without enough of them. The oldest may have begun before `latest` does."""
    order = np.argsort(latest.batch.answered_at, kind="stable")
    lengths = session_seconds(latest.batch.answered_at[order], latest.batch.duration_ms[order] / 1e3)
    if latest.size >= LATEST_ANSWERS:
        lengths = lengths[1:]
    return float(np.median(lengths)) if lengths.shape[0] >= LEAST_SESSIONS else None


def _preferred_hours(hours: list[int]) -> list[int]:
    if len(hours) < LEAST_ANSWERS_FOR_HOURS:
        return []
    counts = Counter(hours)
    return sorted(counts, key=lambda hour: (-counts[hour], hour))[:MOST_HOURS]


def _extremes(state: LearnerState, view: ConceptView, catalog: Catalog) -> tuple[list[int], list[int]]:
    """(strongest, weakest) concepts with enough answers, none in both."""
    rows = touched_rows(state, catalog)
    rows = rows[view.attempts[rows] >= LEAST_ATTEMPTS]
    ranked: list[int] = rows[np.argsort(-view.mastery[rows], kind="stable")].tolist()
    half = (len(ranked) + 1) // 2
    return ranked[: min(half, MOST_CONCEPTS)], ranked[half:][::-1][:MOST_CONCEPTS]

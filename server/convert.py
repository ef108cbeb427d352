"""Wire messages to engine values and back, for what several services share. Checks shapes and ranges, no store."""

import math
from datetime import date, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.type.date_pb2 import Date

from engine.types import Concept, LearnerGoal, LearnerProfile, Prerequisite, Question
from genie.v1 import resources_pb2
from server.validate import Violations

DAY_SECONDS = 86_400.0
MOST_TITLE = 256
MOST_NAME = 128
MOST_DESCRIPTION = 4_000
MOST_TEXT = 10_000
MOST_TAGS = 32
MOST_TAG = 64
MOST_PREREQUISITES = 64
MOST_CONCEPTS_PER_QUESTION = 16
LEAST_EMBEDDING = 8
MOST_EMBEDDING = 1_024
MOST_LABELS = 32
MOST_LABEL = 256

_EPOCH = date(1970, 1, 1)


def timestamp(seconds: float) -> Timestamp:
    """A Timestamp of epoch seconds, to the microsecond (a float of this size holds no more)."""
    micros = round(seconds * 1e6)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1_000)


def known_time(seconds: float) -> Timestamp | None:
    """The same, and None for what never happened (0, NaN or infinity)."""
    return timestamp(seconds) if seconds > 0.0 and math.isfinite(seconds) else None


def duration(seconds: float) -> Duration:
    """A Duration of seconds, to the microsecond."""
    micros = round(seconds * 1e6)
    return Duration(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1_000)


def known_duration(seconds: float) -> Duration | None:
    """The same, and None for 0: not known."""
    return duration(seconds) if seconds > 0.0 and math.isfinite(seconds) else None


def calendar_date(local_day: int) -> Date:
    """The calendar date of a day number (0 is 1970-01-01)."""
    day = _EPOCH + timedelta(days=local_day)
    return Date(year=day.year, month=day.month, day=day.day)


def day_number(day: Date) -> int:
    """The day number of a whole calendar date. Raises ValueError for any other."""
    return (date(day.year, day.month, day.day) - _EPOCH).days


def optional_duration(check: Violations, field: str, message: Any, name: str) -> float:
    """Seconds of an optional Duration of at most a day; 0 when it is unset."""
    if not message.HasField(name):
        return 0.0
    return check.duration(field, getattr(message, name), most_seconds=DAY_SECONDS)


def concept_from(check: Violations, message: resources_pb2.Concept, *, now: float) -> Concept:
    """A concept as the caller describes it; its row is 0 until the store gives one."""
    check.identifier("concept_id", message.concept_id)
    check.text("title", message.title, most=MOST_TITLE)
    check.text("topic", message.topic, most=MOST_NAME)
    check.text("area", message.area, most=MOST_NAME)
    check.text("description", message.description, most=MOST_DESCRIPTION)
    check.texts("tags", message.tags, most=MOST_TAGS, most_characters=MOST_TAG)
    check.size("prerequisites", len(message.prerequisites), most=MOST_PREREQUISITES)
    seen: set[str] = set()
    prerequisites = []
    for index, entry in enumerate(message.prerequisites[:MOST_PREREQUISITES]):
        field = f"prerequisites[{index}]"
        check.identifier(f"{field}.concept_id", entry.concept_id)
        check.enum(f"{field}.hardness", entry.hardness, resources_pb2.PrerequisiteHardness)
        if entry.concept_id in seen:
            check.add(f"{field}.concept_id", "is listed twice")
        seen.add(entry.concept_id)
        encompassed = None
        if entry.HasField("encompassed_weight"):
            encompassed = check.number(
                f"{field}.encompassed_weight", entry.encompassed_weight, least=0.0, most=1.0
            )
        hard = entry.hardness != resources_pb2.PREREQUISITE_HARDNESS_SOFT
        prerequisites.append(Prerequisite(entry.concept_id, hard, encompassed))
    return Concept(
        concept_id=message.concept_id,
        row=0,
        title=message.title,
        topic=message.topic,
        area=message.area,
        description=message.description,
        prerequisites=tuple(prerequisites),
        typical_seconds=optional_duration(check, "typical_duration", message, "typical_duration"),
        tags=tuple(message.tags),
        created_at=now,
        updated_at=now,
    )


def prerequisite_message(prerequisite: Prerequisite) -> resources_pb2.Prerequisite:
    """An edge of the graph as the catalogue holds it."""
    hard = prerequisite.hard
    return resources_pb2.Prerequisite(
        concept_id=prerequisite.concept_id,
        hardness=resources_pb2.PREREQUISITE_HARDNESS_HARD
        if hard
        else resources_pb2.PREREQUISITE_HARDNESS_SOFT,
        encompassed_weight=prerequisite.encompassed,
    )


def concept_message(concept: Concept, importance: float) -> resources_pb2.Concept:
    """A concept as stored, with its importance in the graph (0 to 1)."""
    return resources_pb2.Concept(
        concept_id=concept.concept_id,
        title=concept.title,
        topic=concept.topic,
        area=concept.area,
        description=concept.description,
        prerequisites=map(prerequisite_message, concept.prerequisites),
        typical_duration=known_duration(concept.typical_seconds),
        tags=concept.tags,
        importance=importance,
        create_time=known_time(concept.created_at),
        update_time=known_time(concept.updated_at),
    )


def question_from(check: Violations, message: resources_pb2.Question, *, now: float) -> Question:
    """A question as the caller describes it, without rows: its concepts' ids are in the message."""
    check.identifier("question_id", message.question_id)
    check.identifiers("concept_ids", message.concept_ids, least=1, most=MOST_CONCEPTS_PER_QUESTION)
    check.text("text", message.text, most=MOST_TEXT)
    check.texts("tags", message.tags, most=MOST_TAGS, most_characters=MOST_TAG)
    difficulty = None
    if message.HasField("difficulty"):
        difficulty = check.number("difficulty", message.difficulty, least=0.0, most=1.0)
    return Question(
        question_id=message.question_id,
        row=0,
        concept_rows=(),
        text=message.text,
        difficulty=difficulty,
        expected_seconds=optional_duration(check, "expected_duration", message, "expected_duration"),
        tags=tuple(message.tags),
        embedding=check.embedding("embedding", message.embedding, least=LEAST_EMBEDDING, most=MOST_EMBEDDING),
        created_at=now,
        updated_at=now,
    )


def question_message(question: Question, concept_ids: list[str]) -> resources_pb2.Question:
    """A question as stored, with the ids of its concepts."""
    return resources_pb2.Question(
        question_id=question.question_id,
        concept_ids=concept_ids,
        text=question.text,
        difficulty=question.difficulty,
        expected_duration=known_duration(question.expected_seconds),
        tags=question.tags,
        embedding=question.embedding,
        create_time=known_time(question.created_at),
        update_time=known_time(question.updated_at),
    )


def goal_from(check: Violations, message: resources_pb2.Goal) -> LearnerGoal:
    """A goal as the caller sets it; whether its concept exists is for the service to say."""
    check.identifier("concept_id", message.concept_id, required=False)
    due_at = 0.0
    if message.HasField("due_time"):
        due_at = check.timestamp("due_time", message.due_time, now=0.0, most_ahead_seconds=math.inf)
    seconds = optional_duration(check, "daily_duration", message, "daily_duration")
    return LearnerGoal(concept_id=message.concept_id, daily_minutes=seconds / 60.0, due_at=due_at)


def goal_message(goal: LearnerGoal) -> resources_pb2.Goal | None:
    """A goal as stored; None when nothing is set."""
    if goal == LearnerGoal():
        return None
    return resources_pb2.Goal(
        concept_id=goal.concept_id,
        daily_duration=known_duration(goal.daily_minutes * 60.0),
        due_time=known_time(goal.due_at),
    )


def labels_from(check: Violations, field: str, labels: Any) -> dict[str, str]:
    """A platform's own notes about a learner."""
    check.size(field, len(labels), most=MOST_LABELS)
    for key, value in labels.items():
        check.text(f"{field}.key", key, most=MOST_TAG, required=True)
        check.text(f"{field}[{key!r}]", value, most=MOST_LABEL)
    return dict(labels)


def profile_from(check: Violations, message: resources_pb2.Learner, *, now: float) -> LearnerProfile:
    """A learner as the caller describes them."""
    check.identifier("learner_id", message.learner_id)
    check.text("display_name", message.display_name, most=MOST_TITLE)
    check.time_zone("time_zone", message.time_zone)
    return LearnerProfile(
        learner_id=message.learner_id,
        display_name=message.display_name,
        time_zone=message.time_zone or "UTC",
        goal=goal_from(check.part("goal"), message.goal),
        labels=labels_from(check, "labels", message.labels),
        created_at=now,
        updated_at=now,
    )


def learner_message(profile: LearnerProfile) -> resources_pb2.Learner:
    """A learner's profile as stored."""
    return resources_pb2.Learner(
        learner_id=profile.learner_id,
        display_name=profile.display_name,
        time_zone=profile.time_zone,
        goal=goal_message(profile.goal),
        labels=profile.labels,
        create_time=known_time(profile.created_at),
        update_time=known_time(profile.updated_at),
    )

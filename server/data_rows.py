"""Rows of concepts, questions and learners as engine values and back. Reads no file and no store."""

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from engine.types import Concept, LearnerGoal, LearnerProfile, Prerequisite, Question
from server import convert
from server.data_tables import Value, split_list
from server.validate import MOST_TIMESTAMP_SECONDS, Violations

DAY_SECONDS = 86_400.0
MOST_DAILY_MINUTES = 1_440.0


def number(cell: str) -> float:
    """The number a cell writes out in ASCII; NaN for anything else."""
    try:
        return float(cell) if cell.isascii() and "_" not in cell else math.nan
    except ValueError:
        return math.nan


def epoch_seconds(cell: str, *, latest: float = math.inf) -> float:
    """Seconds since the Unix epoch of an RFC 3339 time. ValueError with what is allowed."""
    try:
        moment = datetime.fromisoformat(cell)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ValueError("must be an RFC 3339 time with its offset, such as 2026-01-31T09:30:00Z")
    seconds = moment.timestamp()
    if not 0.0 <= seconds <= latest:
        raise ValueError("must be a time from 1970 to now")
    return seconds


def time_text(seconds: float) -> str:
    """An epoch time as RFC 3339 in UTC, to the microsecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class RowCheck:
    """Reads the cells of one row; what is wrong gathers in `violations`."""

    def __init__(self, row: Mapping[str, str]) -> None:
        """Look at one row by column name."""
        self._row = row
        self.violations = Violations()

    def id(self, name: str, *, required: bool = True) -> str:
        """An id."""
        return self.violations.identifier(name, self._row.get(name, ""), required=required)

    def text(self, name: str, most: int) -> str:
        """Free text."""
        return self.violations.text(name, self._row.get(name, ""), most=most)

    def ids(self, name: str, *, least: int = 0, most: int) -> list[str]:
        """Several ids; repeats, which real data holds, are left out."""
        parts = list(dict.fromkeys(split_list(self._row.get(name, ""))))
        return self.violations.identifiers(name, parts, least=least, most=most)

    def tags(self, name: str) -> tuple[str, ...]:
        """Several short texts; empty ones are left out."""
        parts = [part for part in split_list(self._row.get(name, "")) if part]
        found = self.violations.texts(name, parts, most=convert.MOST_TAGS, most_characters=convert.MOST_TAG)
        return tuple(found)

    def number(self, name: str, *, most: float) -> float | None:
        """A number from 0; None for an empty cell."""
        cell = self._row.get(name, "")
        if not cell:
            return None
        value = number(cell)
        if not 0.0 <= value <= most:
            self.violations.add(name, f"must be a number from 0 to {most:g}")
        return value

    def numbers(self, name: str) -> list[float | None]:
        """Several numbers, None where one is left out."""
        values = [number(part) if part else None for part in split_list(self._row.get(name, ""))]
        if not all(value is None or math.isfinite(value) for value in values):
            self.violations.add(name, "must hold finite numbers with ; between them")
        return values

    def time(self, name: str) -> float:
        """An RFC 3339 time as epoch seconds; 0 for an empty cell."""
        cell = self._row.get(name, "")
        if not cell:
            return 0.0
        try:
            return epoch_seconds(cell, latest=MOST_TIMESTAMP_SECONDS)
        except ValueError as error:
            self.violations.add(name, str(error))
            return 0.0

    def labels(self, name: str) -> dict[str, str]:
        """A JSON object of texts."""
        cell = self._row.get(name, "")
        if not cell:
            return {}
        try:
            labels = msgspec.json.decode(cell, type=dict[str, str])
        except msgspec.DecodeError:
            self.violations.add(name, 'must be a JSON object of texts, such as {"class": "7b"}')
            return {}
        self.violations.size(name, len(labels), most=convert.MOST_LABELS)
        for key, value in labels.items():
            self.violations.text(name, key, most=convert.MOST_TAG, required=True)
            self.violations.text(name, value, most=convert.MOST_LABEL)
        return labels


def concept_of(check: RowCheck, *, now: float) -> Concept:
    """A concept; its row is 0 until the store gives one."""
    most = convert.MOST_PREREQUISITES
    hard = check.ids("prerequisite_ids", most=most)
    soft = check.ids("soft_prerequisite_ids", most=most)
    weights = check.numbers("encompassed_weights")
    needed = [(name, True) for name in hard] + [(name, False) for name in soft]
    if set(hard) & set(soft):
        check.violations.add(
            "soft_prerequisite_ids", f"repeats {min(set(hard) & set(soft))} of prerequisite_ids"
        )
    check.violations.size("prerequisite_ids", len(needed), most=most)
    if weights and len(weights) != len(needed):
        rule = f"must hold {len(needed)} numbers, one for each prerequisite, the soft ones last"
        check.violations.add("encompassed_weights", rule)
    if any(weight is not None and not 0.0 <= weight <= 1.0 for weight in weights):
        check.violations.add("encompassed_weights", "must hold numbers from 0 to 1")
    weights = weights or [None] * len(needed)
    return Concept(
        concept_id=check.id("concept_id"),
        row=0,
        title=check.text("title", convert.MOST_TITLE),
        topic=check.text("topic", convert.MOST_NAME),
        area=check.text("area", convert.MOST_NAME),
        description=check.text("description", convert.MOST_DESCRIPTION),
        prerequisites=tuple(
            Prerequisite(name, is_hard, weight)
            for (name, is_hard), weight in zip(needed, weights, strict=False)
        ),
        typical_seconds=check.number("typical_seconds", most=DAY_SECONDS) or 0.0,
        tags=check.tags("tags"),
        created_at=now,
        updated_at=now,
    )


def question_of(check: RowCheck, *, now: float) -> tuple[Question, list[str]]:
    """A question without rows, and the ids of its concepts."""
    embedding = [value for value in check.numbers("embedding") if value is not None]
    check.violations.embedding(
        "embedding", embedding, least=convert.LEAST_EMBEDDING, most=convert.MOST_EMBEDDING
    )
    question = Question(
        question_id=check.id("question_id"),
        row=0,
        concept_rows=(),
        text=check.text("text", convert.MOST_TEXT),
        difficulty=check.number("difficulty", most=1.0),
        expected_seconds=check.number("expected_seconds", most=DAY_SECONDS) or 0.0,
        tags=check.tags("tags"),
        embedding=tuple(embedding),
        created_at=now,
        updated_at=now,
    )
    return question, check.ids("concept_ids", least=1, most=convert.MOST_CONCEPTS_PER_QUESTION)


def learner_of(check: RowCheck, *, now: float) -> LearnerProfile:
    """A learner's profile; created now unless the row says when."""
    zone = check.text("time_zone", convert.MOST_NAME)
    check.violations.time_zone("time_zone", zone)
    goal = LearnerGoal(
        concept_id=check.id("goal_concept_id", required=False),
        daily_minutes=check.number("goal_daily_minutes", most=MOST_DAILY_MINUTES) or 0.0,
        due_at=check.time("goal_due_at"),
    )
    return LearnerProfile(
        learner_id=check.id("learner_id"),
        display_name=check.text("display_name", convert.MOST_TITLE),
        time_zone=zone or "UTC",
        goal=goal,
        labels=check.labels("labels"),
        created_at=check.time("created_at") or now,
        updated_at=now,
    )


def concept_row(concept: Concept) -> dict[str, Value]:
    """A concept as a row; hard prerequisites come before soft ones."""
    ordered = sorted(concept.prerequisites, key=lambda needed: not needed.hard)
    weighted = any(needed.encompassed is not None for needed in ordered)
    return {
        "concept_id": concept.concept_id,
        "title": concept.title,
        "topic": concept.topic,
        "area": concept.area,
        "prerequisite_ids": [needed.concept_id for needed in ordered if needed.hard],
        "soft_prerequisite_ids": [needed.concept_id for needed in ordered if not needed.hard],
        "encompassed_weights": [_optional(needed.encompassed) for needed in ordered] if weighted else [],
        "typical_seconds": concept.typical_seconds or None,
        "description": concept.description,
        "tags": list(concept.tags),
    }


def _optional(value: float | None) -> str:
    return "" if value is None else repr(value)


def question_row(question: Question, concept_ids: Sequence[str]) -> dict[str, Value]:
    """A question as a row."""
    return {
        "question_id": question.question_id,
        "concept_ids": list(concept_ids),
        "difficulty": question.difficulty,
        "text": question.text,
        "tags": list(question.tags),
        "expected_seconds": question.expected_seconds or None,
        "embedding": list(question.embedding),
    }


def learner_row(profile: LearnerProfile) -> dict[str, Value]:
    """A learner's profile as a row."""
    return {
        "learner_id": profile.learner_id,
        "display_name": profile.display_name,
        "time_zone": profile.time_zone,
        "created_at": time_text(profile.created_at) if profile.created_at > 0.0 else None,
        "goal_concept_id": profile.goal.concept_id,
        "goal_daily_minutes": profile.goal.daily_minutes or None,
        "goal_due_at": time_text(profile.goal.due_at) if profile.goal.due_at > 0.0 else None,
        "labels": profile.labels,
    }

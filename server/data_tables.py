"""The import format: which columns each kind of file has, and how a cell holds several values. Reads no file."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import msgspec


class Table(NamedTuple):
    """The columns of one kind of file."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns, the required ones first."""
        return self.required + self.optional


CONCEPTS = Table(
    "concepts",
    ("concept_id",),
    (
        "title",
        "topic",
        "area",
        "prerequisite_ids",
        "soft_prerequisite_ids",
        "encompassed_weights",
        "typical_seconds",
        "description",
        "tags",
    ),
)
QUESTIONS = Table(
    "questions",
    ("question_id", "concept_ids"),
    ("difficulty", "text", "tags", "expected_seconds", "embedding"),
)
LEARNERS = Table(
    "learners",
    ("learner_id",),
    (
        "display_name",
        "time_zone",
        "created_at",
        "goal_concept_id",
        "goal_daily_minutes",
        "goal_due_at",
        "labels",
    ),
)
ANSWERS = Table(
    "answers",
    ("answer_id", "learner_id", "question_id", "correct"),
    ("seconds", "answered_at", "duration_ms", "hints_used", "device", "session_id", "recommendation_id"),
)
TABLES = (CONCEPTS, QUESTIONS, LEARNERS, ANSWERS)
"""In the order in which they are imported: later ones refer to earlier ones."""


Value = str | int | float | list[str] | list[float] | dict[str, str] | None
"""What a column of a written row may hold; None and what is empty leave the cell empty."""


def cell_of(value: object) -> str:
    """A JSON value as the text a CSV cell would hold."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, list):
        return join_list([cell_of(entry) for entry in value])
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    return repr(value)


def join_list(parts: Sequence[str]) -> str:
    """Several values in one cell: `;` between them, or a JSON list when a value would be misread."""
    if any(";" in part for part in parts) or (parts and parts[0].startswith("[")):
        return json.dumps(parts, ensure_ascii=False)
    return ";".join(parts)


def split_list(cell: str) -> list[str]:
    """The values of a cell as `join_list` wrote them, or of a JSON list; an empty cell holds none."""
    if cell.startswith("[") and cell.endswith("]"):
        try:
            return list(map(cell_of, msgspec.json.decode(cell, type=list[str | int | float | None])))
        except msgspec.DecodeError:
            pass
    return cell.split(";") if cell else []


def text_of(value: Value) -> str:
    """A value as the text of its CSV cell."""
    if isinstance(value, list):
        return join_list([text_of(part) for part in value])
    return "" if value is None or value == {} else cell_of(value)

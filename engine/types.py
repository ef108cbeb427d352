"""Values that pass between the layers: catalogue entries and answers as facts. Holds no behaviour beyond checks."""

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

U1 = npt.NDArray[np.uint8]
U2 = npt.NDArray[np.uint16]
U4 = npt.NDArray[np.uint32]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
F4 = npt.NDArray[np.float32]
F8 = npt.NDArray[np.float64]

NO_ROW = 0xFFFFFFFF
"""Row value that stands for "no concept" or "no question"."""


@dataclass(frozen=True, slots=True)
class Prerequisite:
    """An edge of the concept graph: `concept_id` comes before the concept that lists it."""

    concept_id: str
    hard: bool = True
    """A hard prerequisite blocks what needs it; a soft one only lowers readiness."""
    encompassed: float | None = None
    """Share of a review of the prerequisite that practising the dependent concept is worth, 0 to 1; None asks for the
    default."""


@dataclass(frozen=True, slots=True)
class Concept:
    """A skill or piece of knowledge that questions exercise."""

    concept_id: str
    row: int
    title: str = ""
    topic: str = ""
    area: str = ""
    description: str = ""
    prerequisites: tuple[Prerequisite, ...] = ()
    typical_seconds: float = 0.0
    """Usual time for one question of this concept; 0 when unknown."""
    tags: tuple[str, ...] = ()
    created_at: float = 0.0
    updated_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Question:
    """Something a learner answers, right or wrong."""

    question_id: str
    row: int
    concept_rows: tuple[int, ...]
    text: str = ""
    difficulty: float | None = None
    """Share of learners expected to fail, 0 to 1; None when the caller did not say."""
    expected_seconds: float = 0.0
    tags: tuple[str, ...] = ()
    embedding: tuple[float, ...] = ()
    """Content embedding given by the caller; empty when it is to be computed from text and tags."""
    created_at: float = 0.0
    updated_at: float = 0.0


class AnswerBatch(NamedTuple):
    """Answers of ONE learner as resolved facts, in the order they are to be applied.

    All arrays are C-contiguous. n answers exercise m (concept, weight) pairs in all; answer i exercises
    pairs offsets[i]:offsets[i+1]. Pairs of the question's own concepts have weight 1 and come first; concepts it
    encompasses follow with their weight below 1.
    """

    question: U4
    """(n,) question rows."""
    correct: U1
    """(n,) 1 right, 0 wrong."""
    answered_at: F8
    """(n,) seconds since the Unix epoch, not decreasing."""
    base_logit: F4
    """(n,) logit of the question's own smoothed success rate, as known when recorded."""
    grade: U1
    """(n,) FSRS grade: 1 again, 2 hard, 3 good, 4 easy."""
    duration_ms: U4
    """(n,) time taken; 0 when unknown."""
    hints: U1
    """(n,) hints used."""
    local_day: I4
    """(n,) days since 1970-01-01 on the learner's own calendar."""
    memory_set: U2
    """(n,) which row of the tenant's FSRS weight sets applied; row 0 holds the published defaults."""
    offsets: I4
    """(n+1,) start of each answer's pairs."""
    concept: U4
    """(m,) concept rows."""
    weight: F4
    """(m,) 1 for a concept of the question itself, below 1 for an encompassed one."""
    mastery: F4
    """(m,) mastery shown after the answer, a probability; NaN where not computed yet."""
    mastery_sd: F4
    """(m,) its standard deviation, in probability; NaN where not computed yet."""

    @property
    def size(self) -> int:
        """Number of answers (not of fields)."""
        return int(self.question.shape[0])

    def part(self, start: int, stop: int) -> "AnswerBatch":
        """Answers start..stop-1, as views."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        heads = [column[start:stop] for column in self[:9]]
        offsets: I4 = self.offsets[start : stop + 1] - np.int32(first)
        return AnswerBatch._make([*heads, offsets, *(column[first:last] for column in self[10:])])


@dataclass(frozen=True, slots=True)
class LearnerGoal:
    """What the learner works towards."""

    concept_id: str = ""
    daily_minutes: float = 0.0
    due_at: float = 0.0


@dataclass(frozen=True, slots=True)
class LearnerProfile:
    """What a platform tells about a learner; nothing here is derived from answers."""

    learner_id: str
    display_name: str = ""
    time_zone: str = "UTC"
    goal: LearnerGoal = field(default_factory=LearnerGoal)
    labels: dict[str, str] = field(default_factory=dict)
    created_at: float = 0.0
    updated_at: float = 0.0

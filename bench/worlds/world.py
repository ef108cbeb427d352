"""What a simulated classroom has to offer: a catalogue, learners, answers and an exam. Holds no truth of its own."""

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Learner = Any
"""A learner as a world keeps one; nobody else looks inside."""

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class WorldConcept:
    """A concept as the platform tells the recommender of it."""

    concept_id: str
    needs: tuple[str, ...] = ()
    """Hard prerequisites, by id."""
    helps: tuple[str, ...] = ()
    """Soft prerequisites, by id."""
    title: str = ""
    area: str = ""


@dataclass(frozen=True, slots=True)
class WorldQuestion:
    """A question as the platform tells the recommender of it."""

    question_id: str
    concept_ids: tuple[str, ...]
    difficulty: float | None = None
    """Share of learners expected to fail, 0 to 1, as well as the platform knows; None when it does not."""
    seconds: float = 0.0
    """Usual time; 0 when not known."""
    text: str = ""


class World(Protocol):
    """A true model of learners. These attributes and three methods are all that a world needs.

    Concepts come in the order of the textbook: what one needs stands before it. Questions are spoken of by their place
    in `questions`, times are seconds since 1970. All chance must come from the world's seed and the learner's number:
    the same learner, asked the same questions at the same times, answers the same.
    """

    @property
    def name(self) -> str:
        """What reports call it."""

    @property
    def concepts(self) -> Sequence[WorldConcept]:
        """The concepts, in the order of the textbook."""

    @property
    def questions(self) -> Sequence[WorldQuestion]:
        """The questions; elsewhere they are spoken of by their place here."""

    def learner(self, number: int, at: float) -> Learner:
        """Return learner `number`, any whole number from 0 on, as they are at the beginning, `at`."""

    def answer(self, learner: Learner, question: int, at: float) -> tuple[bool, float]:
        """Let the learner answer, and learn from it; return (correct, seconds taken)."""

    def exam(self, learner: Learner, at: float) -> float:
        """Return the share of an exam over the whole curriculum expected right at `at`; changes nothing."""


@runtime_checkable
class SeesGains(Protocol):
    """A world that also knows what a question is worth: with it, there is an oracle to compare with."""

    def gains(self, learner: Learner, at: float, exam_at: float) -> Array:
        """Return (questions,) by how much the exam at `exam_at` is expected to rise if each is asked at `at`.

        By the true state and one step ahead, beside asking nothing.
        """


@runtime_checkable
class Wilful(Protocol):
    """A world whose learners may stay away: minutes practised are an outcome of it."""

    def comes(self, learner: Learner, day: int) -> bool:
        """Return whether the learner practises on day 0, 1, …; asked once a day."""

    def stays(self, learner: Learner) -> bool:
        """Return whether the learner goes on after an answer; asked once an answer."""


def load_world(file: Path, seed: int) -> World:
    """Return what `make_world(seed)` of a Python file returns.

    Raises:
        ValueError: the file has no such function, or what it returns is no world; says what is missing.
    """
    spec = importlib.util.spec_from_file_location(f"world_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ValueError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up by name.
    sys.modules[module.__name__] = module
    spec.loader.exec_module(module)
    make = getattr(module, "make_world", None)
    if make is None:
        raise ValueError(f"{file} has no function make_world(seed)")
    world: World = make(seed)
    check_world(world)
    return world


def check_world(world: World) -> None:
    """Raise ValueError with the first thing that is wrong with a world's interface or catalogue."""
    wanted = ("name", "concepts", "questions", "learner", "answer", "exam")
    missing = [name for name in wanted if not hasattr(world, name)]
    if missing:
        raise ValueError(f"the world lacks {', '.join(missing)}")
    before: set[str] = set()
    for concept in world.concepts:
        if concept.concept_id in before:
            raise ValueError(f"concept {concept.concept_id!r} is listed twice")
        absent = [need for need in (*concept.needs, *concept.helps) if need not in before]
        if absent:
            raise ValueError(
                f"concept {concept.concept_id!r} needs {absent[0]!r}, which does not stand before it"
            )
        before.add(concept.concept_id)
    seen: set[str] = set()
    for question in world.questions:
        if question.question_id in seen:
            raise ValueError(f"question {question.question_id!r} is listed twice")
        seen.add(question.question_id)
        absent = [concept for concept in question.concept_ids if concept not in before]
        if absent or not question.concept_ids:
            named = repr(absent[0]) if absent else "none"
            raise ValueError(
                f"question {question.question_id!r} has the concept {named}, which does not exist"
            )
    if not seen:
        raise ValueError("the world has no questions")

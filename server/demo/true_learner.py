"""How a simulated learner really learns, forgets and answers. Deliberately not Genie's own model.

A concept is known or not, all or none (Bower 1961). It becomes known by a lucky step after an answer, and
only when every hard prerequisite is known and still at hand. What is known fades by a power law (Wickelgren
1974). An answer slips or is guessed (the observation half of Corbett and Anderson 1995), slips more and is
guessed less as the question gets harder.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from server.demo.curriculum import Curriculum, split_ids

DAY_SECONDS = 86_400.0
AT_HAND = 0.5
"""Recall below which a prerequisite no longer carries what needs it."""
FAILURE_TEACHES = 0.75
"""Chance to learn from a failed answer, as a multiple of `learning_rate`. With it, the second answer to a concept whose
first one failed is right as often (.48) as in assist2009 (.51) and algebra2005 (.46); with 1 it was .56."""
PRIOR_STABILITY_DAYS = 300.0
NEW_STABILITY_DAYS = 4.0
LONGEST_STABILITY_DAYS = 730.0
MIN_MILLISECONDS = 800
MAX_MILLISECONDS = 900_000


@dataclass(frozen=True, slots=True)
class Syllabus:
    """The curriculum by position, in the order a textbook would take."""

    concept_ids: tuple[str, ...]
    hard: tuple[tuple[int, ...], ...]
    """Hard prerequisites of each concept, as positions."""
    soft: tuple[tuple[int, ...], ...]
    question_ids: tuple[str, ...]
    exercised: tuple[tuple[int, ...], ...]
    """Concepts of each question, as positions, the main one first."""
    difficulty: tuple[float, ...]
    expected_ms: tuple[float, ...]
    questions_of: tuple[tuple[int, ...], ...]
    """Questions whose main concept it is, easiest first."""
    concept_at: dict[str, int]
    question_at: dict[str, int]

    @classmethod
    def of(cls, curriculum: Curriculum) -> "Syllabus":
        """Number the concepts and questions of a curriculum."""
        concept_at = {row["concept_id"]: at for at, row in enumerate(curriculum.concepts)}

        def positions(cell: str) -> tuple[int, ...]:
            return tuple(concept_at[concept_id] for concept_id in split_ids(cell))

        exercised = tuple(positions(row["concept_ids"]) for row in curriculum.questions)
        difficulty = tuple(float(row["difficulty"]) for row in curriculum.questions)
        questions_of: list[list[int]] = [[] for _ in concept_at]
        for question in sorted(range(len(exercised)), key=difficulty.__getitem__):
            questions_of[exercised[question][0]].append(question)
        return cls(
            concept_ids=tuple(concept_at),
            hard=tuple(positions(row["prerequisite_ids"]) for row in curriculum.concepts),
            soft=tuple(positions(row["soft_prerequisite_ids"]) for row in curriculum.concepts),
            question_ids=tuple(row["question_id"] for row in curriculum.questions),
            exercised=exercised,
            difficulty=difficulty,
            expected_ms=tuple(1000.0 * float(row["expected_seconds"]) for row in curriculum.questions),
            questions_of=tuple(tuple(questions) for questions in questions_of),
            concept_at=concept_at,
            question_at={row["question_id"]: at for at, row in enumerate(curriculum.questions)},
        )


@dataclass(frozen=True, slots=True)
class Traits:
    """What makes one learner differ from another."""

    learning_rate: float = 0.45
    """Chance that one answer turns a concept from unknown to known, prerequisites at hand."""
    slip: float = 0.1
    """Scale of the chance to fail though the concept is known: about a third of it on the easiest questions,
    three times it on the hardest."""
    guess: float = 0.3
    """Chance to pass the easiest question on a concept that is not known."""
    fading: float = 0.35
    """Exponent of the power law: larger forgets faster."""
    pace: float = 1.0
    """Time taken, as a multiple of what is expected."""


@dataclass(frozen=True, slots=True)
class TrueAnswer:
    """What a learner did with one question."""

    correct: bool
    duration_ms: int
    hints: int


class TrueLearner:
    """A learner whose knowledge is certain to us and hidden from the server."""

    def __init__(self, syllabus: Syllabus, traits: Traits, rng: Random) -> None:
        """Start a learner who knows nothing; chance comes from `rng` alone."""
        concepts = len(syllabus.concept_ids)
        self.syllabus = syllabus
        self.traits = traits
        self._rng = rng
        self._known = [False] * concepts
        self._stability_days = [NEW_STABILITY_DAYS] * concepts
        self._practised_at = [0.0] * concepts

    def teach(self, concept_ids: Iterable[str], now: float) -> None:
        """Make concepts known from earlier schooling; one that lacks a hard prerequisite is passed over."""
        for concept in sorted(self.syllabus.concept_at[concept_id] for concept_id in concept_ids):
            if all(self._known[before] for before in self.syllabus.hard[concept]):
                self._known[concept] = True
                self._stability_days[concept] = PRIOR_STABILITY_DAYS * (0.5 + self._rng.random())
                self._practised_at[concept] = now - DAY_SECONDS * self._rng.uniform(5.0, 90.0)

    def recall(self, concept_id: str, now: float) -> float:
        """Give the chance that a concept is at hand at `now` (seconds); 0 when it is not known."""
        return self._recall(self.syllabus.concept_at[concept_id], now)

    def chance(self, question_id: str, now: float) -> float:
        """Give the true chance of a right answer to a question at `now` (seconds)."""
        question = self.syllabus.question_at[question_id]
        at_hand = 1.0
        for concept in self.syllabus.exercised[question]:
            at_hand *= self._recall(concept, now)
        difficulty = self.syllabus.difficulty[question]
        slip = min(0.6, self.traits.slip * (0.2 + difficulty + 3.0 * difficulty * difficulty))
        guess = self.traits.guess * (1.15 - difficulty)
        return at_hand * (1.0 - slip) + (1.0 - at_hand) * guess

    def answer(self, question_id: str, now: float) -> TrueAnswer:
        """Answer a question at `now` (seconds), and learn from it."""
        rng = self._rng
        question = self.syllabus.question_at[question_id]
        at_hand = self._recall(self.syllabus.exercised[question][0], now)
        correct = rng.random() < self.chance(question_id, now)
        wants_help = 0.03 + 0.35 * (1.0 - at_hand)
        hints = 1 + int(2.5 * rng.random()) if rng.random() < wants_help else 0
        hesitation = 1.0 + 0.35 * (1.0 - at_hand) + (0.0 if correct else 0.2) + 0.25 * hints
        expected_ms = self.syllabus.expected_ms[question]
        duration_ms = int(expected_ms * self.traits.pace * hesitation * rng.lognormvariate(-0.25, 0.38))
        self._learn(question, correct, now)
        return TrueAnswer(correct, min(MAX_MILLISECONDS, max(MIN_MILLISECONDS, duration_ms)), hints)

    def _recall(self, concept: int, now: float) -> float:
        if not self._known[concept]:
            return 0.0
        days = max(0.0, now - self._practised_at[concept]) / DAY_SECONDS
        return float((1.0 + days / self._stability_days[concept]) ** -self.traits.fading)

    def _learn(self, question: int, correct: bool, now: float) -> None:
        for concept in self.syllabus.exercised[question]:
            if not self._known[concept]:
                self._try_to_learn(concept, correct, now)
            elif correct:
                # Spacing: cramming adds little; what was nearly lost and yet recalled lasts longest.
                grown = 0.1 + self._stability_days[concept] * (1.0 + 6.0 * (1.0 - self._recall(concept, now)))
                self._stability_days[concept] = min(LONGEST_STABILITY_DAYS, grown)
                self._practised_at[concept] = now
                self._refresh_prerequisites(concept, now)
            else:
                self._stability_days[concept] = max(1.0, 0.8 * self._stability_days[concept])
                self._practised_at[concept] = now

    def _try_to_learn(self, concept: int, correct: bool, now: float) -> None:
        if any(self._recall(before, now) < AT_HAND for before in self.syllabus.hard[concept]):
            return
        rate = self.traits.learning_rate * (1.2 if correct else FAILURE_TEACHES)
        for helpful in self.syllabus.soft[concept]:
            if not self._known[helpful]:
                rate *= 0.7
        if self._rng.random() < rate:
            self._known[concept] = True
            self._stability_days[concept] = NEW_STABILITY_DAYS * (0.6 + 0.8 * self._rng.random())
            self._practised_at[concept] = now

    def _refresh_prerequisites(self, concept: int, now: float) -> None:
        """Halve the time since the prerequisites of a used concept were last at work."""
        for before in self.syllabus.hard[concept]:
            self._practised_at[before] += 0.5 * (now - self._practised_at[before])

"""Simple teachers that do not know Genie: random, popular, the textbook, a review queue."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from bench.worlds.world import DAY_S, Learner, World

IN_A_ROW = 3
"""Right answers in a row after which the textbook goes on."""
STUCK_AFTER = 20
"""Answers without such a run after which it goes on all the same."""
STEP = 2
"""Questions by which a right answer leads to a harder one, and a wrong one to an easier one."""
INTERVAL_DAYS = (0.0, 0.0, 1.0, 3.0, 7.0, 16.0, 35.0)
"""Wait in each box of the review queue, by successes in a row (Leitner 1972, the lengths as in SM-2 with ease 2.2)."""


def questions_by_concept(world: World) -> list[list[int]]:
    """Return for each concept its questions (those it is first of), the easiest first."""
    place = {concept.concept_id: at for at, concept in enumerate(world.concepts)}
    listed: list[list[int]] = [[] for _ in world.concepts]
    for number, question in enumerate(world.questions):
        listed[place[question.concept_ids[0]]].append(number)
    told = [0.5 if question.difficulty is None else question.difficulty for question in world.questions]
    for questions in listed:
        questions.sort(key=lambda number: (told[number], number))
    return listed


def stepped(place: int, correct: bool, size: int) -> int:
    """Return the place among a concept's questions, easiest first, after an answer."""
    return min(max(place + (STEP if correct else -STEP), 0), size - 1)


@dataclass(frozen=True, slots=True)
class UniformTeacher:
    """Any question of the catalogue, all equally likely: the zero of the scale."""

    world: World
    seed: int
    name: str = "random"

    def pupil(self, number: int, learner: Learner) -> "_Lucky":
        """Return the learner with a stream of chance of their own."""
        return _Lucky(len(self.world.questions), np.random.default_rng([self.seed, 101, number]))


@dataclass(slots=True)
class _Lucky:
    size: int
    rng: np.random.Generator

    def choose(self, at: float) -> int:
        return int(self.rng.integers(self.size))

    def note(self, question: int, correct: bool, seconds: float, at: float) -> None:
        """Nothing is learned from an answer."""


@dataclass(frozen=True, slots=True)
class PopularTeacher:
    """What most others practised, of that which the learner has not answered right yet; then from the beginning."""

    counts: Sequence[float]
    """(questions,) how often each was practised by others."""
    name: str = "popularity"

    def pupil(self, number: int, learner: Learner) -> "_Popular":
        """Return the learner before the most popular question."""
        order = np.argsort(-np.asarray(self.counts), kind="stable").tolist()
        return _Popular(order)


@dataclass(slots=True)
class _Popular:
    order: list[int]
    place: int = 0
    again: list[int] = field(default_factory=list)

    def choose(self, at: float) -> int:
        if self.place == len(self.order):
            self.order, self.again, self.place = self.again or self.order, [], 0
        return self.order[self.place]

    def note(self, question: int, correct: bool, seconds: float, at: float) -> None:
        self.place += 1
        if not correct:
            self.again.append(question)


@dataclass(frozen=True, slots=True)
class Textbook:
    """Concept after concept in the order of the curriculum, until three answers in a row are right; then over again.

    A concept begins with its easiest question; a right answer leads two questions up, a wrong one two down (of four
    ways tried the best in three of four worlds). A concept that does not yield in twenty answers is left behind and met
    again in the next round; of 8, 12, 20 and never, 20 was best.
    """

    world: World
    name: str = "curriculum"

    def pupil(self, number: int, learner: Learner) -> "_Reader":
        """Return the learner on the first page."""
        return _Reader([listed for listed in questions_by_concept(self.world) if listed])


@dataclass(slots=True)
class _Reader:
    chapters: list[list[int]]
    chapter: int = 0
    place: int = 0
    asked: int = 0
    run: int = 0

    def choose(self, at: float) -> int:
        return self.chapters[self.chapter][self.place]

    def note(self, question: int, correct: bool, seconds: float, at: float) -> None:
        self.asked += 1
        self.run = self.run + 1 if correct else 0
        self.place = stepped(self.place, correct, len(self.chapters[self.chapter]))
        if self.run >= IN_A_ROW or self.asked >= STUCK_AFTER:
            self.chapter = (self.chapter + 1) % len(self.chapters)
            self.asked = self.run = self.place = 0


@dataclass(frozen=True, slots=True)
class ReviewQueue:
    """Spaced repetition alone: what is due, longest overdue first, else the next new concept of the curriculum.

    A concept's card moves a box up with each right answer and back to the first with a wrong one; its questions get
    harder and easier as in the textbook. When nothing is due and nothing is new, the card that falls due first.
    """

    world: World
    name: str = "review_queue"

    def pupil(self, number: int, learner: Learner) -> "_Deck":
        """Return the learner with an empty deck."""
        listed = [questions for questions in questions_by_concept(self.world) if questions]
        concept_of = {question: card for card, questions in enumerate(listed) for question in questions}
        return _Deck(listed, concept_of, [0] * len(listed), [0] * len(listed), [0.0] * len(listed))


@dataclass(slots=True)
class _Deck:
    listed: list[list[int]]
    card_of: dict[int, int]
    box: list[int]
    place: list[int]
    due_at: list[float]
    new: int = 0

    def choose(self, at: float) -> int:
        seen = range(self.new)
        card = min(seen, key=self.due_at.__getitem__, default=-1)
        if card < 0 or (self.due_at[card] > at and self.new < len(self.listed)):
            card = self.new
        return self.listed[card][self.place[card]]

    def note(self, question: int, correct: bool, seconds: float, at: float) -> None:
        card = self.card_of[question]
        self.new = max(self.new, card + 1)
        self.place[card] = stepped(self.place[card], correct, len(self.listed[card]))
        self.box[card] = min(self.box[card] + 1, len(INTERVAL_DAYS) - 1) if correct else 0
        # A card that was just missed waits for a few others, or it would be answered from short memory.
        wait = 90.0 if self.box[card] < 2 else 0.0
        self.due_at[card] = at + wait + DAY_S * INTERVAL_DAYS[self.box[card]]

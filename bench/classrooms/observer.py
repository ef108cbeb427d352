"""A teacher that knows the laws of a world but not the learner: how far what is known shows in answers at all.

It lets imaginary learners of the same world live through the same questions. Those who answer otherwise than the
learner did take over what those who answered alike know of the concept asked and of what it rests on, now and then
their traits too (rejection by part, after the particle filter of Gordon, Salmond and Smith 1993). It asks what raises
the exam most on average over all of them. No recommender is told the laws; between the observer and the oracle lies
what answers hardly show. It is as greedy as the oracle, so it can be beaten too.
"""

from dataclasses import dataclass, fields
from typing import Any, Protocol

import numpy as np

from bench.worlds.world import Array, Learner, SeesGains, World

IMAGINED = 96
"""Imaginary learners a pupil."""
FIRST_IMAGINED = 1_000_000
"""Number of the first of them: none of them is ever taught."""
TRAITS_TAKEN = 0.1
"""Chance to take over the traits as well; more leaves too few different ones."""


class Knowable(SeesGains, World, Protocol):
    """A world whose learners can be imagined: dataclasses with arrays over concepts for what is learned."""


@dataclass(frozen=True, slots=True)
class Observer:
    """Knows the world's laws, and of a learner what everybody sees."""

    world: Knowable
    exam_at: float
    seed: int
    name: str = "observer"

    def pupil(self, number: int, learner: Learner) -> "_Imagined":
        """Return the learner as a crowd of possible ones."""
        return _Imagined(self.world, self.exam_at, np.random.default_rng([self.seed, 211, number]))


class _Imagined:
    """Possible learners, who come to know what the real one's answers show."""

    def __init__(self, world: Knowable, exam_at: float, rng: np.random.Generator) -> None:
        self._world = world
        self._exam_at = exam_at
        self._rng = rng
        self._crowd: list[Any] = []
        place = {concept.concept_id: at for at, concept in enumerate(world.concepts)}
        needs = [[place[need] for need in concept.needs] for concept in world.concepts]
        self._parts = [
            sorted({part for c in question.concept_ids for part in (place[c], *needs[place[c]])})
            for question in world.questions
        ]

    def choose(self, at: float) -> int:
        """Return the question of the highest mean gain."""
        if not self._crowd:
            first = FIRST_IMAGINED + int(self._rng.integers(1 << 40))
            self._crowd = [self._world.learner(first + place, at) for place in range(IMAGINED)]
        total: Array = np.zeros(len(self._world.questions))
        for one in self._crowd:
            total += self._world.gains(one, at, self._exam_at)
        return int(total.argmax())

    def note(self, question: int, correct: bool, seconds: float, at: float) -> None:
        """Let all answer; who answered otherwise learns from who answered alike."""
        alike = [self._world.answer(one, question, at - seconds)[0] == correct for one in self._crowd]
        models = [one for one, same in zip(self._crowd, alike, strict=True) if same]
        if not models:
            return
        for one, same in zip(self._crowd, alike, strict=True):
            if not same:
                model = models[int(self._rng.integers(len(models)))]
                self._take_over(one, model, self._parts[question])

    def _take_over(self, one: Any, model: Any, parts: list[int]) -> None:
        traits = self._rng.random() < TRAITS_TAKEN
        for field in fields(one):
            mine, theirs = getattr(one, field.name), getattr(model, field.name)
            if isinstance(mine, np.ndarray) and len(mine) == len(self._world.concepts):
                mine[parts] = theirs[parts]
            elif isinstance(mine, float) and traits:
                setattr(one, field.name, theirs)

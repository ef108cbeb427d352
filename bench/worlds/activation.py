"""World (d), held out: nobody tunes on it. Memory by activation, no prerequisites that block anything.

Each concept is a memory whose activation is the log of the sum over its presentations of (age)^−d, where d grows with
the activation at that presentation, which is what makes spacing pay (Pavlik and Anderson 2005; their values of the
order of decay .177 + .217·e^activation, threshold −.7, noise .255, time between sessions counting .025). An answer,
right or wrong, is followed by the solution and so is a presentation.
"""

from dataclasses import dataclass

import numpy as np

from bench.worlds.curriculum import Curriculum, known_at_first, make_curriculum, seconds_taken
from bench.worlds.world import DAY_S, Array

DECAY, DECAY_SCALE = 0.177, 0.217
THRESHOLD, NOISE = -0.704, 0.255
BETWEEN = 0.025
"""Speed of forgetting between sessions, to that within one."""
SESSION_GAP_S = 300.0
"""Silence after which time counts as between sessions."""
GUESS = 0.1
QUESTION_SPREAD = 0.2
"""Activation by which one standard deviation of difficulty moves the threshold."""
EXAM_QUESTIONS = np.array([-1.0, 0.0, 1.0])
LEAST_AGE_S = 1.0
LOOK_AHEAD = 8
"""Presentations that `gains` looks ahead, of which the best number counts, an answer."""
PLACES = 64
"""Presentations remembered at first; more are made room for."""


@dataclass
class RememberingLearner:
    """Presentations of every concept."""

    rng: np.random.Generator
    ability: float
    pace: float
    shown_s: Array
    """(nc, places) psychological time of each presentation; infinity where there is none."""
    decay: Array
    """(nc, places)"""
    count: "np.ndarray[tuple[int, ...], np.dtype[np.int64]]"
    """(nc,) presentations."""
    clock_s: float
    """Psychological time at `at`."""
    at: float


class Activation:
    """Memories that fade by their age and grow by being met."""

    name = "activation"

    def __init__(self, seed: int, *, concepts: int = 50, strands: int = 5) -> None:
        self.seed = seed
        self.curriculum: Curriculum = make_curriculum(
            seed + 4, concepts=concepts, strands=strands, questions_each=6, hard=0.0
        )
        self.concepts, self.questions = self.curriculum.concepts, self.curriculum.questions
        self._concept_of = self.curriculum.concept_of.tolist()
        self._shift = QUESTION_SPREAD * self.curriculum.difficulty

    def learner(self, number: int, at: float) -> RememberingLearner:
        """Return a learner who has met some of the first concepts, weeks ago."""
        rng = np.random.default_rng([self.seed, 4, number])
        size = self.curriculum.size
        met = known_at_first(rng, size, 0.6)
        shown, decay = np.full((size, PLACES), np.inf), np.full((size, PLACES), DECAY)
        count = np.where(met, rng.integers(4, 16, size), 0)
        for concept in np.flatnonzero(met):
            ages = BETWEEN * DAY_S * np.sort(rng.uniform(2.0, 40.0, int(count[concept])))[::-1]
            shown[concept, : ages.size] = -ages
            decay[concept, : ages.size] = rng.uniform(0.2, 0.35, ages.size)
        return RememberingLearner(
            rng=rng,
            ability=0.3 * float(rng.standard_normal()),
            pace=float(np.exp(0.25 * rng.standard_normal())),
            shown_s=shown,
            decay=decay,
            count=count,
            clock_s=0.0,
            at=at,
        )

    def answer(self, learner: RememberingLearner, question: int, at: float) -> tuple[bool, float]:
        """Answer, then be shown the solution."""
        clock = self._clock(learner, at)
        concept = self._concept_of[question]
        activation = self._activation(learner, concept, clock)
        recalled = self._recalled(activation + learner.ability - float(self._shift[question]))
        correct = bool(learner.rng.random() < GUESS + (1.0 - GUESS) * recalled)
        place = int(learner.count[concept])
        if place == learner.shown_s.shape[1]:
            learner.shown_s = np.pad(learner.shown_s, ((0, 0), (0, PLACES)), constant_values=np.inf)
            learner.decay = np.pad(learner.decay, ((0, 0), (0, PLACES)), constant_values=DECAY)
        learner.shown_s[concept, place] = clock
        learner.decay[concept, place] = DECAY + DECAY_SCALE * np.exp(activation)
        learner.count[concept] += 1
        learner.clock_s, learner.at = clock, at
        return correct, seconds_taken(learner.rng, self.questions[question].seconds, learner.pace, correct)

    def exam(self, learner: RememberingLearner, at: float) -> float:
        """Return the mean chance over three questions of every concept."""
        return float(self._scores(learner, self._activations(learner, self._clock(learner, at))).mean())

    def gains(self, learner: RememberingLearner, at: float, exam_at: float) -> Array:
        """Return the rise of the asked concept's part of the exam a presentation; outcomes do not matter."""
        clock, later = self._clock(learner, at), self._clock(learner, exam_at)
        strength = np.exp(self._activations(learner, later))
        decay = DECAY + DECAY_SCALE * np.exp(self._activations(learner, clock))
        each = max(later - clock, LEAST_AGE_S) ** -decay
        idle = self._scores(learner, np.log(strength))
        # Below the threshold a single presentation is worth nothing, so the best stretch of them is looked at.
        rises = [
            (self._scores(learner, np.log(strength + n * each)) - idle) / n for n in range(1, LOOK_AHEAD + 1)
        ]
        return np.asarray(np.max(rises, axis=0)[self.curriculum.concept_of] / self.curriculum.size)

    @staticmethod
    def _clock(learner: RememberingLearner, at: float) -> float:
        """Return the psychological time of a moment: slow between sessions."""
        passed = max(at - learner.at, 0.0)
        within = min(passed, SESSION_GAP_S)
        return learner.clock_s + within + BETWEEN * (passed - within)

    @staticmethod
    def _activation(learner: RememberingLearner, concept: int, clock: float) -> float:
        """Return the log of the sum over presentations; −50 when there are none."""
        shown = int(learner.count[concept])
        if shown == 0:
            return -50.0
        age = np.maximum(clock - learner.shown_s[concept, :shown], LEAST_AGE_S)
        return float(np.log(np.sum(age ** -learner.decay[concept, :shown])))

    @staticmethod
    def _activations(learner: RememberingLearner, clock: float) -> Array:
        most = int(learner.count.max())
        shown, decay = learner.shown_s[:, :most], learner.decay[:, :most]
        there = np.isfinite(shown)
        age = np.where(there, np.maximum(clock - np.where(there, shown, 0.0), LEAST_AGE_S), 1.0)
        total = np.sum(np.where(there, age**-decay, 0.0), axis=1)
        return np.asarray(np.log(np.maximum(total, np.exp(-50.0))))

    @staticmethod
    def _recalled(activation: float) -> float:
        return float(1.0 / (1.0 + np.exp(min((THRESHOLD - activation) / NOISE, 500.0))))

    @staticmethod
    def _scores(learner: RememberingLearner, activation: Array) -> Array:
        above = activation[:, None] + learner.ability - QUESTION_SPREAD * EXAM_QUESTIONS - THRESHOLD
        recalled = 1.0 / (1.0 + np.exp(np.minimum(-above / NOISE, 500.0)))
        return np.asarray((GUESS + (1.0 - GUESS) * recalled).mean(axis=1))

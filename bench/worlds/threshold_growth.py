"""World (a): strengths that grow in a zone and fade by a power law, prerequisites as hard thresholds.

A concept has a strength in logits. Answers follow the three-parameter logistic model (Birnbaum 1968). An answer adds to
the strength, most where success without guessing is near the learner's own optimum (the region of proximal learning,
Metcalfe and Kornell 2005), nothing at the ceiling, and nothing at all below the threshold of a prerequisite. Published
fits of growth are of the order of 0.1 logits an opportunity on average (Koedinger et al. 2023); here that is what
practice at random gives, and the best question gives about four times it. Strength fades as (1 + t/τ)^−φ (Wickelgren
1974; φ .1 to .5 in Averell and Heathcote 2011); τ grows with spaced success.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.worlds.curriculum import Curriculum, known_at_first, make_curriculum, seconds_taken
from bench.worlds.world import DAY_S, Array

Flags = npt.NDArray[np.bool_]

CEILING = 5.0
THRESHOLD = 2.0
"""Strength at which a prerequisite carries what needs it: about half right without guessing."""
MIDDLE = 2.2
"""Strength at which a question of mean difficulty is answered in half of the cases without guessing."""
ZONE_WIDTH = 0.22
GUESS = 0.2
WRONG_SHARE = 0.6
"""Growth from a wrong answer and its correction, to that from a right one."""
SAVED = 0.5
"""Share of what had faded that a right answer brings back."""
FIRST_TAU_DAYS = 2.0
EXAM_QUESTIONS = np.array([-1.0, 0.0, 1.0])
"""Difficulties of the exam's questions on each concept."""


@dataclass
class GrowingLearner:
    """Strengths as last practised; (nc,) each."""

    rng: np.random.Generator
    rate: float
    zone: float
    fading: float
    ability: float
    pace: float
    strength: Array
    tau_days: Array
    last_at: Array


class ThresholdGrowth:
    """Gradual growth with thresholds."""

    name = "threshold_growth"

    def __init__(self, seed: int, *, concepts: int = 36, strands: int = 4) -> None:
        self.seed = seed
        self.curriculum: Curriculum = make_curriculum(seed + 1, concepts=concepts, strands=strands)
        self.concepts, self.questions = self.curriculum.concepts, self.curriculum.questions
        self._needs = self.curriculum.need_matrix()
        self._need_rows = [list(needed) for needed in self.curriculum.needs]
        self._concept_of = self.curriculum.concept_of.tolist()
        self._difficulty = self.curriculum.difficulty.tolist()

    def learner(self, number: int, at: float) -> GrowingLearner:
        """Return a learner who brings along some of the first concepts."""
        rng = np.random.default_rng([self.seed, 1, number])
        size = self.curriculum.size
        known = known_at_first(rng, size, 0.35)
        return GrowingLearner(
            rng=rng,
            rate=0.8 * float(np.exp(0.25 * rng.standard_normal())),
            zone=float(rng.uniform(0.5, 0.75)),
            fading=float(rng.uniform(0.15, 0.35)),
            ability=0.4 * float(rng.standard_normal()),
            pace=float(np.exp(0.25 * rng.standard_normal())),
            strength=np.where(known, rng.uniform(2.5, 4.5, size), rng.uniform(0.0, 0.8, size)),
            tau_days=np.where(known, rng.uniform(20.0, 80.0, size), FIRST_TAU_DAYS),
            last_at=at - DAY_S * np.where(known, rng.uniform(5.0, 60.0, size), 0.0),
        )

    def answer(self, learner: GrowingLearner, question: int, at: float) -> tuple[bool, float]:
        """Answer, then grow."""
        concept = self._concept_of[question]
        recall = self._recall(learner, concept, at)
        strength = float(learner.strength[concept]) * recall
        needed = self._need_rows[concept]
        carried = all(
            learner.strength[need] * self._recall(learner, need, at) >= THRESHOLD for need in needed
        )
        able = _logistic(
            self._held(strength, carried) + learner.ability - MIDDLE - self._difficulty[question]
        )
        correct = bool(learner.rng.random() < GUESS + (1.0 - GUESS) * able)
        if carried:
            after = self._grown(strength, able, learner) * (1.0 if correct else WRONG_SHARE)
            back = SAVED * (float(learner.strength[concept]) - strength) if correct else 0.0
            learner.strength[concept] = min(CEILING, strength + after + back)
            if correct:
                learner.tau_days[concept] *= 1.1 + 4.0 * (1.0 - recall)
            learner.last_at[concept] = at
        usual = self.questions[question].seconds
        return correct, seconds_taken(learner.rng, usual, learner.pace, correct)

    def exam(self, learner: GrowingLearner, at: float) -> float:
        """Return the mean chance over three questions of every concept."""
        strength = learner.strength * self._recalls(learner, at)
        return float(self._scores(learner, strength, self._carried(strength)).mean())

    def gains(self, learner: GrowingLearner, at: float, exam_at: float) -> Array:
        """Return the expected rise of the asked concept's part of the exam, over both outcomes."""
        of = self.curriculum.concept_of
        recall = self._recalls(learner, at)
        now = learner.strength * recall
        carried = self._carried(now)
        held = np.where(carried, now, 0.5 * now)
        able = 1.0 / (1.0 + np.exp(-(held[of] + learner.ability - MIDDLE - self.curriculum.difficulty)))
        right = GUESS + (1.0 - GUESS) * able
        zone = np.exp(-(((able - learner.zone) / ZONE_WIDTH) ** 2))
        grown = learner.rate * zone * (1.0 - now[of] / CEILING)
        back = SAVED * (learner.strength - now)[of]
        ahead_days = (exam_at - at) / DAY_S
        tau = learner.tau_days
        longer = tau * (1.1 + 4.0 * (1.0 - recall))
        kept_right = (1.0 + ahead_days / longer) ** -learner.fading
        kept_wrong = (1.0 + ahead_days / tau) ** -learner.fading
        ready = carried.astype(np.float64)[of]
        # Who is open now is taken to be open at the exam.
        if_right = self._scores(
            learner, np.minimum(CEILING, now[of] + grown + back) * kept_right[of], carried[of]
        )
        if_wrong = self._scores(learner, (now[of] + WRONG_SHARE * grown) * kept_wrong[of], carried[of])
        idle = self._scores(learner, learner.strength * self._recalls(learner, exam_at), carried)
        rise = right * if_right + (1.0 - right) * if_wrong - idle[of]
        return np.asarray(ready * rise / self.curriculum.size)

    def _recall(self, learner: GrowingLearner, concept: int, at: float) -> float:
        days = max(at - float(learner.last_at[concept]), 0.0) / DAY_S
        return float((1.0 + days / float(learner.tau_days[concept])) ** -learner.fading)

    def _recalls(self, learner: GrowingLearner, at: float) -> Array:
        days = np.maximum(at - learner.last_at, 0.0) / DAY_S
        return np.asarray((1.0 + days / learner.tau_days) ** -learner.fading)

    def _carried(self, strength: Array) -> Flags:
        """Return (nc,) whether every prerequisite is above its threshold."""
        return np.asarray(self._needs @ (strength < THRESHOLD) == 0.0)

    @staticmethod
    def _held(strength: float, carried: bool) -> float:
        return strength if carried else 0.5 * strength

    @staticmethod
    def _grown(strength: float, able: float, learner: GrowingLearner) -> float:
        zone = np.exp(-(((able - learner.zone) / ZONE_WIDTH) ** 2))
        return float(learner.rate * zone * (1.0 - strength / CEILING))

    @staticmethod
    def _scores(learner: GrowingLearner, strength: Array, carried: Flags) -> Array:
        held = np.where(carried, strength, 0.5 * strength)
        able = 1.0 / (1.0 + np.exp(-(held[:, None] + learner.ability - MIDDLE - EXAM_QUESTIONS)))
        return np.asarray((GUESS + (1.0 - GUESS) * able).mean(axis=1))


def _logistic(x: float) -> float:
    return float(1.0 / (1.0 + np.exp(-x)))

"""World (b): a concept is known or not, learned in one step once what it rests on is known, and forgotten in one step.

All-or-none learning (Bower 1961), observed through slips and guesses with the customary values of Bayesian knowledge
tracing (Corbett and Anderson 1995: slip about .1, guess about .2, learned at an answer with .1 to .4). Forgetting is
exponential with a half-life that spaced success lengthens (Settles and Meeder 2016); what was forgotten is relearned
faster than it was learned (savings: Ebbinghaus 1885, Nelson 1985).
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.worlds.curriculum import Curriculum, known_at_first, make_curriculum, seconds_taken
from bench.worlds.world import DAY_S, Array

FIRST_HALF_LIFE_DAYS = 12.0
LONGEST_HALF_LIFE_DAYS = 180.0
SAVINGS = 2.0
"""How many times more likely relearning is than learning."""
LEAST_GAIN = 0.15
"""Share by which a success with no time passed lengthens the half-life."""
SPACED_GAIN = 2.5
"""Further lengthening by the chance that it would have been forgotten."""


@dataclass
class SteppingLearner:
    """What is known; (nc,) each. `settled_at` is when forgetting was last drawn."""

    rng: np.random.Generator
    learning: float
    slip: float
    guess: float
    pace: float
    known: npt.NDArray[np.bool_]
    met: npt.NDArray[np.bool_]
    """Known once: relearned faster."""
    half_life_days: Array
    practised_at: Array
    settled_at: float


class AllOrNone:
    """Hidden states on a graph."""

    name = "all_or_none"

    def __init__(self, seed: int, *, concepts: int = 36, strands: int = 3) -> None:
        self.seed = seed
        self.curriculum: Curriculum = make_curriculum(
            seed + 2, concepts=concepts, strands=strands, across=0.4
        )
        self.concepts, self.questions = self.curriculum.concepts, self.curriculum.questions
        self._needs = self.curriculum.need_matrix()
        self._need_rows = [list(needed) for needed in self.curriculum.needs]
        self._concept_of = self.curriculum.concept_of.tolist()
        # Hard questions are slipped on more and guessed less.
        self._harder = 2.0 ** (0.6 * self.curriculum.difficulty)

    def learner(self, number: int, at: float) -> SteppingLearner:
        """Return a learner who knows some of the first concepts, never one without what it needs."""
        rng = np.random.default_rng([self.seed, 2, number])
        size = self.curriculum.size
        known = known_at_first(rng, size, 0.35)
        for concept, needed in enumerate(self._need_rows):
            known[concept] &= bool(known[needed].all())
        return SteppingLearner(
            rng=rng,
            learning=float(rng.uniform(0.12, 0.4)),
            slip=float(rng.uniform(0.05, 0.15)),
            guess=float(rng.uniform(0.12, 0.28)),
            pace=float(np.exp(0.25 * rng.standard_normal())),
            known=known,
            met=known.copy(),
            half_life_days=np.where(known, rng.uniform(30.0, 90.0, size), FIRST_HALF_LIFE_DAYS),
            practised_at=at - DAY_S * np.where(known, rng.uniform(2.0, 20.0, size), 0.0),
            settled_at=at,
        )

    def answer(self, learner: SteppingLearner, question: int, at: float) -> tuple[bool, float]:
        """Answer from the hidden state, then learn, or hold what is known longer."""
        self._settle(learner, at)
        concept = self._concept_of[question]
        harder = float(self._harder[question])
        known = bool(learner.known[concept])
        chance = 1.0 - learner.slip * harder if known else learner.guess / harder
        correct = bool(learner.rng.random() < chance)
        luck = learner.rng.random()
        if known:
            if correct:
                days = (at - float(learner.practised_at[concept])) / DAY_S
                half_life = float(learner.half_life_days[concept])
                faded = 1.0 - 2.0 ** (-days / half_life)
                longer = half_life * (1.0 + LEAST_GAIN + SPACED_GAIN * faded)
                learner.half_life_days[concept] = min(longer, LONGEST_HALF_LIFE_DAYS)
            learner.practised_at[concept] = at
        elif learner.known[self._need_rows[concept]].all() and luck < self._chance_to_learn(learner, concept):
            learner.known[concept] = learner.met[concept] = True
            learner.practised_at[concept] = at
        return correct, seconds_taken(learner.rng, self.questions[question].seconds, learner.pace, correct)

    def exam(self, learner: SteppingLearner, at: float) -> float:
        """Return the mean chance over concepts on a question of mean difficulty, forgetting until then included."""
        kept = learner.known * 2.0 ** (-max(at - learner.settled_at, 0.0) / DAY_S / learner.half_life_days)
        return float(np.mean(learner.guess + kept * (1.0 - learner.slip - learner.guess)))

    def gains(self, learner: SteppingLearner, at: float, exam_at: float) -> Array:
        """Return what learning now, or holding longer, is expected to be worth at the exam."""
        self._settle(learner, at)
        ahead = (exam_at - at) / DAY_S
        half_life = learner.half_life_days
        kept = 2.0 ** (-ahead / half_life)
        carried = self._needs @ (~learner.known).astype(np.float64) == 0.0
        chance = np.minimum(learner.learning * np.where(learner.met, SAVINGS, 1.0), 0.9)
        learnt = np.where(carried, chance * kept, 0.0)
        faded = 1.0 - 2.0 ** (-(at - learner.practised_at) / DAY_S / half_life)
        longer = np.minimum(half_life * (1.0 + LEAST_GAIN + SPACED_GAIN * faded), LONGEST_HALF_LIFE_DAYS)
        held = 2.0 ** (-ahead / longer) - kept
        of = self.curriculum.concept_of
        worth = np.where(learner.known[of], (1.0 - learner.slip * self._harder) * held[of], learnt[of])
        return np.asarray(worth * (1.0 - learner.slip - learner.guess) / self.curriculum.size)

    def _chance_to_learn(self, learner: SteppingLearner, concept: int) -> float:
        return min(0.9, learner.learning * (SAVINGS if learner.met[concept] else 1.0))

    def _settle(self, learner: SteppingLearner, at: float) -> None:
        """Draw what was forgotten since the last time; exponential forgetting has no memory, so any time will do."""
        days = max(at - learner.settled_at, 0.0) / DAY_S
        if days > 0.0:
            learner.known &= learner.rng.random(learner.known.size) < 2.0 ** (-days / learner.half_life_days)
            learner.settled_at = at

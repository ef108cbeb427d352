"""World (c): learners who go when they are bored or frustrated, and come back less often after it.

A concept is a share mastered. An answer closes a part of what is left (the linear operator of Bush and Mosteller 1955;
learning curves of single learners are exponential: Heathcote, Brown and Mewhort 2000), more on a harder question, less
the weaker what it rests on: gradually, with no threshold. Mastery fades exponentially to a floor that rises with
practice (Averell and Heathcote 2011). Going: a constant hazard, and a further one while more than 95 % (bored) or
fewer than 50 % (frustrated) of the last eight answers were right; that boredom and frustration end practice is from
the literature on affect (Csikszentmihalyi 1990; Baker et al. 2010), the two bounds are those of the bar.
"""

from collections import deque
from dataclasses import dataclass, field

import numpy as np

from bench.worlds.curriculum import Curriculum, known_at_first, make_curriculum, seconds_taken
from bench.worlds.world import DAY_S, Array

GUESS = 0.15
SLIP = 0.05
WRONG_SHARE = 0.3
"""Growth from a wrong answer and its correction, to that from a right one."""
FADING_DAYS = 5.0
"""Time constant of forgetting."""
REMEMBERED = 8
"""Answers that a mood rests on."""
BORED_ABOVE, FRUSTRATED_BELOW = 0.95, 0.5
INATTENTIVE = 0.5
"""Growth while bored or frustrated, to that otherwise."""
TIRED = 0.02
"""Chance to stop after any answer."""
FED_UP = 0.15
"""Further chance while bored or frustrated."""
LESS_LIKELY = 0.6
"""Factor on the chance to come back the next day after going bored or frustrated."""
LOST_HABIT = 0.93
"""Factor on the habit itself each such time."""


@dataclass
class LeavingLearner:
    """Mastery as last practised; (nc,) each, and the mood."""

    rng: np.random.Generator
    will: np.random.Generator
    """Chance of coming and going: apart, so that it does not depend on how many answers were given."""
    rate: float
    habit: float
    pace: float
    mastery: Array
    floor: Array
    """Share of it that does not fade."""
    last_at: Array
    outcomes: deque[bool] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    fed_up: bool = False


class Leavers:
    """Learners with a will of their own."""

    name = "leavers"

    def __init__(self, seed: int, *, concepts: int = 35, strands: int = 5) -> None:
        self.seed = seed
        self.curriculum: Curriculum = make_curriculum(seed + 3, concepts=concepts, strands=strands, hard=0.7)
        self.concepts, self.questions = self.curriculum.concepts, self.curriculum.questions
        self._below = [
            [*hard, *soft] for hard, soft in zip(self.curriculum.needs, self.curriculum.helps, strict=True)
        ]
        self._concept_of = self.curriculum.concept_of.tolist()
        # A question's demand is the power to which mastery is taken: 0.4 for the easiest, 2.5 for the hardest.
        self._demand = 2.5 ** (self.curriculum.difficulty / 1.5)

    def learner(self, number: int, at: float) -> LeavingLearner:
        """Return a learner who brings along some of the first concepts."""
        rng = np.random.default_rng([self.seed, 3, number])
        size = self.curriculum.size
        known = known_at_first(rng, size, 0.4)
        return LeavingLearner(
            rng=rng,
            will=np.random.default_rng([self.seed, 33, number]),
            rate=0.2 * float(np.exp(0.3 * rng.standard_normal())),
            habit=float(rng.beta(7.0, 2.0)),
            pace=float(np.exp(0.25 * rng.standard_normal())),
            mastery=np.where(known, rng.uniform(0.6, 0.95, size), rng.uniform(0.0, 0.15, size)),
            floor=np.where(known, 0.85, 0.4),
            last_at=np.full(size, at),
        )

    def answer(self, learner: LeavingLearner, question: int, at: float) -> tuple[bool, float]:
        """Answer, grow, and feel about it."""
        concept = self._concept_of[question]
        mastery = self._now(learner, concept, at)
        demand = float(self._demand[question])
        correct = bool(learner.rng.random() < GUESS + (1.0 - GUESS - SLIP) * mastery**demand)
        resting = min([1.0, *(self._now(learner, below, at) for below in self._below[concept])])
        attention = INATTENTIVE if _moody(learner) else 1.0
        step = learner.rate * attention * float(_lift(demand) * _carried(resting))
        step *= 1.0 if correct else WRONG_SHARE
        learner.mastery[concept] = mastery + min(step, 0.9) * (1.0 - mastery)
        learner.floor[concept] += 0.12 * (1.0 - learner.floor[concept])
        learner.last_at[concept] = at
        learner.outcomes.append(correct)
        return correct, seconds_taken(learner.rng, self.questions[question].seconds, learner.pace, correct)

    def exam(self, learner: LeavingLearner, at: float) -> float:
        """Return the mean chance on a question of mean difficulty of every concept."""
        return float(np.mean(GUESS + (1.0 - GUESS - SLIP) * self._all_now(learner, at)))

    def gains(self, learner: LeavingLearner, at: float, exam_at: float) -> Array:
        """Return the expected rise of the asked concept's part of the exam."""
        of = self.curriculum.concept_of
        now = self._all_now(learner, at)
        resting = np.array([min([1.0, *now[below].tolist()]) for below in self._below])
        right = GUESS + (1.0 - GUESS - SLIP) * now[of] ** self._demand
        attention = INATTENTIVE if _moody(learner) else 1.0
        step = learner.rate * attention * _lift(self._demand) * _carried(resting)[of]
        keep = np.exp(-(exam_at - at) / DAY_S / FADING_DAYS)
        floor = learner.floor + 0.12 * (1.0 - learner.floor)
        left = (floor + (1.0 - floor) * keep)[of]

        def later(share: float) -> Array:
            return np.asarray((now[of] + np.minimum(step * share, 0.9) * (1.0 - now[of])) * left)

        rise = right * later(1.0) + (1.0 - right) * later(WRONG_SHARE) - self._all_now(learner, exam_at)[of]
        return np.asarray((1.0 - GUESS - SLIP) * rise / self.curriculum.size)

    def comes(self, learner: LeavingLearner, day: int) -> bool:
        """Return whether the habit holds on this day; a new day begins with no memory of the last answers."""
        chance = learner.habit * (LESS_LIKELY if learner.fed_up else 1.0)
        coming = day == 0 or bool(learner.will.random() < chance)
        if coming:
            learner.outcomes.clear()
            learner.fed_up = False
        return coming

    def stays(self, learner: LeavingLearner) -> bool:
        """Return whether the learner goes on; remembers whether it was the mood that made them go."""
        moody = _moody(learner)
        goes = bool(learner.will.random() < TIRED + (FED_UP if moody else 0.0))
        if goes and moody:
            learner.fed_up = True
            learner.habit *= LOST_HABIT
        return not goes

    def _now(self, learner: LeavingLearner, concept: int, at: float) -> float:
        floor = float(learner.floor[concept])
        keep = float(np.exp(-max(at - float(learner.last_at[concept]), 0.0) / DAY_S / FADING_DAYS))
        return float(learner.mastery[concept]) * (floor + (1.0 - floor) * keep)

    def _all_now(self, learner: LeavingLearner, at: float) -> Array:
        keep = np.exp(-np.maximum(at - learner.last_at, 0.0) / DAY_S / FADING_DAYS)
        return np.asarray(learner.mastery * (learner.floor + (1.0 - learner.floor) * keep))


def _moody(learner: LeavingLearner) -> bool:
    """Return whether the last answers bore or frustrate; too few do neither."""
    right = sum(learner.outcomes)
    full = len(learner.outcomes) == REMEMBERED
    return full and (right > BORED_ABOVE * REMEMBERED or right < FRUSTRATED_BELOW * REMEMBERED)


def _lift(demand: float | Array) -> Array:
    """Return what a question's demand does to growth: 0.8 for the easiest, 1.2 for the hardest."""
    return np.asarray(demand**0.2)


def _carried(resting: float | Array) -> Array:
    """Return what weak prerequisites leave of growth: the square of their mastery over 0.7, at most 1."""
    return np.asarray(np.minimum(resting / 0.7, 1.0) ** 2)

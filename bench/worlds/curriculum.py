"""Curricula for simulated classrooms: concepts on a graph, questions of spread difficulty. Knows no learner."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.worlds.world import Array, WorldConcept, WorldQuestion

I8 = npt.NDArray[np.int64]

WORDS = (
    "sum",
    "share",
    "angle",
    "root",
    "slope",
    "chance",
    "limit",
    "proof",
    "graph",
    "series",
    "ratio",
    "unit",
)


@dataclass(frozen=True)
class Curriculum:
    """A catalogue with what only the world knows of it. nc concepts, nq questions."""

    concepts: tuple[WorldConcept, ...]
    questions: tuple[WorldQuestion, ...]
    needs: tuple[tuple[int, ...], ...]
    """Hard prerequisites of each concept, as places."""
    helps: tuple[tuple[int, ...], ...]
    """Soft ones."""
    concept_of: I8
    """(nq,) concept of each question."""
    difficulty: Array
    """(nq,) true difficulty of each question in standard deviations about its concept's mean; larger is harder."""

    @property
    def size(self) -> int:
        """Number of concepts."""
        return len(self.concepts)

    def need_matrix(self) -> Array:
        """Return (nc, nc): 1 where the row's concept needs the column's."""
        matrix = np.zeros((self.size, self.size))
        for concept, needed in enumerate(self.needs):
            matrix[concept, list(needed)] = 1.0
        return matrix


def make_curriculum(
    seed: int,
    *,
    concepts: int,
    strands: int,
    questions_each: int = 10,
    across: float = 0.3,
    hard: float = 1.0,
    told_noise: float = 0.4,
) -> Curriculum:
    """Return a curriculum of `strands` that are taught side by side, each concept building on the one before it.

    A share `across` of the concepts also needs one of the last ten of another strand; a share `hard` of all needs is
    hard. Difficulty is spread evenly over −1.5 to 1.5 with noise; the platform knows it with the error `told_noise`,
    as a chance of failure.
    """
    rng = np.random.default_rng([seed, 17])
    needs: list[tuple[int, ...]] = []
    helps: list[tuple[int, ...]] = []
    for concept in range(concepts):
        before = [concept - strands] if concept >= strands else []
        others = [c for c in range(max(0, concept - 10), concept) if c % strands != concept % strands]
        if others and concept >= strands and rng.random() < across:
            before.append(int(rng.choice(others)))
        is_hard = rng.random(len(before)) < hard
        needs.append(tuple(c for c, h in zip(before, is_hard, strict=True) if h))
        helps.append(tuple(c for c, h in zip(before, is_hard, strict=True) if not h))
    names = [f"c{concept:02d}" for concept in range(concepts)]
    listed = tuple(
        WorldConcept(
            names[concept],
            needs=tuple(names[c] for c in needs[concept]),
            helps=tuple(names[c] for c in helps[concept]),
            title=f"{WORDS[concept % strands % len(WORDS)].title()} {concept // strands + 1}",
            area=WORDS[concept % strands % len(WORDS)],
        )
        for concept in range(concepts)
    )
    spread = np.linspace(-1.5, 1.5, questions_each)
    difficulty = np.concatenate([spread + 0.2 * rng.standard_normal(questions_each) for _ in range(concepts)])
    heard = difficulty + told_noise * rng.standard_normal(difficulty.size)
    told = 1.0 / (1.0 + np.exp(0.4 - 0.9 * heard))
    concept_of = np.repeat(np.arange(concepts), questions_each)
    questions = tuple(
        WorldQuestion(
            f"{names[c]}-{number % questions_each + 1:02d}",
            (names[c],),
            difficulty=round(float(told[number]), 2),
            seconds=round(20.0 + 5.0 * float(difficulty[number])),
            text=f"{listed[c].title}, exercise {number % questions_each + 1}",
        )
        for number, c in enumerate(concept_of.tolist())
    )
    return Curriculum(listed, questions, tuple(needs), tuple(helps), concept_of, difficulty)


def known_at_first(rng: np.random.Generator, size: int, most: float) -> npt.NDArray[np.bool_]:
    """Return (size,) which concepts a learner brings along: the first ones up to a random place, with gaps.

    The place is uniform between none and a share `most` of the curriculum; one in seven below it is a gap.
    """
    known = np.arange(size) < rng.uniform(0.0, most) * size
    return np.asarray(known & (rng.random(size) > 1.0 / 7.0))


def seconds_taken(rng: np.random.Generator, usual: float, pace: float, correct: bool) -> float:
    """Return the time of an answer: log-normal about the usual time (van der Linden 2006), a fifth longer if wrong."""
    return float(usual * pace * (1.0 if correct else 1.2) * np.exp(0.35 * rng.standard_normal()))

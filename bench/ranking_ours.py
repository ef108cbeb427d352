"""How Genie ranks concepts and questions by others' practice, through the engine that serves. Judges nothing."""

from dataclasses import dataclass

import numpy as np

from bench.learner_data import DataSet
from bench.ranking_cases import Case
from engine.catalog import Sparse, build_catalog
from engine.collaborative import FOLD_STEPS, WIDTH, Interactions, as_liking, fold_in, train_collaborative
from engine.guide import follow
from engine.learner import LearnerModel, LearnerState, absorb
from engine.learner.rows import part_of
from engine.learner.score import read_only
from engine.neighbours import build_index
from engine.policy import BUILT_IN, Policy, make_policy
from engine.recommend import RecommendQuery, recommend
from engine.scoring import tastes
from engine.serving import Models, Serving, prepare
from engine.types import F4, I8, Concept, Question

SLATE = 40
"""Questions asked of the server for a ranking of concepts: several are of one concept."""


def collaborative_only() -> Policy:
    """Return the policy `collaborative_filtering_v2` without chance and with nothing but its collaborative part."""
    own = BUILT_IN["collaborative_filtering_v2"]
    return make_policy(
        "collaborative_only",
        weights={"collaborative": 1.0, "diversity": own.weight("diversity")},
        sources={"collaborative": own.quota("collaborative")},
        temperature=0.0,
    )


@dataclass(frozen=True)
class Ours:
    """Genie with models trained on some learners of a data set."""

    data: DataSet
    served: Serving

    @classmethod
    def trained(cls, data: DataSet, learners: I8, *, seed: int) -> "Ours":
        """Train what is collaborative on `learners`; the learner model keeps its priors, which play no part here."""
        log = data.log.take(learners)
        concepts = Sparse(data.concepts.offsets.astype(np.int32), data.concepts.concepts.astype(np.uint32))
        count = int(concepts.rows.max()) + 1
        model = train_collaborative(
            Interactions(log.learner_of().astype(np.int32), log.answers.question, log.answers.correct),
            concepts,
            count,
            seed=seed,
        )
        rows = concepts.rows.tolist()
        questions = [
            Question(str(row), row, tuple(rows[start:end]))
            for row, (start, end) in enumerate(
                zip(concepts.offsets[:-1].tolist(), concepts.offsets[1:].tolist(), strict=True)
            )
        ]
        catalog = build_catalog(
            [Concept(str(row), row) for row in range(count)],
            questions,
            version=1,
            embeddings=np.zeros((len(questions), WIDTH), np.float32),
        )
        index = build_index(model.item_factors, queries=model.learner_factors)
        return cls(data, prepare(catalog, Models(LearnerModel.priors(), model, index, version="bench")))

    @property
    def concepts(self) -> int:
        """Number of concepts."""
        return self.served.catalog.concept_count

    def state(self, case: Case) -> LearnerState:
        """Return the learner's state at the moment of a case."""
        answers = part_of(self.data.log.learner(case.learner), 0, case.before)
        return absorb(LearnerState.empty(), answers, self.served.learner).state

    def led(self, state: LearnerState) -> F4:
        """Return (concepts,) how strongly others' practice leads there."""
        out = np.empty(self.concepts, np.float32)
        follow(self.served.peers, read_only(state.concepts), state.applied, out)
        return out

    def liked(self, state: LearnerState, now: float) -> F4:
        """Return (questions,) x·y as the score takes it, in [0, 1]."""
        factors = self.served.questions.factors
        factor, rows = self.factor(state, now)
        as_liking(factors, rows, factor)
        return np.asarray(np.clip(factors @ factor, 0.0, 1.0))

    def factor(self, state: LearnerState, now: float) -> tuple[F4, np.ndarray]:
        """Return (the learner's factor as it is folded in when serving, the recent questions behind it)."""
        recent = read_only(state.recent)
        rows, confidence = np.empty(len(recent), np.uint32), np.empty(len(recent), np.float32)
        held = tastes(
            recent, self.served.questions.content, now, rows, confidence, np.empty(WIDTH, np.float32)
        )
        found = fold_in(
            self.served.questions.factors, self.served.gram, rows[:held], confidence[:held], FOLD_STEPS
        )
        return found, rows[:held]

    def rankings(self, cases: list[Case]) -> dict[str, F4]:
        """Return (cases, concepts) scores by the name of what ranks.

        `ours`: the term `collaborative` of the score, of each concept's best question. `peers_only` and `factors_only`
        are its two parts; `slate` ranks concepts in the order in which a slate by that term alone shows them.
        """
        listed = self.served.catalog.concept_questions
        policy = collaborative_only()
        found = {
            name: np.zeros((len(cases), self.concepts), np.float32)
            for name in ("ours", "peers_only", "factors_only", "slate")
        }
        some = np.flatnonzero(np.diff(listed.offsets))
        for place, case in enumerate(cases):
            state = self.state(case)
            now = state.last_answered_at
            led, liked = self.led(state), self.liked(state, now)
            best = np.zeros(self.concepts, np.float32)
            best[some] = np.maximum.reduceat(liked[listed.rows], listed.offsets[some])
            found["ours"][place] = led * (0.5 + 0.5 * best)
            found["peers_only"][place] = led
            found["factors_only"][place] = best
            slate = recommend(RecommendQuery(seed=1, limit=SLATE), state, self.served, policy, now=now)
            shown = slate.items["concept"].tolist()
            for rank, concept in reversed(list(enumerate(shown))):
                found["slate"][place, concept] = 1.0 / (1.0 + rank)
        return found

    def nearest(self, case: Case, count: int) -> F4:
        """Return (questions,) scores by the FAISS index: the nearest unpractised questions, nearest first."""
        scores = np.zeros(self.served.catalog.question_count, np.float32)
        state = self.state(case)
        factor, _ = self.factor(state, state.last_answered_at)
        index = self.served.models.items
        assert index is not None
        found = index.nearest(factor, count + case.seen.size)
        fresh = found[~np.isin(found, case.seen)][:count]
        scores[fresh] = 1.0 / (1.0 + np.arange(fresh.size))
        return scores

"""The fitted parameters of the learner model, by row, with priors for when nothing is fitted. Fits nothing itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np

from engine.jit import kernel
from engine.learner.features import DENSE_NAMES, N_CONCEPT_PATTERNS, N_DENSE, N_GLOBAL_PATTERNS, N_OWN
from engine.learner.memory import DEFAULT_WEIGHTS
from engine.learner.score import QuestionConcepts, Weights, base_of, read_only
from engine.learner.update import widen
from engine.types import F4, F8, U4

FORMAT: Final = 1
"""Raised when features change their meaning, so that weights of another format are refused."""

PRIOR_WEIGHTS: Final = {
    "expected_slow": 1.0,
    "concept_forgotten": -1.2,
    "concept_residual_0.7": 0.6,
    "concept_implied": 0.05,
}
"""Weights with no model: the filter's expectation, pulled by the concept's recent form and by what is forgotten.

Chosen so that the expectation counts once, that a concept forgotten by half loses 0.6 log odds, and that about five
right answers in a row reach mastery from an average start.
"""
PRIOR_MASTERY: Final = (0.0, 1.0, -2.0, 0.1)
"""Mastery with no model: the ability filter's word for it, less what is not recalled (algebra2005, which has times,
says -1.8), and a little of the run; one slip after a dozen right answers does not lose what was mastered."""
PRIOR_SUCCESS_LOGIT: Final = 0.62
"""Log odds of success before anything is known: 65 %, the middle of published tutoring logs."""
PRIOR_EVIDENCE: Final = 20.0


class IncompatibleModel(ValueError):
    """A saved model that this code cannot read."""


@kernel
def _base_logits(questions: U4, qc: QuestionConcepts, w: Weights, out: F4) -> None:
    """Fill out (n,) with base logits of `questions` (n,)."""
    for i in range(questions.shape[0]):
        base, _ = base_of(w, qc, widen(questions[i]))
        out[i] = base


@dataclass(frozen=True)
class LearnerModel:
    """Weights by row and the FSRS weight sets; immutable, arrays read-only."""

    weights: Weights
    memory_sets: F8
    """(sets, 21) FSRS-6 weights; row 0 holds the published defaults. Rows are only ever added."""
    memory_set: int
    """The row to log with new answers."""
    version: str
    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def priors(cls) -> LearnerModel:
        """Return the documented priors, which need no training."""
        dense = np.zeros(N_DENSE)
        for name, weight in PRIOR_WEIGHTS.items():
            dense[DENSE_NAMES.index(name)] = weight
        return cls.of(
            dense=dense, constants=np.array([PRIOR_SUCCESS_LOGIT, PRIOR_EVIDENCE, 0.0]), version="priors-1"
        )

    @classmethod
    def of(
        cls,
        *,
        dense: F8,
        constants: F8,
        version: str,
        arrays: Mapping[str, Any] | None = None,
        memory_sets: F8 | None = None,
        memory_set: int = 0,
        metrics: dict[str, float] | None = None,
    ) -> LearnerModel:
        """Return a model of these parts; `arrays` names further fields of Weights, empty where not given.

        constants[2] is set from the chosen memory set.
        """
        empty: dict[str, Any] = {
            "question": np.zeros((0, 2), np.float32),
            "concept": np.zeros((0, N_OWN), np.float32),
            "concept_pattern": np.zeros(N_CONCEPT_PATTERNS, np.float32),
            "global_pattern": np.zeros(N_GLOBAL_PATTERNS, np.float32),
            "pair_key": np.zeros(1, np.uint64),
            "pair_weight": np.zeros(1, np.float32),
            "question_rate": np.zeros((0, 2), np.float32),
            "concept_rate": np.zeros((0, 2), np.float32),
            "mastery": np.array(PRIOR_MASTERY),
            "concept_median": np.zeros(0, np.float32),
        }
        sets = DEFAULT_WEIGHTS.reshape(1, -1) if memory_sets is None else memory_sets
        own = np.array(constants, np.float64)
        own[2] = sets[memory_set, 20]
        parts = {**empty, **(arrays or {}), "dense": np.asarray(dense, np.float64), "constants": own}
        weights = Weights(**{name: read_only(parts[name]) for name in Weights._fields})
        return cls(
            weights, read_only(np.ascontiguousarray(sets, np.float64)), memory_set, version, metrics or {}
        )

    @cached_property
    def prior_logit(self) -> float:
        """Log odds of success before anything is known of learner or question."""
        return float(self.weights.constants[0])

    def base_logit(self, question_rows: U4, qc: QuestionConcepts) -> F4:
        """Return the base logits (n,) of question rows (n,): own rate, then concepts or difficulty, then all."""
        out = np.empty(len(question_rows), np.float32)
        _base_logits(np.ascontiguousarray(question_rows, np.uint32), qc, self.weights, out)
        return out

    def with_catalog(self, qc: QuestionConcepts, n_concepts: int) -> LearnerModel:
        """Return this model with each concept's median base logit taken over the questions of a catalogue."""
        n_questions = len(qc.offsets) - 1
        base = self.base_logit(np.arange(n_questions, dtype=np.uint32), qc)
        values = np.repeat(base, np.diff(qc.offsets))
        order = np.lexsort((values, qc.concepts))
        counts = np.bincount(qc.concepts, minlength=n_concepts)[:n_concepts]
        ends = np.cumsum(counts)
        median = np.full(n_concepts, np.nan, np.float32)
        some = counts > 0
        low, high = ends - counts + (counts - 1) // 2, ends - counts + counts // 2
        ranked = values[order]
        median[some] = (ranked[low[some]] + ranked[high[some]]) / 2
        return dataclasses.replace(self, weights=self.weights._replace(concept_median=read_only(median)))

    def with_memory(self, weights: F8) -> LearnerModel:
        """Return this model with a further FSRS weight set (21,) in use."""
        sets = np.vstack([self.memory_sets, np.asarray(weights, np.float64)[None, :]])
        constants = self.weights.constants.copy()
        constants[2] = weights[20]
        return dataclasses.replace(
            self,
            weights=self.weights._replace(constants=read_only(constants)),
            memory_sets=read_only(sets),
            memory_set=len(sets) - 1,
        )

    def save(self) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, Any]]:
        """Return (arrays by name, JSON-ready metadata), all that `load` needs."""
        arrays: dict[str, np.ndarray[Any, Any]] = {**self.weights._asdict(), "memory_sets": self.memory_sets}
        metadata = {
            "format": FORMAT,
            "features": list(DENSE_NAMES),
            "version": self.version,
            "memory_set": self.memory_set,
            "metrics": dict(self.metrics),
        }
        return arrays, metadata

    @classmethod
    def load(cls, arrays: Mapping[str, np.ndarray[Any, Any]], metadata: Mapping[str, Any]) -> LearnerModel:
        """Return the model that `save` took apart; memory-mapped arrays stay mapped.

        Raises:
            IncompatibleModel: another format, other features, or an array missing.
        """
        if metadata.get("format") != FORMAT or list(metadata.get("features", ())) != list(DENSE_NAMES):
            raise IncompatibleModel(
                f"model format {metadata.get('format')} with other features than format {FORMAT}"
            )
        absent = [name for name in (*Weights._fields, "memory_sets") if name not in arrays]
        if absent:
            raise IncompatibleModel(f"arrays missing from the model: {', '.join(absent)}")
        weights = Weights(**{name: read_only(arrays[name]) for name in Weights._fields})
        sets = read_only(arrays["memory_sets"])
        return cls(
            weights,
            sets,
            int(metadata["memory_set"]),
            str(metadata["version"]),
            dict(metadata.get("metrics", {})),
        )

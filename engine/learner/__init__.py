"""The learner model: what each answer says of a learner, and what it lets one expect. Pure arrays in, arrays out."""

from engine.learner.answers import (
    Absorbed,
    AnswersOutOfOrder,
    ConceptView,
    absorb,
    concept_view,
    predict,
    preview,
    replay,
)
from engine.learner.days import MILESTONES
from engine.learner.memory import DEFAULT_WEIGHTS, TARGET_RETENTION, grade_answer
from engine.learner.model import IncompatibleModel, LearnerModel
from engine.learner.score import QuestionConcepts
from engine.learner.state import LearnerState
from engine.learner.terms import Term, explain_prediction

__all__ = [
    "DEFAULT_WEIGHTS",
    "MILESTONES",
    "TARGET_RETENTION",
    "Absorbed",
    "AnswersOutOfOrder",
    "ConceptView",
    "IncompatibleModel",
    "LearnerModel",
    "LearnerState",
    "QuestionConcepts",
    "Term",
    "absorb",
    "concept_view",
    "explain_prediction",
    "grade_answer",
    "predict",
    "preview",
    "replay",
]

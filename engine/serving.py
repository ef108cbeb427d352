"""A catalogue and its models made ready for recommending: every array a kernel reads, built once. Serves
nobody itself.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from engine.bound import Bound, bind
from engine.cards import make_cards, make_labels
from engine.catalog import Catalog, Sparse, invert
from engine.collaborative import WIDTH, CollaborativeModel
from engine.graph import SOFT_LEAST
from engine.guide import Guide, roughly
from engine.learner import LearnerModel, QuestionConcepts
from engine.learner.many import fill_bases
from engine.learner.pairs import by_question
from engine.learner.state import Records
from engine.memo import Memo
from engine.neighbours import NeighbourIndex
from engine.peers import Peers
from engine.policy import SOURCES
from engine.probing import InvertedLists
from engine.types import F4, F8, I4, I8, U1, U4

T = TypeVar("T", bound=np.generic)

LIKES_REMEMBERED = 8192
"""Learners' likes that are remembered, some 1.5 KB each."""


@dataclass(frozen=True, slots=True)
class Models:
    """What training has produced; everything but the learner model may be absent."""

    learner: LearnerModel
    collaborative: CollaborativeModel | None = None
    items: NeighbourIndex | None = None
    """Over the collaborative item factors, by question row."""
    content: F4 | None = None
    """(questions, 64) trained content vectors; the catalogue's own are used when absent."""
    popularity: F4 | None = None
    """(questions,) in [0, 1], from counts kept while serving; the collaborative model's when absent."""
    version: str = "priors"

    @classmethod
    def priors(cls) -> "Models":
        """Return what there is before any training: documented priors."""
        return cls(LearnerModel.priors())


class ConceptArrays(NamedTuple):
    """What kernels read about nc concepts; all read-only and C-contiguous."""

    active: U1
    """(nc,) 1 where a concept exists and has a question."""
    area: I4
    importance: F4
    order: U4
    need_offsets: I4
    need_rows: U4
    need_hard: U1
    """CSR: prerequisites of each concept."""
    open_offsets: I4
    open_rows: U4
    open_hard: U1
    """CSR: dependents of each concept."""
    median_logit: F4
    """(nc,) base logit of the concept's median question."""
    centroid: npt.NDArray[np.int8]
    """(nc, 64) unit mean of each concept's questions' content vectors, in whole steps (`engine.cards`)."""
    centroid_step: F4
    """(nc,) a step of each."""
    ready: F8
    missing: I4
    unlock: F8
    waiting: I4
    """(nc,) of a learner without answers, see `engine.openness.Openness`."""


class QuestionArrays(NamedTuple):
    """What kernels read about nq questions; all read-only and C-contiguous."""

    active: U1
    concept_offsets: I4
    concept_rows: U4
    """CSR: concepts of each question."""
    shelf_offsets: I8
    shelf_rows: U4
    """CSR by concept: its questions, easiest last, that is by ascending base logit, ties by row."""
    shelf_logit: F4
    """Base logit of each entry of `shelf_rows`: log odds of success of the average learner."""
    exercise_set: I4
    exercise_offsets: I4
    exercise_rows: U4
    exercise_weights: F4
    """Concepts that a question exercises, see `engine.catalog.Catalog.exercised`."""
    seconds: F4
    content: F4
    factors: F4
    """(≤ nq, 64) collaborative factors."""
    popularity: F4
    """(nq,)"""
    popular: U4
    """Active rows by falling popularity, ties by the importance of their first concept, then row."""
    cards: Records
    """(nq,) of dtype `engine.cards.CARD`: what scoring reads of a question, together."""
    card_of: I4
    """(nq,) each question's place among `cards`."""
    labels: Records
    """(nq,) of dtype `engine.cards.LABEL`: what finding candidates reads of a question."""
    after_code: I8
    after_row: U4
    after_weight: F4
    """Weights of pairs with the question before: `engine.learner.pairs.PairTable`."""


class Likes(NamedTuple):
    """What the recent questions of n learners say of their taste; see `engine.likes`."""

    factor: F4
    """(n, 64) places among the collaborative factors; zero when unknown."""
    profile: F4
    """(n, 64) places in content space; zero when unknown."""
    near: U4
    """(n, quota) question rows nearest the factor, best first; NO_ROW where there are no more."""


@dataclass(frozen=True)
class Serving:
    """A catalogue version and a model version, ready to recommend from."""

    catalog: Catalog
    models: Models
    learner: LearnerModel
    """The learner model with this catalogue's medians."""
    question_concepts: QuestionConcepts
    concepts: ConceptArrays
    questions: QuestionArrays
    gram: F4
    """(64, 64) of the collaborative model."""
    bound: Bound
    """All of it that kernels read."""
    peers: Guide
    """Which concepts learners turned to, by where they stood; nobody's without a collaborative model."""
    even_take_up: F4
    """(sources, areas) chances that an offer is taken up, as long as nothing is known of a learner."""
    strangers: dict[str, U1] = field(default_factory=dict)
    """(nc,) 1 for the concepts that a policy shows a stranger, by policy name: a memo of `engine.recommend`, the same
    on every build."""
    likes: Memo[tuple[int, int], Likes] = field(default_factory=lambda: Memo(LIKES_REMEMBERED))
    """Likes by quota of neighbours and a hash of a ring of recent questions: a memo of `engine.likes`."""


def prepare(catalog: Catalog, models: Models) -> Serving:
    """Build what recommending reads from a catalogue and its models. Arrays that training mapped stay
    mapped.
    """
    questions = QuestionConcepts.of(
        catalog.question_concepts.offsets, catalog.question_concepts.rows, catalog.difficulty
    )
    learner = models.learner.with_catalog(questions, catalog.concept_count)
    bases = np.empty((catalog.question_count, 2))
    fill_bases(questions, learner.weights, bases)
    base = bases[:, 0].astype(np.float32)
    listed = invert(catalog.question_concepts, catalog.concept_count, base)
    content = catalog.content if models.content is None else _padded(models.content, catalog.content)
    collaborative = models.collaborative
    nothing = np.zeros((0, WIDTH), np.float32)
    peers = Peers.nobody() if collaborative is None else collaborative.peers
    popularity, popular = _popularity(catalog, models)
    factors = nothing if collaborative is None else collaborative.item_factors
    pairs = by_question(learner.weights, catalog.question_count)
    cards, card_of = make_cards(catalog, listed, pairs, learner.weights, bases, content, factors, popularity)
    gram = _frozen(np.eye(WIDTH, dtype=np.float32) if collaborative is None else collaborative.gram)
    concepts, guide = _concept_arrays(catalog, learner, listed, content), Guide.of(peers)
    read = QuestionArrays(
        active=catalog.question_active,
        concept_offsets=catalog.question_concepts.offsets,
        concept_rows=catalog.question_concepts.rows,
        shelf_offsets=listed.offsets.astype(np.int64),
        shelf_rows=listed.rows,
        shelf_logit=base[listed.rows],
        exercise_set=catalog.exercise_set,
        exercise_offsets=catalog.exercises.offsets,
        exercise_rows=catalog.exercises.rows,
        exercise_weights=catalog.exercise_weights,
        seconds=catalog.expected_seconds,
        content=content,
        factors=factors,
        popularity=popularity,
        popular=popular,
        cards=cards,
        card_of=card_of,
        labels=make_labels(catalog, card_of),
        after_code=pairs.code,
        after_row=pairs.row,
        after_weight=pairs.weight,
    )
    frozen = QuestionArrays._make(_frozen(array) for array in read)
    items = None if collaborative is None else models.items
    lists, probes = (InvertedLists.none(), 1) if items is None else (items.lists, max(items.probes, 1))
    return Serving(
        catalog=catalog,
        models=models,
        learner=learner,
        question_concepts=questions,
        concepts=concepts,
        questions=frozen,
        gram=gram,
        bound=bind(concepts, frozen, learner.weights, questions, guide, gram, lists, probes),
        peers=guide,
        even_take_up=_frozen(np.full((len(SOURCES), len(catalog.areas)), 0.5, np.float32)),
    )


def _concept_arrays(catalog: Catalog, learner: LearnerModel, shelves: Sparse, content: F4) -> ConceptArrays:
    needs, opens = catalog.prerequisites, catalog.dependents
    centroid, step = (
        np.zeros((catalog.concept_count, WIDTH), np.int8),
        np.zeros(catalog.concept_count, np.float32),
    )
    roughly(_frozen(_centroids(catalog, content)), centroid, step)
    return ConceptArrays._make(
        _frozen(array)
        for array in ConceptArrays(
            active=catalog.concept_active & (np.diff(shelves.offsets) > 0),
            area=catalog.area_code,
            importance=catalog.importance,
            order=catalog.order,
            need_offsets=needs.offsets,
            need_rows=needs.rows,
            need_hard=needs.hard,
            open_offsets=opens.offsets,
            open_rows=opens.rows,
            open_hard=opens.hard,
            median_logit=np.nan_to_num(learner.weights.concept_median, nan=learner.prior_logit),
            centroid=centroid,
            centroid_step=step,
            **_at_first(catalog),
        )
    )


def _at_first(catalog: Catalog) -> dict[str, npt.NDArray[Any]]:
    """Return what is ready, missing, unlocking and waiting for a learner who has proven nothing, by name."""
    needs, opens, size = catalog.prerequisites, catalog.dependents, catalog.concept_count
    owner = np.repeat(np.arange(size), np.diff(needs.offsets))
    missing = np.bincount(owner, needs.hard, minlength=size).astype(np.int32)
    soft = np.bincount(owner, 1 - needs.hard, minlength=size) > 0
    hard = opens.hard == 1
    below = np.repeat(np.arange(size), np.diff(opens.offsets))[hard]
    share = catalog.importance[opens.rows[hard]].astype(np.float64) / missing[opens.rows[hard]]
    return {
        "ready": np.where(missing > 0, 0.0, np.where(soft, SOFT_LEAST, 1.0)),
        "missing": missing,
        "unlock": np.minimum(1.0, np.bincount(below, share, minlength=size)),
        "waiting": np.bincount(below, minlength=size).astype(np.int32),
    }


def _popularity(catalog: Catalog, models: Models) -> tuple[F4, U4]:
    """Return (popularity of every question, active rows by falling popularity)."""
    known = models.popularity
    if known is None and models.collaborative is not None:
        known = models.collaborative.popularity
    popularity = np.zeros(catalog.question_count, np.float32)
    if known is not None:
        shared = min(known.shape[0], catalog.question_count)
        popularity[:shared] = known[:shared]
    own = catalog.question_concepts
    central = np.zeros(catalog.question_count, np.float32)
    some = np.diff(own.offsets) > 0
    central[some] = catalog.importance[own.rows[own.offsets[:-1][some]]]
    rows = np.flatnonzero(catalog.question_active)
    order = np.lexsort((rows, -central[rows], -popularity[rows]))
    return popularity, rows[order].astype(np.uint32)


def _centroids(catalog: Catalog, content: F4) -> F4:
    """Return (nc, 64) unit means of the content vectors of each concept's questions."""
    listed = catalog.concept_questions
    sums = np.zeros((catalog.concept_count, content.shape[1]), np.float32)
    filled = np.diff(listed.offsets) > 0
    if filled.any():
        sums[filled] = np.add.reduceat(content[listed.rows], listed.offsets[:-1][filled], axis=0)
    length = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(np.divide(sums, length, out=np.zeros_like(sums), where=length > 0))


def _padded(vectors: F4, own: F4) -> F4:
    """Return trained vectors for every question row; rows newer than training lie at the origin, near
    nothing.

    The catalogue's own vectors cannot stand in for them: the two spaces are not comparable.
    """
    newer = np.zeros((max(own.shape[0] - vectors.shape[0], 0), vectors.shape[1]), np.float32)
    return np.concatenate([vectors, newer]) if newer.size else vectors[: own.shape[0]]


def _frozen(array: npt.NDArray[T]) -> npt.NDArray[T]:
    """Return a read-only C-contiguous view, so that every kernel is compiled for one kind of array only."""
    view = np.ascontiguousarray(array).view(np.ndarray)
    view.flags.writeable = False
    return view

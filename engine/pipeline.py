"""The one pass from learners' states to drawn slates: every stage of many learners in one kernel. Decides nothing
itself: the stages do.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.candidates import MAX_CANDIDATES, VACANT, Candidates, gather, slot_of
from engine.jit import kernel
from engine.learner.many import score_candidates
from engine.learner.score import QuestionConcepts, Weights
from engine.learner.state import Records
from engine.learner.update import widen
from engine.learner.view import VIEW_COUNTS, VIEW_FLOATS, stand
from engine.peers import Peers
from engine.policy import SOURCES, TERMS
from engine.scoring import lean, score
from engine.serving import ConceptArrays, QuestionArrays
from engine.slate import LEAST_LIFT, SlateReason, describe, draw
from engine.survey import HISTORY, NOW, OBJECTIVE_ROW, READY, SURVEY_WIDTH, TARGET, survey
from engine.types import F4, F8, I4, I8, NO_ROW, U1, U4

# Columns of `Asked.plan`. The bounds are those of a learner's own part of `touched` or `rows`.
SEED, TOUCHED, TOUCHED_END, EXCLUDED, EXCLUDED_END, SHOWN, SHOWN_END, NEAR, NEAR_END, TASTE = range(10)
PLAN_WIDTH: Final = 10

_FULL = int(SlateReason.FULL)
_EMPTY = int(SlateReason.EMPTY_CATALOG)
_EXCLUDED = int(SlateReason.ALL_EXCLUDED)
_FEW = int(SlateReason.FEW_ELIGIBLE)
_NOTHING = int(SlateReason.NOTHING_OPEN)


class Asked(NamedTuple):
    """What a pass reads of n learners; every array read-only and C-contiguous."""

    headers: Records
    """(n,) of dtype HEADER."""
    touched: Records
    """Concept records, one learner's after another's."""
    recents: Records
    """(n, RING) of dtype RECENT."""
    plan: I8
    """(n, PLAN_WIDTH) seeds, bounds, and which of `take_up` is the learner's."""
    settings: F8
    """(n, SETTINGS_WIDTH) by the places that `engine.survey` names."""
    rows: U4
    """Question rows: excluded ones, those shown lately, and the nearest to each learner, best first."""
    factors: F4
    """(n, 64) places among the collaborative factors, zero when unknown."""
    profiles: F4
    """(n, 64) places in content space, zero when unknown."""
    take_up: F4
    """(m, sources, areas) chances that an offer is taken up."""


class Rule(NamedTuple):
    """How a pass chooses, the same for all of its learners."""

    weights: F8
    """(terms,) signed."""
    quotas: I4
    """(sources,)"""
    memory: F8
    """(21,) FSRS weights."""
    usual: U1
    """(nc,) 1 for the concepts that this policy shows a learner without history."""


class Made(NamedTuple):
    """What a pass fills."""

    heads: npt.NDArray[Any]
    """(n,) of dtype HEAD; what is the same for all learners is there before the pass."""
    items: npt.NDArray[Any]
    """(n, limit) of dtype ITEM; the head says how many count."""
    leads: npt.NDArray[np.int8]
    """(n, limit) the term that lifts each item most over the average candidate, −1 where none does."""


@kernel
def make_slates(
    concepts: ConceptArrays,
    questions: QuestionArrays,
    weights: Weights,
    own_concepts: QuestionConcepts,
    peers: Peers,
    asked: Asked,
    rule: Rule,
    temperature: float,
    any_question: bool,
    made: Made,
) -> None:
    """Fill `made` with a slate for each learner; the same as the stages one by one, to the bit.

    `any_question`: whether the catalogue has an active question at all.
    """
    size = concepts.active.shape[0]
    view = np.empty((size, VIEW_FLOATS))
    counts = np.empty((size, VIEW_COUNTS), np.uint32)
    mastered, place = np.empty(size, np.uint8), np.empty(size, np.int32)
    outlook = np.empty((size, SURVEY_WIDTH), np.float32)
    wishes = np.empty((len(SOURCES), size), np.float32)
    met, predicted = np.empty(MAX_CANDIDATES, np.int32), np.empty(MAX_CANDIDATES)
    values = np.empty((MAX_CANDIDATES, len(TERMS)), np.float32)
    scores = np.empty(MAX_CANDIDATES)
    means = np.empty(len(TERMS))
    limit = made.items.shape[1]
    chosen, sameness = np.empty(limit, np.int64), np.empty(limit, np.float32)
    propensity, final = np.empty(limit), np.empty(limit)
    found = _room(asked)
    for i in range(asked.headers.shape[0]):
        header, plan, settings = asked.headers[i : i + 1], asked.plan[i], asked.settings[i]
        touched, recent = asked.touched[plan[TOUCHED] : plan[TOUCHED_END]], asked.recents[i]
        seed = plan[SEED]
        stand(header, touched, weights, settings[NOW], view, counts, mastered, place)
        survey(
            concepts, touched, view, counts, mastered, peers, rule.memory, asked.profiles[i],
            settings, seed, outlook, wishes,
        )  # fmt: skip
        found.counts[:] = 0
        found.slots[:] = VACANT
        held = gather(
            concepts, questions, outlook, wishes, rule.quotas, asked.rows[plan[NEAR] : plan[NEAR_END]],
            asked.rows[plan[EXCLUDED] : plan[EXCLUDED_END]], recent, settings, seed, limit, found,
        )  # fmt: skip
        _meet(found, held, recent, met)
        score_candidates(
            header, touched, recent, found.rows[:held], met, place, questions.cards, questions.card_of,
            (questions.after_code, questions.after_row, questions.after_weight), own_concepts, weights,
            settings[NOW], predicted[:held],
        )  # fmt: skip
        lean(concepts, questions, outlook, found, predicted[:held])
        mean_score = score(
            concepts, questions, outlook, found, predicted[:held], recent,
            asked.rows[plan[SHOWN] : plan[SHOWN_END]], asked.factors[i], asked.profiles[i],
            asked.take_up[plan[TASTE]], settings, rule.weights, values[:held], scores[:held], means,
        )  # fmt: skip
        shown = min(limit, held)
        best_left = draw(
            scores[:held], found, rule.weights, temperature, seed, chosen[:shown], sameness[:shown],
            propensity[:shown], final[:shown],
        )  # fmt: skip
        describe(
            found, chosen[:shown], sameness, propensity, final, predicted, values, outlook, view, counts, mastered,
            questions.seconds, settings, made.items[i],
        )  # fmt: skip
        _lead(made.items[i], shown, rule.weights, means, made.leads[i])
        head = made.heads[i]
        head.shown = shown
        head.candidates = held
        head.reason = _reason(concepts, outlook, shown, limit, any_question)
        head.objective = int(settings[OBJECTIVE_ROW])
        head.answers = header[0].applied
        head.seed = seed
        head.made_at = settings[NOW]
        head.last_answered_at = header[0].last_at
        head.mean_score = mean_score
        head.best_left = best_left
        head.target = settings[TARGET]
        head.unlike_stranger = _unlike(made.items[i], shown, rule.usual) if settings[HISTORY] > 0.0 else 0.0
        for term in range(means.shape[0]):
            head.weights[term] = rule.weights[term]
            head.means[term] = means[term]
        for source in range(found.counts.shape[0]):
            head.source_counts[source] = found.counts[source]


@kernel
def _room(asked: Asked) -> Candidates:
    """Return buffers that hold the blocked rows of any of the learners beside the candidates."""
    blocked = 0
    for i in range(asked.plan.shape[0]):
        blocked = max(blocked, asked.plan[i, EXCLUDED_END] - asked.plan[i, EXCLUDED])
    size = 1
    while size < 2 * (MAX_CANDIDATES + blocked + asked.recents.shape[1]):
        size *= 2
    return Candidates(
        np.empty(MAX_CANDIDATES, np.uint32),
        np.empty(MAX_CANDIDATES, np.uint16),
        np.empty(MAX_CANDIDATES, np.uint32),
        np.empty(len(SOURCES), np.int32),
        np.empty(size, np.uint32),
        np.empty(size, np.int32),
    )


@kernel
def _meet(found: Candidates, held: int, recent: Records, met: I4) -> None:
    """Fill met (held,) with each candidate's place in the ring of recent questions, -1 where it is not there."""
    met[:held] = -1
    for j in range(recent.shape[0]):
        if recent[j].question != NO_ROW:
            known = found.slots[slot_of(found.keys, found.slots, widen(recent[j].question))]
            if known >= 0:
                met[known] = j


@kernel
def _lead(items: npt.NDArray[Any], shown: int, weights: F8, means: F8, leads: npt.NDArray[np.int8]) -> None:
    """Fill leads (shown,) as `engine.slate.Slate.leads` says."""
    for rank in range(shown):
        raised = 0.0
        most = 0.0
        leads[rank] = -1
        for term in range(weights.shape[0]):
            lift = weights[term] * items[rank].values[term] - weights[term] * means[term]
            raised += max(lift, 0.0)
            if lift > most:
                most = lift
                leads[rank] = term
        if raised <= LEAST_LIFT:
            leads[rank] = -1


@kernel
def _reason(concepts: ConceptArrays, outlook: F4, shown: int, limit: int, any_question: bool) -> int:
    """Return the number of the `SlateReason`."""
    if shown == limit:
        return _FULL
    if not any_question:
        return _EMPTY
    if shown > 0:
        return _FEW
    for c in range(concepts.active.shape[0]):
        if concepts.active[c] == 1 and outlook[c, READY] > 0.0:
            return _EXCLUDED
    return _NOTHING


@kernel
def _unlike(items: npt.NDArray[Any], shown: int, usual: U1) -> float:
    """Return the share of the shown concepts that are not among the usual ones."""
    other = 0
    for rank in range(shown):
        other += 1 - usual[items[rank].concept]
    return other / max(shown, 1)

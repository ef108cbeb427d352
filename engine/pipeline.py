"""The one pass from learners' states to pools of scored candidates: every stage of many learners in one kernel. Decides
nothing itself: the stages do.
"""

from typing import Final, NamedTuple

import numpy as np

from engine.bound import Bound
from engine.candidates import MAX_CANDIDATES, VACANT, Candidates, gather, slot_of
from engine.draw import LOT
from engine.jit import kernel, lean_kernel
from engine.learner.many import score_candidates
from engine.learner.state import Records
from engine.learner.update import widen
from engine.learner.view import VIEW_COUNTS, VIEW_FLOATS, Standing
from engine.packing import HEAD_WORDS, pack
from engine.policy import SOURCES, TERMS
from engine.scoring import lean, score
from engine.serving import ConceptArrays, Likes
from engine.slate import ITEM, SlateReason
from engine.survey import (
    HISTORY,
    NOW,
    OBJECTIVE_ROW,
    READY,
    RECALL_TARGET,
    REVIEW,
    STEPS,
    SURVEY_WIDTH,
    TARGET,
    UNLOCKS,
    survey,
)
from engine.target import aim
from engine.types import F4, F8, I4, I8, NO_ROW, U1, U4

# Columns of `Asked.plan`. The bounds are those of a learner's own part of `touched` or `rows`.
SEED, TOUCHED, TOUCHED_END, EXCLUDED, EXCLUDED_END, SHOWN_END, TASTE = range(7)
PLAN_WIDTH: Final = 7

_FULL = int(SlateReason.FULL)
_EMPTY = int(SlateReason.EMPTY_CATALOG)
_EXCLUDED = int(SlateReason.ALL_EXCLUDED)
_FEW = int(SlateReason.FEW_ELIGIBLE)
_NOTHING = int(SlateReason.NOTHING_OPEN)


class Asked(NamedTuple):
    """What a pass reads of n learners; every array C-contiguous, and read-only but for `plan` and `settings`."""

    headers: Records
    """(n,) of dtype HEADER."""
    touched: Records
    """Concept records, one learner's after another's."""
    recents: Records
    """(n, RING) of dtype RECENT."""
    plan: I8
    """(n, PLAN_WIDTH) seeds, bounds, and which of `take_up` is the learner's."""
    settings: F8
    """(n, SETTINGS_WIDTH) by the places that `engine.survey` names; TARGET is 0 where the policy and `engine.target`
    choose it, HISTORY is filled by the pass.
    """
    rows: U4
    """Question rows: of each learner the excluded ones, then those shown lately."""
    likes: Likes
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
    temperature: float
    target_success: float
    target_reach: float


class Pooled(NamedTuple):
    """What a pass fills; the pools lie one after another."""

    heads: Records
    """(n,) of dtype HEAD; what is the same for all learners is there before the pass."""
    ends: I8
    """(n,) where each learner's pool ends."""
    words: U4
    """(≥ n·MOST_WORDS,) the pools, packed as `engine.packing` says; scores are without `diversity`."""


class Desk(NamedTuple):
    """Buffers for one learner at a time; nc concepts, MAX_CANDIDATES candidates."""

    standing: F8
    counts: U4
    mastered: U1
    place: I4
    outlook: F4
    wishes: F4
    met: I4
    predicted: F8
    values: F4
    scores: F8


@kernel
def fill_pools(bound: Bound, asked: Asked, rule: Rule, limit: int, made: Pooled) -> None:
    """Fill `made` with a pool for each learner; the same as the stages one by one, to the bit.

    `limit`: questions that a slate is to hold.
    """
    concepts, questions = bound.concepts, bound.questions
    any_question = questions.popular.shape[0] > 0
    desk = _desk(concepts.active.shape[0])
    means = np.empty(len(TERMS))
    found = _room(asked)
    described, laid_out = np.empty(MAX_CANDIDATES, ITEM), np.empty(MAX_CANDIDATES, LOT)
    heads = made.heads.view(np.uint32)
    start = limit - limit
    for i in range(asked.headers.shape[0]):
        settings = asked.settings[i].copy()
        settings[HISTORY] = asked.headers[i].applied
        if settings[TARGET] == 0.0:
            settings[TARGET] = aim(
                asked.headers[i : i + 1], rule.target_success, rule.target_reach, asked.plan[i, SEED]
            )
        held, mean_score = _score_one(bound, asked, i, settings, rule, limit, desk, found, means)
        items, lots = described[:held], laid_out[:held]
        describe(found, desk, questions.cards, settings, items)
        lay_out(desk.scores[:held], found, rule.temperature, rule.usual, settings[HISTORY] > 0.0, lots)
        shown = min(limit, held)
        head = made.heads[i]
        head.shown = shown
        head.candidates = held
        head.reason = _reason(concepts, desk.outlook, shown, limit, any_question)
        head.objective = int(settings[OBJECTIVE_ROW])
        head.answers = asked.headers[i].applied
        head.pool_seed = asked.plan[i, SEED]
        head.made_at = settings[NOW]
        head.last_answered_at = asked.headers[i].last_at
        head.mean_score = mean_score
        head.target = settings[TARGET]
        for term in range(means.shape[0]):
            head.weights[term] = rule.weights[term]
            head.means[term] = means[term]
        for source in range(found.counts.shape[0]):
            head.source_counts[source] = found.counts[source]
        start += pack(
            heads[i * HEAD_WORDS : (i + 1) * HEAD_WORDS], items.view(np.uint32), lots, made.words[start:]
        )
        made.ends[i] = start


@kernel
def _score_one(
    bound: Bound,
    asked: Asked,
    i: int,
    settings: F8,
    rule: Rule,
    limit: int,
    desk: Desk,
    found: Candidates,
    means: F8,
) -> tuple[int, float]:
    """Find and score the candidates of learner i; returns (how many, mean score), fills desk, found and means."""
    concepts, questions, weights = bound.concepts, bound.questions, bound.weights
    header, plan, profile = asked.headers[i : i + 1], asked.plan[i], asked.likes.profile[i]
    touched, recent = asked.touched[plan[TOUCHED] : plan[TOUCHED_END]], asked.recents[i]
    seed = plan[SEED]
    survey(
        concepts, bound.peers, header, touched, weights, rule.memory, profile, settings, seed,
        Standing(desk.standing, desk.counts, desk.mastered, desk.place), desk.outlook, desk.wishes,
    )  # fmt: skip
    found.counts[:] = 0
    found.slots[:] = VACANT
    held = gather(
        concepts, questions, desk.outlook, desk.wishes, rule.quotas, _known(asked.likes.near[i]),
        asked.rows[plan[EXCLUDED] : plan[EXCLUDED_END]], recent, settings, seed, limit, found,
    )  # fmt: skip
    _meet(found, held, recent, desk.met)
    predicted = desk.predicted[:held]
    score_candidates(
        header, touched, recent, found.rows[:held], desk.met, desk.place, desk.standing, questions.cards,
        found.cards[:held],
        (questions.after_code, questions.after_row, questions.after_weight), bound.own_concepts, weights,
        settings[NOW], predicted,
    )  # fmt: skip
    lean(concepts, questions, desk.outlook, found, predicted)
    mean_score = score(
        concepts, questions, desk.outlook, found, predicted, recent,
        asked.rows[plan[EXCLUDED_END] : plan[SHOWN_END]], asked.likes.factor[i], profile,
        asked.take_up[plan[TASTE]], settings, rule.weights, desk.values[:held], desk.scores[:held], means,
    )  # fmt: skip
    return held, mean_score


@kernel
def _known(near: U4) -> U4:
    """Return the rows before the first NO_ROW."""
    held = 0
    while held < near.shape[0] and near[held] != NO_ROW:
        held += 1
    return near[:held]


@kernel
def _desk(size: int) -> Desk:
    """Return room for one learner and `size` concepts."""
    return Desk(
        np.empty((size, VIEW_FLOATS)),
        np.empty((size, VIEW_COUNTS), np.uint32),
        np.empty(size, np.uint8),
        np.empty(size, np.int32),
        np.empty((size, SURVEY_WIDTH), np.float32),
        np.empty((len(SOURCES), size), np.float32),
        np.empty(MAX_CANDIDATES, np.int32),
        np.empty(MAX_CANDIDATES),
        np.empty((MAX_CANDIDATES, len(TERMS)), np.float32),
        np.empty(MAX_CANDIDATES),
    )


@lean_kernel
def describe(found: Candidates, desk: Desk, cards: Records, settings: F8, items: Records) -> None:
    """Fill items (n,) of dtype ITEM with what is known of each candidate; `cards` are the questions'."""
    for i in range(items.shape[0]):
        c = found.concepts[i]
        item = items[i]
        item.question = found.rows[i]
        item.concept = c
        item.score = desk.scores[i]
        item.propensity = 0.0
        item.last_at = desk.standing[c, 6]
        item.predicted = desk.predicted[i]
        for term in range(desk.values.shape[1]):
            item.values[term] = desk.values[i, term]
        item.mastery = desk.standing[c, 0]
        item.mastery_sd = desk.standing[c, 1]
        item.recall = desk.standing[c, 2]
        item.stability = desk.standing[c, 3]
        item.ready = desk.outlook[c, READY]
        item.seconds = cards[found.cards[i]].seconds
        item.attempts = desk.counts[c, 0]
        item.correct = desk.counts[c, 1]
        item.steps = int(desk.outlook[c, STEPS])
        item.unlocks = int(desk.outlook[c, UNLOCKS])
        item.sources = found.sources[i]
        item.due = 1 if desk.standing[c, 2] < settings[RECALL_TARGET] else 0
        item.mastered = desk.mastered[c]


@lean_kernel
def lay_out(
    scores: F8, found: Candidates, temperature: float, usual: U1, has_history: bool, lots: Records
) -> None:
    """Fill lots (n,) of dtype LOT, from which slates are drawn."""
    best = -np.inf
    for i in range(lots.shape[0]):
        best = max(best, scores[i])
    for i in range(lots.shape[0]):
        lot = lots[i]
        lot.score = scores[i]
        lot.odds = np.exp((scores[i] - best) / temperature) if temperature > 0.0 else 0.0
        lot.concept = found.concepts[i]
        lot.review = (found.sources[i] >> REVIEW) & 1
        lot.unusual = 1 - usual[found.concepts[i]] if has_history else 0


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
        np.empty(MAX_CANDIDATES, np.int32),
        np.empty(len(SOURCES), np.int32),
        np.empty(size, np.uint32),
        np.empty(size, np.int32),
    )


@lean_kernel
def _meet(found: Candidates, held: int, recent: Records, met: I4) -> None:
    """Fill met (held,) with each candidate's place in the ring of recent questions, -1 where it is not there."""
    met[:held] = -1
    for j in range(recent.shape[0]):
        if recent[j].question != NO_ROW:
            known = found.slots[slot_of(found.keys, found.slots, widen(recent[j].question))]
            if known >= 0:
                met[known] = j


@lean_kernel
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

"""Chances of success on many questions of one learner, what they share worked out once. The formulas are `score`'s."""

import math

import numpy as np

from engine.jit import kernel, lean_kernel, prefetch
from engine.learner.features import (
    N_CONCEPT,
    N_GLOBAL,
    SHRINK,
    hash_pair,
    how_met,
    last_outcomes,
    question_features,
    question_slope,
)
from engine.learner.score import (
    QuestionConcepts,
    Scratch,
    Weights,
    add_level,
    base_of,
    concept_score,
    dot_question,
    find_pair,
    global_score,
    make_scratch,
    start_level,
)
from engine.learner.state import FILTERS, Records
from engine.learner.update import Record, sigmoid, widen
from engine.learner.view import RECALL
from engine.types import F4, F8, I4, I8, NO_ROW, U4


@lean_kernel
def fill_bases(qc: QuestionConcepts, w: Weights, bases: F8) -> None:
    """Fill bases (questions, 2) with the base logit and the answers it rests on, as log(1 + n), by question row."""
    for question in range(bases.shape[0]):
        base, evidence = base_of(w, qc, question)
        bases[question, 0] = base
        bases[question, 1] = math.log1p(evidence)


@kernel
def score_candidates(
    header: Records,
    concepts: Records,
    recent: Records,
    questions: U4,
    met: I4,
    place: I4,
    standing: F8,
    cards: Records,
    places: I4,
    after: tuple[I8, U4, F4],
    qc: QuestionConcepts,
    w: Weights,
    now: float,
    out: F8,
) -> None:
    """Fill out (n,) with what `engine.learner.score.score_questions` does, to the bit, for rows of the catalogue.

    `met` (n,) is each question's place in the ring, -1 where it is not there; `place` (concepts,) and `standing`
    (concepts, VIEW_FLOATS) what `engine.learner.view.stand` fills; `cards` are `engine.cards.make_cards`'s,
    `places` (n,) those of the questions, `after` the codes, rows and weights of `engine.learner.pairs.PairTable`.
    """
    head = header[0]
    room = make_scratch()
    parts = np.full(place.shape[0], math.nan)
    whole = global_score(head, now, w, room)
    slope = question_slope(room.whole)
    any_two = last_outcomes(widen(head.pattern), 2)
    _ask_for_weights(head, cards, places, w)
    for i in range(questions.shape[0]):
        question = widen(questions[i])
        card = cards[places[i]]
        start_level(head, room.level, room.spread)
        total = whole
        share = 1.0 / max(widen(card.concepts), 1)
        own_two = widen(1)
        for pair in range(card.concepts):
            row = widen(card.concept if pair == 0 else qc.concepts[qc.offsets[question] + pair])
            at = widen(place[row])
            add_level(concepts, at, share, room.level, room.spread)
            if math.isnan(parts[row]):
                parts[row] = concept_score(head, concepts, at, row, now, standing[row, RECALL], w, room)
            total += share * parts[row]
            if pair == 0 and at >= 0:
                own_two = last_outcomes(widen(concepts[at].pattern), 2)
        if card.concepts == 0:
            total += concept_score(head, concepts, widen(-1), widen(NO_ROW), now, math.nan, w, room)
        total += _own_part(head, recent, widen(met[i]), card.base, card.evidence, now, w, room)
        total += card.bias + card.slope * slope
        how = widen(0)
        if met[i] >= 0:
            how = how_met(head, recent[met[i]])
        total += card.met[how]
        total += card.after_own[own_two - 1]
        out[i] = total + card.after_any[any_two - 1]
    if head.applied > 0 and w.pair_key.shape[0] > 1:
        _add_after_question(head, questions, after, out)
        _add_after_concept(head, cards, places, w, parts, out)
    for i in range(questions.shape[0]):
        out[i] = sigmoid(out[i])


@lean_kernel
def _ask_for_weights(head: Record, cards: Records, places: I4, w: Weights) -> None:
    """Have brought near what the model holds of the candidates' first concepts: of each, two places far apart."""
    follows = head.applied > 0 and w.pair_key.shape[0] > 1 and head.last_concept[0] != NO_ROW
    before = widen(NO_ROW)
    for i in range(places.shape[0]):
        card = cards[places[i]]
        row = widen(card.concept)
        if row == before or card.concepts == 0:
            continue
        before = row
        if row < w.concept.shape[0]:
            prefetch(w.concept, row * w.concept.shape[1])
            prefetch(w.concept, (row + 1) * w.concept.shape[1] - 1)
        if follows:
            slot = hash_pair(5 + widen(head.pattern & 1), row, widen(head.last_concept[0])) & np.uint64(
                w.pair_key.shape[0] - 1
            )
            prefetch(w.pair_key, int(slot))
            prefetch(w.pair_weight, int(slot))


@lean_kernel
def _own_part(
    head: Record,
    recent: Records,
    met: int,
    base: float,
    evidence: float,
    now: float,
    w: Weights,
    room: Scratch,
) -> float:
    """Log odds from the question itself and from what its concepts add up to; room holds level and spread."""
    if met >= 0:
        question_features(
            head, recent[met], True, base, 0.0, room.level, room.spread, now, w.constants[2], room.part
        )
        room.part[1 + FILTERS] = evidence
        return dot_question(w, room.part)
    # Of a question that is not in the ring, all further features are 0.
    first = N_GLOBAL + N_CONCEPT
    total = w.dense[first] * base
    for j in range(FILTERS):
        total += w.dense[first + 1 + j] * ((base + room.level[j]) / math.sqrt(1.0 + SHRINK * room.spread[j]))
    return float(total + w.dense[first + 1 + FILTERS] * evidence)


@kernel
def _add_after_question(head: Record, questions: U4, after: tuple[I8, U4, F4], out: F8) -> None:
    """Add to out (n,) the weights of pairs with the learner's last question: few questions have any."""
    codes, rows, weights = after
    code = 2 * widen(head.last_question) + widen(head.pattern & 1)
    start = np.searchsorted(codes, code)
    stop = start
    while stop < codes.shape[0] and codes[stop] == code:
        stop += 1
    if start == stop:
        return
    for i in range(questions.shape[0]):
        at = start + np.searchsorted(rows[start:stop], questions[i])
        if at < stop and rows[at] == questions[i]:
            out[i] += weights[at]


@lean_kernel
def _add_after_concept(head: Record, cards: Records, places: I4, w: Weights, known: F8, out: F8) -> None:
    """Add to out (n,) the weights of pairs of the first concept with the last one; known (concepts,) is overwritten."""
    known[:] = math.nan
    outside = math.nan
    for i in range(places.shape[0]):
        card = cards[places[i]]
        row = widen(card.concept)
        if card.concepts == 0:
            if math.isnan(outside):
                outside = _after_concept(head, widen(NO_ROW), w)
            out[i] += outside
            continue
        if math.isnan(known[row]):
            known[row] = _after_concept(head, row, w)
        out[i] += known[row]


@lean_kernel
def _after_concept(head: Record, concept: int, w: Weights) -> float:
    """Return the weight of a concept after the last one, 0 when it has none."""
    if head.last_concept[0] == NO_ROW:
        return 0.0
    return find_pair(w, hash_pair(5 + widen(head.pattern & 1), concept, widen(head.last_concept[0])))

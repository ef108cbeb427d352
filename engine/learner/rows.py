"""Training rows from the answer log: the same features, state and update as online. Fits nothing."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from engine.jit import kernel
from engine.learner.features import (
    CONCEPT_RATE_STRENGTH,
    N_CONCEPT,
    N_DENSE,
    N_GLOBAL,
    N_OWN_VALUES,
    N_PAIRS,
    N_QUESTION,
    QUESTION_RATE_STRENGTH,
    asked_at,
    concept_features,
    global_features,
    last_outcomes,
    new_concept_features,
    own_values,
    pair_key,
    question_features,
    question_slope,
)
from engine.learner.score import U8, add_level, logit, start_level, success_rate
from engine.learner.state import CONCEPT, FILTERS, Records, blank_header, blank_recent
from engine.learner.update import apply_answer, find_places, find_question, find_row, start_concept, widen
from engine.types import F4, F8, I4, I8, NO_ROW, U1, U4, AnswerBatch


class TrainingLog(NamedTuple):
    """The answers of many learners, one learner after the other, each in order."""

    learner_offsets: I8
    """(learners+1,) start of each learner's answers."""
    answers: AnswerBatch
    """All answers; its pair offsets run on over learners."""

    @property
    def learners(self) -> int:
        """Number of learners."""
        return len(self.learner_offsets) - 1

    def learner_of(self) -> I8:
        """Return the learner number (n,) of each answer."""
        return np.repeat(np.arange(self.learners), np.diff(self.learner_offsets))

    def take(self, learners: I8) -> TrainingLog:
        """Return the log of these learners only, in the order given."""
        sizes = np.diff(self.learner_offsets)[learners]
        answers = ranges(self.learner_offsets[learners], sizes)
        pair_sizes = np.diff(self.answers.offsets)[answers]
        pairs = ranges(self.answers.offsets[answers].astype(np.int64), pair_sizes)
        batch = self.answers
        offsets = np.concatenate(([0], np.cumsum(pair_sizes))).astype(np.int32)
        taken = AnswerBatch._make(
            [*(x[answers] for x in batch[:9]), offsets, *(x[pairs] for x in batch[10:])]
        )
        return TrainingLog(np.concatenate(([0], np.cumsum(sizes))).astype(np.int64), taken)

    def only(self, keep: npt.NDArray[np.bool_]) -> TrainingLog:
        """Return the log with the answers `keep` (n,) only; learners left with none stay, empty."""
        a = self.answers
        pairs = np.repeat(keep, np.diff(a.offsets))
        offsets = np.concatenate(([0], np.cumsum(np.diff(a.offsets)[keep]))).astype(np.int32)
        counts = np.bincount(self.learner_of()[keep], minlength=self.learners)
        batch = AnswerBatch._make([*(x[keep] for x in a[:9]), offsets, *(x[pairs] for x in a[10:])])
        return TrainingLog(np.concatenate(([0], np.cumsum(counts))).astype(np.int64), batch)

    def learner(self, number: int) -> AnswerBatch:
        """Return one learner's answers as a batch."""
        return part_of(self.answers, int(self.learner_offsets[number]), int(self.learner_offsets[number + 1]))


def part_of(batch: AnswerBatch, start: int, stop: int) -> AnswerBatch:
    """Return answers start..stop-1 of a batch."""
    first, last = batch.offsets[start], batch.offsets[stop]
    offsets = batch.offsets[start : stop + 1] - first
    return AnswerBatch._make(
        [*(x[start:stop] for x in batch[:9]), offsets, *(x[first:last] for x in batch[10:])]
    )


def ranges(starts: I8, sizes: I8) -> I8:
    """Return start, start+1, … for each (start, size), one after the other."""
    total = int(sizes.sum())
    jumps = np.repeat(starts - np.concatenate(([0], np.cumsum(sizes)[:-1])), sizes)
    return np.arange(total) + jumps


class Rates(NamedTuple):
    """Right and all answers by question and by concept, in all and by fold of learners."""

    question: I4
    """(questions, folds, 2)"""
    concept: I4
    """(concepts, folds, 2)"""

    @classmethod
    def tally(cls, log: TrainingLog, fold: I8, folds: int) -> Rates:
        """Count `log`'s answers, learner by learner in folds `fold` (learners,)."""
        a = log.answers
        owner = fold[log.learner_of()]

        def table(rows: U4, owners: I8, right: U1) -> I4:
            size = (int(rows.max()) + 1 if len(rows) else 0) * folds
            cell = rows.astype(np.int64) * folds + owners
            tried = np.bincount(cell, minlength=size)
            won = np.bincount(cell, weights=right, minlength=size)
            return np.stack([won, tried], axis=1).reshape(-1, folds, 2).astype(np.int32)

        own = a.weight >= 1.0
        answer = np.repeat(np.arange(a.size), np.diff(a.offsets))[own]
        return cls(
            table(a.question, owner, a.correct), table(a.concept[own], owner[answer], a.correct[answer])
        )


class Rows(NamedTuple):
    """Training rows; a row is a dense part and a fixed number of (index, value) places, value 0 where unused."""

    dense: F4
    """(n, N_DENSE)"""
    keys: U8
    """(n, N_PAIRS) pair keys, 0 where there is none."""
    ability: F4
    """(n,) what a question's own slope multiplies."""
    patterns: U1
    """(n,) the last 5 outcomes of the learner."""
    concept: U4
    """(n, width) rows of the question's concepts, NO_ROW where unused."""
    concept_values: F4
    """(n, width, N_OWN_VALUES) what a concept's own weights multiply."""
    concept_patterns: U1
    """(n, width) the concept's last 4 outcomes."""

    @classmethod
    def empty(cls, n: int, width: int) -> Rows:
        """Return unfilled rows for n answers with at most `width` concepts a question."""
        return cls(
            np.zeros((n, N_DENSE), np.float32),
            np.zeros((n, N_PAIRS), np.uint64),
            np.zeros(n, np.float32),
            np.ones(n, np.uint8),
            np.full((n, width), NO_ROW, np.uint32),
            np.zeros((n, width, N_OWN_VALUES), np.float32),
            np.ones((n, width), np.uint8),
        )


@kernel
def fill_bases(
    log: TrainingLog,
    fold: I8,
    question_rate: I4,
    concept_rate: I4,
    difficulty: F4,
    whole: float,
    base: F4,
    evidence: F4,
) -> None:
    """Fill base logits (n,) and the answers they rest on, each learner's from the other folds only.

    `fold` (learners,) is −1 for a learner whose answers are not counted at all. `whole` is the tenant's success rate,
    `difficulty` (questions,) what the caller said, NaN where nothing, shorter where nothing was said of later rows.
    Leaving the own fold out keeps a learner's own answer from leaking into what predicts it. `evidence` (n,) is scaled
    to all folds, for which the model will be used.
    """
    a = log.answers
    folds = question_rate.shape[1]
    for learner in range(log.learner_offsets.shape[0] - 1):
        own = fold[learner]
        for i in range(log.learner_offsets[learner], log.learner_offsets[learner + 1]):
            prior = 0.0
            k = 0
            for pair in range(a.offsets[i], a.offsets[i + 1]):
                if a.weight[pair] < 1.0:
                    continue
                right = CONCEPT_RATE_STRENGTH * whole
                tried = CONCEPT_RATE_STRENGTH
                if a.concept[pair] < concept_rate.shape[0]:
                    for f in range(folds):
                        if f != own:
                            right += concept_rate[a.concept[pair], f, 0]
                            tried += concept_rate[a.concept[pair], f, 1]
                prior += right / tried
                k += 1
            prior = prior / k if k > 0 else whole
            if a.question[i] < difficulty.shape[0] and not math.isnan(difficulty[a.question[i]]):
                prior = success_rate(difficulty[a.question[i]])
            right = QUESTION_RATE_STRENGTH * prior
            tried = QUESTION_RATE_STRENGTH
            if a.question[i] < question_rate.shape[0]:
                for f in range(folds):
                    if f != own:
                        right += question_rate[a.question[i], f, 0]
                        tried += question_rate[a.question[i], f, 1]
            base[i] = logit(right / tried)
            evidence[i] = (tried - QUESTION_RATE_STRENGTH) * (
                folds / max(folds - 1.0, 1.0) if own >= 0 else 1.0
            )


@kernel
def fill_row(
    header: Records,
    concepts: Records,
    recent: Records,
    batch: AnswerBatch,
    i: int,
    base: float,
    evidence: float,
    decay: float,
    scratch: F8,
    level: F8,
    spread: F8,
    rows: Rows,
    to: int,
) -> None:
    """Fill row `to` with what is seen before answer `i`; the state is not changed."""  # fmt: skip
    head = header[0]
    now = asked_at(head, batch, i)
    dense = rows.dense[to]
    dense[:] = 0.0
    whole, values = np.empty(N_GLOBAL), np.empty(N_OWN_VALUES)
    global_features(head, now, whole)
    for j in range(N_GLOBAL):
        dense[j] = whole[j]
    rows.ability[to] = question_slope(whole)
    own = 0
    for pair in range(batch.offsets[i], batch.offsets[i + 1]):
        own += batch.weight[pair] >= 1.0
    share = 1.0 / max(own, 1)
    start_level(head, level, spread)
    first_pattern, first = widen(1), widen(NO_ROW)
    place = 0
    for pair in range(batch.offsets[i], batch.offsets[i + 1]):
        if batch.weight[pair] < 1.0:
            continue
        row = widen(batch.concept[pair])
        at = find_row(concepts, row)
        add_level(concepts, at, share, level, spread)
        pattern = widen(1)
        if at >= 0:
            concept = concepts[at]
            concept_features(head, concept, now, decay, scratch)
            pattern = widen(concept.pattern)
        else:
            new_concept_features(scratch)
        for j in range(N_CONCEPT):
            dense[N_GLOBAL + j] += share * scratch[j]
        own_values(whole, scratch, values)
        for j in range(N_OWN_VALUES):
            rows.concept_values[to, place, j] = values[j]
        rows.concept[to, place] = row
        rows.concept_patterns[to, place] = last_outcomes(pattern, 4)
        if place == 0:
            first_pattern = pattern
            first = row
        place += 1
    if own == 0:
        new_concept_features(scratch)
        for j in range(N_CONCEPT):
            dense[N_GLOBAL + j] = scratch[j]
    question = widen(batch.question[i])
    met = find_question(recent, question)
    seen = recent[max(met, 0)]
    question_features(head, seen, met >= 0, 1.0 * base, 1.0 * evidence, level, spread, now, decay, scratch)
    for j in range(N_QUESTION):
        dense[N_GLOBAL + N_CONCEPT + j] = scratch[j]
    rows.patterns[to] = last_outcomes(widen(head.pattern), 5)
    for kind in range(N_PAIRS):
        rows.keys[to, kind] = pair_key(kind, head, seen, met >= 0, first_pattern, question, first)


@kernel
def walk(
    log: TrainingLog,
    first: int,
    last: int,
    header: Records,
    concepts: Records,
    concept_offsets: I8,
    recent: Records,
    base: F4,
    evidence: F4,
    memory_sets: F8,
    decay: float,
    rows: Rows,
) -> None:
    """Fill the rows of learners first..last−1, each from the blank state `header`, `recent` on.

    `concepts`, `concept_offsets`: for each learner, the zeroed records of the concepts met, sorted, `row` set.
    State moves by the base logit in the log; `base` and `evidence` (n,) are what the prediction sees.
    """  # fmt: skip
    scratch = np.empty(max(N_CONCEPT, N_QUESTION))
    level = np.empty(FILTERS)
    spread = np.empty(FILTERS)
    own_header = np.empty_like(header)
    own_recent = np.empty_like(recent)
    places = np.empty(log.answers.concept.shape[0], np.int64)
    for learner in range(first, last):
        own_header[0] = header[0]
        own_recent[:] = recent
        touched = concepts[concept_offsets[learner] : concept_offsets[learner + 1]]
        for at in range(touched.shape[0]):
            start_concept(touched[at], touched[at].row)
        for i in range(log.learner_offsets[learner], log.learner_offsets[learner + 1]):
            fill_row(
                own_header, touched, own_recent, log.answers, i, base[i], evidence[i], decay, scratch, level, spread,
                rows, i,
            )  # fmt: skip
            pairs = log.answers.concept[log.answers.offsets[i] : log.answers.offsets[i + 1]]
            find_places(touched, pairs, places)
            apply_answer(
                own_header[0], touched, own_recent, log.answers, i, memory_sets, places[: pairs.shape[0]]
            )


def build_rows(log: TrainingLog, base: F4, evidence: F4, memory_sets: F8, decay: float) -> Rows:
    """Return the training rows of every answer of `log`; base and evidence (n,) as in `walk`."""
    a = log.answers
    own = a.weight >= 1.0
    answer = np.repeat(np.arange(a.size), np.diff(a.offsets))
    widest = int(np.bincount(answer[own], minlength=1).max()) if a.size else 1
    met = np.unique(log.learner_of()[answer] << 32 | a.concept)
    concepts = np.zeros(len(met), CONCEPT)
    concepts["row"] = met & 0xFFFFFFFF
    offsets = np.searchsorted(met >> 32, np.arange(log.learners + 1)).astype(np.int64)
    rows = Rows.empty(a.size, max(widest, 1))
    walk(
        log,
        0,
        log.learners,
        blank_header(),
        concepts,
        offsets,
        blank_recent(),
        base,
        evidence,
        memory_sets,
        decay,
        rows,
    )
    return rows

"""A few questions from what each source wants, none of them twice. Scores nothing.

Questions come from the chosen concepts' shelves, near the difficulty at which the learner would succeed as
often as the policy aims at; neighbours and popular questions are walked in their own order.
"""

from typing import Final, NamedTuple

import numpy as np

from engine.jit import kernel, lean_kernel, prefetch
from engine.learner.state import Records
from engine.policy import SOURCES
from engine.serving import ConceptArrays, QuestionArrays
from engine.survey import (
    COLLABORATIVE,
    FILL,
    NOW,
    POPULAR,
    RANDOM,
    READY,
    STANDING,
    TARGET,
    chance,
)
from engine.types import F4, F8, I4, I8, NO_ROW, U2, U4

MAX_CANDIDATES: Final = 320
"""Most candidates of one call."""

MOST_CONCEPTS = 64
"""Most concepts that one source puts forward."""

PER_CONCEPT = 4
"""Questions taken from one concept, unless a source has fewer concepts than its quota needs."""

NEAREST_SHARE = 4
"""One candidate of this many of the collaborative source is a nearest question, the rest are of the concepts to which
others' practice leads: the former are mostly of concepts at hand."""

BAND_LOGIT = 0.25
"""Base logits this close to the wanted one are as good: where to start among them is drawn."""

SCAN = 4096
"""Most entries of one shelf, or of the popular list, that are looked at; full shelves of blocked questions
end here."""

SHORT_SHELF = 128
"""Entries of a shelf that is brought near as a whole."""
ENTRIES_A_LINE = 16
"""Four bytes each."""

REST_S = 8 * 3600.0
"""A question answered correctly is not asked again within this time."""

BLOCKED = -2
VACANT = -1


class Candidates(NamedTuple):
    """Buffers that `gather` fills; only the first n entries count."""

    rows: U4
    """(MAX_CANDIDATES,) question rows, no row twice."""
    sources: U2
    """(MAX_CANDIDATES,) bit i set when source i proposed it."""
    concepts: U4
    """(MAX_CANDIDATES,) the concept for which it was first proposed."""
    cards: I4
    """(MAX_CANDIDATES,) places of their cards."""
    counts: I4
    """(sources,) how many each source proposed, those that another had proposed included."""
    keys: U4
    """Hash table of rows, a power of two long."""
    slots: I4
    """Beside `keys`: the candidate's number, `BLOCKED`, or `VACANT`."""

    @classmethod
    def room(cls, blocked: int) -> "Candidates":
        """Return empty buffers that hold `blocked` rows beside the candidates."""
        size = 1 << (2 * (MAX_CANDIDATES + blocked) - 1).bit_length()
        return cls(
            np.empty(MAX_CANDIDATES, np.uint32),
            np.empty(MAX_CANDIDATES, np.uint16),
            np.empty(MAX_CANDIDATES, np.uint32),
            np.empty(MAX_CANDIDATES, np.int32),
            np.zeros(len(SOURCES), np.int32),
            np.empty(size, np.uint32),
            np.full(size, VACANT, np.int32),
        )


@lean_kernel
def slot_of(keys: U4, slots: I4, row: int) -> int:
    """Return the place of a row in the hash table, its own or the vacant one where it would go."""
    mask = keys.shape[0] - 1
    # Fibonacci hashing: rows of one shelf are often evenly spaced.
    place: int = (row * 0x9E3779B1 >> 9) & mask
    while slots[place] != VACANT and keys[place] != row:
        place = (place + 1) & mask
    return place


@lean_kernel
def _block(keys: U4, slots: I4, rows: U4) -> None:
    """Put rows into the hash table as never to be offered."""
    for i in range(rows.shape[0]):
        place = slot_of(keys, slots, int(rows[i]))
        keys[place] = rows[i]
        slots[place] = BLOCKED


@lean_kernel
def _block_resting(keys: U4, slots: I4, recent: Records, now: float) -> None:
    """Put the recent questions that were answered right within `REST_S` into the hash table as never to be
    offered.
    """
    for i in range(recent.shape[0]):
        if recent[i].question != NO_ROW and recent[i].last == 1 and now - recent[i].at < REST_S:
            place = slot_of(keys, slots, int(recent[i].question))
            keys[place] = recent[i].question
            slots[place] = BLOCKED


@lean_kernel
def _first_at_least(ascending: F4, start: int, end: int, value: float) -> int:
    """Return the first entry of ascending[start:end] that is not below `value`, `end` when there is none."""
    while start < end:
        middle = (start + end) // 2
        if ascending[middle] < value:
            start = middle + 1
        else:
            end = middle
    return start


@lean_kernel
def shelf_start(logits: F4, start: int, end: int, wanted: float, luck: float) -> int:
    """Return the entry of the ascending logits[start:end] to start at: drawn evenly from those within
    BAND_LOGIT.

    Where none is that close, the first one above, or the last.
    """
    low = _first_at_least(logits, start, end, wanted - BAND_LOGIT)
    high = _first_at_least(logits, low, end, wanted + BAND_LOGIT)
    if high > low:
        return low + int(luck * (high - low))
    return min(low, end - 1)


@lean_kernel
def _walk(
    questions: QuestionArrays,
    survey: F4,
    found: Candidates,
    held: int,
    listed: U4,
    up: int,
    source: int,
    count: int,
) -> int:
    """Offer up to `count` questions of `listed`, from entry `up` outwards to both sides in turn.

    Passed over are rows that are blocked, inactive, of no concept, or of a closed one; a row that another
    source has proposed gains this source's bit. Returns how many candidates are held.
    """
    end = listed.shape[0]
    down = up - 1
    goal = found.counts[source] + count
    bit = 1 << source
    upward = True
    for _ in range(SCAN):
        if found.counts[source] >= goal or (up >= end and down < 0):
            break
        upward = up < end and (upward or down < 0)
        entry = up if upward else down
        if upward:
            up += 1
        else:
            down -= 1
        upward = not upward
        row = int(listed[entry])
        place = slot_of(found.keys, found.slots, row)
        known = found.slots[place]
        if known >= 0 and found.sources[known] & bit == 0:
            found.sources[known] |= bit
            found.counts[source] += 1
        if known != VACANT or row >= questions.labels.shape[0]:
            continue
        label = questions.labels[row]
        is_open = label.active == 1 and label.concepts > 0 and held < found.rows.shape[0]
        is_open = is_open and survey[label.concept, READY] > 0.0
        for further in range(1, label.concepts):
            concept = questions.concept_rows[questions.concept_offsets[row] + further]
            is_open = is_open and survey[concept, READY] > 0.0
        if is_open:
            found.keys[place] = row
            found.slots[place] = held
            found.rows[held] = row
            found.sources[held] = bit
            found.concepts[held] = label.concept
            found.cards[held] = label.card
            prefetch(questions.cards, found.cards[held])
            found.counts[source] += 1
            held += 1
    return held


@lean_kernel
def _from_concepts(
    concepts: ConceptArrays,
    questions: QuestionArrays,
    survey: F4,
    wishes: F4,
    among: I8,
    room: I8,
    found: Candidates,
    held: int,
    source: int,
    quota: int,
    aim: float,
    seed: int,
) -> int:
    """Offer up to `quota` questions of the concepts that a source wants most; `aim` is the target's log
    odds; `room` has 2 · MOST_CONCEPTS places.
    """
    chosen, starts = room[:MOST_CONCEPTS], room[MOST_CONCEPTS:]
    few = quota if source in (RANDOM, FILL) else (quota + PER_CONCEPT - 1) // PER_CONCEPT
    count = best_rows(wishes[source], among, min(MOST_CONCEPTS, few), chosen)
    each = max(1 if source == RANDOM else PER_CONCEPT, (quota + count - 1) // max(count, 1))
    goal = found.counts[source] + quota
    for position in range(count):
        _ask_for_shelf(questions, chosen[position])
    for position in range(count):
        c = chosen[position]
        start = questions.shelf_offsets[c]
        end = questions.shelf_offsets[c + 1]
        luck = chance(seed, 1000003 * (source + 1) + c)
        up = start + int(luck * (end - start))
        if source != RANDOM:
            m = survey[c, STANDING]
            # Success on a question is taken to differ from mastery, success on the median one, as logits do.
            wanted = aim - np.log(m / (1.0 - m)) + concepts.median_logit[c]
            up = shelf_start(questions.shelf_logit, start, end, wanted, luck)
        starts[position] = up
        for entry in range(max(start, up - each // 2), min(end, up + each - each // 2)):
            prefetch(questions.labels, questions.shelf_rows[entry])
    for position in range(count):
        c = chosen[position]
        start = questions.shelf_offsets[c]
        end = questions.shelf_offsets[c + 1]
        up = starts[position]
        most = min(each, goal - found.counts[source])
        before = held
        held = _walk(
            questions, survey, found, held, questions.shelf_rows[start:end], up - start, source, most
        )
        found.concepts[before:held] = c
    return held


@lean_kernel
def _ask_for_shelf(questions: QuestionArrays, concept: int) -> None:
    """Have a short shelf brought near before it is searched; of a long one, too much would be brought for nothing."""
    start = questions.shelf_offsets[concept]
    end = questions.shelf_offsets[concept + 1]
    if end - start <= SHORT_SHELF:
        for entry in range(start, end, ENTRIES_A_LINE):
            prefetch(questions.shelf_logit, entry)
            prefetch(questions.shelf_rows, entry)


@kernel
def _open_rows(concepts: ConceptArrays, survey: F4) -> I8:
    """Return the concepts that can be wanted at all, in rising order: often a small part of all."""
    rows = np.empty(concepts.active.shape[0], np.int64)
    count = 0
    for c in range(rows.shape[0]):
        if concepts.active[c] == 1 and survey[c, READY] > 0.0:
            rows[count] = c
            count += 1
    return rows[:count]


@kernel
def gather(
    concepts: ConceptArrays,
    questions: QuestionArrays,
    survey: F4,
    wishes: F4,
    quotas: I4,
    neighbours: U4,
    blocked: U4,
    recent: Records,
    settings: F8,
    seed: int,
    wanted: int,
    found: Candidates,
) -> int:
    """Fill `found` from every source with a quota, then, should it hold fewer than `wanted`, from the rest.

    Returns how many are held. `survey` and `wishes` are what `engine.survey.survey` fills. `neighbours` are
    question rows nearest the learner, best first; `blocked` rows are never offered, nor those of the
    learner's `recent` ring that were answered right within `REST_S`.
    """
    _block(found.keys, found.slots, blocked)
    _block_resting(found.keys, found.slots, recent, settings[NOW])
    aim = np.log(settings[TARGET] / (1.0 - settings[TARGET]))
    among, room = _open_rows(concepts, survey), np.empty(2 * MOST_CONCEPTS, np.int64)
    held = wanted - wanted  # zero, but no constant: those are compiled for separately
    for source in range(quotas.shape[0]):
        goal = quotas[source] + held - held
        if source == FILL and held < wanted:
            goal = 2 * wanted
        listed = neighbours if source == COLLABORATIVE else questions.popular
        if goal > 0 and source in (COLLABORATIVE, POPULAR):
            held = _walk(questions, survey, found, held, listed, min(0, listed.shape[0]), source, goal)
            goal -= found.counts[source]
        if goal > 0:
            held = _from_concepts(
                concepts, questions, survey, wishes, among, room, found, held, source, goal, aim, seed
            )
    return held


@lean_kernel
def best_rows(values: F4, among: I8, count: int, rows: I8) -> int:
    """Put the up to `count` indices with the largest non-negative values into `rows`, largest first, ties by index.

    Only the indices `among`, in rising order, are looked at.
    """
    held = 0
    for i in range(among.shape[0]):
        index = among[i]
        value = values[index]
        if value < 0.0 or (held == count and value <= values[rows[held - 1]]):
            continue
        place = held if held < count else held - 1
        while place > 0 and values[rows[place - 1]] < value:
            rows[place] = rows[place - 1]
            place -= 1
        rows[place] = index
        held = min(held + 1, count)
    return held

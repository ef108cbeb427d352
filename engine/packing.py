"""A pool's candidates in as few words as they take, and back again. Decides nothing, and loses nothing.

Records of `engine.slate.ITEM` say much twice: what is known of a concept stands in every candidate of it, and many
values are zero, or the same for all. Packed, each of a hundred candidates takes some 70 bytes in place of 150, and a
draw reads the scores, which lie together, and the few candidates that it takes.

A packed pool is an array of 32-bit words: the head, of dtype `engine.slate.HEAD`, and the number of concepts; the usual
value of each term; the scores, as float64; a tag a candidate; FACTS words a concept; the rows. A tag is the number of
the candidate's concept among those of the pool, + REVIEW_BIT when the review source proposed it, + UNUSUAL_BIT when a
learner without history is not shown its concept, and, in its upper half, where its row begins. A row is question,
predicted success, expected seconds, and sources with a mask, in the upper half, of the terms whose values follow: the
others are the usual ones.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from engine.candidates import MAX_CANDIDATES
from engine.jit import kernel
from engine.learner.state import Records
from engine.policy import TERMS
from engine.slate import HEAD, ITEM
from engine.types import U4

WORD: Final = 4
"""Bytes of a word."""

_FIELDS: Mapping[str, Any] = ITEM.fields or {}


def _word(field: str) -> int:
    """Return the word of an item in which a field begins."""
    return int(_FIELDS[field][1]) // WORD


ITEM_WORDS: Final = ITEM.itemsize // WORD
HEAD_WORDS: Final = HEAD.itemsize // WORD
_TERMS: Final = len(TERMS)
_USUAL: Final = HEAD_WORDS + 1
_SCORES: Final = _USUAL + _TERMS
_QUESTION, _CONCEPT, _SCORE, _LAST = (_word(name) for name in ("question", "concept", "score", "last_at"))
_PREDICTED, _VALUES, _MASTERY, _READY = (_word(name) for name in ("predicted", "values", "mastery", "ready"))
_SECONDS, _ATTEMPTS, _STEPS, _SOURCES = (_word(name) for name in ("seconds", "attempts", "steps", "sources"))

FACTS: Final = 12
"""Words of a concept: itself, when it was last practised, mastery to readiness, attempts and right ones, steps and
unlocks; whether it is due and mastered."""

_PLAIN_ROW: Final = 4
REVIEW_BIT: Final = 1 << 15
UNUSUAL_BIT: Final = 1 << 14
_PLACE: Final = UNUSUAL_BIT - 1
_LOW: Final = 0xFFFF

MOST_WORDS: Final = _SCORES + MAX_CANDIDATES * (2 + 1 + FACTS + _PLAIN_ROW + _TERMS) + 1
"""That a packed pool may take."""


@kernel
def pack(head: U4, items: U4, lots: Records, words: U4) -> int:
    """Fill words (≥ MOST_WORDS,) with a pool; returns how many it takes, an even number.

    `head` (HEAD_WORDS,) and `items` (n·ITEM_WORDS,) are records seen as words, `lots` (n,) of dtype LOT. Of an item all
    is kept but its propensity, which a draw fills.
    """
    n = lots.shape[0]
    words[:HEAD_WORDS] = head
    tags = _SCORES + 2 * n
    facts = tags + n
    count = 0
    for i in range(n):
        item = items[i * ITEM_WORDS : (i + 1) * ITEM_WORDS]
        words[_SCORES + 2 * i] = item[_SCORE]
        words[_SCORES + 2 * i + 1] = item[_SCORE + 1]
        # Candidates of a concept come mostly one after another: the last ones are the likeliest.
        place = count - 1
        while place >= 0 and words[facts + place * FACTS] != item[_CONCEPT]:
            place -= 1
        if place < 0:
            place = count
            count += 1
            _note(item, words[facts + place * FACTS : facts + count * FACTS])
        review = REVIEW_BIT if lots[i].review == 1 else 0
        words[tags + i] = place + review + (UNUSUAL_BIT if lots[i].unusual == 1 else 0)
    words[HEAD_WORDS] = count
    _usual(items, n, words[_USUAL:_SCORES])
    rows = facts + count * FACTS
    end = rows
    for i in range(n):
        item = items[i * ITEM_WORDS : (i + 1) * ITEM_WORDS]
        words[tags + i] |= (end - rows) << 16
        end = _write_row(item, words[_USUAL:_SCORES], words, end)
    words[end] = 0
    return int(end + (end & 1))


@kernel
def _note(item: U4, fact: U4) -> None:
    """Fill fact (FACTS,) with what an item says of its concept."""
    fact[0] = item[_CONCEPT]
    fact[1] = item[_LAST]
    fact[2] = item[_LAST + 1]
    for word in range(5):
        fact[3 + word] = item[_MASTERY + word]
    fact[8] = item[_ATTEMPTS]
    fact[9] = item[_ATTEMPTS + 1]
    fact[10] = item[_STEPS]
    fact[11] = item[_SOURCES] & ~_LOW


@kernel
def _usual(items: U4, n: int, usual: U4) -> None:
    """Fill usual (terms,) with the value that all n items have, or with zero."""
    for term in range(_TERMS):
        first = 1 * items[_VALUES + term] if n > 0 else 0
        for i in range(1, n):
            if items[i * ITEM_WORDS + _VALUES + term] != first:
                first = 0
                break
        usual[term] = first


@kernel
def _write_row(item: U4, usual: U4, words: U4, start: int) -> int:
    """Write an item's row from word `start` on; returns its end."""
    words[start] = item[_QUESTION]
    words[start + 1] = item[_PREDICTED]
    words[start + 2] = item[_SECONDS]
    end = start + _PLAIN_ROW
    mask = 0
    for term in range(_TERMS):
        if item[_VALUES + term] != usual[term]:
            words[end] = item[_VALUES + term]
            mask |= 1 << term
            end += 1
    words[start + 3] = (item[_SOURCES] & _LOW) | (mask << 16)
    return end


@kernel
def unpack_lots(words: U4, temperature: float, lots: Records) -> None:
    """Fill lots (n,) of dtype LOT, from which slates are drawn, from a packed pool of n candidates.

    `concept` is its number in the pool.
    """
    n = lots.shape[0]
    tags = _SCORES + 2 * n
    scores = words[_SCORES:tags].view(np.float64)
    best = -np.inf
    for i in range(n):
        best = max(best, scores[i])
    for i in range(n):
        lot = lots[i]
        tag = words[tags + i]
        lot.score = scores[i]
        lot.odds = np.exp((scores[i] - best) / temperature) if temperature > 0.0 else 0.0
        lot.concept = tag & _PLACE
        lot.review = 1 if tag & REVIEW_BIT else 0
        lot.unusual = 1 if tag & UNUSUAL_BIT else 0


@kernel
def unpack_item(words: U4, n: int, index: int, item: U4) -> None:
    """Fill item (ITEM_WORDS,), zero before, with a candidate of a packed pool of n; its propensity stays."""
    tags = _SCORES + 2 * n
    facts = tags + n
    tag = words[tags + index]
    at = facts + (tag & _PLACE) * FACTS
    item[_CONCEPT] = words[at]
    item[_LAST] = words[at + 1]
    item[_LAST + 1] = words[at + 2]
    for word in range(5):
        item[_MASTERY + word] = words[at + 3 + word]
    item[_ATTEMPTS] = words[at + 8]
    item[_ATTEMPTS + 1] = words[at + 9]
    item[_STEPS] = words[at + 10]
    row = facts + words[HEAD_WORDS] * FACTS + (tag >> 16)
    item[_QUESTION] = words[row]
    item[_PREDICTED] = words[row + 1]
    item[_SECONDS] = words[row + 2]
    item[_SOURCES] = words[at + 11] | (words[row + 3] & _LOW)
    item[_SCORE] = words[_SCORES + 2 * index]
    item[_SCORE + 1] = words[_SCORES + 2 * index + 1]
    mask = words[row + 3] >> 16
    value = row + _PLAIN_ROW
    for term in range(_TERMS):
        if (mask >> term) & 1:
            item[_VALUES + term] = words[value]
            value += 1
        else:
            item[_VALUES + term] = words[_USUAL + term]


@kernel
def unpack_items(words: U4, items: U4) -> None:
    """Fill items (n·ITEM_WORDS,), zero before, with all n candidates of a packed pool."""
    n = items.shape[0] // ITEM_WORDS
    for i in range(n):
        unpack_item(words, n, i, items[i * ITEM_WORDS : (i + 1) * ITEM_WORDS])

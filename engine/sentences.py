"""The sentence that tells why an item was recommended, as UTF-8 bytes, by a kernel. Chooses as `engine.reasons` does.

The templates of `engine.messages.ENGLISH` are taken apart once, into pieces of text and facts between them.
"""

from string import Formatter
from typing import Any, Final

import numpy as np

from engine.jit import lean_kernel
from engine.learner.state import Records
from engine.messages import ENGLISH
from engine.octets import put_bytes, put_decimal
from engine.policy import TERMS
from engine.reasons import CHANCE, NEAR_TARGET, REST, WELL_KNOWN
from engine.scoring import GAIN, GOAL, KEEP, ZONE
from engine.survey import START
from engine.types import I4, U1

_TEXT: Final = -1
_FACTS: Final = (
    "concept", "objective", "predicted", "target", "mastery", "recall", "unlocks", "steps", "seconds", "hours", "days"
)  # fmt: skip
"""Facts that a sentence may state, by number."""
(_CONCEPT, _OBJECTIVE, _PREDICTED, _TARGET, _MASTERY, _RECALL, _UNLOCKS, _STEPS, _SECONDS, _HOURS, _DAYS) = (
    range(len(_FACTS))
)

_NAMES: Final = tuple(sorted(key for key in ENGLISH if key.startswith("reason.")))
_PLACES: Final = {name: place for place, name in enumerate(_NAMES)}


def _taken_apart() -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """Return texts; pieces (n, 3) of fact or _TEXT, start and size of its text; where each sentence's pieces begin."""
    text = bytearray()
    pieces: list[tuple[int, int, int]] = []
    starts = [0]
    for name in _NAMES:
        for literal, fact, spec, conversion in Formatter().parse(ENGLISH[name]):
            if literal:
                pieces.append((_TEXT, len(text), len(literal.encode())))
                text += literal.encode()
            if fact is not None:
                if spec or conversion:
                    raise ValueError(f"message {name!r} formats {fact!r} in a way that is not known here")
                pieces.append((_FACTS.index(fact), 0, 0))
        starts.append(len(pieces))
    return np.frombuffer(bytes(text), np.uint8), np.array(pieces, np.int32), np.array(starts, np.int32)


_WORDS, _PIECES, _STARTS = _taken_apart()

LONGEST: Final = 128 + max(len(ENGLISH[name].encode()) for name in _NAMES)
"""Bytes that a sentence has at most, beside the titles of concepts in it."""
MOST_TITLES: Final = max(
    ENGLISH[name].count("{concept}") + ENGLISH[name].count("{objective}") for name in _NAMES
)
"""Titles that a sentence has at most."""

_LEADS: Final = np.array([_PLACES.get(f"reason.{name}", 0) for name in TERMS], np.int32)
_CHANCE: Final = _PLACES[f"reason.{CHANCE}"]
_REST: Final = _PLACES[f"reason.{REST}"]
_START: Final = _PLACES["reason.start"]
_KEEPS: Final = tuple(
    _PLACES[f"reason.retention.{case}"] for case in ("other", "days", "day", "hours", "now")
)
_ZONES: Final = tuple(_PLACES[f"reason.zone{case}"] for case in ("", ".off"))
_GAINS: Final = tuple(_PLACES[f"reason.gain{case}"] for case in (".new", ".known", ".unlock", ".unlocks", ""))
_GOALS: Final = tuple(_PLACES[f"reason.objective.{case}"] for case in ("goal", "step", "other", "steps"))
_UNTITLED: Final = np.frombuffer(b"concept ", np.uint8)


@lean_kernel
def _percent(share: float) -> int:
    return int(np.rint(100.0 * share))


@lean_kernel
def _hours(item: Any, made_at: float) -> int:
    """Return whole hours since the concept was practised; −1 when it never was."""
    if np.isnan(item.last_at):
        return -1
    return int(max(0.0, made_at - item.last_at) / 3_600.0)


@lean_kernel
def _sentence(item: Any, lead: int, head: Any) -> int:
    """Return the number of the sentence, by the rules of `engine.reasons.main_reason`."""
    if (item.sources >> START) & 1:
        return _START
    if lead < 0:
        return _CHANCE if item.propensity < 1.0 else _REST
    if lead == KEEP:
        hours = _hours(item, head.made_at)
        if hours < 0 or np.isnan(item.recall):
            return _KEEPS[0]
        if hours >= 24:
            return _KEEPS[1] if hours >= 48 else _KEEPS[2]
        return _KEEPS[3] if hours >= 2 else _KEEPS[4]
    if lead == ZONE:
        return (
            _ZONES[0] if abs(_percent(item.predicted) - _percent(head.target)) <= NEAR_TARGET else _ZONES[1]
        )
    if lead == GAIN:
        if item.attempts == 0:
            return _GAINS[0]
        if _percent(item.mastery) >= WELL_KNOWN:
            return _GAINS[1]
        if item.unlocks > 0:
            return _GAINS[2] if item.unlocks == 1 else _GAINS[3]
        return _GAINS[4]
    if lead == GOAL:
        if item.steps == 0:
            return _GOALS[0]
        if item.steps == 1:
            return _GOALS[1]
        return _GOALS[2] if item.steps == -1 else _GOALS[3]
    return int(_LEADS[lead])


@lean_kernel
def _put_title(out: U1, at: int, row: int, titles: U1, starts: I4) -> int:
    """Write a concept's name; a number for one that is newer than the names."""
    if row < starts.shape[0] - 1:
        return put_bytes(out, at, titles, starts[row], starts[row + 1] - starts[row])
    return put_decimal(out, put_bytes(out, at, _UNTITLED, 0, _UNTITLED.shape[0]), row)


@lean_kernel
def _fact(fact: int, item: Any, head: Any) -> int:
    """Return a fact that is a number."""
    if fact == _PREDICTED:
        return _percent(item.predicted)
    if fact == _TARGET:
        return _percent(head.target)
    if fact == _MASTERY:
        return _percent(item.mastery)
    if fact == _RECALL:
        return _percent(item.recall)
    if fact == _UNLOCKS:
        return int(item.unlocks)
    if fact == _STEPS:
        return int(item.steps)
    if fact == _SECONDS:
        return int(np.rint(float(item.seconds)))
    hours = _hours(item, head.made_at)
    return hours if fact == _HOURS else hours // 24


@lean_kernel
def put_sentence(
    out: U1, at: int, items: Records, rank: int, lead: int, heads: Records, titles: U1, starts: I4
) -> int:
    """Write the foremost reason for an item; return where it ends.

    `items` (k,) of dtype ITEM, `heads` (1,) of dtype HEAD; `lead` the item's of `Slate.leads`; `titles` the names of
    concepts, that of row r from starts[r] to starts[r + 1]. Of a slate without an objective no item is led by it.
    """
    item, head = items[rank], heads[0]
    number = _sentence(item, lead, head)
    for piece in range(_STARTS[number], _STARTS[number + 1]):
        fact = _PIECES[piece, 0]
        if fact == _TEXT:
            at = put_bytes(out, at, _WORDS, _PIECES[piece, 1], _PIECES[piece, 2])
        elif fact == _CONCEPT:
            at = _put_title(out, at, int(item.concept), titles, starts)
        elif fact == _OBJECTIVE:
            at = _put_title(out, at, int(head.objective), titles, starts)
        else:
            at = put_decimal(out, at, _fact(fact, item, head))
    return at

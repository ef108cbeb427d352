"""The sentence that tells why an item was recommended, and the facts that it states. Weighs no reasons.

A reply holds a sentence for each of its items, so this is done thousands of times a second: items are taken out of
their records all at once, templates are read once, and a fact is worked out only for a template that states it.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from string import Formatter
from typing import Any, Final, NamedTuple

import numpy.typing as npt

from engine.messages import ENGLISH
from engine.policy import SOURCES, TERMS
from engine.scoring import GAIN, GOAL, KEEP, ZONE
from engine.slate import ITEM, Slate
from engine.survey import START

CHANCE: Final = "chance"
"""Name in `feature_importance` for what no term explains, but the draw does."""

REST: Final = "rest"
"""Name in `feature_importance` for what no term explains, and nothing was drawn: it is the first of what was left."""

NEAR_TARGET = 10
"""Per cent around the target within which a question counts as neither too easy nor too hard."""

WELL_KNOWN = 85
"""Mastery in per cent from which practice is said to keep a concept rather than to raise it."""


class PlainItem(NamedTuple):
    """The fields of `engine.slate.ITEM` but `values`, as plain numbers."""

    question: int
    concept: int
    score: float
    propensity: float
    last_at: float
    predicted: float
    mastery: float
    mastery_sd: float
    recall: float
    stability: float
    ready: float
    seconds: float
    attempts: int
    correct: int
    steps: int
    unlocks: int
    sources: int
    due: int
    mastered: int


def plain_items(items: npt.NDArray[Any]) -> list[PlainItem]:
    """Return items (k,) of dtype ITEM as plain numbers."""
    return list(map(_plain, _LAYOUT.iter_unpack(items.tobytes())))


def _layout() -> struct.Struct:
    """Return how a record of ITEM is read as a PlainItem; a tenth of the time that numpy takes field by field."""
    fields: Mapping[str, Any] = ITEM.fields or {}
    code, end = "=", 0
    for name in PlainItem._fields:
        kind, start = fields[name][:2]
        code += f"{start - end}x{kind.char}"
        end = start + kind.itemsize
    return struct.Struct(f"{code}{ITEM.itemsize - end}x")


_LAYOUT: Final = _layout()
_plain: Final[Callable[[tuple[Any, ...]], PlainItem]] = partial(tuple.__new__, PlainItem)
"""What `_make` does without counting the fields again."""


class Facts:
    """What is known of an item, by the names that templates use, each worked out when it is asked for."""

    __slots__ = ("item", "slate", "titles")

    def __init__(self, slate: Slate, item: PlainItem, titles: Sequence[str]) -> None:
        """`titles` are the concepts' names by row."""
        self.slate = slate
        self.item = item
        self.titles = titles

    def __getitem__(self, name: str) -> Any:
        """Return a fact; None for what nothing is known of."""
        return _FACTS[name](self)

    @property
    def hours(self) -> int | None:
        """Whole hours that have passed since the concept was practised."""
        last_at = self.item.last_at
        return None if math.isnan(last_at) else int(max(0.0, self.slate.made_at - last_at) / 3_600.0)


_FACTS: Final[Mapping[str, Callable[[Facts], Any]]] = {
    "concept": lambda facts: title(facts.titles, facts.item.concept),
    "predicted": lambda facts: percent(facts.item.predicted),
    "target": lambda facts: percent(facts.slate.target),
    "mastery": lambda facts: percent(facts.item.mastery),
    "mastery_sd": lambda facts: round(facts.item.mastery_sd, 3),
    "readiness": lambda facts: round(facts.item.ready, 3),
    "attempts": lambda facts: facts.item.attempts,
    "correct": lambda facts: facts.item.correct,
    "unlocks": lambda facts: facts.item.unlocks,
    "seconds": lambda facts: round(facts.item.seconds),
    "sources": lambda facts: source_names(facts.item.sources),
    "objective": lambda facts: (
        title(facts.titles, facts.slate.objective) if facts.slate.objective >= 0 else None
    ),
    "steps": lambda facts: facts.item.steps if facts.slate.objective >= 0 else None,
    "recall": lambda facts: None if math.isnan(facts.item.recall) else percent(facts.item.recall),
    "stability_days": lambda facts: None if math.isnan(facts.item.recall) else round(facts.item.stability, 1),
    "hours": lambda facts: facts.hours,
    "days": lambda facts: None if facts.hours is None else facts.hours // 24,
}


def main_reason(slate: Slate, item: PlainItem, lead: int, titles: Sequence[str]) -> str:
    """Return the first sentence of `explain`, for the reply to a recommendation: without working out the others.

    `lead` is the item's of `Slate.leads`.
    """
    facts = Facts(slate, item, titles)
    if item.sources >> START & 1:
        return start_sentence(facts, ENGLISH)
    case, told = _LED[lead if lead >= 0 or was_drawn(item.propensity) else _REST]
    fill, wanted = told[case(facts) if case is not None else ""]
    return fill(*[fact(facts) for fact in wanted])


def was_drawn(propensity: float) -> bool:
    """Whether chance had a part in an item's place."""
    return propensity < 1.0


def start_sentence(facts: Facts, messages: Mapping[str, str]) -> str:
    """Return the sentence of an item that is a place to start."""
    return _filled(messages["reason.start"], facts)


def sentence(name: str, facts: Facts, messages: Mapping[str, str]) -> str:
    """Return the sentence of a term, of CHANCE or of REST."""
    case = _CASES.get(name)
    key = f"reason.{name}"
    return _filled(messages[key + case(facts) if case is not None else key], facts)


def _retention_case(facts: Facts) -> str:
    hours = facts.hours
    if hours is None or math.isnan(facts.item.recall):
        return ".other"
    if hours >= 48:
        return ".days"
    if hours >= 24:
        return ".day"
    return ".hours" if hours >= 2 else ".now"


def _zone_case(facts: Facts) -> str:
    away = abs(percent(facts.item.predicted) - percent(facts.slate.target))
    return "" if away <= NEAR_TARGET else ".off"


def _gain_case(facts: Facts) -> str:
    item = facts.item
    if item.attempts == 0:
        return ".new"
    if percent(item.mastery) >= WELL_KNOWN:
        return ".known"
    if item.unlocks:
        return ".unlock" if item.unlocks == 1 else ".unlocks"
    return ""


def _goal_case(facts: Facts) -> str:
    return {0: ".goal", 1: ".step", -1: ".other"}.get(facts["steps"], ".steps")


_CASES: Final[Mapping[str, Callable[[Facts], str]]] = {
    TERMS[KEEP]: _retention_case,
    TERMS[ZONE]: _zone_case,
    TERMS[GAIN]: _gain_case,
    TERMS[GOAL]: _goal_case,
}
"""Which of a term's sentences is said, as the end of its key."""


def _filled(template: str, facts: Facts) -> str:
    fill, wanted = _compiled(template)
    return fill(*[fact(facts) for fact in wanted])


_Template = tuple[Callable[..., str], tuple[Callable[[Facts], Any], ...]]
"""What fills in the places of a template, and what each of them states."""


@lru_cache(maxsize=1_024)
def _compiled(template: str) -> _Template:
    pieces, wanted = [], []
    for literal, name, spec, conversion in Formatter().parse(template):
        pieces.append(literal.replace("{", "{{").replace("}", "}}"))
        if name is not None:
            wanted.append(_FACTS[name])
            pieces.append("{" + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}")
    return "".join(pieces).format, tuple(wanted)


def _led_by(name: str) -> "tuple[Callable[[Facts], str] | None, Mapping[str, _Template]]":
    key = f"reason.{name}"
    ends = [known.removeprefix(key) for known in ENGLISH if known == key or known.startswith(f"{key}.")]
    return _CASES.get(name), {end: _compiled(ENGLISH[key + end]) for end in ends}


_LED: Final = tuple(map(_led_by, (*TERMS, REST, CHANCE)))
"""Cases and English sentences by number of the term that leads; −1 is the last."""
_REST: Final = -2


def source_names(mask: int) -> tuple[str, ...]:
    """Return the sources of a candidate's bit mask."""
    return tuple(source for bit, source in enumerate(SOURCES) if mask >> bit & 1)


def title(titles: Sequence[str], row: int) -> str:
    """Return a concept's name; a number for one that is newer than the names."""
    return titles[row] if row < len(titles) else f"concept {row}"


def percent(share: float) -> int:
    """Return a share in whole per cent."""
    return round(100.0 * share)

"""Why a question was recommended, from the stored slate alone: nothing is computed anew. Speaks through messages."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from engine.learner import TARGET_RETENTION
from engine.messages import ENGLISH
from engine.policy import SOURCES, TERMS
from engine.scoring import GAIN, GOAL, KEEP, ZONE, ZONE_ABOVE, ZONE_BELOW
from engine.slate import LEAST_LIFT, Slate
from engine.survey import START

CHANCE: Final = "chance"
"""Name in `feature_importance` for what no term explains: the draw."""

MAIN_REASONS = 3
"""Most sentences of `main_reasons`."""

LEAST_SHARE = 0.08
"""A term that explains less of the lift than this is not a main reason."""

SURE_MARGIN = 0.05
"""Score margin at which the ranking counts as half way from a toss-up to certain."""

ENOUGH_EVIDENCE = 5.0
"""Answers on the concept (twenty elsewhere count as one) at which data quality is half way up."""

STALE_DAYS = 90.0
"""Age of the newest answer at which data quality has halved."""

NEAR_TARGET = 10
"""Per cent around the target within which a question counts as neither too easy nor too hard."""

WELL_KNOWN = 85
"""Mastery in per cent from which practice is said to keep a concept rather than to raise it."""

Facts = dict[str, Any]


class Level(IntEnum):
    """How much an explanation tells; each level holds the one before."""

    SIMPLE = 1
    DETAILED = 2
    TECHNICAL = 3


@dataclass(frozen=True, slots=True)
class Confidence:
    """How far to trust a recommendation; each in [0, 1]."""

    algorithm_confidence: float
    """From the margin over the best question left out: ½ at none, nearing 1 with it, below ½ when luck drew it."""
    data_quality: float
    """e/(e + 5) · ½^(days since the newest answer / 90), e being answers on the concept plus a twentieth of all."""
    personalization_strength: float
    """Share of the slate's concepts that a learner without history would not have been shown."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the score."""

    name: str
    value: float
    weight: float
    """Signed: below 0 for a penalty."""
    contribution: float
    """weight · value; they sum to the score."""
    lift: float
    """Contribution less that of the average candidate."""
    facts: Facts
    """What the value rests on, by name."""


@dataclass(frozen=True, slots=True)
class Technical:
    """Where a recommendation came from."""

    policy: str
    model_version: str
    catalog_version: int
    sources: tuple[str, ...]
    """That proposed this question."""
    source_counts: dict[str, int]
    """Candidates that each source proposed."""
    candidates: int
    propensity: float
    """Chance that this question was drawn at this rank, given those above it."""
    temperature: float
    seed: int
    score: float
    mean_score: float
    best_left: float | None
    """Best score among the candidates not shown; None when all were."""


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one question was recommended."""

    question: int
    concept: int
    rank: int
    """From 0."""
    main_reasons: tuple[str, ...]
    """Sentences, most important first."""
    feature_importance: dict[str, float]
    """Term → share of what lifted the question above the average candidate, largest first; they sum to 1."""
    confidence: Confidence
    terms: tuple[Term, ...] = ()
    """Every term, from DETAILED on."""
    counterfactual: str = ""
    """What would have to change for it not to be shown, from DETAILED on."""
    technical: Technical | None = None
    """From TECHNICAL on."""


def explain(
    slate: Slate,
    rank: int,
    titles: Sequence[str],
    *,
    level: Level = Level.SIMPLE,
    messages: Mapping[str, str] = ENGLISH,
) -> Explanation:
    """Explain the item at `rank` (from 0) of a slate; `titles` are the concepts' names by row.

    Raises:
        IndexError: the slate has no such rank.
    """
    if not 0 <= rank < len(slate.items):
        raise IndexError(f"rank {rank} of a slate of {len(slate.items)}")
    facts = _Facts(slate, rank, titles)
    importance = feature_importance(slate, rank)
    item = slate.items[rank]
    return Explanation(
        question=int(item["question"]),
        concept=int(item["concept"]),
        rank=rank,
        main_reasons=_reasons(importance, facts, messages),
        feature_importance=importance,
        confidence=confidence(slate, rank),
        terms=_terms(slate, rank, facts) if level >= Level.DETAILED else (),
        counterfactual=counterfactual(slate, rank, titles, messages) if level >= Level.DETAILED else "",
        technical=_technical(slate, rank) if level >= Level.TECHNICAL else None,
    )


def main_reason(slate: Slate, rank: int, titles: Sequence[str], messages: Mapping[str, str] = ENGLISH) -> str:
    """Return the first sentence of `explain`, for the reply to a recommendation: without working out the others."""
    facts = _Facts(slate, rank, titles)
    if facts.number("sources") >> START & 1:
        return messages["reason.start"].format_map(facts)
    lead = slate.leads[rank]
    return _sentence(CHANCE if lead < 0 else TERMS[lead], facts, messages)


def feature_importance(slate: Slate, rank: int) -> dict[str, float]:
    """Return term → share of the sum of all positive lifts, largest first; `chance` alone when nothing lifts."""
    lifts = slate.lifts[rank].tolist()
    raised = sum(lift for lift in lifts if lift > 0.0)
    if raised <= LEAST_LIFT:
        return {CHANCE: 1.0}
    shares = [(name, lift / raised) for name, lift in zip(TERMS, lifts, strict=True) if lift > 0.0]
    return dict(sorted(shares, key=lambda pair: -pair[1]))


def confidence(slate: Slate, rank: int) -> Confidence:
    """Return how far to trust one item; the formulas are those of `Confidence`."""
    item = slate.items[rank]
    margin = float(item["score"]) - slate.best_left
    sure = 1.0 if math.isinf(margin) else margin / (abs(margin) + SURE_MARGIN)
    evidence = float(item["attempts"]) + slate.answers / 20.0
    age_days = max(0.0, slate.made_at - slate.last_answered_at) / 86400.0
    quality = evidence / (evidence + ENOUGH_EVIDENCE) * 0.5 ** (age_days / STALE_DAYS)
    return Confidence(0.5 + 0.5 * sure, quality, slate.unlike_stranger)


def counterfactual(
    slate: Slate, rank: int, titles: Sequence[str], messages: Mapping[str, str] = ENGLISH
) -> str:
    """Return what would have to change for the item to score below the best question left out.

    The term that contributes most and could fall far enough by itself is named, turned back into chance or recall
    where its formula allows.
    """
    item = slate.items[rank]
    margin = float(item["score"]) - slate.best_left
    if math.isinf(margin):
        return messages["without.rival"]
    if margin <= 0.0:
        return messages["without.luck"]
    contributions = slate.contributions[rank].tolist()
    for term in sorted(range(len(TERMS)), key=lambda term: -contributions[term]):
        if contributions[term] < margin:
            break
        value = float(item["values"][term])
        needed = value - margin / float(slate.weights[term])
        told = ""
        if term == ZONE:
            told = _zone_without(float(item["predicted"]), slate.target, needed, messages)
        elif term == KEEP:
            told = _retention_without(item, value, needed, _title(titles, int(item["concept"])), messages)
        label = messages[f"term.{TERMS[term]}"]
        return told or messages["without.term"].format(
            term=label, value=f"{value:.2f}", needed=f"{needed:.2f}"
        )
    return messages["without.nothing"]


def _zone_without(predicted: float, target: float, needed: float, messages: Mapping[str, str]) -> str:
    """Return the chance of success at which `zone` has fallen to `needed`, on the learner's own side first."""
    if needed <= 0.0:
        return ""
    away = math.sqrt(-2.0 * math.log(needed))
    below, above = _percent(target - ZONE_BELOW * away), _percent(target + ZONE_ABOVE * away)
    if below > 0 and (predicted <= target or above >= 100):
        return messages["without.zone.below"].format(predicted=below)
    return messages["without.zone.above"].format(predicted=above) if above < 100 else ""


def _retention_without(
    item: Any, value: float, needed: float, title: str, messages: Mapping[str, str]
) -> str:
    """Return the recall at which `retention` has fallen to `needed`, where it rests on the one concept."""
    recall, slack = float(item["recall"]), 1.0 - TARGET_RETENTION
    if math.isnan(recall) or recall >= 1.0:
        return ""
    known = value * (1.0 - recall + slack) / (1.0 - recall)
    if known > 1.0 + 1e-3:
        return ""
    return messages["without.retention"].format(
        concept=title, recall=_percent(1.0 - needed * slack / (known - needed))
    )


class _Facts:
    """What is known of an item, by the names that templates use, each worked out when it is asked for."""

    __slots__ = ("_rank", "_slate", "_titles")

    def __init__(self, slate: Slate, rank: int, titles: Sequence[str]) -> None:
        self._slate = slate
        self._rank = rank
        self._titles = titles

    def __getitem__(self, name: str) -> Any:
        """Return a fact; None for what nothing is known of."""
        return _FACTS[name](self)

    def number(self, field: str) -> Any:
        """Return a field of the item as a plain number."""
        return self._slate.column(field)[self._rank]

    def title(self, row: int) -> str:
        return _title(self._titles, row)

    @property
    def slate(self) -> Slate:
        return self._slate

    def since(self, seconds: float) -> int | None:
        """Return how many whole spans of `seconds` have passed since the concept was practised."""
        last_at = self.number("last_at")
        return (
            None if math.isnan(last_at) else int(max(0.0, self._slate.made_at - last_at) / 3600.0 / seconds)
        )


def _known(value: float, told: Callable[[float], Any]) -> Any:
    return None if math.isnan(value) else told(value)


_FACTS: Final[Mapping[str, Callable[[_Facts], Any]]] = {
    "concept": lambda item: item.title(item.number("concept")),
    "predicted": lambda item: _percent(item.number("predicted")),
    "target": lambda item: _percent(item.slate.target),
    "mastery": lambda item: _percent(item.number("mastery")),
    "mastery_sd": lambda item: round(item.number("mastery_sd"), 3),
    "readiness": lambda item: round(item.number("ready"), 3),
    "attempts": lambda item: item.number("attempts"),
    "correct": lambda item: item.number("correct"),
    "unlocks": lambda item: item.number("unlocks"),
    "seconds": lambda item: round(item.number("seconds")),
    "sources": lambda item: _sources(item.number("sources")),
    "objective": lambda item: item.title(item.slate.objective) if item.slate.objective >= 0 else None,
    "steps": lambda item: item.number("steps") if item.slate.objective >= 0 else None,
    "recall": lambda item: _known(item.number("recall"), _percent),
    "stability_days": lambda item: (
        None if math.isnan(item.number("recall")) else round(item.number("stability"), 1)
    ),
    "hours": lambda item: item.since(1.0),
    "days": lambda item: item.since(24.0),
}


def _reasons(importance: Mapping[str, float], facts: _Facts, messages: Mapping[str, str]) -> tuple[str, ...]:
    told = [
        _sentence(name, facts, messages)
        for name, share in importance.items()
        if share >= LEAST_SHARE or name == next(iter(importance))
    ]
    if facts.number("sources") >> START & 1:
        told.insert(0, messages["reason.start"].format_map(facts))
    return tuple(told[:MAIN_REASONS])


def _sentence(name: str, facts: _Facts, messages: Mapping[str, str]) -> str:
    key = f"reason.{name}"
    if name == TERMS[KEEP]:
        key += _retention_case(facts)
    elif name == TERMS[ZONE]:
        key += "" if abs(facts["predicted"] - facts["target"]) <= NEAR_TARGET else ".off"
    elif name == TERMS[GAIN]:
        if facts["attempts"] == 0:
            key += ".new"
        elif facts["mastery"] >= WELL_KNOWN:
            key += ".known"
        elif facts["unlocks"]:
            key += ".unlock" if facts["unlocks"] == 1 else ".unlocks"
    elif name == TERMS[GOAL]:
        key += {0: ".goal", 1: ".step", -1: ".other"}.get(facts["steps"], ".steps")
    return messages[key].format_map(facts)


def _retention_case(facts: _Facts) -> str:
    if facts["days"] is None or facts["recall"] is None:
        return ".other"
    if facts["days"] >= 2:
        return ".days"
    if facts["days"] == 1:
        return ".day"
    return ".hours" if facts["hours"] >= 2 else ".now"


_TERM_FACTS: Final[Mapping[str, tuple[str, ...]]] = {
    "zone": ("predicted", "target"),
    "gain": ("mastery", "mastery_sd", "attempts", "correct", "unlocks"),
    "retention": ("recall", "stability_days", "days", "hours"),
    "readiness": ("readiness",),
    "objective": ("objective", "steps"),
    "context": ("seconds",),
    "engagement": ("sources",),
}


def _terms(slate: Slate, rank: int, facts: _Facts) -> tuple[Term, ...]:
    values = slate.items[rank]["values"].tolist()
    return tuple(
        Term(
            name=name,
            value=values[term],
            weight=float(slate.weights[term]),
            contribution=float(slate.contributions[rank, term]),
            lift=float(slate.lifts[rank, term]),
            facts={fact: told for fact in _TERM_FACTS.get(name, ()) if (told := facts[fact]) is not None},
        )
        for term, name in enumerate(TERMS)
    )


def _technical(slate: Slate, rank: int) -> Technical:
    item = slate.items[rank]
    counts = zip(SOURCES, slate.source_counts.tolist(), strict=True)
    return Technical(
        policy=slate.policy,
        model_version=slate.model_version,
        catalog_version=slate.catalog_version,
        sources=_sources(int(item["sources"])),
        source_counts={source: count for source, count in counts if count},
        candidates=slate.candidates,
        propensity=float(item["propensity"]),
        temperature=slate.temperature,
        seed=slate.seed,
        score=float(item["score"]),
        mean_score=slate.mean_score,
        best_left=None if math.isinf(slate.best_left) else slate.best_left,
    )


def _sources(mask: int) -> tuple[str, ...]:
    return tuple(source for bit, source in enumerate(SOURCES) if mask >> bit & 1)


def _title(titles: Sequence[str], row: int) -> str:
    return titles[row] if row < len(titles) else f"concept {row}"


def _percent(share: float) -> int:
    return round(100.0 * share)

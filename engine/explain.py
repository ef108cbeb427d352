"""Why a question was recommended, from the stored slate alone: nothing is computed anew. Speaks through messages."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from engine.draw import LEAST_LIFT
from engine.learner import TARGET_RETENTION
from engine.messages import ENGLISH
from engine.policy import SOURCES, TERMS
from engine.reasons import (
    CHANCE,
    REST,
    Facts,
    percent,
    plain_items,
    sentence,
    source_names,
    start_sentence,
    title,
    was_drawn,
)
from engine.scoring import KEEP, ZONE, ZONE_ABOVE, ZONE_BELOW
from engine.slate import Slate
from engine.survey import START

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
    facts: dict[str, Any]
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
    facts = Facts(slate, plain_items(slate.items[rank : rank + 1])[0], titles)
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


def feature_importance(slate: Slate, rank: int) -> dict[str, float]:
    """Return term → share of the sum of all positive lifts, largest first.

    When nothing lifts, `chance` alone where something was drawn, else `rest` alone.
    """
    lifts = slate.lifts[rank].tolist()
    raised = sum(lift for lift in lifts if lift > 0.0)
    if raised <= LEAST_LIFT:
        return {CHANCE if was_drawn(float(slate.items[rank]["propensity"])) else REST: 1.0}
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
    if abs(margin) <= LEAST_LIFT:
        return messages["without.tie"]
    if margin < 0.0:
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
            told = _retention_without(item, value, needed, title(titles, int(item["concept"])), messages)
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
    below, above = percent(target - ZONE_BELOW * away), percent(target + ZONE_ABOVE * away)
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
        concept=title, recall=percent(1.0 - needed * slack / (known - needed))
    )


def _reasons(importance: Mapping[str, float], facts: Facts, messages: Mapping[str, str]) -> tuple[str, ...]:
    told = [
        sentence(name, facts, messages)
        for name, share in importance.items()
        if share >= LEAST_SHARE or name == next(iter(importance))
    ]
    if facts.item.sources >> START & 1:
        told.insert(0, start_sentence(facts, messages))
    return tuple(told[:MAIN_REASONS])


_TERM_FACTS: Final[Mapping[str, tuple[str, ...]]] = {
    "zone": ("predicted", "target"),
    "gain": ("mastery", "mastery_sd", "attempts", "correct", "unlocks"),
    "retention": ("recall", "stability_days", "days", "hours"),
    "readiness": ("readiness",),
    "objective": ("objective", "steps"),
    "context": ("seconds",),
    "engagement": ("sources",),
}


def _terms(slate: Slate, rank: int, facts: Facts) -> tuple[Term, ...]:
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
        sources=source_names(int(item["sources"])),
        source_counts={source: count for source, count in counts if count},
        candidates=slate.candidates,
        propensity=float(item["propensity"]),
        temperature=slate.temperature,
        seed=slate.seed,
        score=float(item["score"]),
        mean_score=slate.mean_score,
        best_left=None if math.isinf(slate.best_left) else slate.best_left,
    )

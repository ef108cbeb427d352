"""The engine's explanations as messages. Explains from the slate as it was kept; computes no score."""

from engine import explain as engine_explain
from engine.catalog import Catalog
from engine.explain import Explanation, Level, Technical, Term
from engine.policy import SOURCES, TERMS
from engine.reasons import main_reason, plain_items
from engine.slate import Slate
from genie.v1 import explanation_pb2 as pb

_LEVELS = {
    pb.EXPLANATION_LEVEL_SIMPLE: Level.SIMPLE,
    pb.EXPLANATION_LEVEL_DETAILED: Level.DETAILED,
    pb.EXPLANATION_LEVEL_TECHNICAL: Level.TECHNICAL,
}
_SOURCES = {
    "review": pb.CANDIDATE_SOURCE_REVIEW,
    "frontier": pb.CANDIDATE_SOURCE_FRONTIER,
    "objective": pb.CANDIDATE_SOURCE_OBJECTIVE,
    "collaborative": pb.CANDIDATE_SOURCE_COLLABORATIVE,
    "content": pb.CANDIDATE_SOURCE_CONTENT,
    "exploration": pb.CANDIDATE_SOURCE_EXPLORATION,
    "popular": pb.CANDIDATE_SOURCE_POPULAR,
    "random": pb.CANDIDATE_SOURCE_RANDOM,
    "start": pb.CANDIDATE_SOURCE_STARTER,
    "fill": pb.CANDIDATE_SOURCE_FILL,
}
_BY_BIT = tuple(_SOURCES[name] for name in SOURCES)
_DIVERSITY = TERMS.index("diversity")


def source_values(mask: int) -> "list[pb.CandidateSource.ValueType]":
    """Sources of a candidate's bit mask."""
    return [value for bit, value in enumerate(_BY_BIT) if mask >> bit & 1]


class Explainer:
    """Explains the items of one slate."""

    def __init__(self, slate: Slate, catalog: Catalog, correlation_id: str) -> None:
        """`correlation_id` is that of the call that made the slate."""
        self.slate = slate
        self._correlation_id = correlation_id
        self._titles = catalog.titles
        self.items = plain_items(slate.items)
        """The slate's items as plain numbers."""

    def main_reason(self, place: int) -> str:
        """The foremost reason for the item at `place` (from 0), as a sentence."""
        return main_reason(self.slate, self.items[place], self.slate.leads[place], self._titles)

    def explanation(self, place: int, level: int) -> pb.Explanation:
        """The item at `place` (from 0), explained at a level of the wire API, SIMPLE or more; without its id."""
        wanted = pb.ExplanationLevel.ValueType(level)
        found = engine_explain.explain(self.slate, place, self._titles, level=_LEVELS[wanted])
        message = pb.Explanation(
            level=wanted,
            main_reasons=found.main_reasons,
            feature_importance=found.feature_importance,
            confidence_factors=pb.ConfidenceFactors(
                algorithm_confidence=found.confidence.algorithm_confidence,
                data_quality=found.confidence.data_quality,
                personalization_strength=found.confidence.personalization_strength,
            ),
            terms=map(_term, sorted(found.terms, key=lambda term: -term.contribution)),
            counterfactual=found.counterfactual,
        )
        if found.technical is not None:
            message.technical_details.CopyFrom(self._technical(found, found.technical))
        return message

    def _technical(self, found: Explanation, technical: Technical) -> pb.TechnicalDetails:
        penalty = -float(self.slate.contributions[found.rank, _DIVERSITY])
        return pb.TechnicalDetails(
            policy=technical.policy,
            model_version=technical.model_version,
            catalog_version=technical.catalog_version,
            source_counts=[
                pb.SourceCount(source=_SOURCES[name], candidates_count=count)
                for name, count in technical.source_counts.items()
            ],
            candidates_count=technical.candidates,
            propensity=technical.propensity,
            random_seed=technical.seed,
            temperature=technical.temperature,
            score=technical.score + penalty,
            slate_penalty=penalty,
            correlation_id=self._correlation_id,
        )


def _term(term: Term) -> pb.ScoreTerm:
    return pb.ScoreTerm(
        name=term.name,
        value=term.value,
        weight=term.weight,
        contribution=term.contribution,
        average_contribution=term.contribution - term.lift,
        facts={name: _text(fact) for name, fact in term.facts.items()},
    )


def _text(fact: object) -> str:
    return ", ".join(map(str, fact)) if isinstance(fact, tuple) else str(fact)

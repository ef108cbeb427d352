"""Slates as messages, and replies with slates as bytes. What they mean is `recommendation`'s.

What was just drawn, and is explained in a sentence or not at all, is written as bytes at once (`reply_bytes`); the
rest is left to the generated classes.
"""

from collections.abc import Sequence

from genie.v1 import explanation_pb2
from genie.v1 import recommendation_service_pb2 as pb
from server import convert, errors
from server.services.explanations import Explainer, source_values
from server.services.outcomes import Kept, Outcome, Placed
from server.services.question_names import concept_ids
from server.services.reply_bytes import SHORTFALLS, reply_fields
from server.tenants import Bundle


class Encoded:
    """A reply that is bytes already, to be returned by a service in place of its message."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        """Hold the bytes of a message."""
        self._data = data

    def SerializeToString(self) -> bytes:  # noqa: N802
        """Return the bytes, as a message would."""
        return self._data


def recommend_responses(
    outcomes: Sequence[Outcome], bundle: Bundle, level: int
) -> "list[Encoded | errors.GenieError]":
    """For each outcome a `RecommendResponse` with the slate, explained at the level; errors as they are."""
    fields: dict[int, list[bytes]] = {}
    replies: list[Encoded | errors.GenieError] = []
    for outcome in outcomes:
        if isinstance(outcome, errors.GenieError):
            replies.append(outcome)
        elif isinstance(outcome, Placed) and level <= explanation_pb2.EXPLANATION_LEVEL_SIMPLE:
            told = fields.get(id(outcome.group))
            if told is None:
                told = fields[id(outcome.group)] = reply_fields(outcome.group, bundle, level, batch=False)
            replies.append(Encoded(told[outcome.place]))
        else:
            message = slate_message(_kept(outcome, bundle), bundle, level)
            replies.append(Encoded(pb.RecommendResponse(recommendation=message).SerializeToString()))
    return replies


def batch_results(
    learner_ids: Sequence[str], outcomes: Sequence[Outcome], bundle: Bundle, level: int
) -> list[bytes]:
    """For each learner the field of a `BatchRecommendResponse` that holds what became of the request."""
    fields: dict[int, list[bytes]] = {}
    results = []
    for learner_id, outcome in zip(learner_ids, outcomes, strict=True):
        if isinstance(outcome, Placed) and level <= explanation_pb2.EXPLANATION_LEVEL_SIMPLE:
            told = fields.get(id(outcome.group))
            if told is None:
                told = fields[id(outcome.group)] = reply_fields(outcome.group, bundle, level, batch=True)
            results.append(told[outcome.place])
            continue
        result = pb.BatchRecommendResult(learner_id=learner_id)
        if isinstance(outcome, errors.GenieError):
            result.error.CopyFrom(outcome.status())
        else:
            result.recommendation.CopyFrom(slate_message(_kept(outcome, bundle), bundle, level))
        results.append(pb.BatchRecommendResponse(results=[result]).SerializeToString())
    return results


def _kept(outcome: Placed | Kept, bundle: Bundle) -> Kept:
    return outcome.group.kept(outcome.place, bundle) if isinstance(outcome, Placed) else outcome


def slate_message(kept: Kept, bundle: Bundle, level: int) -> pb.Recommendation:
    """A slate as a message, explained at the level."""
    record, slate = kept
    explainer = Explainer(slate, bundle.catalog, record.correlation_id)
    return pb.Recommendation(
        recommendation_id=record.recommendation_id,
        learner_id=record.learner_id,
        items=[
            _item(explainer, place, record.question_ids[place], bundle, level)
            for place in range(len(slate.items))
        ],
        policy=slate.policy,
        model_version=slate.model_version,
        degraded=kept.degraded != pb.DEGRADED_REASON_UNSPECIFIED,
        degraded_reason=pb.DegradedReason.ValueType(kept.degraded),
        shortfall_reason=SHORTFALLS[slate.reason],
        create_time=convert.timestamp(record.created_at),
        expire_time=convert.timestamp(record.expires_at),
        reflected_answers_count=slate.answers,
        correlation_id=record.correlation_id,
    )


def _item(
    explainer: Explainer, place: int, question_id: str, bundle: Bundle, level: int
) -> pb.RecommendedItem:
    slate = explainer.slate
    message = pb.RecommendedItem(
        question_id=question_id,
        concept_ids=concept_ids(bundle, slate.column("question")[place]),
        rank=place + 1,
        score=slate.column("score")[place],
        predicted_success=slate.column("predicted")[place],
        sources=source_values(slate.column("sources")[place]),
        propensity=slate.column("propensity")[place],
        review=slate.column("attempts")[place] > 0,
        expected_duration=convert.known_duration(slate.column("seconds")[place]),
    )
    if level > explanation_pb2.EXPLANATION_LEVEL_NONE:
        message.main_reason = explainer.main_reason(place)
    if level > explanation_pb2.EXPLANATION_LEVEL_SIMPLE:
        message.explanation.CopyFrom(explainer.explanation(place, level))
        message.explanation.question_id = question_id
    return message

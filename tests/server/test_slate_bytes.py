"""Slates written as bytes are byte for byte what the generated classes give."""

import dataclasses

import numpy as np
import pytest
from google.rpc import status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.learner import LearnerState
from engine.policy import BUILT_IN, SOURCES, TERMS
from engine.recommend import RecommendQuery, recommend_many
from genie.v1 import explanation_pb2
from genie.v1 import recommendation_service_pb2 as pb
from server.answer_facts import FactSource
from server.services import slate_bytes
from server.services.slate_bytes import (
    batch_failure,
    batch_result,
    recommend_response,
    recommendation_bytes,
    slate_message,
)
from server.services.slates import Kept
from server.tenants import Bundle
from store.records import SlateRecord
from tests import worlds

LEVELS = [level for level in explanation_pb2.ExplanationLevel.values() if level]


def kept_and_bundle(
    seed: int, policy: str, limit: int, degraded: int, correlation_id: str
) -> tuple[Kept, Bundle]:
    served = worlds.served(worlds.at_random(seed))
    state = worlds.someone(served, seed) if seed % 4 else LearnerState.empty()
    query = RecommendQuery(seed=seed, limit=limit, objective=seed % 7 - 1)
    slates = recommend_many([query], [state], served, BUILT_IN[policy], now=worlds.NOON + 3600.0)
    ids = served.catalog.question_ids
    record = SlateRecord(
        recommendation_id="r" * 32,
        learner_id="lernerin-ß" * (1 + seed % 20),
        created_at=worlds.NOON + seed / 7.0,
        expires_at=worlds.NOON + 100.0,
        request_digest=b"",
        payload=slates.stored(0),
        question_ids=tuple(ids[row] for row in slates[0].column("question")),
        correlation_id=correlation_id,
        degraded=degraded,
    )
    assert slates.stored(0) == slates[0].to_bytes()
    return Kept(record, slates[0]), Bundle(served, FactSource.of(served.catalog, served.learner))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from(sorted(BUILT_IN)),
    st.integers(1, 100),
    st.sampled_from(pb.DegradedReason.values()),
    st.sampled_from(LEVELS),
    st.text(max_size=4),
)
def test_bytes_are_those_of_the_message(
    seed: int, policy: str, limit: int, degraded: int, level: int, correlation_id: str
) -> None:
    kept, bundle = kept_and_bundle(seed, policy, limit, degraded, correlation_id)
    message = slate_message(kept, bundle, level)
    written = recommendation_bytes(kept, bundle, level)
    assert pb.Recommendation.FromString(written) == message
    reply = pb.RecommendResponse(recommendation=message)
    response = recommend_response(kept, bundle, level).SerializeToString()
    assert pb.RecommendResponse.FromString(response) == reply
    if level <= explanation_pb2.EXPLANATION_LEVEL_SIMPLE:
        # Longer explanations hold maps, which protobuf writes in any order.
        assert written == message.SerializeToString()
        assert response == reply.SerializeToString()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(BUILT_IN)), st.integers(2, 20))
def test_bytes_are_the_same_when_items_were_written_before(seed: int, policy: str, limit: int) -> None:
    kept, bundle = kept_and_bundle(seed, policy, limit, 0, "c")
    drawn = kept.slate
    recommendation_bytes(kept, bundle, explanation_pb2.EXPLANATION_LEVEL_SIMPLE)
    assert len(drawn.memo) == len(drawn.items) or not drawn.items["score"].all()
    # Another draw from what was computed: other ranks, scores and chances of the same items.
    items = drawn.items[::-1].copy()
    items["score"] += 0.25
    items["propensity"] *= 0.5
    another = dataclasses.replace(drawn, items=items)
    another.__dict__["memo"] = drawn.memo
    record = dataclasses.replace(kept.record, question_ids=kept.record.question_ids[::-1])
    again = Kept(record, another)
    for level in (LEVELS[0], LEVELS[1], LEVELS[0]):
        assert (
            recommendation_bytes(again, bundle, level)
            == slate_message(again, bundle, level).SerializeToString()
        )


def test_an_item_that_another_term_leads_is_told_anew() -> None:
    kept, bundle = kept_and_bundle(1, "hybrid_v1", 4, 0, "")
    level = explanation_pb2.EXPLANATION_LEVEL_SIMPLE
    recommendation_bytes(kept, bundle, level)
    kept.slate.__dict__["leads"] = [TERMS.index("popularity")] * len(kept.slate.items)
    written = recommendation_bytes(kept, bundle, level)
    assert written == slate_message(kept, bundle, level).SerializeToString()
    assert b"Many learners practise this question." in written


def test_a_slate_too_long_for_short_ranks() -> None:
    kept, bundle = kept_and_bundle(3, "random_v1", 2, 0, "")
    items = np.repeat(kept.slate.items[:1], slate_bytes.MOST_ITEMS + 3)
    items["score"] = 1.0
    record = dataclasses.replace(kept.record, question_ids=kept.record.question_ids[:1] * len(items))
    longest = Kept(record, dataclasses.replace(kept.slate, items=items))
    level = explanation_pb2.EXPLANATION_LEVEL_SIMPLE
    message = slate_message(longest, bundle, level)
    assert recommendation_bytes(longest, bundle, level) == message.SerializeToString()
    assert message.items[-1].rank == 130


def test_numbers_that_are_zero_are_left_out_as_the_message_does() -> None:
    kept, bundle = kept_and_bundle(5, "random_v1", 4, 0, "")
    kept.slate.items["propensity"][1] = 0.0
    kept.slate.items["predicted"][2] = 0.0
    written = recommendation_bytes(kept, bundle, explanation_pb2.EXPLANATION_LEVEL_SIMPLE)
    message = slate_message(kept, bundle, explanation_pb2.EXPLANATION_LEVEL_SIMPLE)
    assert written == message.SerializeToString()
    assert 0.0 in {item.score for item in message.items}, "random_v1 has no weights"


def test_results_of_a_batch() -> None:
    kept, bundle = kept_and_bundle(3, "hybrid_v1", 12, 0, "c")
    error = status_pb2.Status(code=3, message="no")
    level = explanation_pb2.EXPLANATION_LEVEL_NONE
    message = pb.BatchRecommendResponse(
        results=[
            pb.BatchRecommendResult(learner_id="é", recommendation=slate_message(kept, bundle, level)),
            pb.BatchRecommendResult(error=error),
            pb.BatchRecommendResult(learner_id="x", error=error),
        ]
    )
    written = batch_result("é", recommendation_bytes(kept, bundle, level))
    written += batch_failure("", error.SerializeToString()) + batch_failure("x", error.SerializeToString())
    assert written == message.SerializeToString()


def test_names_are_let_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slate_bytes, "MOST_ENCODED", 5)
    kept, bundle = kept_and_bundle(2, "random_v1", 20, 0, "")
    kept.slate.items["score"] = 1.0
    kept.slate.items["propensity"] = 1.0
    del kept.slate.__dict__["leads"]
    written = recommendation_bytes(kept, bundle, explanation_pb2.EXPLANATION_LEVEL_NONE)
    assert pb.Recommendation.FromString(written).items[-1].question_id == kept.record.question_ids[-1]
    assert 0 < len(bundle.encoded) <= 5


def test_every_source_mask_has_its_bytes() -> None:
    assert len(slate_bytes._SOURCES) == 1 << len(SOURCES)
    assert slate_bytes._SOURCES[0] == b""
    assert np.all(
        [len(data) == 2 + mask.bit_count() for mask, data in enumerate(slate_bytes._SOURCES) if mask]
    )

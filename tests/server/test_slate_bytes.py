"""Slates written as bytes are byte for byte what the generated classes give."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import labels
from engine.learner import LearnerState
from engine.policy import BUILT_IN
from engine.recommend import RecommendQuery, recommend_many
from genie.v1 import explanation_pb2
from genie.v1 import recommendation_service_pb2 as pb
from server import errors
from server.answer_facts import FactSource
from server.services import reply_bytes
from server.services.outcomes import Fresh, Kept, Outcome, Placed
from server.services.question_names import names_of
from server.services.slate_bytes import Encoded, batch_results, recommend_responses, slate_message
from server.tenants import Bundle
from store import codec, slate_values
from store.slate_values import NewSlates, records_of, value_in
from tests import worlds

LEVELS = [level for level in explanation_pb2.ExplanationLevel.values() if level]
NONE, SIMPLE = explanation_pb2.EXPLANATION_LEVEL_NONE, explanation_pb2.EXPLANATION_LEVEL_SIMPLE


def fresh_and_bundle(
    seed: int, policy: str, limit: int, degraded: int = 0, correlation_id: str = "c", count: int = 3
) -> tuple[Fresh, Bundle]:
    """Slates of learners with more and more answers, the first without any."""
    served = worlds.served(worlds.at_random(seed))
    bundle = Bundle(served, FactSource.of(served.catalog, served.learner))
    states = [
        worlds.someone(served, seed + i, answers=15 * i) if i else LearnerState.empty() for i in range(count)
    ]
    queries = [RecommendQuery(seed=seed + i, limit=limit, objective=(seed + i) % 7 - 1) for i in range(count)]
    slates = recommend_many(queries, states, served, BUILT_IN[policy], now=worlds.NOON + 3600.0 * (seed % 60))
    owners = ["lernerin-ß" * (1 + (seed + i) % 20) for i in range(count)]
    ids = [f"{i:032}" for i in range(count)]
    calls = [correlation_id * i for i in range(count)]
    named = "".join(map("".join, zip(ids, owners, calls, strict=True)))
    new = NewSlates(
        learner_ids=owners,
        recommendation_ids=ids,
        created_at=worlds.NOON + seed / 7.0,
        expires_at=worlds.NOON + 100.0,
        request_digest=b"d" * (seed % 3 * 8),
        correlation_ids=calls,
        degraded=degraded,
        named=np.frombuffer(named.encode(), np.uint8),
        owners=[len(owner.encode()) for owner in owners],
        calls=[len(call.encode()) for call in calls],
        payloads=slates.stored_in,
        start=slates.first,
        stride=slates.stride,
        sizes=slates.sizes,
        rows=slates.rows,
        shown=slates.shown,
        names=names_of(slates, bundle),
    )
    return Fresh(new, slates), bundle


def reply_of(place: Placed, bundle: Bundle, level: int) -> bytes:
    (reply,) = recommend_responses([place], bundle, level)
    assert isinstance(reply, Encoded)
    return reply.SerializeToString()


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
    group, bundle = fresh_and_bundle(seed, policy, limit, degraded, correlation_id)
    places = [Placed(group, place) for place in range(3)]
    messages = [slate_message(group.kept(place, bundle), bundle, level) for place in range(3)]
    results = [
        pb.BatchRecommendResult(learner_id=message.learner_id, recommendation=message) for message in messages
    ]
    written = b"".join(batch_results(group.new.learner_ids, places, bundle, level))
    assert pb.BatchRecommendResponse.FromString(written) == pb.BatchRecommendResponse(results=results)
    # Longer explanations hold maps, which protobuf writes in any order.
    brief = level <= SIMPLE
    assert not brief or written == pb.BatchRecommendResponse(results=results).SerializeToString()
    for place, message in zip(places, messages, strict=True):
        reply = pb.RecommendResponse(recommendation=message)
        alone = reply_of(place, bundle, level)
        assert pb.RecommendResponse.FromString(alone) == reply
        assert not brief or alone == reply.SerializeToString()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(sorted(BUILT_IN)), st.integers(1, 40), st.text(max_size=300))
def test_records_are_those_of_the_codec(seed: int, policy: str, limit: int, correlation_id: str) -> None:
    group, bundle = fresh_and_bundle(seed, policy, limit, seed % 5, correlation_id)
    records, ends = records_of(group.new, "tenant")
    starts = [0, *ends]
    for place, end in enumerate(ends):
        kept = group.kept(place, bundle)
        assert value_in(records[starts[place] : end]) == codec.SLATE.encode(kept.record)
        assert kept.record.payload == kept.slate.to_bytes()


@pytest.mark.parametrize("lead", range(-1, 12))
def test_whatever_leads_is_told_as_the_message_tells_it(lead: int) -> None:
    """At every age of what was practised and every state of it that has a sentence of its own."""
    group, bundle = fresh_and_bundle(3, "hybrid_v1", 12, count=2)
    slate = group.slates[1]
    slate.__dict__["leads"] = [lead] * len(slate.items)
    group.slates.leads[1] = lead
    rng = np.random.default_rng(lead + 1)
    items = slate.items
    for name, values in {
        "last_at": slate.made_at
        - np.array([0.0, 1.9, 2.0, 23.9, 24.0, 47.9, 48.0, 9_999.0, -5.0, np.nan]) * 3_600.0,
        "recall": np.array([0.0, 0.005, 0.015, 0.025, 0.5, 0.995, 1.0, np.nan]),
        "predicted": np.array([0.0, 0.004, 0.125, 0.6, 0.7, 0.85, 1.0]),
        "mastery": np.array([0.0, 0.845, 0.8449, 0.855, 1.0]),
        "attempts": np.array([0, 1, 7]),
        "unlocks": np.array([0, 1, 2, 65_535]),
        "steps": np.array([0, 1, 2, 300, -1]) if slate.objective >= 0 else np.array([-1]),
        "seconds": np.array([0.0, 0.5, 1.5, 2.5, 59.99, 86_400.0, np.inf if lead != 7 else 1.0]),
        "sources": np.array([0, 1, 5, 512, 1_023]),
        "score": np.array([0.0, -0.0, 0.25, -1.5]),
        "propensity": np.array([0.0, 1.0, 0.125]),
        "concept": np.array([0, 1, 4_000_000_000]),
    }.items():
        items[name] = rng.choice(values, len(items))
    (written,) = batch_results(group.new.learner_ids[1:2], [Placed(group, 1)], bundle, SIMPLE)
    record = group.kept(1, bundle).record
    message = slate_message(Kept(record, slate), bundle, SIMPLE)
    result = pb.BatchRecommendResult(learner_id=record.learner_id, recommendation=message)
    assert written == pb.BatchRecommendResponse(results=[result]).SerializeToString()


def test_results_of_a_batch_stand_in_its_order() -> None:
    group, bundle = fresh_and_bundle(3, "hybrid_v1", 12)
    kept = group.kept(1, bundle)
    error = errors.DeadlineExceeded()
    outcomes: list[Outcome] = [Placed(group, 2), kept, error, Placed(group, 0), error]
    owners = group.new.learner_ids
    message = pb.BatchRecommendResponse(
        results=[
            pb.BatchRecommendResult(
                learner_id=owners[2], recommendation=slate_message(group.kept(2, bundle), bundle, NONE)
            ),
            pb.BatchRecommendResult(learner_id=owners[1], recommendation=slate_message(kept, bundle, NONE)),
            pb.BatchRecommendResult(learner_id="x", error=error.status()),
            pb.BatchRecommendResult(
                learner_id=owners[0], recommendation=slate_message(group.kept(0, bundle), bundle, NONE)
            ),
            pb.BatchRecommendResult(error=error.status()),
        ]
    )
    written = batch_results([owners[2], owners[1], "x", owners[0], ""], outcomes, bundle, NONE)
    assert b"".join(written) == message.SerializeToString()


def test_names_are_let_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "MOST_BYTES", 200)
    group, bundle = fresh_and_bundle(2, "random_v1", 20)
    before = group.new.names
    assert labels.all_noted(before.starts, group.slates.rows)
    row = int(np.flatnonzero(before.starts < 0)[0])
    after = bundle.names.holding([row], lambda row: (b"name", b"tail"))
    assert (after.starts >= 0).sum() == 1
    # Whoever still writes with the shelf from before finds all in it.
    assert labels.all_noted(before.starts, group.slates.rows)
    reply = pb.RecommendResponse.FromString(reply_of(Placed(group, 1), bundle, NONE))
    assert reply.recommendation == slate_message(group.kept(1, bundle), bundle, NONE)


def test_what_a_start_compiles_is_what_replies_are_written_with() -> None:
    reply_bytes.warm_up()
    slate_values.warm_up()
    kernels: list[Any] = [reply_bytes._put_replies, slate_values._put_records, labels.all_noted]
    before = [len(one.signatures) for one in kernels]
    group, bundle = fresh_and_bundle(1, "hybrid_v1", 5)
    records_of(group.new, "tenant")
    batch_results(group.new.learner_ids, [Placed(group, place) for place in range(3)], bundle, SIMPLE)
    assert [len(one.signatures) for one in kernels] == before

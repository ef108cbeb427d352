"""Errors own their status: every reason once, every detail in place, never too big for a header."""

from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2

from engine import graph
from genie.v1 import error_reason_pb2
from server import errors
from server.errors import DOMAIN, GenieError, InvalidRequest, Violation, translate
from server.experiments import errors as experiment_errors
from store import api as store_api

MOST_STATUS_BYTES = 5_500
"""8 KiB of metadata, less base64's third, the message's own header and the correlation id."""


def kinds() -> list[type[GenieError]]:
    assert experiment_errors.UnknownAlgorithm in GenieError.__subclasses__()
    return sorted(GenieError.__subclasses__(), key=lambda kind: kind.reason)


def example(kind: type[GenieError]) -> GenieError:
    if kind is InvalidRequest:
        return InvalidRequest([Violation("answers[3].learner_id", "must not be empty")])
    facts: dict[str, Any] = {name: f"<{name}>" for name in _named(kind.sentence)}
    return kind(**facts)


def _named(sentence: str) -> list[str]:
    return [part.split("}")[0] for part in sentence.split("{")[1:]]


def test_every_reason_of_the_wire_has_exactly_one_error() -> None:
    wire = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118
    ours = [kind.reason for kind in kinds()]
    assert sorted(ours) == sorted(wire - {"UNSPECIFIED"})


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_a_status_holds_code_message_and_error_info(kind: type[GenieError]) -> None:
    error = example(kind)
    status = error.status()
    info = error_details_pb2.ErrorInfo()
    assert status.code == kind.code.value[0]
    assert status.message == str(error)
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (kind.reason, DOMAIN)
    assert dict(info.metadata) == error.facts


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_overload_and_unavailability_say_when_to_come_back(kind: type[GenieError]) -> None:
    retry = error_details_pb2.RetryInfo()
    found = any(detail.Unpack(retry) for detail in example(kind).status().details)
    wanted = kind.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert found == wanted
    assert not found or retry.retry_delay.ToMilliseconds() > 0


def test_a_missing_fact_is_a_programming_error() -> None:
    with pytest.raises(KeyError):
        errors.LearnerNotFound()


def test_facts_are_cut_and_escaped() -> None:
    error = errors.LearnerNotFound(learner_id="a\nb\x00" + "x" * 500)
    assert "\n" not in error.message
    assert error.facts["learner_id"].startswith("a\\u000ab\\u0000xxx")
    assert len(error.facts["learner_id"]) < 150


def test_every_violation_is_named_as_far_as_a_header_goes() -> None:
    few = InvalidRequest([Violation(f"answers[{i}].learner_id", "must not be empty") for i in range(20)])
    bad = error_details_pb2.BadRequest()
    assert few.status().details[1].Unpack(bad)
    assert [violation.field for violation in bad.field_violations] == [
        f"answers[{i}].learner_id" for i in range(20)
    ]
    assert few.facts["violations_count"] == "20"
    assert "answers[0].learner_id: must not be empty (and 19 more)" in few.message


def test_a_status_always_fits_into_trailing_metadata() -> None:
    many = InvalidRequest([Violation("f" * 200, "d" * 300)] * 100, unnamed=900)
    assert many.status().ByteSize() < MOST_STATUS_BYTES
    assert many.facts["violations_count"] == "1000"
    for kind in kinds():
        if kind is not InvalidRequest:
            facts: dict[str, Any] = dict.fromkeys(_named(kind.sentence), "ü" * 1000)
            assert kind(**facts).status().ByteSize() < MOST_STATUS_BYTES


def test_a_field_at_fault_is_named() -> None:
    bad = error_details_pb2.BadRequest()
    assert errors.InvalidPageToken().status().details[1].Unpack(bad)
    assert bad.field_violations[0].field == "page_token"
    status = errors.BatchTooLarge(field="answers", size=1200, limit=1000).status()
    assert status.details[1].Unpack(bad)
    assert bad.field_violations[0].field == "answers"


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (store_api.StoreFull("disk"), errors.StoreFull),
        (store_api.StoreUnavailable("closed"), errors.StoreUnavailable),
        (store_api.IdempotencyKeyReused("/genie.v1.X/Y", "r-1"), errors.IdempotencyKeyReused),
        (graph.PrerequisiteCycle(["add", "multiply", "add"]), errors.PrerequisiteCycle),
        (TimeoutError(), errors.DeadlineExceeded),
        (grpc.RpcError(), errors.CallCancelled),
        (errors.ConceptNotFound(concept_id="add"), errors.ConceptNotFound),
    ],
)
def test_errors_from_below_are_translated(raised: Exception, told: type[GenieError]) -> None:
    assert type(translate(raised)) is told


def test_translations_keep_the_facts() -> None:
    cycle = translate(graph.PrerequisiteCycle(["add", "multiply", "add"]))
    assert cycle is not None
    assert cycle.facts == {"cycle": "add > multiply > add"}
    session = translate(store_api.IdempotencyKeyReused("StartSession", "s-1"))
    assert session is not None
    assert session.facts == {"field": "session_id", "id": "s-1"}


def test_a_fault_of_ours_is_not_told() -> None:
    assert translate(ZeroDivisionError("secret")) is None

"""Messages as JSON against the protobuf library's own writing of them."""

import json
import math
import random
from typing import Any

import pytest
from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.timestamp_pb2 import Timestamp

from genie.v1 import learner_service_pb2, progress_pb2, report_pb2, resources_pb2
from server.message_json import json_line


def filled(kind: type[Message], rng: random.Random, depth: int = 0) -> Any:
    """A message with fields set at random."""
    if kind is Timestamp:
        return Timestamp(seconds=rng.randrange(2**31), nanos=rng.choice((0, 5_000, 123_456_789)))
    if kind is Duration:
        return Duration(seconds=rng.randrange(10**6), nanos=rng.choice((0, 250_000_000)))
    message: Any = kind()
    for field in kind.DESCRIPTOR.fields:
        if rng.random() < 0.3 or (depth > 3 and field.message_type is not None):
            continue
        values = [value(field, rng, depth) for _ in range(rng.randrange(3) if field.is_repeated else 1)]
        if field.is_repeated:
            getattr(message, field.name).extend(values)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(values[0])
        else:
            setattr(message, field.name, values[0])
    return message


def value(field: Any, rng: random.Random, depth: int) -> Any:
    if field.message_type is not None:
        return filled(GetMessageClass(field.message_type), rng, depth + 1)
    if field.enum_type is not None:
        return rng.choice([number.number for number in field.enum_type.values])
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return rng.choice(("", "x", 'é "quoted" \\ </script> \n😀'))
    if field.cpp_type == FieldDescriptor.CPPTYPE_DOUBLE:
        return rng.choice((0.0, 0.1, -2.5e-7, 1e300, math.inf, -math.inf))
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    return rng.choice((0, 1, -1, 2**31 - 1))


@pytest.mark.parametrize(
    "kind", [report_pb2.LearnerReport, report_pb2.TenantReport, progress_pb2.ConceptMastery]
)
def test_a_line_is_what_the_library_writes(kind: type[Message]) -> None:
    rng = random.Random(3)
    for _ in range(200):
        message = filled(kind, rng)
        line = json_line(message)
        assert b"\n" not in line
        assert json.loads(line) == json_format.MessageToDict(message)
        assert json_format.Parse(line, kind()) == message


def test_what_is_no_number_is_named() -> None:
    line = json_line(progress_pb2.ConceptMastery(mastery=math.nan))
    assert json.loads(line) == {"mastery": "NaN"}


def test_what_it_does_not_write_is_refused() -> None:
    with pytest.raises(TypeError, match="labels is a map"):
        json_line(resources_pb2.Learner(labels={"a": "b"}))
    with pytest.raises(TypeError, match="FieldMask"):
        json_line(learner_service_pb2.UpdateLearnerRequest(update_mask=FieldMask(paths=["goal"])))

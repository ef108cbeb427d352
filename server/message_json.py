"""Messages as JSON in protobuf's own mapping (ProtoJSON), many of a kind quickly. Reads none.

The general library walks descriptors for every message; here each kind is compiled once, for the fields that Genie's
messages have: no maps, bytes, Any or wrappers. `tests/server/test_message_json.py` holds it against the library.
"""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import msgspec
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

Convert = Callable[[Any], Any]

_LONG = (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
_REAL = (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT)
_TEXTUAL = {"google.protobuf.Timestamp", "google.protobuf.Duration"}

_encode = msgspec.json.Encoder().encode


def json_line(message: Message) -> bytes:
    """One message as a line of JSON, without the line break; names as in the .proto files' JSON names."""
    return _encode(_converter(message.DESCRIPTOR)(message))


@cache
def _converter(kind: Descriptor) -> Convert:
    """What turns a message of the kind into a JSON-ready value."""
    if kind.full_name in _TEXTUAL:
        return _text
    if kind.full_name.startswith("google.protobuf."):
        raise TypeError(f"{kind.full_name} is not written here")
    names = {field.name: field.json_name for field in kind.fields}
    # Compiled at first use: a message may hold its own kind.
    values: dict[str, Convert] = {}

    def convert(message: Any) -> dict[str, Any]:
        found = {}
        for field, value in message.ListFields():
            of_field = values.get(field.name)
            if of_field is None:
                of_field = values[field.name] = _field_converter(field)
            found[names[field.name]] = of_field(value)
        return found

    return convert


def _field_converter(field: FieldDescriptor) -> Convert:
    one = _value_converter(field)
    if not field.is_repeated:
        return one
    return lambda values: [one(value) for value in values]


def _value_converter(field: FieldDescriptor) -> Convert:
    if field.message_type is not None:
        if field.message_type.GetOptions().map_entry:
            raise TypeError(f"{field.full_name} is a map, which is not written here")
        return _converter(field.message_type)
    if field.enum_type is not None:
        names = {value.number: value.name for value in field.enum_type.values}
        return lambda number: names.get(number, number)
    if field.cpp_type in _LONG:
        return str
    if field.cpp_type in _REAL:
        return _real
    if field.type == FieldDescriptor.TYPE_BYTES:
        raise TypeError(f"{field.full_name} holds bytes, which are not written here")
    return _same


def _text(value: Any) -> str:
    text: str = value.ToJsonString()
    return text


def _same(value: Any) -> Any:
    return value


def _real(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")

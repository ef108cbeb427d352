"""Requests gone wrong, made from descriptors alone, so that a new method or field needs nothing here. Calls nobody."""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from google.api import field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

MORE_THAN_ANY_LIMIT = 1_100
"""Entries of a list: over the limit of every list."""
LONGER_THAN_ANY_LIMIT = 12_000
"""Characters of a text: over the limit of every text."""

NAUGHTY = (
    " ",
    "a b\tc",
    "‮dlrow‬",
    "\ufeffbom",
    "line\u2028separator",
    "../../../../etc/passwd",
    "..",
    "'; DROP TABLE learners; --",
    "${jndi:ldap://127.0.0.1/x}",
    "%s%n%x{0}{learner_id}",
    "<script>alert(1)</script>",
    "שָׁלוֹם",
    "😀" * 64,
    "😀" * 100,
    "é" * 128,
    "x" * 128,
    "x" * 129,
    "no-such-thing",
    "-1",
    "NaN",
)
"""Texts that may be refused or taken, and must never break anything."""
HOPELESS_TEXTS = ("\0", "a\0b", "\x7f", "\x1b[2J", "x" * LONGER_THAN_ANY_LIMIT)
"""Texts that no field takes."""

LEAST, MOST = -(2**31), 2**31 - 1
LEAST_LONG, MOST_LONG = -(2**63), 2**63 - 1

_SIGNED = {"MetricValue.value", "MetricValue.denominator", "MetricBaseline.mean"}
"""Numbers that may be negative."""
_TIMES = {"google.protobuf.Timestamp", "google.protobuf.Duration"}
_LEAVES = {*_TIMES, "google.protobuf.FieldMask", "google.type.Date"}


class Place(NamedTuple):
    """A field somewhere inside a request."""

    steps: tuple[str, ...]
    """Names of the messages on the way; a repeated one is entered at its first entry."""
    field: FieldDescriptor

    @property
    def path(self) -> str:
        """As violations name it, less the indices."""
        return ".".join((*self.steps, self.field.name))

    def parent(self, message: Any) -> Any:
        """The message that holds the field."""
        for name in self.steps:
            value = getattr(message, name)
            message = value[0] if isinstance(message, Message) and _repeated(message, name) else value
        return message


class Wrong(NamedTuple):
    """A request with one thing wrong."""

    what: str
    place: Place
    hopeless: bool
    """Whether it must be refused."""
    change: Callable[[Any], None]
    """Makes a sound request wrong."""


class Sound:
    """Sound requests: every field set to something that a server with the right catalogue takes."""

    def __init__(self, values: Mapping[str, object]) -> None:
        """`values` are by field name, or by message and field name ("Concept.concept_id"); a callable makes one."""
        self._values = values
        self._serial = itertools.count()

    def request(self, descriptor: Descriptor, place: "Place | None" = None) -> Any:
        """A request of the type; where only one of several fields can be set, the one that `place` goes through."""
        message = GetMessageClass(descriptor)()
        wanted = "" if place is None else place.path.partition(".")[0]
        for field in settable(descriptor):
            oneof = field.containing_oneof
            free = oneof is None or _optional(field) or not message.WhichOneof(oneof.name)
            if free or field.name == wanted:
                self._set(message, field)
        return message

    def fresh(self, stem: str) -> str:
        """An id that was not used before."""
        return f"{stem}-{next(self._serial)}"

    def _set(self, message: Any, field: FieldDescriptor) -> None:
        value = self._value(field)
        if value is None:
            return
        if is_map(field):
            getattr(message, field.name)["key"] = value
        elif field.is_repeated:
            if isinstance(value, tuple):
                getattr(message, field.name).extend(value)
            elif isinstance(value, Message):
                getattr(message, field.name).add().CopyFrom(value)
            else:
                getattr(message, field.name).append(value)
        elif isinstance(value, Message):
            getattr(message, field.name).CopyFrom(value)
        else:
            setattr(message, field.name, value)

    def _value(self, field: FieldDescriptor) -> Any:
        for name in (_name(field), field.name):
            if name in self._values:
                value = self._values[name]
                return value(self) if callable(value) else value
        if is_map(field):
            return _map_value(field)
        if field.message_type is not None:
            if field.message_type.full_name in _LEAVES:
                return _sound_leaf(field.message_type)
            return self.request(field.message_type)
        if field.enum_type is not None:
            return field.enum_type.values[1].number
        return {str: "text", bool: True, int: 1, float: 0.5}[_python_type(field)]


def settable(descriptor: Descriptor) -> list[FieldDescriptor]:
    """The fields that callers set."""
    return [field for field in descriptor.fields if field_behavior_pb2.OUTPUT_ONLY not in _behaviour(field)]


def places(descriptor: Descriptor, steps: tuple[str, ...] = ()) -> Iterator[Place]:
    """Every field that callers set, at any depth."""
    for field in settable(descriptor):
        yield Place(steps, field)
        inner = field.message_type
        if inner is not None and inner.full_name not in _LEAVES and not is_map(field):
            yield from places(inner, (*steps, field.name))


def wrongs(place: Place) -> Iterator[Wrong]:
    """Everything that can be wrong with one field."""
    field, required = place.field, field_behavior_pb2.REQUIRED in _behaviour(place.field)
    yield Wrong("unset", place, required, lambda parent: parent.ClearField(field.name))
    if is_map(field):
        texts = [*((t, False) for t in NAUGHTY), *((t, True) for t in HOPELESS_TEXTS)]
        for text, hopeless in texts:
            yield Wrong(
                f"key {text[:20]!r}", place, hopeless, _set_entry(field.name, text, _map_value(field))
            )
        entries: list[tuple[Any, bool]] = list(texts)
        if not isinstance(_map_value(field), str):
            entries = [(math.nan, True), (math.inf, True), (1e300, True), (-1.0, False), (5e-324, False)]
        for entry, hopeless in entries:
            yield Wrong(f"entry {entry!r:.20}", place, hopeless, _set_entry(field.name, "k", entry))
        return
    for what, value, hopeless in _values(field):
        yield Wrong(what, place, hopeless, setting(field, value))
    if field.is_repeated:
        yield Wrong("too many", place, True, _repeat(field.name, MORE_THAN_ANY_LIMIT))
        yield Wrong("twice", place, False, _repeat(field.name, 2))


def is_map(field: FieldDescriptor) -> bool:
    """Whether the field is a map, which has entries of a made-up message type."""
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _values(field: FieldDescriptor) -> Iterator[tuple[str, Any, bool]]:
    """(what, value, whether no server may take it) for one entry of a field."""
    kind = field.message_type
    if kind is not None and kind.full_name in _LEAVES:
        yield from _wrong_leaves(kind)
    elif field.enum_type is not None:
        yield from (("enum 99", 99, True), ("enum -1", -1, True), ("enum most", MOST, True))
    elif kind is None and _python_type(field) is str:
        for text in NAUGHTY:
            yield repr(text[:20]), text, False
        for text in HOPELESS_TEXTS:
            yield repr(text[:20]), text, True
    elif kind is None and _python_type(field) is float:
        for number in (math.nan, math.inf, -math.inf, -1.0):
            # A negative embedding is as good as any.
            free = (field.is_repeated and field.name == "embedding") or _name(field) in _SIGNED
            yield str(number), number, not (number == -1.0 and free)
        yield "tiny", 5e-324, False
    elif kind is None and _python_type(field) is int:
        wide = field.cpp_type in (FieldDescriptor.CPPTYPE_INT64, FieldDescriptor.CPPTYPE_UINT64)
        yield "least", LEAST_LONG if wide else LEAST, True
        yield "minus one", -1, True
        yield "most", MOST_LONG if wide else MOST, False


def _sound_leaf(kind: Descriptor) -> Any:
    made: Any = GetMessageClass(kind)()
    if kind.name == "Timestamp":
        made.seconds = 1_700_000_000
    elif kind.name == "Duration":
        made.seconds = 60
    elif kind.name == "Date":
        made.year, made.month, made.day = 2026, 1, 31
    else:
        made.paths.append("display_name")
    return made


def _wrong_leaves(kind: Descriptor) -> Iterator[tuple[str, Any, bool]]:
    make = GetMessageClass(kind)
    if kind.full_name in _TIMES:
        pairs = [(LEAST_LONG, 0), (MOST_LONG, 0), (MOST_LONG, 999_999_999), (-1, 0), (-(10**11), 5)]
        pairs += [(1, -1), (0, LEAST), (1, MOST), (315_576_000_001, 0)]
        for seconds, nanos in pairs:
            yield f"{seconds} s {nanos} ns", make(seconds=seconds, nanos=nanos), True
        yield "zero", make(), False
    elif kind.name == "Date":
        for year, month, day in (
            (-1, 1, 1),
            (2026, 13, 1),
            (2026, 2, 30),
            (MOST, MOST, MOST),
            (10_000, 1, 1),
        ):
            yield f"{year}-{month}-{day}", make(year=year, month=month, day=day), True
    else:
        for path in ("no_such_field", "learner_id", "create_time", "a\0b", "x" * LONGER_THAN_ANY_LIMIT):
            yield f"path {path[:20]!r}", make(paths=[path]), True


def setting(field: FieldDescriptor, value: Any) -> Callable[[Any], None]:
    """What sets a field of a message to a value; a list to one entry, and a map's key."""

    def change(parent: Any) -> None:
        if is_map(field):
            getattr(parent, field.name)[value] = _map_value(field)
        elif field.is_repeated:
            held = getattr(parent, field.name)
            del held[:]
            held.append(value)
        elif isinstance(value, Message):
            getattr(parent, field.name).CopyFrom(value)
        else:
            setattr(parent, field.name, value)

    return change


def _name(field: FieldDescriptor) -> str:
    """The field with its message: `Concept.concept_id`."""
    owner: Any = field.containing_type
    return f"{owner.name}.{field.name}"


def _map_value(field: FieldDescriptor) -> Any:
    """A sound value of a map's entry."""
    entry: Any = field.message_type
    return "value" if _python_type(entry.fields_by_name["value"]) is str else 0.5


def _set_entry(name: str, key: str, value: Any) -> Callable[[Any], None]:
    def change(parent: Any) -> None:
        getattr(parent, name)[key] = value

    return change


def _repeat(name: str, times: int) -> Callable[[Any], None]:
    def change(parent: Any) -> None:
        held = getattr(parent, name)
        held.extend([held[0]] * (times - len(held)))

    return change


def _behaviour(field: FieldDescriptor) -> Any:
    return field.GetOptions().Extensions[field_behavior_pb2.field_behavior]


def _optional(field: FieldDescriptor) -> bool:
    oneof = field.containing_oneof
    return oneof is not None and oneof.name.startswith("_")


def _repeated(message: Message, name: str) -> bool:
    return bool(message.DESCRIPTOR.fields_by_name[name].is_repeated)


def _python_type(field: FieldDescriptor) -> type:
    kinds: dict[int, type] = {
        FieldDescriptor.CPPTYPE_STRING: str,
        FieldDescriptor.CPPTYPE_BOOL: bool,
        FieldDescriptor.CPPTYPE_DOUBLE: float,
        FieldDescriptor.CPPTYPE_FLOAT: float,
    }
    return kinds.get(field.cpp_type, int)

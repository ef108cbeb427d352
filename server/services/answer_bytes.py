"""Results of recorded answers as the bytes of their messages, by one kernel. What they mean is `answers`'s.

The same bytes as the generated classes give, field by field in order of number.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.jit import kernel
from engine.types import I4, I8, U1, U4
from genie.v1 import practice_service_pb2 as pb
from genie.v1 import resources_pb2

I1 = npt.NDArray[np.int8]

MASTERED: Final = int(resources_pb2.MASTERY_EVENT_MASTERED)
LOST: Final = int(resources_pb2.MASTERY_EVENT_LOST)
_DOUBLES: Final = 4
_DOUBLE_BYTES: Final = 9
"""With its tag."""


class Texts(NamedTuple):
    """Byte strings one after the other."""

    data: U1
    starts: I8
    """(n+1,)"""

    @classmethod
    def of(cls, texts: list[bytes]) -> "Texts":
        """Lay texts end to end."""
        starts = np.zeros(len(texts) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, texts), np.int64, len(texts)), out=starts[1:])
        # The byte at the end keeps the array from being empty, which would be another kind of array.
        return cls(np.frombuffer(bytearray(b"".join(texts) + b"\x00"), np.uint8), starts)


class Told(NamedTuple):
    """What the results of n answers, of learners side by side, say; m (concept, weight) pairs."""

    answer_id: Texts
    names: Texts
    """Ids of concepts by row; of rows beyond it, and where it is empty, none is told."""
    streaks: Texts
    """By learner: the whole field, as it stands in a result."""
    extras: Texts
    """By answer: what stands behind the streak, milestones and gaps, as fields."""
    owner: I8
    """(n,) which learner's streak."""
    at_seconds: I8
    """(n,) when it was given, split as in a Timestamp."""
    at_nanos: I8
    predicted: I8
    """(n,) bits of a double."""
    offsets: I4
    """(n+1,) pairs of each answer."""
    concept: U4
    doubles: I8
    """(m, 4) bits of mastery before, mastery after, its deviation, weight."""
    crossed: I1
    due: U1
    """(m,) 1 where a next review is known."""
    due_seconds: I8
    due_nanos: I8


@kernel
def _number_size(number: int) -> int:
    """Bytes of a varint."""
    size = 1
    while number > 127:
        number >>= 7
        size += 1
    return size


@kernel
def _time_size(seconds: int, nanos: int) -> int:
    """Bytes of a Timestamp: what is 0 is not written."""
    size = 0
    if seconds != 0:
        size += 1 + _number_size(seconds)
    if nanos != 0:
        size += 1 + _number_size(nanos)
    return size


@kernel
def _put_number(out: U1, at: int, number: int) -> int:
    """Write a varint, seven bits a byte, the lowest first; return where it ends."""
    while number > 127:
        out[at] = number & 127 | 128
        number >>= 7
        at += 1
    out[at] = number
    return at + 1


@kernel
def _put_text(out: U1, at: int, data: U1, start: int, stop: int) -> int:
    for i in range(start, stop):
        out[at] = data[i]
        at += 1
    return at


@kernel
def _put_double(out: U1, at: int, tag: int, bits: int) -> int:
    out[at] = tag
    for i in range(8):
        out[at + 1 + i] = (bits >> (8 * i)) & 255
    return at + 9


@kernel
def _put_time(out: U1, at: int, tag: int, seconds: int, nanos: int) -> int:
    """Write a Timestamp as a field."""
    out[at] = tag
    out[at + 1] = _time_size(seconds, nanos)
    at += 2
    if seconds != 0:
        out[at] = 0x08
        at = _put_number(out, at + 1, seconds)
    if nanos != 0:
        out[at] = 0x10
        at = _put_number(out, at + 1, nanos)
    return at


@kernel
def _change_size(told: Told, pair: int) -> int:
    """Bytes of a MasteryChange."""
    size = 0
    row = told.concept[pair]
    if row < told.names.starts.shape[0] - 1:
        name = told.names.starts[row + 1] - told.names.starts[row]
        if name > 0:
            size += 1 + _number_size(name) + name
    for j in range(_DOUBLES):
        if told.doubles[pair, j] != 0:
            size += _DOUBLE_BYTES
    if told.crossed[pair] != 0:
        size += 2
    if told.due[pair]:
        size += 2 + _time_size(told.due_seconds[pair], told.due_nanos[pair])
    return size


@kernel
def _put_change(out: U1, at: int, told: Told, pair: int) -> int:
    row = told.concept[pair]
    if row < told.names.starts.shape[0] - 1:
        start, stop = told.names.starts[row], told.names.starts[row + 1]
        if stop > start:
            out[at] = 0x0A
            at = _put_number(out, at + 1, stop - start)
            at = _put_text(out, at, told.names.data, start, stop)
    for j in range(_DOUBLES):
        if told.doubles[pair, j] != 0:
            at = _put_double(out, at, 0x11 + 8 * j, told.doubles[pair, j])
    if told.crossed[pair] != 0:
        out[at] = 0x30
        out[at + 1] = MASTERED if told.crossed[pair] > 0 else LOST
        at += 2
    if told.due[pair]:
        at = _put_time(out, at, 0x3A, told.due_seconds[pair], told.due_nanos[pair])
    return at


@kernel
def _result_size(told: Told, i: int, changes: I8) -> int:
    """Bytes of an AnswerResult; `changes` has the size of every change."""
    name = told.answer_id.starts[i + 1] - told.answer_id.starts[i]
    size = (
        1
        + _number_size(name)
        + name
        + 2
        + 2
        + _time_size(told.at_seconds[i], told.at_nanos[i])
        + _DOUBLE_BYTES
    )
    for pair in range(told.offsets[i], told.offsets[i + 1]):
        size += 1 + _number_size(changes[pair]) + changes[pair]
    owner = told.owner[i]
    size += told.streaks.starts[owner + 1] - told.streaks.starts[owner]
    return int(size + told.extras.starts[i + 1] - told.extras.starts[i])


@kernel
def _put_result(out: U1, at: int, told: Told, i: int, changes: I8) -> int:
    start, stop = told.answer_id.starts[i], told.answer_id.starts[i + 1]
    out[at] = 0x0A
    at = _put_number(out, at + 1, stop - start)
    at = _put_text(out, at, told.answer_id.data, start, stop)
    out[at] = 0x10
    out[at + 1] = 1
    at = _put_time(out, at + 2, 0x22, told.at_seconds[i], told.at_nanos[i])
    at = _put_double(out, at, 0x29, told.predicted[i])
    for pair in range(told.offsets[i], told.offsets[i + 1]):
        out[at] = 0x32
        at = _put_number(out, at + 1, changes[pair])
        at = _put_change(out, at, told, pair)
    owner = told.owner[i]
    at = _put_text(out, at, told.streaks.data, told.streaks.starts[owner], told.streaks.starts[owner + 1])
    return _put_text(out, at, told.extras.data, told.extras.starts[i], told.extras.starts[i + 1])


@kernel
def _put_results(told: Told, ends: I8) -> U1:
    """Return the results of all answers as fields of number 1; fill ends (n,) with where each ends."""
    n = told.owner.shape[0]
    changes = np.empty(told.concept.shape[0], np.int64)
    for pair in range(told.concept.shape[0]):
        changes[pair] = _change_size(told, pair)
    sizes = np.empty(n, np.int64)
    end = 0
    for i in range(n):
        sizes[i] = _result_size(told, i, changes)
        end += 1 + _number_size(sizes[i]) + sizes[i]
        ends[i] = end
    out = np.empty(end, np.uint8)
    at = 0
    for i in range(n):
        out[at] = 0x0A
        at = _put_number(out, at + 1, sizes[i])
        at = _put_result(out, at, told, i, changes)
    return out


def result_fields(told: Told) -> list[bytes]:
    """The result of each answer, as the first field of a reply or of a message of a stream."""
    ends = np.empty(len(told.owner), np.int64)
    data = _put_results(told, ends).tobytes()
    stops = ends.tolist()
    return [data[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


def message_field(message: "pb.AnswerResult") -> bytes:
    """The same of a result that is a message."""
    return pb.StreamAnswersResponse(result=message).SerializeToString()


def warm_up() -> None:
    """Compile, or load from the disk cache, what the first answers would otherwise wait for."""
    nothing = Texts.of([b""])
    one, pair = np.zeros(1, np.int64), np.zeros((1, _DOUBLES), np.int64)
    result_fields(
        Told(
            answer_id=nothing,
            names=nothing,
            streaks=nothing,
            extras=nothing,
            owner=one,
            at_seconds=one,
            at_nanos=one,
            predicted=one,
            offsets=np.zeros(2, np.int32),
            concept=np.zeros(1, np.uint32),
            doubles=pair,
            crossed=np.zeros(1, np.int8),
            due=np.zeros(1, np.uint8),
            due_seconds=one,
            due_nanos=one,
        )
    )

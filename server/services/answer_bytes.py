"""Results of recorded answers as the bytes of their messages, by one kernel. What they mean is `answers`'s.

The same bytes as the generated classes give, field by field in order of number.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.jit import kernel, lean_kernel
from engine.learner.memory import SECONDS_A_DAY
from engine.learner.state import CONCEPT, Records
from engine.octets import put_bytes, put_little, put_varint, varint_size
from engine.types import F4, F8, I4, I8, U1, U4
from genie.v1 import practice_service_pb2 as pb
from genie.v1 import resources_pb2
from server.validate import MOST_TIMESTAMP_SECONDS

I1 = npt.NDArray[np.int8]

MASTERED: Final = int(resources_pb2.MASTERY_EVENT_MASTERED)
LOST: Final = int(resources_pb2.MASTERY_EVENT_LOST)
MICROS: Final = 1_000_000
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
    bounds: I8
    """(learners+1,) answers of each learner."""
    answered_at: F8
    """(n,) epoch seconds."""
    predicted: F4
    """(n,)"""
    offsets: I4
    """(n+1,) pairs of each answer."""
    concept: U4
    before: F4
    """(m,) mastery."""
    after: F4
    deviation: F4
    """(m,) of the mastery after."""
    weight: F4
    crossed: I1
    concepts: Records
    """Concept records of all learners, dtype CONCEPT."""
    place: I8
    """(m,) the record of each pair's concept."""
    interval: float
    """Days until a review falls due, of a memory whose stability is one day."""


class _Sized(NamedTuple):
    """What is worked out once, for sizes and bytes."""

    change: I8
    """(m,) bytes of each change."""
    due_seconds: I8
    """(m,) when a next review is due, split as in a Timestamp; −1 where none is known."""
    due_nanos: I8
    at_seconds: I8
    """(n,) when it was given, likewise."""
    at_nanos: I8
    bits: F8
    """(1,) a double, to look at its bits."""


@lean_kernel
def _time_size(seconds: int, nanos: int) -> int:
    """Bytes of a Timestamp: what is 0 is not written."""
    size = 0
    if seconds != 0:
        size += 1 + varint_size(seconds)
    if nanos != 0:
        size += 1 + varint_size(nanos)
    return size


@lean_kernel
def _put_double(out: U1, at: int, tag: int, bits: int) -> int:
    out[at] = tag
    return put_little(out, at + 1, bits, 8)


@lean_kernel
def _put_piece(out: U1, at: int, texts: Texts, number: int) -> int:
    start = texts.starts[number]
    return put_bytes(out, at, texts.data, start, texts.starts[number + 1] - start)


@lean_kernel
def _put_time(out: U1, at: int, tag: int, seconds: int, nanos: int) -> int:
    """Write a Timestamp as a field."""
    out[at] = tag
    out[at + 1] = _time_size(seconds, nanos)
    at += 2
    if seconds != 0:
        out[at] = 0x08
        at = put_varint(out, at + 1, seconds)
    if nanos != 0:
        out[at] = 0x10
        at = put_varint(out, at + 1, nanos)
    return at


@lean_kernel
def _split(seconds: float, at: int, whole: I8, nanos: I8) -> None:
    """A moment in whole microseconds, held to what a Timestamp can say, as its two fields."""
    micros = int(np.rint(min(max(seconds, 0.0), MOST_TIMESTAMP_SECONDS) * 1e6))
    whole[at] = micros // MICROS
    nanos[at] = micros % MICROS * 1_000


@lean_kernel
def _bits(value: float, room: F8) -> int:
    """Bits of a double."""
    room[0] = value
    return int(room.view(np.int64)[0])


@lean_kernel
def _change_size(told: Told, sized: _Sized, pair: int) -> int:
    """Bytes of a MasteryChange; notes when the concept falls due."""
    size = 0
    row = told.concept[pair]
    if row < told.names.starts.shape[0] - 1:
        name = told.names.starts[row + 1] - told.names.starts[row]
        if name > 0:
            size += 1 + varint_size(name) + name
    for value in (told.before[pair], told.after[pair], told.deviation[pair], told.weight[pair]):
        if _bits(value, sized.bits) != 0:
            size += _DOUBLE_BYTES
    if told.crossed[pair] != 0:
        size += 2
    sized.due_seconds[pair] = -1
    known = told.concepts[told.place[pair]]
    if known.stability > 0.0:
        due = known.review_at + float(known.stability) * told.interval * SECONDS_A_DAY
        _split(due, pair, sized.due_seconds, sized.due_nanos)
        size += 2 + _time_size(sized.due_seconds[pair], sized.due_nanos[pair])
    return size


@lean_kernel
def _put_change(out: U1, at: int, told: Told, sized: _Sized, pair: int) -> int:
    row = told.concept[pair]
    if row < told.names.starts.shape[0] - 1:
        start, stop = told.names.starts[row], told.names.starts[row + 1]
        if stop > start:
            out[at] = 0x0A
            at = put_varint(out, at + 1, stop - start)
            at = put_bytes(out, at, told.names.data, start, stop - start)
    tag = 0x11
    for value in (told.before[pair], told.after[pair], told.deviation[pair], told.weight[pair]):
        bits = _bits(value, sized.bits)
        if bits != 0:
            at = _put_double(out, at, tag, bits)
        tag += 8
    if told.crossed[pair] != 0:
        out[at] = 0x30
        out[at + 1] = MASTERED if told.crossed[pair] > 0 else LOST
        at += 2
    if sized.due_seconds[pair] >= 0:
        at = _put_time(out, at, 0x3A, sized.due_seconds[pair], sized.due_nanos[pair])
    return at


@lean_kernel
def _result_size(told: Told, sized: _Sized, i: int, owner: int) -> int:
    """Bytes of an AnswerResult of learner `owner`."""
    name = told.answer_id.starts[i + 1] - told.answer_id.starts[i]
    size = (
        1
        + varint_size(name)
        + name
        + 2
        + 2
        + _time_size(sized.at_seconds[i], sized.at_nanos[i])
        + _DOUBLE_BYTES
    )
    for pair in range(told.offsets[i], told.offsets[i + 1]):
        size += 1 + varint_size(sized.change[pair]) + sized.change[pair]
    size += told.streaks.starts[owner + 1] - told.streaks.starts[owner]
    return int(size + told.extras.starts[i + 1] - told.extras.starts[i])


@lean_kernel
def _put_result(out: U1, at: int, told: Told, sized: _Sized, i: int, owner: int) -> int:
    start, stop = told.answer_id.starts[i], told.answer_id.starts[i + 1]
    out[at] = 0x0A
    at = put_varint(out, at + 1, stop - start)
    at = _put_piece(out, at, told.answer_id, i)
    out[at] = 0x10
    out[at + 1] = 1
    at = _put_time(out, at + 2, 0x22, sized.at_seconds[i], sized.at_nanos[i])
    at = _put_double(out, at, 0x29, _bits(told.predicted[i], sized.bits))
    for pair in range(told.offsets[i], told.offsets[i + 1]):
        out[at] = 0x32
        at = put_varint(out, at + 1, sized.change[pair])
        at = _put_change(out, at, told, sized, pair)
    at = _put_piece(out, at, told.streaks, owner)
    return _put_piece(out, at, told.extras, i)


@kernel
def _put_results(told: Told, ends: I8) -> U1:
    """Return the results of all answers as fields of number 1; fill ends (n,) with where each ends."""
    n, m = ends.shape[0], told.concept.shape[0]
    sized = _Sized(
        np.empty(m, np.int64),
        np.empty(m, np.int64),
        np.empty(m, np.int64),
        np.empty(n, np.int64),
        np.empty(n, np.int64),
        np.empty(1),
    )
    for pair in range(m):
        sized.change[pair] = _change_size(told, sized, pair)
    sizes = np.empty(n, np.int64)
    end = 0
    for owner in range(told.bounds.shape[0] - 1):
        for i in range(told.bounds[owner], told.bounds[owner + 1]):
            _split(told.answered_at[i], i, sized.at_seconds, sized.at_nanos)
            sizes[i] = _result_size(told, sized, i, owner)
            end += 1 + varint_size(sizes[i]) + sizes[i]
            ends[i] = end
    out = np.empty(end, np.uint8)
    at = 0
    for owner in range(told.bounds.shape[0] - 1):
        for i in range(told.bounds[owner], told.bounds[owner + 1]):
            out[at] = 0x0A
            at = put_varint(out, at + 1, sizes[i])
            at = _put_result(out, at, told, sized, i, owner)
    return out


def result_fields(told: Told) -> list[bytes]:
    """The result of each answer, as the first field of a reply or of a message of a stream."""
    ends = np.empty(len(told.predicted), np.int64)
    data = _put_results(told, ends).tobytes()
    stops = ends.tolist()
    return [data[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


def message_field(message: "pb.AnswerResult") -> bytes:
    """The same of a result that is a message."""
    return pb.StreamAnswersResponse(result=message).SerializeToString()


def warm_up() -> None:
    """Compile, or load from the disk cache, what the first answers would otherwise wait for."""
    nothing = Texts.of([b""])
    number, share = np.zeros(1, np.int64), np.zeros(1, np.float32)
    result_fields(
        Told(
            answer_id=nothing,
            names=nothing,
            streaks=nothing,
            extras=nothing,
            bounds=np.array([0, 1]),
            answered_at=np.zeros(1),
            predicted=share,
            offsets=np.zeros(2, np.int32),
            concept=np.zeros(1, np.uint32),
            before=share,
            after=share,
            deviation=share,
            weight=share,
            crossed=np.zeros(1, np.int8),
            concepts=np.zeros(1, CONCEPT),
            place=number,
            interval=1.0,
        )
    )

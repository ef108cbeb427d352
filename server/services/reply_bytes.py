"""Replies with slates that were just drawn, as the bytes of their messages, by one kernel. Draws and keeps nothing.

The same bytes as the generated classes give for `slate_bytes.slate_message`, field by field in order of number.
"""

import math
import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.jit import array_at, brief_kernel, lean_kernel
from engine.labels import LABEL_HEAD, all_noted
from engine.learner.state import Records
from engine.octets import Room, close_sized, put_bytes, put_varint
from engine.sentences import LONGEST, MOST_TITLES, put_sentence
from engine.slate import HEAD, ITEM, SlateReason
from engine.types import F8, I4, I8, U1
from genie.v1 import explanation_pb2
from genie.v1 import recommendation_service_pb2 as pb
from server.services.explanations import source_values
from server.services.outcomes import Fresh
from server.tenants import Bundle

I1 = npt.NDArray[np.int8]

SHORTFALLS: Final = {
    SlateReason.FULL: pb.SHORTFALL_REASON_UNSPECIFIED,
    SlateReason.EMPTY_CATALOG: pb.SHORTFALL_REASON_EMPTY_CATALOG,
    SlateReason.ALL_EXCLUDED: pb.SHORTFALL_REASON_EXCLUDED,
    SlateReason.FEW_ELIGIBLE: pb.SHORTFALL_REASON_FEW_ELIGIBLE,
    SlateReason.NOTHING_OPEN: pb.SHORTFALL_REASON_PREREQUISITES_MISSING,
}

_FIELDS: Any = ITEM.fields or {}
_SCORE_AT: Final = int(_FIELDS["score"][1])
_PROPENSITY_AT: Final = int(_FIELDS["propensity"][1])
_HEAD_BYTES: Final = HEAD.itemsize
_ITEM_BYTES: Final = ITEM.itemsize
_SHORT: Final = np.array([SHORTFALLS[SlateReason(number)] for number in range(len(SHORTFALLS))], np.int64)
_SOURCES: Final = np.array(source_values(-1), np.uint8)
"""Of the wire API, by bit."""
_PLAN: Final = 12
_ITEM_ROOM: Final = 128
_SLATE_ROOM: Final = 256
"""Bytes that an item, or a slate, has at most beside its texts."""
_ROOM: Final = Room()


def reply_fields(group: Fresh, bundle: Bundle, level: int, *, batch: bool) -> list[bytes]:
    """The field that holds each slate: of `RecommendResponse`, or of `BatchRecommendResponse` with the learner's id.

    `level` is NONE or SIMPLE.
    """
    new, slates, titles = group.new, group.slates, bundle.titles
    told = level > explanation_pb2.EXPLANATION_LEVEL_NONE
    count = len(new.owners)
    created, expires = round(new.created_at * 1e6), round(new.expires_at * 1e6)
    plan = struct.pack(
        f"<{_PLAN + 3 * count}q",
        *(count, slates.first, slates.stride, slates.items_at, 0, new.degraded, told),
        *(created // 1_000_000, created % 1_000_000 * 1_000, expires // 1_000_000),
        *(expires % 1_000_000 * 1_000, batch, *new.owners, *new.shown, *new.calls),
    )
    longest = _ITEM_ROOM + new.names.longest + told * (LONGEST + MOST_TITLES * titles.longest)
    most = 2 * len(new.named) + (_SLATE_ROOM + slates.items_at) * count
    out, ends = _ROOM.of(most + slates.rows.size * longest), np.empty(count, np.int64)
    _put_replies(
        np.frombuffer(plan, np.int64), new.named, slates.stored_in,
        slates.leads, titles.data, titles.starts, new.names.starts, new.names.data, out, ends,
    )  # fmt: skip
    data, start, fields = out.data, 0, []
    for end in ends.tolist():
        fields.append(bytes(data[start:end]))
        start = end
    return fields


@lean_kernel
def _put_text(out: U1, at: int, tag: int, texts: U1, start: int, size: int) -> int:
    """Write a text as a field; one that is empty is not written."""
    if size == 0:
        return at
    out[at] = tag
    return put_bytes(out, put_varint(out, at + 1, size), texts, start, size)


@lean_kernel
def _put_number(out: U1, at: int, tag: int, number: int) -> int:
    """Write a number as a field; 0 is not written."""
    if number == 0:
        return at
    out[at] = tag
    return put_varint(out, at + 1, number)


@lean_kernel
def _put_double(out: U1, at: int, tag: int, octets: U1, start: int) -> int:
    """Write a double, of which eight bytes are given, as a field; 0 is not written."""
    some = 0
    for i in range(8):
        some |= octets[start + i]
        out[at + 1 + i] = octets[start + i]
    if some == 0:
        return at
    out[at] = tag
    return at + 9


@lean_kernel
def _put_span(out: U1, at: int, tag: int, seconds: int, nanos: int) -> int:
    """Write a Timestamp or a Duration as a field."""
    out[at] = tag
    end = _put_number(out, _put_number(out, at + 2, 0x08, seconds), 0x10, nanos)
    out[at + 1] = end - at - 2
    return end


@lean_kernel
def _put_item(
    out: U1,
    at: int,
    items: Records,
    rank: int,
    octets: U1,
    predicted: F8,
    head: Records,
    told: int,
    lead: int,
    titles: U1,
    title_starts: I4,
    starts: I4,
    names: U1,
) -> int:
    """Write a RecommendedItem; `octets` are the item's own bytes, `predicted` (1,) is room."""
    item = items[rank]
    label = starts[item.question]
    name = int(names[label]) | int(names[label + 1]) << 8
    tail = int(names[label + 2]) | int(names[label + 3]) << 8
    at = _put_text(out, at, 0x0A, names, label + LABEL_HEAD, name)
    at = put_bytes(out, at, names, label + LABEL_HEAD + name, tail)
    out[at] = 0x18
    at = put_varint(out, at + 1, rank + 1)
    at = _put_double(out, at, 0x21, octets, _SCORE_AT)
    predicted[0] = item.predicted
    at = _put_double(out, at, 0x29, predicted.view(np.uint8), 0)
    if told:
        out[at] = 0x32
        end = put_sentence(out, at + 2, items, rank, lead, head, titles, title_starts)
        at = close_sized(out, at + 1, end, 1)
    first = at + 2
    for bit in range(_SOURCES.shape[0]):
        if (item.sources >> bit) & 1:
            out[first] = _SOURCES[bit]
            first += 1
    if first > at + 2:
        out[at] = 0x3A
        out[at + 1] = first - at - 2
        at = first
    at = _put_double(out, at, 0x41, octets, _PROPENSITY_AT)
    at = _put_number(out, at, 0x48, 1 if item.attempts > 0 else 0)
    seconds = float(item.seconds)
    if seconds > 0.0 and seconds < math.inf:
        micros = int(np.rint(seconds * 1e6))
        at = _put_span(out, at, 0x52, micros // 1_000_000, micros % 1_000_000 * 1_000)
    return at


@brief_kernel
def _put_replies(
    plan: I8,
    named: U1,
    stored: U1,
    leads: I1,
    titles: U1,
    title_starts: I4,
    starts: I4,
    names: U1,
    out: U1,
    ends: I8,
) -> None:
    """Fill `out` with the fields, one after another, and ends (n,)."""
    n = plan[0]
    said = at = n - n
    predicted = np.empty(1)
    for i in range(n):
        own = plan[1] + i * plan[2]
        owner, shown, call = plan[_PLAN + i], plan[_PLAN + n + i], plan[_PLAN + 2 * n + i]
        head = array_at(stored.ctypes.data + own, 1, HEAD)
        items = array_at(stored.ctypes.data + own + plan[3], shown, ITEM)
        policy, model = int(head[0].policy_bytes), int(head[0].model_bytes)
        out[at] = 0x0A
        result = start = at + 1
        at = start + 2
        if plan[11]:
            at = _put_text(out, at, 0x0A, named, said + 32, owner)
            out[at] = 0x12
            start = at + 1
            at = start + 2
        at = _put_text(out, at, 0x0A, named, said, 32)
        at = _put_text(out, at, 0x12, named, said + 32, owner)
        for rank in range(shown):
            out[at] = 0x1A
            octets = stored[own + plan[3] + rank * _ITEM_BYTES : own + plan[3] + (rank + 1) * _ITEM_BYTES]
            end = _put_item(
                out, at + 3, items, rank, octets, predicted, head, plan[6], leads[i, rank], titles, title_starts,
                starts, names,
            )  # fmt: skip
            at = close_sized(out, at + 1, end, 2)
        at = _put_text(out, at, 0x22, stored, own + _HEAD_BYTES, policy)
        at = _put_text(out, at, 0x2A, stored, own + _HEAD_BYTES + policy, model)
        at = _put_number(out, at, 0x30, 1 if plan[5] != 0 else 0)
        at = _put_number(out, at, 0x38, plan[5])
        at = _put_number(out, at, 0x40, _SHORT[head[0].reason])
        at = _put_span(out, at, 0x4A, plan[7], plan[8])
        at = _put_span(out, at, 0x52, plan[9], plan[10])
        at = _put_number(out, at, 0x58, int(head[0].answers))
        at = _put_text(out, at, 0x62, named, said + 32 + owner, call)
        at = close_sized(out, start, at, 2)
        if plan[11]:
            at = close_sized(out, result, at, 2)
        said += 32 + owner + call
        ends[i] = at


def warm_up() -> None:
    """Compile, or load from the disk cache, what the first slates would otherwise wait for."""
    text, starts, rows = np.frombuffer(b"\0", np.uint8), np.zeros(2, np.int32), np.zeros((0, 1), np.uint32)
    nothing, plan = np.zeros(1, np.uint8), np.frombuffer(bytes(8 * _PLAN), np.int64)
    all_noted(starts, rows)
    _put_replies(
        *(plan, text, nothing, np.zeros((0, 1), np.int8), text, starts, starts, nothing, nothing),
        np.zeros(0, np.int64),
    )

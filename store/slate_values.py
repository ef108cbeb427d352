"""Slates just made, as the records of a journal, by one kernel: many of one call. Decides nothing, and keeps nothing.

A record is what `store.slate_journal` says, its value what `codec.SLATE` gives for the `SlateRecord`; length and
checksum are left to the journal.
"""

import struct
from collections.abc import Sequence
from itertools import accumulate
from typing import Final, NamedTuple

import numpy as np

from engine.jit import brief_kernel, lean_kernel
from engine.labels import LABEL_HEAD, Shelf
from engine.octets import Room, put_big, put_bytes, put_little
from engine.types import I4, I8, U1, U4
from store import codec
from store.records import SlateRecord
from store.tallies import utc_day

RECORD_HEAD: Final = 8
"""Bytes of a record before its body: length and checksum."""
_ID: Final = 32
_VERSION: Final = b"\x01"
_VALUE_HEAD: Final = np.frombuffer(_VERSION, np.uint8)
_NAMES: Final = (
    *(
        "recommendation_id",
        "learner_id",
        "created_at",
        "expires_at",
        "request_digest",
        "payload",
        "question_ids",
    ),
    *("correlation_id", "degraded"),
)
# Said again here, since a compiled kernel that was kept holds what this file said, whatever others say by now.
if (SlateRecord.__slots__, codec.SLATE.seal(b"")) != (_NAMES, _VERSION):
    raise ImportError("records of slates have changed: the kernel must write them as codec.SLATE does")
_KEYS: Final = np.frombuffer(
    b"".join(bytes((0xA0 | len(name),)) + name.encode() for name in _NAMES), np.uint8
)
"""The names of a record's fields in order, as MessagePack writes short texts."""
_KEY_STARTS: Final = tuple(accumulate((1 + len(name) for name in _NAMES), initial=0))
_MAP: Final = 0x80 | len(_NAMES)
_FIXED: Final = 256 + len(_KEYS)
"""No record takes more beside its texts, payload and question ids."""
_PLAN: Final = 12
_SIZES: Final = struct.Struct("<HH")
_SIZES_AT: Final = RECORD_HEAD + _ID + 6
"""Where the sizes of tenant and learner stand, after the id, the day and the number of questions."""
_ROOM: Final = Room()


class NewSlates(NamedTuple):
    """n slates made together."""

    learner_ids: Sequence[str]
    recommendation_ids: Sequence[str]
    """32 characters each."""
    created_at: float
    expires_at: float
    request_digest: bytes
    correlation_ids: Sequence[str]
    """Of the call behind each."""
    degraded: int
    named: U1
    """The id of each slate, of its learner and of its call, one after another; read-only."""
    owners: Sequence[int]
    """Bytes of each learner's id."""
    calls: Sequence[int]
    """Bytes of each call's id."""
    payloads: U1
    """One after another: the first begins at `start`, each next one `stride` bytes on."""
    start: int
    stride: int
    sizes: Sequence[int]
    """Bytes of each payload."""
    rows: U4
    """(n, limit) questions."""
    shown: Sequence[int]
    """How many of them each slate has."""
    names: Shelf
    """Ids of questions by row: of all that are shown."""


def in_turns(ids: Sequence[str], owners: Sequence[bytes], calls: Sequence[bytes]) -> U1:
    """The bytes of each id, its owner and its call, one after another."""
    texts = [b""] * (3 * len(ids))
    texts[::3], texts[1::3], texts[2::3] = map(str.encode, ids), owners, calls
    return np.frombuffer(b"".join(texts), np.uint8)


def records_of(new: NewSlates, tenant: str) -> "tuple[memoryview[int], list[int]]":
    """The records one after another, where they may be changed until the thread asks again; where each ends."""
    first = tenant.encode(), new.request_digest
    count, per = len(new.owners), [*new.owners, *new.sizes, *new.shown, *new.calls]
    plan = struct.pack(
        f"<{_PLAN - 2}q2d{4 * count}q",
        *(count, *map(len, first), utc_day(new.created_at), new.degraded, new.start, new.stride, 0, 0, 0),
        *(new.created_at, new.expires_at, *per),
    )
    said = b"".join(first)
    most = 2 * len(new.named) + (2 * len(said) + _FIXED + new.stride) * count
    out, ends = _ROOM.of(most + new.rows.size * (new.names.longest + LABEL_HEAD)), np.empty(count, np.int64)
    _put_records(
        np.frombuffer(plan, np.int64), np.frombuffer(said, np.uint8), new.named, new.payloads, new.rows,
        new.names.starts, new.names.data, out, ends,
    )  # fmt: skip
    return out.data, ends.tolist()


def value_in(record: "memoryview[int]") -> bytes:
    """The value of a record."""
    tenant, owner = _SIZES.unpack_from(record, _SIZES_AT)
    return bytes(record[_SIZES_AT + _SIZES.size + tenant + owner :])


@lean_kernel
def _put_key(out: U1, at: int, number: int) -> int:
    """Write the name of a field."""
    return put_bytes(out, at, _KEYS, _KEY_STARTS[number], _KEY_STARTS[number + 1] - _KEY_STARTS[number])


@lean_kernel
def _put_text_head(out: U1, at: int, size: int) -> int:
    """Write what stands before a text of so many bytes in MessagePack."""
    if size < 32:
        out[at] = 0xA0 | size
        return at + 1
    if size < 256:
        out[at] = 0xD9
        return put_big(out, at + 1, size, 1)
    out[at] = 0xDA
    return put_big(out, at + 1, size, 2)


@lean_kernel
def _put_binary_head(out: U1, at: int, size: int) -> int:
    """Write what stands before so many bytes in MessagePack."""
    width = 1 if size < 1 << 8 else 2 if size < 1 << 16 else 4
    out[at] = 0xC4 + width // 2
    return put_big(out, at + 1, size, width)


@lean_kernel
def _put_double(out: U1, at: int, bits: int) -> int:
    out[at] = 0xCB
    return put_big(out, at + 1, bits, 8)


@lean_kernel
def _put_ids(out: U1, at: int, rows: U4, shown: int, starts: I4, names: U1) -> int:
    """Write the ids of `shown` questions as an array of texts."""
    if shown < 16:
        out[at] = 0x90 | shown
        at += 1
    else:
        out[at] = 0xDC
        at = put_big(out, at + 1, shown, 2)
    for rank in range(shown):
        start = starts[rows[rank]]
        size = int(names[start]) | int(names[start + 1]) << 8
        at = put_bytes(out, _put_text_head(out, at, size), names, start + LABEL_HEAD, size)
    return at


@brief_kernel
def _put_records(
    plan: I8,
    texts: U1,
    named: U1,
    payloads: U1,
    rows: U4,
    starts: I4,
    names: U1,
    out: U1,
    ends: I8,
) -> None:
    """Fill `out` with the records, and ends (n,)."""
    n, tenant, digest = plan[0], plan[1], plan[2]
    said = at = n - n
    for i in range(n):
        owner, size, shown = plan[_PLAN + i], plan[_PLAN + n + i], plan[_PLAN + 2 * n + i]
        call = plan[_PLAN + 3 * n + i]
        at = put_bytes(out, at + RECORD_HEAD, named, said, _ID)
        at = put_little(out, at, plan[3], 4)
        at = put_little(out, at, shown, 2)
        at = put_little(out, at, tenant, 2)
        at = put_little(out, at, owner, 2)
        at = put_bytes(out, at, texts, 0, tenant)
        at = put_bytes(out, at, named, said + _ID, owner)
        at = put_bytes(out, at, _VALUE_HEAD, 0, _VALUE_HEAD.shape[0])
        out[at] = _MAP
        at = put_bytes(out, _put_text_head(out, _put_key(out, at + 1, 0), _ID), named, said, _ID)
        at = put_bytes(out, _put_text_head(out, _put_key(out, at, 1), owner), named, said + _ID, owner)
        at = _put_double(out, _put_key(out, at, 2), plan[_PLAN - 2])
        at = _put_double(out, _put_key(out, at, 3), plan[_PLAN - 1])
        at = _put_binary_head(out, _put_key(out, at, 4), digest)
        at = put_bytes(out, at, texts, tenant, digest)
        at = _put_binary_head(out, _put_key(out, at, 5), size)
        at = put_bytes(out, at, payloads, plan[5] + i * plan[6], size)
        at = _put_ids(out, _put_key(out, at, 6), rows[i], shown, starts, names)
        at = put_bytes(out, _put_text_head(out, _put_key(out, at, 7), call), named, said + _ID + owner, call)
        at = _put_key(out, at, 8)
        out[at] = plan[4]
        at += 1
        ends[i] = at
        said += _ID + owner + call


def warm_up() -> None:
    """Compile, or load from the disk cache, what the first slates would otherwise wait for."""
    text, plan = np.frombuffer(b"\0", np.uint8), np.frombuffer(bytes(8 * _PLAN), np.int64)
    nothing, starts, rows = np.zeros(1, np.uint8), np.zeros(1, np.int32), np.zeros((0, 1), np.uint32)
    _put_records(plan, text, text, nothing, rows, starts, nothing, nothing, np.zeros(0, np.int64))

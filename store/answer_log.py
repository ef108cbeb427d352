"""Entries of the answer log, as columns and as bytes. Holds facts as recorded; applies none of them.

An entry is a fixed head, then its (concept, weight) pairs, then its ids as UTF-8. All numbers are
little-endian. Many entries are encoded and decoded at once, by column, since imports and rebuilds handle
whole logs.
"""

import struct
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engine.types import F4, F8, I4, I8, U1, U2, AnswerBatch
from store.api import StoreCorrupt
from store.codec import Versioned

I1 = npt.NDArray[np.int8]

_ENTRY: Final = Versioned("answer", 1)
_CURRENT: Final = _ENTRY.seal(b"")

HEAD: Final = np.dtype(
    [
        ("version", "u1"),
        ("correct", "u1"),
        ("grade", "u1"),
        ("hints", "u1"),
        ("late", "u1"),
        ("timed", "u1"),
        ("device", "u1"),
        ("unused", "u1"),
        ("answered_at", "<f8"),
        ("received_at", "<f8"),
        ("question", "<u4"),
        ("duration_ms", "<u4"),
        ("local_day", "<i4"),
        ("base_logit", "<f4"),
        ("predicted", "<f4"),
        ("memory_set", "<u2"),
        ("streak", "<u2"),
        ("milestone", "<u2"),
        ("pairs", "<u2"),
        ("answer_id", "<u2"),
        ("session_id", "<u2"),
        ("recommendation_id", "<u2"),
    ]
)
"""One entry's fixed part; the three ids are lengths in bytes. 58 bytes."""

PAIR: Final = np.dtype(
    [
        ("concept", "<u4"),
        ("weight", "<f4"),
        ("mastery", "<f4"),
        ("mastery_sd", "<f4"),
        ("mastery_before", "<f4"),
        ("crossed", "i1"),
    ]
)
"""One exercised concept. 21 bytes."""

_RECEIVED_AT: Final = struct.Struct("<d")
_RECEIVED_AT_OFFSET: Final = HEAD.fields["received_at"][1]  # type: ignore[index]
_ANSWERED_AT: Final = struct.Struct("<d")
_ANSWERED_AT_OFFSET: Final = HEAD.fields["answered_at"][1]  # type: ignore[index]
_LOCAL_DAY: Final = struct.Struct("<i")
_LOCAL_DAY_OFFSET: Final = HEAD.fields["local_day"][1]  # type: ignore[index]

_BATCH_HEADS: Final = (
    "question",
    "correct",
    "answered_at",
    "base_logit",
    "grade",
    "duration_ms",
    "hints",
    "local_day",
    "memory_set",
)
_BATCH_PAIRS: Final = ("concept", "weight", "mastery", "mastery_sd")
_OWN_HEADS: Final = ("predicted", "streak", "milestone", "late", "timed", "device", "received_at")
_OWN_PAIRS: Final = ("mastery_before", "crossed")
_IDS: Final = ("answer_id", "session_id", "recommendation_id")


class AnswerLog(NamedTuple):
    """Entries of ONE learner as columns: n answers, m pairs. The order is the caller's."""

    batch: AnswerBatch
    """The facts that the update used, with the mastery shown."""
    sequence: I8
    """(n,) order of arrival within the learner, from 1."""
    predicted: F4
    """(n,) chance of success given beforehand."""
    streak: U2
    """(n,) streak in local days after the answer."""
    milestone: U2
    """(n,) the milestone (days) that the answer reached, else 0."""
    late: U1
    """(n,) 1 where the answer was older than one recorded before it."""
    timed: U1
    """(n,) 1 where the caller said when it was given, 0 where the time of arrival stands in."""
    device: U1
    """(n,) the wire API's number of the device."""
    received_at: F8
    """(n,) epoch seconds."""
    mastery_before: F4
    """(m,) mastery just before the answer."""
    crossed: I1
    """(m,) 1 where the concept became mastered, -1 where mastery was lost, else 0."""
    answer_id: Sequence[str]
    session_id: Sequence[str]
    recommendation_id: Sequence[str]

    @property
    def size(self) -> int:
        """Number of answers (not of fields)."""
        return int(self.sequence.shape[0])

    def take(self, order: npt.NDArray[np.intp]) -> "AnswerLog":
        """The answers at `order`, in that order."""
        pairs, offsets = _pairs_of(self.batch.offsets, order)
        columns: dict[str, Any] = {name: getattr(self, name)[order] for name in _OWN_HEADS}
        columns |= {name: getattr(self, name)[pairs] for name in _OWN_PAIRS}
        columns |= {name: [getattr(self, name)[i] for i in order] for name in _IDS}
        return AnswerLog(
            batch=_take_batch(self.batch, order, pairs, offsets), sequence=self.sequence[order], **columns
        )


def join_logs(first: AnswerLog, second: AnswerLog) -> AnswerLog:
    """The answers of one, then those of the other."""
    columns: dict[str, Any] = {
        name: np.concatenate((getattr(first, name), getattr(second, name)))
        for name in ("sequence", *_OWN_HEADS, *_OWN_PAIRS)
    }
    columns |= {name: [*getattr(first, name), *getattr(second, name)] for name in _IDS}
    facts: dict[str, Any] = {
        name: np.concatenate((getattr(first.batch, name), getattr(second.batch, name)))
        for name in (*_BATCH_HEADS, *_BATCH_PAIRS)
    }
    shifted = second.batch.offsets[1:] + first.batch.offsets[-1]
    facts["offsets"] = np.concatenate((first.batch.offsets, shifted)).astype(np.int32)
    return AnswerLog(batch=AnswerBatch(**facts), **columns)


def chronological(log: AnswerLog) -> npt.NDArray[np.intp]:
    """The order in which a log is applied: by time given, then by arrival."""
    return np.lexsort((log.sequence, log.batch.answered_at))


def encode_answers(log: AnswerLog) -> list[bytes]:
    """The value of each entry."""
    n = log.size
    heads = np.zeros(n, HEAD)
    heads["version"] = _ENTRY.version
    for name in _BATCH_HEADS:
        heads[name] = getattr(log.batch, name)
    for name in _OWN_HEADS:
        heads[name] = getattr(log, name)
    heads["pairs"] = np.diff(log.batch.offsets)
    texts = []
    for name in _IDS:
        encoded = [text.encode() for text in getattr(log, name)]
        heads[name] = [len(text) for text in encoded]
        texts.append(encoded)
    pairs = np.empty(len(log.batch.concept), PAIR)
    for name in _BATCH_PAIRS:
        pairs[name] = getattr(log.batch, name)
    for name in _OWN_PAIRS:
        pairs[name] = getattr(log, name)
    head_bytes, pair_bytes = heads.tobytes(), pairs.tobytes()
    bounds = (log.batch.offsets * PAIR.itemsize).tolist()
    size = HEAD.itemsize
    return [
        b"".join((head_bytes[i * size : i * size + size], pair_bytes[bounds[i] : bounds[i + 1]], *ids))
        for i, ids in enumerate(zip(*texts, strict=True))
    ]


def decode_answers(sequences: Sequence[int], values: Sequence[bytes]) -> AnswerLog:
    """Columns of the entries, in the order given. Raises StoreCorrupt, StoreTooNew."""
    size = HEAD.itemsize
    values = [_current(value) for value in values]
    if any(len(value) < size for value in values):
        raise StoreCorrupt("an answer's entry is cut short")
    heads = np.frombuffer(b"".join(value[:size] for value in values), HEAD)
    counts = heads["pairs"].astype(np.int64)
    ends = size + counts * PAIR.itemsize
    cuts = ends[:, None] + np.cumsum(
        np.stack([heads[name].astype(np.int64) for name in _IDS], 1),
        1,
    )
    lengths = np.fromiter(map(len, values), np.int64, len(values))
    if not np.array_equal(lengths, cuts[:, 2]):
        raise StoreCorrupt("an answer's entry does not fit its lengths")
    ends_list = ends.tolist()
    pairs = np.frombuffer(b"".join(v[size:end] for v, end in zip(values, ends_list, strict=True)), PAIR)
    ids: tuple[list[str], list[str], list[str]] = ([], [], [])
    try:
        for value, end, (first, second, third) in zip(values, ends_list, cuts.tolist(), strict=True):
            ids[0].append(str(value[end:first], "utf-8"))
            ids[1].append(str(value[first:second], "utf-8"))
            ids[2].append(str(value[second:third], "utf-8"))
    except UnicodeDecodeError as error:
        raise StoreCorrupt(f"an answer's ids do not decode: {error}") from error
    return _columns(np.array(sequences, np.int64), heads, pairs, ids)


def received_at(value: bytes) -> float:
    """When one encoded entry arrived, in epoch seconds. Raises StoreCorrupt, StoreTooNew."""
    return float(_RECEIVED_AT.unpack_from(_whole_head(value), _RECEIVED_AT_OFFSET)[0])


def given_on(value: bytes) -> tuple[float, int]:
    """When one encoded entry's answer was given, in epoch seconds and as a local day. Raises as `received_at`."""
    value = _whole_head(value)
    day = int(_LOCAL_DAY.unpack_from(value, _LOCAL_DAY_OFFSET)[0])
    return float(_ANSWERED_AT.unpack_from(value, _ANSWERED_AT_OFFSET)[0]), day


def empty_log() -> AnswerLog:
    """No answers."""
    return decode_answers([], [])


def _columns(sequence: I8, heads: Any, pairs: Any, ids: tuple[list[str], list[str], list[str]]) -> AnswerLog:
    offsets = np.zeros(len(heads) + 1, np.int32)
    np.cumsum(heads["pairs"], out=offsets[1:])
    columns: dict[str, Any] = {
        name: np.ascontiguousarray(heads[name]) for name in (*_BATCH_HEADS, *_OWN_HEADS)
    }
    columns |= {name: np.ascontiguousarray(pairs[name]) for name in (*_BATCH_PAIRS, *_OWN_PAIRS)}
    facts = {name: columns.pop(name) for name in (*_BATCH_HEADS, *_BATCH_PAIRS)}
    columns |= dict(zip(_IDS, ids, strict=True))
    return AnswerLog(batch=AnswerBatch(offsets=offsets, **facts), sequence=sequence, **columns)


def _whole_head(value: bytes) -> bytes:
    value = _current(value)
    if len(value) < HEAD.itemsize:
        raise StoreCorrupt("an answer's entry is cut short")
    return value


def _current(value: bytes) -> bytes:
    """The entry, upgraded when it is of an older version."""
    return value if value[:1] == _CURRENT else _ENTRY.seal(_ENTRY.open(value))


def _pairs_of(offsets: I4, order: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp], I4]:
    """Where the pairs of the answers at `order` are, and the offsets they then have."""
    counts = np.diff(offsets)[order]
    new = np.zeros(len(order) + 1, np.int32)
    np.cumsum(counts, out=new[1:])
    shift = np.repeat(offsets[:-1][order] - new[:-1], counts)
    return (np.arange(int(new[-1])) + shift).astype(np.intp), new


def _take_batch(
    batch: AnswerBatch, order: npt.NDArray[np.intp], pairs: npt.NDArray[np.intp], offsets: I4
) -> AnswerBatch:
    heads = {name: getattr(batch, name)[order] for name in _BATCH_HEADS}
    return AnswerBatch(
        offsets=offsets, **heads, **{name: getattr(batch, name)[pairs] for name in _BATCH_PAIRS}
    )

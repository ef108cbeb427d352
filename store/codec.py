"""Values as bytes: a version in front of each, older versions upgraded when read. Knows nothing of keys or tables.

A value is one version byte and a payload. Reading walks older payloads through the kind's upgrades, one
version at a time; a newer version is refused, and bytes that do not decode raise StoreCorrupt. Records that
hold names are MessagePack maps: a field added with a default needs no new version. Learner states are raw
arrays under a fingerprint of their layout: since a state can always be rebuilt from the answer log, one of
another layout is simply StateOutdated.
"""

import hashlib
import struct
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, Generic, TypeVar

import msgspec
import numpy as np

from engine.learner import LearnerState
from engine.learner.crowd import Crowd
from engine.learner.state import RING
from engine.types import F8, Concept, LearnerProfile, Question
from store.api import StoreCorrupt, StoreTooNew
from store.records import CatalogCounts, FeedbackEvent, RememberedReply, Session, SlateRecord

T = TypeVar("T")
Upgrade = Callable[[bytes], bytes]

STATE_RULES: Final = 2
"""Raise it when the same answers would lead to other state; stored states are then rebuilt from the log."""

DIGEST_BYTES: Final = 16


def digest(*texts: str) -> bytes:
    """16 bytes that stand for texts of any length in a key; each text is delimited by its length."""
    encoded = [text.encode() for text in texts]
    delimited = b"".join([len(text).to_bytes(4, "big") + text for text in encoded])
    return hashlib.blake2b(delimited, digest_size=DIGEST_BYTES).digest()


def digests(texts: Sequence[str]) -> list[bytes]:
    """What `digest` gives for each of many texts."""
    blake2b = hashlib.blake2b
    return [
        blake2b(len(text).to_bytes(4, "big") + text, digest_size=DIGEST_BYTES).digest()
        for text in [text.encode() for text in texts]
    ]


class Versioned:
    """The version byte of one kind of value, and how older payloads become current ones."""

    __slots__ = ("_head", "_kind", "_upgrades", "version")

    def __init__(self, kind: str, version: int, upgrades: Mapping[int, Upgrade] | None = None) -> None:
        """`upgrades[v]` turns a payload of version v into one of v + 1; one for each version before `version`."""
        self._kind = kind
        self._upgrades = dict(upgrades or {})
        self.version = version
        self._head = bytes((version,))
        if sorted(self._upgrades) != list(range(1, version)):
            raise ValueError(f"{kind} needs an upgrade from each version before {version}")

    def seal(self, payload: bytes) -> bytes:
        """The value to store."""
        return self._head + payload

    def open(self, value: bytes) -> bytes:
        """The payload at the current version. Raises StoreCorrupt, StoreTooNew."""
        version = value[0] if value else 0
        payload = value[1:]
        if version == self.version:
            return payload
        if version > self.version:
            raise StoreTooNew(
                f"{self._kind} of version {version}: this Genie knows versions up to {self.version}"
            )
        try:
            for step in range(version, self.version):
                payload = self._upgrades[step](payload)
        except Exception as error:
            raise StoreCorrupt(f"{self._kind} of version {version} cannot be upgraded: {error!r}") from error
        return payload


class RecordCodec(Generic[T]):
    """A dataclass as a versioned MessagePack map."""

    def __init__(
        self, kind: type[T], version: int = 1, upgrades: Mapping[int, Upgrade] | None = None
    ) -> None:
        """Encode and decode `kind`."""
        self._name = kind.__name__
        self._versioned = Versioned(self._name, version, upgrades)
        self._encoder = msgspec.msgpack.Encoder()
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(kind)

    def encode(self, record: T) -> bytes:
        """The value to store."""
        return self._versioned.seal(self._encoder.encode(record))

    def seal(self, payload: bytes) -> bytes:
        """The value to store, of a MessagePack map at the current version."""
        return self._versioned.seal(payload)

    def payload(self, value: bytes) -> bytes:
        """The MessagePack map, at the current version. Raises StoreCorrupt, StoreTooNew."""
        return self._versioned.open(value)

    def decode(self, value: bytes) -> T:
        """The record. Raises StoreCorrupt, StoreTooNew."""
        payload = self._versioned.open(value)
        try:
            return self._decoder.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StoreCorrupt(f"{self._name} does not decode: {error}") from error


CONCEPT: Final = RecordCodec(Concept)
QUESTION: Final = RecordCodec(Question)
PROFILE: Final = RecordCodec(LearnerProfile)
SESSION: Final = RecordCodec(Session)
FEEDBACK: Final = RecordCodec(FeedbackEvent)
CATALOG_COUNTS: Final = RecordCodec(CatalogCounts)
SLATE: Final = RecordCodec(SlateRecord)
REPLY: Final = RecordCodec(RememberedReply)


class StateOutdated(StoreCorrupt):
    """A state of another layout or other rules than this Genie's: to be rebuilt from the answer log."""


_STATE_VERSION: Final = 1
_STATE_HEAD: Final = struct.Struct("<BBHIII")
"""Version, unused, rules, layout fingerprint, concept records, recent records: 16 bytes, so the arrays stay aligned."""


def _layout_fingerprint(*layouts: "np.dtype[Any]") -> int:
    described = repr([(layout.descr, layout.itemsize) for layout in layouts])
    return int.from_bytes(hashlib.blake2b(described.encode(), digest_size=4).digest(), "little")


_LAYOUT: Final = _layout_fingerprint(LearnerState.HEADER, LearnerState.CONCEPT, LearnerState.RECENT)


def encode_state(state: LearnerState) -> bytes:
    """A learner's state as bytes: head, header, concept records, recent records."""
    concepts, recent = len(state.concepts), len(state.recent)
    head = _STATE_HEAD.pack(_STATE_VERSION, 0, STATE_RULES, _LAYOUT, concepts, recent)
    return b"".join((head, state.header.tobytes(), state.concepts.tobytes(), state.recent.tobytes()))


def decode_state(value: bytes) -> LearnerState:
    """The state; its arrays are views of one private copy. Raises StateOutdated, StoreCorrupt, StoreTooNew."""
    if len(value) < _STATE_HEAD.size:
        raise StoreCorrupt(f"learner state of {len(value)} bytes is cut short")
    version, _, rules, layout, concepts, recent = _STATE_HEAD.unpack_from(value)
    if version > _STATE_VERSION:
        raise StoreTooNew(f"learner state of version {version}: this Genie knows up to {_STATE_VERSION}")
    if (version, rules, layout) != (_STATE_VERSION, STATE_RULES, _LAYOUT):
        raise StateOutdated("learner state of another layout")
    at_concepts = _STATE_HEAD.size + LearnerState.HEADER.itemsize
    at_recent = at_concepts + concepts * LearnerState.CONCEPT.itemsize
    if len(value) != at_recent + recent * LearnerState.RECENT.itemsize:
        raise StoreCorrupt(
            f"learner state of {len(value)} bytes does not fit its counts {concepts}, {recent}"
        )
    own = bytearray(value)  # writable: kernels are compiled once, for the same kind of array that they return
    return LearnerState(
        np.frombuffer(own, LearnerState.HEADER, 1, _STATE_HEAD.size),
        np.frombuffer(own, LearnerState.CONCEPT, concepts, at_concepts),
        np.frombuffer(own, LearnerState.RECENT, recent, at_recent),
    )


def gather_states(values: Sequence[bytes | None]) -> tuple[list[int], Crowd]:
    """The states of learners side by side, nothing stood for by the empty state; (numbers of those taken, states).

    Left out is what `decode_state` would refuse, and a state whose ring of recent questions is of another size.
    """
    taken, counts, parts = [], [], []
    for number, value in enumerate(values):
        own = _EMPTY_STATE if value is None else value
        if len(own) < _STATE_HEAD.size:
            continue
        *layout, concepts, recent = _STATE_HEAD.unpack_from(own)
        if layout != _CURRENT_STATE or recent != RING or len(own) != _EMPTY_SIZE + concepts * _CONCEPT_SIZE:
            continue
        taken.append(number)
        counts.append(concepts)
        parts.append(own)
    starts = np.zeros(len(taken) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    headers = bytearray().join([own[_STATE_HEAD.size : _HEADER_END] for own in parts])
    concepts_of = bytearray().join([own[_HEADER_END:-_RECENT_SIZE] for own in parts])
    recents = bytearray().join([own[-_RECENT_SIZE:] for own in parts])
    return taken, Crowd(
        np.frombuffer(headers, LearnerState.HEADER),
        np.frombuffer(concepts_of, LearnerState.CONCEPT),
        starts,
        np.frombuffer(recents, LearnerState.RECENT),
    )


def scatter_states(crowd: Crowd) -> list[bytes]:
    """Each learner's state as `encode_state` gives it."""
    headers, concepts, recents = crowd.headers.tobytes(), crowd.concepts.tobytes(), crowd.recent.tobytes()
    values = []
    starts = crowd.starts.tolist()
    for number, (start, stop) in enumerate(pairwise(starts)):
        head = _STATE_HEAD.pack(*_CURRENT_STATE, stop - start, RING)
        header = headers[number * _HEADER_SIZE : (number + 1) * _HEADER_SIZE]
        recent = recents[number * _RECENT_SIZE : (number + 1) * _RECENT_SIZE]
        values.append(
            b"".join((head, header, concepts[start * _CONCEPT_SIZE : stop * _CONCEPT_SIZE], recent))
        )
    return values


_CURRENT_STATE: Final = [_STATE_VERSION, 0, STATE_RULES, _LAYOUT]
_HEADER_SIZE: Final = LearnerState.HEADER.itemsize
_HEADER_END: Final = _STATE_HEAD.size + _HEADER_SIZE
_CONCEPT_SIZE: Final = LearnerState.CONCEPT.itemsize
_RECENT_SIZE: Final = RING * LearnerState.RECENT.itemsize
_EMPTY_STATE: Final = encode_state(LearnerState.empty())
_EMPTY_SIZE: Final = len(_EMPTY_STATE)


class _Calendar(msgspec.Struct):
    """Of a profile, what the days of a learner depend on."""

    time_zone: str = "UTC"


_CALENDAR: Final = msgspec.msgpack.Decoder(_Calendar)


def decode_time_zone(value: bytes) -> str:
    """The time zone alone of an encoded profile. Raises StoreCorrupt, StoreTooNew."""
    try:
        return _CALENDAR.decode(PROFILE.payload(value)).time_zone
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StoreCorrupt(f"a profile does not decode: {error}") from error


MEMORY_WEIGHTS: Final = 21
_MEMORY_SET: Final = Versioned("memory set", 1)


def encode_memory_set(weights: F8) -> bytes:
    """A set of FSRS-6 weights, shape (21,)."""
    if weights.shape != (MEMORY_WEIGHTS,):
        raise ValueError(f"a memory set has {MEMORY_WEIGHTS} weights, not shape {weights.shape}")
    return _MEMORY_SET.seal(np.ascontiguousarray(weights, "<f8").tobytes())


def decode_memory_set(value: bytes) -> F8:
    """Shape (21,)."""
    payload = _MEMORY_SET.open(value)
    if len(payload) != MEMORY_WEIGHTS * 8:
        raise StoreCorrupt(f"memory set of {len(payload)} bytes")
    return np.frombuffer(payload, "<f8").astype(np.float64)

"""Slates as the bytes of their messages, names encoded once a catalogue. What they mean is `recommendation`'s.

The same bytes as the generated classes give, field by field in order of number; what is rare, or explained at length,
is left to them.
"""

import struct
from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from engine.reasons import PlainItem, main_reason, plain_items
from engine.slate import ITEM, Slate, SlateReason
from genie.v1 import explanation_pb2
from genie.v1 import recommendation_service_pb2 as pb
from server import convert
from server.services.explanations import Explainer, source_values
from server.services.slates import Kept
from server.tenants import Bundle

SHORTFALLS: Final = {
    SlateReason.FULL: pb.SHORTFALL_REASON_UNSPECIFIED,
    SlateReason.EMPTY_CATALOG: pb.SHORTFALL_REASON_EMPTY_CATALOG,
    SlateReason.ALL_EXCLUDED: pb.SHORTFALL_REASON_EXCLUDED,
    SlateReason.FEW_ELIGIBLE: pb.SHORTFALL_REASON_FEW_ELIGIBLE,
    SlateReason.NOTHING_OPEN: pb.SHORTFALL_REASON_PREREQUISITES_MISSING,
}

MOST_ENCODED = 100_000
"""Questions whose names are kept encoded; past this, all are let go and encoded anew as they come up."""

MOST_ITEMS = 127
"""Of a slate whose ranks take one byte each; a longer one is left to the generated classes."""

_SCORE = struct.Struct("<BBd")
_PREDICTED = _CHANCE = struct.Struct("<Bd")
_DRAWN_BYTES = 1 + _SCORE.size + _CHANCE.size
_REVIEW = b"\x48\x01"
_UNTOLD = -2
_NOT_TOLD = (_UNTOLD,) * MOST_ITEMS
_FIELDS: Mapping[str, Any] = ITEM.fields or {}
_DRAWN: "np.dtype[Any]" = np.dtype(
    {
        "names": ["question", "score", "propensity"],
        "formats": [_FIELDS[name][0] for name in ("question", "score", "propensity")],
        "offsets": [_FIELDS[name][1] for name in ("question", "score", "propensity")],
        "itemsize": ITEM.itemsize,
    }
)
"""An item, seen as what a draw from the learner's pool says of it."""


class Encoded:
    """A reply that is bytes already, to be returned by a service in place of its message."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        """Hold the bytes of a message."""
        self._data = data

    def SerializeToString(self) -> bytes:  # noqa: N802
        """Return the bytes, as a message would."""
        return self._data


def recommend_response(kept: Kept, bundle: Bundle, level: int) -> Encoded:
    """A `RecommendResponse` with a slate, explained at the level."""
    return Encoded(_field(b"\x0a", recommendation_bytes(kept, bundle, level)))


def batch_result(learner_id: str, recommendation: bytes) -> bytes:
    """A field of `BatchRecommendResponse`: the result of a learner who has a slate."""
    return _field(b"\x0a", _field(b"\x0a", learner_id.encode()) + _field(b"\x12", recommendation))


def batch_failure(learner_id: str, error: bytes) -> bytes:
    """A field of `BatchRecommendResponse`: the result of a learner who has an error, a `google.rpc.Status`."""
    name = _field(b"\x0a", learner_id.encode()) if learner_id else b""
    return _field(b"\x0a", name + _field(b"\x1a", error))


def recommendation_bytes(kept: Kept, bundle: Bundle, level: int) -> bytes:
    """The bytes of `slate_message`."""
    record, slate = kept
    # Names are encoded for the catalogue that is served now; a slate of another one has its own.
    brief = level <= explanation_pb2.EXPLANATION_LEVEL_SIMPLE and len(slate.items) <= MOST_ITEMS
    if not brief or slate.catalog_version != bundle.catalog.version:
        return slate_message(kept, bundle, level).SerializeToString()
    told = level > explanation_pb2.EXPLANATION_LEVEL_NONE
    leads = slate.leads if told else _NOT_TOLD
    memo: dict[int, _Constant] = slate.memo
    plain: list[PlainItem] = []
    parts = [_field(b"\x0a", record.recommendation_id.encode()), _field(b"\x12", record.learner_id.encode())]
    for place, (row, score, propensity) in enumerate(slate.items.view(_DRAWN).tolist()):
        if not (score and propensity):
            # A number that is 0 is not written; too rare to be worth more.
            explainer = Explainer(slate, bundle.catalog, record.correlation_id)
            item = _item(explainer, place, record.question_ids[place], bundle, level)
            parts.append(_field(b"\x1a", item.SerializeToString()))
            continue
        constant = memo.get(row)
        if constant is None or constant[0] != leads[place]:
            plain = plain or plain_items(slate.items)
            constant = memo[row] = _constant(slate, plain[place], leads[place], bundle)
        _, head, middle, end = constant
        parts += (
            head,
            _SCORE.pack(place + 1, 0x21, score),
            middle,
            _CHANCE.pack(0x41, propensity),
            end,
        )
    parts.append(_rest(kept).SerializeToString())
    return b"".join(parts)


_Constant = tuple[int, bytes, bytes, bytes]
"""What is the same of an item whenever it is drawn for a learner as they are now: the term that leads, as in
`Slate.leads`, or `_UNTOLD`; then the bytes before rank and score, those between them and the propensity, the rest."""


def _constant(slate: Slate, item: PlainItem, lead: int, bundle: Bundle) -> _Constant:
    first, last = bundle.encoded.get(item.question) or _encode_names(bundle, item.question)
    middle = _PREDICTED.pack(0x29, item.predicted) if item.predicted else b""
    if lead != _UNTOLD:
        middle += _field(b"\x32", main_reason(slate, item, lead, bundle.catalog.titles).encode())
    middle += _SOURCES[item.sources]
    end = _REVIEW + last if item.attempts else last
    return lead, _opened(_DRAWN_BYTES + len(middle) + len(end), first), middle, end


def _opened(others: int, first: bytes) -> bytes:
    """How an item begins whose first field, the names, is followed by so many bytes, its rank to begin with."""
    size = others + len(first)
    return b"\x1a" + (_LENGTHS[size] if size < _SHORT else _varint(size)) + first + b"\x18"


def slate_message(kept: Kept, bundle: Bundle, level: int) -> pb.Recommendation:
    """A slate as a message, explained at the level."""
    record, slate = kept
    explainer = Explainer(slate, bundle.catalog, record.correlation_id)
    message = _rest(kept)
    message.recommendation_id = record.recommendation_id
    message.learner_id = record.learner_id
    message.items.extend(
        _item(explainer, place, record.question_ids[place], bundle, level)
        for place in range(len(slate.items))
    )
    return message


def _rest(kept: Kept) -> pb.Recommendation:
    """The message without its ids and items."""
    record, slate = kept
    return pb.Recommendation(
        policy=slate.policy,
        model_version=slate.model_version,
        degraded=kept.degraded != pb.DEGRADED_REASON_UNSPECIFIED,
        degraded_reason=kept.degraded,
        shortfall_reason=SHORTFALLS[slate.reason],
        create_time=convert.timestamp(record.created_at),
        expire_time=convert.timestamp(record.expires_at),
        reflected_answers_count=slate.answers,
        correlation_id=record.correlation_id,
    )


def _item(
    explainer: Explainer, place: int, question_id: str, bundle: Bundle, level: int
) -> pb.RecommendedItem:
    slate = explainer.slate
    message = pb.RecommendedItem(
        question_id=question_id,
        concept_ids=_concept_ids(bundle, slate.column("question")[place]),
        rank=place + 1,
        score=slate.column("score")[place],
        predicted_success=slate.column("predicted")[place],
        sources=source_values(slate.column("sources")[place]),
        propensity=slate.column("propensity")[place],
        review=slate.column("attempts")[place] > 0,
        expected_duration=convert.known_duration(slate.column("seconds")[place]),
    )
    if level > explanation_pb2.EXPLANATION_LEVEL_NONE:
        message.main_reason = explainer.main_reason(place)
    if level > explanation_pb2.EXPLANATION_LEVEL_SIMPLE:
        message.explanation.CopyFrom(explainer.explanation(place, level))
        message.explanation.question_id = question_id
    return message


def _concept_ids(bundle: Bundle, row: int) -> list[str]:
    own = bundle.question_concepts
    if row + 1 >= len(own.offsets):
        return []
    rows = own.concepts[own.offsets[row] : own.offsets[row + 1]].tolist()
    return [name for name in map(bundle.concept_id, rows) if name]


def _encode_names(bundle: Bundle, row: int) -> tuple[bytes, bytes]:
    """What an item of this question begins and ends with, whoever it is for; remembered by the bundle."""
    if len(bundle.encoded) >= MOST_ENCODED:
        bundle.encoded.clear()
    first = pb.RecommendedItem(
        question_id=bundle.catalog.question_ids[row], concept_ids=_concept_ids(bundle, row)
    )
    seconds = float(bundle.serving.questions.seconds[row])
    last = pb.RecommendedItem(expected_duration=convert.known_duration(seconds))
    known = bundle.encoded[row] = first.SerializeToString(), last.SerializeToString()
    return known


def _varint(number: int) -> bytes:
    """A length as protobuf writes it: seven bits a byte, the lowest first."""
    data = bytearray()
    while number > 127:
        data.append(number & 127 | 128)
        number >>= 7
    data.append(number)
    return bytes(data)


_SHORT: Final = 4_096
_LENGTHS: Final = tuple(map(_varint, range(_SHORT)))


def _field(tag: bytes, data: bytes) -> bytes:
    """A field that holds bytes: its tag, their length, they themselves."""
    size = len(data)
    return tag + (_LENGTHS[size] if size < _SHORT else _varint(size)) + data


_SOURCES: Final = tuple(
    pb.RecommendedItem(sources=source_values(mask)).SerializeToString()
    for mask in range(1 << len(source_values(-1)))
)
"""The field of an item's sources, by their bit mask."""

"""Values and bytes: what goes in comes out, older versions are upgraded, damage is named and never crashes."""

import contextlib
import dataclasses
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.learner import DEFAULT_WEIGHTS, LearnerModel, LearnerState, absorb
from engine.types import Concept, LearnerGoal, LearnerProfile, Prerequisite, Question
from store import answer_log, codec
from store.answer_log import AnswerLog, decode_answers, encode_answers, join_logs
from store.answers import record_answers
from store.api import Partition, StoreCorrupt, StoreError, StoreTooNew, Table
from store.learners import read_answers
from store.memory_store import MemoryStore
from store.records import CatalogCounts, FeedbackEvent, RememberedReply, Session, SlateRecord
from tests.store.answers_world import made_answers

MODEL = LearnerModel.priors()

RECORDS = [
    (
        codec.CONCEPT,
        Concept(
            "fractions",
            3,
            "Fractions",
            prerequisites=(Prerequisite("division", False, 0.4), Prerequisite("count")),
            tags=("a", "b"),
        ),
    ),
    (codec.QUESTION, Question("q-1", 9, (3, 4), "½ + ½?", 0.25, embedding=(0.5, -1.0), tags=("t",))),
    (codec.QUESTION, Question("q-2", 10, (0,))),
    (
        codec.PROFILE,
        LearnerProfile("ann", "Ann 学", "Asia/Tokyo", LearnerGoal("x", 20.0, 1e9), {"k": "v"}, 1.5, 2.5),
    ),
    (codec.SESSION, Session("s", 1.0, 2.0, 1, 600.0, 5, b"\x00\xff")),
    (codec.FEEDBACK, FeedbackEvent("e", "r", "q", 2, 1.0, 300, 2.0, 7)),
    (codec.CATALOG_COUNTS, CatalogCounts(1, 2, 3, 4, 5, 6.0)),
    (codec.SLATE, SlateRecord("r", "ann", 1.0, 2.0, b"d", bytes(range(256)), ("q",), "call-1")),
    (codec.REPLY, RememberedReply(b"f", 1.0, b"result")),
]
IDS = [type(record).__name__ for _, record in RECORDS]


@pytest.mark.parametrize(("kind", "record"), RECORDS, ids=IDS)
def test_records_come_back(kind: "codec.RecordCodec[object]", record: object) -> None:
    assert kind.decode(kind.encode(record)) == record


@pytest.mark.parametrize(("kind", "record"), RECORDS, ids=IDS)
def test_damaged_records_are_named(kind: "codec.RecordCodec[object]", record: object) -> None:
    value = kind.encode(record)
    for cut in range(0, len(value) - 1, 3):
        with pytest.raises(StoreCorrupt):
            kind.decode(value[:cut])
    with pytest.raises(StoreTooNew, match="version 9"):
        kind.decode(b"\x09" + value[1:])


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(RECORDS), st.binary(max_size=120))
def test_random_bytes_never_crash_a_record(
    entry: "tuple[codec.RecordCodec[object], object]", noise: bytes
) -> None:
    kind, record = entry
    for value in (noise, b"\x01" + noise, kind.encode(record)[: len(noise)] + noise):
        try:
            kind.decode(value)
        except StoreError:
            continue


@dataclasses.dataclass(frozen=True)
class _Named:
    given_name: str
    family_name: str = ""


def test_older_versions_are_upgraded_step_by_step_when_read() -> None:
    def split_name(payload: bytes) -> bytes:
        return payload.replace(b"\xa4name", b"\xaagiven_name")

    def upper(payload: bytes) -> bytes:
        return payload.replace(b"ann", b"ANN")

    first = codec.RecordCodec(_Named)
    third = codec.RecordCodec(_Named, 3, {1: split_name, 2: upper})
    old = b"\x01\x81\xa4name\xa3ann"
    assert third.decode(old) == _Named("ANN")
    assert third.decode(b"\x02" + split_name(old[1:])) == _Named("ANN")
    assert third.encode(_Named("x"))[0] == 3
    with pytest.raises(StoreTooNew):
        first.decode(third.encode(_Named("x")))
    with pytest.raises(StoreCorrupt, match="cannot be upgraded"):
        codec.RecordCodec(
            _Named, 2, {1: lambda payload: payload[:-9999].index(b"z").to_bytes(1, "big")}
        ).decode(old)
    with pytest.raises(ValueError, match="each version before 3"):
        codec.RecordCodec(_Named, 3, {1: split_name})


def test_a_field_added_with_a_default_needs_no_new_version() -> None:
    @dataclasses.dataclass(frozen=True)
    class Before:
        given_name: str
        dropped: int = 1

    old = codec.RecordCodec(Before).encode(Before("ann"))
    assert codec.RecordCodec(_Named).decode(old) == _Named("ann")


def _state(n: int, seed: int) -> LearnerState:
    answers = made_answers(n, seed=seed)
    return absorb(LearnerState.empty(), answers.batch, MODEL).state


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 60), st.integers(0, 999))
def test_states_come_back_bit_for_bit(n: int, seed: int) -> None:
    state = _state(n, seed)
    value = codec.encode_state(state)
    again = codec.decode_state(value)
    assert codec.encode_state(again) == value
    for name in ("header", "concepts", "recent"):
        np.testing.assert_array_equal(getattr(again, name), getattr(state, name))
        assert getattr(again, name).flags.aligned


def test_a_decoded_state_is_its_own() -> None:
    value = codec.encode_state(_state(5, 1))
    one, other = codec.decode_state(value), codec.decode_state(value)
    one.header["applied"] = 99
    assert other.applied == 5


@pytest.mark.parametrize("size", [0, 1, 15, 16, 100, -1, -50])
def test_a_state_cut_short_is_named(size: int) -> None:
    with pytest.raises(StoreCorrupt):
        codec.decode_state(codec.encode_state(_state(5, 1))[:size])


def test_a_state_of_other_layout_rules_or_version_is_told_apart() -> None:
    value = codec.encode_state(_state(5, 1))
    with pytest.raises(codec.StateOutdated):
        codec.decode_state(value[:2] + b"\xff" + value[3:])
    with pytest.raises(codec.StateOutdated):
        codec.decode_state(value[:4] + b"\x00\x00\x00\x00" + value[8:])
    with pytest.raises(StoreTooNew):
        codec.decode_state(b"\x07" + value[1:])


def _log(n: int, seed: int = 0) -> AnswerLog:
    store, ann = MemoryStore(), Partition("t", "ann")
    store.update(ann, lambda tx: record_answers(tx, "ann", made_answers(n, seed=seed), MODEL))
    with store.read(ann) as reader:
        return read_answers(reader)


def assert_same_log(one: AnswerLog, other: AnswerLog) -> None:
    for name in AnswerLog._fields:
        ours, theirs = getattr(one, name), getattr(other, name)
        if name == "batch":
            for ours_column, theirs_column in zip(ours, theirs, strict=True):
                np.testing.assert_array_equal(ours_column, theirs_column)
                assert ours_column.dtype == theirs_column.dtype
                assert theirs_column.flags.c_contiguous
        else:
            np.testing.assert_array_equal(ours, theirs)


texts = st.text(string.printable + "é学😀", max_size=60)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 12), st.integers(0, 999), st.data())
def test_log_entries_come_back(n: int, seed: int, data: st.DataObject) -> None:
    log = _log(n, seed)
    ids = [data.draw(st.lists(texts, min_size=n, max_size=n)) for _ in range(3)]
    log = log._replace(answer_id=ids[0], session_id=ids[1], recommendation_id=ids[2])
    values = encode_answers(log)
    assert_same_log(log, decode_answers(log.sequence.tolist(), values))
    for i, value in enumerate(values):
        assert_same_log(log.take(np.array([i])), decode_answers([i + 1], [value]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 9), st.integers(0, 9), st.permutations(range(9)))
def test_taking_and_joining_entries(n: int, m: int, order: list[int]) -> None:
    one, other = _log(n, 1), _log(m, 2)
    joined = join_logs(one, other)
    assert_same_log(joined.take(np.arange(n)), one)
    assert_same_log(joined.take(np.arange(n, n + m)), other)
    chosen = [i for i in order if i < n]
    values = encode_answers(one)
    expected = decode_answers([i + 1 for i in chosen], [values[i] for i in chosen])
    assert_same_log(one.take(np.array(chosen, np.intp)), expected)


def test_a_typical_log_entry_is_small() -> None:
    assert sum(map(len, encode_answers(_log(50)))) / 50 < 130


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_log_entry_is_named_or_decodes(at: int, byte: int) -> None:
    value = bytearray(encode_answers(_log(1))[0])
    with pytest.raises(StoreCorrupt):
        decode_answers([1], [bytes(value[: at % len(value)])])
    value[at % len(value)] = byte
    with contextlib.suppress(StoreError):
        assert decode_answers([1], [bytes(value)]).size == 1


def test_log_entries_of_an_older_version_are_upgraded(monkeypatch: pytest.MonkeyPatch) -> None:
    log = _log(3)
    old = encode_answers(log)
    second = codec.Versioned("answer", 2, {1: lambda payload: payload})
    monkeypatch.setattr(answer_log, "_ENTRY", second)
    monkeypatch.setattr(answer_log, "_CURRENT", b"\x02")
    assert_same_log(log, decode_answers([1, 2, 3], [old[0], encode_answers(log)[1], old[2]]))
    monkeypatch.undo()
    with pytest.raises(StoreTooNew):
        decode_answers([1], [second.seal(old[0][1:])])


def test_memory_sets_come_back() -> None:
    weights = np.asarray(DEFAULT_WEIGHTS, np.float64)
    np.testing.assert_array_equal(codec.decode_memory_set(codec.encode_memory_set(weights)), weights)
    with pytest.raises(StoreCorrupt):
        codec.decode_memory_set(b"\x01short")
    with pytest.raises(ValueError, match="21 weights"):
        codec.encode_memory_set(weights[:3])


def test_digests_of_many_texts_are_those_of_each() -> None:
    texts = ["", "a", "answer-1", "é" * 300]
    assert codec.digests(texts) == [codec.digest(text) for text in texts]


def test_digests_tell_texts_apart() -> None:
    assert (
        len({codec.digest("ab", "c"), codec.digest("a", "bc"), codec.digest("abc"), codec.digest("", "abc")})
        == 4
    )
    assert Table.STATE.value == b"\x21"

"""Request checks: every violation at once, by its full path; page tokens that only their own list accepts."""

import math
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st

from genie.v1 import practice_service_pb2
from server.errors import InvalidPageToken, InvalidRequest
from server.validate import MOST_VIOLATIONS, Violations, page_start, page_token

NOW = 1_800_000_000.0


def fields(check: Violations) -> list[str]:
    return [violation.field for violation in check.found]


@pytest.mark.parametrize(
    "value", ["u-42", "a", "x" * 128, "ünï cödé", "학습자", "../../etc/passwd", "'; drop"]
)
def test_ids_that_are_fine(value: str) -> None:
    check = Violations()
    assert check.identifier("learner_id", value) == value
    assert check.check() is check


@pytest.mark.parametrize(
    "value", ["", "x" * 129, "a\nb", "a\x00b", "\u202eabc", "\ud7ff\ue000", "\U0001d518" * 65, "a\u200bb"]
)
def test_ids_that_are_refused(value: str) -> None:
    check = Violations()
    check.identifier("learner_id", value)
    assert fields(check) == ["learner_id"]


def test_an_id_that_may_be_left_out() -> None:
    check = Violations()
    check.identifier("session_id", "", required=False)
    assert not check.found
    check.identifier("session_id", "")
    assert [found.field for found in check.found] == ["session_id"]


def test_paths_are_full_and_all_violations_come_together() -> None:
    check = Violations()
    check.whole("limit", 0, least=1, most=100)
    answer = check.item("answers", 3)
    answer.identifier("learner_id", "")
    answer.part("duration").whole("seconds", -1, least=0, most=9)
    check.part("goal").identifiers("concept_ids", ["a", "a", "a"], most=2)
    with pytest.raises(InvalidRequest) as caught:
        check.check()
    assert [violation.field for violation in caught.value.violations()] == [
        "limit",
        "answers[3].learner_id",
        "answers[3].duration.seconds",
        "goal.concept_ids",
        "goal.concept_ids[1]",
    ]


@pytest.mark.parametrize("kind", ["identifiers", "texts"])
def test_of_a_list_that_is_too_long_only_the_first_are_looked_at(kind: str) -> None:
    looked: list[int] = []

    class Entries(list[str]):
        def __getitem__(self, index: Any) -> Any:
            looked.append(index.stop)
            return super().__getitem__(index)

        def __iter__(self) -> Any:
            raise AssertionError("all of them would be looked at")

    check = Violations()
    values = Entries([""] * 1_000)
    if kind == "identifiers":
        first = check.identifiers("ids", values, most=2)
    else:
        first = check.texts("ids", values, most=2, most_characters=5)
    assert (first, looked) == (["", ""], [2])
    assert fields(check)[0] == "ids"
    assert max(len(check.found), check.unnamed) <= 4


def test_violations_are_bounded_and_the_rest_is_counted() -> None:
    check = Violations()
    for index in range(MOST_VIOLATIONS + 50):
        check.item("answers", index).identifier("answer_id", "")
    with pytest.raises(InvalidRequest) as caught:
        check.check()
    assert len(caught.value.violations()) == MOST_VIOLATIONS
    assert caught.value.facts["violations_count"] == str(MOST_VIOLATIONS + 50)


def test_texts() -> None:
    check = Violations()
    check.text("text", "two\nlines\tand ümlauts", most=50)
    check.text("empty", "", most=5)
    check.check()
    check.text("long", "x" * 6, most=5)
    check.text("control", "a\x1b[31m", most=50)
    check.text("needed", "", most=5, required=True)
    check.texts("tags", ["ok", "", "y" * 9], most=2, most_characters=8)
    assert fields(check) == ["long", "control", "needed", "tags", "tags[1]"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -0.1, 1.1])
def test_numbers_are_finite_and_in_range(value: float) -> None:
    check = Violations()
    check.number("difficulty", value, least=0.0, most=1.0)
    assert fields(check) == ["difficulty"]


def test_embeddings() -> None:
    check = Violations()
    assert check.embedding("none", [], least=8, most=16) == ()
    assert check.embedding("good", [1.0] * 8, least=8, most=16) == (1.0,) * 8
    check.check()
    check.embedding("short", [1.0], least=8, most=16)
    check.embedding("nan", [math.nan] * 8, least=8, most=16)
    check.embedding("zero", [0.0] * 8, least=8, most=16)
    assert fields(check) == ["short", "nan", "zero"]


def test_durations() -> None:
    check = Violations()
    assert check.duration("d", Duration(seconds=1, nanos=500_000_000), most_seconds=60) == 1.5
    check.check()
    check.duration("long", Duration(seconds=61), most_seconds=60)
    check.duration("negative", Duration(seconds=-1), most_seconds=60)
    check.duration("mixed", Duration(seconds=1, nanos=-5), most_seconds=60)
    check.duration("nanos", Duration(nanos=2_000_000_000), most_seconds=60)
    assert fields(check) == ["long", "negative", "mixed", "nanos"]


def test_timestamps() -> None:
    check = Violations()
    assert check.timestamp("t", Timestamp(seconds=int(NOW) + 86_400), now=NOW) == NOW + 86_400
    check.check()
    check.timestamp("future", Timestamp(seconds=int(NOW) + 86_401), now=NOW)
    check.timestamp("past", Timestamp(seconds=-1), now=NOW)
    check.timestamp("absurd", Timestamp(seconds=2**62), now=NOW)
    check.timestamp("nanos", Timestamp(seconds=5, nanos=-1), now=NOW)
    assert fields(check) == ["future", "past", "absurd", "nanos"]


@pytest.mark.parametrize(
    "zone", ["../../etc/passwd", "Mars/Olympus", "europe/berlin", "a\x00b", "/etc/localtime"]
)
def test_time_zones(zone: str) -> None:
    check = Violations()
    check.time_zone("time_zone", "Europe/Berlin")
    check.time_zone("time_zone", "UTC")
    check.time_zone("time_zone", "")
    check.check()
    check.time_zone("time_zone", zone)
    assert fields(check) == ["time_zone"]


def test_enums() -> None:
    kind = practice_service_pb2.AnswerStatus
    check = Violations()
    check.enum("status", 0, kind)
    check.enum("status", max(kind.values()), kind)
    check.check()
    check.enum("unknown", 4711, kind)
    check.enum("needed", 0, kind, required=True)
    assert fields(check) == ["unknown", "needed"]


def test_page_sizes() -> None:
    check = Violations()
    assert check.page_size("page_size", 0, default=50, most=1000) == 50
    assert check.page_size("page_size", 7, default=50, most=1000) == 7
    assert check.page_size("page_size", 10**9, default=50, most=1000) == 1000
    check.check()
    check.page_size("page_size", -1, default=50, most=1000)
    assert fields(check) == ["page_size"]


@settings(max_examples=50)
@given(
    last=st.text(min_size=1, max_size=128).filter(lambda text: text.isprintable()), area=st.text(max_size=9)
)
def test_a_page_token_comes_back_as_it_went(last: str, area: str) -> None:
    assert page_start(page_token(last, "ListConcepts", area), "ListConcepts", area) == last


@settings(max_examples=100)
@given(token=st.text(min_size=1, max_size=60))
def test_any_other_text_is_no_page_token(token: str) -> None:
    with pytest.raises(InvalidPageToken):
        page_start(token, "ListConcepts")


def test_a_page_token_belongs_to_its_list_and_filters() -> None:
    token = page_token("add", "ListConcepts", "algebra")
    assert page_start("", "ListConcepts") == ""
    for other in [("ListConcepts", "geometry"), ("ListQuestions", "algebra"), ("ListConcepts",)]:
        with pytest.raises(InvalidPageToken):
            page_start(token, *other)
    with pytest.raises(InvalidPageToken):
        page_start("A" * 5000, "ListConcepts")

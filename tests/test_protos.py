"""The wire API holds what it promises: stubs in sync, every method on a REST path, every field and reason told."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest
from google.api import annotations_pb2, field_behavior_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor, ServiceDescriptor

from genie.v1 import (
    analytics_service_pb2,
    catalog_service_pb2,
    error_reason_pb2,
    learner_service_pb2,
    practice_service_pb2,
    recommendation_service_pb2,
)
from server.errors import GenieError

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "protos/genie/v1").glob("*.proto"))
SERVICES: list[ServiceDescriptor] = [
    catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"],
    learner_service_pb2.DESCRIPTOR.services_by_name["LearnerService"],
    practice_service_pb2.DESCRIPTOR.services_by_name["PracticeService"],
    recommendation_service_pb2.DESCRIPTOR.services_by_name["RecommendationService"],
    analytics_service_pb2.DESCRIPTOR.services_by_name["AnalyticsService"],
]
METHODS: list[MethodDescriptor] = [method for service in SERVICES for method in service.methods]
REASONS = [name for name in error_reason_pb2.ErrorReason.keys() if name != "ERROR_REASON_UNSPECIFIED"]  # noqa: SIM118

PROMISED_PATHS = {
    "Recommend": ("post", "/api/v1/recommendations/generate"),
    "ListActiveRecommendations": ("get", "/api/v1/recommendations/active/{learner_id}"),
    "RecordFeedback": ("post", "/api/v1/recommendations/feedback"),
    "ExplainRecommendation": ("get", "/api/v1/recommendations/explanation/{recommendation_id}"),
    "CreateLearner": ("post", "/api/v1/users"),
    "GetLearnerStats": ("get", "/api/v1/users/{learner_id}/stats"),
    "GetLearnerProgress": ("get", "/api/v1/users/{learner_id}/progress"),
    "GetLearningProfile": ("get", "/api/v1/users/{learner_id}/learning-profile"),
}
"""Paths of the REST interface that Genie stands in for; google.api.http allows no slash at the end of one."""

PROMISED_METHODS = {
    "CatalogService": (
        "UpsertConcepts GetConcept ListConcepts DeleteConcepts UpsertQuestions GetQuestion ListQuestions"
        " DeleteQuestions ImportCatalog GetConceptGraph"
    ),
    "LearnerService": (
        "CreateLearner GetLearner UpdateLearner DeleteLearner ListLearners ExportLearner GetLearnerStats"
        " GetLearnerProgress ListMilestones GetLearningProfile GetMastery SetGoal PlanPractice"
    ),
    "PracticeService": "StartSession EndSession RecordAnswers StreamAnswers",
    "RecommendationService": (
        "Recommend BatchRecommend ListActiveRecommendations RecordFeedback ExplainRecommendation"
    ),
    "AnalyticsService": "GetSystemMetrics WatchSystemMetrics GetDailyReport GetWeeklySummary",
}

HARMLESS_TO_REPEAT = {
    "DeleteLearner": "an erased learner stays erased",
    "ImportCatalog": "by concept and question id",
    "RecordAnswers": "by answer id",
    "RecordFeedback": "by event id",
    "StartSession": "by session id",
    "StreamAnswers": "by answer id",
}
"""Mutations that need no request id, and by what a repeat is known."""


def http_rule(method: MethodDescriptor) -> tuple[str, str, str]:
    """Verb, path and body of the method's google.api.http annotation."""
    rule = method.GetOptions().Extensions[annotations_pb2.http]
    verb = rule.WhichOneof("pattern") or ""
    return verb, getattr(rule, verb, ""), rule.body


def messages_below(message: Descriptor, seen: set[str]) -> Iterator[Descriptor]:
    """The message and every message of genie.v1 that it holds, map entries apart."""
    if message.full_name in seen or not message.full_name.startswith("genie.v1."):
        return
    seen.add(message.full_name)
    if not message.GetOptions().map_entry:
        yield message
    for field in message.fields:
        if field.message_type is not None:
            yield from messages_below(field.message_type, seen)


def request_fields() -> list[FieldDescriptor]:
    seen: set[str] = set()
    return [
        field
        for method in METHODS
        for message in messages_below(method.input_type, seen)
        for field in message.fields
    ]


def source_with(text: str) -> str:
    found = [path.read_text() for path in SOURCES if text in path.read_text()]
    assert len(found) == 1, f"{text!r} is in {len(found)} files"
    return found[0]


def comment_above(line_start: str) -> str:
    """The comment right above the line that starts so, as one text with its lines kept apart."""
    lines = source_with(line_start).splitlines()
    end = next(i for i, line in enumerate(lines) if line.strip().startswith(line_start))
    start = end
    while lines[start - 1].strip().startswith("//"):
        start -= 1
    return "\n".join(line.strip().removeprefix("//").strip() for line in lines[start:end])


def test_committed_stubs_are_what_the_sources_give() -> None:
    check = subprocess.run(
        [sys.executable, "protos/generate.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stderr


@pytest.mark.parametrize("service", SERVICES, ids=lambda service: service.name)
def test_service_has_the_promised_methods_and_no_others(service: ServiceDescriptor) -> None:
    assert [method.name for method in service.methods] == PROMISED_METHODS[service.name].split()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_method_has_a_rest_path_whose_variables_are_its_fields(method: MethodDescriptor) -> None:
    verb, path, body = http_rule(method)
    assert path.startswith("/api/v1/")
    assert not path.endswith("/"), "google.api.http allows no slash at the end"
    assert (body != "") == (verb in {"post", "put", "patch"})
    for variable in re.findall(r"{([^}]+)}", path):
        message: Descriptor | None = method.input_type
        *parents, leaf = variable.split(".")
        for parent in parents:
            message = message.fields_by_name[parent].message_type if message else None
        assert message is not None
        assert leaf in message.fields_by_name


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_query_parameters_can_be_written_in_a_url(method: MethodDescriptor) -> None:
    verb, path, _ = http_rule(method)
    if verb not in {"get", "delete"}:
        return
    for field in method.input_type.fields:
        if f"{{{field.name}}}" not in path:
            # A date is written as date.year=2026&date.month=5&date.day=4, a Duration as window=60s.
            written = {None, "google.type.Date", "google.protobuf.Duration"}
            kind = None if field.message_type is None else field.message_type.full_name
            assert kind in written, f"{field.full_name} is a message or a map"


def test_rest_paths_are_unique() -> None:
    rules = [http_rule(method)[:2] for method in METHODS]
    assert len(set(rules)) == len(rules)


@pytest.mark.parametrize("name", PROMISED_PATHS)
def test_promised_rest_paths_are_kept(name: str) -> None:
    method = next(method for method in METHODS if method.name == name)
    assert http_rule(method)[:2] == PROMISED_PATHS[name]


def test_every_request_field_says_whether_it_is_required() -> None:
    fields = request_fields()
    assert len(fields) > 100
    silent = [f.full_name for f in fields if not f.GetOptions().Extensions[field_behavior_pb2.field_behavior]]
    assert silent == []


def test_ids_of_what_a_request_is_about_are_required() -> None:
    required = field_behavior_pb2.REQUIRED
    for name in ("learner_id", "answer_id", "question_id", "correct"):
        options = practice_service_pb2.Answer.DESCRIPTOR.fields_by_name[name].GetOptions()
        assert list(options.Extensions[field_behavior_pb2.field_behavior]) == [required]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_mutation_can_be_repeated_without_harm(method: MethodDescriptor) -> None:
    verb, _, _ = http_rule(method)
    if verb == "get" or method.name == "PlanPractice":
        return
    by_request_id = "request_id" in method.input_type.fields_by_name
    assert by_request_id != (method.name in HARMLESS_TO_REPEAT)
    assert "Idempotency:" in comment_above(f"rpc {method.name}(")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_method_names_only_reasons_that_exist(method: MethodDescriptor) -> None:
    comment = comment_above(f"rpc {method.name}(")
    errors = comment[comment.index("Errors") :]
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b|\bCANCELLED\b", errors))
    assert named
    assert {f"ERROR_REASON_{name}" for name in named} <= set(REASONS)


def test_lists_are_paged() -> None:
    for method in METHODS:
        if method.name.startswith("List"):
            assert {"page_size", "page_token"} <= set(method.input_type.fields_by_name)
            assert "next_page_token" in method.output_type.fields_by_name


@pytest.mark.parametrize("name", REASONS)
def test_reason_says_when_with_which_code_and_facts_and_shows_an_example(name: str) -> None:
    comment = comment_above(f"{name} = ")
    parts = re.split(r"^(When|Code|Facts|Example): ", comment, flags=re.MULTILINE)
    said = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert list(said) == ["When", "Code", "Facts", "Example"]
    example = json.loads(said["Example"].replace("\n", " "))
    assert example["reason"] == name.removeprefix("ERROR_REASON_")
    assert example["domain"] == "genie.v1"
    assert set(example["metadata"]) == set(re.findall(r"`(\w+)`", said["Facts"]))


def test_errors_of_the_server_are_those_of_the_list_with_their_codes_and_facts() -> None:
    waiting: list[type[GenieError]] = [GenieError]
    seen = 0
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        seen += 1
        comment = comment_above(f"ERROR_REASON_{kind.reason} = ")
        assert f"Code: {kind.code.name}." in comment
        facts = set(re.findall(r"`(\w+)`", comment[comment.index("Facts:") :]))
        assert {name for _, name, _, _ in Formatter().parse(kind.sentence) if name} <= facts
    assert seen > 10


def test_enums_start_unspecified_and_carry_their_name() -> None:
    for path in SOURCES:
        for name, body in re.findall(
            r"^enum (\w+) {\n(.*?)^}", path.read_text(), flags=re.MULTILINE | re.DOTALL
        ):
            values = re.findall(r"^  (\w+) = (\d+);", body, flags=re.MULTILINE)
            prefix = re.sub(r"(?<!^)(?=[A-Z])", "_", name).upper()
            assert values[0] == (f"{prefix}_UNSPECIFIED", "0")
            assert all(value.startswith(f"{prefix}_") for value, _ in values)

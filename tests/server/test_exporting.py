"""Exports: what was imported comes out again, and goes in again, the same."""

import dataclasses
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from engine.types import Concept, LearnerGoal, LearnerProfile
from server.data_files import DataFileError, read_chunks
from server.data_tables import ANSWERS, CONCEPTS, LEARNERS, QUESTIONS, TABLES
from server.exporting import export_learner, export_tables
from store.api import Partition, Store
from store.catalogs import delete_concepts, load_catalog, upsert_concepts
from store.learners import create_profile, read_answers, read_profile
from store.memory_store import MemoryStore
from store.stores import Stores, memory_stores
from tests.server.data_world import NOW, new_import, write_csv, write_world


@pytest.fixture
def stores() -> Iterator[Stores]:
    opened = memory_stores()
    yield opened
    opened.close()


def fill(store: Store, folder: Path) -> None:
    paths = write_world(folder)
    rows = [
        {
            "concept_id": "divide",
            "title": 'Dividing, "fairly"',
            "prerequisite_ids": "multiply",
            "soft_prerequisite_ids": "add",
            "encompassed_weights": "0.25;",
            "description": "two\nlines",
            "tags": "a;b",
        }
    ]
    more = [
        {
            "question_id": "q;1",
            "concept_ids": "divide;add",
            "difficulty": 0.1 + 0.2,
            "embedding": ";".join(map(str, range(8))),
            "expected_seconds": 12.5,
        }
    ]
    new_import(store).files(paths)
    new_import(store).files({CONCEPTS: write_csv(folder / "more.csv", rows)})
    new_import(store).files({QUESTIONS: write_csv(folder / "more_questions.csv", more)})
    answer = {
        "answer_id": "x",
        "learner_id": "ü/1",
        "question_id": "q;1",
        "correct": 1,
        "answered_at": "2024-05-01T10:00:00.123456Z",
        "hints_used": 1,
        "device": "tablet",
        "session_id": "s",
        "recommendation_id": "r",
    }
    new_import(store).files({ANSWERS: write_csv(folder / "more_answers.csv", [answer])})


@pytest.mark.parametrize("extension", ["csv", "csv.gz", "jsonl", "jsonl.gz"])
def test_what_is_exported_can_be_imported_and_is_the_same(
    stores: Stores, tmp_path: Path, extension: str
) -> None:
    first = stores.state
    fill(first, tmp_path / "files")
    paths = {table: tmp_path / f"{table.name}.{extension}" for table in TABLES}
    counts = export_tables(first, "default", paths)
    assert counts == {"concepts": 4, "questions": 13, "learners": 6, "answers": 61}

    second = MemoryStore()
    report = new_import(second).files(paths)
    assert (report.rejected, report.answers_recorded) == (0, 61)
    with first.read(Partition("default")) as a, second.read(Partition("default")) as b:
        old, new = load_catalog(a), load_catalog(b)
    for kind in ("concepts", "questions"):
        one, other = (
            [dataclasses.replace(entry, created_at=0.0, updated_at=0.0) for entry in getattr(records, kind)]
            for records in (old, new)
        )
        assert one == other
    for learner_id in ("u-000", "u-003", "ü/1"):
        with (
            first.read(Partition("default", learner_id)) as a,
            second.read(Partition("default", learner_id)) as b,
        ):
            assert msgspec.to_builtins(read_profile(a)) == msgspec.to_builtins(read_profile(b))
            log, again = read_answers(a), read_answers(b)
        for name in (
            "question",
            "correct",
            "answered_at",
            "grade",
            "duration_ms",
            "hints",
            "local_day",
            "concept",
        ):
            assert getattr(log.batch, name).tolist() == getattr(again.batch, name).tolist(), name
        for name in ("answer_id", "session_id", "recommendation_id"):
            assert getattr(log, name) == getattr(again, name)
        assert log.device.tolist() == again.device.tolist()
    second.close()


def test_exporting_twice_gives_the_same_bytes(stores: Stores, tmp_path: Path) -> None:
    fill(stores.state, tmp_path / "files")
    contents = []
    for name in ("a", "b"):
        path = tmp_path / f"{name}.csv.gz"
        export_tables(stores.state, "default", {ANSWERS: path})
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


def test_an_empty_store_exports_headers_alone(stores: Stores, tmp_path: Path) -> None:
    path = tmp_path / "learners.csv"
    assert export_tables(stores.state, "nobody", {LEARNERS: path}) == {"learners": 0}
    assert list(read_chunks(path, LEARNERS)) == []
    assert path.read_text().startswith("learner_id,display_name")


def test_a_file_name_without_a_format_is_refused(stores: Stores, tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="has no known ending"):
        export_tables(stores.state, "default", {LEARNERS: tmp_path / "learners.txt"})


def test_one_learner_is_exported_whole_as_json(stores: Stores, tmp_path: Path) -> None:
    fill(stores.state, tmp_path / "files")
    record = export_learner(stores, "default", "ü/1")
    assert record is not None
    assert record == msgspec.json.decode(msgspec.json.encode(record))
    assert record["learner"]["learner_id"] == "ü/1"
    (answer,) = record["answers"]
    assert (answer["answer_id"], answer["question_id"], answer["device"]) == ("x", "q;1", "tablet")
    assert [concept["concept_id"] for concept in answer["concepts"]][:2] == ["divide", "add"]
    touched = {concept["concept_id"] for concept in record["state"]["concepts"]}
    assert {"divide", "add", "multiply"} <= touched
    assert record["state"]["totals"]["applied"] == 1
    assert export_learner(stores, "default", "nobody") is None


def test_what_was_deleted_is_not_exported(stores: Stores, tmp_path: Path) -> None:
    concepts = [Concept("kept", 0), Concept("gone", 0)]
    stores.state.update(Partition("default"), lambda tx: upsert_concepts(tx, concepts, now=NOW))
    stores.state.update(Partition("default"), lambda tx: delete_concepts(tx, ["gone"], now=NOW))
    path = tmp_path / "concepts.jsonl"
    assert export_tables(stores.state, "default", {CONCEPTS: path}) == {"concepts": 1}
    assert path.read_text() == '{"concept_id": "kept"}\n'


def test_a_goal_whose_concept_was_deleted_keeps_no_learner_from_moving(
    stores: Stores, tmp_path: Path
) -> None:
    concepts = [Concept("kept", 0), Concept("gone", 0)]
    stores.state.update(Partition("default"), lambda tx: upsert_concepts(tx, concepts, now=NOW))
    due = LearnerGoal("gone", daily_minutes=20.0, due_at=NOW + 86_400.0)
    lost = LearnerProfile(
        "u",
        "Ada",
        time_zone="Europe/Berlin",
        goal=due,
        labels={"class": "7b"},
        created_at=NOW,
        updated_at=NOW,
    )
    held = dataclasses.replace(lost, learner_id="v", goal=dataclasses.replace(due, concept_id="kept"))
    for profile in (lost, held):
        partition = Partition("default", profile.learner_id)
        stores.state.update(partition, partial(create_profile, profile=profile))
    stores.state.update(Partition("default"), lambda tx: delete_concepts(tx, ["gone"], now=NOW))
    paths = {table: tmp_path / f"{table.name}.csv" for table in TABLES}
    export_tables(stores.state, "default", paths)
    record = export_learner(stores, "default", "u")
    assert record is not None
    assert record["learner"]["goal"]["concept_id"] == "gone", "all that is held of one learner stays as it is"

    second = MemoryStore()
    report = new_import(second).files(paths)
    assert (report.learners.created, report.rejected) == (2, 0)
    for told in (dataclasses.replace(lost, goal=dataclasses.replace(due, concept_id="")), held):
        with second.read(Partition("default", told.learner_id)) as reader:
            profile_there = read_profile(reader)
        assert profile_there is not None
        assert dataclasses.replace(profile_there, updated_at=NOW) == told
    second.close()

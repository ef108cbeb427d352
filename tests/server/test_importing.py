"""Imports: what the files say is in the store, once, whatever was stopped, repeated or wrong."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.learner import LearnerModel
from server.data_files import Chunk, DataFileError, chunk_of
from server.data_tables import ANSWERS, CONCEPTS, LEARNERS, QUESTIONS
from server.importing import Import, ImportStopped
from store.answer_log import AnswerLog
from store.api import Partition, Store
from store.catalogs import get_concept, get_question, list_concepts
from store.learners import read_answers, read_profile
from store.memory_store import MemoryStore
from store.replay import replay
from tests.server import data_world
from tests.server.data_world import NOW, ORIGIN, new_import, states, write_csv, write_world


@pytest.fixture
def store() -> Iterator[Store]:
    opened = MemoryStore()
    yield opened
    opened.close()


def log_of(store: Store, learner_id: str) -> AnswerLog:
    with store.read(Partition("default", learner_id)) as reader:
        return read_answers(reader)


def test_files_fill_the_store_and_a_repeat_changes_nothing(store: Store, tmp_path: Path) -> None:
    paths = write_world(tmp_path)
    report = new_import(store).files(paths)
    assert (report.concepts.created, report.questions.created, report.learners.created) == (3, 12, 1)
    assert (report.answers_read, report.answers_recorded, report.answers_known) == (60, 60, 0)
    assert report.rejected == 0
    before = states(store)
    assert sorted(before) == [f"u-{n:03d}" for n in range(5)]
    assert replay(store, "default").differing == 0

    again = new_import(store).files(paths)
    assert (again.concepts.unchanged, again.questions.unchanged, again.learners.unchanged) == (3, 12, 1)
    assert (again.answers_recorded, again.answers_known, again.rejected) == (0, 60, 0)
    assert states(store) == before


def test_facts_are_resolved_as_the_catalogue_says(store: Store, tmp_path: Path) -> None:
    rows = [
        {
            "answer_id": "1",
            "learner_id": "u-000",
            "question_id": "add-0",
            "correct": 1,
            "seconds": 0,
            "duration_ms": 5_000,
        },
        {
            "answer_id": "2",
            "learner_id": "u-000",
            "question_id": "add-0",
            "correct": 0,
            "seconds": 60,
            "duration_ms": "",
        },
    ]
    new_import(store).files(write_world(tmp_path, rows))
    log = log_of(store, "u-000")
    assert log.batch.grade.tolist() == [4, 1]
    assert log.batch.answered_at.tolist() == [ORIGIN, ORIGIN + 60]
    assert log.timed.tolist() == [1, 1]
    # 2023-11-14T22:13:20Z is the 15th in Auckland, the zone of the learner's profile.
    assert log.batch.local_day.tolist() == [int(ORIGIN // 86_400) + 1] * 2
    with store.read(Partition("default")) as reader:
        row = {concept.concept_id: concept.row for concept in list_concepts(reader, limit=9)}
    assert log.batch.concept[: log.batch.offsets[1]].tolist() == [row["add"], row["count"]]
    assert log.batch.weight[0] == 1.0
    assert 0.0 < log.batch.weight[1] < 1.0


def test_answers_without_times_follow_each_other_by_a_minute_in_the_order_of_the_file(
    store: Store, tmp_path: Path
) -> None:
    paths = write_world(tmp_path)
    work = new_import(store)
    work.files({table: path for table, path in paths.items() if table is not ANSWERS})
    rows = data_world.answers()
    mixed = [rows[index] for index in np.random.default_rng(1).permutation(len(rows))]
    path = write_csv(tmp_path / "mixed.csv", mixed)
    work.answers(data_world.chunks(path, ANSWERS, 7))
    for learner in range(5):
        log = log_of(store, f"u-{learner:03d}")
        assert log.batch.answered_at.tolist() == [ORIGIN + 60 * n for n in range(12)]
        expected = [row["answer_id"] for row in mixed if row["learner_id"] == f"u-{learner:03d}"]
        assert list(log.answer_id) == expected
        assert log.timed.tolist() == [0] * 12


def test_a_row_without_a_time_comes_a_minute_after_the_row_before_it(store: Store, tmp_path: Path) -> None:
    rows = [
        {"answer_id": str(n), "learner_id": "u", "question_id": "add-0", "correct": 1, "seconds": seconds}
        for n, seconds in enumerate(["", 500, "", "", 400])
    ]
    paths = write_world(tmp_path, rows)
    new_import(store).files(paths)
    assert (log_of(store, "u").batch.answered_at - ORIGIN).tolist() == [0, 500, 560, 620, 400]
    assert replay(store, "default").differing == 0


@pytest.mark.parametrize("timed", [False, True])
def test_the_size_of_chunks_makes_no_difference(tmp_path: Path, timed: bool) -> None:
    rows = data_world.answers(timed=timed)
    # Mixed between learners, each learner in order: as a log by time would be.
    order = np.argsort(np.tile(np.arange(12), 5), kind="stable")
    paths = write_world(tmp_path, [rows[index] for index in order])
    found = []
    for size in (1_000, 7):
        with_store = MemoryStore()
        work = new_import(with_store)
        work.files({table: path for table, path in paths.items() if table is not ANSWERS})
        work.answers(data_world.chunks(paths[ANSWERS], ANSWERS, size))
        found.append(states(with_store))
        with_store.close()
    assert found[0] == found[1]


def test_an_import_that_was_cut_off_is_finished_by_running_it_again(tmp_path: Path) -> None:
    paths = write_world(tmp_path)
    whole, cut = MemoryStore(), MemoryStore()
    catalogue = {table: path for table, path in paths.items() if table is not ANSWERS}
    for store in (whole, cut):
        new_import(store).files(catalogue)
    parts = data_world.chunks(paths[ANSWERS], ANSWERS, 10)
    new_import(whole).answers(parts)

    def cut_off() -> Iterator[Chunk]:
        yield from parts[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        new_import(cut).answers(cut_off())
    assert len(states(cut)) == 3
    work = new_import(cut)
    work.answers(parts)
    assert (work.report.answers_known, work.report.answers_recorded) == (30, 30)
    assert states(cut) == states(whole)
    assert replay(cut, "default").differing == 0


def test_wrong_rows_stop_the_import_before_their_chunk_is_stored(store: Store, tmp_path: Path) -> None:
    rows = data_world.answers()
    rows[15]["correct"] = "maybe"
    rows[16]["question_id"] = "nowhere"
    paths = write_world(tmp_path, rows)
    new_import(store).files({table: path for table, path in paths.items() if table is not ANSWERS})
    work = new_import(store)
    with pytest.raises(ImportStopped, match=r"answers\.csv: 2 rows are wrong, the first on line 17"):
        work.answers(data_world.chunks(paths[ANSWERS], ANSWERS, 12))
    assert work.report.problems == [
        "answers.csv:17: correct is 'maybe': must be 0 or 1",
        "answers.csv:18: question_id is 'nowhere': must be a question of the catalogue (import questions first)",
    ]
    assert sorted(states(store)) == ["u-000"]


def test_wrong_rows_can_be_passed_over_and_corrected_later(store: Store, tmp_path: Path) -> None:
    rows = data_world.answers()
    rows[15]["correct"] = "maybe"
    paths = write_world(tmp_path, rows)
    rejects = io.StringIO()
    work = Import(
        store, "default", LearnerModel.priors(), now=NOW, origin=ORIGIN, keep_going=True, rejects=rejects
    )
    report = work.files(paths)
    assert (report.answers_recorded, report.rejected) == (59, 1)
    (reject,) = map(json.loads, rejects.getvalue().splitlines())
    assert (reject["_file"], reject["_line"], reject["answer_id"]) == ("answers.csv", "17", "a-1-3")

    corrected = tmp_path / "corrected.jsonl"
    corrected.write_text(json.dumps({**reject, "correct": 1}) + "\n")
    again = new_import(store).files({ANSWERS: corrected})
    assert (again.answers_recorded, again.ignored_columns) == (1, [])
    assert replay(store, "default").differing == 0


def test_an_answer_id_with_other_content_is_told_and_changes_nothing(store: Store, tmp_path: Path) -> None:
    rows = data_world.answers()
    paths = write_world(tmp_path, rows)
    new_import(store).files(paths)
    before = states(store)
    rows[3]["correct"] = 1 - int(str(rows[3]["correct"]))
    report = new_import(store).files({ANSWERS: write_csv(tmp_path / "answers.csv", rows)})
    assert (report.answers_known, report.rejected) == (59, 1)
    told = "answers.csv:5: answer_id is 'a-0-3': was recorded before with other content"
    assert report.problems[0].startswith(told)
    assert states(store) == before


def test_an_answer_that_contradicts_is_rejected_whole_and_can_be_imported_under_another_id(
    store: Store, tmp_path: Path
) -> None:
    """Mixed learners, so that rows are recorded in another order than that of the file."""
    rows = sorted(data_world.answers(timed=True), key=lambda row: str(row["answer_id"])[::-1])
    rows = [{**row, "device": "phone", "session_id": "s"} for row in rows]
    contrary = {**rows[17], "question_id": "multiply-3", "correct": 1 - int(str(rows[17]["correct"]))}
    paths = write_world(tmp_path / "files", [*rows[:30], {**contrary, "device": "tablet"}, *rows[30:]])
    rejects = io.StringIO()
    work = Import(
        store, "default", LearnerModel.priors(), now=NOW, origin=ORIGIN, keep_going=True, rejects=rejects
    )
    report = work.files(paths)
    assert (report.answers_recorded, report.rejected) == (60, 1)
    (reject,) = map(json.loads, rejects.getvalue().splitlines())
    notes = {name: reject.pop(name) for name in list(reject) if name.startswith("_")}
    assert (notes["_file"], notes["_line"]) == ("answers.csv", "32")
    assert reject == {name: str(value) for name, value in contrary.items()} | {"device": "tablet"}

    corrected = tmp_path / "corrected.jsonl"
    corrected.write_text(json.dumps({**reject, **notes, "answer_id": "another"}) + "\n")
    again = new_import(store).files({ANSWERS: corrected})
    assert (again.answers_recorded, again.rejected) == (1, 0)
    assert replay(store, "default").differing == 0


def test_an_answer_that_comes_twice_in_a_file_counts_once(store: Store, tmp_path: Path) -> None:
    rows = data_world.answers(learners=1)
    report = new_import(store).files(write_world(tmp_path, [*rows, rows[0], rows[5]]))
    assert (report.answers_recorded, report.answers_known) == (12, 2)


def test_concepts_that_only_questions_name_are_created(store: Store, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "questions.csv", [{"question_id": "q", "concept_ids": "x;y"}])
    report = new_import(store).files({QUESTIONS: path})
    assert report.concepts_from_questions == 2
    with store.read(Partition("default")) as reader:
        assert get_question(reader, "q") is not None
        assert get_concept(reader, "y") is not None


def test_cycles_are_named_or_on_demand_broken_the_same_way_each_time(store: Store, tmp_path: Path) -> None:
    rows = [
        {"concept_id": "a", "prerequisite_ids": "b"},
        {"concept_id": "b", "prerequisite_ids": "a"},
        {"concept_id": "c", "prerequisite_ids": "c;a"},
    ]
    paths = {CONCEPTS: write_csv(tmp_path / "concepts.csv", rows)}
    with pytest.raises(ImportStopped, match=r"prerequisites form a cycle: a -> b -> a"):
        new_import(store).files(paths)
    with store.read(Partition("default")) as reader:
        assert list_concepts(reader, limit=9) == []
    report = new_import(store, cut_cycles=True).files(paths)
    assert len(report.dropped_edges) == 2
    assert ["c", "c"] in report.dropped_edges
    again = new_import(store, cut_cycles=True).files(paths)
    assert again.dropped_edges == report.dropped_edges
    assert again.concepts.unchanged == 3


def test_a_cycle_with_stored_concepts_is_found(store: Store, tmp_path: Path) -> None:
    new_import(store).files(write_world(tmp_path))
    rows = [{"concept_id": "count", "prerequisite_ids": "multiply"}]
    with pytest.raises(ImportStopped, match="cycle"):
        new_import(store).files({CONCEPTS: write_csv(tmp_path / "concepts.csv", rows)})


def test_a_prerequisite_that_nobody_lists_is_named(store: Store, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "concepts.csv", [{"concept_id": "a", "prerequisite_ids": "typo"}])
    with pytest.raises(ImportStopped, match="concept a names the prerequisite typo"):
        new_import(store).files({CONCEPTS: path})


def test_rows_that_repeat_count_once_and_those_that_contradict_are_told(store: Store) -> None:
    rows = [
        {"concept_id": "a", "title": "A"},
        {"concept_id": "a", "title": "A"},
        {"concept_id": "a", "title": "B"},
    ]
    work = new_import(store, keep_going=True)
    work.concepts([chunk_of(CONCEPTS, rows, name="rows")])
    assert work.report.concepts.created == 1
    assert work.report.problems == ["rows:4: concept_id is 'a': is there twice, with different content"]


def test_embeddings_of_different_lengths_are_refused(store: Store) -> None:
    rows = [
        {"question_id": f"q{size}", "concept_ids": "c", "embedding": ";".join(["1"] * size)}
        for size in (8, 9)
    ]
    with pytest.raises(ImportStopped, match="q9"):
        new_import(store).questions([chunk_of(QUESTIONS, rows, name="rows")])


def test_profiles_are_overwritten_but_keep_when_they_began(store: Store) -> None:
    rows = [{"learner_id": "u", "created_at": "2020-01-01T00:00:00Z"}]
    new_import(store).learners([chunk_of(LEARNERS, rows, name="rows")])
    work = new_import(store)
    work.learners([chunk_of(LEARNERS, [{"learner_id": "u", "display_name": "Ada"}], name="rows")])
    assert work.report.learners.updated == 1
    with store.read(Partition("default", "u")) as reader:
        profile = read_profile(reader)
    assert profile is not None
    assert (profile.display_name, profile.created_at) == ("Ada", 1_577_836_800.0)


def test_a_goal_names_a_concept_of_the_catalogue(store: Store, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"learner_id": "u", "goal_concept_id": "add", "goal_daily_minutes": ""},
        {"learner_id": "v", "goal_concept_id": "nope", "goal_daily_minutes": ""},
        {"learner_id": "w", "goal_concept_id": "", "goal_daily_minutes": 5},
    ]
    paths = {
        CONCEPTS: write_csv(tmp_path / "concepts.csv", data_world.concepts()),
        LEARNERS: write_csv(tmp_path / "learners.csv", rows),
    }
    with pytest.raises(ImportStopped, match=r"learners\.csv: 1 rows are wrong, the first on line 3"):
        new_import(store).files(paths)
    report = new_import(store, keep_going=True).files(paths)
    assert (report.learners.created, report.rejected) == (2, 1)
    assert report.problems == [
        "learners.csv:3: goal_concept_id is 'nope': must be a concept of the catalogue (import concepts first)"
    ]
    with store.read(Partition("default", "v")) as reader:
        assert read_profile(reader) is None


def test_times_made_up_never_reach_into_the_future(store: Store, tmp_path: Path) -> None:
    paths = write_world(tmp_path, data_world.answers(learners=1, each=9))
    work = Import(store, "default", LearnerModel.priors(), now=NOW, origin=NOW + 86_000.0)
    with pytest.raises(ImportStopped, match="choose an earlier origin"):
        work.files(paths)


def test_a_file_cut_short_keeps_what_came_before(store: Store, tmp_path: Path) -> None:
    paths = write_world(tmp_path)
    new_import(store).files({table: path for table, path in paths.items() if table is not ANSWERS})

    def damaged() -> Iterator[Chunk]:
        yield from data_world.chunks(paths[ANSWERS], ANSWERS, 20)[:2]
        raise DataFileError(paths[ANSWERS], "cut short")

    with pytest.raises(DataFileError):
        new_import(store).answers(damaged())
    assert sum(log_of(store, f"u-{n:03d}").size for n in range(5)) == 40


def test_questions_the_model_knows_nothing_of_take_their_rate_from_the_file(
    store: Store, tmp_path: Path
) -> None:
    rows: list[dict[str, object]] = []
    for n in range(40):
        easy = n % 2 == 0
        rows.append(
            {
                "answer_id": str(n),
                "learner_id": f"u{n // 4}",
                "question_id": "add-0" if easy else "add-1",
                "correct": int(easy),
            }
        )
    new_import(store).files(write_world(tmp_path, rows))
    base = log_of(store, "u0").batch.base_logit
    assert base[0] > 1.0
    assert base[1] < -1.0


@pytest.mark.data
def test_a_slice_of_a_real_data_set(store: Store, tmp_path: Path) -> None:
    paths = data_world.write_slice("assist2009", tmp_path, 3_000)
    report = new_import(store).files(paths)
    assert (report.answers_recorded, report.rejected) == (3_000, 0)
    assert replay(store, "default").differing == 0
    assert new_import(store).files(paths).answers_known == 3_000


@pytest.mark.data
def test_a_real_knowledge_map_with_its_cycles(store: Store) -> None:
    path = data_world.data_folder() / "junyi-map" / "concepts.csv.gz"
    with pytest.raises(ImportStopped, match="cycle: "):
        new_import(store).files({CONCEPTS: path})
    report = new_import(store, cut_cycles=True).files({CONCEPTS: path})
    assert report.concepts.created == 835
    assert ["proportions_1", "proportions_1"] in report.dropped_edges
    assert len(report.dropped_edges) == 3

"""Files of the import format: what is fine comes through, what is not is named by file, line and column."""

import csv
import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.data_answers import Answers, answers_of
from server.data_files import (
    MOST_LINE_BYTES,
    Chunk,
    DataFileError,
    Problem,
    chunk_of,
    find_table,
    read_chunks,
    written,
)
from server.data_rows import (
    RowCheck,
    concept_of,
    concept_row,
    epoch_seconds,
    learner_of,
    learner_row,
    question_of,
    question_row,
    time_text,
)
from server.data_tables import ANSWERS, CONCEPTS, LEARNERS, QUESTIONS, TABLES, Value, join_list, split_list

NOW = 1_800_000_000.0
ORIGIN = 1_700_000_000.0
HEADER = "answer_id,learner_id,question_id,correct"


def read(path: Path, content: str | bytes, *, chunk_rows: int = 100) -> list[Chunk]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_chunks(path, ANSWERS, chunk_rows=chunk_rows))


def answers(path: Path, content: str | bytes) -> tuple[Answers, list[Problem]]:
    (chunk,) = read(path, content)
    found, bad = answers_of(chunk, origin=ORIGIN, now=NOW)
    return found, [*(problem for problem, _ in chunk.rejected), *bad.values()]


@pytest.fixture
def csv_path(tmp_path: Path) -> Path:
    return tmp_path / "answers.csv"


def test_a_plain_file_is_read_in_chunks_of_columns(csv_path: Path) -> None:
    chunks = read(csv_path, f"{HEADER}\na1,u,q,1\na2,u,q,0\na3,v,q,1\n", chunk_rows=2)
    assert [chunk.lines for chunk in chunks] == [[2, 3], [4]]
    assert chunks[0].column("correct") == ("1", "0")
    assert chunks[0].column("seconds") is None
    assert chunks[1].row(0) == {"answer_id": "a3", "learner_id": "v", "question_id": "q", "correct": "1"}
    assert chunks[-1].bytes_read == csv_path.stat().st_size


@pytest.mark.parametrize("break_", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("packed", [False, True])
def test_line_breaks_byte_order_marks_and_packing_make_no_difference(
    csv_path: Path, break_: str, mark: bytes, packed: bool
) -> None:
    content = mark + f"{HEADER}\na1,u,q,1\n".replace("\n", break_).encode()
    (chunk,) = read(csv_path, gzip.compress(content) if packed else content)
    assert chunk.row(0) == {"answer_id": "a1", "learner_id": "u", "question_id": "q", "correct": "1"}


def test_quotes_hold_separators_and_line_breaks_and_lines_are_still_counted(csv_path: Path) -> None:
    content = 'answer_id,learner_id,question_id,correct,x\na1,"u,1",q,1,"two\nlines"\n\na2,"u""2",q,maybe,\n'
    found, problems = answers(csv_path, content)
    assert found.learner_id == ["u,1"]
    assert [str(problem) for problem in problems] == ["answers.csv:5: correct is 'maybe': must be 0 or 1"]


def test_json_lines_hold_the_same_columns(tmp_path: Path) -> None:
    found, problems = answers(
        tmp_path / "answers.jsonl",
        '\ufeff{"answer_id":"a1","learner_id":7,"question_id":"q","correct":true,"seconds":1.5,"extra":{}}\n'
        "\n"
        '{"answer_id":"a2","learner_id":"u","question_id":"q","correct":0,"duration_ms":null}\n'
        '["a3"]\n{"answer_id":"a4"\n',
    )
    assert found.learner_id == ("7", "u")
    assert found.correct.tolist() == [1, 0]
    assert found.answered_at[0] == ORIGIN + 1.5
    assert math.isnan(found.answered_at[1])
    assert [(problem.line, problem.column) for problem in problems] == [(4, ""), (5, "")]


@pytest.mark.parametrize(
    ("column", "cell", "rule"),
    [
        ("answer_id", "", "must not be empty"),
        ("learner_id", "x" * 129, "has 129 characters; at most 128"),
        pytest.param("learner_id", "界" * 100, "has 300 bytes in UTF-8; at most 256", id="many bytes"),
        ("question_id", "a\0b", "printable characters only"),
        ("question_id", "a\tb", "printable characters only"),
        ("correct", "2", "must be 0 or 1"),
        ("correct", "", "must be 0 or 1"),
        ("correct", "NaN", "must be 0 or 1"),
        ("seconds", "NaN", "must be a number of seconds"),
        ("seconds", "inf", "must be a number of seconds"),
        ("seconds", "1_000", "must be a number of seconds"),
        ("seconds", "٣", "must be a number of seconds"),
        ("seconds", "1e12", "must be a number of seconds"),
        ("seconds", "-1e12", "must be a number of seconds"),
        ("answered_at", "yesterday", "must be an RFC 3339 time"),
        ("answered_at", "2026-01-31T09:30:00", "must be an RFC 3339 time with its offset"),
        ("answered_at", "1969-12-31T00:00:00Z", "must be a time from 1970 to now"),
        ("answered_at", "2999-01-01T00:00:00Z", "must be a time from 1970 to now"),
        ("duration_ms", "-1", "must be a number from 0 to 8.64e+07"),
        ("duration_ms", "nan", "must be a number from 0"),
        ("hints_used", "256", "must be a number from 0 to 255"),
        ("session_id", "s\x07", "printable characters only"),
    ],
)
def test_wrong_cells_are_named_and_the_other_rows_come_through(
    csv_path: Path, column: str, cell: str, rule: str
) -> None:
    columns = ANSWERS.columns
    fine = {"answer_id": "a", "learner_id": "u", "question_id": "q", "correct": "1"}
    with csv_path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows([fine, {**fine, column: cell}, fine])
    (chunk,) = read_chunks(csv_path, ANSWERS)
    found, bad = answers_of(chunk, origin=ORIGIN, now=NOW)
    assert found.lines == [2, 4]
    assert list(bad) == [1]
    problem = bad[1]
    assert (problem.file, problem.line, problem.column) == ("answers.csv", 3, column)
    assert rule in problem.rule


def test_cells_are_read_to_their_types(csv_path: Path) -> None:
    found, problems = answers(
        csv_path,
        f"{HEADER},seconds,answered_at,duration_ms,hints_used,session_id\n"
        "a1,u,q,1,10,2023-11-14T23:13:20+01:00,1500.6,2,s1\n"
        "a2,u,q,0,10,,,,\n"
        "a3,u,q,0,,,0,,\n",
    )
    assert problems == []
    assert found.answered_at[:2].tolist() == [1_700_000_000.0, ORIGIN + 10]
    assert math.isnan(found.answered_at[2])
    assert found.duration_ms.tolist() == [1501, 0, 0]
    assert found.hints.tolist() == [2, 0, 0]
    assert list(found.session_id) == ["s1", "", ""]
    assert found.correct.dtype == np.uint8


@pytest.mark.parametrize("extension", ["csv", "jsonl"])
def test_lines_are_counted_and_kept_whole_over_many_blocks(tmp_path: Path, extension: str) -> None:
    path = tmp_path / f"answers.{extension}"
    rows: list[dict[str, Value]] = [
        {"answer_id": f"a{n}", "learner_id": "é" * 90, "question_id": "q", "correct": 1} for n in range(9_000)
    ]
    with written(path, tuple(rows[0])) as writer:
        for row in rows:
            writer.write(row)
    found = list(read_chunks(path, ANSWERS, chunk_rows=2_500))
    assert [name for chunk in found for name in chunk.column("answer_id") or ()] == [
        row["answer_id"] for row in rows
    ]
    first = 2 if extension == "csv" else 1
    assert [line for chunk in found for line in chunk.lines] == list(range(first, first + len(rows)))


def test_text_that_is_no_utf8_is_a_problem_of_its_row(csv_path: Path) -> None:
    found, problems = answers(csv_path, HEADER.encode() + b"\na1,u,q,1\na2,caf\xe9,q,1\n")
    assert found.answer_id == ("a1",)
    assert [(problem.line, problem.column, problem.rule) for problem in problems] == [
        (3, "learner_id", "must be UTF-8 text")
    ]
    assert "caf" in str(problems[0])


def test_rows_of_another_width_and_broken_quotes_are_problems_of_their_row(csv_path: Path) -> None:
    found, problems = answers(csv_path, f'{HEADER}\na1,u,q\na2,u,q,1\na3,"u"x,q,1\na4,u,q,1,2\na5,u,q,1\n')
    assert found.answer_id == ("a2", "a5")
    assert sorted((problem.line, problem.rule[:7]) for problem in problems) == [
        (2, "the row"),
        (4, "the row"),
        (5, "the row"),
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("answers.csv", b"", "is empty; needs a header with answer_id"),
        (
            "answers.csv",
            b"answer_id,learner,question_id,correct\n",
            r"column learner_id is missing \(is it learner",
        ),
        ("answers.csv", b"a1,u,q,1\n", "column answer_id is missing"),
        ("answers.csv", f"{HEADER},correct\n".encode(), "column correct is there more than once"),
        ("answers.csv", b"\xff\xfe\x00a", "column answer_id is missing"),
        ("answers.csv.gz", gzip.compress(HEADER.encode() + b"\na,u,q,1" * 99)[:-9], "damaged or cut short"),
        ("answers.csv.gz", gzip.compress(HEADER.encode())[:9] + b"\xff" * 30, "damaged or cut short"),
        ("answers.csv", b"x" * (2 * MOST_LINE_BYTES), "longer than"),
        ("answers.txt", b"", "has no known ending"),
    ],
)
def test_files_that_cannot_be_read_say_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    with pytest.raises(DataFileError, match=message):
        read(path, content)


def test_a_missing_file_or_a_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataFileError, match="No such file"):
        list(read_chunks(tmp_path / "answers.csv", ANSWERS))
    (tmp_path / "answers.csv").mkdir()
    with pytest.raises(DataFileError, match="directory"):
        list(read_chunks(tmp_path / "answers.csv", ANSWERS))


def test_a_header_alone_holds_no_rows_and_unknown_columns_are_told(csv_path: Path) -> None:
    assert read(csv_path, f"{HEADER}\n") == []
    (chunk,) = read(csv_path, f"{HEADER},duraton_ms,_problem\na,u,q,1,5,6\n")
    assert chunk.ignored == ("duraton_ms",)


def test_tables_are_found_by_name_in_a_directory(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl.gz").touch()
    assert find_table(tmp_path, ANSWERS) == tmp_path / "answers.jsonl.gz"
    assert find_table(tmp_path, CONCEPTS) is None
    (tmp_path / "answers.csv").touch()
    with pytest.raises(DataFileError, match=r"answers\.csv and answers\.jsonl\.gz"):
        find_table(tmp_path, ANSWERS)


CONCEPT = {
    "concept_id": "add",
    "title": "Adding, twice",
    "prerequisite_ids": "count;c;d",
    "soft_prerequisite_ids": "compare",
    "encompassed_weights": "0.25;;0;0.5",
    "typical_seconds": "12.5",
    "tags": "a;b",
}
QUESTION = {
    "question_id": "q",
    "concept_ids": "add;count",
    "difficulty": "0.25",
    "embedding": ";".join("1" * 8),
}
LEARNER = {
    "learner_id": "u",
    "time_zone": "Europe/Berlin",
    "created_at": "2026-01-31T09:30:00Z",
    "goal_concept_id": "add",
    "goal_daily_minutes": "20",
    "labels": '{"class": "7b; blue"}',
}


@pytest.mark.parametrize("extension", [".csv", ".csv.gz", ".jsonl", ".jsonl.gz"])
def test_catalogue_and_learners_survive_writing_and_reading(tmp_path: Path, extension: str) -> None:
    concept = concept_of(RowCheck(CONCEPT), now=1.0)
    assert [needed.encompassed for needed in concept.prerequisites] == [0.25, None, 0.0, 0.5]
    assert [needed.hard for needed in concept.prerequisites] == [True, True, True, False]
    question, concept_ids = question_of(RowCheck(QUESTION), now=1.0)
    assert concept_ids == ["add", "count"]
    learner = learner_of(RowCheck(LEARNER), now=1.0)
    assert learner.labels == {"class": "7b; blue"}
    rows = {
        CONCEPTS: concept_row(concept),
        QUESTIONS: question_row(question, concept_ids),
        LEARNERS: learner_row(learner),
    }
    checks = {}
    for table, row in rows.items():
        path = tmp_path / (table.name + extension)
        with written(path, table.columns) as writer:
            writer.write(row)
        ((chunk),) = read_chunks(path, table)
        checks[table] = RowCheck(chunk.row(0))
    assert concept_of(checks[CONCEPTS], now=1.0) == concept
    assert question_of(checks[QUESTIONS], now=1.0) == (question, concept_ids)
    assert learner_of(checks[LEARNERS], now=1.0) == learner
    assert all(not check.violations.found for check in checks.values())


@pytest.mark.parametrize(
    ("table", "changes", "column"),
    [
        ("concepts", {"concept_id": ""}, "concept_id"),
        ("concepts", {"title": "x" * 257}, "title"),
        ("concepts", {"typical_seconds": "-1"}, "typical_seconds"),
        ("concepts", {"prerequisite_ids": "count;;c;d"}, "prerequisite_ids[1]"),
        ("concepts", {"soft_prerequisite_ids": "count"}, "soft_prerequisite_ids"),
        ("concepts", {"encompassed_weights": "1;1"}, "encompassed_weights"),
        ("concepts", {"encompassed_weights": "1;2;1;1"}, "encompassed_weights"),
        ("concepts", {"tags": ";".join(map(str, range(33)))}, "tags"),
        ("questions", {"concept_ids": ""}, "concept_ids"),
        ("questions", {"concept_ids": "add;;count"}, "concept_ids[1]"),
        ("questions", {"difficulty": "1.5"}, "difficulty"),
        ("questions", {"difficulty": "nan"}, "difficulty"),
        ("questions", {"embedding": "1;2"}, "embedding"),
        ("questions", {"embedding": "1;nan"}, "embedding"),
        ("learners", {"time_zone": "Mars/Olympus"}, "time_zone"),
        ("learners", {"created_at": "soon"}, "created_at"),
        ("learners", {"labels": "{"}, "labels"),
        ("learners", {"labels": '{"a": 1}'}, "labels"),
        ("learners", {"goal_daily_minutes": "1441"}, "goal_daily_minutes"),
    ],
)
def test_wrong_cells_of_catalogue_and_learners_are_named(
    table: str, changes: dict[str, str], column: str
) -> None:
    fine = {"concepts": CONCEPT, "questions": QUESTION, "learners": LEARNER}[table]
    check = RowCheck({**fine, **changes})
    {"concepts": concept_of, "questions": question_of, "learners": learner_of}[table](check, now=1.0)
    assert column in {violation.field for violation in check.violations.found}


def test_ids_that_repeat_in_a_cell_count_once() -> None:
    concept = concept_of(RowCheck({"concept_id": "add", "prerequisite_ids": "count;count"}), now=1.0)
    assert [needed.concept_id for needed in concept.prerequisites] == ["count"]


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "learners.csv"

    def fails_half_way() -> None:
        with written(path, LEARNERS.columns) as writer:
            writer.write({"learner_id": "u"})
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fails_half_way()
    assert list(tmp_path.iterdir()) == []


def test_equal_content_gives_equal_packed_files(tmp_path: Path) -> None:
    contents = []
    for name in ("a.csv.gz", "b.csv.gz"):
        with written(tmp_path / name, ("learner_id",)) as writer:
            writer.write({"learner_id": "u"})
        contents.append((tmp_path / name).read_bytes())
    assert contents[0] == contents[1]


def test_rows_at_hand_are_read_like_a_file() -> None:
    chunk = chunk_of(CONCEPTS, [CONCEPT, {"concept_id": "count"}], name="bundled")
    assert concept_of(RowCheck(chunk.row(0)), now=1.0) == concept_of(RowCheck(CONCEPT), now=1.0)
    assert chunk.row(1)["title"] == ""


def test_every_table_names_each_column_once() -> None:
    for table in TABLES:
        assert len(set(table.columns)) == len(table.columns)


@given(st.lists(st.text(min_size=1), max_size=5))
@settings(max_examples=50)
def test_lists_survive_a_cell(parts: list[str]) -> None:
    assert split_list(join_list(parts)) == parts


@given(st.integers(0, 4_000_000_000_000_000))
@settings(max_examples=50)
def test_times_survive_their_text_to_the_microsecond(microseconds: int) -> None:
    seconds = microseconds / 1e6
    assert epoch_seconds(time_text(seconds)) == seconds

"""A small catalogue and answers as import files, and what a store holds after an import."""

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from engine.learner import LearnerModel
from server.data_files import Chunk, read_chunks
from server.data_tables import ANSWERS, CONCEPTS, LEARNERS, QUESTIONS, Table
from server.importing import Import
from store import codec
from store.api import Partition, Store
from store.api import Table as StoreTable
from store.catalogs import read_memory_sets
from store.learners import read_state
from store.replay import all_learners

NOW = 1_800_000_000.0
ORIGIN = 1_700_000_000.0

Rows = Sequence[Mapping[str, object]]


def data_folder() -> Path:
    """Where the real data sets are; skips the test, saying so, when they are absent."""
    default = Path(__file__).resolve().parents[3] / "shared" / "data"
    folder = Path(os.environ.get("GENIE_DATA", str(default)))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; GENIE_DATA names its directory")
    return folder


def write_slice(name: str, folder: Path, rows: int) -> dict[Table, Path]:
    """The first answers of a real data set, and the questions they are of."""
    source = data_folder() / name
    part = next(read_chunks(source / "answers.csv.gz", ANSWERS, chunk_rows=rows))
    wanted = set(part.column("question_id") or ())
    listed = (
        chunk.row(n)
        for chunk in read_chunks(source / "questions.csv.gz", QUESTIONS)
        for n in range(len(chunk.lines))
    )
    return {
        QUESTIONS: write_csv(
            folder / "questions.csv", [row for row in listed if row["question_id"] in wanted]
        ),
        ANSWERS: write_csv(folder / "answers.csv", [part.row(n) for n in range(len(part.lines))]),
    }


def write_csv(path: Path, rows: Rows) -> Path:
    """A CSV file of rows that share their columns."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def concepts() -> Rows:
    """A chain: count, add, multiply."""
    return [
        {"concept_id": "count", "title": "Counting", "prerequisite_ids": "", "typical_seconds": 10},
        {"concept_id": "add", "title": "Adding", "prerequisite_ids": "count", "typical_seconds": 20},
        {"concept_id": "multiply", "title": "Multiplying", "prerequisite_ids": "add", "typical_seconds": 30},
    ]


def questions(each: int = 4) -> Rows:
    """Some questions of each concept."""
    return [
        {"question_id": f"{concept['concept_id']}-{n}", "concept_ids": concept["concept_id"], "text": f"{n}?"}
        for concept in concepts()
        for n in range(each)
    ]


def answers(
    learners: int = 5, each: int = 12, *, seed: int = 7, timed: bool = False
) -> list[dict[str, object]]:
    """Random answers of learners of differing ability, one learner after the other."""
    rng = np.random.default_rng(seed)
    names = [str(question["question_id"]) for question in questions()]
    rows: list[dict[str, object]] = []
    for learner in range(learners):
        chance = rng.uniform(0.3, 0.95)
        at = 0.0
        for n in range(each):
            question = int(rng.integers(0, len(names)))
            row: dict[str, object] = {
                "answer_id": f"a-{learner}-{n}",
                "learner_id": f"u-{learner:03d}",
                "question_id": names[question],
                "correct": int(rng.random() < chance - 0.02 * question),
                "duration_ms": int(rng.integers(2_000, 60_000)),
            }
            if timed:
                at += float(rng.integers(5, 90_000))
                row["seconds"] = at
            rows.append(row)
    return rows


def write_world(folder: Path, rows: Rows | None = None) -> dict[Table, Path]:
    """Files of the small world, by table."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        CONCEPTS: write_csv(folder / "concepts.csv", concepts()),
        QUESTIONS: write_csv(folder / "questions.csv", questions()),
        LEARNERS: write_csv(
            folder / "learners.csv", [{"learner_id": "u-000", "time_zone": "Pacific/Auckland"}]
        ),
        ANSWERS: write_csv(folder / "answers.csv", rows if rows is not None else answers()),
    }


def new_import(store: Store, *, keep_going: bool = False, cut_cycles: bool = False) -> Import:
    """An import into the default tenant, on priors."""
    return Import(
        store,
        "default",
        LearnerModel.priors(),
        now=NOW,
        origin=ORIGIN,
        keep_going=keep_going,
        cut_cycles=cut_cycles,
    )


def chunks(path: Path, table: Table, rows: int) -> list[Chunk]:
    """A file in chunks of so many rows."""
    return list(read_chunks(path, table, chunk_rows=rows))


def states(store: Store, tenant: str = "default") -> dict[str, bytes]:
    """Every learner's state, as stored bytes."""
    with store.read(Partition(tenant)) as reader:
        sets = read_memory_sets(reader)
    found = {}
    for learner_id in all_learners(store, tenant, StoreTable.STATE):
        with store.read(Partition(tenant, learner_id)) as reader:
            found[learner_id] = codec.encode_state(read_state(reader, sets))
    return found

"""Reading data sets in the import format into training logs, for benches. Serves nothing."""

from __future__ import annotations

import csv
import gzip
import os
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.learner.memory import grade_answer
from engine.learner.rows import TrainingLog
from engine.learner.score import QuestionConcepts
from engine.types import AnswerBatch

DAY_S = 86400


class DataSet(NamedTuple):
    """A data set as arrays."""

    name: str
    log: TrainingLog
    concepts: QuestionConcepts
    timed: bool


def data_folder() -> Path:
    """Return the folder of data sets: GENIE_DATA, else ../shared/data beside the repository."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("GENIE_DATA", str(default)))


def read_csv(path: Path) -> list[dict[str, str]]:
    """Return the rows of a plain or gzipped CSV with a header."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def find(folder: Path, table: str) -> Path:
    """Return the file of a table in a data set's folder.

    Raises:
        FileNotFoundError: there is none.
    """
    for name in (f"{table}.csv.gz", f"{table}.csv"):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(f"{folder} has no {table}.csv or {table}.csv.gz")


def seconds_of(answer: dict[str, str]) -> float:
    """Return when an answer was given, in seconds since any origin; 0 when the row does not say."""
    if answer.get("answered_at"):
        return datetime.fromisoformat(answer["answered_at"]).timestamp()
    return float(answer.get("seconds") or 0.0)


def load(folder: Path, most_learners: int = 0) -> DataSet:
    """Return the data set in `folder`, with only its first `most_learners` learners unless 0."""
    answers = read_csv(find(folder, "answers"))
    question_row: dict[str, int] = {}
    concept_row: dict[str, int] = {}
    offsets, concepts = [0], []
    for entry in read_csv(find(folder, "questions")):
        question_row[entry["question_id"]] = len(question_row)
        concepts += [
            concept_row.setdefault(c, len(concept_row)) for c in entry["concept_ids"].split(";") if c
        ]
        offsets.append(len(concepts))
    learner_row: dict[str, int] = {}
    learner = np.array([learner_row.setdefault(a["learner_id"], len(learner_row)) for a in answers])
    timed = bool(answers[0].get("seconds") or answers[0].get("answered_at"))
    at = np.array([seconds_of(a) for a in answers])
    order = np.lexsort((np.arange(len(answers)), at, learner))
    if most_learners:
        order = order[learner[order] < most_learners]
    question = np.array([question_row[a["question_id"]] for a in answers], np.uint32)[order]
    correct = np.array([a["correct"] == "1" for a in answers], np.uint8)[order]
    duration = np.array([int(float(a.get("duration_ms") or 0)) for a in answers], np.uint32)[order]
    qc = QuestionConcepts.of(np.array(offsets), np.array(concepts))
    batch = batch_of(question, correct, at[order], duration, qc)
    sizes = np.bincount(learner[order], minlength=int(learner[order].max()) + 1)
    return DataSet(folder.name, TrainingLog(np.concatenate(([0], np.cumsum(sizes))), batch), qc, timed)


def batch_of(
    question: np.ndarray, correct: np.ndarray, at: np.ndarray, duration: np.ndarray, qc: QuestionConcepts
) -> AnswerBatch:
    """Return answers as resolved facts, base logits 0."""
    n = len(question)
    sizes = np.diff(qc.offsets)[question]
    offsets = np.concatenate(([0], np.cumsum(sizes))).astype(np.int32)
    pairs = np.repeat(qc.offsets[question] - offsets[:-1], sizes) + np.arange(offsets[-1])
    m = len(pairs)
    hints = np.zeros(n, np.uint8)
    return AnswerBatch(
        question=question,
        correct=correct,
        answered_at=at.astype(np.float64),
        base_logit=np.zeros(n, np.float32),
        grade=grade_answer(correct, duration, np.zeros(n, np.float32), hints),
        duration_ms=duration,
        hints=hints,
        local_day=(at // DAY_S).astype(np.int32),
        memory_set=np.zeros(n, np.uint16),
        offsets=offsets,
        concept=qc.concepts[pairs],
        weight=np.ones(m, np.float32),
        mastery=np.full(m, np.nan, np.float32),
        mastery_sd=np.full(m, np.nan, np.float32),
    )

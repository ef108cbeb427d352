"""What a store holds, as files of the import format; and all of one learner as JSON. Changes nothing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from engine.learner import LearnerState
from server.data_answers import DEVICES
from server.data_files import written
from server.data_rows import concept_row, learner_row, question_row, time_text
from server.data_tables import ANSWERS, CONCEPTS, LEARNERS, QUESTIONS, Table, Value
from store.answer_log import AnswerLog
from store.api import Partition, Store
from store.api import Table as StoreTable
from store.catalogs import CatalogRecords, load_catalog, read_memory_sets
from store.learners import export_answers, list_sessions, read_feedback, read_profile, read_state
from store.replay import all_learners
from store.slates import list_slates
from store.stores import Stores
from store.tastes import read_taste

Progress = Callable[[str, int], None]
"""Told (table, rows written so far)."""

_REPORT_EVERY = 4_096


def export_tables(
    store: Store,
    tenant: str,
    paths: dict[Table, Path],
    *,
    progress: Progress = lambda table, rows: None,
) -> dict[str, int]:
    """Write files; rows written by table. Each file appears under its name when it is complete.

    The catalogue is of one version. Learners and answers are written while they may change: each learner is consistent.
    Raises DataFileError for a file name that no format goes with, StoreError, OSError.
    """
    with store.read(Partition(tenant)) as reader:
        records = load_catalog(reader)
    rows: dict[Table, Callable[[], Iterator[dict[str, Value]]]] = {
        CONCEPTS: lambda: map(concept_row, records.concepts),
        QUESTIONS: lambda: (
            question_row(question, [records.concept_ids[row] for row in question.concept_rows])
            for question in records.questions
        ),
        LEARNERS: lambda: _learners(store, tenant, records),
        ANSWERS: lambda: _answers(store, tenant, records),
    }
    counts = {}
    for table, path in paths.items():
        count = 0
        with written(path, table.columns) as writer:
            for row in rows[table]():
                writer.write(row)
                count += 1
                if count % _REPORT_EVERY == 0:
                    progress(table.name, count)
        progress(table.name, count)
        counts[table.name] = count
    return counts


def _learners(store: Store, tenant: str, records: CatalogRecords) -> Iterator[dict[str, Value]]:
    """Each learner, without the concept of a goal that the catalogue has lost, which no import would take."""
    present = {concept.concept_id for concept in records.concepts}
    for learner_id in all_learners(store, tenant, StoreTable.PROFILE):
        with store.read(Partition(tenant, learner_id)) as reader:
            profile = read_profile(reader)
        if profile is not None:
            row = learner_row(profile)
            yield row if profile.goal.concept_id in present else row | {"goal_concept_id": ""}


def _answers(store: Store, tenant: str, records: CatalogRecords) -> Iterator[dict[str, Value]]:
    """Each learner's answers in order of arrival, so that an import gives the same log."""
    for learner_id in all_learners(store, tenant, StoreTable.ANSWER):
        for log in export_answers(store, Partition(tenant, learner_id)):
            for row in range(log.size):
                yield {"learner_id": learner_id, **answer_row(log, row, records.question_ids)}


def answer_row(log: AnswerLog, row: int, question_ids: Sequence[str]) -> dict[str, Value]:
    """One answer as a row, without its learner. Its time is always written: what was made up once stays."""
    batch = log.batch
    return {
        "answer_id": log.answer_id[row],
        "question_id": question_ids[batch.question[row]],
        "correct": int(batch.correct[row]),
        "answered_at": time_text(float(batch.answered_at[row])),
        "duration_ms": int(batch.duration_ms[row]) or None,
        "hints_used": int(batch.hints[row]) or None,
        "device": DEVICES[log.device[row]] if log.device[row] < len(DEVICES) else "",
        "session_id": log.session_id[row],
        "recommendation_id": log.recommendation_id[row],
    }


def export_learner(stores: Stores, tenant: str, learner_id: str) -> dict[str, Any] | None:
    """Everything the stores hold of one learner, JSON-ready; None for a learner it does not know."""
    partition = Partition(tenant, learner_id)
    store = stores.state
    with store.read(Partition(tenant)) as reader:
        records = load_catalog(reader)
        memory_sets = read_memory_sets(reader)
    with store.read(partition) as reader:
        profile = read_profile(reader)
        state = read_state(reader, memory_sets)
        sessions = list_sessions(reader)
        feedback = read_feedback(reader)
        taste = read_taste(reader)
    answers = [
        {**answer_row(log, row, records.question_ids), **_effects(log, row, records.concept_ids)}
        for log in export_answers(store, partition)
        for row in range(log.size)
    ]
    if profile is None and not answers:
        return None
    return {
        "learner": None if profile is None else asdict(profile),
        "answers": answers,
        "state": _state(state, records),
        "sessions": [{**asdict(session), "summary": session.summary.hex()} for session in sessions],
        "feedback": [asdict(event) for event in feedback],
        "taste": asdict(taste),
        "recommendations": [
            {
                "recommendation_id": slate.recommendation_id,
                "created_at": time_text(slate.created_at),
                "expires_at": time_text(slate.expires_at),
                "question_ids": list(slate.question_ids),
            }
            for slate in list_slates(stores.serving, partition)
        ],
    }


def _effects(log: AnswerLog, row: int, concept_ids: Sequence[str]) -> dict[str, Any]:
    """What an answer was taken to say, as logged."""
    batch = log.batch
    pairs = range(int(batch.offsets[row]), int(batch.offsets[row + 1]))
    return {
        "received_at": time_text(float(log.received_at[row])),
        "time_given": bool(log.timed[row]),
        "late": bool(log.late[row]),
        "grade": int(batch.grade[row]),
        "local_day": int(batch.local_day[row]),
        "base_logit": float(batch.base_logit[row]),
        "predicted": float(log.predicted[row]),
        "concepts": [
            {
                "concept_id": concept_ids[batch.concept[pair]],
                "weight": float(batch.weight[pair]),
                "mastery_before": float(log.mastery_before[pair]),
                "mastery": float(batch.mastery[pair]),
                "mastery_sd": float(batch.mastery_sd[pair]),
            }
            for pair in pairs
        ],
    }


def _state(state: LearnerState, records: CatalogRecords) -> dict[str, Any]:
    header = _fields(state.header[0])
    concepts = [_fields(record) for record in state.concepts]
    for concept in concepts:
        concept["concept_id"] = records.concept_ids[concept.pop("row")]
    recent = [_fields(record) for record in state.recent if record["seen"]]
    for question in recent:
        question["question_id"] = records.question_ids[question.pop("question")]
    return {"totals": header, "concepts": concepts, "recent_questions": recent}


def _fields(record: Any) -> dict[str, Any]:
    return {name: record[name].tolist() for name in record.dtype.names}

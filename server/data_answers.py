"""Answers of the import format as columns, with what is wrong named. Checks columns, and rows only where they fail."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from engine.types import F8, U1, U4
from server.data_files import Chunk, Problem
from server.data_rows import epoch_seconds, number, time_text
from server.validate import MOST_ID_BYTES, MOST_ID_CHARACTERS, MOST_SECONDS_AHEAD, Violations

MOST_DURATION_MS = 86_400_000.0
MOST_HINTS = 255.0
DEVICES = ("", "phone", "tablet", "desktop", "other")
"""Names of devices, by the number that the wire API gives them."""

Bad = dict[int, Problem]
"""The first problem of each row at fault, by the row's place in its chunk."""


class Answers(NamedTuple):
    """Rows of an answers file, by column; n answers in the order of the file."""

    lines: list[int]
    answer_id: Sequence[str]
    learner_id: Sequence[str]
    question_id: Sequence[str]
    correct: U1
    answered_at: F8
    """(n,) seconds since the Unix epoch; NaN where the file says no time."""
    duration_ms: U4
    """(n,) 0 where it is not known."""
    hints: U1
    device: U1
    """(n,) index into `DEVICES`."""
    session_id: Sequence[str]
    recommendation_id: Sequence[str]

    def part(self, start: int, stop: int) -> "Answers":
        """Rows start..stop-1, arrays as views."""
        return Answers._make(column[start:stop] for column in self)

    def take(self, rows: Sequence[int]) -> "Answers":
        """The rows at these places, in this order."""
        index = np.asarray(rows, np.int64)
        return Answers(
            [self.lines[row] for row in rows],
            [self.answer_id[row] for row in rows],
            [self.learner_id[row] for row in rows],
            [self.question_id[row] for row in rows],
            self.correct[index],
            self.answered_at[index],
            self.duration_ms[index],
            self.hints[index],
            self.device[index],
            [self.session_id[row] for row in rows],
            [self.recommendation_id[row] for row in rows],
        )


def answers_of(chunk: Chunk, *, origin: float, now: float) -> tuple[Answers, Bad]:
    """The answers of a chunk that are fine, and the problem of each row that is not.

    `origin` is the epoch second that the column `seconds` counts from. Checks run over whole columns; single rows are
    looked at only where a column does not pass.
    """
    size = len(chunk.lines)
    bad: Bad = {}
    answer_id = _ids(chunk, "answer_id", bad, required=True)
    learner_id = _ids(chunk, "learner_id", bad, required=True)
    question_id = _ids(chunk, "question_id", bad, required=True)
    session_id = _ids(chunk, "session_id", bad, required=False)
    recommendation_id = _ids(chunk, "recommendation_id", bad, required=False)
    right = chunk.column("correct") or ()
    if not set(right) <= {"0", "1"}:
        _note(chunk, bad, "correct", lambda cell: "" if cell in ("0", "1") else "must be 0 or 1")
    latest = now + MOST_SECONDS_AHEAD
    at = _times(chunk, "answered_at", bad, latest)
    since = _numbers(chunk, "seconds", bad, least=-origin, most=latest - origin, rule=_seconds_rule(origin))
    duration = _numbers(chunk, "duration_ms", bad, least=0.0, most=MOST_DURATION_MS)
    hints = _numbers(chunk, "hints_used", bad, least=0.0, most=MOST_HINTS)
    answers = Answers(
        chunk.lines,
        answer_id,
        learner_id,
        question_id,
        np.array([cell == "1" for cell in right], np.uint8),
        np.where(np.isnan(at), origin + since, at),
        np.nan_to_num(np.rint(duration)).astype(np.uint32),
        np.nan_to_num(np.rint(hints)).astype(np.uint8),
        _devices(chunk, bad),
        session_id,
        recommendation_id,
    )
    return (answers.take([row for row in range(size) if row not in bad]) if bad else answers), bad


def _seconds_rule(origin: float) -> str:
    return (
        f"must be a number of seconds which, counted from {time_text(origin)}, gives a time from 1970 to now "
        "(--origin says what seconds count from)"
    )


def _ids(chunk: Chunk, name: str, bad: Bad, *, required: bool) -> Sequence[str]:
    column = chunk.column(name)
    if column is None:
        return ("",) * len(chunk.lines)
    joined = "".join(column)
    fine = joined.isprintable() and (not required or "" not in column)
    if fine and joined:
        fine = max(map(len, column)) <= MOST_ID_CHARACTERS
        fine = fine and (joined.isascii() or max(len(cell.encode()) for cell in column) <= MOST_ID_BYTES)
    if not fine:
        _note(chunk, bad, name, lambda cell: _id_rule(cell, required=required))
    return column


def _id_rule(cell: str, *, required: bool) -> str:
    check = Violations()
    check.identifier("id", cell, required=required)
    return check.found[0].description if check.found else ""


def _note(chunk: Chunk, bad: Bad, name: str, rule: Callable[[str], str]) -> None:
    """Look at every cell of a column; `rule` gives what is broken, or nothing."""
    for row, cell in enumerate(chunk.column(name) or ()):
        broken = rule(cell)
        if broken:
            bad.setdefault(row, Problem(chunk.file, chunk.lines[row], name, cell, broken))


def _numbers(chunk: Chunk, name: str, bad: Bad, *, least: float, most: float, rule: str = "") -> F8:
    """(n,) numbers of a column, NaN where a cell is empty or at fault."""
    values = np.full(len(chunk.lines), np.nan)
    column = chunk.column(name)
    if column is None or not any(column):
        return values
    rule = rule or f"must be a number from {least:g} to {most:g}"
    for row, cell in enumerate(column):
        if cell:
            value = number(cell)
            if least <= value <= most:
                values[row] = value
            else:
                bad.setdefault(row, Problem(chunk.file, chunk.lines[row], name, cell, rule))
    return values


def _times(chunk: Chunk, name: str, bad: Bad, latest: float) -> F8:
    values = np.full(len(chunk.lines), np.nan)
    column = chunk.column(name)
    if column is None or not any(column):
        return values
    for row, cell in enumerate(column):
        if cell:
            try:
                values[row] = epoch_seconds(cell, latest=latest)
            except ValueError as error:
                bad.setdefault(row, Problem(chunk.file, chunk.lines[row], name, cell, str(error)))
    return values


def _devices(chunk: Chunk, bad: Bad) -> U1:
    column = chunk.column("device")
    if column is None or not any(column):
        return np.zeros(len(chunk.lines), np.uint8)
    if not set(column) <= set(DEVICES):
        rule = f"must be one of {', '.join(DEVICES[1:])}, or empty"
        _note(chunk, bad, "device", lambda cell: "" if cell in DEVICES else rule)
    return np.array([DEVICES.index(cell) if cell in DEVICES else 0 for cell in column], np.uint8)

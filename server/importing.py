"""Files of the import format into a store, once and for all however often they are run. Draws no progress bars.

A row whose answer id is in the log changes nothing, so that an import may be run again after it was stopped or killed.
"""

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import pairwise
from pathlib import Path
from typing import IO, Any

import msgspec
import numpy as np

from engine.catalog import build_catalog
from engine.content import WIDTH
from engine.learner import LearnerModel
from engine.types import F8, I8, U1, U4, AnswerBatch, LearnerProfile, Question
from server.answer_facts import FactSource, answer_facts, on_calendar
from server.catalog_import import CatalogRefused, Changes, store_concepts, store_questions
from server.data_answers import Answers, answers_of
from server.data_files import Chunk, Problem, read_chunks
from server.data_rows import RowCheck, concept_of, learner_of, question_of
from server.data_tables import ANSWERS, CONCEPTS, LEARNERS, QUESTIONS, Table
from server.errors import printable
from server.file_rates import count_questions, informed
from server.validate import MOST_SECONDS_AHEAD
from store.answers import NewAnswers, record_answers
from store.api import Partition, Store, Transaction
from store.catalogs import get_concept, load_catalog
from store.learners import Outcome, create_profile, read_profile, write_profile

DEFAULT_ORIGIN = 1_704_067_200.0
"""2024-01-01T00:00:00Z: what `seconds` count from, and when the first answer without a time was given."""
MADE_UP_GAP_SECONDS = 60.0
"""An answer without a time was given this long after the learner's answer before it."""
MOST_ANSWERS_IN_FLIGHT = 4_096
"""Answers that wait for a commit together. A commit keeps other writers waiting, so it must not grow too large."""
MOST_PROFILES_IN_FLIGHT = 1_024
PROBLEMS_LISTED = 100

Progress = Callable[[str, int, int], None]
"""Told (table, bytes read, bytes in all) after each chunk."""


class ImportStopped(Exception):
    """Rows are wrong and the import was told to stop; what was stored before stays."""


@dataclass(slots=True)
class ImportReport:
    """What an import did."""

    concepts: Changes = field(default_factory=Changes)
    questions: Changes = field(default_factory=Changes)
    learners: Changes = field(default_factory=Changes)
    concepts_from_questions: int = 0
    """Created because questions named them and no file listed them."""
    dropped_edges: list[list[str]] = field(default_factory=list)
    """[concept id, prerequisite id] of each edge left out to break a cycle."""
    answers_read: int = 0
    answers_recorded: int = 0
    answers_known: int = 0
    """Recorded before; nothing changed."""
    rejected: int = 0
    """Rows at fault."""
    problems: list[str] = field(default_factory=list)
    """The first of them."""
    ignored_columns: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        record: dict[str, Any] = msgspec.to_builtins(self)
        return record


class Import:
    """One import into one tenant; call `concepts`, `questions`, `learners`, `answers` in this order, as far as needed.

    With `keep_going`, rows at fault are passed over (and written to `rejects`, as JSON lines that can be corrected and
    imported); otherwise ImportStopped is raised at the first chunk that holds one, before any of it is stored.
    """

    def __init__(
        self,
        store: Store,
        tenant: str,
        model: LearnerModel,
        *,
        now: float,
        origin: float = DEFAULT_ORIGIN,
        keep_going: bool = False,
        cut_cycles: bool = False,
        rejects: IO[str] | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.report = ImportReport()
        self._store = store
        self._tenant = tenant
        self._model = model
        self._now = now
        self._origin = origin
        self._keep_going = keep_going
        self._cut_cycles = cut_cycles
        self._rejects = rejects
        self._progress = progress
        self._last_at: dict[str, float] = {}
        self._in_flight: deque[tuple[Future[U1], Chunk, list[int]]] = deque()
        """What is being recorded, the chunk that it is from, and the lines on which its answers begin."""
        self._waiting = 0
        """Answers in flight."""

    def files(self, paths: Mapping[Table, Path]) -> ImportReport:
        """Import files, each kind in its turn.

        Raises:
            DataFileError: a file cannot be read on. ImportStopped: rows are wrong. StoreError: nothing can be stored.
        """
        started = time.perf_counter()
        steps = {
            CONCEPTS: self.concepts,
            QUESTIONS: self.questions,
            LEARNERS: self.learners,
            ANSWERS: partial(self.answers, again=self._watched(ANSWERS, paths[ANSWERS], "counting"))
            if ANSWERS in paths
            else self.answers,
        }
        try:
            for table, step in steps.items():
                if table in paths:
                    step(self._watched(table, paths[table]))
        finally:
            self.report.seconds = time.perf_counter() - started
        return self.report

    def concepts(self, chunks: Iterable[Chunk]) -> None:
        """Upsert concepts, all of them or, when the graph is unsound, none."""
        found = list(self._rows(chunks, "concept_id", partial(concept_of, now=self._now)))
        try:
            changes, dropped = store_concepts(
                self._store, self._tenant, found, now=self._now, cut_cycles=self._cut_cycles
            )
        except CatalogRefused as error:
            raise ImportStopped(str(error)) from error
        self.report.concepts = changes
        self.report.dropped_edges = [list(edge) for edge in dropped]

    def questions(self, chunks: Iterable[Chunk]) -> None:
        """Upsert questions; concepts that only they name are created."""
        found: Iterator[tuple[Question, list[str]]] = self._rows(
            chunks, "question_id", partial(question_of, now=self._now)
        )
        try:
            done = store_questions(self._store, self._tenant, found, now=self._now)
        except CatalogRefused as error:
            raise ImportStopped(str(error)) from error
        self.report.questions, self.report.concepts_from_questions = done

    def learners(self, chunks: Iterable[Chunk]) -> None:
        """Insert or overwrite profiles. A goal must name a concept of the catalogue."""
        waiting: deque[Future[Changes]] = deque()
        for profile in self._rows(
            chunks, "learner_id", partial(self._learner, is_concept=cache(self._is_concept))
        ):
            partition = Partition(self._tenant, profile.learner_id)
            waiting.append(self._store.submit(partition, partial(_put_profile, profile=profile)))
            if len(waiting) >= MOST_PROFILES_IN_FLIGHT:
                self.report.learners.add(waiting.popleft().result())
        for done in waiting:
            self.report.learners.add(done.result())

    def answers(self, chunks: Iterable[Chunk], *, again: Iterable[Chunk] = ()) -> None:
        """Record answers: a chunk's learners one operation each, many in one commit.

        `again` gives the same chunks a second time: to count first how often each question is answered right.
        """
        with self._store.read(Partition(self._tenant)) as reader:
            held = load_catalog(reader)
        nowhere = np.zeros((len(held.question_ids), WIDTH), np.float32)
        catalog = build_catalog(held.concepts, held.questions, version=held.version, embeddings=nowhere)
        counts = count_questions(again, catalog.question_row, catalog.question_count)
        source = FactSource.of(catalog, informed(self._model, catalog, counts))
        try:
            for chunk in chunks:
                self._record(source, chunk, *self._known(chunk, catalog.question_row))
        finally:
            while self._in_flight:
                self._settle()

    def _watched(self, table: Table, path: Path, label: str = "") -> Iterator[Chunk]:
        size = path.stat().st_size if path.exists() else 0
        for chunk in read_chunks(path, table):
            yield chunk
            if self._progress is not None:
                self._progress(label or table.name, chunk.bytes_read, size)

    def _rows(self, chunks: Iterable[Chunk], key: str, parse: Callable[[RowCheck], Any]) -> Iterator[Any]:
        """The rows that are fine. A row that comes again counts once; one that contradicts an earlier one is wrong."""
        seen: dict[str, int] = {}
        for chunk in chunks:
            parsed, bad = [], {}
            for row in range(len(chunk.lines)):
                cells = chunk.row(row)
                content = hash(tuple(cells.values()))
                if seen.get(cells[key]) == content:
                    continue
                check = RowCheck(cells)
                entry = parse(check)
                if cells[key] in seen:
                    check.violations.add(key, "is there twice, with different content")
                if check.violations.found:
                    name, rule = check.violations.found[0]
                    column = name.partition("[")[0]
                    bad[row] = Problem(chunk.file, chunk.lines[row], name, cells.get(column, ""), rule)
                else:
                    parsed.append(entry)
                seen.setdefault(cells[key], content)
            self._note(chunk, bad)
            yield from parsed

    def _learner(self, check: RowCheck, is_concept: Callable[[str], bool]) -> LearnerProfile:
        profile = learner_of(check, now=self._now)
        goal = profile.goal.concept_id
        if goal and not check.violations.found and not is_concept(goal):
            rule = "must be a concept of the catalogue (import concepts first)"
            check.violations.add("goal_concept_id", rule)
        return profile

    def _is_concept(self, concept_id: str) -> bool:
        with self._store.read(Partition(self._tenant)) as reader:
            return get_concept(reader, concept_id) is not None

    def _note(self, chunk: Chunk, bad: Mapping[int, Problem]) -> None:
        """Count the rows at fault, once a chunk. ImportStopped unless told to keep going."""
        rejected = [*chunk.rejected, *((problem, chunk.row(row)) for row, problem in bad.items())]
        rejected.sort(key=lambda entry: entry[0].line)
        for column in chunk.ignored:
            if column not in self.report.ignored_columns:
                self.report.ignored_columns.append(column)
        for problem, cells in rejected:
            self._reject(problem, cells)
        if rejected and not self._keep_going:
            where = f"{chunk.file}: {len(rejected)} rows are wrong, the first on line {rejected[0][0].line}"
            raise ImportStopped(f"{where}; correct them, or pass them over with --on-error skip")

    def _reject(self, problem: Problem, cells: Mapping[str, str]) -> None:
        self.report.rejected += 1
        if len(self.report.problems) < PROBLEMS_LISTED:
            self.report.problems.append(str(problem))
        if self._rejects is not None:
            row = {name: cell for name, cell in cells.items() if cell}
            row |= {"_file": problem.file, "_line": str(problem.line), "_problem": str(problem)}
            self._rejects.write(msgspec.json.encode(row).decode() + "\n")

    def _known(self, chunk: Chunk, row_of: Mapping[str, int]) -> tuple[Answers, U4]:
        """The chunk's answers that are fine, to questions that the catalogue holds; and the questions' rows."""
        found, bad = answers_of(chunk, origin=self._origin, now=self._now)
        rows: I8 = np.array([row_of.get(name, -1) for name in found.question_id], np.int64)
        strange = np.flatnonzero(rows < 0).tolist()
        if strange:
            place = {line: row for row, line in enumerate(chunk.lines)}
            rule = "must be a question of the catalogue (import questions first)"
            for index in strange:
                line, name = found.lines[index], found.question_id[index]
                bad[place[line]] = Problem(chunk.file, line, "question_id", name, rule)
            fine = np.flatnonzero(rows >= 0)
            found, rows = found.take(fine.tolist()), rows[fine]
        self._note(chunk, bad)
        return found, rows.astype(np.uint32)

    def _record(self, source: FactSource, chunk: Chunk, found: Answers, rows: U4) -> None:
        self.report.answers_read += len(found.lines)
        if not found.lines:
            return
        number: dict[str, int] = {}
        codes = np.array([number.setdefault(name, len(number)) for name in found.learner_id], np.int64)
        if np.any(np.diff(codes) < 0):
            order = np.argsort(codes, kind="stable")
            found, rows, codes = found.take(order.tolist()), rows[order], codes[order]
        bounds = [*np.flatnonzero(np.diff(codes, prepend=-1)).tolist(), len(codes)]
        timed = (~np.isnan(found.answered_at)).astype(np.uint8)
        found = found._replace(answered_at=self._times(found, bounds))
        facts = answer_facts(
            source,
            question=rows,
            correct=found.correct,
            answered_at=found.answered_at,
            duration_ms=found.duration_ms,
            hints=found.hints,
        )
        for start, stop in pairwise(bounds):
            future = self._submit(source, found, facts.part(start, stop), timed[start:stop], start)
            self._in_flight.append((future, chunk, found.lines[start:stop]))
            self._waiting += stop - start

    def _submit(
        self, source: FactSource, found: Answers, batch: AnswerBatch, timed: U1, start: int
    ) -> Future[U1]:
        """Have one learner's answers recorded, once there is room for as many."""
        stop = start + batch.size
        learner_id = found.learner_id[start]
        new = NewAnswers(
            batch=batch,
            answer_id=found.answer_id[start:stop],
            session_id=found.session_id[start:stop],
            recommendation_id=found.recommendation_id[start:stop],
            device=found.device[start:stop],
            timed=timed,
            received_at=self._now,
        )
        operation = partial(_record_learner, learner_id=learner_id, new=new, model=source.model)
        while self._in_flight and self._waiting + batch.size > MOST_ANSWERS_IN_FLIGHT:
            self._settle()
        return self._store.submit(Partition(self._tenant, learner_id), operation)

    def _settle(self) -> None:
        future, chunk, lines = self._in_flight.popleft()
        self._waiting -= len(lines)
        outcome = future.result()
        reused = np.flatnonzero(outcome == Outcome.REUSED)
        self.report.answers_recorded += int(np.count_nonzero(outcome == Outcome.RECORDED))
        self.report.answers_known += int(np.count_nonzero(outcome == Outcome.DUPLICATE))
        for index in reused.tolist():
            rule = "was recorded before with other content; what was recorded stays"
            cells = chunk.row(bisect_left(chunk.lines, lines[index]))
            self._reject(Problem(chunk.file, lines[index], "answer_id", cells["answer_id"], rule), cells)

    def _times(self, found: Answers, bounds: Sequence[int]) -> F8:
        """`answered_at` with what is missing made up, so that a repeated import makes up the same."""
        at = found.answered_at.copy()
        missing = np.isnan(at)
        for start, stop in pairwise(bounds):
            learner_id = found.learner_id[start]
            before = self._last_at.get(learner_id, self._origin - MADE_UP_GAP_SECONDS)
            if missing[start:stop].all():
                at[start:stop] = before + MADE_UP_GAP_SECONDS * np.arange(1, stop - start + 1)
            else:
                for row in np.flatnonzero(missing[start:stop]).tolist():
                    earlier = at[start + row - 1] if row else before
                    at[start + row] = earlier + MADE_UP_GAP_SECONDS
            self._last_at[learner_id] = float(at[stop - 1])
        if at.max() > self._now + MOST_SECONDS_AHEAD:
            name = printable(found.learner_id[int(np.argmax(at))])
            raise ImportStopped(
                f"the times made up for {name} reach into the future; choose an earlier origin"
            )
        return at


def _record_learner(tx: Transaction, learner_id: str, new: NewAnswers, model: LearnerModel) -> U1:
    profile = read_profile(tx)
    if profile is not None:
        new = new._replace(batch=on_calendar(new.batch, profile.time_zone))
    return record_answers(tx, learner_id, new, model).outcome


def _put_profile(tx: Transaction, profile: LearnerProfile) -> Changes:
    held = read_profile(tx)
    if held is None:
        create_profile(tx, profile)
        return Changes(created=1)
    if replace(profile, created_at=held.created_at, updated_at=held.updated_at) == held:
        return Changes(unchanged=1)
    write_profile(tx, replace(profile, created_at=held.created_at))
    return Changes(updated=1)

"""`genie import`: a catalogue, learners and answers from files, straight into the store. Parses no file itself."""

import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from server.cli.data import (
    EXIT_PROBLEM,
    Bars,
    data_options,
    data_settings,
    fail,
    opened,
    print_json,
    told,
    writing,
)
from server.data_files import EXTENSIONS, find_table
from server.data_rows import epoch_seconds, time_text
from server.data_tables import TABLES, Table
from server.importing import DEFAULT_ORIGIN, Import, ImportReport, ImportStopped
from server.model_parts import load_models
from server.models import ModelDirectory

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


class _Moment(click.ParamType[float]):
    """An RFC 3339 time as epoch seconds."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The time, or a usage error."""
        if isinstance(value, float):
            return value
        try:
            return epoch_seconds(value)
        except ValueError as error:
            self.fail(f"{value!r} {error}", param, ctx)


@click.command(name="import")
@click.argument("directory", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--concepts", type=_FILE, help="File of concepts.")
@click.option("--questions", type=_FILE, help="File of questions.")
@click.option("--learners", type=_FILE, help="File of learners.")
@click.option("--answers", type=_FILE, help="File of answers.")
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="What to do at rows that are wrong: store nothing of their chunk and stop, or pass them over.",
)
@click.option(
    "--rejects",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write wrong rows to this JSONL file; folders are made.",
)
@click.option(
    "--origin",
    type=_Moment(),
    default=DEFAULT_ORIGIN,
    show_default=time_text(DEFAULT_ORIGIN),
    help="What the column `seconds` counts from, and when a learner's first answer without a time was given.",
)
@click.option("--break-cycles", is_flag=True, help="Leave out prerequisites that lead round in a circle.")
@data_options
def command(
    directory: Path | None,
    concepts: Path | None,
    questions: Path | None,
    learners: Path | None,
    answers: Path | None,
    on_error: str,
    rejects: Path | None,
    origin: float,
    break_cycles: bool,
    data_directory: str | None,
    config_file: Path | None,
    tenant: str,
    as_json: bool,
) -> None:
    """Read a catalogue, learners and answers from files.

    DIRECTORY holds files named concepts, questions, learners, answers; the options name single ones. CSV or JSON lines,
    packed with gzip or not. The server may be running. Run it again after it was stopped: nothing is stored twice.
    """
    given = dict(zip(TABLES, (concepts, questions, learners, answers), strict=True))
    paths = _paths(directory, given)
    settings = data_settings(config_file, data_directory)
    with ExitStack() as stack:
        store = stack.enter_context(opened(settings, create=True)).state
        bars = stack.enter_context(Bars())
        file = None
        if rejects is not None:
            stack.enter_context(writing(rejects))
            file = stack.enter_context(rejects.open("w", encoding="utf-8"))
        work = Import(
            store,
            tenant,
            load_models(ModelDirectory(settings.data_directory, tenant), store).learner,
            now=time.time(),
            origin=origin,
            keep_going=on_error == "skip",
            cut_cycles=break_cycles,
            rejects=file,
            progress=bars.show,
        )
        stopped = ""
        try:
            work.files(paths)
        except ImportStopped as error:
            stopped = str(error)
    if as_json:
        print_json({**work.report.to_json(), "stopped": stopped})
    else:
        _tell(work.report, stopped)
    if stopped or work.report.rejected:
        sys.exit(EXIT_PROBLEM)


def _paths(directory: Path | None, given: dict[Table, Path | None]) -> dict[Table, Path]:
    paths = {table: path for table, path in given.items() if path is not None}
    if directory is not None:
        with told():
            found = {table: find_table(directory, table) for table in TABLES if table not in paths}
        paths |= {table: path for table, path in found.items() if path is not None}
    if not paths:
        names = ", ".join(table.name for table in TABLES)
        if directory is not None:
            fail(f"{directory} holds none of {names}, ending in one of {', '.join(EXTENSIONS)}")
        raise click.UsageError(f"name a directory, or files of {names}")
    return paths


def _tell(report: ImportReport, stopped: str) -> None:
    for problem in report.problems:
        click.echo(problem, err=True)
    if report.rejected > len(report.problems):
        click.echo(f"… and {report.rejected - len(report.problems)} more", err=True)
    for column in report.ignored_columns:
        click.echo(f"column {column} is not known and was passed over", err=True)
    for concept_id, prerequisite_id in report.dropped_edges:
        click.echo(f"left out: {concept_id} no longer needs {prerequisite_id} (cycle)", err=True)
    for name in ("concepts", "questions", "learners"):
        changes = getattr(report, name)
        if changes.created or changes.updated or changes.unchanged:
            click.echo(
                f"{name}: {changes.created:,} new, {changes.updated:,} changed, {changes.unchanged:,} as they were"
            )
    if report.concepts_from_questions:
        click.echo(f"concepts that only questions name: {report.concepts_from_questions:,} created")
    if report.answers_read:
        rate = report.answers_read / max(report.seconds, 1e-9)
        click.echo(
            f"answers: {report.answers_recorded:,} recorded, {report.answers_known:,} known before; "
            f"{report.seconds:.1f} s, {rate:,.0f} a second"
        )
    if report.rejected:
        click.echo(f"rows that are wrong: {report.rejected:,}", err=True)
    if stopped:
        click.echo(f"genie: stopped: {stopped}", err=True)

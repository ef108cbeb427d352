"""`genie export`: the stored catalogue, learners and answers as files, or one learner as JSON. Changes nothing."""

from pathlib import Path

import click

from server.cli.data import CONSOLE, data_options, data_settings, fail, opened, print_json, writing
from server.data_tables import TABLES
from server.exporting import export_learner, export_tables

_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.command(name="export")
@click.argument("directory", required=False, type=click.Path(file_okay=False, path_type=Path))
@click.option("--concepts", type=_FILE, help="File to write concepts to.")
@click.option("--questions", type=_FILE, help="File to write questions to.")
@click.option("--learners", type=_FILE, help="File to write learners to.")
@click.option("--answers", type=_FILE, help="File to write answers to.")
@click.option(
    "--format",
    "extension",
    type=click.Choice(["csv", "csv.gz", "jsonl", "jsonl.gz"]),
    default="csv.gz",
    show_default=True,
    help="Of the files in DIRECTORY; a single file has the format that its name ends in.",
)
@click.option(
    "--learner", default="", metavar="LEARNER_ID", help="Print all that is held of one learner, as JSON."
)
@data_options
def command(
    directory: Path | None,
    concepts: Path | None,
    questions: Path | None,
    learners: Path | None,
    answers: Path | None,
    extension: str,
    learner: str,
    data_directory: str | None,
    config_file: Path | None,
    tenant: str,
    as_json: bool,
) -> None:
    """Write what is stored to files that `genie import` reads.

    Into DIRECTORY go all four kinds; the options name single files. Folders are made. The server may be
    running.
    """
    given = dict(zip(TABLES, (concepts, questions, learners, answers), strict=True))
    paths = {table: path for table, path in given.items() if path is not None}
    if directory is not None:
        paths = {table: directory / f"{table.name}.{extension}" for table in TABLES} | paths
    if not paths and not learner:
        raise click.UsageError("name a directory, a file, or a --learner")
    settings = data_settings(config_file, data_directory)
    with opened(settings) as stores:
        if learner:
            record = export_learner(stores, tenant, learner)
            if record is None:
                fail(f"there is no learner {learner!r} of tenant {tenant!r}")
            print_json(record)
        if not paths:
            return
        with writing(*paths.values()), CONSOLE.status("") as status:
            counts = export_tables(
                stores.state,
                tenant,
                paths,
                progress=lambda name, rows: status.update(f"{name}: {rows:,}"),
            )
    if as_json:
        print_json({"rows": counts, "files": {table.name: str(path) for table, path in paths.items()}})
        return
    for table, path in paths.items():
        click.echo(f"{table.name}: {counts[table.name]:,} rows to {path}")

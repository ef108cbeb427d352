"""`genie train`: new models from the answers, taken into use unless they are worse. Fits nothing itself."""

import sys
import time
from pathlib import Path

import click
from rich.table import Table

from engine.learner.training import TooLittleData
from server.cli.data import CONSOLE, EXIT_PROBLEM, Bars, data_options, data_settings, fail, opened, print_json
from server.models import KEEP_VERSIONS, ModelDirectory
from server.training import TrainingReport, train_models


@click.command(name="train")
@click.option("--force", is_flag=True, help="Take the new models into use even if they are worse.")
@click.option(
    "--seed",
    type=int,
    default=0,
    show_default=True,
    help="The same log, seed and model in use (a fit starts from it) give the same models.",
)
@click.option(
    "--threads", type=click.IntRange(1, 64), default=1, show_default=True, help="Threads to fit with."
)
@click.option(
    "--keep",
    type=click.IntRange(1),
    default=KEEP_VERSIONS,
    show_default=True,
    help="Versions to keep; older ones go.",
)
@click.option("--list", "listed", is_flag=True, help="Train nothing: list the versions there are.")
@click.option("--use", default="", metavar="VERSION", help="Train nothing: take this version into use.")
@data_options
def command(
    force: bool,
    seed: int,
    threads: int,
    keep: int,
    listed: bool,
    use: str,
    data_directory: str | None,
    config_file: Path | None,
    tenant: str,
    as_json: bool,
) -> None:
    """Learn models from the answers.

    The new models predict answers that no training has seen. If they do it worse than the models in use, they are
    refused. A running server takes the new version up by itself. Exit code 1: refused, or too little to learn from.
    """
    settings = data_settings(config_file, data_directory)
    directory = ModelDirectory(settings.data_directory, tenant)
    with opened(settings) as stores:
        if listed or use:
            if use:
                directory.point(use)
            _list(directory, as_json=as_json)
            return
        with Bars() as bars:
            try:
                report = train_models(
                    stores.state,
                    directory,
                    now=time.time(),
                    seed=seed,
                    force=force,
                    threads=threads,
                    keep=keep,
                    progress=lambda stage, done: bars.show(stage, done, 1.0),
                )
            except TooLittleData as error:
                fail(f"too little to learn from: {error}")
    if as_json:
        print_json(report.to_json())
    else:
        _tell(report)
    if report.refused:
        sys.exit(EXIT_PROBLEM)


def _tell(report: TrainingReport) -> None:
    data = report.data
    click.echo(f"fitted to {data['fitted_answers']:,} answers of {data['fitted_learners']:,} learners")
    if report.scores:
        table = Table("model", "log loss", "AUC", "calibration error", title=_title(report))
        for score in report.scores:
            figures = (score.log_loss, score.auc, score.calibration_error)
            table.add_row(score.model, *(f"{figure:.4f}" for figure in figures))
        CONSOLE.print(table)
    if report.refused:
        click.echo(f"refused: {report.refused}. --force takes it all the same.", err=True)
    else:
        click.echo(
            f"{report.version} is in use now"
            + (f", in place of {report.previous}" if report.previous else "")
        )
    if report.pruned:
        click.echo(f"deleted: {', '.join(report.pruned)}")


def _title(report: TrainingReport) -> str:
    return f"{report.held_out_answers:,} answers of learners that no training has seen"


def _list(directory: ModelDirectory, *, as_json: bool) -> None:
    current = directory.current()
    manifests = [directory.manifest(name) for name in directory.versions()]
    if as_json:
        versions = [
            {"version": m.version, "created_at": m.created_at, "data": m.data, "metrics": m.metrics}
            for m in manifests
        ]
        print_json({"current": current, "versions": versions})
        return
    if not manifests:
        click.echo("nothing was trained yet: the server works on documented priors")
    for manifest in manifests:
        mark = "*" if manifest.version == current else " "
        answers = manifest.data.get("fitted_answers", 0)
        click.echo(f"{mark} {manifest.version}  {manifest.created_at}  {answers:,} answers")

"""`genie evaluate`: how well the learner model predicts answers, beside published models. Measures nothing itself."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from engine.catalog import Catalog, build_catalog
from engine.content import WIDTH
from engine.learner import LearnerModel
from engine.learner.charts import evaluation_charts
from engine.learner.evaluate import MEASURES, Evaluation, evaluate
from engine.learner.regression import TrainSettings
from engine.learner.training import TooLittleData
from server.cli.data import Bars, data_options, data_settings, fail, opened, print_json, told, writing
from server.data_files import find_table
from server.data_tables import ANSWERS, CONCEPTS, QUESTIONS
from server.importing import Import
from server.training import gather, question_concepts
from store.api import Partition, Store
from store.catalogs import load_catalog
from store.memory_store import MemoryStore

_SLICES = {
    "all": "all answers",
    "first_attempts": "first at a concept",
    "new_learners": "a learner's first 10",
}


@click.command(name="evaluate")
@click.argument("directory", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--folds",
    type=click.IntRange(2, 20),
    default=5,
    show_default=True,
    help="Parts that learners are split into.",
)
@click.option(
    "--time-split", is_flag=True, help="Instead: fit to the first 80 % of the time, test on the rest."
)
@click.option(
    "--baselines/--no-baselines", default=True, show_default=True, help="Item mean, BKT, PFA, Best-LR, DAS3H."
)
@click.option(
    "--seed", type=int, default=0, show_default=True, help="The same log and seed give the same figures."
)
@click.option(
    "--threads", type=click.IntRange(1, 64), default=1, show_default=True, help="Threads to fit with."
)
@click.option(
    "--plots",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write calibration and AUC by answers given as SVG into this folder.",
)
@data_options
def command(
    directory: Path | None,
    folds: int,
    time_split: bool,
    baselines: bool,
    seed: int,
    threads: int,
    plots: Path | None,
    data_directory: str | None,
    config_file: Path | None,
    tenant: str,
    as_json: bool,
) -> None:
    """Measure predictions of right and wrong on answers that were not fitted to.

    Of the answers in the store or, with DIRECTORY, in files of the import format, which are not stored. Every answer is
    predicted from the learner's own past, by a model fitted to other learners. With --json, one line a model and part.
    """
    with Bars() as bars, _answers(directory, tenant, config_file, data_directory, bars) as store:
        catalog = _catalog(store, tenant)
        gathered = gather(
            store, tenant, judges=False, progress=lambda stage, done: bars.show(stage, done, 1.0)
        )
        try:
            found = evaluate(
                gathered.log,
                question_concepts(catalog),
                seed=seed,
                progress=lambda stage, done: bars.show(stage, done, 1.0),
                folds=folds,
                by_time=time_split,
                timed=gathered.timed,
                with_baselines=baselines,
                settings=TrainSettings(threads=threads),
            )
        except TooLittleData as error:
            fail(f"too little to learn from: {error}")
    _tell(found, as_json=as_json)
    if plots is not None:
        charts = evaluation_charts(directory.name if directory else tenant, found)
        pages = {plots / f"{kind}.svg": chart for kind, chart in charts.items()}
        with writing(*pages):
            for path, chart in pages.items():
                path.write_text(chart, encoding="utf-8")


@contextmanager
def _answers(
    directory: Path | None, tenant: str, config_file: Path | None, data_directory: str | None, bars: Bars
) -> Iterator[Store]:
    """The tenant's store, or one in memory with what the files hold."""
    if directory is None:
        with opened(data_settings(config_file, data_directory)) as stores:
            yield stores.state
        return
    with told():
        paths = {table: find_table(directory, table) for table in (CONCEPTS, QUESTIONS, ANSWERS)}
        store = MemoryStore()
        work = Import(
            store,
            tenant,
            LearnerModel.priors(),
            now=time.time(),
            keep_going=True,
            cut_cycles=True,
            progress=bars.show,
        )
        work.files({table: path for table, path in paths.items() if path is not None})
        if work.report.rejected:
            click.echo(f"{work.report.rejected:,} rows are wrong and were passed over", err=True)
        yield store
        store.close()


def _catalog(store: Store, tenant: str) -> Catalog:
    with store.read(Partition(tenant)) as reader:
        records = load_catalog(reader)
    nowhere = np.zeros((len(records.question_ids), WIDTH), np.float32)
    return build_catalog(records.concepts, records.questions, version=records.version, embeddings=nowhere)


def _tell(found: Evaluation, *, as_json: bool) -> None:
    figures: dict[str, Any] = {
        part: {model: found.measure(model, where) for model in found.predictions}
        for part, where in found.slices().items()
    }
    if as_json:
        for part, models in figures.items():
            for model, measured in models.items():
                answers = int(found.slices()[part].sum())
                print_json({"part": part, "model": model, "answers": answers, **measured})
        return
    for part, models in figures.items():
        count = int(found.slices()[part].sum())
        table = Table("model", *MEASURES, title=f"{_SLICES.get(part, part)}: {count:,}")
        for model, measured in models.items():
            table.add_row(model, *(f"{measured[name]:.4f}" for name in MEASURES))
        Console().print(table)

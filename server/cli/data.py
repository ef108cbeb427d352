"""What the commands on stored data share: where the data is, the tenant, progress, and how failures are told."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from server.cli.failures import EXIT_PROBLEM as EXIT_PROBLEM
from server.cli.failures import fail as fail
from server.cli.failures import writing as writing
from server.cli.settings import refuse
from server.cli.tenant import tenant_option
from server.config import ConfigurationError, Settings, load
from server.data_files import DataFileError
from server.importing import ImportStopped
from server.models import ModelError
from store.api import StoreError, StoreFull, StoreUnavailable
from store.home import is_new
from store.stores import STATE, Stores, open_stores

F = TypeVar("F", bound=Callable[..., Any])

CONSOLE = Console(stderr=True)
"""For people: progress and remarks. Results go to standard output."""


def data_options(function: F) -> F:
    """Give a command --tenant besides `place_options`."""
    return place_options(tenant_option("Whose data.")(function))


def place_options(function: F) -> F:
    """Give a command --data-directory, --config and --json."""
    function = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")(
        function
    )
    function = click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        default=None,
        help="TOML file with settings by name.  [GENIE_CONFIG]",
    )(function)
    return click.option(
        "--data-directory",
        default=None,
        help="Where answers, learners, the catalogue and models are kept.  [GENIE_DATA_DIRECTORY; default .genie]",
    )(function)


def data_settings(config_file: Path | None, data_directory: str | None) -> Settings:
    """The settings, as the server would have them. Exits when they are wrong, or keep nothing on disk."""
    options = {} if data_directory is None else {"data_directory": data_directory}
    try:
        settings = load(environment=os.environ, options=options, file=config_file).settings
    except ConfigurationError as error:
        refuse(error)
    if settings.store == "memory":
        fail("store is memory: there is nothing on disk to work on; set store to lmdb")
    return settings


@contextmanager
def opened(settings: Settings, *, create: bool = False) -> Iterator[Stores]:
    """The stores, while the server may be running; failures end the program with a sentence."""
    with told():
        if not create:
            check_there(settings)
        stores = open_stores(settings.data_directory)
        try:
            yield stores
        finally:
            stores.close()


def check_there(settings: Settings) -> None:
    """Exit where there is no store yet. Raises StoreError."""
    if is_new(settings.data_directory / STATE):
        fail(
            f"there is no store in {settings.data_directory}; start the server, import data, or name another directory"
        )


@contextmanager
def told() -> Iterator[None]:
    """Turn what can go wrong with data into a sentence and an exit code."""
    try:
        yield
    except StoreFull as error:
        fail(f"{error}; make room on the disk and run this again: what was done stays done")
    except StoreUnavailable as error:
        fail(f"the store cannot be used: {error}")
    except (StoreError, DataFileError, ImportStopped, ModelError) as error:
        fail(str(error))
    except KeyboardInterrupt:
        fail("stopped; what was done stays done")


def print_json(record: Any) -> None:
    """One JSON object on standard output; what is no number (NaN) becomes null."""
    click.echo(msgspec.json.encode(record))


class Bars:
    """Progress bars by name on a terminal; nothing where nobody watches. Use as a context manager."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeRemainingColumn(),
            console=CONSOLE,
            disable=not CONSOLE.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> "Bars":
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop drawing."""
        self._progress.stop()

    def show(self, name: str, done: float, total: float) -> None:
        """Move a bar; it appears when it is first named."""
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task(name, total=total)
        self._progress.update(self._tasks[name], completed=done, total=total)

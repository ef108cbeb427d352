"""How a command that could not do its work says so and ends. Judges no data."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import click

EXIT_PROBLEM = 1
"""The command did its work and something is wrong with the data, or it could not do its work."""


def fail(message: str) -> NoReturn:
    """Print a message for people and exit."""
    click.echo(f"genie: {message}", err=True)
    sys.exit(EXIT_PROBLEM)


@contextmanager
def writing(*paths: Path) -> Iterator[None]:
    """Make the folders of files about to be written; what cannot be written ends the program, path and cause named."""
    try:
        for path in paths:
            _make_folder_of(path)
        yield
    except OSError as error:
        names = error.filename or ", ".join(map(str, paths))
        fail(f"cannot write {names}: {error.strerror or error}")


def _make_folder_of(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        last = next(folder for folder in path.parents if folder.exists())
        cause = (
            f"{path.parent} cannot be made: {error.strerror}" if last.is_dir() else f"{last} is no directory"
        )
        raise OSError(error.errno, cause, str(path)) from error

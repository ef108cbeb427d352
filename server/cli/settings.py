"""Command-line options made from the settings, and the settings made from them. Adds no setting of its own."""

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from server.config import Configuration, ConfigurationError, load, settings_info
from server.workers import EXIT_CONFIGURATION

F = TypeVar("F", bound=Callable[..., Any])

_METAVARS = {int: "NUMBER", float: "NUMBER", str: "TEXT", Path: "PATH"}


def settings_options(function: F) -> F:
    """Give a command `--config` and an option for every setting; unset ones arrive as None."""
    for info in reversed(settings_info()):
        shown = f"[{info.variable}; default {_shown(info.default)}; {info.bound}]"
        name = info.option
        if info.kind is bool:
            name = f"{info.option}/--no-{info.option[2:]}"
        function = click.option(
            name,
            info.name,
            default=None,
            type=bool if info.kind is bool else str,
            metavar=_METAVARS.get(info.kind),
            help=f"{info.about}.  {shown}",
        )(function)
    return click.option(
        "--config",
        "config_file",
        type=click.Path(path_type=Path),
        default=None,
        help="TOML file with settings by name.  [GENIE_CONFIG]",
    )(function)


def configuration(config_file: Path | None, options: dict[str, Any]) -> Configuration:
    """The settings of this process. Prints what is wrong and exits with EX_CONFIG when there is something."""
    try:
        return load(environment=os.environ, options=texts(options), file=config_file)
    except ConfigurationError as error:
        refuse(error)


def texts(options: dict[str, Any]) -> dict[str, str]:
    """The options that were given, as the texts `server.config.load` takes."""
    return {name: _text(value) for name, value in options.items() if value is not None}


def refuse(error: ConfigurationError) -> NoReturn:
    """Print every problem and exit with EX_CONFIG."""
    for problem in error.problems:
        click.echo(f"genie: {problem}", err=True)
    sys.exit(EXIT_CONFIGURATION)


def as_arguments(config_file: Path | None, options: dict[str, Any]) -> Sequence[str]:
    """The same options as command-line arguments for another process."""
    found = [] if config_file is None else ["--config", str(config_file)]
    for info in settings_info():
        value = options.get(info.name)
        if value is None:
            continue
        if info.kind is bool:
            found.append(info.option if value else f"--no-{info.option[2:]}")
        else:
            found.append(f"{info.option}={value}")
    return found


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:.12g}" if isinstance(value, float) else str(value) or "none"

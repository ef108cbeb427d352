"""`genie serve`: reserves the port and supervises the workers. Serves nothing in its own process."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from server.cli.settings import as_arguments, configuration, refuse, settings_options
from server.config import ConfigurationError, Settings
from server.logs import configure, log
from server.workers import Supervisor, reserve_port

_LOG = logging.getLogger("genie.serve")


@click.command(name="serve")
@settings_options
@click.option("--assemble", default="", hidden=True, help="module:function that builds the services.")
def command(config_file: Path | None, assemble: str, **options: Any) -> None:
    """Run the server: workers that share one port.

    A setting comes from its option here, else from its environment variable, else from the --config file, else it is
    the default. SIGTERM drains and stops; SIGHUP replaces the workers one by one, with the settings as they are then.
    """
    settings, _, warnings = configuration(config_file, options)
    configure(level=settings.log_level, style=settings.log_format)
    for warning in warnings:
        log(_LOG, logging.WARNING, warning)
    try:
        held, host, port = reserve_port(settings.host, settings.port)
    except ConfigurationError as error:
        refuse(error)
    arguments = [*as_arguments(config_file, {**options, "host": host, "port": port})]
    if assemble:
        arguments += ["--assemble", assemble]

    def worker_command(slot: int, control: int) -> list[str]:
        marks = [f"--worker-id={slot + 1}", f"--control-fd={control}"]
        return [sys.executable, "-m", "server", "worker", *marks, *arguments]

    def announce() -> None:
        log(
            _LOG, logging.INFO, "serving", address=f"{host}:{port}", workers=settings.workers, pid=os.getpid()
        )

    with held:
        code = _supervisor(settings, worker_command, announce).run()
    sys.exit(code)


def _supervisor(settings: Settings, worker_command: Any, announce: Any) -> Supervisor:
    return Supervisor(
        workers=settings.workers,
        command=worker_command,
        start_seconds=settings.start_seconds,
        drain_seconds=settings.drain_notice_seconds + settings.drain_seconds,
        on_serving=announce,
    )

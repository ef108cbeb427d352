"""`genie experiments`: runs the experiment service in a process that is kept alive. Serves nothing itself."""

import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from server.cli.settings import configuration, refuse, settings_options
from server.config import ConfigurationError
from server.experiments.process import reserve_address, worker_command
from server.logs import configure, log
from server.workers import Supervisor

_LOG = logging.getLogger("genie.experiments")


@click.command(name="experiments")
@settings_options
def command(config_file: Path | None, **options: Any) -> None:
    """Run the experiment service by itself, at experiments_address; `genie serve` starts one alongside otherwise.

    It takes the settings of `genie serve`, and uses those about its own address, the data directory, policies, TLS,
    draining and logs. Let the servers find it with `--experiments=elsewhere --experiments-address=HOST:PORT`.
    """
    settings, _, warnings = configuration(config_file, options)
    configure(level=settings.log_level, style=settings.log_format)
    for warning in warnings:
        log(_LOG, logging.WARNING, warning)
    try:
        held, host, port = reserve_address(settings.experiments_address)
    except ConfigurationError as error:
        refuse(error)

    def start(slot: int, control: int) -> list[str]:
        return worker_command(
            config_file,
            options,
            settings,
            host=host,
            port=port,
            secure=True,
            control=control,
            worker_id=slot + 1,
        )

    def announce() -> None:
        log(_LOG, logging.INFO, "serving experiments", address=f"{host}:{port}", pid=os.getpid())

    with held:
        code = Supervisor(
            workers=1,
            command=start,
            start_seconds=settings.start_seconds,
            hang_seconds=settings.hang_seconds,
            drain_seconds=settings.drain_notice_seconds + settings.drain_seconds,
            on_serving=announce,
        ).run()
    sys.exit(code)

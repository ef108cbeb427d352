"""`genie serve`: reserves the port and supervises the workers. Serves nothing in its own process."""

import logging
import os
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

import click

from server.cli.settings import as_arguments, configuration, refuse, settings_options
from server.config import ConfigurationError, Settings
from server.experiments.process import reserve_address, worker_command
from server.logs import configure, log
from server.port import reserve_port
from server.workers import Supervisor

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
    companion = _Companion(config_file, options, settings)
    if settings.experiments == "alongside" and not assemble:
        options = {**options, **companion.reserve()}
    # A store in memory is its worker's alone, which then answers for the metrics too.
    endpoint = _Endpoint(settings if settings.store == "lmdb" and not assemble else None)
    options = {**options, **endpoint.reserve()}
    arguments = [*as_arguments(config_file, {**options, "host": host, "port": port})]
    endpoint.arguments = [*arguments]
    if assemble:
        arguments += ["--assemble", assemble]
    beside = [each.command for each in (companion, endpoint) if each.wanted]

    def command_of(slot: int, control: int) -> list[str]:
        if slot >= settings.workers:
            return beside[slot - settings.workers](slot, control)
        marks = [f"--worker-id={slot + 1}", f"--control-fd={control}"]
        return [sys.executable, "-m", "server", "worker", *marks, *arguments]

    def announce() -> None:
        log(
            _LOG, logging.INFO, "serving", address=f"{host}:{port}", workers=settings.workers, pid=os.getpid()
        )

    with held, companion, endpoint:
        code = Supervisor(
            workers=settings.workers,
            companions=len(beside),
            command=command_of,
            start_seconds=settings.start_seconds,
            hang_seconds=settings.hang_seconds,
            drain_seconds=settings.drain_notice_seconds + settings.drain_seconds,
            on_serving=announce,
        ).run()
    sys.exit(code)


class _Companion:
    """The experiment service alongside: its address, and its command line."""

    def __init__(self, config_file: Path | None, options: dict[str, Any], settings: Settings) -> None:
        self._config_file = config_file
        self._options = options
        self._settings = settings
        self._held: socket.socket | None = None
        self._host, self._port = "", 0

    @property
    def wanted(self) -> bool:
        """Whether it is to be started."""
        return self._held is not None

    def reserve(self) -> dict[str, str]:
        """Take the address; what workers have to be told of it. Without one, experiments are off."""
        try:
            self._held, self._host, self._port = reserve_address(self._settings.experiments_address)
        except ConfigurationError as error:
            log(_LOG, logging.WARNING, "experiments are off: their address is taken", problem=str(error))
            return {"experiments": "off"}
        shown = f"[{self._host}]" if ":" in self._host else self._host
        return {"experiments_address": f"{shown}:{self._port}"}

    def command(self, slot: int, control: int) -> list[str]:
        """The command line of its process, which needs no TLS where only this machine reaches it."""
        # The workers poll it every second; only what fails or is slow is worth a line.
        return worker_command(
            self._config_file,
            {**self._options, "access_log_ratio": "0"},
            self._settings,
            host=self._host,
            port=self._port,
            secure=not ip_address(self._host).is_loopback,
            control=control,
            worker_id=slot + 1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            self._held.close()


class _Endpoint:
    """The process that answers Prometheus for all workers: its address, and its command line."""

    def __init__(self, settings: Settings | None) -> None:
        self._address = "" if settings is None else settings.metrics_address
        self._held: socket.socket | None = None
        self.arguments: list[str] = []
        """The settings, as arguments."""

    @property
    def wanted(self) -> bool:
        """Whether it is to be started."""
        return self._held is not None

    def reserve(self) -> dict[str, str]:
        """Take the address; what is to be told of it. Exits when somebody else has it."""
        if not self._address:
            return {}
        try:
            self._held, host, port = reserve_address(self._address)
        except ConfigurationError:
            refuse(ConfigurationError([f"metrics_address: cannot listen on {self._address}"]))
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        log(_LOG, logging.INFO, "metrics", url=f"http://{address}/metrics")
        return {"metrics_address": address}

    def command(self, slot: int, control: int) -> list[str]:
        """The command line of its process."""
        marks = [f"--worker-id={slot + 1}", f"--control-fd={control}"]
        return [sys.executable, "-m", "server", "metrics", *marks, *self.arguments]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._held is not None:
            self._held.close()

"""`genie worker`: one serving process, started by `genie serve`. Not for people."""

import importlib
import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import click

from server.app import Assemble, Genie
from server.cli.settings import configuration, settings_options
from server.config import ConfigurationError, Settings
from server.footprint import settle
from server.lifeline import hold
from server.logs import configure, log
from server.workers import EXIT_CONFIGURATION
from store.api import StoreError

_LOG = logging.getLogger("genie.worker")
_DEFAULT_ASSEMBLY = "server.assembly:assemble"


@click.command(name="worker", hidden=True)
@settings_options
@click.option("--assemble", default=_DEFAULT_ASSEMBLY, help="module:function that builds the services.")
@click.option("--worker-id", type=int, required=True, help="Number of this worker, on every log line.")
@click.option("--control-fd", type=int, required=True, help="Descriptor of the socket to the supervisor.")
def command(config_file: Path | None, assemble: str, worker_id: int, control_fd: int, **options: Any) -> None:
    """Serve on a port shared with other workers until told to stop, or until the supervisor is gone."""
    settings = configuration(config_file, options).settings
    configure(level=settings.log_level, style=settings.log_format, worker=worker_id)
    # Children of this process must not keep the socket open beyond its own life.
    os.set_inheritable(control_fd, False)
    module, _, function = assemble.partition(":")
    build: Assemble = getattr(importlib.import_module(module), function)
    with socket.socket(fileno=control_fd) as control:
        try:
            clean = _serve(settings, build, control)
        except ConfigurationError as error:
            for problem in error.problems:
                log(_LOG, logging.CRITICAL, "a setting cannot be used", problem=problem)
            sys.exit(EXIT_CONFIGURATION)
        except StoreError as error:
            log(
                _LOG,
                logging.CRITICAL,
                "the store cannot be used; `genie doctor` says more",
                problem=str(error),
            )
            sys.exit(1)
    logging.shutdown()
    # A thread that is stuck in a call that was cut off must not keep the process.
    os._exit(0 if clean else 1)


def _serve(settings: Settings, build: Assemble, control: socket.socket) -> bool:
    """Serve until a signal or the supervisor's end; True when no call had to be cut off."""
    stop = threading.Event()
    # Whoever is replaced (SIGHUP) has a successor that serves already, so nobody has to be warned.
    notice = True

    def on_signal(number: int, _: object) -> None:
        nonlocal notice
        notice = number != signal.SIGHUP
        stop.set()

    def on_gone() -> None:
        if not stop.is_set():
            log(_LOG, logging.WARNING, "the supervisor is gone: draining")
            stop.set()

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, on_signal)
    # A terminal's Ctrl-C reaches the whole group; the supervisor then tells each worker what to do.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    genie = Genie(settings, build)
    if not stop.is_set():
        genie.start()
        settle()
        hold(control, on_gone)
        stop.wait()
    return genie.drain(notice=notice)

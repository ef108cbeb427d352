"""`genie metrics`: the process that answers Prometheus, started by `genie serve`. Not for people."""

import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import click

from server.cli.settings import configuration, settings_options
from server.experiments.spool import SPOOL
from server.exposition import Endpoint, Exposition
from server.lifeline import hold
from server.logs import configure, log
from server.measuring import boards_of
from server.workers import EXIT_CONFIGURATION
from store.api import StoreError
from store.stores import open_stores

_LOG = logging.getLogger("genie.metrics")


@click.command(name="metrics", hidden=True)
@settings_options
@click.option("--worker-id", type=int, required=True, help="Number of this process, on every log line.")
@click.option("--control-fd", type=int, required=True, help="Descriptor of the socket to the supervisor.")
def command(config_file: Path | None, worker_id: int, control_fd: int, **options: Any) -> None:
    """Answer scrapes at metrics_address until told to stop, or until the supervisor is gone."""
    settings = configuration(config_file, options).settings
    configure(level=settings.log_level, style=settings.log_format, worker=worker_id)
    os.set_inheritable(control_fd, False)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    directory = settings.data_directory
    boards = boards_of(settings)
    try:
        stores = open_stores(directory)
    except StoreError as error:
        log(_LOG, logging.CRITICAL, "the store cannot be used", problem=str(error))
        sys.exit(1)
    host, _, port = settings.metrics_address.rpartition(":")
    try:
        exposition = Exposition(lambda: boards.read(now=time.time(), seconds=0.0), stores, directory / SPOOL)
        endpoint = Endpoint(exposition, host.strip("[]"), int(port))
    except OSError as error:
        log(_LOG, logging.CRITICAL, "metrics_address cannot be used", problem=str(error))
        stores.close()
        sys.exit(EXIT_CONFIGURATION)
    endpoint.start()
    with socket.socket(fileno=control_fd) as control:
        hold(control, stop.set)
        stop.wait()
        endpoint.close()
        stores.close()
    logging.shutdown()
    # The thread that waits for the supervisor must not keep the process.
    os._exit(0)

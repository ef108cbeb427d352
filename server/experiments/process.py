"""How the experiment service's process is started, by itself or alongside the server. Starts nothing."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from server.cli.settings import as_arguments
from server.config import Settings
from server.port import reserve_port

ASSEMBLY = "server.experiments.assembly:assemble"
MOST_STREAMS = 1_024
"""Streams of the service's process unless `max_streams` says otherwise: watchers are many, and mostly idle."""
_OWN = (
    "host",
    "port",
    "max_streams",
    "workers",
    "tls_certificate_file",
    "tls_key_file",
    "tls_client_ca_file",
)


def reserve_address(address: str) -> tuple[Any, str, int]:
    """Bind host:port; the socket to keep open, the numeric host, the port. Raises ConfigurationError."""
    host, _, port = address.rpartition(":")
    return reserve_port(host, int(port))


def worker_command(
    config_file: Path | None,
    options: dict[str, Any],
    settings: Settings,
    *,
    host: str,
    port: int,
    secure: bool,
    control: int,
    worker_id: int,
) -> list[str]:
    """The command line of the process. Without `secure` it serves without TLS whatever the settings say."""
    streams = MOST_STREAMS if settings.max_streams == Settings().max_streams else settings.max_streams
    own: dict[str, Any] = {"host": host, "port": port, "max_streams": streams, "workers": 1}
    for name in ("tls_certificate_file", "tls_key_file", "tls_client_ca_file"):
        own[name] = getattr(settings, name) if secure else ""
    given = {name: value for name, value in options.items() if name not in _OWN}
    marks: Sequence[str] = (
        f"--worker-id={worker_id}",
        f"--control-fd={control}",
        f"--assemble={ASSEMBLY}",
    )
    return [sys.executable, "-m", "server", "worker", *marks, *as_arguments(config_file, {**given, **own})]

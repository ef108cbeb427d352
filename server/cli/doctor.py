"""`genie doctor`: looks at settings, machine, stores, experiments and models, and says what to do. Changes nothing."""

import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from server.cli.doctor_stores import looked_into, running, stored
from server.cli.finding import FULL_SHARE, OK, PROBLEM, WARNING, Finding
from server.cli.settings import settings_options, texts
from server.config import ConfigurationError, Settings, load
from server.port import reserve_port

_LIBRARIES = ("grpcio", "protobuf", "numpy", "scipy", "numba", "faiss-cpu", "lmdb", "implicit", "msgspec")
_FREE_BYTES_WANTED = 1 << 30
_FREE_BYTES_NEEDED = 64 << 20
_FILES_WANTED = 4_096
_COLOURS = {OK: "green", WARNING: "yellow", PROBLEM: "red"}


@click.command(name="doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for programs.")
@click.option(
    "--recount", is_flag=True, help="Also count anew what all learners did, which reads every answer."
)
@settings_options
def command(config_file: Path | None, as_json: bool, recount: bool, **options: Any) -> None:
    """Check settings, machine, stores, catalogue, experiments and models, and say what to do about what is wrong.

    Takes the options of `genie serve`, so that the same command line can be checked before it is run. Exits with 1
    when something keeps the server from working.
    """
    findings = list(_examine(config_file, options, recount=recount))
    healthy = all(finding.state != PROBLEM for finding in findings)
    if as_json:
        print(json.dumps({"healthy": healthy, "findings": [finding._asdict() for finding in findings]}))
    else:
        _show(findings)
    sys.exit(0 if healthy else 1)


def _examine(config_file: Path | None, options: dict[str, Any], *, recount: bool) -> Iterator[Finding]:
    yield from _libraries()
    try:
        settings, _, warnings = load(environment=os.environ, options=texts(options), file=config_file)
    except ConfigurationError as error:
        for problem in error.problems:
            yield Finding(
                "settings", PROBLEM, problem, "correct it; `genie serve --help` lists every setting"
            )
        return
    yield Finding("settings", OK, "all values are inside their bounds")
    for warning in warnings:
        yield Finding("settings", WARNING, warning, "rename or remove the variable")
    checks: tuple[Callable[[Settings], Iterator[Finding]], ...] = (
        _policies,
        _machine,
        _port,
        _tls,
        _disk,
        partial(stored, recount=recount),
        _experiments,
        _spool,
    )
    for check in checks:
        yield from check(settings)


def _libraries() -> Iterator[Finding]:
    versions, missing = [f"Python {sys.version.split()[0]}"], []
    for name in _LIBRARIES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        advice = f"install them: pip install {' '.join(missing)}"
        yield Finding("libraries", PROBLEM, f"{', '.join(missing)} not installed", advice)
    yield Finding("libraries", OK, ", ".join(versions))


def _policies(settings: Settings) -> Iterator[Finding]:
    from server.assembly import policies_of

    try:
        policies = policies_of(settings)
    except ConfigurationError as error:
        for problem in error.problems:
            yield Finding("policies", PROBLEM, problem, "correct the file, or the setting that names it")
        return
    yield Finding("policies", OK, f"{', '.join(sorted(policies))}; default {settings.default_policy}")


def _machine(settings: Settings) -> Iterator[Finding]:
    cores = os.cpu_count() or 1
    if settings.workers > cores:
        seen = f"{settings.workers} workers on {cores} cores"
        yield Finding(
            "processors", WARNING, seen, "more workers than cores only add waiting: set workers lower"
        )
    else:
        yield Finding("processors", OK, f"workers: {settings.workers}, cores: {cores}")
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if files != resource.RLIM_INFINITY and files < _FILES_WANTED:
        seen = f"a process may open {files} files, and every connection is one"
        yield Finding(
            "open files", WARNING, seen, f"raise the limit, for example `ulimit -n {_FILES_WANTED}`"
        )
    else:
        yield Finding("open files", OK, f"a process may open {files}")
    package = Path(__file__).parents[2] / "engine"
    cache = Path(os.environ.get("NUMBA_CACHE_DIR", package))
    if not os.access(cache, os.W_OK):
        seen = f"compiled kernels cannot be kept in {cache}, so every start compiles them again"
        yield Finding("kernel cache", WARNING, seen, "set NUMBA_CACHE_DIR to a directory that can be written")
    else:
        yield Finding("kernel cache", OK, str(cache))


def _port(settings: Settings) -> Iterator[Finding]:
    address = f"{settings.host}:{settings.port}"
    try:
        held, _, _ = reserve_port(settings.host, settings.port)
    except ConfigurationError as error:
        if _answers(address, secure=bool(settings.tls_certificate_file)):
            yield Finding("port", OK, f"a server is serving at {address}")
        else:
            yield Finding("port", PROBLEM, str(error), "choose another port, or stop what listens there")
        return
    held.close()
    yield Finding("port", OK, f"{address} is free")


def _answers(address: str, *, secure: bool) -> bool:
    """Whether a healthy gRPC server is there; one behind TLS is only asked whether it listens."""
    import grpc
    from grpc_health.v1 import health_pb2

    channel = grpc.insecure_channel(address)
    check: Any = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        health_pb2.HealthCheckRequest.SerializeToString,
        health_pb2.HealthCheckResponse.FromString,
    )
    with channel:
        try:
            status = check(health_pb2.HealthCheckRequest(), timeout=2.0).status
        except grpc.RpcError:
            return secure
    return bool(status == health_pb2.HealthCheckResponse.SERVING)


def _tls(settings: Settings) -> Iterator[Finding]:
    if not settings.tls_certificate_file:
        exposed = settings.host not in ("127.0.0.1", "::1", "[::1]", "localhost")
        if exposed:
            seen = f"off, and {settings.host} can be reached from other machines"
            yield Finding(
                "TLS", WARNING, seen, "set tls_certificate_file and tls_key_file, or keep the network private"
            )
        else:
            yield Finding("TLS", OK, "off, and only this machine can connect")
        return
    import ssl

    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(settings.tls_certificate_file, settings.tls_key_file)
        if settings.tls_client_ca_file:
            context.load_verify_locations(settings.tls_client_ca_file)
    except (OSError, ssl.SSLError) as error:
        advice = "check that the files exist, are PEM, and that the key belongs to the certificate"
        yield Finding("TLS", PROBLEM, f"the files cannot be used: {error}", advice)
        return
    yield Finding("TLS", OK, f"certificate and key of {settings.tls_certificate_file} belong together")


def _disk(settings: Settings) -> Iterator[Finding]:
    directory = settings.data_directory.absolute()
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        advice = f"make {existing} a directory that this user may write, or set data_directory"
        yield Finding("data directory", PROBLEM, f"{directory} cannot be written", advice)
        return
    free = shutil.disk_usage(existing).free
    seen = f"{directory}, {free / 2**30:.1f} GiB free"
    if free < _FREE_BYTES_NEEDED:
        yield Finding("data directory", PROBLEM, seen, "make room: answers cannot be recorded without it")
    elif free < _FREE_BYTES_WANTED:
        yield Finding("data directory", WARNING, seen, "make room soon")
    else:
        yield Finding("data directory", OK, seen)


def _experiments(settings: Settings) -> Iterator[Finding]:
    if settings.experiments == "off":
        yield Finding("experiments", OK, "off: nothing is assigned or reported")
        return
    address = settings.experiments_address
    if _answers(address, secure=False):
        yield Finding("experiments", OK, f"the experiment service answers at {address}")
    elif settings.experiments == "elsewhere":
        seen = f"nobody answers at {address}: assignment goes on from the last snapshot, reports wait"
        yield Finding("experiments", WARNING, seen, "start it there: `genie experiments`")
    else:
        host, _, port = address.rpartition(":")
        try:
            reserve_port(host, int(port))[0].close()
            yield Finding("experiments", OK, f"the service starts with the server, at {address}")
        except ConfigurationError as error:
            advice = "set experiments_address to a free one: experiments are off while it is taken"
            yield Finding("experiments", WARNING, str(error), advice)
    if settings.experiments == "alongside" and settings.store != "memory":
        from store.stores import EXPERIMENTS

        yield from looked_into("experiment store", settings.data_directory / EXPERIMENTS, running)


def _spool(settings: Settings) -> Iterator[Finding]:
    from server.experiments.spool import MOST_SPOOL_BYTES, REFUSED_SUFFIX, SPOOL, SUFFIX

    directory = settings.data_directory / SPOOL
    waiting = [path.stat() for path in directory.glob(f"*{SUFFIX}")]
    refused = [path.name for path in directory.glob(f"*{REFUSED_SUFFIX}")]
    size = sum(found.st_size for found in waiting)
    seen = f"{len(waiting)} files, {size / 2**20:.1f} MiB wait for the experiment service"
    if size > FULL_SHARE * MOST_SPOOL_BYTES:
        advice = "start the service: at 1 GiB reports are dropped"
        yield Finding("spool", WARNING, seen, advice)
    else:
        yield Finding("spool", OK, seen)
    if refused:
        advice = f"the log says why; look at them in {directory}, then delete them: they name learners"
        yield Finding("spool", WARNING, f"{len(refused)} files of reports were put aside", advice)


def _show(findings: list[Finding]) -> None:
    table = Table(box=None, pad_edge=False, show_header=False)
    for finding in findings:
        seen = finding.seen if not finding.advice else f"{finding.seen}\n→ {finding.advice}"
        # Text, not str: what was seen may hold brackets, which are markup to rich.
        table.add_row(Text(finding.state, _COLOURS[finding.state]), Text(finding.about), Text(seen))
    Console(soft_wrap=False).print(table)

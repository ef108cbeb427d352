"""What the commands that call a server share: where it is, how its replies and errors are shown. Calls no method."""

import shlex
import shutil
import ssl
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import grpc
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_status import rpc_status

from server.cli.tenant import tenant_option
from server.rpc import DEFAULT_TENANT, TENANT_HEADER

F = TypeVar("F", bound=Callable[..., Any])

EXIT_FAILED = 1
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
DEFAULT_TARGET = "127.0.0.1:50051"
LEVELS = ("simple", "detailed", "technical")


def client_options(function: F) -> F:
    """Give a command --target, --tenant, --timeout, --tls-ca-file and --json."""
    options = (
        click.option("--json", "as_json", is_flag=True, help="Print the reply as JSON."),
        tls_option,
        click.option("--timeout", "timeout_seconds", default=5.0, show_default=True, help="Seconds to wait."),
        tenant_option("Whose data."),
        click.option("--target", default=DEFAULT_TARGET, show_default=True, help="host:port of the server."),
    )
    for option in options:
        function = option(function)
    return function


def tls_option(function: F) -> F:
    """Give a command --tls-ca-file; a file without certificates is refused before any call."""
    return click.option(
        "--tls-ca-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        callback=_checked_roots,
        help="Call with TLS, trusting these PEM roots.",
    )(function)


def _checked_roots(_: click.Context, __: click.Parameter, value: Path | None) -> Path | None:
    if value is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(value)
        except OSError as error:
            raise click.BadParameter(f"{value} holds no PEM certificates that can be read: {error}") from None
    return value


@contextmanager
def connection(target: str, tls_ca_file: Path | None) -> Iterator[grpc.Channel]:
    """A channel for one call; a call that fails ends the command with the reason in words."""
    if tls_ca_file is None:
        channel = grpc.insecure_channel(target)
    else:
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(tls_ca_file.read_bytes()))
    with channel:
        try:
            yield channel
        except grpc.RpcError as error:
            click.echo(f"genie: {failure(error, target)}", err=True)
            sys.exit(EXIT_FAILED)


def is_serving(target: str, timeout_seconds: float = 2.0) -> bool:
    """Whether a server answers there and its overall health is SERVING."""
    with grpc.insecure_channel(target) as channel:
        check = channel.unary_unary(
            HEALTH_CHECK,
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        try:
            reply = check(health_pb2.HealthCheckRequest(), timeout=timeout_seconds)
        except grpc.RpcError:
            return False
    return bool(reply.status == health_pb2.HealthCheckResponse.SERVING)


def metadata(tenant: str) -> tuple[tuple[str, str | bytes], ...]:
    """Headers that name the tenant."""
    return ((TENANT_HEADER, tenant),)


def failure(error: grpc.RpcError, target: str) -> str:
    """What went wrong with a call, and what to do about it where that is known."""
    call: Any = error
    status = rpc_status.from_call(call)
    if status is None:
        code, details = call.code(), call.details()
        if code is grpc.StatusCode.UNAVAILABLE:
            return f"no server answers at {target} ({details}); start one with `genie serve`, or name it with --target"
        if code is grpc.StatusCode.UNIMPLEMENTED:
            return (
                f"what listens at {target} does not know this call ({details}); experiments have a port of their own, "
                "as a rule 50052, and everything else is asked of 50051: name the right one with --target"
            )
        return f"{code.name}: {details}"
    reason = ""
    for detail in status.details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            reason = f" [{info.reason}]"
    return f"{status.message}{reason}"


def follow_up(*arguments: str, target: str, tenant: str, tls_ca_file: Path | None) -> str:
    """A command to run next against the same server, ready to be copied."""
    options = [] if target == DEFAULT_TARGET else ["--target", target]
    options += [] if tenant == DEFAULT_TENANT else ["--tenant", tenant]
    options += [] if tls_ca_file is None else ["--tls-ca-file", str(tls_ca_file)]
    return shlex.join([*_program(), *arguments, *options])


def _program() -> list[str]:
    """How this program is run from here: by its name where the path leads to it."""
    python = Path(sys.executable)
    own = python.parent / "genie"
    if not own.exists():
        return [_shown(python), "-m", "server"]
    found = shutil.which("genie")
    return ["genie" if found is not None and own.samefile(found) else _shown(own)]


def _shown(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def print_message(message: Message) -> None:
    """A reply as JSON on standard output."""
    click.echo(
        MessageToJson(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    )

"""A server of the echo service inside the test's own process."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from server.admission import Drain
from server.app import Assembly, Genie
from server.config import Settings
from tests.server.echo import ECHO, Echo, EchoClient


@dataclass(frozen=True)
class Running:
    """What a test needs of a running server."""

    genie: Genie
    echo: Echo
    client: EchoClient
    channel: grpc.Channel
    port: int


@contextlib.contextmanager
def serving(
    probe: Callable[[], None] = lambda: None, *, brief: frozenset[str] = frozenset(), **settings: object
) -> Iterator[Running]:
    """Serve the echo service on a free port until the block ends; drains it unless the test did."""
    echo = Echo()
    drained: list[bool] = []

    def assemble(_: Settings, drain: Drain) -> Assembly:
        return Assembly(services=[(ECHO, echo)], probe=probe, brief=brief, close=lambda: drained.append(True))

    merged = {"port": 0, "health_probe_seconds": 0.1, "drain_seconds": 5.0, **settings}
    genie = Genie(Settings(**merged), assemble)  # type: ignore[arg-type]
    port = genie.start()
    try:
        # A ping that reaches the server as it closes a connection has the last replies thrown away by a reset from
        # gRPC's core, which closes without reading what has come.
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_retries", 0),
            ("grpc.http2.bdp_probe", 0),
        ]
        with grpc.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            yield Running(genie, echo, EchoClient(channel), channel, port)
    finally:
        if not drained:
            genie.drain(notice=False)
        assert drained == [True]


M = TypeVar("M", bound=Message)


def failure(call: Callable[[], object]) -> Any:
    """The error that `call` ends with, which is a grpc.Call as well."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def detail(error: grpc.Call, into: M) -> M | None:
    """The detail of a rich error that is a message like `into`; None when it has none."""
    status = rpc_status.from_call(error)
    assert status is not None
    return next((into for packed in status.details if packed.Unpack(into)), None)


def reason(error: grpc.Call) -> str:
    """The ErrorInfo's reason."""
    info = detail(error, error_details_pb2.ErrorInfo())
    assert info is not None
    return str(info.reason)

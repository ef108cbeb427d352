"""Calls of a service's methods without a wire."""

from typing import Any, cast

import grpc

from server.admission import Drain
from server.rpc import Call

NOW = 1_800_000_000.0


class _Context:
    def time_remaining(self) -> float:
        return 60.0

    def is_active(self) -> bool:
        return True


def a_call(*, now: float = NOW, tenant: str = "default", method: str = "/genie.v1.Test/Test") -> Call:
    """A call that arrives at `now`."""
    call = Call(method, tenant, "c-1", cast(grpc.ServicerContext, _Context()), Drain())
    call.now = now
    return call


def refusal(error: Exception) -> dict[str, Any]:
    """What a caller branches on."""
    assert hasattr(error, "reason"), repr(error)
    assert hasattr(error, "facts"), repr(error)
    return {"reason": error.reason, **error.facts}

"""A unary call's message, asked for before a thread is free for the call. Knows nothing of what messages mean.

grpcio asks for the message of a unary call on the thread that will serve it, which then waits until the thread that
delivers events hands it over: two changes of threads for nothing while other calls queue. Here the delivering thread
asks for it at once, so that it is there when a thread takes the call: a fifth of the CPU time of an empty call.

This leans on parts of grpcio that are its own. Where they are not as known, messages are read as always, only later.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import grpc
from grpc import _server

from server.admission import CallPool

MOST_AHEAD = 64
"""Calls that may wait with their message read; those beyond are left in gRPC's hands, which slows their sender down."""

_ITERATOR: Final[Any] = getattr(_server, "_RequestIterator", None)
_RECEIVING: Final[Any] = (
    getattr(_server, "_RECEIVE_MESSAGE_TOKEN", None)
    if hasattr(_ITERATOR, "_raise_or_start_receive_message") and hasattr(_ITERATOR, "_look_for_request")
    else None
)
"""What gRPC notes of a call whose message it was asked for; None when this grpcio is not as known."""
_ARGUMENT = 4
"""Where gRPC's call of `submit` has the function that returns the iterator over a call's messages."""


class ReadAhead(ThreadPoolExecutor):
    """Hands calls over to a pool, their message asked for. It is an executor by name only, since gRPC wants one."""

    def __init__(self, pool: CallPool) -> None:
        """`pool` serves the calls."""
        super().__init__(max_workers=1)
        self._pool = pool

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Ask for the call's message and hand the call over. gRPC calls this on the thread that delivers events."""
        if _RECEIVING is not None and len(args) > _ARGUMENT and self._pool.unfinished < MOST_AHEAD:
            requests = args[_ARGUMENT]()
            if isinstance(requests, _ITERATOR):
                try:
                    with requests._state.condition:
                        requests._raise_or_start_receive_message()
                except (grpc.RpcError, StopIteration):
                    # The caller has gone already, as the thread that takes the call will see.
                    pass
        return self._pool.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Nothing to end: the pool has an owner."""


def one_message(requests: Any) -> bytes:
    """The call's message, whether it was asked for or not.

    Raises:
        StopIteration: the caller sent none. grpc.RpcError: the call was cancelled.
    """
    if _RECEIVING is not None and isinstance(requests, _ITERATOR):
        state = requests._state
        with state.condition:
            while state.request is None and _RECEIVING in state.due:
                state.condition.wait()
            if state.request is not None:
                asked: bytes = requests._look_for_request()
                return asked
    message: bytes = next(requests)
    return message

"""Calls of one method that wait for the same thread, answered together: what costs least for many is done once.

Each call keeps its own headers, error, log line and count, as if it had been served by itself.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import grpc

from server import errors
from server.admission import WouldWait
from server.logs import CALL_FACTS


class Wrapper(Protocol):
    """What is done before and after a call, see `server.rpc`."""

    def open(self, context: grpc.ServicerContext) -> Any:
        """The call behind a context."""

    def argument(self, call: Any, raw: Any) -> Any:
        """What the service gets as its request."""

    def close(self, call: Any, code: str, error: errors.GenieError | None = None) -> None:
        """Count and log the finished call."""

    def failed(self, call: Any, error: Exception) -> errors.GenieError:
        """What to tell the caller about an exception; closes the call."""


Reply = bytes | Exception
"""What ends a call: the bytes of its reply, or what its handler would have raised."""


class Together:
    """Answers several calls by one call of the service."""

    def __init__(
        self,
        wrapper: Wrapper,
        behaviour: Callable[[Sequence[Any], Sequence[Any]], Sequence[Any]],
        abort: Callable[[Any, Any, errors.GenieError], object],
    ) -> None:
        """`behaviour` takes requests and calls; it gives for each a response message or an exception."""
        self._wrapper = wrapper
        self._behaviour = behaviour
        self._abort = abort

    def __call__(self, messages: Sequence[bytes], contexts: Sequence[Any]) -> list[Reply]:
        """How each call ends; `Aborted`, or whatever the contexts raise when aborted, among the exceptions."""
        calls = [self._wrapper.open(context) for context in contexts]
        requests: list[Any] = []
        for call, message in zip(calls, messages, strict=True):
            try:
                requests.append(self._wrapper.argument(call, message))
            except Exception as error:
                requests.append(error)
        asked = [place for place, request in enumerate(requests) if not isinstance(request, Exception)]
        if asked:
            try:
                told = self._behaviour(
                    [requests[place] for place in asked], [calls[place] for place in asked]
                )
            except Exception as error:
                told = [error] * len(asked)
            for place, response in zip(asked, told, strict=True):
                requests[place] = response
        return [self._end(*one) for one in zip(contexts, calls, requests, strict=True)]

    def _end(self, context: Any, call: Any, response: Any) -> Reply:
        if isinstance(response, WouldWait):
            return response
        CALL_FACTS.set(call.facts)
        try:
            if not isinstance(response, Exception):
                reply: bytes = response.SerializeToString()
                self._wrapper.close(call, "OK")
                return reply
            told = self._wrapper.failed(call, response)
            told.__traceback__ = None
            self._abort(context, call, told)
        except Exception as error:
            return error.with_traceback(None)
        return RuntimeError("a context that was aborted did not raise")

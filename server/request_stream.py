"""The request messages of a client stream as a service takes them: read ahead up to a bound. Decodes nothing itself."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from google.protobuf.message import Message

from server import errors
from server.admission import Drain

MOST_BUFFERED_BYTES = 1_048_576
"""Request messages of a stream read ahead of the service: so many bytes, or one message."""

M = TypeVar("M", bound=Message)


class Requests(Generic[M]):
    """The request messages of a client stream, read ahead on a thread of their own up to a bound.

    When the worker drains, what has arrived is still handed out; then ServerDraining is raised. A stream that its
    caller cancels may look as if it had ended (gRPC tells the two apart too late): let no meaning hang on the end.
    """

    def __init__(self, raw: Iterator[bytes], decode: Callable[[bytes], M], drain: Drain) -> None:
        self._raw = raw
        self._decode = decode
        self._drain = drain
        self._changed = threading.Condition()
        self._arrived: deque[bytes] = deque()
        self._buffered_bytes = 0
        self._ended = False
        self._failure: Exception | None = None
        drain.listen(self._wake)
        threading.Thread(target=self._read, name="request-stream", daemon=True).start()

    def __iter__(self) -> Iterator[M]:
        """Messages one by one until the caller closes its side."""
        while batch := self.take(1):
            yield batch[0]

    def take(self, most: int) -> list[M]:
        """Wait for a message, then return all that have arrived, at most `most`; empty at the stream's end.

        Raises MalformedRequest, CallCancelled, or ServerDraining.
        """
        with self._changed:
            while not self._arrived:
                if self._failure is not None:
                    raise self._failure
                if self._ended:
                    return []
                if self._drain.started:
                    raise errors.ServerDraining()
                self._changed.wait()
            taken = [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]
            self._buffered_bytes -= sum(map(len, taken))
            self._changed.notify_all()
        return [self._decode(item) for item in taken]

    def close(self) -> None:
        """Let go of the reading thread; the wrapper calls it when the service is done."""
        self._drain.forget(self._wake)
        with self._changed:
            self._ended = True
            self._arrived.clear()
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _has_room(self, size: int) -> bool:
        return self._buffered_bytes + size <= MOST_BUFFERED_BYTES

    def _read(self) -> None:
        try:
            for item in self._raw:
                with self._changed:
                    while self._arrived and not self._ended and not self._has_room(len(item)):
                        self._changed.wait()
                    if self._ended:
                        return
                    self._arrived.append(item)
                    self._buffered_bytes += len(item)
                    self._changed.notify_all()
        except Exception as error:
            self._failure = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

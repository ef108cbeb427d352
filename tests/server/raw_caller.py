"""A caller who speaks HTTP/2 byte by byte, to do what no client library does."""

import socket
import struct
from types import TracebackType
from typing import Final, Self

_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS = 0, 1, 3, 4
_END_STREAM, _END_HEADERS = 1, 4
_ACK = 1
_INITIAL_WINDOW_SIZE = 4
_CANCEL = 8


class RawCaller:
    """One connection, which reads nothing that the server sends (RFC 9113)."""

    def __init__(self, port: int, *, window: int) -> None:
        """Connect; `window` is how many bytes of a stream the server may send."""
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._next_stream = 1
        settings = struct.pack(">HI", _INITIAL_WINDOW_SIZE, window)
        self._send(_PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_SETTINGS, _ACK, 0))

    def call(self, method: str, message: bytes | None, *, ended: bool = True) -> int:
        """Call a method with a message, or with one that never comes; the stream.

        Without `ended`, more of it seems to follow.
        """
        stream = self._next_stream
        self._next_stream += 2
        headers = {
            ":method": "POST", ":scheme": "http", ":path": method, ":authority": "test",
            "content-type": "application/grpc", "te": "trailers",
        }  # fmt: skip
        # Each field is a literal that is not to be remembered (RFC 7541, 6.2.2), with its name spelt out.
        block = b"".join(b"\0" + _literal(name) + _literal(value) for name, value in headers.items())
        frames = _frame(_HEADERS, _END_HEADERS, stream, block)
        if message is not None:
            data = struct.pack(">BI", 0, len(message)) + message
            frames += _frame(_DATA, _END_STREAM if ended else 0, stream, data)
        self._send(frames)
        return stream

    def reset(self, stream: int) -> None:
        """Cancel a call."""
        self._send(_frame(_RST_STREAM, 0, stream, struct.pack(">I", _CANCEL)))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def _send(self, data: bytes) -> None:
        self._socket.sendall(data)


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def _literal(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()

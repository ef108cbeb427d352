"""A port that several processes may share, reserved before any of them listens."""

import socket

from server.config import ConfigurationError


def reserve_port(host: str, port: int) -> tuple[socket.socket, str, int]:
    """Bind `port` (0: any free one) for workers to share; the socket to keep open, the numeric host, and the port.

    Raises ConfigurationError when the address is not ours to have, or someone else listens there.
    """
    name = host.removeprefix("[").removesuffix("]")
    try:
        info = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        family, address = info[0], info[4]
        # A second server on the same port would share it silently; binding without SO_REUSEPORT shows it.
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
        held = socket.socket(family, socket.SOCK_STREAM)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(address)
    except (OSError, UnicodeError) as error:
        # A name with a part that is empty or too long is no OSError.
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ConfigurationError([f"host and port: cannot listen on {host}:{port}: {reason}"]) from None
    bound = held.getsockname()
    return held, str(bound[0]), int(bound[1])

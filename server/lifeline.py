"""A worker's end of the socket to its supervisor: it tells that the worker serves and still runs, and when nobody
listens any more. Knows nothing of what is served.
"""

import faulthandler
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress

from server.workers import BEAT, BEAT_SECONDS


def hold(control: socket.socket, on_gone: Callable[[], None]) -> None:
    """Tell the supervisor at the other end of `control` that this process serves, and from now on that it runs.

    `on_gone` is called once, on a thread of its own, when the supervisor has ended. From now on SIGUSR1 writes what
    every thread is doing to standard error; it needs no turn at the interpreter, and works when nothing else does.
    """
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    control.settimeout(BEAT_SECONDS)
    threading.Thread(target=_hold, args=(control, on_gone), name="lifeline", daemon=True).start()


def _hold(control: socket.socket, on_gone: Callable[[], None]) -> None:
    # An error says that the other end was reset, or that this process is about to end.
    with suppress(OSError):
        listened = True
        while listened:
            # A supervisor that is stopped reads nothing: what it has not read yet is beat enough.
            with suppress(TimeoutError):
                control.send(BEAT)
                listened = control.recv(1) != b""
    on_gone()

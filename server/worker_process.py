"""One process under the supervisor: started with a socket to it, heard, ended. Decides nothing."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence

LAST_SECONDS = 10.0
"""Time that a process which has closed its socket has to end."""
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


def started(command: Callable[[int], Sequence[str]]) -> "tuple[subprocess.Popen[bytes], socket.socket]":
    """A process of `command(descriptor of its end)`, and our end of its control socket. Raises OSError."""
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            command(theirs.fileno()),
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            env=_environment(),
        )
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return process, ours


def received(control: socket.socket) -> bytes:
    """What a worker has written; nothing once it has closed its end."""
    try:
        return control.recv(64)
    except ConnectionResetError:
        return b""


def reaped(process: "subprocess.Popen[bytes]") -> int:
    """The exit code of a worker whose socket has closed, which is its last sign of life."""
    try:
        return process.wait(timeout=LAST_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def how(code: int) -> str:
    """An exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def _environment() -> dict[str, str]:
    """Workers are the unit of parallelism: a library's own threads would only get in their way."""
    return {**dict.fromkeys(_ONE_THREAD, "1"), "GRPC_VERBOSITY": "ERROR", **os.environ}

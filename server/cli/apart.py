"""Work on stored data in a process of its own, which a damaged file may end. Knows none of the work.

A page that is missing at the end of a mapped file ends whoever reads it by SIGBUS, and one that is torn may fail an
assertion of LMDB: nobody can catch that in the same process.
"""

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from store.api import StoreCorrupt, StoreUnavailable

T = TypeVar("T")

_OF_DAMAGE = (signal.SIGBUS, signal.SIGSEGV, signal.SIGABRT)


def apart(work: Callable[..., T], *arguments: object) -> T:
    """What `work`, a function of a module, returns for the arguments, called in another process.

    Raises what it raises, StoreCorrupt when it was ended as by a damaged file, StoreUnavailable when otherwise.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "server.cli.apart"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    # It ends when the other end of its standard input is gone, and by itself when it has answered.
    with process:
        try:
            told = _asked(process, pickle.dumps((work, arguments)))
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        raise _ended(process.returncode)
    done, outcome = pickle.loads(told)
    if not done:
        raise outcome
    result: T = outcome
    return result


def _asked(process: "subprocess.Popen[bytes]", question: bytes) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.write(question)
        process.stdin.flush()
    return process.stdout.read()


def _ended(code: int) -> Exception:
    if code > 0:
        return StoreUnavailable(f"the process that worked on it ended with exit code {code}")
    name = signal.Signals(-code).name
    if -code in _OF_DAMAGE:
        return StoreCorrupt(f"the store's file is damaged: reading it ended the process by {name}")
    return StoreUnavailable(f"the process that worked on it was ended by {name}")


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _main() -> None:
    """Do the work that standard input names; standard output is for its outcome alone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    outcome: tuple[bool, object]
    work, arguments = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        outcome = (True, work(*arguments))
    except Exception as error:
        outcome = (False, error)
    answer.write(pickle.dumps(outcome))
    answer.flush()
    sys.stdout.flush()
    # The thread that reads standard input would keep the interpreter from ending well.
    os._exit(0)


if __name__ == "__main__":
    _main()

"""What a process does about its memory once it has made all that it serves from. Knows nothing of what that is."""

import ctypes
import gc
from contextlib import suppress


def settle() -> None:
    """Take what was made until now out of the garbage collector's sight, and give freed memory back to the system.

    What is there now stays for good: the collector need not walk over it in the middle of a call. Making it took
    memory that the C library would keep for later; it says where it can be asked for it, and elsewhere nothing is done.
    """
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    gc.freeze()

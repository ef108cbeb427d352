"""Waiting for what other threads and processes bring about. Knows none of them."""

import time
from collections.abc import Callable

PATIENCE_SECONDS = 60.0
"""A machine busy with other things takes a hundred times as long as an idle one. What never comes true shows anyway."""


def eventually(
    holds: Callable[[], object], seconds: float = PATIENCE_SECONDS, told: Callable[[], str] = str
) -> None:
    """Wait until something holds; after `seconds` fail, with what is `told`."""
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit, told() or "it never came to hold"
        time.sleep(0.005)

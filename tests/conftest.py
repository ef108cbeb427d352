"""How tests run: property-based ones never against the clock, all with slate ids as before, and to an end.

Where CI runs them, property-based tests take the same examples every time.
"""

import os
import random
import secrets
import sys
import threading
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.waiting import PATIENCE_SECONDS

settings.register_profile("genie", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("genie")


@pytest.fixture(autouse=True, scope="module")
def slate_ids(request: pytest.FixtureRequest) -> Iterator[None]:
    """The ids of slates, and with them what is drawn for requests without an id, are those of the last run."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets, "token_bytes", random.Random(str(request.node.nodeid)).randbytes)
        yield


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Keep what the run came to."""
    session.config.stash[_OUTCOME] = int(exitstatus)


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the process though a test left a thread behind that never ends, which Python would wait for."""
    own = threading.current_thread()
    for thread in threading.enumerate():
        if thread is not own and not thread.daemon:
            thread.join(PATIENCE_SECONDS)
            if thread.is_alive():
                sys.stdout.flush()
                print(f"a test left the thread {thread.name!r} behind", file=sys.stderr, flush=True)
                os._exit(config.stash.get(_OUTCOME, 0) or 1)


_OUTCOME = pytest.StashKey[int]()

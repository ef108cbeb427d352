"""The two stores of a server: `state`, never to be lost, and `serving`, which may be. Reads nothing in them."""

from dataclasses import dataclass
from pathlib import Path

from store.api import Store
from store.lmdb_store import LmdbStore
from store.memory_store import MemoryStore
from store.serving_store import ServingStore

STATE = "state"
SERVING = "serving"
EXPERIMENTS = "experiments"
"""The experiment service's own store, which another process opens."""


@dataclass(frozen=True, slots=True)
class Stores:
    """What a server keeps."""

    state: Store
    """Catalogue, learners, answers: durable before it is acknowledged."""
    serving: Store
    """Shown recommendations: not worth waiting for the disk."""

    def close(self) -> None:
        """Finish what was submitted and release both."""
        try:
            self.state.close()
        finally:
            self.serving.close()


def open_stores(
    directory: Path,
    *,
    map_bytes: int = 1 << 30,
    max_bytes: int = 1 << 40,
    max_group: int = 256,
) -> Stores:
    """Open or create both in a directory; sizes apply to each. Raises StoreError."""
    state = LmdbStore(directory / STATE, map_bytes=map_bytes, max_bytes=max_bytes, max_group=max_group)
    try:
        serving = ServingStore(directory / SERVING, map_bytes=map_bytes, max_bytes=max_bytes)
    except BaseException:
        state.close()
        raise
    return Stores(state, serving)


def memory_stores() -> Stores:
    """Both in memory: for tests and trials, gone with the process."""
    return Stores(MemoryStore(), MemoryStore())

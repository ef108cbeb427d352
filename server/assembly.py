"""What `genie serve` serves: opens the store and puts the services together. Decides nothing about processes."""

from server.admission import Drain
from server.app import Assembly
from server.config import Settings
from store.api import Store
from store.lmdb_store import LmdbStore
from store.memory_store import MemoryStore


def open_store(settings: Settings) -> Store:
    """The durable store that the settings name. Raises StoreError."""
    if settings.store == "memory":
        return MemoryStore()
    return LmdbStore(settings.data_directory / "state")


def assemble(settings: Settings, drain: Drain) -> Assembly:
    """Everything a worker serves. Raises StoreError when the store cannot be opened."""
    store = open_store(settings)
    return Assembly(services=(), probe=store.check_writable, close=store.close)

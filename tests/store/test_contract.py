"""The contract suite, on every back end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from store.api import Store
from store.lmdb_store import LmdbStore
from store.memory_store import MemoryStore
from tests.store.contract import StoreContract


class TestMemory(StoreContract):
    @pytest.fixture
    def store(self) -> Iterator[Store]:
        store = MemoryStore()
        yield store
        store.close()


class TestLmdbDurable(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = LmdbStore(tmp_path / "state")
        yield store
        store.close()


class TestLmdbServing(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Store]:
        store = LmdbStore(tmp_path / "serving", durable=False)
        yield store
        store.close()

"""The contract on LMDB. The only package that knows lmdb."""

from store.lmdb_store.store import LmdbStore

__all__ = ["LmdbStore"]

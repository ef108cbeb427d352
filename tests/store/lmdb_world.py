"""What the LMDB tests share: processes to start, short ways to put and get."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from store.api import Partition, Table
from store.lmdb_store import LmdbStore

ANN = Partition("t", "ann")
ROOT = Path(__file__).parents[2]


@contextmanager
def child(role: str, *arguments: object) -> Iterator["subprocess.Popen[str]"]:
    """A process of tests.store.children, killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.store.children", role, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def out(process: "subprocess.Popen[str]") -> IO[str]:
    assert process.stdout is not None
    return process.stdout


def line_of(process: "subprocess.Popen[str]") -> str:
    line = out(process).readline()
    assert line, "the child process ended early"
    return line.rstrip("\n")


def tell(process: "subprocess.Popen[str]", text: str) -> None:
    assert process.stdin is not None
    process.stdin.write(text + "\n")
    process.stdin.flush()


def put(store: LmdbStore, value: bytes, table: Table = Table.STATE, key: bytes = b"") -> None:
    store.update(ANN, lambda tx: tx.put(table, key, value))


def fill(store: LmdbStore, count: int) -> None:
    for i in range(count):
        put(store, b"x" * 40_000, Table.META, i.to_bytes(2, "big"))


def get(store: LmdbStore) -> bytes | None:
    with store.read(ANN) as reader:
        return reader.get(Table.STATE)

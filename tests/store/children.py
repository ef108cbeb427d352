"""Processes that the LMDB tests start, and may kill: `python -m tests.store.children ROLE DIRECTORY ...`."""

import resource
import sys
import threading
import time
from functools import partial
from pathlib import Path

from engine.learner import LearnerModel
from store import serving_store, slate_journal
from store.answers import record_answers
from store.api import Partition, StoreFull, Table, Transaction
from store.lmdb_store import LmdbStore
from store.records import SlateRecord
from store.serving_store import ServingStore
from store.slates import list_slates, settle, slate_id, write_slate
from tests.store.answers_world import made_answers


def say(text: str) -> None:
    """One line to the parent, at once, whole."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def wait_to_be_killed() -> None:
    """Wait for it, or for the end of the parent, which ends standard input."""
    sys.stdin.read()


def _put_state(tx: Transaction, value: bytes) -> None:
    tx.put(Table.STATE, b"", value)


def record_until_killed(directory: Path, round_: str) -> None:
    """Record answers of several learners from several threads; name each one once it is acknowledged."""
    store = LmdbStore(directory, map_bytes=1 << 20)
    model = LearnerModel.priors()

    def work(learner_id: str) -> None:
        for i in range(10_000):
            prefix = f"{round_}-{learner_id}-{i}"
            answers = made_answers(2, seed=i, start=1.7e9 + int(round_) * 1e7 + i * 1e3, prefix=prefix)
            operation = partial(record_answers, learner_id=learner_id, answers=answers, model=model)
            store.update(Partition("t", learner_id), operation)
            say(f"{learner_id} {prefix}-0 {prefix}-1")

    for name in ("ann", "bob", "eve"):
        threading.Thread(target=work, args=(name,), daemon=True).start()
    say("ready")
    wait_to_be_killed()


def fill(directory: Path, name: str, count: str) -> None:
    """Write `count` large values, growing the map on the way."""
    store = LmdbStore(directory, map_bytes=1 << 20)
    say("ready")
    sys.stdin.readline()
    for i in range(int(count)):
        key = i.to_bytes(2, "big")
        store.update(Partition("t", name), lambda tx, key=key: tx.put(Table.META, key, b"x" * 30_000))  # type: ignore[misc]
    store.close()
    say("done")


def full_disk(directory: Path) -> None:
    """Write until files may not grow any more, as on a full disk; then see what still works."""
    store = LmdbStore(directory)
    partition = Partition("t", "ann")
    store.update(partition, lambda tx: tx.put(Table.STATE, b"", b"before"))
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, resource.RLIM_INFINITY))
    kept = 0
    try:
        for i in range(1000):
            store.update(partition, lambda tx, i=i: tx.put(Table.ANSWER, i.to_bytes(2, "big"), b"x" * 30_000))  # type: ignore[misc]
            kept += 1
    except StoreFull:
        say("full")
    with store.read(partition) as reader:
        say(f"{reader.get(Table.STATE)!r} {sum(1 for _ in reader.scan(Table.ANSWER)) == kept}")
    try:
        store.update(partition, lambda tx: tx.put(Table.ANSWER, b"big", b"x" * 3_000_000))
    except StoreFull:
        say("still full")
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    store.check_writable()
    store.update(partition, lambda tx: tx.put(Table.ANSWER, b"big", b"x" * 3_000_000))
    store.close()
    say("works again")


def read_and_wait(directory: Path) -> None:
    """Open a read and keep it until killed."""
    store = LmdbStore(directory)
    with store.read(Partition("t", "ann")) as reader:
        reader.get(Table.STATE)
        say("reading")
        wait_to_be_killed()


def hold_unsynced(directory: Path) -> None:
    """Write to a store that is not synced, and wait to be killed."""
    store = LmdbStore(directory, durable=False)
    store.update(Partition("t", "ann"), lambda tx: tx.put(Table.STATE, b"", b"from a child"))
    say("written")
    wait_to_be_killed()


def echo(directory: Path, durable: str) -> None:
    """For each line: the value that another process put, then put one's own."""
    store = LmdbStore(directory, durable=durable == "durable", map_bytes=1 << 20)
    partition = Partition("t", "ann")
    say("ready")
    for line in sys.stdin:
        with store.read(partition) as reader:
            value = reader.get(Table.STATE) or b"none"
        mine = b"child " + line.strip().encode()
        store.update(partition, partial(_put_state, value=mine))
        say(value.decode())
    store.close()


def let_slates_wait(directory: Path) -> None:
    """Have slates of ann and bob wait and name them; then move, look or make more as told."""
    serving_store.MOVE_SECONDS = 3_600.0
    store = ServingStore(directory)
    number = 0

    def make() -> None:
        nonlocal number
        ids = []
        for name in ("ann", "bob") * 5:
            ids.append(slate_id(name))
            at = 1_760_000_000.0 + number
            write_slate(store, "t", SlateRecord(ids[-1], name, at, at + 3600, b"", b"payload", ("q-1",)))
            number += 1
        say(" ".join(ids))

    make()
    for line in sys.stdin:
        if line.strip() == "more":
            make()
        else:
            if line.strip() == "move":
                settle(store)
            say(" ".join(str(len(list_slates(store, Partition("t", name)))) for name in ("ann", "bob")))


def press(directory: Path, count: str) -> None:
    """Keep slates as fast as can be in a journal that is soon full, moved often and brought back often; name each."""
    slate_journal.FILE_BYTES, serving_store.COMPACT_BYTES, serving_store.MOVE_SECONDS = 65_536, 8_192, 0.004
    store = ServingStore(directory)
    for number in range(int(count)):
        name, at = f"learner-{number * 7 % 300}", 1_760_000_000.0 + number
        slate = SlateRecord(
            slate_id(name), name, at, at + 3600, b"", bytes(200 + number * 37 % 1_300), ("q-1",)
        )
        write_slate(store, "t", slate)
        say(f"{slate.recommendation_id} {name}")
        if number % 20 == 0:
            time.sleep(0.002)
    store.close()


if __name__ == "__main__":
    role, directory, *rest = sys.argv[1:]
    globals()[role](Path(directory), *rest)

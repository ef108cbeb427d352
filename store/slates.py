"""Shown recommendations: the last few of each learner, found by their id. Does not read the payload.

They live in the store that is not synced. A slate's id begins with a digest of its learner's id, which the
tenant's own partition turns back into the learner; that entry is written first, so that no slate is ever out
of reach. Inside the learner's partition: SLATE by slot of a ring, SLATE_ID by the id, META holds how many
there ever were.
"""

import hashlib
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Collection, Sequence
from concurrent.futures import Future
from functools import partial

from store import codec
from store.api import Partition, Store, Table, Transaction
from store.records import SlateRecord
from store.tallies import tally_slate, utc_day

RING = 50
"""Slates kept a learner; the oldest makes room."""
OWNER_BYTES = 12
OWNER_CHARACTERS = 16
ID_CHARACTERS = 32
TOKEN_BYTES = 12


def slate_id(learner_id: str, request_digest: bytes = b"") -> str:
    """A new slate's id, 32 characters: the same for the same learner and request, random without a request digest."""
    token = hashlib.blake2b(request_digest, digest_size=TOKEN_BYTES).digest() if request_digest else None
    return urlsafe_b64encode(_owner(learner_id) + (token or secrets.token_bytes(TOKEN_BYTES))).decode()


def write_slate(store: Store, tenant: str, slate: SlateRecord) -> SlateRecord:
    """Keep a slate and return what is held under its id: it, or the one that was there and has not expired."""
    return write_slates(store, tenant, [slate])[0].result()


def write_slates(store: Store, tenant: str, slates: Sequence[SlateRecord]) -> "list[Future[SlateRecord]]":
    """Keep slates, in one commit where the store can; for each what `write_slate` returns, or why it is not kept."""
    _write_owners(store, tenant, {slate.learner_id for slate in slates})
    return store.submit_many(
        [(Partition(tenant, slate.learner_id), partial(_keep, slate=slate)) for slate in slates]
    )


def _write_owners(store: Store, tenant: str, learner_ids: Collection[str]) -> None:
    """See to it that slates of these learners will be found by their ids."""
    partition = Partition(tenant)
    owners = [(_owner(learner_id), learner_id.encode()) for learner_id in learner_ids]
    with store.read(partition) as reader:
        new = [(owner, name) for owner, name in owners if reader.get(Table.SLATE_OWNER, owner) is None]
    if new:
        store.update(partition, lambda tx: tx.put_many(Table.SLATE_OWNER, new))


def find_slate(store: Store, tenant: str, recommendation_id: str) -> SlateRecord | None:
    """A slate by its id; None when it is unknown, or has made room for newer ones."""
    learner_id = _learner_of(store, tenant, recommendation_id)
    if learner_id is None:
        return None
    with store.read(Partition(tenant, learner_id)) as reader:
        slot = reader.get(Table.SLATE_ID, recommendation_id.encode())
        value = None if slot is None else reader.get(Table.SLATE, slot)
    return None if value is None else codec.SLATE.decode(value)


def list_slates(store: Store, partition: Partition, *, limit: int = RING) -> list[SlateRecord]:
    """The learner's slates, newest first."""
    with store.read(partition) as reader:
        count = _count(reader.get(Table.META))
        slots = (_slot(number) for number in range(count - 1, max(count - RING, 0) - 1, -1))
        values = [value for slot in slots if (value := reader.get(Table.SLATE, slot)) is not None]
    return [codec.SLATE.decode(value) for value in values[:limit]]


def erase_slates(store: Store, partition: Partition) -> int:
    """Remove everything this store holds of a learner; the number of entries."""
    owner = _owner(partition.learner_id)
    removed = store.erase(partition)
    gone = store.update(Partition(partition.tenant), lambda tx: tx.delete(Table.SLATE_OWNER, owner))
    return removed + int(gone)


def _keep(tx: Transaction, slate: SlateRecord) -> SlateRecord:
    key = slate.recommendation_id.encode()
    # Of two calls with the same request, made at the same time, the first one's slate is the slate of both.
    slot = tx.get(Table.SLATE_ID, key) if slate.request_digest else None
    held = None if slot is None else tx.get(Table.SLATE, slot)
    if slot is not None and held is not None:
        known = codec.SLATE.decode(held)
        if known.expires_at > slate.created_at:
            return known
        tx.put(Table.SLATE, slot, codec.SLATE.encode(slate))
        return slate
    tally_slate(tx, utc_day(slate.created_at), len(slate.question_ids))
    count = _count(tx.get(Table.META))
    slot = _slot(count)
    replaced = tx.get(Table.SLATE, slot) if count >= RING else None
    if replaced is not None:
        tx.delete(Table.SLATE_ID, codec.SLATE.decode(replaced).recommendation_id.encode())
    tx.put(Table.SLATE, slot, codec.SLATE.encode(slate))
    tx.put(Table.SLATE_ID, key, slot)
    tx.put(Table.META, b"", (count + 1).to_bytes(8, "big"))
    return slate


def _learner_of(store: Store, tenant: str, recommendation_id: str) -> str | None:
    if len(recommendation_id) != ID_CHARACTERS:
        return None
    try:
        owner = urlsafe_b64decode(recommendation_id[:OWNER_CHARACTERS].encode("ascii"))
    except ValueError:
        return None
    with store.read(Partition(tenant)) as reader:
        value = reader.get(Table.SLATE_OWNER, owner)
    return None if value is None else value.decode()


def _owner(learner_id: str) -> bytes:
    return hashlib.blake2b(learner_id.encode(), digest_size=OWNER_BYTES).digest()


def _count(value: bytes | None) -> int:
    return 0 if value is None else int.from_bytes(value, "big")


def _slot(number: int) -> bytes:
    return (number % RING).to_bytes(2, "big")

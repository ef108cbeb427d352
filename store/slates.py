"""Shown recommendations: the last few of each learner, found by their id. Does not read the payload.

They live in the store that is not synced. A slate's id begins with a digest of its learner's id, which the
tenant's own partition turns back into the learner; that entry is written with the first slate, so that no slate is
ever out of reach. Inside the learner's partition: SLATE by slot of a ring, and one SLATE_ID, which holds how many
there ever were (u64 big-endian) and the rest of the id of each slot's slate.
"""

import hashlib
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from store import codec
from store.api import Partition, Reader, Store, Table, Transaction
from store.overlay import erase_everything
from store.records import SlateRecord
from store.tallies import tally_slate, utc_day

RING = 50
"""Slates kept a learner; the oldest makes room."""
OWNER_BYTES = 12
OWNER_CHARACTERS = 16
ID_CHARACTERS = 32
TOKEN_CHARACTERS = ID_CHARACTERS - OWNER_CHARACTERS
TOKEN_BYTES = 12
_COUNT_BYTES = 8


def slate_id(learner_id: str, request_digest: bytes = b"") -> str:
    """A new slate's id, 32 characters: the same for the same learner and request, random without a request digest."""
    token = hashlib.blake2b(request_digest, digest_size=TOKEN_BYTES).digest() if request_digest else None
    return urlsafe_b64encode(_owner(learner_id) + (token or secrets.token_bytes(TOKEN_BYTES))).decode()


def write_slate(store: Store, tenant: str, slate: SlateRecord) -> SlateRecord:
    """Keep a slate and return what is held under its id: it, or the one that was there and has not expired."""
    return write_slates(store, tenant, [slate])[0].result()


def write_slates(store: Store, tenant: str, slates: Sequence[SlateRecord]) -> "list[Future[SlateRecord]]":
    """Keep slates, in one commit where the store can; for each what `write_slate` returns, or why it is not kept."""
    owners = partial(_write_owners, learner_ids=[slate.learner_id for slate in slates])
    operations: list[tuple[Partition, Callable[[Transaction], Any]]] = [(Partition(tenant), owners)]
    operations += [(Partition(tenant, slate.learner_id), partial(_keep, slate=slate)) for slate in slates]
    first, *kept = store.submit_many(operations)
    first.result()
    return kept


def _write_owners(tx: Transaction, learner_ids: Collection[str]) -> None:
    """See to it that slates of these learners are found by their ids."""
    for learner_id in learner_ids:
        owner = _owner(learner_id)
        if tx.get(Table.SLATE_OWNER, owner) is None:
            tx.put(Table.SLATE_OWNER, owner, learner_id.encode())


def find_slate(store: Store, tenant: str, recommendation_id: str) -> SlateRecord | None:
    """A slate by its id; None when it is unknown, or has made room for newer ones."""
    learner_id = _learner_of(store, tenant, recommendation_id)
    if learner_id is None:
        return None
    with store.read(Partition(tenant, learner_id)) as reader:
        slot = _Ring(reader).find(_token(recommendation_id))
        value = None if slot < 0 else reader.get(Table.SLATE, _slot_key(slot))
    return None if value is None else codec.SLATE.decode(value)


def list_slates(store: Store, partition: Partition, *, limit: int = RING) -> list[SlateRecord]:
    """The learner's slates, newest first."""
    with store.read(partition) as reader:
        count = _Ring(reader).count
        slots = (number % RING for number in range(count - 1, max(count - RING, 0) - 1, -1))
        values = [value for slot in slots if (value := reader.get(Table.SLATE, _slot_key(slot))) is not None]
    return [codec.SLATE.decode(value) for value in values[:limit]]


def erase_slates(store: Store, partition: Partition) -> int:
    """Remove everything this store holds of a learner; the number of entries."""
    owner = _owner(partition.learner_id)
    disown = (Partition(partition.tenant), lambda tx: int(tx.delete(Table.SLATE_OWNER, owner)))
    return sum(removed.result() for removed in store.submit_many([(partition, erase_everything), disown]))


def _keep(tx: Transaction, slate: SlateRecord) -> SlateRecord:
    ring = _Ring(tx)
    token = _token(slate.recommendation_id)
    # Of two calls with the same request, made at the same time, the first one's slate is the slate of both.
    slot = ring.find(token) if slate.request_digest else -1
    held = None if slot < 0 else tx.get(Table.SLATE, _slot_key(slot))
    if held is not None:
        known = codec.SLATE.decode(held)
        if known.expires_at > slate.created_at:
            return known
    else:
        slot = ring.take(token)
        ring.write(tx)
        tally_slate(tx, utc_day(slate.created_at), len(slate.question_ids))
    tx.put(Table.SLATE, _slot_key(slot), codec.SLATE.encode(slate))
    return slate


class _Ring:
    """Which slates of a learner there are, and which slot each has."""

    __slots__ = ("_older", "_tokens", "count")

    def __init__(self, reader: Reader) -> None:
        value = reader.get(Table.SLATE_ID)
        self._older = value is None and reader.get(Table.META) is not None
        if self._older:
            value = _ring_of_older(reader)
        self.count = 0 if value is None else int.from_bytes(value[:_COUNT_BYTES], "big")
        """Slates there ever were."""
        self._tokens = b"" if value is None else value[_COUNT_BYTES:]

    def find(self, token: bytes) -> int:
        """The slot of a slate; −1 when there is none."""
        at = self._tokens.find(token)
        while at > 0 and at % TOKEN_CHARACTERS:
            at = self._tokens.find(token, at + 1)
        return at // TOKEN_CHARACTERS

    def take(self, token: bytes) -> int:
        """The slot for a new slate, that of the oldest."""
        slot = self.count % RING
        at = slot * TOKEN_CHARACTERS
        self._tokens = self._tokens[:at] + token + self._tokens[at + TOKEN_CHARACTERS :]
        self.count += 1
        return slot

    def write(self, tx: Transaction) -> None:
        """Store what was taken."""
        if self._older:
            for key, _ in tx.scan(Table.SLATE_ID):
                tx.delete(Table.SLATE_ID, key)
            tx.delete(Table.META)
        tx.put(Table.SLATE_ID, b"", self.count.to_bytes(_COUNT_BYTES, "big") + self._tokens)


def _ring_of_older(reader: Reader) -> bytes:
    """What SLATE_ID would hold, for a learner written by a Genie that kept each id apart, and the count in META."""
    slots = dict(reader.scan(Table.SLATE))
    ids = (codec.SLATE.decode(slots[key]).recommendation_id for key in sorted(slots))
    count = reader.get(Table.META) or b""
    return count.rjust(_COUNT_BYTES, b"\0") + b"".join(map(_token, ids))


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


def _token(recommendation_id: str) -> bytes:
    """What tells a slate from its learner's others."""
    return recommendation_id[OWNER_CHARACTERS:].encode()


def _slot_key(slot: int) -> bytes:
    return slot.to_bytes(2, "big")

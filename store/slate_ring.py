"""The last slates of a learner, in a ring, and whose an id is: how they lie in the tables. Knows nothing of journals.

Inside the learner's partition: SLATE by slot of a ring, and one SLATE_ID, which holds how many there ever were (u64
big-endian) and the rest of the id of each slot's slate. A slate's id begins with a digest of its learner's id, which
SLATE_OWNER in the tenant's own partition turns back into the learner; that entry is written with the first slate.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence

from store import codec
from store.api import Reader, StoreError, Table, Transaction

RING = 50
"""Slates kept a learner; the oldest makes room."""
OWNER_BYTES = 12
OWNER_CHARACTERS = 16
ID_CHARACTERS = 32
TOKEN_CHARACTERS = ID_CHARACTERS - OWNER_CHARACTERS
_COUNT_BYTES = 8


class Ring:
    """Which slates of a learner there are, and which slot each has."""

    __slots__ = ("_older", "_tokens", "count")

    def __init__(self, reader: Reader) -> None:
        """Of the reader's learner."""
        value = reader.get(Table.SLATE_ID)
        self._older = value is None and reader.get(Table.META) is not None
        if self._older:
            value = _of_older(reader)
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


def _of_older(reader: Reader) -> bytes:
    """What SLATE_ID would hold, for a learner written by a Genie that kept each id apart, and the count in META."""
    slots = dict(reader.scan(Table.SLATE))
    count = reader.get(Table.META) or b""
    return count.rjust(_COUNT_BYTES, b"\0") + b"".join(_token_in(slots[key]) for key in sorted(slots))


def _token_in(value: bytes) -> bytes:
    """That of a stored slate; of one that cannot be read, which must not keep others from being stored, nobody's."""
    try:
        return token_of(codec.SLATE.decode(value).recommendation_id)
    except StoreError:
        return bytes(TOKEN_CHARACTERS)


def take_in(
    tx: Transaction, slates: Iterable[tuple[bytes, bytes]], erased: float = -math.inf
) -> tuple[list[bool], bool]:
    """Put slates of the transaction's learner, each its id and value, into the ring; none made up to `erased`.

    Which were not there yet, and whether there are any now and had never been: then nobody finds the learner by their
    ids yet.
    """
    ring = Ring(tx)
    before = ring.count
    new = []
    for recommendation_id, value in slates:
        token = recommendation_id[OWNER_CHARACTERS:]
        new.append(ring.find(token) < 0)
        if new[-1] and not made_by(value, erased):
            tx.put(Table.SLATE, slot_key(ring.take(token)), value)
    if ring.count > before:
        ring.write(tx)
    return new, ring.count > before == 0


def made_by(value: bytes, erased: float) -> bool:
    """Whether a stored slate was made up to the moment its learner was erased, or cannot be told not to be."""
    if erased == -math.inf:
        return False
    try:
        return codec.SLATE.decode(value).created_at <= erased
    except StoreError:
        return True


def write_owners(tx: Transaction, learner_ids: Sequence[str]) -> None:
    """See to it that slates of these learners are found by their ids; the transaction is of the tenant."""
    for learner_id in learner_ids:
        owner = owner_of(learner_id)
        if tx.get(Table.SLATE_OWNER, owner) is None:
            tx.put(Table.SLATE_OWNER, owner, learner_id.encode())


def owner_of(learner_id: str) -> bytes:
    """The digest of a learner's id that ids of slates begin with."""
    return hashlib.blake2b(learner_id.encode(), digest_size=OWNER_BYTES).digest()


def token_of(recommendation_id: str) -> bytes:
    """What tells a slate from its learner's others."""
    return recommendation_id[OWNER_CHARACTERS:].encode()


def slot_key(slot: int) -> bytes:
    """Key of a slot in SLATE."""
    return slot.to_bytes(2, "big")

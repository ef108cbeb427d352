"""Shown recommendations: the last few of each learner, found by their id. Does not read the payload.

They live in the store that is not synced. Where that is a `ServingStore`, a slate without a request id waits in its
journal and is found there; one with a request id is written at once, so that of two calls with the same request, made
at the same time in any two processes, the first one's slate is the slate of both.
"""

import math
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from functools import lru_cache, partial
from hashlib import blake2b

from store import codec
from store.api import Bulk, Partition, Store, StoreError, Table, Transaction
from store.erasures import erasure_of, erasures_of, note_erasure
from store.overlay import erase_everything
from store.records import SlateRecord
from store.serving_store import ServingStore
from store.slate_journal import Waiting
from store.slate_ring import (
    ID_CHARACTERS,
    OWNER_CHARACTERS,
    RING,
    TOKEN_CHARACTERS,
    Ring,
    made_by,
    owner_of,
    slot_key,
    token_of,
)
from store.slate_values import NewSlates, records_of, value_in
from store.tallies import tally_slates, utc_day

TOKEN_BYTES = 12


def slate_ids(learner_ids: Sequence[str]) -> list[str]:
    """New ids of slates that no request names, one a learner: 32 characters each, the last half random."""
    # In one go: asking for chance is a system call.
    tokens = urlsafe_b64encode(secrets.token_bytes(TOKEN_BYTES * len(learner_ids))).decode()
    return [
        _owner_text(learner_id) + tokens[place * TOKEN_CHARACTERS : (place + 1) * TOKEN_CHARACTERS]
        for place, learner_id in enumerate(learner_ids)
    ]


def slate_id(learner_id: str, request_digest: bytes = b"") -> str:
    """A new slate's id, 32 characters: the same for the same learner and request, random without a request digest."""
    if not request_digest:
        return slate_ids([learner_id])[0]
    token = blake2b(request_digest, digest_size=TOKEN_BYTES).digest()
    return _owner_text(learner_id) + urlsafe_b64encode(token).decode()


def keep_slates(store: Store, tenant: str, new: NewSlates) -> "list[SlateRecord | StoreError | None]":
    """Keep slates of learners whose ids are known to be good; None for one that is kept as it is.

    For one with a request's digest, the one that was there under its id, expired or not; or why it is not kept.
    """
    records, ends = records_of(new, tenant)
    waiting = 0
    if not new.request_digest and isinstance(store, ServingStore):
        waiting = store.let_wait_many(records, ends)
    kept: list[SlateRecord | StoreError | None] = [None] * len(ends)
    if waiting < len(ends):
        starts = [0, *ends]
        left = range(waiting, len(ends))
        slates = [codec.SLATE.decode(value_in(records[starts[place] : ends[place]])) for place in left]
        for place, slate, held in zip(left, slates, write_slates(store, tenant, slates), strict=True):
            kept[place] = None if held is slate else held
    return kept


def write_slate(store: Store, tenant: str, slate: SlateRecord) -> SlateRecord:
    """Keep a slate and return what is held under its id: it, or the one that was there, expired or not."""
    kept = write_slates(store, tenant, [slate])[0]
    if isinstance(kept, StoreError):
        raise kept
    return kept


def write_slates(store: Store, tenant: str, slates: Sequence[SlateRecord]) -> list[SlateRecord | StoreError]:
    """Keep slates; for each what `write_slate` returns, or why it is not kept."""
    kept: list[SlateRecord | StoreError] = list(slates)
    direct = [place for place, slate in enumerate(slates) if not _waits(store, tenant, slate)]
    if direct:
        try:
            written = _write(store, tenant, [slates[place] for place in direct])
        except StoreError as error:
            return [error if place in direct else slate for place, slate in enumerate(slates)]
        for place, outcome in zip(direct, written, strict=True):
            kept[place] = outcome
    return kept


def find_slate(
    store: Store, tenant: str, recommendation_id: str, *, requested: bool = False
) -> SlateRecord | None:
    """A slate by its id; None when it is unknown, or has made room for newer ones.

    `requested` says that the id is that of a request, whose slate never waits.
    """
    if len(recommendation_id) != ID_CHARACTERS or not recommendation_id.isascii():
        return None
    held = _held(store, tenant, recommendation_id)
    if held is None and not requested and isinstance(store, ServingStore):
        waiting = store.waiting_slate(recommendation_id.encode())
        if waiting is None:
            # It may have been moved just then.
            held = _held(store, tenant, recommendation_id)
        elif waiting.partition.tenant == tenant and not _made_by_erasure(store, waiting):
            held = waiting.value
    return None if held is None else codec.SLATE.decode(held)


def list_slates(store: Store, partition: Partition, *, limit: int = RING) -> list[SlateRecord]:
    """The learner's slates, newest first."""
    waiting = store.waiting_slates(partition) if isinstance(store, ServingStore) else []
    if waiting:
        with store.read(Partition(partition.tenant)) as tenant:
            erased = erasure_of(tenant, partition.learner_id)
        waiting = [value for value in waiting if not made_by(value, erased)]
    with store.read(partition) as reader:
        count = Ring(reader).count
        slots = [number % RING for number in range(max(count - RING, 0), count)]
        held = [value for slot in slots if (value := reader.get(Table.SLATE, slot_key(slot))) is not None]
    slates = {slate.recommendation_id: slate for slate in map(codec.SLATE.decode, (*held, *waiting))}
    # Those of several processes may be moved in another order than they were made in.
    oldest_first = sorted(slates.values(), key=lambda slate: slate.created_at)
    return oldest_first[::-1][: min(limit, RING)]


def settle(store: Store) -> None:
    """See to it that whatever is kept is in the store's tables: for who goes through those. Raises StoreError."""
    if isinstance(store, ServingStore):
        store.move()


def erase_slates(
    store: Store,
    partition: Partition,
    *,
    up_to: float | None = None,
    until: float = -math.inf,
    known: bool = True,
) -> int:
    """Remove everything this store holds of a learner; the number of entries.

    What was made up to `up_to`, and is on its way still, will not be kept; nor is what is made later, up to `until` or
    the next erasure. Nothing is noted of learners of whom this store holds nothing, unless they are `known` otherwise.
    """
    settle(store)
    learner_id = partition.learner_id

    def disown(tx: Transaction, entries: int) -> int:
        entries += tx.delete(Table.SLATE_OWNER, owner_of(learner_id))
        if up_to is not None and (known or entries):
            note_erasure(tx, learner_id, up_to, until=until)
        return entries

    def erase(bulk: Bulk) -> int:
        entries = _good(bulk.alone(1, erase_everything))
        return _good(bulk.alone(0, partial(disown, entries=entries)))

    return store.submit_bulk([Partition(partition.tenant), partition], erase).result()


def _good(outcome: int | Exception) -> int:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _made_by_erasure(store: Store, waiting: Waiting) -> bool:
    """Whether a slate that was found waiting is older than its learner's erasure."""
    with store.read(Partition(waiting.partition.tenant)) as reader:
        return made_by(waiting.value, erasure_of(reader, waiting.partition.learner_id))


def _waits(store: Store, tenant: str, slate: SlateRecord) -> bool:
    """Have the slate wait to be written; False when it must be written now."""
    if slate.request_digest or not isinstance(store, ServingStore):
        return False
    if len(slate.recommendation_id) != ID_CHARACTERS:
        return False
    return store.let_wait(
        Waiting(
            Partition(tenant, slate.learner_id),
            slate.recommendation_id.encode(),
            utc_day(slate.created_at),
            len(slate.question_ids),
            codec.SLATE.encode(slate),
        )
    )


def _write(store: Store, tenant: str, slates: Sequence[SlateRecord]) -> "list[SlateRecord | StoreError]":
    """Write slates at once, each learner's for itself, in one transaction with what is noted of erasures."""
    by_learner: dict[str, list[int]] = {}
    for place, slate in enumerate(slates):
        by_learner.setdefault(slate.learner_id, []).append(place)
    partitions = [Partition(tenant), *(Partition(tenant, learner_id) for learner_id in by_learner)]

    def write(bulk: Bulk) -> "list[SlateRecord | StoreError]":
        erasures = erasures_of(bulk, list(by_learner))
        keys = [(0, owner_of(learner_id)) for learner_id in by_learner]
        held = bulk.get_many(Table.SLATE_OWNER, keys)
        written: list[SlateRecord | StoreError] = list(slates)
        owners = []
        for number, (learner_id, places) in enumerate(by_learner.items(), start=1):
            erased = erasures[number - 1]
            own = [slates[place] for place in places]
            outcome = bulk.alone(number, partial(_keep_all, slates=own, erased=erased))
            if isinstance(outcome, StoreError):
                outcome = [outcome] * len(own)
            elif isinstance(outcome, Exception):
                raise outcome
            for place, one in zip(places, outcome, strict=True):
                written[place] = one
            if held[number - 1] is None and any(slate.created_at > erased for slate in own):
                owners.append((*keys[number - 1], learner_id.encode()))
        bulk.put_many(Table.SLATE_OWNER, owners)
        return written

    return store.submit_bulk(partitions, write).result()


def _keep_all(
    tx: Transaction, slates: Sequence[SlateRecord], erased: float
) -> "list[SlateRecord | StoreError]":
    return [_keep(tx, slate, erased) for slate in slates]


def _keep(tx: Transaction, slate: SlateRecord, erased: float) -> SlateRecord:
    if slate.created_at <= erased:
        tally_slates(tx, utc_day(slate.created_at), 1, len(slate.question_ids))
        return slate
    ring = Ring(tx)
    token = token_of(slate.recommendation_id)
    slot = ring.find(token) if slate.request_digest else -1
    held = None if slot < 0 else tx.get(Table.SLATE, slot_key(slot))
    if held is not None:
        return codec.SLATE.decode(held)
    slot = ring.take(token)
    ring.write(tx)
    tally_slates(tx, utc_day(slate.created_at), 1, len(slate.question_ids))
    tx.put(Table.SLATE, slot_key(slot), codec.SLATE.encode(slate))
    return slate


def _held(store: Store, tenant: str, recommendation_id: str) -> bytes | None:
    """The slate's value in the tables."""
    try:
        owner = urlsafe_b64decode(recommendation_id[:OWNER_CHARACTERS].encode("ascii"))
    except ValueError:
        return None
    with store.read(Partition(tenant)) as reader:
        learner_id = reader.get(Table.SLATE_OWNER, owner)
    if learner_id is None:
        return None
    with store.read(Partition(tenant, learner_id.decode())) as reader:
        slot = Ring(reader).find(token_of(recommendation_id))
        return None if slot < 0 else reader.get(Table.SLATE, slot_key(slot))


@lru_cache(maxsize=16_384)
def _owner_text(learner_id: str) -> str:
    """How ids of the learner's slates begin."""
    return urlsafe_b64encode(owner_of(learner_id)).decode()

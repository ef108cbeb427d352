"""When learners were erased, noted for whatever is made of them and is on its way still. Erases nothing itself.

ERASED in the tenant's own partition holds the moment (f64, epoch seconds) under a digest of the learner's id, in either
store for what that store holds: what was made up to then, and comes later, is not kept. While an erasure goes on, a
second moment follows, by which it will have ended; then nothing made before that is kept.
"""

import math
import struct
from collections.abc import Sequence
from itertools import islice

from store.api import Bulk, Reader, Table, Transaction
from store.slate_ring import owner_of

NOTE_SECONDS = 86_400.0
"""How long an erasure is noted at least: nothing made before one is on its way for so long."""
_CLEARED_A_NOTE = 8
_MOMENT = struct.Struct(">d")


def note_erasure(tx: Transaction, learner_id: str, at: float, *, until: float = -math.inf) -> None:
    """Note that a learner was erased at `at`; the transaction is of the tenant. Clears some notes nobody needs.

    `until` says that the erasure goes on, up to then at most. The learner's next note ends that.
    """
    owner = owner_of(learner_id)
    for key, value in list(islice(tx.scan(Table.ERASED, start=owner), _CLEARED_A_NOTE)):
        if erasure_in(value) < at - NOTE_SECONDS:
            tx.delete(Table.ERASED, key)
    held = tx.get(Table.ERASED, owner)
    moment = at if held is None else max(at, _MOMENT.unpack_from(held)[0])
    tx.put(Table.ERASED, owner, _MOMENT.pack(moment) + (_MOMENT.pack(until) if until > moment else b""))


def any_erasure(reader: Reader) -> bool:
    """Whether any learner's erasure is noted. The reader is of the tenant."""
    return next(iter(reader.scan(Table.ERASED)), None) is not None


def erasure_of(reader: Reader, learner_id: str) -> float:
    """When a learner was erased, as far as that is noted; −inf when it is not. The reader is of the tenant."""
    return erasure_in(reader.get(Table.ERASED, owner_of(learner_id)))


def erasures_of(bulk: Bulk, learner_ids: Sequence[str]) -> list[float]:
    """The same of many learners; the first of the bulk's partitions is the tenant's."""
    keys = [(0, owner_of(learner_id)) for learner_id in learner_ids]
    return list(map(erasure_in, bulk.get_many(Table.ERASED, keys)))


def erasure_in(value: bytes | None) -> float:
    """The moment in an entry of ERASED; −inf when there is none."""
    return -math.inf if value is None else max(moment for (moment,) in _MOMENT.iter_unpack(value))

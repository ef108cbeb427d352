"""Requests that must not happen twice: the reply to an id is kept, and a repeat gets it again. Reads no payload.

REQUEST is keyed by digest of method and id; REQUEST_EXPIRY by expiry (seconds, u64 big-endian) and that
digest, so that each write can drop a few expired entries without looking for them.
"""

from collections.abc import Callable
from itertools import islice

from store import codec
from store.api import IdempotencyKeyReused, Table, Transaction
from store.records import RememberedReply

KEEP_DAYS = 7
"""How long a reply is kept at least."""
DROPPED_A_WRITE = 4
"""Expired entries that one write clears away: more than it adds, so that they cannot pile up."""


def once(
    tx: Transaction,
    method: str,
    request_id: str,
    fingerprint: bytes,
    compute: Callable[[], bytes],
    *,
    now: float,
) -> tuple[bytes, bool]:
    """The result of `compute`, run only if this request has not been answered before: (result, whether repeated).

    `fingerprint` is a digest of the request's content, `now` epoch seconds. An empty `request_id` is never
    remembered. Raises IdempotencyKeyReused when the id came with other content.
    """
    if not request_id:
        return compute(), False
    key = codec.digest(method, request_id)
    value = tx.get(Table.REQUEST, key)
    held = None if value is None else codec.REPLY.decode(value)
    if held is not None and held.expires_at > now:
        if held.fingerprint != fingerprint:
            raise IdempotencyKeyReused(method, request_id)
        return held.result, True
    result = compute()
    if held is not None:
        tx.delete(Table.REQUEST_EXPIRY, _expiry_key(held.expires_at, key))
    _drop_expired(tx, now)
    expires_at = float(int(now) + KEEP_DAYS * 86_400)
    tx.put(Table.REQUEST, key, codec.REPLY.encode(RememberedReply(fingerprint, expires_at, result)))
    tx.put(Table.REQUEST_EXPIRY, _expiry_key(expires_at, key), b"")
    return result, False


def _drop_expired(tx: Transaction, now: float) -> None:
    stop = _expiry_key(now, b"")
    for key, _ in list(islice(tx.scan(Table.REQUEST_EXPIRY, stop=stop), DROPPED_A_WRITE)):
        tx.delete(Table.REQUEST_EXPIRY, key)
        tx.delete(Table.REQUEST, key[8:])


def _expiry_key(expires_at: float, key: bytes) -> bytes:
    return max(int(expires_at), 0).to_bytes(8, "big") + key

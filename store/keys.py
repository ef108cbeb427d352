"""How entries of every tenant and learner share one ordered key space. Knows no back end.

    0x00 0x01                                          -> probe of health checks (META, empty key)
    0x00 0x02 | tenant id UTF-8                        -> tenant number, u32 big-endian
    0x00 0x03                                          -> the highest tenant number given
    0x01 | tenant number | learner id UTF-8 | 0x00 | table byte | key  -> value

Ids hold no NUL, so the 0x00 after the learner id is unambiguous and sorts an id before every longer id that
it begins; UTF-8 keeps the order of code points. A tenant's own partition has an empty learner id and comes
before its learners.
"""

from functools import lru_cache

from store.api import Partition, Table, check_partition

STORE_PREFIX = b"\x00"
"""Before the store's own entries, which follow as in a partition: table byte, key."""
TENANT_PREFIX = b"\x00\x02"
DATA_PREFIX = b"\x01"
LAST_TENANT_KEY = b"\x00\x03"
TENANT_BYTES = 4
HEAD_BYTES = len(DATA_PREFIX) + TENANT_BYTES
"""Bytes before the learner id in a data key."""


def tenant_key(tenant: str) -> bytes:
    """Key under which a tenant's number is found."""
    return TENANT_PREFIX + tenant.encode()


def pack_tenant(number: int) -> bytes:
    """A tenant's number as its bytes in keys."""
    return number.to_bytes(TENANT_BYTES, "big")


def unpack_tenant(packed: bytes) -> int:
    """The number in a tenant entry's value."""
    return int.from_bytes(packed, "big")


@lru_cache(maxsize=16_384)
def checked_learner(partition: Partition) -> bytes:
    """The learner id's bytes in a key, after `check_partition`; cached, being on the path of every read."""
    check_partition(partition)
    return partition.learner_id.encode() + b"\x00"


def tenant_prefix(packed: bytes) -> bytes:
    """What every key of a tenant begins with, which `checked_learner` follows; `packed` as in its entry."""
    return DATA_PREFIX + packed


def table_range(prefix: bytes, table: Table, start: bytes, stop: bytes | None) -> tuple[bytes, bytes]:
    """First key, and the key before which to stop, of a range inside a partition's table."""
    head = prefix + table
    end = head + stop if stop is not None else after(head)
    return head + start, end


def after(prefix: bytes) -> bytes:
    """The first key past all that begin with `prefix` (which must not end in 0xff)."""
    return prefix[:-1] + bytes((prefix[-1] + 1,))


def learner_in(key: bytes) -> bytes:
    """The learner id's bytes in a data key."""
    return key[HEAD_BYTES : key.index(b"\x00", HEAD_BYTES)]

"""Replies that a repeated request gets again. Wraps the store's memory of requests in messages."""

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.message import Message

from server.rpc import Call
from store.api import Transaction
from store.requests import once

M = TypeVar("M", bound=Message)


def fingerprint(request: Message) -> bytes:
    """A digest of a request's content."""
    return hashlib.blake2b(request.SerializeToString(deterministic=True), digest_size=16).digest()


def reply_once(tx: Transaction, request: Any, call: Call, kind: type[M], reply: Callable[[], M]) -> M:
    """The message of type `kind` that `reply` makes, or that an earlier call with the same `request_id` was answered.

    Raises store.api.IdempotencyKeyReused when the id came with another request.
    """
    made: list[M] = []

    def compute() -> bytes:
        made.append(reply())
        return made[0].SerializeToString()

    result, _ = once(tx, call.method, request.request_id, fingerprint(request), compute, now=call.now)
    return made[0] if made else kind.FromString(result)

"""Bytes written one after the other by kernels: numbers, texts, copies. Knows no format that is made of them."""

import threading

import numpy as np

from engine.jit import copy_bytes, lean_kernel
from engine.types import U1

_ZERO = 48


@lean_kernel
def varint_size(number: int) -> int:
    """Return how many bytes `put_varint` writes of a number ≥ 0."""
    size = 1
    while number > 127:
        number >>= 7
        size += 1
    return size


@lean_kernel
def put_varint(out: U1, at: int, number: int) -> int:
    """Write a number ≥ 0, seven bits a byte, the lowest first; return where it ends."""
    while number > 127:
        out[at] = number & 127 | 128
        number >>= 7
        at += 1
    out[at] = number
    return at + 1


@lean_kernel
def put_bytes(out: U1, at: int, data: U1, start: int, size: int) -> int:
    """Copy `size` bytes of `data` from `start` on; return where they end."""
    copy_bytes(out, at, data, start, size)
    return at + size


@lean_kernel
def put_little(out: U1, at: int, number: int, size: int) -> int:
    """Write the lowest `size` bytes of a number, the lowest first; return where they end."""
    for i in range(size):
        out[at + i] = (number >> (8 * i)) & 255
    return at + size


@lean_kernel
def put_big(out: U1, at: int, number: int, size: int) -> int:
    """Write the lowest `size` bytes of a number, the highest first; return where they end."""
    for i in range(size):
        out[at + i] = (number >> (8 * (size - 1 - i))) & 255
    return at + size


@lean_kernel
def put_decimal(out: U1, at: int, number: int) -> int:
    """Write a number in decimal digits; return where they end."""
    if number < 0:
        out[at] = 45
        return put_decimal_digits(out, at + 1, -number)
    return put_decimal_digits(out, at, number)


@lean_kernel
def put_decimal_digits(out: U1, at: int, number: int) -> int:
    """Write a number ≥ 0 in decimal digits; return where they end."""
    size = 1
    left = number // 10
    while left > 0:
        left //= 10
        size += 1
    for i in range(size):
        out[at + size - 1 - i] = _ZERO + number % 10
        number //= 10
    return at + size


@lean_kernel
def close_sized(out: U1, start: int, end: int, room: int) -> int:
    """Put its size, a varint, before what was written from start + room to `end`; return where it ends then.

    What was written is moved when the varint takes more or fewer bytes than `room`.
    """
    size = end - start - room
    width = varint_size(size)
    if width < room:
        for i in range(size):
            out[start + width + i] = out[start + room + i]
    elif width > room:
        for i in range(size - 1, -1, -1):
            out[start + width + i] = out[start + room + i]
    put_varint(out, start, size)
    return start + width + size


class Room(threading.local):
    """Memory that a thread writes to again and again, so that it stays near the processor."""

    def __init__(self) -> None:
        """Hold little at first."""
        self._own = np.zeros(1 << 16, np.uint8)

    def of(self, size: int) -> U1:
        """At least so many bytes; what was written there before may be there still."""
        if len(self._own) < size:
            self._own = np.zeros(2 * size, np.uint8)
        return self._own

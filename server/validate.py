"""Checks of request fields that gather every violation before refusing. Knows no service, no stored data."""

import base64
import binascii
import hashlib
import math
import re
from collections.abc import Sequence
from functools import cache
from typing import Protocol, Self
from zoneinfo import available_timezones

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from server.errors import InvalidPageToken, InvalidRequest, Violation, printable

MOST_ID_CHARACTERS = 128
MOST_ID_BYTES = 256
"""Ids become part of keys, whose length the store limits in bytes."""
TENANT = re.compile(r"[A-Za-z0-9._-]{1,64}")
TENANT_RULE = "1 to 64 letters, digits, dots, hyphens or underscores"
MOST_VIOLATIONS = 100
MOST_SECONDS_AHEAD = 86_400.0
"""How far a caller's clock may be ahead of ours."""
MOST_TIMESTAMP_SECONDS = 253_402_300_799.0
"""The end of the year 9999, where google.protobuf.Timestamp ends."""

_PAGE_TOKEN_VERSION = 1
_MOST_PAGE_TOKEN_CHARACTERS = 1024
_FILTER_BYTES = 8


class _Enum(Protocol):
    def values(self) -> Sequence[int]: ...


class Violations:
    """Collects what is wrong with a request; each check returns the value, to be used once `check` passed.

    Checks name a field relative to the message they look at; `item` and `part` descend into parts of it,
    so that the caller reads the full path: `violations.item("answers", 3).identifier("learner_id", …)`.
    """

    __slots__ = ("_name", "_parent", "found", "unnamed")

    def __init__(self, parent: "Violations | None" = None, name: str | tuple[str, int] = "") -> None:
        self._parent = parent
        self._name = name
        self.found: list[Violation] = [] if parent is None else parent.found
        self.unnamed = 0

    def item(self, field: str, index: int) -> "Violations":
        """The view for one entry of a repeated field."""
        return Violations(self, (field, index))

    def part(self, field: str) -> "Violations":
        """The view for a message inside this one."""
        return Violations(self, field)

    def add(self, field: str, description: str) -> None:
        """Note a violation; beyond the hundredth they are only counted."""
        if len(self.found) < MOST_VIOLATIONS:
            self.found.append(Violation(self._path(field), description))
            return
        top = self
        while top._parent is not None:
            top = top._parent
        top.unnamed += 1

    def check(self) -> Self:
        """Raise InvalidRequest with everything noted so far, if anything was."""
        if self.found:
            raise InvalidRequest(self.found, unnamed=self.unnamed)
        return self

    def identifier(self, field: str, value: str, *, required: bool = True) -> str:
        """An id chosen by the caller: 1 to 128 printable characters, at most 256 bytes in UTF-8."""
        size = len(value)
        if size == 0:
            if required:
                self.add(field, "must not be empty")
        elif size > MOST_ID_CHARACTERS:
            self.add(field, f"has {size} characters; at most {MOST_ID_CHARACTERS} are allowed")
        elif not value.isprintable():
            self.add(field, f"must hold printable characters only, is {printable(value)}")
        elif not value.isascii() and len(value.encode()) > MOST_ID_BYTES:
            self.add(field, f"has {len(value.encode())} bytes in UTF-8; at most {MOST_ID_BYTES} are allowed")
        return value

    def identifiers(self, field: str, values: Sequence[str], *, most: int, least: int = 0) -> list[str]:
        """A list of ids without repeats; of one that is too long, the rest is not looked at."""
        if self.size(field, len(values), least=least, most=most) > most:
            values = values[:most]
        seen: set[str] = set()
        for index, value in enumerate(values):
            name = f"{field}[{index}]"
            self.identifier(name, value)
            if value in seen:
                self.add(name, f"repeats {printable(value)}")
            seen.add(value)
        return list(values)

    def text(self, field: str, value: str, *, most: int, required: bool = False) -> str:
        """Free text: at most `most` characters, no control characters but line breaks and tabs."""
        if not value:
            if required:
                self.add(field, "must not be empty")
        elif len(value) > most:
            self.add(field, f"has {len(value)} characters; at most {most} are allowed")
        elif not value.isprintable() and any((c < " " and c not in "\n\r\t") or c == "\x7f" for c in value):
            self.add(field, "must not hold control characters")
        return value

    def texts(self, field: str, values: Sequence[str], *, most: int, most_characters: int) -> list[str]:
        """A list of at most `most` texts that are not empty, such as tags."""
        first = list(values[:most])
        self.size(field, len(values), most=most)
        for index, value in enumerate(first):
            self.text(f"{field}[{index}]", value, most=most_characters, required=True)
        return first

    def size(self, field: str, size: int, *, most: int, least: int = 0) -> int:
        """The number of entries of a repeated field."""
        if size < least:
            self.add(field, f"has {size} entries; at least {least} needed")
        elif size > most:
            self.add(field, f"has {size} entries; at most {most} are allowed")
        return size

    def whole(self, field: str, value: int, *, least: int, most: int) -> int:
        """A whole number in a closed range."""
        if not least <= value <= most:
            self.add(field, f"is {value}; must be from {least} to {most}")
        return value

    def number(self, field: str, value: float, *, least: float, most: float) -> float:
        """A finite number in a closed range."""
        if not (math.isfinite(value) and least <= value <= most):
            self.add(field, f"is {value}; must be a number from {least:g} to {most:g}")
        return value

    def embedding(self, field: str, values: Sequence[float], *, least: int, most: int) -> tuple[float, ...]:
        """No numbers at all, or `least` to `most` finite ones that are not all zero."""
        numbers = tuple(values)
        if not numbers:
            return numbers
        if not least <= len(numbers) <= most:
            self.add(field, f"has {len(numbers)} numbers; must have none or from {least} to {most}")
        elif not all(map(math.isfinite, numbers)):
            self.add(field, "must hold finite numbers only")
        elif not any(numbers):
            self.add(field, "must not be all zeros")
        return numbers

    def duration(
        self, field: str, value: Duration, *, most_seconds: float, least_seconds: float = 0.0
    ) -> float:
        """A Duration in seconds, in a closed range."""
        seconds = value.seconds + value.nanos * 1e-9
        if abs(value.nanos) > 999_999_999 or value.seconds * value.nanos < 0:
            self.add(field, "is no valid Duration")
        elif not least_seconds <= seconds <= most_seconds:
            self.add(field, f"is {seconds:g} s; must be from {least_seconds:g} to {most_seconds:g} s")
        return seconds

    def timestamp(
        self, field: str, value: Timestamp, *, now: float, most_ahead_seconds: float = MOST_SECONDS_AHEAD
    ) -> float:
        """A Timestamp in seconds since the Unix epoch: 1970 or later, and not too far ahead of `now`."""
        seconds = value.seconds + value.nanos * 1e-9
        if not 0 <= value.nanos <= 999_999_999:
            self.add(field, "is no valid Timestamp")
        elif not 0.0 <= seconds <= MOST_TIMESTAMP_SECONDS:
            self.add(field, "must be from the year 1970 to the year 9999")
        elif seconds > now + most_ahead_seconds:
            ahead = f"is {seconds - now:.0f} s in the future"
            self.add(field, f"{ahead}; at most {most_ahead_seconds:.0f} s are allowed")
        return seconds

    def enum(self, field: str, value: int, kind: _Enum, *, required: bool = False) -> int:
        """A value the enum knows (an open proto3 enum takes any number); 0 stands for "not given"."""
        if value == 0:
            if required:
                self.add(field, "must be given")
        elif value not in kind.values():
            self.add(field, f"is {value}, which is no known value")
        return value

    def time_zone(self, field: str, value: str, *, required: bool = False) -> str:
        """A name of the IANA time zone database, such as `Europe/Berlin`."""
        if not value:
            if required:
                self.add(field, "must not be empty")
        elif value not in _time_zones():
            self.add(field, f"is {printable(value)}, which is no IANA time zone")
        return value

    def page_size(self, field: str, value: int, *, default: int, most: int) -> int:
        """Entries a page: 0 means the default, more than `most` means `most`."""
        if value < 0:
            self.add(field, f"is {value}; must not be negative")
        return min(value, most) if value > 0 else default

    def _path(self, field: str) -> str:
        names = [field]
        view: Violations | None = self
        while view is not None and view._name:
            name = view._name
            names.append(name if isinstance(name, str) else f"{name[0]}[{name[1]}]")
            view = view._parent
        return ".".join(reversed([name for name in names if name]))


def page_token(last: str, *filters: object) -> str:
    """An opaque token that continues a list after the entry `last`, valid for the same filters only."""
    raw = bytes([_PAGE_TOKEN_VERSION]) + _fingerprint(filters) + last.encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def page_start(token: str, *filters: object) -> str:
    """The `last` a token was made from; empty for no token. Raises InvalidPageToken for any other text."""
    if not token:
        return ""
    if len(token) > _MOST_PAGE_TOKEN_CHARACTERS or not token.isascii():
        raise InvalidPageToken(page_token=token)
    try:
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        last = raw[1 + _FILTER_BYTES :].decode()
    except (binascii.Error, UnicodeDecodeError):
        raise InvalidPageToken(page_token=token) from None
    if not last or raw[0] != _PAGE_TOKEN_VERSION or raw[1 : 1 + _FILTER_BYTES] != _fingerprint(filters):
        raise InvalidPageToken(page_token=token)
    return last


def _fingerprint(filters: tuple[object, ...]) -> bytes:
    return hashlib.blake2b(repr(filters).encode(), digest_size=_FILTER_BYTES).digest()


@cache
def _time_zones() -> frozenset[str]:
    return frozenset(available_timezones())

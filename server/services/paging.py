"""Pages of lists in order of a text key. Knows no table and no kind of message."""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from google.protobuf.message import Message

from server.errors import InvalidPageToken
from server.validate import MOST_ID_BYTES, page_start, page_token

M = TypeVar("M", bound=Message)

MOST_KEY_BYTES = MOST_ID_BYTES + 16
"""Longest key of an entry: an id, and what an order puts in front of it."""
MOST_PAGE_BYTES = 3 * 1_048_576
"""Clients refuse messages over 4 MiB unless they are told otherwise."""


class Page(NamedTuple):
    """Where a page begins and how long it is."""

    after: str
    """Key of the last entry before it; empty for the first page."""
    size: int
    filters: tuple[object, ...]
    """What its tokens hold for."""


def open_page(token: str, size: int, *filters: object) -> Page:
    """The page that a token asks for. Raises InvalidPageToken for one that was not given with these filters."""
    after = page_start(token, *filters)
    if len(after.encode()) > MOST_KEY_BYTES or "\0" in after:
        raise InvalidPageToken(page_token=token)
    return Page(after, size, filters)


def take_page(page: Page, messages: Iterable[M], key: Callable[[M], str]) -> tuple[list[M], str]:
    """The page's messages and the token of the next page; `messages` are those after `page.after`, in order of `key`.

    A page ends early, but holds one message at least, before it grows past `MOST_PAGE_BYTES`.
    """
    found: list[M] = []
    room = MOST_PAGE_BYTES
    for message in messages:
        room -= message.ByteSize()
        if found and (len(found) == page.size or room < 0):
            return found, page_token(key(found[-1]), *page.filters)
        found.append(message)
    return found, ""

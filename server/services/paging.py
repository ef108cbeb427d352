"""Pages of lists in order of a text key. Knows no table and no message."""

from collections.abc import Callable, Iterable
from itertools import islice
from typing import NamedTuple, TypeVar

from server.errors import InvalidPageToken
from server.validate import MOST_ID_BYTES, page_start, page_token

T = TypeVar("T")

MOST_KEY_BYTES = MOST_ID_BYTES + 16
"""Longest key of an entry: an id, and what an order puts in front of it."""


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


def take_page(page: Page, entries: Iterable[T], key: Callable[[T], str]) -> tuple[list[T], str]:
    """The page's entries and the token of the next page; `entries` are those after `page.after`, in order of `key`."""
    found = list(islice(entries, page.size + 1))
    if len(found) <= page.size:
        return found, ""
    found.pop()
    return found, page_token(key(found[-1]), *page.filters)

"""Whether there is room: what the file system says, and how commits fared. Writes nothing."""

import os
from pathlib import Path

from store.api import StoreFull

LITTLE_BYTES = 1 << 20
"""A file system with less than this is taken for full: a write of many pages finds no room there."""


def is_full(directory: Path) -> bool:
    """Whether the file system of this directory has next to no room; False where it does not say."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return False
    return found.f_bavail * found.f_frsize < LITTLE_BYTES


class Room:
    """How many operations were committed, how many found no room, and whether that was most of the last ones.

    One thread counts and one looks. A small write may succeed where most do not, so a probe alone shows little.
    """

    def __init__(self, directory: Path) -> None:
        """Begin with nothing counted."""
        self._directory = directory
        self.committed = 0
        self.refused = 0
        self._seen = (0, 0)
        self._short = False

    def check(self) -> None:
        """Raise StoreFull when half of what came since the last look, or more, found no room.

        When nothing came since, it is as it was then, until the file system has room again.
        """
        now = (self.committed, self.refused)
        committed, refused = now[0] - self._seen[0], now[1] - self._seen[1]
        self._seen = now
        if committed or refused:
            self._short = refused >= committed
        elif self._short:
            self._short = is_full(self._directory)
        if self._short:
            raise StoreFull(
                f"no room left: {refused} of the last {committed + refused} writes were refused"
                if refused
                else "no room left on the disk, and the last writes were refused"
            )

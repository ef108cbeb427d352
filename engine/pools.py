"""What a pass leaves of a learner, all that slates are drawn from. Works out no pool itself, and draws nothing.

A pool is a function of the learner's state and of what is asked for, not of a request's own luck: as long as these stay
the same, it may be kept, and every request draws its slate from it.
"""

from functools import cached_property
from typing import Any, Final

import numpy as np

from engine.learner.state import Records
from engine.packing import HEAD_WORDS, unpack_items
from engine.slate import HEAD, ITEM, facts_of
from engine.types import U4

OBJECT_BYTES: Final = 2048
"""Taken as what a pool costs beside its array: its objects."""


class Pool:
    """The candidates of one learner at one moment, scored and described. Treat as read-only."""

    def __init__(self, words: U4, policy: str, model_version: str) -> None:
        """Hold a pool that is packed as `engine.packing` says."""
        self.words = words
        self.policy = policy
        self.model_version = model_version

    def __len__(self) -> int:
        """Return how many candidates there are."""
        return self.place[2]

    @property
    def nbytes(self) -> int:
        """Bytes that the pool takes when it is kept, about."""
        return int(self.words.nbytes) + OBJECT_BYTES

    @property
    def head(self) -> Records:
        """(1,) of dtype HEAD, what its slates have in common."""
        return self.words[:HEAD_WORDS].view(HEAD)

    @property
    def items(self) -> Records:
        """(n,) of dtype ITEM, the candidates with their scores before the draw, unpacked anew."""
        items = np.zeros(int(self.head["candidates"][0]), ITEM)
        unpack_items(self.words, items.view(np.uint32))
        return items

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What is the same in every slate drawn from it, by field of `Slate`."""
        return facts_of(self.head[0], self.policy, self.model_version)

    @cached_property
    def names(self) -> bytes:
        """The names of policy and model, as slates are stored with them."""
        return self.policy.encode() + self.model_version.encode()

    @cached_property
    def place(self) -> tuple[int, int, int]:
        """Where in memory the words are, how many, and how many candidates there are."""
        address = self.words.__array_interface__["data"][0]
        return int(address), len(self.words), int(self.head["candidates"][0])

    def apart(self) -> "Pool":
        """Return the pool in memory of its own: one of a pass is a part of what the pass filled."""
        return Pool(self.words.copy(), self.policy, self.model_version)

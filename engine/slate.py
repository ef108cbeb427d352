"""A slate: what was recommended to one learner, with the facts behind it, as an object and as bytes. Draws none."""

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from engine.draw import LEAST_LIFT
from engine.policy import SOURCES, TERMS
from engine.types import F8, U4

ITEM: Final = np.dtype(
    [
        ("question", "u4"),
        ("concept", "u4"),
        ("score", "f8"),
        ("propensity", "f8"),
        ("last_at", "f8"),
        ("predicted", "f4"),
        ("values", "f4", (len(TERMS),)),
        ("mastery", "f4"),
        ("mastery_sd", "f4"),
        ("recall", "f4"),
        ("stability", "f4"),
        ("ready", "f4"),
        ("seconds", "f4"),
        ("attempts", "u4"),
        ("correct", "u4"),
        ("steps", "i2"),
        ("unlocks", "u2"),
        ("sources", "u2"),
        ("due", "u1"),
        ("mastered", "u1"),
    ],
    align=True,
)
"""One recommended question with the facts it was chosen on.

`concept`: for which it was proposed; `mastery`, its sd, `recall`, `stability` (days), `ready`, `last_at`
(epoch seconds), `attempts`, `correct` are that concept's, NaN where there is none. `values`: of the terms.
`propensity`: chance of this item at this rank, given those above it. `steps`: to the objective, −1 when not
on its path. `unlocks`: closed concepts that wait for it. `sources`: bit mask. `due`: recall is below the
target. `seconds`: expected.
"""

_VERSION: Final = 2
HEAD: Final = np.dtype(
    [
        ("version", "u1"),
        ("reason", "u1"),
        ("policy_bytes", "u2"),
        ("model_bytes", "u2"),
        ("shown", "u2"),
        ("limit", "u2"),
        ("candidates", "u2"),
        ("objective", "i4"),
        ("answers", "u4"),
        ("seed", "u8"),
        ("catalog_version", "u8"),
        ("made_at", "f8"),
        ("last_answered_at", "f8"),
        ("mean_score", "f8"),
        ("best_left", "f8"),
        ("temperature", "f8"),
        ("target", "f8"),
        ("unlike_stranger", "f8"),
        ("weights", "f8", (len(TERMS),)),
        ("means", "f8", (len(TERMS),)),
        ("source_counts", "u4", (len(SOURCES),)),
        ("pool_seed", "u8"),
    ]
)
"""What is stored of a slate before the names of its policy and model, and its items. Version 1 ended before
`pool_seed`: one seed was both."""

_HEAD_1: Final = HEAD.fields["pool_seed"][1] if HEAD.fields else 0
_SEED: Final = HEAD.fields["seed"][1] if HEAD.fields else 0
"""Where the head of version 1 ended, and where its seed stands."""

_OWN: Final = frozenset({"version", "policy_bytes", "model_bytes", "shown"})
_PLAIN: Final = tuple(name for name in HEAD.names or () if name not in _OWN)
"""Fields of the stored header that are fields of Slate by the same name."""


class SlateReason(IntEnum):
    """Why a slate holds fewer questions than were asked for; stored, so numbers never change."""

    FULL = 0
    EMPTY_CATALOG = 1
    """The catalogue has no question."""
    ALL_EXCLUDED = 2
    """Every open question was excluded, or answered right a short while ago."""
    FEW_ELIGIBLE = 3
    """There were some, but not as many as asked for."""
    NOTHING_OPEN = 4
    """No concept with questions is open to this learner."""


@dataclass(frozen=True)
class Slate:
    """What was recommended to one learner at one moment, best first, and all that an explanation needs."""

    items: npt.NDArray[Any]
    """(k,) of dtype ITEM."""
    reason: SlateReason
    limit: int
    """How many were asked for."""
    seed: int
    """Of the draw."""
    made_at: float
    """Epoch seconds for which its pool was made."""
    policy: str
    model_version: str
    catalog_version: int
    weights: F8
    """(terms,) signed weights of the policy."""
    means: F8
    """(terms,) mean value of each term over the candidates."""
    source_counts: U4
    """(sources,) candidates that each source proposed."""
    candidates: int
    """Number of candidates in all."""
    mean_score: float
    """Of the candidates."""
    best_left: float
    """Best score among the candidates not shown; −inf when all were."""
    temperature: float
    target: float
    """Predicted success aimed at."""
    objective: int
    """Concept row worked towards, −1 when there is none."""
    answers: int
    """Answers of this learner that the scores rest on."""
    last_answered_at: float
    """Epoch seconds; 0 when there are none."""
    unlike_stranger: float
    """Share of the shown concepts that a learner without history would not have been shown."""
    pool_seed: int
    """Of all chance before the draw."""

    @cached_property
    def contributions(self) -> F8:
        """(k, terms) weight · value; a row sums to the item's score."""
        return np.asarray(self.weights * self.items["values"].astype(np.float64))

    @cached_property
    def lifts(self) -> F8:
        """(k, terms) what each term adds to the item's score against the average candidate."""
        return self.contributions - self.weights * self.means

    @cached_property
    def leads(self) -> list[int]:
        """For each item the term that lifts it most, −1 where none does."""
        return [
            int(np.argmax(lifts)) if lifts[lifts > 0.0].sum() > LEAST_LIFT else -1 for lifts in self.lifts
        ]

    def column(self, field: str) -> list[Any]:
        """Return a field of all items as plain numbers, taken out of the records once."""
        known = self._columns.get(field)
        if known is None:
            known = self._columns[field] = self.items[field].tolist()
        return known

    @cached_property
    def _columns(self) -> dict[str, list[Any]]:
        return {}

    def to_bytes(self) -> bytes:
        """Return the slate in its stored form, which `from_bytes` reads."""
        head = blank_heads(1, self.policy, self.model_version)
        record = head[0]
        record["shown"] = len(self.items)
        for name in _PLAIN:
            record[name] = getattr(self, name)
        return b"".join(
            (head.tobytes(), self.policy.encode(), self.model_version.encode(), self.items.tobytes())
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> "Slate":
        """Read what `to_bytes` wrote.

        Raises:
            ValueError: the bytes are no slate of a version known here, or are cut short.
        """
        if data[:1] == b"\x01" and len(data) >= _HEAD_1:
            data = b"".join((bytes((_VERSION,)), data[1:_HEAD_1], data[_SEED : _SEED + 8], data[_HEAD_1:]))
        if len(data) < HEAD.itemsize or data[0] != _VERSION:
            raise ValueError(f"not a slate of version {_VERSION}: {len(data)} bytes starting {data[:1]!r}")
        head = np.frombuffer(data, HEAD, 1)[0]
        text = HEAD.itemsize
        model = text + int(head["policy_bytes"])
        items = model + int(head["model_bytes"])
        if len(data) != items + int(head["shown"]) * ITEM.itemsize:
            raise ValueError(f"a slate of {int(head['shown'])} items does not have {len(data)} bytes")
        rows = np.frombuffer(data, ITEM, int(head["shown"]), items)
        return cls.of(head, rows, data[text:model].decode(), data[model:items].decode())

    @classmethod
    def of(cls, head: Any, items: npt.NDArray[Any], policy: str, model_version: str) -> "Slate":
        """Return the slate of a record of dtype HEAD and its items (k,), without copying them."""
        return cls.made_of(facts_of(head, policy, model_version), items=items)

    @classmethod
    def made_of(cls, facts: dict[str, Any], **others: Any) -> "Slate":
        """Return the slate with these fields, or values of cached properties; `facts` are not changed."""
        slate = object.__new__(cls)
        # Twenty fields set one by one by a frozen dataclass would cost more than drawing the slate.
        slate.__dict__.update(facts, **others)
        return slate


def facts_of(head: Any, policy: str, model_version: str) -> dict[str, Any]:
    """Return the fields of a slate that a record of dtype HEAD and the names of its policy and model give."""
    known = dict(zip(HEAD.names or (), head.item(), strict=True))
    for name in _OWN:
        del known[name]
    known.update(reason=SlateReason(known["reason"]), policy=policy, model_version=model_version)
    return known


def blank_heads(count: int, policy: str, model_version: str) -> npt.NDArray[Any]:
    """Return (count,) records of dtype HEAD that hold what the names of the policy and the model say."""
    heads = np.zeros(count, HEAD)
    heads["version"] = _VERSION
    heads["policy_bytes"], heads["model_bytes"] = len(policy.encode()), len(model_version.encode())
    return heads

"""Drawing a slate from scored candidates, with exact propensities, and keeping it as bytes. Computes no score."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Any, Final, overload

import numpy as np
import numpy.typing as npt

from engine.candidates import Candidates
from engine.jit import kernel
from engine.policy import SOURCES, TERMS
from engine.scoring import SAME
from engine.survey import READY, RECALL_TARGET, REVIEW, STEPS, UNLOCKS, chance
from engine.types import F4, F8, I8, U1, U4

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

_VERSION: Final = 1
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
    ]
)
"""What is stored of a slate before the names of its policy and model, and its items."""

_OWN: Final = frozenset({"version", "policy_bytes", "model_bytes", "shown"})
_PLAIN: Final = tuple(name for name in HEAD.names or () if name not in _OWN)
"""Fields of the stored header that are fields of Slate by the same name."""

LEAST_LIFT = 1e-9
"""Terms that together lift an item no more than this over the average candidate do not explain it."""

_SEED_STEP = 7919
"""Draws of the slate take counters from here on, so that they are not the survey's."""

RUN_DISCOUNT = 0.75
"""A third item in a row of one kind, review or new, counts as this much less different."""


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


@kernel
def draw(
    scores: F8,
    found: Candidates,
    weights: F8,
    temperature: float,
    seed: int,
    chosen: I8,
    sameness: F4,
    propensity: F8,
    final: F8,
) -> float:
    """Draw `len(chosen)` ≤ n candidates without replacement; returns the best score left, −inf when none is.

    Rank by rank, candidate i is drawn with chance exp(s_i/τ) / Σ exp(s_j/τ) over those left, s being its
    score less what `diversity` takes: this is what Gumbel top-k draws (Plackett-Luce; Kool, van Hoof and
    Welling 2019), but it stays exact when what was drawn changes the scores of the rest. Fills chosen,
    sameness (value of `diversity`), propensity (that chance) and final (s), each (k,). Temperature 0 takes
    the best, ties by candidate number, with propensity 1.
    """
    n = scores.shape[0]
    fresh = np.ones(n)
    taken = np.zeros(n, np.uint8)
    current = np.empty(n)
    share = np.empty(n)
    odds = np.empty(n)
    run = 0
    kind = -1
    best = -np.inf
    for rank in range(chosen.shape[0] + 1):
        best = -np.inf
        for i in range(n):
            if taken[i] == 0:
                in_run = run >= 2 and (found.sources[i] >> REVIEW) & 1 == kind
                share[i] = 1.0 - fresh[i] * (RUN_DISCOUNT if in_run else 1.0)
                current[i] = scores[i] + weights[SAME] * share[i]
                best = max(best, current[i])
        if rank == chosen.shape[0]:
            break
        pick, chance_of_pick = _one(current, taken, best, temperature, chance(seed, _SEED_STEP + rank), odds)
        chosen[rank] = pick
        sameness[rank] = share[pick]
        propensity[rank] = chance_of_pick
        final[rank] = current[pick]
        taken[pick] = 1
        own = int((found.sources[pick] >> REVIEW) & 1)
        run = run + 1 if own == kind else 1
        kind = own
        for i in range(n):
            if found.concepts[i] == found.concepts[pick]:
                fresh[i] *= 0.5
    return best


@kernel
def _one(current: F8, taken: U1, best: float, temperature: float, luck: float, odds: F8) -> tuple[int, float]:
    """Return (the candidate drawn, its chance) from those not taken; odds (n,) is room to work in."""
    if temperature <= 0.0:
        for i in range(current.shape[0]):
            if taken[i] == 0 and current[i] == best:
                return i, 1.0
    total = 0.0
    for i in range(current.shape[0]):
        if taken[i] == 0:
            odds[i] = np.exp((current[i] - best) / temperature)
            total += odds[i]
    left = luck * total
    last = -1
    own = 0.0
    for i in range(current.shape[0]):
        if taken[i] == 0:
            last = i
            own = odds[i]
            left -= own
            if left < 0.0:
                break
    return last, own / total


@kernel
def describe(
    found: Candidates,
    chosen: I8,
    sameness: F4,
    propensity: F8,
    final: F8,
    predicted: F8,
    values: F4,
    survey: F4,
    view: F8,
    counts: U4,
    mastered: U1,
    seconds: F4,
    settings: F8,
    items: npt.NDArray[Any],
) -> None:
    """Fill items (k,) of dtype ITEM with what is known of each drawn candidate; `seconds` (nq,) by question row."""
    for rank in range(chosen.shape[0]):
        i = chosen[rank]
        c = found.concepts[i]
        item = items[rank]
        item.question = found.rows[i]
        item.concept = c
        item.score = final[rank]
        item.propensity = propensity[rank]
        item.last_at = view[c, 6]
        item.predicted = predicted[i]
        for term in range(values.shape[1]):
            item.values[term] = values[i, term]
        item.values[SAME] = sameness[rank]
        item.mastery = view[c, 0]
        item.mastery_sd = view[c, 1]
        item.recall = view[c, 2]
        item.stability = view[c, 3]
        item.ready = survey[c, READY]
        item.seconds = seconds[found.rows[i]]
        item.attempts = counts[c, 0]
        item.correct = counts[c, 1]
        item.steps = int(survey[c, STEPS])
        item.unlocks = int(survey[c, UNLOCKS])
        item.sources = found.sources[i]
        item.due = 1 if view[c, 2] < settings[RECALL_TARGET] else 0
        item.mastered = mastered[c]


@dataclass(frozen=True)
class Slate:
    """What was recommended to one learner at one moment, best first, and all that an explanation needs."""

    items: npt.NDArray[Any]
    """(k,) of dtype ITEM."""
    reason: SlateReason
    limit: int
    """How many were asked for."""
    seed: int
    made_at: float
    """Epoch seconds."""
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

    @cached_property
    def memo(self) -> dict[int, Any]:
        """What the server may keep of items by question row: true of the learner, whatever was drawn."""
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
        slate = object.__new__(cls)
        # Twenty fields set one by one by a frozen dataclass would cost more than drawing the slate.
        known = slate.__dict__
        known.update(zip(HEAD.names or (), head.item(), strict=True))
        for name in _OWN:
            del known[name]
        known.update(
            reason=SlateReason(known["reason"]), items=items, policy=policy, model_version=model_version
        )
        return slate


class Slates(Sequence[Slate]):
    """The slates of one pass, in the order of its queries; each is made an object only when it is asked for."""

    __slots__ = ("_heads", "_items", "_leads", "_names", "model_version", "policy")

    def __init__(
        self,
        heads: npt.NDArray[Any],
        items: npt.NDArray[Any],
        leads: npt.NDArray[np.int8],
        policy: str,
        model_version: str,
    ) -> None:
        """Hold heads (n,) of dtype HEAD, items (n, limit) of dtype ITEM and the items' leads (n, limit)."""
        self._heads = heads
        self._items = items
        self._leads = leads
        self._names = policy.encode() + model_version.encode()
        self.policy = policy
        self.model_version = model_version

    def __len__(self) -> int:
        """Return how many slates there are."""
        return len(self._heads)

    @overload
    def __getitem__(self, index: int) -> Slate: ...
    @overload
    def __getitem__(self, index: slice) -> "Slates": ...
    def __getitem__(self, index: int | slice) -> "Slate | Slates":
        """Return one slate, or some of them."""
        if isinstance(index, slice):
            held = self._heads[index], self._items[index], self._leads[index]
            return Slates(*held, self.policy, self.model_version)
        head = self._heads[index]
        shown = int(head["shown"])
        slate = Slate.of(head, self._items[index, :shown], self.policy, self.model_version)
        # What the pass has worked out already need not be worked out again.
        slate.__dict__["leads"] = self._leads[index, :shown].tolist()
        return slate

    def stored(self, index: int) -> bytes:
        """Return `Slate.to_bytes` of one slate, without making it an object."""
        head = self._heads[index]
        return b"".join((head.tobytes(), self._names, self._items[index, : head["shown"]].tobytes()))


def blank_heads(count: int, policy: str, model_version: str) -> npt.NDArray[Any]:
    """Return (count,) records of dtype HEAD that hold what the names of the policy and the model say."""
    heads = np.zeros(count, HEAD)
    heads["version"] = _VERSION
    heads["policy_bytes"], heads["model_bytes"] = len(policy.encode()), len(model_version.encode())
    return heads

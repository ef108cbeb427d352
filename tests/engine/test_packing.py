"""A packed pool holds every bit of its candidates, whatever they are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.candidates import MAX_CANDIDATES
from engine.draw import LOT
from engine.learner.state import Records
from engine.packing import HEAD_WORDS, MOST_WORDS, pack, unpack_items, unpack_lots
from engine.policy import TERMS
from engine.slate import HEAD, ITEM
from engine.types import U4

OF_A_CONCEPT = (
    *("concept", "last_at", "mastery", "mastery_sd", "recall", "stability", "ready"),
    *("attempts", "correct", "steps", "unlocks", "due", "mastered"),
)


def candidates(seed: int, count: int, concepts: int) -> tuple[Records, Records]:
    """Items and lots of any bits at all; what is of a concept is the same in each item of it."""
    rng = np.random.default_rng(seed)

    def noise(size: int) -> Records:
        return np.frombuffer(rng.bytes(size * ITEM.itemsize), ITEM).copy()

    items, facts = noise(count), noise(concepts)
    facts["concept"] = rng.permutation(5 * concepts)[:concepts]
    of = rng.integers(0, concepts, count)
    if rng.integers(2):
        of.sort()
    for name in OF_A_CONCEPT:
        items[name] = facts[name][of]
    for term in np.flatnonzero(rng.random(len(TERMS)) < 0.3):
        items["values"][:, term] = rng.random()
    items["values"][rng.random((count, len(TERMS))) < 0.4] = 0.0
    items["propensity"] = 0.0
    items["score"] = rng.normal(size=count)
    lots = np.zeros(count, LOT)
    lots["score"], lots["concept"] = items["score"], items["concept"]
    lots["review"] = rng.integers(0, 2, count)
    lots["unusual"] = rng.integers(0, 2, concepts)[of]
    return items, lots


def packed(items: Records, lots: Records) -> U4:
    head = np.zeros(1, HEAD)
    head["candidates"], head["pool_seed"] = len(items), 7
    room = np.full(MOST_WORDS, 0xABABABAB, np.uint32)
    size = pack(head.view(np.uint32), items.view(np.uint32), lots, room)
    assert size % 2 == 0, "pools one after another keep their scores where numbers of eight bytes may lie"
    assert (room[:HEAD_WORDS] == head.view(np.uint32)).all()
    return room[:size].copy()


@settings(deadline=None)
@given(st.integers(0, 1 << 30), st.integers(0, MAX_CANDIDATES), st.integers(1, 60))
def test_every_field_of_every_candidate_comes_back(seed: int, count: int, concepts: int) -> None:
    items, lots = candidates(seed, count, concepts)
    words = packed(items, lots)
    back = np.zeros(count, ITEM)
    unpack_items(words, back.view(np.uint32))
    for name in ITEM.names or ():
        assert back[name].tobytes() == items[name].tobytes(), name
    drawn = np.zeros(count, LOT)
    unpack_lots(words, 0.0, drawn)
    for name in ("score", "review", "unusual"):
        assert (drawn[name] == lots[name]).all(), name
    same = lots["concept"][:, np.newaxis] == lots["concept"]
    assert ((drawn["concept"][:, np.newaxis] == drawn["concept"]) == same).all()


def test_candidates_that_have_nothing_in_common_fit_as_well() -> None:
    items, lots = candidates(3, MAX_CANDIDATES, MAX_CANDIDATES)
    items["values"] = np.random.default_rng(3).random(items["values"].shape)
    items["concept"] = lots["concept"] = np.arange(MAX_CANDIDATES)
    words = packed(items, lots)
    assert MOST_WORDS - 2 <= len(words) <= MOST_WORDS
    back = np.zeros(MAX_CANDIDATES, ITEM)
    unpack_items(words, back.view(np.uint32))
    assert (back["values"] == items["values"]).all()
    assert (back["concept"] == items["concept"]).all()


@pytest.mark.parametrize("temperature", [0.0, 0.012, 2.0])
def test_odds_are_against_the_best(temperature: float) -> None:
    items, lots = candidates(5, 40, 7)
    drawn = np.zeros(40, LOT)
    unpack_lots(packed(items, lots), temperature, drawn)
    gap = lots["score"] - lots["score"].max()
    wanted = np.exp(gap / temperature) if temperature else np.zeros(40)
    np.testing.assert_allclose(drawn["odds"], wanted, rtol=1e-14)


def test_a_pool_of_candidates_that_share_much_takes_half_the_room() -> None:
    items, lots = candidates(8, 120, 30)
    items["values"] = 0.0
    items["values"][:, :7] = np.random.default_rng(8).random((120, 7))
    assert packed(items, lots).nbytes < 0.5 * 120 * (ITEM.itemsize + LOT.itemsize)

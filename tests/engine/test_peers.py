"""Other learners lead where they went with profit; training and lookup equal their naive twins."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog import Sparse
from engine.guide import Guide, follow
from engine.learner.state import CONCEPT
from engine.peers import MOMENTS_EACH, Peers, moments_of, train_peers
from tests import naive_peers, worlds

ONE_EACH = Sparse(np.arange(9, dtype=np.int32), np.arange(8, dtype=np.uint32))
"""Eight questions, each of a concept of its own."""

History = list[tuple[int, bool]]


def log_of(histories: list[History]) -> tuple[Any, Any, Any]:
    """Return (learner, question, correct) of histories of (question, right)."""
    learner = np.repeat(np.arange(len(histories), dtype=np.int32), [len(h) for h in histories])
    rows = [entry for history in histories for entry in history]
    return (
        learner,
        np.array([q for q, _ in rows], np.uint32),
        np.array([right for _, right in rows], np.uint8),
    )


def touched(*answers: int) -> Any:
    """Return the concept records of a learner who practised these concepts one after the other."""
    rows = sorted(set(answers))
    records = np.zeros(len(rows), CONCEPT)
    records["row"] = rows
    records["attempts"] = [answers.count(row) for row in rows]
    records["last_step"] = [len(answers) - 1 - answers[::-1].index(row) for row in rows]
    records.flags.writeable = False
    return records


def led(peers: Peers, *answers: int, size: int = 8) -> list[float]:
    """Return where a learner with these answers is led."""
    out = np.full(size, np.nan, np.float32)
    follow(Guide.of(peers), touched(*answers), len(answers), out)
    return [float(value) for value in out]


def trained(histories: list[History]) -> Peers:
    """Return what is learned from histories over eight questions, each of its own concept."""
    return train_peers(*log_of(histories), ONE_EACH, 8, seed=3)


def test_learners_are_led_where_those_went_who_stood_there() -> None:
    one_way: History = [(0, True), (1, True), (2, True), (3, True)]
    other_way: History = [(4, True), (5, True), (6, True), (7, True)]
    peers = trained([one_way, other_way] * 40)
    after_two = led(peers, 0, 1)
    assert np.argmax(after_two) == 2
    assert after_two[2] > after_two[3] > max(after_two[4:])
    assert np.argmax(led(peers, 4, 5)) == 6


def test_what_did_not_go_well_leads_half_as_strongly() -> None:
    well: History = [(0, True), (1, True)]
    badly: History = [(0, True), (2, False)]
    went = led(trained([well, badly] * 40), 0)
    beside = led(trained([well, badly] * 40)._replace(next_values=np.zeros(2, np.float32)), 0)
    assert went[1] - beside[1] == pytest.approx(2.0 * (went[2] - beside[2]), rel=1e-4)


def test_the_order_of_practice_tells_learners_apart() -> None:
    forth: History = [(0, True)] * 12 + [(1, True)] * 12 + [(2, True)]
    back: History = [(1, True)] * 12 + [(0, True)] * 12 + [(3, True)]
    peers = trained([forth, back] * 40)
    assert led(peers, *[0] * 12, *[1] * 12)[2] > led(peers, *[0] * 12, *[1] * 12)[3]
    assert led(peers, *[1] * 12, *[0] * 12)[3] > led(peers, *[1] * 12, *[0] * 12)[2]


def test_without_practice_or_without_peers_nobody_is_led() -> None:
    peers = trained([[(0, True), (1, True)]] * 20)
    assert led(peers) == [0.0] * 8
    assert led(Peers.nobody(), 0, 1) == [0.0] * 8
    assert led(train_peers(*log_of([]), ONE_EACH, 8, seed=1), 0) == [0.0] * 8


def test_one_concept_throughout_leaves_no_moment() -> None:
    peers = trained([[(0, True)] * 5])
    assert peers.centre.shape == (64, 0)
    assert led(peers, 0)[1:] == [0.0] * 7


def test_training_is_the_same_for_a_seed() -> None:
    rng = np.random.default_rng(5)
    wide = Sparse(np.arange(91, dtype=np.int32), np.arange(90, dtype=np.uint32))
    log = log_of([[(int(q), True) for q in rng.integers(0, 90, 30)] for _ in range(30)])
    one, other = (train_peers(*log, wide, 90, seed=4) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_diligent_learners_give_only_so_many_moments() -> None:
    history: History = [(step % 3, True) for step in range(500)]
    assert moments_of(*log_of([history]), ONE_EACH, 8).stood.shape == (MOMENTS_EACH, 8)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_moments_equal_their_naive_twin(seed: int) -> None:
    rng = np.random.default_rng(seed)
    offsets = np.concatenate(([0], np.cumsum(rng.integers(1, 4, 12)))).astype(np.int32)
    concepts = Sparse(offsets, rng.integers(0, 8, offsets[-1]).astype(np.uint32))
    history = [
        (int(q), bool(right)) for q, right in zip(rng.integers(0, 12, 30), rng.random(30) < 0.6, strict=True)
    ]
    own = [concepts.of(q).tolist() for q, _ in history]
    found = moments_of(*log_of([history]), concepts, 8)
    turns = [t for t in range(1, 30) if own[t][0] != own[t - 1][0]]
    assert found.stood.shape[0] == len(turns)
    for place, turn in enumerate(turns):
        stood = naive_peers.standing(own[:turn])
        length = np.sqrt(sum(weight**2 for weight in stood.values()))
        ahead = [(own[t], history[t][1]) for t in range(turn, 30)]
        followed = naive_peers.followed(own[turn - 1], ahead)
        for concept in range(8):
            assert found.stood[place, concept] == pytest.approx(stood.get(concept, 0.0) / length, abs=1e-6)
            assert found.followed[place, concept] == pytest.approx(followed.get(concept, 0.0), abs=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 9), max_size=30), st.integers(3, 12))
def test_following_equals_its_naive_twin(seed: int, answers: list[int], size: int) -> None:
    peers = worlds.peers_at_random(8, np.random.default_rng(seed))
    twin = naive_peers.follow(peers, touched(*answers), len(answers), size)
    assert led(peers, *answers, size=size) == pytest.approx(twin, abs=2e-6)

"""Assignment is a pure function, spread as planned, stable under a ramp, and GrowthBook's where asked."""

import math
from collections import Counter
from itertools import pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from engine.experiments.assignment import (
    Assigner,
    AssignmentPlan,
    Hashing,
    LayerSlot,
    Phase,
    RampStep,
    check_layer,
    fnv1a_32,
    hasher,
)

LEARNERS = [f"learner-{i}" for i in range(4000)]
PINNED = [0.960489273, 0.120302512, 0.522670784]
HALVES = (Phase(weights=(0.5, 0.5)),)
ids = st.text(min_size=1, max_size=30).filter(lambda s: s.isprintable())


def plan(**changes: object) -> AssignmentPlan:
    setting: dict[str, object] = {"seed": "exp-1", "arms": ("old", "new"), "phases": HALVES, **changes}
    return AssignmentPlan(**setting)  # type: ignore[arg-type]


def arms_of(made: AssignmentPlan, now_s: float = 0.0, phase: int = -1) -> list[int]:
    assigner = Assigner(made, now_s=now_s)
    return [assigner.index_of(learner, phase=phase) for learner in LEARNERS]


@pytest.mark.parametrize(
    ("hashing", "seed", "learner", "number"),
    [
        (Hashing.GROWTHBOOK_V2, "seed", "a", 0.0505),
        (Hashing.GROWTHBOOK_V2, "foo", "def", 0.2019),
        (Hashing.GROWTHBOOK_V1, "b", "a", 0.946),
        (Hashing.GROWTHBOOK_V2, "seed", "😀user", 0.4915),
    ],
)
def test_growthbook_known_answers(hashing: Hashing, seed: str, learner: str, number: float) -> None:
    assert hasher(hashing, seed)(learner) == number


@given(ids, ids)
@settings(max_examples=80)
def test_fnv_equals_its_definition_over_utf16_units(seed: str, learner: str) -> None:
    state = 0x811C9DC5
    raw = (seed + learner).encode("utf-16-le")
    for i in range(0, len(raw), 2):
        state = (state ^ int.from_bytes(raw[i : i + 2], "little")) * 16777619 % 2**32
    assert fnv1a_32(learner, fnv1a_32(seed)) == fnv1a_32(seed + learner) == state


def test_the_default_numbers_never_change() -> None:
    # Written down once: an upgrade that moved learners between arms would ruin running experiments.
    assert [round(hasher(Hashing.BLAKE2B, "exp-1")(who), 9) for who in ("ada", "grace", "émile")] == PINNED


@pytest.mark.parametrize("hashing", Hashing)
def test_learners_are_spread_evenly(hashing: Hashing) -> None:
    number = hasher(hashing, "exp-1")
    found = Counter(int(10 * number(learner)) for learner in LEARNERS)
    assert stats.chisquare([found[i] for i in range(10)]).pvalue > 1e-4


def test_sibling_experiments_are_independent() -> None:
    seeds = [f"exp-{i}" for i in range(8)]
    arms = {seed: arms_of(plan(seed=seed)) for seed in seeds}
    pairs = [(a, b) for a, b in product(seeds, seeds) if a < b]
    tables = [Counter(zip(arms[a], arms[b], strict=True)) for a, b in pairs]
    ps = [stats.chi2_contingency([[t[0, 0], t[0, 1]], [t[1, 0], t[1, 1]]]).pvalue for t in tables]
    assert min(ps) > 0.05 / len(ps) / 10


def test_weights_are_kept_and_an_arm_of_weight_zero_stays_empty() -> None:
    made = plan(arms=("a", "b", "c"), phases=(Phase(weights=(0.2, 0.0, 0.8)),))
    found = Counter(arms_of(made))
    assert found[1] == found[-1] == 0
    assert found[0] / len(LEARNERS) == pytest.approx(0.2, abs=0.03)


def test_a_growing_ramp_lets_learners_in_and_moves_none() -> None:
    ramp = (
        RampStep(at_s=100.0, coverage=0.1),
        RampStep(at_s=200.0, coverage=0.5),
        RampStep(at_s=300.0, coverage=1.0),
    )
    made = plan(phases=(Phase(weights=(0.5, 0.5), ramp=ramp),))
    seen = [arms_of(made, now_s) for now_s in (99.0, 100.0, 250.0, 300.0)]
    for before, after in pairwise(seen):
        assert all(b in (-1, a) for b, a in zip(before, after, strict=True))
    covered = [sum(arm >= 0 for arm in look) / len(LEARNERS) for look in seen]
    assert covered == pytest.approx([0.0, 0.1, 0.5, 1.0], abs=0.03)


def test_a_learner_keeps_the_arm_of_the_phase_it_was_first_exposed_in() -> None:
    before = plan(phases=(Phase(weights=(0.5, 0.5)),))
    after = plan(phases=(Phase(weights=(0.5, 0.5)), Phase(weights=(0.9, 0.1))))
    assert arms_of(after, phase=0) == arms_of(before)
    assert Counter(arms_of(after))[1] / len(LEARNERS) == pytest.approx(0.1, abs=0.02)
    assert Assigner(after, now_s=0.0).assign("ada").phase == 1
    with pytest.raises(IndexError):
        Assigner(after, now_s=0.0).assign("ada", phase=2)


def test_experiments_of_one_layer_never_share_a_learner_and_split_evenly_inside() -> None:
    first = plan(slot=LayerSlot(layer="home", start=0.0, end=0.5))
    second = plan(seed="exp-2", slot=LayerSlot(layer="home", start=0.5, end=1.0))
    a, b = arms_of(first), arms_of(second)
    assert all((x >= 0) != (y >= 0) for x, y in zip(a, b, strict=True))
    inside = Counter(arm for arm in a if arm >= 0)
    assert inside[1] / (inside[0] + inside[1]) == pytest.approx(0.5, abs=0.04)


def test_slots_that_overlap_are_named() -> None:
    slots = [LayerSlot(layer="home", start=0.0, end=0.5), LayerSlot(layer="home", start=0.4, end=0.6)]
    with pytest.raises(ValueError, match=r"slots of layer home must not overlap.*0\.4"):
        check_layer(slots)
    check_layer([slots[0], LayerSlot(layer="other", start=0.4, end=0.6)])


def test_rolled_back_sends_participants_to_control() -> None:
    assert set(arms_of(plan(rolled_back=True))) == {0}


def test_who_is_outside_has_no_arm() -> None:
    made = plan(phases=(Phase(weights=(0.5, 0.5), ramp=(RampStep(at_s=0.0, coverage=0.0),)),))
    assert Assigner(made, now_s=1.0).assign("ada").arm is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"arms": ("a",)}, "arms must be at least 2 different names"),
        ({"arms": ("a", "a")}, "arms must be at least 2 different names"),
        ({"phases": ()}, "phases must have at least 1 entry"),
        ({"phases": (Phase(weights=(1.0,)),)}, "weights must have one entry an arm"),
        ({"phases": (Phase(weights=(0.5, 0.6)),)}, "weights must be shares that sum to 1"),
        ({"phases": (Phase(weights=(math.nan, 0.5)),)}, "weights must be shares that sum to 1"),
        ({"phases": (Phase(weights=(0.5, 0.5), ramp=()),)}, "ramp must have at least 1 step"),
        (
            {"phases": (Phase(weights=(0.5, 0.5), ramp=(RampStep(at_s=0.0, coverage=1.5),)),)},
            "coverage must be between 0 and 1",
        ),
        (
            {
                "phases": (
                    Phase(
                        weights=(0.5, 0.5), ramp=(RampStep(at_s=0, coverage=1), RampStep(at_s=1, coverage=0))
                    ),
                )
            },
            "ramp must rise",
        ),
        ({"slot": LayerSlot(layer="x", start=0.5, end=0.5)}, "slot must have 0 <= start < end <= 1"),
    ],
)
def test_plans_that_cannot_assign_are_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        plan(**changes)

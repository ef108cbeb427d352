"""Policies: seven by name, and configuration that is wrong is refused by name."""

from typing import Any

import pytest

from engine.policy import BUILT_IN, InvalidPolicy, load_policies, make_policy

NAMES = {
    "hybrid_v1",
    "content_based_v1",
    "collaborative_filtering_v2",
    "spaced_repetition_v1",
    "zone_v1",
    "popularity_v1",
    "random_v1",
}


def test_all_seven_are_there_by_name() -> None:
    assert set(load_policies()) == NAMES
    assert all(policy.name == name for name, policy in BUILT_IN.items())


def test_penalties_are_subtracted() -> None:
    policy = make_policy("p", weights={"zone": 0.5, "repetition": 0.2}, sources={"frontier": 8})
    assert sorted(policy.signed.tolist()) == sorted([0.5, -0.2] + [0.0] * 10)
    assert (policy.weight("repetition"), policy.quota("frontier")) == (0.2, 8)


def test_configuration_adds_and_replaces() -> None:
    policies = load_policies(
        {
            "careful": {"based_on": "hybrid_v1", "weights": {"zone": 0.5}, "target_success": 0.9},
            "zone_v1": {"weights": {"zone": 1.0}, "sources": {"review": 5}},
        }
    )
    assert policies["careful"].weight("zone") == 0.5
    assert policies["careful"].weight("gain") == BUILT_IN["hybrid_v1"].weight("gain")
    assert (policies["careful"].target_success, policies["careful"].target_reach) == (0.9, 0.0)
    assert policies["zone_v1"].quota("frontier") == 0


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"weights": {"zoen": 1.0}}, "weights.zoen: unknown name; there are zone,"),
        ({"weights": {"zone": -1.0}}, "weights.zone: must be from 0.0 to 10.0, not -1.0"),
        ({"weights": {"zone": float("nan")}}, "weights.zone: must be from"),
        ({"weights": {"zone": "much"}}, "weights.zone: must be a number, not 'much'"),
        ({"weights": 3}, "weights: must be a table of numbers, not 3"),
        ({"sources": {"frontier": 65}}, "sources.frontier: must be from 0 to 64, not 65"),
        ({"sources": {"frontier": 1.5}}, "sources.frontier: must be a whole number, not 1.5"),
        ({"sources": {"fill": 4}}, "sources.fill: unknown name"),
        ({"weights": {"zone": 1.0}}, "at least one source"),
        ({"sources": {"frontier": 4}, "temperature": -1}, "temperature: must be from"),
        ({"sources": {"frontier": 4}, "target_success": True}, "target_success: must be a number, not True"),
        ({"based_on": "hybrid_v9"}, "based_on: unknown policy 'hybrid_v9'"),
        ({"wieghts": {}}, "wieghts: unknown setting"),
        (7, "entry: must be a table"),
    ],
)
def test_what_is_wrong_is_named(entry: Any, message: str) -> None:
    with pytest.raises(InvalidPolicy, match="policy 'mine', ") as refused:
        load_policies({"mine": entry})
    assert message in str(refused.value)


def test_a_name_must_be_usable() -> None:
    with pytest.raises(InvalidPolicy, match="printable"):
        make_policy("", weights={}, sources={"random": 1})

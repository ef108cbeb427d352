"""Off-policy estimates: worked by hand, right on average, wider when they should be; warnings when they must."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.off_policy import chances, cross_fitted, doubly_robust, self_normalised


def test_self_normalised_by_hand() -> None:
    found = self_normalised(np.array([2.0, 0.5, 1.0]), np.array([1.0, 0.0, 0.5]))
    assert found.value == pytest.approx(2.5 / 3.5)
    assert found.mean_weight == pytest.approx(3.5 / 3)
    assert found.effective_size == pytest.approx(3.5**2 / (4.0 + 0.25 + 1.0))
    value = 2.5 / 3.5
    left_out = [
        2.0 * (1.0 - value) / (3.5 - 2.0),
        0.5 * (0.0 - value) / (3.5 - 0.5),
        1.0 * (0.5 - value) / (3.5 - 1.0),
    ]
    assert found.standard_error == pytest.approx(np.sqrt(sum(part**2 for part in left_out)))
    assert found.low < found.value < found.high


def test_doubly_robust_by_hand() -> None:
    found = doubly_robust(
        np.array([2.0, 0.0]), np.array([1.0, 1.0]), np.array([0.5, 0.25]), np.array([0.75, 0.5])
    )
    terms = [0.75 + 2.0 * 0.5, 0.5]
    assert found.value == pytest.approx(np.mean(terms))
    assert found.standard_error == pytest.approx(np.std(terms, ddof=1) / np.sqrt(2))


def test_with_even_weights_both_are_the_mean() -> None:
    rewards = np.array([0.0, 1.0, 1.0, 0.0, 1.0])
    ones, nothing = np.ones(5), np.zeros(5)
    assert self_normalised(ones, rewards).value == pytest.approx(0.6)
    assert doubly_robust(ones, rewards, nothing, nothing).value == pytest.approx(0.6)
    assert self_normalised(ones, rewards).standard_error == pytest.approx(
        np.std(rewards, ddof=1) / np.sqrt(5) * np.sqrt(5 / 4)
    )


def test_a_model_that_is_right_leaves_no_doubt_about_the_weights() -> None:
    rng = np.random.default_rng(1)
    rewards = rng.random(400)
    found = doubly_robust(rng.exponential(1.0, 400), rewards, rewards, np.full(400, 0.3))
    assert found.value == pytest.approx(0.3)
    assert found.standard_error == pytest.approx(0.0, abs=1e-12)


def test_rewards_of_one_learner_count_together() -> None:
    rng = np.random.default_rng(2)
    learner = np.repeat(np.arange(20), 30)
    rewards = np.repeat(rng.random(20), 30)
    weights = np.ones(600)
    apart, together = self_normalised(weights, rewards), self_normalised(weights, rewards, learner)
    assert together.value == pytest.approx(apart.value)
    assert together.standard_error > 4.0 * apart.standard_error
    assert together.effective_size == pytest.approx(20.0)
    assert together.few
    assert not apart.few


def test_what_the_log_could_not_show_is_said() -> None:
    rng = np.random.default_rng(3)
    fitting = np.where(rng.random(2000) < 0.5, 2.0, 0.0)
    assert not self_normalised(fitting, rng.random(2000)).uncovered
    assert self_normalised(0.5 * fitting, rng.random(2000)).uncovered


def test_a_policy_that_never_did_what_was_logged_has_no_value() -> None:
    found = self_normalised(np.zeros(10), np.ones(10))
    assert np.isnan(found.value)
    assert found.few
    assert found.uncovered
    assert np.isnan(doubly_robust(np.zeros(10), np.ones(10), np.zeros(10), np.zeros(10)).value)


@pytest.mark.parametrize(
    ("weights", "rewards"),
    [
        ([1.0], [1.0]),
        ([1.0, 2.0], [1.0]),
        ([1.0, -0.1], [1.0, 0.0]),
        ([1.0, np.inf], [1.0, 0.0]),
        ([1.0, 1.0], [1.0, np.nan]),
    ],
)
def test_what_cannot_be_weighed_is_refused(weights: list[float], rewards: list[float]) -> None:
    with pytest.raises(ValueError, match=r"weights|estimate"):
        self_normalised(np.array(weights), np.array(rewards))


def test_predictions_never_saw_what_they_predict() -> None:
    rng = np.random.default_rng(4)
    features = rng.normal(size=(50, 2))
    groups = np.arange(50) % 10
    rewards = 1.0 + features @ np.array([2.0, -1.0])
    spoilt = np.where(groups == 3, 1e6, rewards)
    clean = cross_fitted(features, rewards, groups, features, groups)
    told = cross_fitted(features, spoilt, groups, features, groups)
    assert told[groups == 3] == pytest.approx(clean[groups == 3])
    assert clean == pytest.approx(rewards, abs=0.2)


def test_without_anything_to_learn_from_the_mean_is_predicted() -> None:
    ones = np.ones((2, 1))
    same = np.zeros(2, np.int64)
    assert cross_fitted(ones, np.array([0.0, 1.0]), same, ones, same).tolist() == [0.5, 0.5]


def test_chances_by_hand() -> None:
    scores = np.array([0.1, 0.2, np.nan, 0.2])
    nothing = np.zeros(4)
    assert chances(scores, nothing, -0.2, 0.0).tolist() == [0.0, 1.0, 0.0, 0.0]
    mass = np.exp(np.array([1.0, 2.0, 2.0]))
    assert chances(scores, nothing, -0.2, 0.1)[[0, 1, 3]] == pytest.approx(mass / mass.sum())
    less = chances(scores, np.array([0.0, 1.0, 0.0, 0.0]), -0.1, 0.0)
    assert less.tolist() == [0.0, 0.0, 0.0, 1.0]
    assert chances(np.array([np.nan]), np.zeros(1), -0.2, 0.1).tolist() == [0.0]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000))
def test_the_mean_of_many_estimates_is_the_truth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logged, judged = rng.dirichlet(np.ones(4), 2)
    logged = 0.5 * logged + 0.125
    value = rng.random(4)
    actions = rng.choice(4, size=(300, 200), p=logged)
    rewards = (rng.random(actions.shape) < value[actions]).astype(float)
    found = [
        doubly_robust((judged / logged)[chosen], earned, np.full(200, 0.4), np.full(200, 0.4))
        for chosen, earned in zip(actions, rewards, strict=True)
    ]
    error = np.std([one.value for one in found], ddof=1) / np.sqrt(300)
    assert np.mean([one.value for one in found]) == pytest.approx(judged @ value, abs=4.5 * error)

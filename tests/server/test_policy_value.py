"""The value of a policy from kept slates: rebuilt to the logged chance, rewards as they happened, gaps said."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from engine.policy import BUILT_IN, Policy, load_policies
from genie.v1 import recommendation_service_pb2 as pb
from server.cli import program
from server.policy_value import PolicyValue, Servings, policy_value
from store.api import Partition
from store.slates import list_slates
from store.stores import Stores
from tests.server.core import Core, core

LEARNERS = 60
SLATES = 2 * LEARNERS
MET = ("add-1", "add-2", "add-3")
"""What everyone has answered wrongly already."""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Core, Path]]:
    """Learners who were shown random questions twice, and clicked those of the concept `count` only."""
    directory = tmp_path_factory.mktemp("models")
    with core() as server:
        server.chain("count", "add", questions=6)
        for number in range(LEARNERS):
            learner = f"learner-{number}"
            server.record(*(server.answer(met, learner_id=learner, correct=False) for met in MET))
            for turn in range(2):
                name = f"{number}-{turn}"
                slate = server.recommend(learner, policy="random_v1", limit=3, request_id=name)
                _feed_back(server, learner, slate, name)
        yield server, directory


def _feed_back(server: Core, learner: str, slate: pb.Recommendation, name: str) -> None:
    liked = slate.items[0].concept_ids[0] == "count"
    events = [
        pb.FeedbackEvent(
            event_id=f"{name}-{place}",
            learner_id=learner,
            recommendation_id=slate.recommendation_id,
            question_id=slate.items[place].question_id,
            kind=kind,
        )
        for place, kind in (
            (0, pb.FEEDBACK_KIND_CLICKED if liked else pb.FEEDBACK_KIND_SHOWN),
            (2, pb.FEEDBACK_KIND_DISMISSED),
        )
    ]
    server.recommendations.RecordFeedback(pb.RecordFeedbackRequest(events=events), metadata=server.metadata)


def judged(world: tuple[Core, Path], policy: Policy, **more: Any) -> PolicyValue:
    server, directory = world
    known: dict[str, Any] = {
        "policies": BUILT_IN,
        "serving": Servings(server.stores, server.tenant, directory).of,
        "now": time.time() + 7200.0,
    }
    return policy_value(server.stores, server.tenant, policy, **(known | more))


def firsts(world: tuple[Core, Path]) -> list[str]:
    """The first question of every slate of the world."""
    server, _ = world
    learners = (Partition(server.tenant, f"learner-{number}") for number in range(LEARNERS))
    return [slate.question_ids[0] for one in learners for slate in list_slates(server.stores.serving, one)]


def test_a_policy_judged_by_its_own_log_earned_what_it_earned(world: tuple[Core, Path]) -> None:
    found = judged(world, BUILT_IN["random_v1"])
    assert (found.learners, found.slates.used, found.logged) == (LEARNERS, SLATES, {"random_v1": SLATES})
    assert dataclasses.asdict(found.slates) == {
        **dict.fromkeys(dataclasses.asdict(found.slates), 0),
        "used": SLATES,
    }
    assert found.as_logged is not None
    assert found.self_normalised is not None
    assert found.self_normalised.value == pytest.approx(found.as_logged.value)
    assert found.self_normalised.mean_weight == pytest.approx(1.0)
    assert 0.2 < found.as_logged.value < 0.8


def test_a_policy_that_leaves_out_what_nobody_likes_is_worth_more(world: tuple[Core, Path]) -> None:
    settings = {
        "liked": {
            "weights": {"retention": 0.0, "repetition": 10.0},
            "sources": {"random": 64},
            "temperature": 0.5,
        }
    }
    avoids_what_was_met = load_policies(settings)["liked"]
    found = judged(world, avoids_what_was_met)
    assert found.self_normalised is not None
    assert found.doubly_robust is not None
    first = firsts(world)
    clicked = sum(name.startswith("count") for name in first)
    met = sum(name in MET for name in first)
    assert min(clicked, met) > 10
    # It shows at random what was not met: the slates that did so are what it would have earned, whatever they are.
    assert found.self_normalised.value == pytest.approx(clicked / (SLATES - met), abs=0.02)
    # Over all slates that could have been, 6 of the 9 questions that it shows would be clicked.
    assert abs(found.self_normalised.value - 6 / 9) < 6 * found.self_normalised.standard_error
    assert found.doubly_robust.value == pytest.approx(6 / 9, abs=0.05)
    assert found.doubly_robust.standard_error < found.self_normalised.standard_error < 0.1


def test_slates_that_cannot_be_used_are_counted(world: tuple[Core, Path]) -> None:
    random = BUILT_IN["random_v1"]
    assert judged(world, random, now=time.time()).slates.unsettled == SLATES
    without = {name: policy for name, policy in BUILT_IN.items() if name != "random_v1"}
    assert judged(world, BUILT_IN["zone_v1"], policies=without).slates.unknown_policy == SLATES
    gone = judged(world, random, serving=lambda version: None)
    assert gone.slates.unknown_model == SLATES
    assert gone.self_normalised is None
    assert gone.warnings == ["no slate can be used: nothing is estimated"]


def test_exclusions_that_nobody_kept_make_a_slate_unusable(world: tuple[Core, Path]) -> None:
    server, directory = world
    server = server.tenant_of("exclusions")
    server.chain("count", questions=6)
    server.recommend("ada", policy="random_v1")
    server.recommend("ada", policy="random_v1", exclude_question_ids=["count-1", "count-2"])
    found = judged((server, directory), BUILT_IN["random_v1"])
    assert (found.slates.used, found.slates.not_rebuilt) == (1, 1)


def test_answers_count_as_taken_and_right_ones_as_correct(world: tuple[Core, Path]) -> None:
    server, directory = world
    server = server.tenant_of("answers")
    server.chain("count", questions=6)
    for learner, correct in (("ada", True), ("bob", False)):
        slate = server.recommend(learner, policy="random_v1")
        named = {"recommendation_id": slate.recommendation_id} if correct else {}
        first = slate.items[0].question_id
        server.record(server.answer(first, learner_id=learner, correct=correct, **named))
    values = []
    for reward in ("taken", "completed", "correct"):
        estimate = judged((server, directory), BUILT_IN["random_v1"], reward=reward).as_logged
        assert estimate is not None
        values.append(estimate.value)
    assert values == [1.0, 1.0, 0.5]


def test_what_a_greedy_log_cannot_tell_is_said(world: tuple[Core, Path]) -> None:
    server, directory = world
    server = server.tenant_of("greedy")
    server.chain("count", "add", questions=6)
    for number in range(6):
        server.recommend(f"learner-{number}", policy="popularity_v1")
    found = judged((server, directory), BUILT_IN["random_v1"])
    assert found.slates.greedy == 6
    assert any("too few" in warning for warning in found.warnings)
    assert any("could have shown about 8%" in warning for warning in found.warnings)


def test_the_command_tells_values_and_warnings(
    world: tuple[Core, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, directory = world

    @contextlib.contextmanager
    def opened(_: object) -> Iterator[Stores]:
        yield server.stores

    monkeypatch.setattr("server.cli.policy_value.opened", opened)
    place = ["--data-directory", str(directory), "--settled-minutes", "0"]
    told = CliRunner().invoke(program, ["policy-value", "random_v1", *place], catch_exceptions=False)
    assert told.exit_code == 1  # so few learners say too little
    assert f"{SLATES} slates of {LEARNERS} learners: random_v1 {SLATES}" in told.output
    assert "random_v1, doubly robust" in told.output
    assert "too few to rely on the interval" in told.output
    unknown = CliRunner().invoke(program, ["policy-value", "nobodys", *place])
    assert unknown.exit_code == 1
    assert "there is no policy 'nobodys'" in unknown.output

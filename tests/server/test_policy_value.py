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
from store.stores import Stores
from tests.server.core import Core, core

LEARNERS = 24


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Core, Path]]:
    """Learners who were shown random questions twice, and clicked those of the concept `count` only."""
    directory = tmp_path_factory.mktemp("models")
    with core() as server:
        server.chain("count", "add", questions=6)
        for number in range(LEARNERS):
            learner = f"learner-{number}"
            server.record(server.answer("add-1", learner_id=learner, correct=number % 2 == 0))
            for turn in range(2):
                slate = server.recommend(learner, policy="random_v1", limit=3)
                _feed_back(server, learner, slate, f"{number}-{turn}")
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


def test_a_policy_judged_by_its_own_log_earned_what_it_earned(world: tuple[Core, Path]) -> None:
    found = judged(world, BUILT_IN["random_v1"])
    assert (found.learners, found.slates.used, found.logged) == (LEARNERS, 2 * LEARNERS, {"random_v1": 48})
    assert dataclasses.asdict(found.slates) == {
        **dict.fromkeys(dataclasses.asdict(found.slates), 0),
        "used": 48,
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
    assert found.as_logged is not None
    # It does not repeat add-1, which nobody clicks; otherwise it shows at random: 6 of 11 would be clicked.
    assert found.self_normalised.value > found.as_logged.value
    assert found.self_normalised.low < 6 / 11 < found.self_normalised.high
    assert found.doubly_robust.value == pytest.approx(6 / 11, abs=0.1)


def test_slates_that_cannot_be_used_are_counted(world: tuple[Core, Path]) -> None:
    random = BUILT_IN["random_v1"]
    assert judged(world, random, now=time.time()).slates.unsettled == 48
    without = {name: policy for name, policy in BUILT_IN.items() if name != "random_v1"}
    assert judged(world, BUILT_IN["zone_v1"], policies=without).slates.unknown_policy == 48
    gone = judged(world, random, serving=lambda version: None)
    assert gone.slates.unknown_model == 48
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
    assert "48 slates of 24 learners: random_v1 48" in told.output
    assert "random_v1, doubly robust" in told.output
    assert "too few to rely on the interval" in told.output
    unknown = CliRunner().invoke(program, ["policy-value", "nobodys", *place])
    assert unknown.exit_code == 1
    assert "there is no policy 'nobodys'" in unknown.output

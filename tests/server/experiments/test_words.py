"""Numbers of an experiment in words: when it will be decided, and when that cannot be said."""

import pytest
from google.protobuf.duration_pb2 import Duration

from genie.v1 import experiment_pb2 as resources
from genie.v1 import experiment_results_pb2 as results_pb
from server.experiments import words

RUNNING = resources.EXPERIMENT_STATE_RUNNING


@pytest.mark.parametrize(
    ("state", "seconds", "said"),
    [
        (RUNNING, None, "too early to say when it is decided"),
        (RUNNING, 0, "decision due"),
        (RUNNING, 40, "decision in 1 hour"),
        (RUNNING, 90_000, "decision in 25 hours"),
        (RUNNING, 9.5 * 86_400, "decision in 9.5 days"),
        (resources.EXPERIMENT_STATE_STOPPED, 0, "ended"),
        (resources.EXPERIMENT_STATE_ROLLED_BACK, 9_000, "ended"),
        (resources.EXPERIMENT_STATE_DRAFT, None, "not started"),
    ],
)
def test_when_it_is_decided(
    state: resources.ExperimentState.ValueType, seconds: float | None, said: str
) -> None:
    left = None if seconds is None else Duration(seconds=int(seconds))
    results = results_pb.ExperimentResults(state=state, time_to_decision=left)
    assert words.decision(results) == said

"""What callers of the experiment service can get wrong, beside what is common to all services. Sends nothing."""

from collections.abc import Sequence

import grpc

from server.errors import GenieError, Violation


class UnknownAlgorithm(GenieError):
    """An experiment's arms name policies that are not known."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "UNKNOWN_ALGORITHM"
    sentence = "Not known as algorithms: {algorithms}; known are {known_algorithms}."

    def __init__(self, *, fields: Sequence[str] = ("treatment_algorithm",), **facts: object) -> None:
        super().__init__(retry_after_seconds=None, **facts)
        self._fields = tuple(fields)

    def violations(self) -> Sequence[Violation]:
        """Every field that names an unknown algorithm."""
        return [Violation(field, self.message) for field in self._fields]


class UnknownMetric(GenieError):
    """An experiment names metrics that are neither built in nor defined by it."""

    code = grpc.StatusCode.INVALID_ARGUMENT
    reason = "UNKNOWN_METRIC"
    sentence = "Not known as metrics: {metrics}; known are {known_metrics}."

    def __init__(self, *, fields: Sequence[str] = ("primary_metric",), **facts: object) -> None:
        super().__init__(retry_after_seconds=None, **facts)
        self._fields = tuple(fields)

    def violations(self) -> Sequence[Violation]:
        """Every field that names an unknown metric."""
        return [Violation(field, self.message) for field in self._fields]


class ExperimentNotFound(GenieError):
    """The experiment was never created."""

    code = grpc.StatusCode.NOT_FOUND
    reason = "EXPERIMENT_NOT_FOUND"
    sentence = "Experiment {experiment_id} does not exist."


class ExperimentNameTaken(GenieError):
    """An experiment of this name exists, created by another request."""

    code = grpc.StatusCode.ALREADY_EXISTS
    reason = "EXPERIMENT_NAME_TAKEN"
    sentence = "An experiment named {name} exists already: {experiment_id}."


class ExperimentStateWrong(GenieError):
    """The experiment is not in a state that allows the call."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "EXPERIMENT_STATE"
    sentence = "Experiment {experiment_id} is {state}; it would have to be {needed_state}."


class ExperimentLayerTaken(GenieError):
    """Another running experiment owns part of the layer's stretch."""

    code = grpc.StatusCode.FAILED_PRECONDITION
    reason = "EXPERIMENT_LAYER_TAKEN"
    sentence = (
        "Experiment {experiment_id} owns part of that stretch of layer {layer}; stop it, or take another."
    )

"""What requests about learners say, checked. Reads no store."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from engine.types import LearnerProfile
from genie.v1 import learner_service_pb2 as pb
from genie.v1 import resources_pb2
from server import convert, errors
from server.validate import Violations

MOST_LABEL_FILTERS = 8
MOST_PATHS = 32

_PATHS: Mapping[str, Callable[[resources_pb2.Learner], bool]] = {
    "display_name": lambda learner: bool(learner.display_name),
    "time_zone": lambda learner: bool(learner.time_zone),
    "goal": lambda learner: learner.HasField("goal"),
    "labels": lambda learner: bool(learner.labels),
}
"""Paths that an update mask may name, and whether a learner sets them."""


def check_learner(request: Any) -> Violations:
    """The check of a request, begun with its learner."""
    check = Violations()
    check.identifier("learner_id", request.learner_id)
    return check


def profile_from(check: Violations, request: Any, *, now: float) -> LearnerProfile:
    """The request's learner as a profile."""
    if not request.HasField("learner"):
        check.add("learner", "must be given")
        return LearnerProfile("")
    part = check.part("learner")
    for key in request.learner.labels:
        if "=" in key:
            part.add("labels.key", f'is {errors.printable(key)}; must not hold "="')
    return convert.profile_from(part, request.learner, now=now)


def masked_parts(check: Violations, request: pb.UpdateLearnerRequest) -> list[str]:
    """The parts of a profile to change."""
    check.size("update_mask.paths", len(request.update_mask.paths), most=MOST_PATHS)
    paths = request.update_mask.paths[:MOST_PATHS]
    for index, path in enumerate(paths):
        if path not in _PATHS:
            known = ", ".join(_PATHS)
            check.add(f"update_mask.paths[{index}]", f"is {errors.printable(path)}; may be {known}")
    if paths:
        return [path for path in _PATHS if path in paths]
    return [path for path, is_set in _PATHS.items() if is_set(request.learner)]


def label_filters(check: Violations, labels: Sequence[str]) -> set[tuple[str, str]]:
    """The labels that a learner must have, as (key, value)."""
    check.size("labels", len(labels), most=MOST_LABEL_FILTERS)
    filters = set()
    for index, label in enumerate(labels[:MOST_LABEL_FILTERS]):
        key, equals, value = label.partition("=")
        if not (key and equals):
            check.add(f"labels[{index}]", 'must be written "key=value"')
        check.text(f"labels[{index}]", label, most=convert.MOST_TAG + 1 + convert.MOST_LABEL)
        filters.add((key, value))
    return filters

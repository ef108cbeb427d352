"""What came of calls with wrong input, and whether the errors themselves are sound. Calls nobody."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from server import errors
from server.experiments import errors as experiment_errors
from tests.server.hostile import Place, is_map

CODES = {
    kind.reason: kind.code.value[0]
    for kind in (*vars(errors).values(), *vars(experiment_errors).values())
    if isinstance(kind, type) and issubclass(kind, errors.GenieError)
}
"""Status code of every reason."""
FACTS = {
    reason: set(re.findall(r"`(\w+)`", facts))
    for facts, reason in re.findall(
        r"// Facts: (.*?)// Example: .*?\bERROR_REASON_(\w+) =",
        (Path(__file__).parents[2] / "protos/genie/v1/error_reason.proto").read_text(),
        re.DOTALL,
    )
}
"""Facts of every reason, as its comment names them; `field` may stand beside them."""
FAULTS = {
    "INTERNAL",
    "STORE_UNAVAILABLE",
    "STORE_FULL",
    "SERVER_OVERLOADED",
    "DEADLINE_EXCEEDED",
    "CANCELLED",
}
"""Reasons that no input may lead to."""
OTHER_REFUSALS = {
    "INVALID_PAGE_TOKEN",
    "UNKNOWN_POLICY",
    "UNKNOWN_ALGORITHM",
    "UNKNOWN_METRIC",
    "BATCH_TOO_LARGE",
    "ANSWER_FROM_FUTURE",
}
"""Reasons beside INVALID_FIELD that refuse a field's value for itself."""

_PATH_PART = re.compile(r"(\w+)(\[\d+\])?")


class Outcome(NamedTuple):
    """What came of a call: its errors, those of single entries included."""

    failed: bool
    """Whether the call as a whole ended in an error."""
    statuses: list[status_pb2.Status]


def entry_errors(message: Message) -> Iterator[status_pb2.Status]:
    """Every google.rpc.Status inside a reply."""
    for field, value in message.ListFields():
        if field.message_type is None or is_map(field):
            continue
        for each in value if field.is_repeated else [value]:
            if isinstance(each, status_pb2.Status):
                yield each
            else:
                yield from entry_errors(each)


def detail(status: status_pb2.Status, into: Any) -> Any:
    return next((into for packed in status.details if packed.Unpack(into)), None)


def violated(status: status_pb2.Status) -> list[str]:
    bad = detail(status, error_details_pb2.BadRequest())
    return [] if bad is None else [violation.field for violation in bad.field_violations]


def unsound(outcome: Outcome, request: Descriptor) -> list[str]:
    """What is wrong with the errors themselves."""
    found = []
    for status in outcome.statuses:
        info = detail(status, error_details_pb2.ErrorInfo())
        if info is None:
            found.append(f"no ErrorInfo: {status}")
        elif info.domain != errors.DOMAIN or info.reason not in CODES or info.reason in FAULTS:
            found.append(f"reason {info.reason}: {status.message}")
        elif CODES[info.reason] != status.code:
            found.append(f"code {status.code} with {info.reason}")
        elif not set(info.metadata) <= FACTS[info.reason] | {"field"}:
            found.append(f"facts of {info.reason} that no comment names: {dict(info.metadata)}")
        elif info.reason == "INVALID_FIELD" and not violated(status):
            found.append("INVALID_FIELD names no field")
        found += [f"no field {path}" for path in violated(status) if not exists(request, path)]
    return found


def exists(descriptor: Descriptor, path: str) -> bool:
    """Whether a request has the field that a violation names."""
    kind: Descriptor | None = descriptor
    while path:
        match = _PATH_PART.match(path)
        if match is None or kind is None:
            return False
        path = path[match.end() :].removeprefix(".")
        field = kind.fields_by_name.get(match[1])
        if field is None:
            return match[1] in kind.oneofs_by_name and not path
        if is_map(field):
            return path in ("", "key") or path.startswith("[")
        if match[2] and not field.is_repeated:
            return False
        kind = field.message_type
    return True


def reasons(outcome: Outcome) -> list[str]:
    """The reason of every error."""
    infos = [detail(status, error_details_pb2.ErrorInfo()) for status in outcome.statuses]
    return ["" if info is None else info.reason for info in infos]


def refused_for(outcome: Outcome, place: Place) -> bool:
    """Whether an error tells of this very field, or of the message around it."""
    if OTHER_REFUSALS & set(reasons(outcome)):
        return True
    for status in outcome.statuses:
        for path in violated(status):
            plain = re.sub(r"\[[^]]*\]", "", path)
            if place.path.startswith(plain) or plain.startswith(place.path):
                return True
    return False

"""Made-up requests to every method of two services: an answer or a typed refusal, never a fault."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from engine.policy import load_policies
from genie.v1 import catalog_service_pb2, learner_service_pb2
from server import errors
from server.services.catalog import CatalogService
from server.services.learner import LearnerService
from server.tenants import Tenants
from server.validate import page_token
from store.stores import Stores, memory_stores, open_stores
from tests.server.service_calls import a_call

SEEDS = 24
REQUESTS_A_SEED = 40

TEXTS = (
    *(
        "a",
        "b",
        "c",
        "d",
        "u-1",
        "u-2",
        "q-1",
        "",
        "x" * 129,
        "é" * 128,
        "日" * 128,
        "\0",
        "a\nb",
        "\u202e",
        "k=v",
    ),
    *(
        "'; DROP TABLE learners; --",
        "../../etc/passwd",
        "%s%n",
        "{reason}",
        "Europe/Berlin",
        "goal",
        "\x7f",
        "😀",
    ),
    *("x" * 20_000, page_token("b"), page_token("a", "ListLearners"), "AAAA", "=", "a=b"),
)
NUMBERS = (0, 0, 1, 2, 7, 30, -1, 1_000, 5_000, 2**31 - 1, -(2**31))
WIDE = (*NUMBERS, 2**63 - 1, -(2**63), 253_402_300_800)
REALS = (0.0, 0.5, 1.0, -1.0, 1e308, float("inf"), float("nan"), 5e-324)

METHODS = [
    (method.name, method.client_streaming, method.server_streaming, method.input_type)
    for module, service in (
        (catalog_service_pb2, "CatalogService"),
        (learner_service_pb2, "LearnerService"),
    )
    for method in module.DESCRIPTOR.services_by_name[service].methods
]


def made_up(kind: Descriptor, rng: random.Random, depth: int = 0) -> Message:
    """A message with some of its fields set to something."""
    message = GetMessageClass(kind)()
    for field in kind.fields:
        if rng.random() < 0.3 or depth > 3:
            continue
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            getattr(message, field.name).update({rng.choice(TEXTS[:16]): rng.choice(TEXTS[:16])})
        elif field.is_repeated:
            count = rng.choice((0, 1, 1, 2, 3, 70))
            values = [_value(field, rng, depth) for _ in range(count)]
            getattr(message, field.name).extend(values)
        elif field.message_type is not None:
            getattr(message, field.name).CopyFrom(_value(field, rng, depth))
        else:
            setattr(message, field.name, _value(field, rng, depth))
    return message


def _value(field: FieldDescriptor, rng: random.Random, depth: int) -> Any:
    if field.message_type is not None:
        return made_up(field.message_type, rng, depth + 1)
    if field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        return rng.choice(TEXTS[:7]) if rng.random() < 0.6 else rng.choice(TEXTS)
    if field.cpp_type in (FieldDescriptor.CPPTYPE_DOUBLE, FieldDescriptor.CPPTYPE_FLOAT):
        return rng.choice(REALS)
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return rng.random() < 0.5
    return rng.choice(WIDE if field.cpp_type == FieldDescriptor.CPPTYPE_INT64 else NUMBERS)


@pytest.fixture(params=["memory", "lmdb"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    made = memory_stores() if request.param == "memory" else open_stores(tmp_path, map_bytes=1 << 24)
    yield made
    made.close()


def test_made_up_requests_meet_an_answer_or_a_typed_refusal(stores: Stores) -> None:
    tenants = Tenants(stores.state)
    services = (
        CatalogService(store=stores.state, serving=stores.serving, tenants=tenants),
        LearnerService(
            store=stores.state,
            serving=stores.serving,
            tenants=tenants,
            policy=load_policies({})["hybrid_v1"],
        ),
    )
    served = {name: _serving(services, name) for name, *_ in METHODS}
    answered: dict[str, int] = dict.fromkeys(served, 0)
    try:
        for seed in range(SEEDS):
            rng = random.Random(seed)
            for _ in range(REQUESTS_A_SEED):
                name, streams_in, streams_out, kind = rng.choice(METHODS)
                requests = [made_up(kind, rng) for _ in range(3 if streams_in else 1)]
                try:
                    reply = served[name](iter(requests) if streams_in else requests[0], a_call(method=name))
                    for message in reply if streams_out else [reply]:
                        assert type(message).FromString(message.SerializeToString()) == message or _has_nan(
                            message
                        )
                    answered[name] += 1
                except Exception as error:
                    told = errors.translate(error)
                    assert told is not None, f"seed {seed}: {name} failed on {requests!r:.500}"
                    assert told.code.name not in ("INTERNAL", "UNKNOWN"), told
                    assert told.status().ByteSize() < 8_000
    finally:
        tenants.close()
    assert sum(answered.values()) > len(METHODS)


def _serving(services: tuple[object, ...], name: str) -> Any:
    snake = "".join("_" + letter.lower() if letter.isupper() else letter for letter in name).lstrip("_")
    return next(getattr(service, snake) for service in services if hasattr(service, snake))


def _has_nan(message: Message) -> bool:
    return "nan" in str(message)

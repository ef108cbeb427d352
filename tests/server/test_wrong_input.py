"""Every method of every service against input that is wrong: refused with code, reason and fields, and never broken."""

import dataclasses
import itertools
import random
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, cast

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from genie.v1 import practice_service_pb2 as practice_pb
from genie.v1 import resources_pb2
from server.assembly import SERVICES
from server.convert import timestamp
from server.experiments.assembly import SERVICE
from server.validate import page_token
from tests.server.core import LEARNER, TENANT_HEADER, Core, core
from tests.server.experiments.world import Lab, lab
from tests.server.hostile import Sound, Wrong, is_map, places, setting, wrongs
from tests.server.refusals import Outcome, detail, entry_errors, reasons, refused_for, unsound, violated
from tests.waiting import PATIENCE_SECONDS

METHODS: list[MethodDescriptor] = [method for service in (*SERVICES, SERVICE) for method in service.methods]
METHOD_NAMES = [method.name for method in METHODS]

MARK = "Zq#7"
"""A text that no sound request holds, as long as what replaces it."""


@dataclasses.dataclass
class World(Core):
    """One tenant of a server and of an experiment service."""

    lab: Lab = dataclasses.field(kw_only=True)


@pytest.fixture(scope="module")
def served() -> Iterator[World]:
    with (
        core(max_message_bytes=16_777_216, log_level="error") as running,
        lab(max_message_bytes=16_777_216, log_level="error") as experiments,
    ):
        yield World(running.genie, running.port, running.stores, running.channel, lab=experiments)


@pytest.fixture
def world(served: World, request: pytest.FixtureRequest) -> World:
    """A tenant of its own for every test, with something in it."""
    own = served.tenant_of(request.node.name)
    experiments = Lab(
        served.lab.genie, served.lab.port, served.lab.store, served.lab.channel, tenant=own.tenant
    )
    mine = World(own.genie, own.port, own.stores, own.channel, own.tenant, lab=experiments)
    mine.chain("count", "add", "multiply", questions=4)
    mine.create(LEARNER)
    mine.record(mine.answer("count-1"))
    return mine


def sound_experiments(own: Lab) -> dict[str, object]:
    """Values of the experiment service's fields that it takes."""
    ended, running = own.create(name="Ended"), own.create(name="Running")
    for made in (ended, running):
        own.start(made.experiment_id)
    own.stop(ended.experiment_id)
    arm = own.exposure(running.experiment_id, LEARNER).exposure.arm

    def fresh(sound: Sound, *, start: bool = True) -> str:
        made = own.create(name=sound.fresh("Experiment"))
        if start:
            own.start(made.experiment_id)
        return made.experiment_id

    return {
        "experiment_id": running.experiment_id,
        "StartExperimentRequest.experiment_id": partial(fresh, start=False),
        "ChangeSplitRequest.experiment_id": fresh,
        "StopExperimentRequest.experiment_id": fresh,
        "WatchResultsRequest.experiment_id": ended.experiment_id,
        "CreateExperimentRequest.name": lambda sound: sound.fresh("Made"),
        "control_algorithm": "content_based_v1",
        "treatment_algorithm": "hybrid_v1",
        "more_treatment_algorithms": "popularity_v1",
        "primary_metric": "practice_minutes",
        "secondary_metrics": "accuracy",
        "Guardrail.metric": "click_through",
        "MetricDefinition.open_ended": False,
        "ExperimentLayer.start": 0.25,
        "planned_sample": 100,
        "CreateExperimentRequest.traffic_split": (0.4, 0.3, 0.3),
        "ChangeSplitRequest.traffic_split": (0.4, 0.6),
        "Exposure.arm": arm,
        "Exposure.phase": 0,
        "Report.event_time": lambda sound: timestamp(time.time()),
        "report_id": lambda sound: sound.fresh("report"),
    }


def sound_requests(world: World) -> Sound:
    """Requests that the world takes."""
    slate = world.recommend(limit=2)
    session = practice_pb.StartSessionRequest(learner_id=LEARNER, session_id="session")
    world.practice.StartSession(session, metadata=world.metadata)
    return Sound(
        {
            "learner_id": LEARNER,
            "learner_ids": LEARNER,
            "Learner.learner_id": LEARNER,
            "CreateLearnerRequest.learner": lambda sound: resources_pb2.Learner(
                learner_id=sound.fresh("learner"), display_name="Grace", labels={"class": "7b"}
            ),
            "labels": None,
            "ListLearnersRequest.labels": "class=7b",
            "time_zone": "Europe/Berlin",
            "concept_id": "count",
            "concept_ids": "count",
            "Concept.concept_id": "new",
            "root_concept_id": "add",
            "objective_concept_id": "add",
            "DeleteConceptsRequest.concept_ids": "multiply-not",
            "question_id": "count-1",
            "Question.question_id": "new-question",
            "question_ids": "count-3",
            "exclude_question_ids": "count-2",
            "embedding": None,
            "recommendation_id": slate.recommendation_id,
            "FeedbackEvent.question_id": slate.items[0].question_id,
            "ExplainRecommendationRequest.question_id": slate.items[0].question_id,
            "EndSessionRequest.session_id": "session",
            "StartSessionRequest.session_id": lambda sound: sound.fresh("session"),
            "EndSessionRequest.end_time": None,
            "policy": "hybrid_v1",
            "page_token": None,
            "level": 2,
            "request_id": lambda sound: sound.fresh("request"),
            "answer_id": lambda sound: sound.fresh("sent"),
            "event_id": lambda sound: sound.fresh("event"),
        }
        | sound_experiments(world.lab)
    )


def call(world: World, method: MethodDescriptor, *requests: bytes, **headers: str) -> Outcome:
    """Call a method with raw bytes."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    metadata = [(name.replace("_", "-"), value) for name, value in headers.items()]
    if "x_tenant_id" not in headers:
        metadata.append((TENANT_HEADER, world.tenant))
    channel = world.lab.channel if method.containing_service is SERVICE else world.channel
    kinds: dict[tuple[bool, bool], Any] = {
        (False, False): channel.unary_unary,
        (False, True): channel.unary_stream,
        (True, False): channel.stream_unary,
        (True, True): channel.stream_stream,
    }
    stub = kinds[method.client_streaming, method.server_streaming](
        path, None, GetMessageClass(method.output_type).FromString
    )
    argument: Any = iter(requests) if method.client_streaming else requests[0]
    try:
        reply = stub(argument, metadata=metadata, timeout=PATIENCE_SECONDS)
        if method.name.startswith("Watch"):
            # It would never end by itself.
            replies = [next(reply)]
            reply.cancel()
        else:
            replies = list(reply) if method.server_streaming else [reply]
    except grpc.RpcError as error:
        status = rpc_status.from_call(cast(grpc.Call, error))
        if status is None:
            status = status_pb2.Status(code=error.code().value[0], message=error.details())
        return Outcome(True, [status])
    return Outcome(False, [status for each in replies for status in entry_errors(each)])


def assert_alive(world: World) -> None:
    """The server serves, and answers a good call."""
    for channel in (world.channel, world.lab.channel):
        health: Any = health_pb2_grpc.HealthStub(channel)
        check = health.Check(health_pb2.HealthCheckRequest())
        assert check.status == health_pb2.HealthCheckResponse.SERVING
    assert world.recommend("somebody-new", limit=1).items


def show(problems: Sequence[str]) -> None:
    assert not problems, f"{len(problems)} problems:\n" + "\n".join(problems[:20])


@pytest.mark.parametrize("method", METHODS, ids=METHOD_NAMES)
def test_sound_requests_are_taken(world: World, method: MethodDescriptor) -> None:
    sound = sound_requests(world)
    outcome = call(world, method, sound.request(method.input_type).SerializeToString())
    assert not outcome.statuses, outcome


@pytest.mark.parametrize("method", METHODS, ids=METHOD_NAMES)
def test_one_wrong_field(world: World, method: MethodDescriptor) -> None:
    sound = sound_requests(world)
    problems = []
    for place in places(method.input_type):
        for wrong in wrongs(place):
            request = sound.request(method.input_type, place)
            _spoil(request, wrong)
            outcome = call(world, method, request.SerializeToString())
            name = f"{place.path} {wrong.what}"
            problems += [f"{name}: {problem}" for problem in unsound(outcome, method.input_type)]
            if wrong.hopeless and not refused_for(outcome, place):
                problems.append(f"{name}: not refused: {outcome}")
    show(problems)
    assert_alive(world)


def _spoil(request: Any, wrong: Wrong) -> None:
    """Make a sound request wrong; a list that the sound one leaves empty gets its entry first."""
    parent = wrong.place.parent(request)
    if wrong.what in ("too many", "twice") and not len(getattr(parent, wrong.place.field.name)):
        getattr(parent, wrong.place.field.name).append(0.5)
    wrong.change(parent)


@pytest.mark.parametrize("method", METHODS, ids=METHOD_NAMES)
def test_bytes_that_are_no_such_request(world: World, method: MethodDescriptor) -> None:
    rng = random.Random(7)
    sound = sound_requests(world)
    good = sound.request(method.input_type).SerializeToString()
    sent = [b"", b"\xff", b"\x00", b"\x0a\xff\xff\xff\xff\x0f", b"\x0b" * 200, good[:-1], good + b"\x07"]
    sent += [rng.randbytes(rng.randint(1, 200)) for _ in range(30)]
    sent += [sound.request(other.input_type).SerializeToString() for other in METHODS]
    for _ in range(30):
        at = rng.randrange(len(good))
        sent.append(good[:at] + rng.randbytes(1) + good[at + 1 :])
    problems = []
    for raw in sent:
        outcome = call(world, method, raw)
        problems += [f"{raw[:40]!r}: {problem}" for problem in unsound(outcome, method.input_type)]
    show(problems)
    assert_alive(world)


@pytest.mark.parametrize("method", METHODS, ids=METHOD_NAMES)
def test_text_that_is_no_utf_8(world: World, method: MethodDescriptor) -> None:
    sound = sound_requests(world)
    problems = []
    for place in places(method.input_type):
        if place.field.type != place.field.TYPE_STRING and not is_map(place.field):
            continue
        for broken in (b"\xed\xa0\x80\xed", b"\xff\xfe\xff\xfe", b"\xc0\xaf\xc0\xaf", b"\xf4\x90\x80\x80"):
            request = sound.request(method.input_type, place)
            setting(place.field, MARK)(place.parent(request))
            raw = request.SerializeToString()
            assert raw.count(MARK.encode()) == 1
            outcome = call(world, method, raw.replace(MARK.encode(), broken))
            problems += [f"{place.path}: {problem}" for problem in unsound(outcome, method.input_type)]
            if reasons(outcome) != ["MALFORMED_REQUEST"]:
                problems.append(f"{place.path} {broken!r}: {outcome}")
    show(problems)
    assert_alive(world)


@pytest.mark.parametrize("method", METHODS, ids=METHOD_NAMES)
def test_headers(world: World, method: MethodDescriptor) -> None:
    raw = sound_requests(world).request(method.input_type).SerializeToString()
    for tenant in ("", "..x/y", "a b", "x" * 65, "a/../b", "%00", "tenant;", "default\\"):
        outcome = call(world, method, raw, x_tenant_id=tenant)
        assert reasons(outcome) == ["INVALID_TENANT"], (tenant, outcome)
    for correlation in ("", "x" * 4000, "%s%n", "a b", "../x"):
        outcome = call(world, method, raw, x_correlation_id=correlation)
        assert not unsound(outcome, method.input_type), (correlation, outcome)
    # A tenant that never was has nothing, and names of the file system mean nothing.
    for tenant in ("..", ".", "-", "__", "nobody"):
        outcome = call(world, method, raw, x_tenant_id=tenant)
        assert not unsound(outcome, method.input_type), (tenant, outcome)
    assert_alive(world)


PAGED = [method for method in METHODS if "page_token" in method.input_type.fields_by_name]


@pytest.mark.parametrize("method", PAGED, ids=[method.name for method in PAGED])
def test_forged_page_tokens(world: World, method: MethodDescriptor) -> None:
    sound = sound_requests(world)
    filters: list[tuple[object, ...]] = [(), (LEARNER,), (method.name,), (method.name, LEARNER)]
    names = {
        "ListLearners": (method.name,),
        "ListConcepts": (method.name, "", "", ""),
        "ListQuestions": (method.name, "", ""),
    }
    filters.append(names.get(method.name, ()))
    tokens = ["", "=", "====", "AAAA", "a", "\u00e9", "x" * 5000, page_token("count", "another", "list")]
    for last, chosen in itertools.product(("count", "\0", "x" * 600, "😀" * 100, "a\0b"), filters):
        tokens.append(page_token(last, *chosen))
    problems = []
    for token in tokens:
        for whole in (True, False):
            request = sound.request(method.input_type)
            if not whole:
                for field in method.input_type.fields:
                    if field.name not in ("learner_id", "experiment_id"):
                        request.ClearField(field.name)
            request.page_token = token
            outcome = call(world, method, request.SerializeToString())
            problems += [f"{token[:40]}: {problem}" for problem in unsound(outcome, method.input_type)]
            if len(token) > 2000 and reasons(outcome) != ["INVALID_PAGE_TOKEN"]:
                problems.append(f"{token[:40]}: {outcome}")
    show(problems)


def test_a_refused_entry_does_not_hold_up_the_others(world: World) -> None:
    good, bad = world.answer("count-2"), world.answer("count-2", answer_id="")
    reply = world.record(good, bad, world.answer("no-such"), world.answer("add-1"))
    assert (reply.recorded_count, reply.rejected_count) == (2, 2)
    assert [violated(result.error) for result in reply.results] == [[], ["answers[1].answer_id"], [], []]
    assert detail(reply.results[2].error, error_details_pb2.ErrorInfo()).reason == "QUESTION_NOT_FOUND"


def test_a_message_over_the_limit_is_refused_before_it_is_read(world: World) -> None:
    method = next(method for method in METHODS if method.name == "RecordAnswers")
    outcome = call(world, method, b"\x0a\x00" * 9_000_000)
    assert outcome.statuses[0].code == grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
    assert_alive(world)


def test_every_method_of_every_service_is_covered(served: World) -> None:
    assert [d.full_name for d, _ in served.genie._assembly.services] == [d.full_name for d in SERVICES]
    assert [d.full_name for d, _ in served.lab.genie._assembly.services] == [SERVICE.full_name]
    assert len(METHODS) == len(set(METHOD_NAMES)) >= 41

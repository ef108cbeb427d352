"""A small service with every kind of method, and an assembly of it for real worker processes."""

import itertools
import os
import re
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.wrappers_pb2 import StringValue

from server.admission import Drain
from server.app import Assembly
from server.config import Settings
from server.errors import LearnerNotFound
from server.rpc import Call, Requests
from tests.waiting import eventually

_STRING = ".google.protobuf.StringValue"
_KINDS = {"Say": (False, False), "CountUp": (False, True), "Gather": (True, False), "Chat": (True, True)}


def _descriptor() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/echo.proto",
        package="genie.tests",
        syntax="proto3",
        dependency=["google/protobuf/wrappers.proto"],
    )
    service = file.service.add(name="Echo")
    for name, (client_streaming, server_streaming) in _KINDS.items():
        service.method.add(
            name=name,
            input_type=_STRING,
            output_type=_STRING,
            client_streaming=client_streaming,
            server_streaming=server_streaming,
        )
    return file


ECHO = descriptor_pool.Default().AddSerializedFile(_descriptor().SerializeToString()).services_by_name["Echo"]


class Echo:
    """Repeats what it is told. The words "missing", "broken", "die" and "pid" do what they say.

    "hang" never lets go of the interpreter. "old N" takes itself to have begun N seconds ago. "hold DIRECTORY" leaves a
    file `call-…` there and waits for `go`.
    """

    def __init__(self) -> None:
        # gRPC counts a call as open as long as somebody keeps it.
        self.calls: deque[Call] = deque(maxlen=16)
        self.stream_ended = threading.Event()
        self._held = itertools.count()

    def say(self, request: StringValue, call: Call) -> StringValue:
        self.calls.append(call)
        word, _, rest = request.value.partition(" ")
        if word == "missing":
            raise LearnerNotFound(learner_id=rest)
        if word == "broken":
            raise ZeroDivisionError("secret detail")
        if word == "die":
            os._exit(9)
        if word == "hang":
            re.fullmatch("(a|a)+", "a" * 64 + "b")
        if word == "old":
            call.started -= float(rest)
        if word == "hold":
            (Path(rest) / f"call-{next(self._held)}").touch()
            eventually((Path(rest) / "go").exists)
        return StringValue(value=str(os.getpid()) if word == "pid" else request.value)

    def count_up(self, request: StringValue, call: Call) -> Iterator[StringValue]:
        try:
            for number in range(int(request.value)):
                if number:
                    call.pause(0.02)
                yield StringValue(value=str(number))
        finally:
            self.stream_ended.set()

    def gather(self, requests: "Requests[StringValue]", call: Call) -> StringValue:
        return StringValue(value=" ".join(request.value for request in requests))

    def chat(self, requests: "Requests[StringValue]", call: Call) -> Iterator[StringValue]:
        while batch := requests.take(100):
            for request in batch:
                yield StringValue(value=request.value.upper())


class EchoClient:
    """The stub that a generator would have made."""

    def __init__(self, channel: grpc.Channel) -> None:
        path = "/genie.tests.Echo/"
        encode, decode = StringValue.SerializeToString, StringValue.FromString
        self.say: Any = channel.unary_unary(path + "Say", encode, decode)
        self.count_up: Any = channel.unary_stream(path + "CountUp", encode, decode)
        self.gather: Any = channel.stream_unary(path + "Gather", encode, decode)
        self.chat: Any = channel.stream_stream(path + "Chat", encode, decode)
        self.raw_say: Any = channel.unary_unary(path + "Say")
        self.raw_gather: Any = channel.stream_unary(path + "Gather")


def assemble(settings: Settings, drain: Drain) -> Assembly:
    """The echo service alone. With ECHO_FAILS in the environment, it cannot be built."""
    if "ECHO_FAILS" in os.environ:
        raise RuntimeError("told to fail")
    return Assembly(services=[(ECHO, Echo())])

"""The floor and the real server side by side on one core, loaded in turns, and writers beside them. Judges nothing."""

import json
import math
import os
import threading
import time
import uuid
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple, Self

import grpc
import numpy as np

from bench import load, world
from bench.stand import BATCH_RECOMMEND, FLOOR_METHOD, RECOMMEND, Stand
from genie.v1 import (
    explanation_pb2,
    practice_service_pb2,
    practice_service_pb2_grpc,
    recommendation_service_pb2_grpc,
)
from genie.v1 import recommendation_service_pb2 as pb

CONNECTIONS = 8
DRAWN = 200_000
"""Requests drawn before they come round again: more than any run sends, so that none is repeated for being repeated."""
CHECKED = 100
"""Of the drawn ones, as many are sent through a real stub first."""
TRIES = 5
BATCH = 100
BATCHES = 400
ANSWERS_A_SECOND = 300
ANSWERS_A_CALL = 10


class Cores(NamedTuple):
    """Which core serves, and which one the load and everything else comes from."""

    server: int
    load: int


def cores() -> Cores:
    """The first core for the server, the last for the load. SystemExit when there is one only."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise SystemExit("this bench needs two cores: one for the server, one for the load")
    return Cores(allowed[0], allowed[-1])


@contextmanager
def kept_to(core: int) -> Iterator[None]:
    """What this process does itself stays on a core, threads that are started inside included.

    Clients in Python must not take the server's, though they are few.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Run(NamedTuple):
    """Requests that were all answered OK, and what they cost."""

    times: load.Times
    cpu: float
    """CPU seconds of the server's processes in it."""
    idle: float
    """Seconds that the server's cores were idle in it, all together."""
    wall: float
    """Seconds that the whole run took, the load generator's start included."""
    pools: float
    """Share of the look-ups for a learner's pool that found it; NaN without look-ups."""

    @property
    def cpu_us(self) -> float:
        """CPU microseconds of the server for one call."""
        return self.cpu / len(self.times.took) * 1e6


class Target(NamedTuple):
    """A method to load, of one worker or of several on one port."""

    stands: Sequence[Stand]
    method: str
    body: bytes
    core: int
    """Where the load comes from."""

    def closed(self, requests: int, connections: int = CONNECTIONS) -> Run:
        """Each connection sends when its last request has been answered. Raises NotOk."""
        before = self._so_far()
        times = load.closed(self.url, self.body, connections=connections, requests=requests, core=self.core)
        return self._judged(times, before)

    def closed_for(self, seconds: float, connections: int) -> Run:
        """The same for some time, after which what is under way is dropped. Raises NotOk."""
        before = self._so_far()
        times = load.closed_for(self.url, self.body, connections=connections, seconds=seconds, core=self.core)
        return self._judged(times, before, dropped=connections)

    def scheduled(self, rate: float, seconds: float, seed: int) -> Run:
        """Requests at random moments, `rate` a second. Raises NotOk."""
        before = self._so_far()
        times = load.scheduled(self.url, self.body, rate=rate, seconds=seconds, core=self.core, seed=seed)
        return self._judged(times, before)

    @property
    def url(self) -> str:
        """Where h2load sends."""
        return f"http://127.0.0.1:{self.stands[0].port}{self.method}"

    def _so_far(self) -> "_Figures":
        figures = [stand.figures() for stand in self.stands]
        return _Figures(
            sum(one["cpu"] for one in figures),
            idle_seconds({stand.core for stand in self.stands}),
            time.monotonic(),
            sum(one["ok"].get(self.method, 0) for one in figures),
            sum(one.get("caches", {}).get("pools hit", 0.0) for one in figures),
            sum(one.get("caches", {}).get("pools miss", 0.0) for one in figures),
        )

    def _judged(self, times: load.Times, before: "_Figures", dropped: int = 0) -> Run:
        now = self._so_far()
        ok = now.ok - before.ok
        if not len(times.took) <= ok <= len(times.took) + dropped:
            raise load.NotOk(f"{len(times.took)} replies came, and {ok} were OK")
        hits, misses = now.hits - before.hits, now.misses - before.misses
        found = hits / (hits + misses) if hits + misses else math.nan
        return Run(times, now.cpu - before.cpu, now.idle - before.idle, now.at - before.at, found)


class _Figures(NamedTuple):
    """What is known of the server at one moment, since it started."""

    cpu: float
    idle: float
    at: float
    ok: int
    hits: float
    """Look-ups that found a learner's pool."""
    misses: float


def idle_seconds(of: Collection[int | None]) -> float:
    """Seconds that these cores have been idle since the machine started; cores that are not named count as none."""
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *columns = line.split()
        if name.startswith("cpu") and name[3:].isdigit() and int(name[3:]) in of:
            ticks += int(columns[3]) + int(columns[4])
    return ticks / os.sysconf("SC_CLK_TCK")


def floor_target(stand: Stand, core: int) -> Target:
    """The empty method."""
    return Target([stand], FLOOR_METHOD, b"", core)


def recommend_target(stands: Sequence[Stand], size: world.Size, core: int) -> Target:
    """Recommend; the body is as long as that of every drawn request."""
    last = world.learner_id(size.learners - 1)
    return Target(stands, RECOMMEND, pb.RecommendRequest(learner_id=last, limit=10).SerializeToString(), core)


def batch_target(stands: Sequence[Stand], size: world.Size, core: int) -> Target:
    """BatchRecommend, 100 learners a call."""
    names = [world.learner_id(number) for number in range(min(BATCH, size.learners))]
    request = pb.BatchRecommendRequest(
        learner_ids=names, limit=10, explanation_level=explanation_pb2.EXPLANATION_LEVEL_SIMPLE
    )
    return Target(stands, BATCH_RECOMMEND, request.SerializeToString(), core)


def drawn(size: world.Size, count: int, seed: int) -> list[str]:
    """Learners of `count` requests."""
    rng = np.random.default_rng(seed)
    return [world.learner_id(int(number)) for number in world.zipf_learners(size, count, rng)]


def drawn_batches(size: world.Size) -> list[list[str]]:
    """Batches of different learners, drawn as the others are."""
    found = []
    for seed in range(BATCHES):
        names = dict.fromkeys(drawn(size, 8 * BATCH, 1_000 + seed))
        found.append(list(names)[: min(BATCH, size.learners)])
    return found


def check_replies(port: int, learners: Sequence[str]) -> None:
    """Ask for each learner's slate through a real stub; RuntimeError when one is not whole.

    A call may run out of its time budget on a busy machine: it is tried again.
    """
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = recommendation_service_pb2_grpc.RecommendationServiceStub(channel)
        for name in dict.fromkeys(learners):
            request = pb.RecommendRequest(learner_id=name, limit=10)
            tries = (stub.Recommend(request, timeout=20.0).recommendation for _ in range(TRIES))
            if not any(len(s.items) == 10 and not s.degraded and s.items[0].main_reason for s in tries):
                raise RuntimeError(f"no slate of {name} is whole")


@contextmanager
def served(
    data: Path, size: world.Size, *worker_cores: int, settings: dict[str, object] | None = None
) -> Iterator[list[Stand]]:
    """A worker of the real server on each core, on one port, with requests drawn and some of them checked."""
    learners = drawn(size, DRAWN, seed=1)
    with ExitStack() as stack:
        stands: list[Stand] = []
        for core in worker_cores:
            port = stands[0].port if stands else 0
            arguments = ["--data", str(data), "--settings", json.dumps(settings or {}), "--port", str(port)]
            log = data / "server.log"
            stands.append(
                stack.enter_context(Stand("worker", core=core, arguments=arguments, log=log)).ready()
            )
        check_replies(stands[0].port, learners[:CHECKED])
        for number, stand in enumerate(stands):
            turn = number * DRAWN // len(worker_cores)
            stand.ask("draw", learners=learners[turn:] + learners[:turn], batches=drawn_batches(size))
        yield stands


class Writers:
    """Records answers at a fixed rate, ten a call, as long as it is entered."""

    def __init__(self, port: int, size: world.Size) -> None:
        self._port = port
        self._size = size
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write, daemon=True)
        self._failure: Exception | None = None
        self.acknowledged = 0
        self.took: list[float] = []
        """Seconds from each call to its acknowledgement."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _write(self) -> None:
        rng = np.random.default_rng(5)
        try:
            with grpc.insecure_channel(f"127.0.0.1:{self._port}") as channel:
                stub = practice_service_pb2_grpc.PracticeServiceStub(channel)
                due = time.monotonic()
                while not self._stop.wait(max(due - time.monotonic(), 0.0)):
                    due += ANSWERS_A_CALL / ANSWERS_A_SECOND
                    started = time.monotonic()
                    reply = stub.RecordAnswers(answers_request(self._size, ANSWERS_A_CALL, rng), timeout=20.0)
                    self.took.append(time.monotonic() - started)
                    if reply.recorded_count != ANSWERS_A_CALL:
                        raise RuntimeError(f"answers were not recorded: {reply}")
                    self.acknowledged += ANSWERS_A_CALL
        except Exception as error:
            self._failure = error


def answers_request(
    size: world.Size, count: int, rng: np.random.Generator, *, caller: int = 0, callers: int = 1
) -> practice_service_pb2.RecordAnswersRequest:
    """New answers of drawn learners to questions drawn evenly, given when they arrive.

    Of several callers each has learners of its own: of two calls at once, one may be recorded after the other though it
    came before, which sends a learner's log through the engine again, and a world has no logs.
    """
    numbers = world.zipf_learners(size, count, rng)
    learners = np.minimum(numbers - numbers % callers + caller, size.learners - 1).tolist()
    questions = rng.integers(0, size.questions, count).tolist()
    right = (rng.random(count) < 0.8).tolist()
    answers = [
        practice_service_pb2.Answer(
            answer_id=uuid.uuid4().hex,
            learner_id=world.learner_id(learner),
            question_id=world.question_id(question),
            correct=correct,
        )
        for learner, question, correct in zip(learners, questions, right, strict=True)
    ]
    return practice_service_pb2.RecordAnswersRequest(answers=answers)

"""What an answer costs where: a handler called in this process, the self time of each of its steps. Judges nothing.

Microseconds of CPU an answer, each step's on the thread that it runs on, less those of steps within it; the commit's
are LMDB's and the system's own. No gRPC. `python -m bench.ingest --parts` runs it.
"""

import functools
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench import world
from bench.output import emit
from bench.practice import Practice
from bench.profile import NoContext
from genie.v1 import practice_service_pb2 as pb
from server.app import Genie
from server.assembly import assemble
from server.config import Settings
from server.logs import configure
from server.rpc import bind
from server.services import answers
from store import answers_bulk, codec
from store.lmdb_store.bulk import LmdbBulk
from store.lmdb_store.environment import LmdbEnvironment

BENCH = "ingest"
METHOD = "/genie.v1.PracticeService/RecordAnswers"
CALLERS = 4
WARM_ANSWERS = 4_000
STEPS: tuple[tuple[str, Any, str], ...] = (
    ("checks_and_facts", answers, "sort_answers"),
    ("waiting", answers, "committed"),
    ("results", answers, "plain_fields"),
    ("recording", answers, "_record_many"),
    ("update", answers_bulk, "absorb_crowd"),
    ("entries", answers_bulk, "encode_answers"),
    ("counts", answers_bulk, "tally_crowd"),
    ("states_in", codec, "gather_states"),
    ("states_out", codec, "scatter_states"),
    ("reads", LmdbBulk, "get_many"),
    ("puts", LmdbBulk, "pass_on"),
    ("commit", LmdbEnvironment, "write"),
)


class _Clock:
    """Self times of nested steps, on whatever thread they run."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self._open = threading.local()

    def timed(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, its time taken."""

        @functools.wraps(real)
        def step(*args: Any, **named: Any) -> Any:
            within: list[float] = self._open.__dict__.setdefault("within", [])
            within.append(0.0)
            started = time.thread_time()
            try:
                return real(*args, **named)
            finally:
                took = time.thread_time() - started
                self.spent[name] += took - within.pop()
                if within:
                    within[-1] += took

        return step


@contextmanager
def _clocked() -> Iterator[_Clock]:
    """Take the steps' times as long as this is entered."""
    clock = _Clock()
    real = [getattr(owner, name) for _, owner, name in STEPS]
    for (label, owner, name), function in zip(STEPS, real, strict=True):
        setattr(owner, name, clock.timed(label, function))
    try:
        yield clock
    finally:
        for (_, owner, name), function in zip(STEPS, real, strict=True):
            setattr(owner, name, function)


def report_parts(data: Path, size: world.Size, calls_of: dict[int, int]) -> None:
    """Report the cost of an answer in calls of each size; `calls_of` says how many calls of it."""
    said = Practice.of(data, size)
    configure(level="info", style="json", worker=1, stream=(data / "parts.log").open("w"))
    genie = Genie(Settings(data_directory=data, port=0, experiments="off"), assemble)
    services: Any = genie._assembly.services
    descriptor, service = next(one for one in services if one[0].name == "PracticeService")
    handler: Any = bind(descriptor, service, replace(genie.runtime, brief=frozenset()))[METHOD].handler
    rng = np.random.default_rng(8)
    for count, calls in calls_of.items():
        bodies = [
            said.request(count, rng, caller=number % CALLERS, callers=CALLERS).SerializeToString()
            for number in range(calls + max(WARM_ANSWERS // count, 1))
        ]
        for body in bodies[calls:]:
            handler.unary_unary(body, NoContext())
        plain = [_cost(handler.unary_unary, body, count) for body in bodies[: calls // 2]]
        with _clocked() as clock:
            whole = sum(_cost(handler.unary_unary, body, count) for body in bodies[calls // 2 : calls])
        share = 1.0 / (calls - calls // 2)
        parts = {name: round(spent * share / count * 1e6, 2) for name, spent in clock.spent.items()}
        parts["parsing_and_the_rest"] = round(whole * share - sum(parts.values()), 2)
        facts: dict[str, Any] = dict(sorted(parts.items(), key=lambda part: -part[1]))
        emit(BENCH, "cpu_us_per_answer", round(statistics.median(plain), 1), answers_a_call=count, **facts)


def _cost(call: Callable[[bytes, object], bytes], body: bytes, count: int) -> float:
    """CPU microseconds of one answer of a call. RuntimeError when one was not recorded."""
    started = time.process_time()
    reply = call(body, NoContext())
    took = time.process_time() - started
    if pb.RecordAnswersResponse.FromString(reply).recorded_count != count:
        raise RuntimeError("answers were not recorded")
    return took / count * 1e6

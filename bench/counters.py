"""Counts under kill -9: after random events through two workers, every tally is what an independent recount finds.

Clients create learners in several time zones, record answers (in batches, some repeated, some late by days), open and
close sessions, take recommendations, send feedback and erase learners, while single workers and the whole server are
killed under them. What failed is sent again under the same ids. Then the store is opened offline, and the counts are
worked out anew, one learner after another, by rules that are written down here a second time.

    python -m bench.counters [--quick] [--events 100000] [--kills 12]
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from bench import small_world
from bench.crash import fill
from bench.live import LiveServer, channels
from bench.output import emit
from genie.v1 import (
    learner_service_pb2,
    learner_service_pb2_grpc,
    practice_service_pb2,
    practice_service_pb2_grpc,
    recommendation_service_pb2,
    recommendation_service_pb2_grpc,
)
from store.api import Partition, Store, Table
from store.learners import list_sessions, read_answers, read_feedback, read_profile
from store.recount import recount
from store.replay import all_learners
from store.stores import open_stores
from store.tallies import Tally, feedback_cell, read_all, read_sums, tally_name

TENANT = "default"
DAY = 86_400
DAYS = 40
"""Answers are spread over so many last days."""
THREADS = 4
LEARNERS_A_THREAD = 60
MOST_ANSWERS_A_CALL = 40
TIMEOUT_SECONDS = 20.0
PAUSE_SECONDS = 0.1
ZONES = ("UTC", "Europe/Berlin", "America/Los_Angeles", "Pacific/Auckland", "Asia/Kolkata")
MILESTONES_FROM_30 = (30, 60, 100, 365)


@dataclass
class Progress:
    """What the clients share."""

    wanted: int
    done: int = 0
    failures: int = 0
    """Calls that had to be sent again."""
    refused: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, events: int) -> None:
        """Events that were acknowledged."""
        with self.lock:
            self.done += events


class Client:
    """One thread's learners, and calls for them that are sent until they are answered."""

    def __init__(self, number: int, rng: random.Random, channel: grpc.Channel, progress: Progress) -> None:
        self._number = number
        self._rng = rng
        self._progress = progress
        self._learners = learner_service_pb2_grpc.LearnerServiceStub(channel)
        self._practice = practice_service_pb2_grpc.PracticeServiceStub(channel)
        self._slates = recommendation_service_pb2_grpc.RecommendationServiceStub(channel)
        self._clocks: dict[str, float] = {}
        """Simulated time of each learner's newest answer."""
        self._sent: list[practice_service_pb2.Answer] = []
        self._made = 0
        self._start = time.time() - DAYS * DAY

    def run(self) -> None:
        """Until there were enough events."""
        actions = (self._answer, self._session, self._feedback, self._erase)
        while self._progress.done < self._progress.wanted and not self._progress.refused:
            (action,) = self._rng.choices(actions, (100, 8, 8, 1))
            try:
                action(self._learner())
            except grpc.RpcError as error:
                self._progress.refused.append(f"{error.code()}: {error.details()}")

    def _learner(self) -> str:
        name = f"learner-{self._number}-{self._rng.randrange(LEARNERS_A_THREAD)}"
        if name not in self._clocks:
            self._clocks[name] = self._start + self._rng.random() * DAYS / 2 * DAY
            if self._rng.random() < 0.7:
                request = learner_service_pb2.CreateLearnerRequest(request_id=self._id())
                request.learner.learner_id, request.learner.time_zone = name, self._rng.choice(ZONES)
                self._call(self._learners.CreateLearner, request)
                self._progress.add(1)
        return name

    def _answer(self, name: str) -> None:
        answers = []
        for _ in range(self._rng.randint(1, MOST_ANSWERS_A_CALL)):
            self._clocks[name] += self._rng.expovariate(1 / 1_500.0)
            if self._rng.random() < 0.03:
                self._clocks[name] += self._rng.choice((1, 2, 4)) * DAY
            self._clocks[name] = min(self._clocks[name], time.time())
            late = self._rng.random() < 0.01
            answer = small_world.random_answer(self._rng, name)
            at = self._clocks[name] - (self._rng.random() * 3 * DAY if late else 0.0)
            answer.answered_at.CopyFrom(_stamp(at))
            if self._rng.random() < 0.9:
                answer.duration.CopyFrom(Duration(seconds=self._rng.randint(1, 90)))
            answers.append(answer)
        self._sent += answers[:1]
        repeated = [self._rng.choice(self._sent)] if self._rng.random() < 0.3 else []
        repeated = [answer for answer in repeated if answer.learner_id in self._clocks]
        request = practice_service_pb2.RecordAnswersRequest(answers=[*answers, *repeated])
        reply = self._call(self._practice.RecordAnswers, request)
        if reply.rejected_count:
            self._progress.refused.append(str(reply.results))
        self._progress.add(len(answers))

    def _session(self, name: str) -> None:
        session = self._id()
        start = practice_service_pb2.StartSessionRequest(learner_id=name, session_id=session)
        start.start_time.CopyFrom(_stamp(self._clocks[name]))
        self._call(self._practice.StartSession, start)
        end = practice_service_pb2.EndSessionRequest(
            learner_id=name, session_id=session, request_id=self._id()
        )
        end.end_time.CopyFrom(_stamp(min(self._clocks[name] + 2 * DAY, time.time())))
        self._call(self._practice.EndSession, end)
        self._progress.add(2)

    def _feedback(self, name: str) -> None:
        wish = recommendation_service_pb2.RecommendRequest(learner_id=name, limit=3, request_id=self._id())
        slate = self._call(self._slates.Recommend, wish).recommendation
        if slate.degraded or not slate.items:
            return
        events = []
        for item in slate.items:
            event = recommendation_service_pb2.FeedbackEvent(
                event_id=self._id(),
                learner_id=name,
                recommendation_id=slate.recommendation_id,
                question_id=item.question_id,
                kind=recommendation_service_pb2.FeedbackKind.ValueType(self._rng.randint(1, 5)),
            )
            event.event_time.CopyFrom(_stamp(time.time() - self._rng.random() * 5 * DAY))
            events.append(event)
        request = recommendation_service_pb2.RecordFeedbackRequest(events=events)
        reply = self._call(self._slates.RecordFeedback, request)
        if reply.rejected_count:
            self._progress.refused.append(str(reply.results))
        self._progress.add(len(events))

    def _erase(self, name: str) -> None:
        self._call(self._learners.DeleteLearner, learner_service_pb2.DeleteLearnerRequest(learner_id=name))
        del self._clocks[name]
        self._sent = [answer for answer in self._sent if answer.learner_id != name]
        self._progress.add(1)

    def _call(self, method: Any, request: object) -> Any:
        """The reply, however often the server dies meanwhile. Raises grpc.RpcError for what no crash explains."""
        while True:
            try:
                return method(request, timeout=TIMEOUT_SECONDS)
            except grpc.RpcError as error:
                again = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
                if error.code() not in again:
                    raise
                self._progress.failures += 1
                time.sleep(PAUSE_SECONDS)

    def _id(self) -> str:
        self._made += 1
        return f"{self._number}-{self._made}"


def _stamp(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromMicroseconds(round(seconds * 1e6))
    return stamp


def kill_sometimes(server: LiveServer, progress: Progress, kills: int, rng: random.Random) -> int:
    """Kill while the clients work: mostly one worker, every third time everything; how often."""
    for number in range(kills):
        mark = progress.wanted * (number + 1) // (kills + 1)
        while progress.done < mark and not progress.refused:
            time.sleep(0.02)
        if progress.refused:
            return number
        if number % 3 == 2:
            server.kill()
            server.start()
        else:
            pids = server.worker_pids()
            if pids:
                os.kill(rng.choice(pids), signal.SIGKILL)
    return kills


def counted_anew(store: Store) -> dict[int, Counter[int]]:
    """The counts, from what is stored of each learner; by day, then cell."""
    found: dict[int, Counter[int]] = {}
    for learner_id in all_learners(store, TENANT, Table.PROFILE, Table.ANSWER, Table.SESSION, Table.FEEDBACK):
        for day, what, amount in _facts_of(store, learner_id):
            found.setdefault(day, Counter())[what] += amount
    return found


def _facts_of(store: Store, learner_id: str) -> Iterator[tuple[int, int, int]]:
    with store.read(Partition(TENANT, learner_id)) as reader:
        log, profile = read_answers(reader), read_profile(reader)
        sessions, events = list_sessions(reader), read_feedback(reader)
    if profile is not None:
        yield int(profile.created_at // DAY), Tally.CREATED, 1
    for session in sessions:
        yield int(session.started_at // DAY), Tally.SESSIONS_STARTED, 1
        if session.ended_at:
            yield int(session.ended_at // DAY), Tally.SESSIONS_ENDED, 1
    for event in events:
        yield int(event.happened_at // DAY), feedback_cell(event.kind), 1
    order = sorted(range(log.size), key=lambda i: (log.batch.answered_at[i], log.sequence[i]))
    days = [int(log.batch.answered_at[i] // DAY) for i in order]
    for i, day in zip(order, days, strict=True):
        yield day, Tally.ANSWERS, 1
        yield day, Tally.CORRECT, int(log.batch.correct[i])
        yield day, Tally.PRACTICE_MS, int(log.batch.duration_ms[i])
        yield day, Tally.LATE, int(log.late[i])
        crossed = log.crossed[log.batch.offsets[i] : log.batch.offsets[i + 1]].tolist()
        yield day, Tally.MASTERED, crossed.count(1)
        yield day, Tally.LOST, crossed.count(-1)
    for day in set(days):
        yield day, Tally.ACTIVE, 1
    if days:
        yield max(days), Tally.LAST_ACTIVE, 1
    yield from _streaks_of([(int(log.batch.local_day[i]), float(log.batch.answered_at[i])) for i in order])


def _streaks_of(answers: list[tuple[int, float]]) -> Iterator[tuple[int, int, int]]:
    streak = freezes = last = 0
    before = 0.0
    for day, at in answers:
        if not streak or day > last:
            # Who flies over the date line has not missed a day; clocks that are put on cost an hour.
            missed = max(min(day - last - 1, int((at - before + 3_600) // DAY)), 0)
            if streak and missed <= freezes:
                freezes -= missed
                streak += 1
                yield day, Tally.STREAKS_KEPT, 1
            else:
                if streak:
                    yield last + freezes + 2, Tally.STREAKS_END, 1
                streak = 1
            if streak % 7 == 0 or streak in MILESTONES_FROM_30:
                freezes = min(freezes + 1, 2)
            last = day
        before = at
    if streak:
        yield last + freezes + 2, Tally.STREAKS_END, 1


@dataclass
class Findings:
    """What the store holds in the end."""

    events: int
    answers: int
    failures: int
    kills: int
    counts: int
    """Counts that were compared."""
    differing: list[str]
    sums_differing: list[str]
    active_differing: int
    """How far learners active in the last 7 days are off."""
    recount_agrees: bool
    refused: list[str]


def inspect(store: Store, progress: Progress, kills: int) -> Findings:
    """Hold the tallies of a store that nobody else has open against what is stored."""
    anew = counted_anew(store)
    with store.read(Partition(TENANT)) as reader:
        held, erased, sums = read_all(reader), read_all(reader, erased=True), read_sums(reader)
    totals = [sum(cells.get(cell, 0) for cells in held.by_day.values()) for cell in range(len(sums))]
    held.take(erased, -1)
    keys = {(day, cell) for source in (anew, held.by_day) for day, cells in source.items() for cell in cells}
    differing = []
    for day, cell in sorted(keys):
        counted, right = held.by_day.get(day, {}).get(cell, 0), anew.get(day, Counter())[cell]
        if counted != right:
            differing.append(f"{tally_name(cell)} of day {day}: {counted}, not {right}")
    week = int(time.time() // DAY) - 6
    told = sum(cells.get(Tally.LAST_ACTIVE, 0) for day, cells in held.by_day.items() if day >= week)
    active = sum(cells[Tally.LAST_ACTIVE] for day, cells in anew.items() if day >= week)
    return Findings(
        events=progress.done,
        answers=sum(cells[Tally.ANSWERS] for cells in anew.values()),
        failures=progress.failures,
        kills=kills,
        counts=len(keys),
        differing=differing,
        sums_differing=[f"cell {cell}" for cell in range(len(sums)) if totals[cell] != sums[cell]],
        active_differing=abs(told - active),
        recount_agrees=recount(store, TENANT).agrees,
        refused=progress.refused,
    )


def run(server: LiveServer, *, events: int, kills: int, seed: int) -> Findings:
    """Start the server, let the clients loose on it, kill it now and then, and look at what it leaves behind."""
    rng = random.Random(seed)
    progress = Progress(events)
    server.start()
    fill(server)
    with channels(server.target, THREADS, retries=False) as opened:
        crew = [
            threading.Thread(target=Client(number, random.Random(rng.random()), channel, progress).run)
            for number, channel in enumerate(opened)
        ]
        for thread in crew:
            thread.start()
        done = kill_sometimes(server, progress, kills, rng)
        for thread in crew:
            thread.join()
    server.kill()
    stores = open_stores(server.data_directory)
    try:
        return inspect(stores.state, progress, done)
    finally:
        stores.close()


def main() -> int:
    """Run and report; the exit status says whether every bar holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="Few events, one kill.")
    asked = parser.parse_args()
    if asked.quick:
        asked.events, asked.kills = 1_500, 1
    with tempfile.TemporaryDirectory(prefix="genie-counters-") as directory:
        server = LiveServer(Path(directory), workers=asked.workers)
        try:
            found = run(server, events=asked.events, kills=asked.kills, seed=asked.seed)
        finally:
            if server.running:
                server.kill()
    for problem in [*found.refused, *found.differing, *found.sums_differing][:20]:
        print(problem, file=sys.stderr)
    facts = {
        "events": found.events,
        "kills": found.kills,
        "sent_again": found.failures,
        "answers": found.answers,
    }
    holds = [
        emit("counters", "calls_refused", len(found.refused), bar="== 0", **facts),
        emit("counters", "counts_differing", len(found.differing), bar="== 0", counts=found.counts),
        emit("counters", "sums_differing", len(found.sums_differing), bar="== 0"),
        emit("counters", "weekly_active_off_by", found.active_differing, bar="== 0"),
        emit("counters", "recount_disagrees", int(not found.recount_agrees), bar="== 0"),
    ]
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())

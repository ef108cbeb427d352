"""Kill -9 under load: no acknowledged answer is lost, none counts twice, and every record follows from its log.

Clients record answers (one to twenty a call, some of them repeats, some late) and feedback without pause until every
process of the server is killed at a random moment. Then the store is opened offline and held against what the clients
were told. What was not acknowledged is sent again in the next round, and must end up there exactly once as well.

They open no streams: with grpcio 1.85 a stream whose server is killed may wait for ever in the client, past its
deadline.

    python -m bench.crash [--quick] [--rounds 100] [--workers 2]
"""

import argparse
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from google.protobuf.timestamp_pb2 import Timestamp

from bench import small_world
from bench.live import LiveServer, channels
from bench.output import emit
from genie.v1 import (
    catalog_service_pb2_grpc,
    practice_service_pb2,
    practice_service_pb2_grpc,
    recommendation_service_pb2_grpc,
)
from genie.v1 import recommendation_service_pb2 as recommendation_pb2
from store.api import Partition, Store, Table
from store.learners import export_answers, read_feedback
from store.replay import all_learners, replay
from store.stores import open_stores

TENANT = "default"
TIMEOUT_SECONDS = 10.0
MOST_ANSWERS_A_CALL = 20
REPEATED_SHARE = 0.1
LATE_SHARE = 0.1
FEEDBACK_SHARE = 0.1
PAUSE_SECONDS = 0.05
"""After a failed call; the clients do without gRPC's own retries, whose place the next round takes."""
LEARNERS = 12
"""Learners at a time; others take their place every few rounds, so that logs stay of a usual length."""
ROUNDS_A_GROUP = 5
SHORTEST_LOAD_SECONDS = 0.05
LONGEST_LOAD_SECONDS = 1.0
OLDEST_LATE_SECONDS = 30 * 86_400

Answer = practice_service_pb2.Answer


@dataclass
class Ledger:
    """What one client sent and what it was told."""

    unacknowledged: dict[str, Answer] = field(default_factory=dict)
    acknowledged: dict[str, Answer] = field(default_factory=dict)
    feedback: set[tuple[str, str]] = field(default_factory=set)
    """(learner, event) of acknowledged events."""
    refused: list[str] = field(default_factory=list)
    """What a server that is sound never says."""

    def settle(self, sent: dict[str, Answer], results: list[practice_service_pb2.AnswerResult]) -> None:
        """Take a reply in."""
        for result in results:
            fresh = result.answer_id not in self.acknowledged
            if result.status == practice_service_pb2.ANSWER_STATUS_REJECTED:
                self.refused.append(f"{result.answer_id}: {result.error.message}")
            elif result.status == practice_service_pb2.ANSWER_STATUS_RECORDED and not fresh:
                self.refused.append(f"{result.answer_id}: recorded anew after its acknowledgement")
            self.unacknowledged.pop(result.answer_id, None)
            self.acknowledged[result.answer_id] = sent[result.answer_id]


@dataclass
class Findings:
    """What the rounds showed."""

    rounds: int = 0
    answers: int = 0
    """Acknowledged in all."""
    resent: int = 0
    """Sent again because their fate was unknown."""
    feedback: int = 0
    lost: list[str] = field(default_factory=list)
    duplicated: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    start_seconds: list[float] = field(default_factory=list)


def client(
    rng: random.Random, channel: grpc.Channel, ledger: Ledger, group: int, stop: threading.Event
) -> None:
    """Record answers and feedback until told to stop or the server is gone."""
    first = True
    while not stop.is_set():
        learner_id = f"learner-{group}-{rng.randrange(LEARNERS)}"
        try:
            if not first and rng.random() < FEEDBACK_SHARE:
                send_feedback(rng, channel, ledger, learner_id)
            else:
                # What the last crash left open goes out first, and is left to the retry of the next round again.
                send_answers(rng, channel, ledger, learner_id, again=first)
                first = False
        except grpc.RpcError as error:
            if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                ledger.refused.append(f"{error.code()}: {error.details()}")
            stop.wait(PAUSE_SECONDS)


def send_answers(
    rng: random.Random, channel: grpc.Channel, ledger: Ledger, learner_id: str, *, again: bool
) -> None:
    """Record what is open when `again`, else new answers with some repeats, in one call. Raises grpc.RpcError."""
    sent = dict(list(ledger.unacknowledged.items())[:1000])
    if not again or not sent:
        sent = {}
        for _ in range(rng.randint(1, MOST_ANSWERS_A_CALL)):
            answer = small_world.random_answer(rng, learner_id)
            if rng.random() < LATE_SHARE:
                past = int(time.time()) - rng.randrange(OLDEST_LATE_SECONDS)
                answer.answered_at.CopyFrom(Timestamp(seconds=past))
            sent[answer.answer_id] = answer
        ledger.unacknowledged |= sent
        if ledger.acknowledged and rng.random() < REPEATED_SHARE:
            repeated = rng.choice(list(ledger.acknowledged.values()))
            sent[repeated.answer_id] = repeated
    stub = practice_service_pb2_grpc.PracticeServiceStub(channel)
    request = practice_service_pb2.RecordAnswersRequest(answers=sent.values())
    ledger.settle(sent, list(stub.RecordAnswers(request, timeout=TIMEOUT_SECONDS).results))


def send_feedback(rng: random.Random, channel: grpc.Channel, ledger: Ledger, learner_id: str) -> None:
    """A slate, and an event for one of its questions. Raises grpc.RpcError."""
    stub = recommendation_service_pb2_grpc.RecommendationServiceStub(channel)
    slate = stub.Recommend(
        recommendation_pb2.RecommendRequest(learner_id=learner_id), timeout=TIMEOUT_SECONDS
    ).recommendation
    event = recommendation_pb2.FeedbackEvent(
        event_id=f"event-{rng.getrandbits(64):x}",
        learner_id=learner_id,
        recommendation_id=slate.recommendation_id,
        question_id=rng.choice(slate.items).question_id,
        kind=recommendation_pb2.FEEDBACK_KIND_CLICKED,
    )
    reply = stub.RecordFeedback(
        recommendation_pb2.RecordFeedbackRequest(events=[event]), timeout=TIMEOUT_SECONDS
    )
    if slate.degraded:
        return
    if reply.recorded_count == 1:
        ledger.feedback.add((learner_id, event.event_id))
    else:
        ledger.refused.append(f"{event.event_id}: {reply.results[0].error.message}")


def load(server: LiveServer, ledgers: list[Ledger], group: int, seconds: float, rng: random.Random) -> None:
    """Let the clients loose on a server that is SERVING, and kill it under them."""
    stop = threading.Event()
    with channels(server.target, len(ledgers), retries=False) as opened:
        crew = [
            threading.Thread(target=client, args=(random.Random(rng.random()), channel, ledger, group, stop))
            for channel, ledger in zip(opened, ledgers, strict=True)
        ]
        for thread in crew:
            thread.start()
        time.sleep(seconds)
        server.kill()
        stop.set()
        for thread in crew:
            thread.join()


def inspect(store: Store, ledgers: list[Ledger], findings: Findings) -> None:
    """Hold the store, which nobody else has open, against what the clients know."""
    held: dict[str, Counter[str]] = {}
    for learner_id in all_learners(store, TENANT, Table.ANSWER, Table.PROFILE):
        partition = Partition(TENANT, learner_id)
        held[learner_id] = Counter(
            answer_id for log in export_answers(store, partition) for answer_id in log.answer_id
        )
        with store.read(partition) as reader:
            indexed = sum(1 for _ in reader.scan(Table.ANSWER_ID))
            events = {event.event_id for event in read_feedback(reader)}
        if indexed != held[learner_id].total():
            findings.differing.append(f"{learner_id}: {held[learner_id].total()} answers, {indexed} indexed")
        told = {event for ledger in ledgers for owner, event in ledger.feedback if owner == learner_id}
        findings.lost += [f"{learner_id}: event {event}" for event in told - events]
    for ledger in ledgers:
        for answer_id, answer in ledger.acknowledged.items():
            if not held.get(answer.learner_id, Counter())[answer_id]:
                findings.lost.append(f"{answer.learner_id}: answer {answer_id}")
    findings.duplicated += [
        f"{learner_id}: answer {answer_id}, {count} times"
        for learner_id, answers in held.items()
        for answer_id, count in answers.items()
        if count > 1
    ]
    report = replay(store, TENANT)
    findings.differing += report.examples


def run(
    server: LiveServer,
    *,
    rounds: int,
    threads: int,
    seed: int,
    progress: Callable[[Findings], None] = lambda findings: None,
) -> Findings:
    """Crash a server `rounds` times, then send what is still open; the server is started as needed, and left dead.

    Ends at the first finding.
    """
    rng = random.Random(seed)
    ledgers = [Ledger() for _ in range(threads)]
    findings = Findings()
    for number in range(rounds + 1):
        if not server.running:
            started = time.monotonic()
            server.start()
            findings.start_seconds.append(time.monotonic() - started)
        if number == 0:
            fill(server)
        findings.resent += sum(len(ledger.unacknowledged) for ledger in ledgers)
        if number < rounds:
            span = rng.uniform(SHORTEST_LOAD_SECONDS, LONGEST_LOAD_SECONDS)
            load(server, ledgers, number // ROUNDS_A_GROUP, span, rng)
            findings.rounds += 1
        else:
            settle_all(server, ledgers, rng)
        stores = open_stores(server.data_directory)
        try:
            inspect(stores.state, ledgers, findings)
        finally:
            stores.close()
        findings.answers = sum(len(ledger.acknowledged) for ledger in ledgers)
        findings.feedback = sum(len(ledger.feedback) for ledger in ledgers)
        findings.refused = [refusal for ledger in ledgers for refusal in ledger.refused]
        progress(findings)
        if findings.lost or findings.duplicated or findings.differing or findings.refused:
            break
    return findings


def settle_all(server: LiveServer, ledgers: list[Ledger], rng: random.Random) -> None:
    """Send what the last crash left open, to a server that is let live, and kill it afterwards."""
    with channels(server.target, 1, retries=False) as opened:
        for ledger in ledgers:
            while ledger.unacknowledged:
                send_answers(rng, opened[0], ledger, "", again=True)
    server.kill()


def fill(server: LiveServer) -> None:
    """Store the catalogue."""
    with channels(server.target, 1) as opened:
        catalog = catalog_service_pb2_grpc.CatalogServiceStub(opened[0])
        catalog.UpsertConcepts(small_world.upsert_concepts(), timeout=TIMEOUT_SECONDS)
        catalog.UpsertQuestions(small_world.upsert_questions(), timeout=TIMEOUT_SECONDS)


def main() -> int:
    """Run and report; the exit status says whether every bar holds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="3 rounds")
    options = parser.parse_args()
    rounds = 3 if options.quick else options.rounds
    with tempfile.TemporaryDirectory(prefix="genie-crash-") as directory:
        server = LiveServer(Path(directory), workers=options.workers)
        try:
            findings = run(server, rounds=rounds, threads=options.threads, seed=options.seed)
        finally:
            if server.running:
                server.kill()
    kinds = ("lost", "duplicated", "differing", "refused")
    for kind in kinds:
        for what in getattr(findings, kind)[:10]:
            emit("crash", kind, 1, what=what)
    starts = findings.start_seconds
    emit("crash", "start_seconds", round(sum(starts) / len(starts), 3), slowest=round(max(starts), 3))
    counts = {
        "rounds": findings.rounds,
        "answers": findings.answers,
        "resent": findings.resent,
        "feedback": findings.feedback,
    }
    held = [emit("crash", kind, len(getattr(findings, kind)), bar="== 0", **counts) for kind in kinds]
    return 0 if all(held) else 1


if __name__ == "__main__":
    raise SystemExit(main())

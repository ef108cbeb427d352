"""GetSystemMetrics and WatchSystemMetrics: every figure from what was really done."""

import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.duration_pb2 import Duration

from genie.v1 import analytics_service_pb2 as pb
from genie.v1 import learner_service_pb2 as learner_pb
from genie.v1 import practice_service_pb2 as practice_pb
from genie.v1 import recommendation_service_pb2 as recommendation_pb
from genie.v1 import resources_pb2, system_metrics_pb2
from server.metrics import CallCounters, Meter
from server.system_metrics import POLLED, SystemMetricsReader, hit_rate, times_of
from server.tally_figures import learning_figures
from store.api import Partition
from store.memory_store import MemoryStore
from store.tallies import Tally, feedback_cell, tally
from tests.server.core import LEARNER, Core, at, core, lasting
from tests.server.serving import failure, reason

DAY = 86_400.0


@pytest.fixture(scope="module")
def served() -> Iterator[Core]:
    with core() as running:
        yield running


@pytest.fixture
def world(served: Core, request: pytest.FixtureRequest) -> Core:
    mine = served.tenant_of(request.node.name)
    mine.chain("count", "add", questions=6)
    return mine


def metrics(world: Core, window_seconds: int = 300) -> system_metrics_pb2.SystemMetrics:
    request = pb.GetSystemMetricsRequest(window=Duration(seconds=window_seconds))
    found: system_metrics_pb2.SystemMetrics = world.analytics.GetSystemMetrics(
        request, metadata=world.metadata
    ).metrics
    return found


def test_what_workers_ask_all_the_time_is_left_out_of_the_sums(tmp_path: Path) -> None:
    meter, store = Meter(), MemoryStore()
    counters = CallCounters(meter)
    for _ in range(50):
        counters.count(f"/{POLLED}", "OK", 0.000_1)
    for _ in range(4):
        counters.count("/genie.v1.RecommendationService/Recommend", "OK", 0.1)
    reader = SystemMetricsReader(state=store, serving=store, meter=meter, spool=tmp_path)
    found = reader.read("default", time.time(), 300.0)
    assert found.calls_count == 4
    assert found.p50_latency_ms > 50.0
    assert {method.method: method.calls_count for method in found.methods}[POLLED] == 50


def test_a_tenant_where_nothing_happened_has_no_rates(world: Core) -> None:
    found = metrics(world)
    assert (found.total_active_learners, found.dau, found.wau, found.mau, found.answers_today) == (
        0,
        0,
        0,
        0,
        0,
    )
    for name in ("streak_maintenance_rate", "click_through_rate", "accuracy_today"):
        assert not found.HasField(name)
    assert found.avg_practice_minutes_per_user == 0.0


def test_what_learners_did_is_counted_by_utc_day(world: Core) -> None:
    now = time.time()
    noon = (now // DAY + 0.5) * DAY - DAY
    world.record(
        world.answer("count-0", duration=lasting(60), answered_at=at(now)),
        world.answer("count-1", correct=False, duration=lasting(30), answered_at=at(now)),
        world.answer("count-2", learner_id="bob", duration=lasting(90), answered_at=at(noon)),
        world.answer("count-2", learner_id="eve", answered_at=at(noon - 9 * DAY)),
        world.answer("count-2", learner_id="old", answered_at=at(noon - 60 * DAY)),
    )
    session = practice_pb.StartSessionRequest(learner_id=LEARNER, session_id="s")
    world.practice.StartSession(session, metadata=world.metadata)
    found = metrics(world)
    assert (found.dau, found.wau, found.mau, found.total_active_learners) == (1, 2, 3, 4)
    assert (found.answers_today, found.accuracy_today) == (2, 0.5)
    assert found.practice_minutes_today == pytest.approx(1.5)
    assert found.avg_practice_minutes_per_user == pytest.approx(3.0 / 2)
    assert (found.sessions_started_today, found.learners_created_today) == (1, 4)


def test_a_repeat_changes_no_figure_and_an_erased_learner_is_not_active(world: Core) -> None:
    answer = world.answer("count-0")
    for _ in range(3):
        world.record(answer)
    assert (metrics(world).answers_today, metrics(world).dau) == (1, 1)
    world.learners.DeleteLearner(learner_pb.DeleteLearnerRequest(learner_id=LEARNER), metadata=world.metadata)
    found = metrics(world)
    assert (found.dau, found.wau, found.total_active_learners) == (0, 0, 0)
    assert found.answers_today == 1, "what happened on a day stays true"


def test_recommendations_and_clicks(world: Core) -> None:
    slate = world.recommend(limit=4)
    world.recommend(limit=2, request_id="again")
    world.recommend(limit=2, request_id="again")
    events = [
        recommendation_pb.FeedbackEvent(
            event_id=f"{kind}-{item.question_id}",
            learner_id=LEARNER,
            recommendation_id=slate.recommendation_id,
            question_id=item.question_id,
            kind=kind,
        )
        for kind, items in (
            (recommendation_pb.FEEDBACK_KIND_SHOWN, slate.items),
            (recommendation_pb.FEEDBACK_KIND_CLICKED, slate.items[:1]),
        )
        for item in items
    ]
    request = recommendation_pb.RecordFeedbackRequest(events=events)
    world.recommendations.RecordFeedback(request, metadata=world.metadata)
    found = metrics(world)
    assert found.recommendations_generated_today == 2
    assert found.click_through_rate == pytest.approx(0.25)


def test_concepts_mastered_today_are_those_that_the_replies_named(world: Core) -> None:
    mastered = 0
    for _ in range(6):
        for number in range(6):
            reply = world.record(world.answer(f"count-{number}"))
            changes = [change for result in reply.results for change in result.mastery_changes]
            mastered += sum(change.event == resources_pb2.MASTERY_EVENT_MASTERED for change in changes)
    assert mastered > 0
    assert metrics(world).concepts_mastered_today == mastered


def test_calls_of_the_window_by_method(served: Core, world: Core) -> None:
    before = metrics(world)
    for _ in range(5):
        world.record(world.answer("count-0"))
    world.record(world.answer("no-such-question"))
    failure(lambda: world.stats("nobody"))
    found = metrics(world)
    assert found.calls_count >= before.calls_count + 7
    methods = {method.method: method for method in found.methods}
    record = methods["genie.v1.PracticeService/RecordAnswers"]
    assert record.calls_count >= 5
    assert 0.0 < record.p50_latency_ms <= record.p99_latency_ms
    assert record.calls_per_second == pytest.approx(
        record.calls_count / (found.window.ToNanoseconds() / 1e9), rel=1e-3
    )
    assert found.avg_latency_ms > 0.0
    assert 0.0 < found.p50_latency_ms <= found.p99_latency_ms
    assert found.failed_calls_count == 0
    assert 0.0 < found.cache_hit_rate <= 1.0
    assert found.store.commits_count > 0
    assert found.store.mean_group_size >= 1.0
    assert found.store.used_bytes > 0
    assert found.model.version == "priors"
    assert not found.model.HasField("train_time")
    (worker,) = found.workers
    assert worker.serving
    assert worker.resident_bytes > 1 << 20
    assert worker.calls_in_flight_count >= 1, "this one"


def test_watching_sends_the_numbers_again_until_the_watcher_goes(world: Core) -> None:
    request = pb.WatchSystemMetricsRequest(interval=Duration(seconds=1), window=Duration(seconds=10))
    stream = world.analytics.WatchSystemMetrics(request, metadata=world.metadata)
    first = next(stream).metrics
    world.record(world.answer("count-0"))
    second = next(stream).metrics
    assert (first.answers_today, second.answers_today) == (0, 1)
    assert second.read_time.ToNanoseconds() - first.read_time.ToNanoseconds() > 0.9e9
    stream.cancel()


@pytest.mark.parametrize(
    ("field", "seconds"),
    [("window", 9), ("window", 301), ("interval", 0), ("interval", 3_601), ("window", -1)],
)
def test_spans_out_of_range_are_refused(world: Core, field: str, seconds: int) -> None:
    request = pb.WatchSystemMetricsRequest(**{field: Duration(seconds=seconds)})
    error = failure(lambda: next(world.analytics.WatchSystemMetrics(request, metadata=world.metadata)))
    assert (error.code(), reason(error)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    if field == "window":
        alone = pb.GetSystemMetricsRequest(window=Duration(seconds=seconds))
        error = failure(lambda: world.analytics.GetSystemMetrics(alone, metadata=world.metadata))
        assert reason(error) == "INVALID_FIELD"


def test_streaks_of_the_last_complete_week() -> None:
    state, serving = MemoryStore(), MemoryStore()
    today = 20_000

    def count(day: int, what: int, amount: int = 1) -> None:
        state.update(Partition("t"), lambda tx: tally(tx, day, what, amount))

    assert learning_figures(state, serving, "t", today).streak_maintenance is None
    count(today - 8, Tally.STREAKS_END, 50)
    count(today - 7, Tally.STREAKS_KEPT, 6)
    count(today - 1, Tally.STREAKS_END, 2)
    count(today, Tally.STREAKS_END, 70)
    count(today + 1, Tally.STREAKS_END, 90)
    figures = learning_figures(state, serving, "t", today)
    assert figures.streak_maintenance == pytest.approx(6 / 8)
    count(today - 6, feedback_cell(1), 4)
    count(today - 7, feedback_cell(1), 400)
    count(today, feedback_cell(2), 9)
    assert learning_figures(state, serving, "t", today).click_through == 1.0


def test_clocks_that_are_ahead_are_active_today() -> None:
    state, serving = MemoryStore(), MemoryStore()
    state.update(Partition("t"), lambda tx: tally(tx, 20_001, Tally.LAST_ACTIVE, 3))
    figures = learning_figures(state, serving, "t", 20_000)
    assert (figures.active_day, figures.active_week) == (3, 3)


def test_rates_of_nothing() -> None:
    reading = Meter().read()
    assert hit_rate(reading.recent) is None
    assert times_of(np.zeros(0)).calls == 0

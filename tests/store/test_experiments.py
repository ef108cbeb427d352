"""Experiments in the store: reports in any order lead to the same bits, and each counts once."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from engine.experiments.moments import EMPTY, Moments
from engine.experiments.plan import Decision, Kind, PhaseSnapshot, Role, Running, Verdict
from store.api import Partition, Store, Table, Transaction
from store.experiment_cells import snapshots
from store.experiment_reports import (
    ReportOutcome,
    ReportRecord,
    due,
    erase_learner,
    list_reports,
    phase_of,
    place_everyone,
    record_reports,
    settle,
)
from store.experiments import (
    ROLLED_BACK,
    RUNNING,
    ExperimentRecord,
    HistoryPoint,
    MetricRecord,
    PhaseRecord,
    SampleRecord,
    experiment_id_of,
    find_experiment,
    list_experiments,
    merge_look,
    read_history,
    read_look,
    write_experiment,
    write_point,
)
from store.lmdb_store import LmdbStore
from store.memory_store import MemoryStore

DAY = 86_400.0
START = 1_800_000_000.0
MINUTES = MetricRecord(
    name="minutes", source="minutes", role=Role.PRIMARY, kind=Kind.MEAN, window_s=7 * DAY, use_covariate=True
)
CLICKS = MetricRecord(name="clicks", source="clicks", role=Role.SECONDARY, kind=Kind.RATIO, window_s=7 * DAY)
RETURNED = MetricRecord(
    name="returned",
    source="minutes",
    role=Role.GUARDRAIL,
    kind=Kind.PROPORTION,
    window_start_s=DAY,
    window_s=DAY,
    when_complete=True,
)
EXPERIMENT = ExperimentRecord(
    experiment_id=experiment_id_of("Test"),
    name="Test",
    hypothesis="",
    arms=("old", "new"),
    algorithms=("old", "new"),
    metrics=(MINUTES, CLICKS, RETURNED),
    target_improvement=0.15,
    duration_days=30,
    sample=SampleRecord(planned_sample=1000, basis="request"),
    phases=(PhaseRecord(weights=(0.5, 0.5)), PhaseRecord(weights=(0.2, 0.8))),
    seed="seed",
    state=RUNNING,
    created_at=START,
    started_at=START,
)
PARTITION = Partition("default", EXPERIMENT.experiment_id)


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    opened: Store = MemoryStore() if request.param == "memory" else LmdbStore(tmp_path)
    opened.update(PARTITION, lambda tx: write_experiment(tx, EXPERIMENT))
    yield opened
    opened.close()


def arm_of(learner: str, phase: int = 0) -> int:
    return place_everyone(EXPERIMENT).index_of(learner, phase=phase)


def exposure(learner: str, at: float, phase: int = 0, **more: object) -> ReportRecord:
    known: dict[str, object] = {
        "report_id": f"e-{learner}-{phase}-{at}",
        "at": at,
        "arm": arm_of(learner, phase),
        "phase": phase,
    }
    return ReportRecord(**(known | more))  # type: ignore[arg-type]


def value(
    report_id: str, at: float, number: float, source: str = "minutes", over: float = 0.0
) -> ReportRecord:
    return ReportRecord(report_id=report_id, at=at, source=source, value=number, denominator=over)


def take(store: Store, learner: str, *reports: ReportRecord) -> list[ReportOutcome]:
    def run(tx: Transaction) -> list[ReportOutcome]:
        return record_reports(tx, EXPERIMENT, learner, reports, place_everyone(EXPERIMENT))

    return store.update(PARTITION, run)


def seen(store: Store) -> list[PhaseSnapshot]:
    with store.read(PARTITION) as reader:
        return snapshots(reader, EXPERIMENT)


def together(store: Store, metric: str) -> Moments:
    total = EMPTY
    for phase in seen(store):
        for arm in phase.moments.get(metric, ()):
            total = total.merge(arm)
    return total


def test_a_learner_counts_from_the_first_exposure_on(store: Store) -> None:
    take(store, "ada", value("v-1", START + 5, 7.0))
    assert together(store, "minutes").n == 0
    take(store, "ada", exposure("ada", START + 3))
    assert (together(store, "minutes").n, together(store, "minutes").mean) == (1, 7.0)
    take(store, "ada", value("v-2", START + 6, 2.5), value("v-3", START + 1, 100.0))
    assert together(store, "minutes").mean == 9.5, "what came before the exposure does not count"
    exposed = [phase.exposed for phase in seen(store)]
    assert sum(map(sum, exposed)) == 1


def erase(store: Store, learner: str, at: float, *, remember: bool = True) -> ReportOutcome:
    return store.update(PARTITION, lambda tx: erase_learner(tx, EXPERIMENT, learner, at, remember=remember))


def everything(store: Store) -> list[object]:
    """Counts and moments of every cell; those of nobody look like those that never were."""
    found: list[object] = []
    for phase in seen(store):
        moments = {name: arms for name, arms in phase.moments.items() if any(arm.n for arm in arms)}
        found.append((phase.assigned, phase.exposed, moments))
    return found


@pytest.mark.parametrize("seed", range(12))
def test_after_an_erasure_all_is_as_if_the_learner_had_not_been(store: Store, seed: int) -> None:
    rng = random.Random(seed)
    other: Store = MemoryStore()
    other.update(PARTITION, lambda tx: write_experiment(tx, EXPERIMENT))
    erased_at = {"ada": START + rng.uniform(0.0, 6 * DAY), "bob": START + rng.uniform(0.0, 6 * DAY)}
    events: list[tuple[str, ReportRecord | float]] = list(erased_at.items())
    for number in range(60):
        learner, at = rng.choice(["ada", "bob", "cem"]), START + rng.uniform(0.0, 6 * DAY)
        if rng.random() < 0.2:
            report = exposure(learner, at, rng.choice([0, 1]), covariates={"minutes": rng.random()})
        else:
            report = value(f"v-{number}", at, rng.uniform(0.0, 9.0), rng.choice(["minutes", "clicks"]), 1.0)
        events.append((learner, report))
    rng.shuffle(events)
    for learner, event in events:
        if isinstance(event, float):
            erase(store, learner, event)
        else:
            take(store, learner, event)
            if event.at > erased_at.get(learner, 0.0):
                take(other, learner, event)
        for each in (store, other):
            if rng.random() < 0.1:
                each.update(PARTITION, lambda tx: settle(tx, EXPERIMENT, START + 4 * DAY))
    for each in (store, other):
        each.update(PARTITION, lambda tx: settle(tx, EXPERIMENT, START + 4 * DAY))
    assert everything(store) == everything(other)
    for learner in ("ada", "bob", "cem"):
        with store.read(PARTITION) as mine, other.read(PARTITION) as theirs:
            assert list_reports(mine, learner) == list_reports(theirs, learner)
            assert phase_of(mine, learner) == phase_of(theirs, learner)
    other.close()


def test_an_erasure_leaves_a_digest_and_a_time_or_nothing(store: Store) -> None:
    assert erase(store, "ada", START + 9, remember=False) is ReportOutcome.IGNORED, "nobody was there"
    take(store, "ada", exposure("ada", START + 3), value("v-1", START + 5, 7.0))
    assert erase(store, "ada", START + 9, remember=False) is ReportOutcome.RECORDED
    with store.read(PARTITION) as reader:
        held = [list(reader.scan(table)) for table in (Table.EXPERIMENT_REPORT, Table.EXPERIMENT_LEARNER)]
        assert held == [[], []]
        assert not list(reader.scan(Table.EXPERIMENT_DUE))
    assert erase(store, "ada", START + 9) is ReportOutcome.RECORDED
    assert erase(store, "ada", START + 9) is ReportOutcome.DUPLICATE
    late = value("v-2", START + 8, 7.0)
    assert take(store, "ada", late, exposure("ada", START + 10)) == [
        ReportOutcome.IGNORED,
        ReportOutcome.RECORDED,
    ]


def test_a_repeat_may_come_from_another_call(store: Store) -> None:
    first = replace(value("v-1", START + 5, 7.0), correlation_id="call-1")
    again, changed = replace(first, correlation_id="call-2"), replace(first, value=8.0)
    assert take(store, "ada", first, again) == [ReportOutcome.RECORDED, ReportOutcome.DUPLICATE]
    assert take(store, "ada", again, changed) == [ReportOutcome.DUPLICATE, ReportOutcome.REUSED]
    with store.read(PARTITION) as reader:
        assert [report.correlation_id for report in list_reports(reader, "ada")] == ["call-1"]
        assert list_reports(reader, "bob") == []


def test_repeats_change_nothing_and_changed_repeats_are_refused(store: Store) -> None:
    reports = [exposure("ada", START + 3), value("v-1", START + 5, 7.0)]
    assert take(store, "ada", *reports, reports[1]) == [
        ReportOutcome.RECORDED,
        ReportOutcome.RECORDED,
        ReportOutcome.DUPLICATE,
    ]
    before = seen(store)
    assert take(store, "ada", *reports) == [ReportOutcome.DUPLICATE] * 2
    assert take(store, "ada", value("v-1", START + 5, 8.0)) == [ReportOutcome.REUSED]
    assert seen(store) == before


def test_what_concerns_nobody_is_not_kept(store: Store) -> None:
    misplaced = exposure("ada", START + 3, arm=1 - arm_of("ada"))
    unknown = exposure("ada", START + 3, phase=0, report_id="other")
    assert take(
        store,
        "ada",
        misplaced,
        replace(unknown, phase=9),
        value("v-1", START - 1, 1.0),
        value("v-2", START + 1, 1.0, source="smiles"),
    ) == [
        ReportOutcome.MISPLACED,
        ReportOutcome.MISPLACED,
        ReportOutcome.IGNORED,
        ReportOutcome.IGNORED,
    ]
    assert sum(map(sum, (phase.exposed for phase in seen(store)))) == 0


def world(rng: random.Random) -> list[tuple[str, ReportRecord]]:
    """Reports of many learners: exposed early, late, twice, in two phases, only assigned, or never."""
    events: list[tuple[str, ReportRecord]] = []
    for number in range(30):
        learner = f"learner-{number}"
        for count in range(rng.randrange(3)):
            phase = rng.randrange(2)
            at = START + rng.uniform(0.0, 3.0) * DAY
            report = exposure(
                learner,
                at,
                phase,
                report_id=f"e{count}",
                assigned_only=rng.random() < 0.3,
                covariates={"minutes": rng.gauss(10.0, 3.0)},
            )
            events.append((learner, report))
        for count in range(rng.randrange(6)):
            at = START + rng.uniform(0.0, 12.0) * DAY
            events.append((learner, value(f"v{count}", at, rng.gauss(5.0, 2.0))))
            events.append((learner, value(f"c{count}", at, float(rng.random() < 0.3), "clicks", 1.0)))
    return events


def naive(events: Sequence[tuple[str, ReportRecord]]) -> dict[str, float]:
    """Mean minutes of everyone exposed, and the clicks over the chances, worked out the slow way."""
    minutes, clicks, chances = [], 0.0, 0.0
    for learner in {learner for learner, _ in events}:
        own = [report for name, report in events if name == learner]
        exposures = [r for r in own if not r.source and not r.assigned_only]
        if not exposures:
            continue
        first = min(exposures, key=lambda r: (r.at, r.phase, r.report_id))
        inside = [r for r in own if r.source and 0.0 <= r.at - first.at < 7 * DAY]
        minutes.append(sum(r.value for r in inside if r.source == "minutes"))
        clicks += sum(r.value for r in inside if r.source == "clicks")
        chances += sum(r.denominator for r in inside if r.source == "clicks")
    return {"n": len(minutes), "minutes": sum(minutes) / len(minutes), "clicks": clicks / chances}


@pytest.mark.parametrize("seed", range(5))
def test_order_batches_and_repeats_leave_no_trace(seed: int) -> None:
    rng = random.Random(seed)
    events = world(rng)
    results = []
    for shuffled in (False, True):
        store = MemoryStore()
        store.update(PARTITION, lambda tx: write_experiment(tx, EXPERIMENT))
        order = list(events)
        if shuffled:
            order += rng.sample(events, len(events) // 2)
            rng.shuffle(order)
        else:
            order.sort(key=lambda event: event[1].at)
        while order:
            size = rng.randint(1, 5)
            batch, order = order[:size], order[size:]
            for learner in dict.fromkeys(name for name, _ in batch):
                take(store, learner, *(report for name, report in batch if name == learner))
        settle_all(store, START + 40 * DAY)
        results.append(seen(store))
        expected = naive(events)
        held = together(store, "minutes")
        ratio = together(store, "clicks")
        assert held.n == expected["n"]
        assert held.mean == pytest.approx(expected["minutes"], abs=1e-12)
        assert ratio.v / ratio.d == pytest.approx(expected["clicks"], abs=1e-12)
        assert together(store, "returned").n == expected["n"]
    assert results[0] == results[1]


def settle_all(store: Store, now: float) -> int:
    total = 0
    while counted := store.update(PARTITION, lambda tx: settle(tx, EXPERIMENT, now)):
        total += counted
    return total


def test_a_metric_that_waits_counts_once_its_window_has_passed(store: Store) -> None:
    take(store, "ada", exposure("ada", START), value("v-1", START + 1.5 * DAY, 3.0))
    take(store, "bob", exposure("bob", START), value("v-1", START + 0.5 * DAY, 3.0))
    with store.read(PARTITION) as reader:
        assert not due(reader, START + 1.9 * DAY)
        assert due(reader, START + 2.1 * DAY)
    assert together(store, "returned").n == 0
    assert settle_all(store, START + 1.9 * DAY) == 0
    assert settle_all(store, START + 2.1 * DAY) == 2
    assert (together(store, "returned").n, together(store, "returned").mean) == (2, 0.5)


def test_the_phase_of_the_first_exposure_is_remembered(store: Store) -> None:
    take(store, "ada", exposure("ada", START + 9, 1))
    with store.read(PARTITION) as reader:
        assert (phase_of(reader, "ada"), phase_of(reader, "bob")) == (1, None)


def test_looks_keep_minima_and_the_first_decision_and_roll_back(store: Store) -> None:
    go_on = Decision(verdict=Verdict.CONTINUE, sentence="Continue.")
    back = Decision(verdict=Verdict.ROLLED_BACK, sentence="Rolled back.", arm="new")
    ship = Decision(verdict=Verdict.SHIP, sentence="Ship.", arm="new")
    key = ("minutes", "new")

    def look(p: float, decision: Decision, now: float) -> ExperimentRecord | None:
        running = Running(effect={key: p}, sample_ratio=p)
        return store.update(PARTITION, lambda tx: merge_look(tx, running, decision, now))

    after = [look(0.5, go_on, START + 1), look(0.2, back, START + 2), look(0.9, ship, START + 3)]
    assert [record.state for record in after if record] == [RUNNING, ROLLED_BACK, ROLLED_BACK]
    with store.read(PARTITION) as reader:
        held = read_look(reader)
    assert held.running().effect == {key: 0.2}
    assert held.standing() == back
    kept = find_experiment(store, "default", EXPERIMENT.experiment_id)
    assert kept is not None
    assert (kept.ended_at, kept.end_reason) == (START + 2, "Rolled back.")
    assert kept.assignment().rolled_back


def test_reports_after_the_end_do_not_count(store: Store) -> None:
    ended = replace(EXPERIMENT, state=ROLLED_BACK, ended_at=START + 10)
    run: Callable[[Transaction], list[ReportOutcome]] = lambda tx: record_reports(  # noqa: E731
        tx,
        ended,
        "ada",
        [exposure("ada", START + 9), value("v-1", START + 10, 1.0), value("v-2", START + 11, 1.0)],
        place_everyone(ended),
    )
    assert store.update(PARTITION, run) == [
        ReportOutcome.RECORDED,
        ReportOutcome.RECORDED,
        ReportOutcome.IGNORED,
    ]


def test_experiments_and_their_history_are_read_back(store: Store) -> None:
    other = replace(EXPERIMENT, experiment_id=experiment_id_of("Other"), name="Other")
    store.update(Partition("default", other.experiment_id), lambda tx: write_experiment(tx, other))
    listed = list(list_experiments(store, "default"))
    assert sorted(record.name for record in listed) == ["Other", "Test"]
    assert EXPERIMENT in listed
    assert list(list_experiments(store, "elsewhere")) == []
    points = [
        HistoryPoint(at=START + i, exposed=(i, i), lifts=((0.1, 0.0, 0.2, -1.0, 1.0),)) for i in range(3)
    ]
    for point in reversed(points):
        store.update(PARTITION, lambda tx, point=point: write_point(tx, point))  # type: ignore[misc]
    with store.read(PARTITION) as reader:
        assert read_history(reader) == points

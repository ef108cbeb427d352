"""What a worker knows of experiments: the same arms as the service's, kept on disk, ramps that move on."""

from pathlib import Path

import pytest

from engine.experiments.assignment import Assigner
from engine.experiments.plan import Kind, Role
from genie.v1 import experiment_pb2 as resources
from server.cli.serve import _Companion
from server.config import Settings
from server.experiments import snapshot as snapshot_module
from server.experiments.messages import experiment_message
from server.experiments.process import reserve_address
from server.experiments.snapshot import Active, Snapshot, still_active
from store.experiments import (
    ROLLED_BACK,
    RUNNING,
    STOPPED,
    ExperimentRecord,
    MetricRecord,
    PhaseRecord,
    SampleRecord,
)

START = 1_800_000_000.123456
DAY = 86_400.0


def experiment(name: str = "x-1", state: str = RUNNING, **fields: object) -> ExperimentRecord:
    known: dict[str, object] = {
        "experiment_id": name,
        "name": name,
        "hypothesis": "",
        "arms": ("old", "new"),
        "algorithms": ("content_based_v1", "random_v1"),
        "metrics": (MetricRecord(name="m", source="activity", role=Role.PRIMARY, kind=Kind.MEAN),),
        "target_improvement": 0.1,
        "duration_days": 10,
        "sample": SampleRecord(planned_sample=100, basis="request"),
        "phases": (PhaseRecord(weights=(0.3, 0.7)), PhaseRecord(weights=(0.6, 0.4))),
        "seed": name,
        "state": state,
        "started_at": START,
    }
    return ExperimentRecord(**(known | fields))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "record",
    [
        experiment(),
        experiment(layer=("home", 0.25, 0.75)),
        experiment(state=ROLLED_BACK),
        experiment(phases=(PhaseRecord(weights=(0.5, 0.5), ramp=((0.0, 0.1), (DAY, 0.5))),)),
    ],
    ids=["phases", "layer", "rolled back", "ramp"],
)
def test_a_worker_assigns_as_the_service_does(record: ExperimentRecord) -> None:
    active = Active.of(experiment_message(record))
    assert active.counts == (record.state == RUNNING)
    assert active.sources == {"activity"}
    for now in (START + 1.0, START + DAY + 1.0):
        ours, theirs = Assigner(record.assignment(), now_s=now), active.assigner(now)
        for phase in range(len(record.phases)):
            for learner in map("learner-{}".format, range(200)):
                assert theirs.index_of(learner, phase=phase) == ours.index_of(learner, phase=phase)


def test_a_snapshot_survives_a_restart_and_damage(tmp_path: Path) -> None:
    snapshot = Snapshot(tmp_path)
    assert snapshot.of("default") is None
    later = experiment("x-0", started_at=START + 5)
    snapshot.update("default", [experiment_message(later), experiment_message(experiment())])
    (tmp_path / "tenant-damaged.experiments").write_bytes(b"\xff\xff\xff")
    again = Snapshot(tmp_path)
    held = again.of("default")
    assert held is not None
    assert [active.experiment_id for active in held] == ["x-1", "x-0"], "the first one started comes first"
    assert again.of("damaged") is None


def test_tenants_without_experiments_leave_no_file(tmp_path: Path) -> None:
    path = tmp_path / "tenant-default.experiments"
    path.write_bytes(b"")
    snapshot = Snapshot(tmp_path)
    assert not path.exists(), "an older Genie wrote it"
    assert snapshot.of("default") is None
    snapshot.update("default", [])
    assert snapshot.of("default") == ()
    assert not list(tmp_path.iterdir())
    snapshot.update("default", [experiment_message(experiment())])
    assert path.exists()
    assert len(snapshot.of("default") or ()) == 1
    snapshot.update("default", [])
    assert snapshot.of("default") == ()
    assert not list(tmp_path.iterdir())


def test_names_that_anybody_makes_up_keep_nobody_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "MOST_STRANGERS", 200)
    monkeypatch.setattr(snapshot_module, "MOST_WITHOUT", 300)
    snapshot = Snapshot(tmp_path)
    schools = [f"school-{number}" for number in range(120)]
    for name in schools:
        snapshot.update(name, [experiment_message(experiment())])
    snapshot.of("quiet")
    snapshot.update("quiet", [])
    asked: set[str] = set()
    for number in range(2_000):
        snapshot.of(f"made-up-{number}")
        if number % 10 == 0:
            some = snapshot.strangers()
            assert len(some) <= snapshot_module.A_TURN
            asked |= set(some)
            for name in some:
                snapshot.update(name, [])
        if number % 100 == 99:
            snapshot.of("quiet")
            turn = snapshot.turn()
            assert turn[: len(schools)] == schools, "all that have experiments"
            assert "quiet" in turn, "and who has been seen again"
            assert len(turn) <= len(schools) + snapshot_module.A_TURN
            snapshot.update("quiet", [])
    assert len(asked) > 1_500
    assert snapshot.of("quiet") == ()
    assert snapshot.of("made-up-5") is None, "forgotten"
    assert len(list(tmp_path.iterdir())) == len(schools)
    for number in range(5_000):
        snapshot.of(f"more-{number}")
    turns = 0
    while snapshot.strangers():
        for name in snapshot.strangers():
            snapshot.update(name, [])
        turns += 1
    assert turns <= 4, "no more wait than are taken"


def test_tenants_without_experiments_are_asked_about_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_module, "A_TURN", 10)
    snapshot = Snapshot(tmp_path)
    for number in range(50):
        snapshot.update(f"school-{number}", [])
    asked = []
    for _ in range(5):
        turn = snapshot.turn()
        asked += turn
        for name in turn:
            snapshot.update(name, [])
    assert sorted(asked) == sorted(f"school-{number}" for number in range(50))


def test_what_decides_policies() -> None:
    def decides(state: str, days: float) -> bool:
        return still_active(experiment_message(experiment(state=state)), START + days * DAY)

    assert decides(RUNNING, 50.0)
    assert decides(ROLLED_BACK, 9.0)
    assert not decides(ROLLED_BACK, 11.0)
    assert not decides(STOPPED, 1.0)
    assert not still_active(resources.Experiment(), START)


def test_experiments_are_off_when_their_address_is_taken() -> None:
    held, host, port = reserve_address("127.0.0.1:0")
    with held:
        held.listen()
        settings = Settings(experiments_address=f"{host}:{port}")
        with _Companion(None, {}, settings) as companion:
            assert companion.reserve() == {"experiments": "off"}
            assert not companion.wanted
    with _Companion(None, {}, Settings(experiments_address="127.0.0.1:0")) as companion:
        told = companion.reserve()["experiments_address"]
        assert companion.wanted
        command = companion.command(1, 7)
        assert f"--port={told.rpartition(':')[2]}" in command
        assert "--assemble=server.experiments.assembly:assemble" in command
        assert "--max-streams=1024" in command

"""An experiment in a store, for the tests of what is around it."""

from pathlib import Path

from engine.experiments.plan import Kind, Role
from store.api import Partition
from store.experiments import (
    RUNNING,
    ExperimentRecord,
    MetricRecord,
    PhaseRecord,
    SampleRecord,
    experiment_id_of,
    write_experiment,
)
from store.lmdb_store import LmdbStore
from store.stores import EXPERIMENTS

START = 1_800_000_000.0


def write_an_experiment(directory: Path, tenant: str = "north", name: str = "Test") -> str:
    """A running experiment in the service's own store below a data directory; its id."""
    experiment_id = experiment_id_of(name)
    minutes = MetricRecord(name="minutes", source="minutes", role=Role.PRIMARY, kind=Kind.MEAN, window_s=1.0)
    record = ExperimentRecord(
        experiment_id=experiment_id,
        name=name,
        hypothesis="",
        arms=("old", "new"),
        algorithms=("old", "new"),
        metrics=(minutes,),
        target_improvement=0.15,
        duration_days=30,
        sample=SampleRecord(planned_sample=1000, basis="request"),
        phases=(PhaseRecord(weights=(0.5, 0.5)),),
        seed="seed",
        state=RUNNING,
        created_at=START,
        started_at=START,
    )
    store = LmdbStore(directory / EXPERIMENTS)
    store.update(Partition(tenant, experiment_id), lambda tx: write_experiment(tx, record))
    store.close()
    return experiment_id

"""What the store knows of a learner who meets an experiment. Works nothing out: see engine.experiments.covariates."""

from collections.abc import Mapping

from engine.experiments.covariates import covariates
from server.local_days import local_day
from server.services.answers import calendar_of
from server.tenants import Tenants
from store.api import Partition, Store
from store.learners import read_profile, read_state


def before(store: Store, tenants: Tenants, partition: Partition, now: float) -> Mapping[str, float]:
    """Covariates by source of a metric, at `now` (epoch seconds). Raises StoreError."""
    memory_sets = tenants.bundle(partition.tenant).learner_model.memory_sets
    with store.read(partition) as reader:
        profile, state = read_profile(reader), read_state(reader, memory_sets)
    return covariates(state, local_day(now, calendar_of(profile)))

"""What `genie experiments` serves: opens its store and puts the service together. Knows nothing of recommendations."""

from collections.abc import Mapping

from google.protobuf.descriptor import ServiceDescriptor

from engine.policy import Policy
from genie.v1 import experiment_service_pb2
from server.admission import Drain
from server.app import Assembly
from server.assembly import policies_of
from server.config import Settings
from server.experiments.analyst import Analyst
from server.experiments.service import ExperimentService
from server.measuring import measure_store, meter_of
from server.metrics import Meter
from store.api import Store
from store.lmdb_store import LmdbStore
from store.memory_store import MemoryStore
from store.stores import EXPERIMENTS

RESERVED_STREAMS = 24
"""Streams that watchers leave to reports."""

SERVICE: ServiceDescriptor = experiment_service_pb2.DESCRIPTOR.services_by_name["ExperimentService"]


def assemble(settings: Settings, drain: Drain) -> Assembly:
    """The experiment service over its own store. Raises StoreError, ConfigurationError for policies."""
    policies = policies_of(settings)
    store: Store
    store = MemoryStore() if settings.store == "memory" else LmdbStore(settings.data_directory / EXPERIMENTS)
    return put_together(settings, store, policies, drain, meter_of(settings))


def put_together(
    settings: Settings,
    store: Store,
    policies: Mapping[str, Policy],
    drain: Drain,
    meter: Meter | None = None,
) -> Assembly:
    """The service over a store that is open already, which `close` closes; without a meter, one in memory."""
    meter = Meter() if meter is None else meter
    measure_store(meter, store, EXPERIMENTS)
    analyst = Analyst(store)
    service = ExperimentService(
        store=store,
        analyst=analyst,
        policies=policies,
        drain=drain,
        most_watchers=max(settings.max_streams - RESERVED_STREAMS, 1),
    )
    analyst.start()

    def close() -> None:
        analyst.close()
        store.close()

    return Assembly(services=[(SERVICE, service)], probe=store.check_writable, close=close, meter=meter)

"""Has stores, models and caches looked at by a meter, so that they need not know of it. Counts nothing itself."""

import math
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from engine.serving import Models
from server.config import Settings
from server.logs import worker_number
from server.metric_board import Boards
from server.metrics import DIRECTORY, Gauge, Meter
from server.models import ModelDirectory, ModelError
from server.pools import PoolCache
from server.tenants import Bundle, Tenants
from store.api import Store, StoreError

_UNTRAINED = Models.priors().version


def meter_of(settings: Settings) -> Meter:
    """The meter of a process with these settings: on file, beside what it serves, unless that is in memory."""
    if settings.store == "memory":
        return Meter()
    return Meter(settings.data_directory / DIRECTORY, worker=str(worker_number() or 1))


def boards_of(settings: Settings) -> Boards:
    """What all processes with these settings have counted."""
    return Boards(settings.data_directory / DIRECTORY)


def measure_store(meter: Meter, store: Store, name: str) -> None:
    """Count the commits of a store and look at its size."""
    seconds = meter.histogram("genie_store_commit_seconds", name)
    operations = meter.histogram("genie_store_group_operations", name)
    failures = meter.counter("genie_store_failures_total", name)
    used = meter.gauge("genie_store_used_bytes", name)
    limit = meter.gauge("genie_store_limit_bytes", name)

    def committed(group: int, took_seconds: float, failed: bool) -> None:
        if failed:
            failures.add()
        else:
            seconds.observe(took_seconds)
            operations.observe(group)

    def look() -> None:
        try:
            statistics = store.statistics()
        except StoreError:
            used.set(math.nan)
            return
        used.set(statistics.used_bytes)
        limit.set(statistics.max_bytes)

    store.watch(committed)
    meter.sample(look)


def measure_tenants(meter: Meter, tenants: Tenants, data_directory: Path) -> None:
    """Tell which model each tenant is served from."""
    meter.sample(
        _Models(meter, tenants, lambda tenant, version: _trained_at(data_directory, tenant, version))
    )
    meter.sample_counter(lambda: tenants.hits, "genie_cache_requests_total", "catalogue", "hit")
    meter.sample_counter(lambda: tenants.misses, "genie_cache_requests_total", "catalogue", "miss")
    meter.sample_counter(lambda: tenants.likes()[0], "genie_cache_requests_total", "neighbours", "hit")
    meter.sample_counter(lambda: tenants.likes()[1], "genie_cache_requests_total", "neighbours", "miss")


def measure_pools(meter: Meter, pools: PoolCache) -> None:
    """Count how often a learner's pool was there."""
    meter.sample_counter(lambda: pools.hits, "genie_cache_requests_total", "pools", "hit")
    meter.sample_counter(lambda: pools.misses, "genie_cache_requests_total", "pools", "miss")


def degraded_counter(meter: Meter) -> Callable[[str], None]:
    """What counts recommendations that could not be all they should, by reason."""
    return lambda reason: meter.counter("genie_recommendations_degraded_total", reason).add()


class _Models:
    """The gauges of models: of tenants that have a catalogue or a model of their own, while they are held ready."""

    def __init__(self, meter: Meter, tenants: Tenants, trained_at: Callable[[str, str], float]) -> None:
        self._meter = meter
        self._tenants = tenants
        self._trained_at = trained_at
        self._told: dict[str, tuple[str, Gauge]] = {}

    def __call__(self) -> None:
        told = {tenant: bundle for tenant, bundle in self._tenants.ready().items() if _concerns(bundle)}
        for tenant in list(self._told):
            if tenant not in told:
                self._withdraw(tenant)
        for tenant, bundle in told.items():
            self._tell(tenant, bundle)

    def _tell(self, tenant: str, bundle: Bundle) -> None:
        version = bundle.model_version
        before = self._told.get(tenant)
        if before is None or before[0] != version:
            if before is not None:
                before[1].set(math.nan)
            info = self._meter.gauge("genie_model_info", tenant, version)
            info.set(1.0)
            self._told[tenant] = version, info
            trained_at = self._trained_at(tenant, version)
            self._meter.gauge("genie_model_trained_time_seconds", tenant).set(trained_at)
        self._meter.gauge("genie_model_failed", tenant).set(float(bundle.model_failed))

    def _withdraw(self, tenant: str) -> None:
        told = self._told.pop(tenant, None)
        if told is not None:
            told[1].set(math.nan)
            self._meter.gauge("genie_model_trained_time_seconds", tenant).set(math.nan)
            self._meter.gauge("genie_model_failed", tenant).set(math.nan)


def _concerns(bundle: Bundle) -> bool:
    """Whether there is more to a tenant than a name that somebody has called with."""
    return bundle.catalog.version > 0 or bundle.model_version != _UNTRAINED or bundle.model_failed


def _trained_at(data_directory: Path, tenant: str, version: str) -> float:
    """When a version was trained; NaN for priors."""
    try:
        manifest = ModelDirectory(data_directory, tenant).manifest(version)
        return datetime.fromisoformat(manifest.created_at).timestamp()
    except (ModelError, ValueError):
        return math.nan

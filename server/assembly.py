"""What `genie serve` serves: opens the stores and puts the services together. Decides nothing about processes."""

import dataclasses
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from google.protobuf.descriptor import ServiceDescriptor

from engine.policy import InvalidPolicy, Policy, load_policies
from engine.warmup import warm_up
from genie.v1 import (
    analytics_service_pb2,
    catalog_service_pb2,
    learner_service_pb2,
    practice_service_pb2,
    recommendation_service_pb2,
)
from server import answer_facts
from server.admission import Drain
from server.app import Assembly
from server.config import ConfigurationError, Settings
from server.experiments.before import before
from server.experiments.junction import Junction
from server.experiments.spool import SPOOL
from server.exposition import Endpoint, Exposition
from server.measuring import degraded_counter, measure_pools, measure_store, measure_tenants, meter_of
from server.metrics import Meter
from server.model_parts import model_source
from server.pools import PoolCache
from server.services import answer_bytes, reply_bytes
from server.services.analytics import AnalyticsService
from server.services.catalog import CatalogService
from server.services.learner import LearnerService
from server.services.practice import PracticeService
from server.services.recommendation import RecommendationService
from server.system_metrics import SystemMetricsReader
from server.tenants import Tenants
from store import slate_values
from store.stores import STATE, Stores, memory_stores, open_stores

SERVICES: tuple[ServiceDescriptor, ...] = (
    catalog_service_pb2.DESCRIPTOR.services_by_name["CatalogService"],
    learner_service_pb2.DESCRIPTOR.services_by_name["LearnerService"],
    practice_service_pb2.DESCRIPTOR.services_by_name["PracticeService"],
    recommendation_service_pb2.DESCRIPTOR.services_by_name["RecommendationService"],
    analytics_service_pb2.DESCRIPTOR.services_by_name["AnalyticsService"],
)
"""What a worker serves beside health and reflection."""


def open_settings_stores(settings: Settings) -> Stores:
    """The stores that the settings name. Raises StoreError."""
    if settings.store == "memory":
        return memory_stores()
    return open_stores(settings.data_directory)


def policies_of(settings: Settings) -> Mapping[str, Policy]:
    """The built-in policies and those of the policies file. Raises ConfigurationError."""
    given: dict[str, Mapping[str, object]] = {}
    if settings.policies_file:
        path = Path(settings.policies_file)
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError([f"policies_file is {path}, which cannot be read: {error}"]) from None
    try:
        policies = load_policies(given)
    except InvalidPolicy as error:
        raise ConfigurationError([f"policies_file {settings.policies_file}: {error}"]) from None
    if settings.default_policy not in policies:
        known = ", ".join(sorted(policies))
        raise ConfigurationError(
            [f"default_policy is {settings.default_policy!r}; known policies are {known}"]
        )
    return policies


def assemble(settings: Settings, drain: Drain) -> Assembly:
    """Everything a worker serves. Raises StoreError when a store cannot be opened, ConfigurationError for policies."""
    policies = policies_of(settings)
    # Nobody should wait for a compiler in the first call.
    warm_up()
    answer_facts.warm_up()
    answer_bytes.warm_up()
    reply_bytes.warm_up()
    slate_values.warm_up()
    stores = open_settings_stores(settings)
    experiments = experiments_of(settings, stores, policies)
    meter = meter_of(settings)
    assembly = put_together(settings, stores, policies, experiments, meter)
    if settings.store == "memory" and settings.metrics_address:
        return _with_endpoint(assembly, settings, stores)
    return assembly


def _with_endpoint(assembly: Assembly, settings: Settings, stores: Stores) -> Assembly:
    """The assembly, answering Prometheus from its own process, since nobody else sees a store in memory."""
    exposition = Exposition(assembly.meter.read, stores, settings.data_directory / SPOOL)
    host, _, port = settings.metrics_address.rpartition(":")
    try:
        endpoint = Endpoint(exposition, host.strip("[]"), int(port))
    except OSError as error:
        raise ConfigurationError([f"metrics_address: cannot listen on {host}:{port}: {error}"]) from None
    endpoint.start()

    def close() -> None:
        endpoint.close()
        assembly.close()

    return dataclasses.replace(assembly, close=close)


def experiments_of(settings: Settings, stores: Stores, policies: Mapping[str, Policy]) -> Junction | None:
    """The junction with the experiment service, connected; None when experiments are off."""
    if settings.experiments == "off":
        return None
    junction = Junction(settings.data_directory, stores.serving, policies)
    junction.connect(settings.experiments_address)
    return junction


def put_together(
    settings: Settings,
    stores: Stores,
    policies: Mapping[str, Policy],
    experiments: Junction | None = None,
    meter: Meter | None = None,
) -> Assembly:
    """The services over stores that are open already, which `close` closes; without a meter, one in memory."""
    meter = Meter() if meter is None else meter
    current_model, load_models = model_source(settings.data_directory, stores.state)
    tenants = Tenants(
        stores.state,
        current_model=current_model,
        load_models=load_models,
        most_waiting=max(1, settings.threads // 2),
    )
    tenants.prepare()
    state, serving = stores.state, stores.serving
    system = SystemMetricsReader(
        state=state, serving=serving, meter=meter, spool=settings.data_directory / SPOOL
    )
    if experiments is not None:
        experiments.look_back(partial(before, state, tenants))
    measure_store(meter, state, STATE)
    measure_tenants(meter, tenants, settings.data_directory)
    pools = PoolCache(settings.pool_cache_megabytes)
    measure_pools(meter, pools)
    default = policies[settings.default_policy]
    instances = (
        CatalogService(store=state, serving=serving, tenants=tenants),
        LearnerService(
            store=state, serving=serving, tenants=tenants, policy=default, experiments=experiments
        ),
        PracticeService(store=state, tenants=tenants, experiments=experiments),
        RecommendationService(
            store=state,
            serving=serving,
            tenants=tenants,
            policies=policies,
            default_policy=settings.default_policy,
            budget_seconds=settings.recommend_budget_ms / 1e3,
            keep_seconds=settings.recommendation_hours * 3600.0,
            experiments=experiments,
            degraded=degraded_counter(meter),
            pools=pools,
        ),
        AnalyticsService(store=state, tenants=tenants, system=system),
    )

    def close() -> None:
        if experiments is not None:
            experiments.close()
        tenants.close()
        stores.close()

    return Assembly(
        services=list(zip(SERVICES, instances, strict=True)),
        probe=state.check_writable,
        brief=frozenset({"/genie.v1.RecommendationService/Recommend"}),
        close=close,
        meter=meter,
    )

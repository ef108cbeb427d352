"""What `genie serve` serves: opens the stores and puts the services together. Decides nothing about processes."""

import tomllib
from collections.abc import Mapping
from pathlib import Path

from engine.policy import InvalidPolicy, Policy, load_policies
from genie.v1 import (
    catalog_service_pb2,
    learner_service_pb2,
    practice_service_pb2,
    recommendation_service_pb2,
)
from server.admission import Drain
from server.app import Assembly
from server.config import ConfigurationError, Settings
from server.model_parts import model_source
from server.services.catalog import CatalogService
from server.services.learner import LearnerService
from server.services.practice import PracticeService
from server.services.recommendation import RecommendationService
from server.tenants import Tenants
from store.stores import Stores, memory_stores, open_stores


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
    stores = open_settings_stores(settings)
    current_model, load_models = model_source(settings.data_directory, stores.state)
    tenants = Tenants(stores.state, current_model=current_model, load_models=load_models)
    recommendation = RecommendationService(
        store=stores.state,
        serving=stores.serving,
        tenants=tenants,
        policies=policies,
        default_policy=settings.default_policy,
        budget_seconds=settings.recommend_budget_ms / 1e3,
        keep_seconds=settings.recommendation_hours * 3600.0,
    )
    pairs = (
        (
            catalog_service_pb2,
            "CatalogService",
            CatalogService(store=stores.state, serving=stores.serving, tenants=tenants),
        ),
        (
            learner_service_pb2,
            "LearnerService",
            LearnerService(store=stores.state, serving=stores.serving, tenants=tenants),
        ),
        (practice_service_pb2, "PracticeService", PracticeService(store=stores.state, tenants=tenants)),
        (recommendation_service_pb2, "RecommendationService", recommendation),
    )

    def close() -> None:
        tenants.close()
        stores.close()

    return Assembly(
        services=[(module.DESCRIPTOR.services_by_name[name], instance) for module, name, instance in pairs],
        probe=stores.state.check_writable,
        close=close,
    )

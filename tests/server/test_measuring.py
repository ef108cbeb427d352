"""Gauges of models: of tenants that are more than a name, as long as they are held."""

import math
from pathlib import Path

from genie.v1 import catalog_service_pb2, resources_pb2
from server.measuring import measure_tenants
from server.metrics import Meter
from server.services.catalog import CatalogService
from server.tenants import MOST_TENANTS, Tenants
from store.memory_store import MemoryStore
from tests.server.service_calls import a_call


def told(meter: Meter) -> set[tuple[str, str]]:
    """(metric, tenant) of every gauge of models that is published."""
    held = meter.read().live["1"]
    return {
        (key[0], key[1])
        for key, value in held.items()
        if key[0].startswith("genie_model") and not math.isnan(value)
    }


def both(tenant: str) -> set[tuple[str, str]]:
    return {("genie_model_info", tenant), ("genie_model_failed", tenant)}


def add_concept(store: MemoryStore, tenants: Tenants, tenant: str) -> None:
    catalog = CatalogService(store=store, serving=MemoryStore(), tenants=tenants)
    concept = resources_pb2.Concept(concept_id="count")
    catalog.upsert_concepts(
        catalog_service_pb2.UpsertConceptsRequest(concepts=[concept]), a_call(tenant=tenant)
    )


def test_models_are_told_of_tenants_that_have_something_and_are_held(tmp_path: Path) -> None:
    store, meter = MemoryStore(), Meter()
    tenants = Tenants(store)
    measure_tenants(meter, tenants, tmp_path)
    tenants.bundle("made-up")
    assert told(meter) == set()
    for tenant in ("school", "made-up"):
        add_concept(store, tenants, tenant)
        tenants.bundle(tenant, fresh=True)
    assert told(meter) == both("school") | both("made-up")
    for number in range(MOST_TENANTS - 1):
        tenants.bundle(f"name-{number}")
    assert told(meter) == both("made-up"), "the other has made room"
    tenants.bundle("school")
    assert told(meter) == both("school")
    tenants.close()

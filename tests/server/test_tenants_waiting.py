"""How long calls wait for a changed catalogue, and what they are served from meanwhile."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from itertools import islice
from typing import Any

import pytest

from engine.catalog import Catalog, build_catalog
from server import tenants as module
from server.admission import WouldWait
from server.errors import ServerOverloaded
from server.patience import MOST_ASIDE
from server.tenants import Tenants
from store.api import Store
from store.memory_store import MemoryStore
from tests.server.small_catalog import fill
from tests.waiting import PATIENCE_SECONDS


@pytest.fixture
def store() -> Store:
    return MemoryStore()


def test_a_call_that_cannot_wait_is_served_from_the_catalogue_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants = Tenants(store, patience_seconds=0.05)
    fill(store, "q-1")
    before = tenants.bundle("default")
    gate = Gate(monkeypatch)
    fill(store, "q-2")
    assert tenants.bundle("default") is before
    waiting = [threading.Thread(target=tenants.bundle, args=("default",), kwargs={"fresh": True})]
    waiting[0].start()
    assert tenants.bundle("default") is before
    gate.opened.set()
    waiting[0].join(PATIENCE_SECONDS)
    assert "q-2" in tenants.bundle("default").catalog.question_row
    tenants.close()


def _noted(waits: list[float | None], timeout: float | None) -> None:
    waits.append(timeout)
    raise TimeoutError


class Gate:
    """Catalogues are built when it opens."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.opened = threading.Event()
        self._build = build_catalog
        monkeypatch.setattr(module, "build_catalog", self._when_open)

    def _when_open(self, *args: Any, **more: Any) -> Catalog:
        assert self.opened.wait(PATIENCE_SECONDS)
        return self._build(*args, **more)


def test_past_its_patience_a_tenant_is_served_at_once_from_the_catalogue_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants = Tenants(store, patience_seconds=0.05)
    fill(store, "q-1")
    before = tenants.bundle("default")
    gate = Gate(monkeypatch)
    fill(store, "q-2")
    with pytest.raises(WouldWait):
        tenants.bundle("default", may_wait=False)
    assert tenants.bundle("default") is before, "waits while there is patience"
    assert tenants.bundle("default", may_wait=False) is before
    with monkeypatch.context() as patch:
        waits: list[float | None] = []
        patch.setattr(Future, "result", lambda self, timeout: _noted(waits, timeout))
        assert tenants.bundle("default") is before
    assert waits == [0.0]
    gate.opened.set()
    assert "q-2" in tenants.bundle("default", fresh=True).catalog.question_row
    tenants.close()


def test_only_some_calls_are_put_aside_for_a_changed_catalogue(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants = Tenants(store, patience_seconds=PATIENCE_SECONDS)
    fill(store, "q-1")
    before = tenants.bundle("default")
    gate = Gate(monkeypatch)
    fill(store, "q-2")
    for _ in range(MOST_ASIDE):
        with pytest.raises(WouldWait):
            tenants.bundle("default", may_wait=False)
    assert tenants.bundle("default", may_wait=False) is before
    gate.opened.set()
    assert "q-2" in tenants.bundle("default").catalog.question_row
    tenants.close()


def test_who_needs_the_newest_waits_until_its_own_deadline(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants = Tenants(store, patience_seconds=0.01, most_waiting=1)
    fill(store, "q-1")
    tenants.bundle("default")
    gate = Gate(monkeypatch)
    fill(store, "q-2")
    for _ in range(2):
        with pytest.raises(TimeoutError):
            tenants.bundle("default", fresh=True, until=time.monotonic() + 0.05)
    gate.opened.set()
    assert "q-2" in tenants.bundle("default", fresh=True).catalog.question_row
    tenants.close()


def test_no_more_than_a_few_threads_are_held_by_a_long_build(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tenants = Tenants(store, patience_seconds=0.01, most_waiting=2)
    gate = Gate(monkeypatch)
    fill(store, "q-1")
    with ThreadPoolExecutor(8) as crew:
        asked = [crew.submit(tenants.bundle, "default") for _ in range(8)]
        refused = [one.exception() for one in islice(as_completed(asked), 6)]
        gate.opened.set()
        served = [one.result() for one in asked if one.exception() is None]
    assert [type(error) for error in refused] == [ServerOverloaded] * 6
    assert [bundle.catalog.question_count for bundle in served] == [1, 1]
    tenants.close()

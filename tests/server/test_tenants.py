"""What a worker holds of each tenant: fresh after every change, built once, with whatever model can be had."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from engine.catalog import build_catalog
from engine.content import WIDTH, embed_questions
from engine.learner import LearnerState
from engine.likes import likes_of
from engine.serving import Models
from engine.types import F4, Concept, Question
from server import tenants as module
from server.admission import WouldWait
from server.tenants import Tenants
from store.api import Store, StoreUnavailable
from store.memory_store import MemoryStore
from tests.server.small_catalog import fill
from tests.waiting import PATIENCE_SECONDS


class Shelf:
    """Trained models, as training would point at them."""

    def __init__(self) -> None:
        self.current: str | None = None
        self.broken: set[str] = set()
        self.pointer_broken = False
        self.loads: list[str] = []
        self.spaces: dict[str, F4] = {}

    def name(self, tenant: str) -> str | None:
        if self.pointer_broken:
            raise OSError("cannot be read")
        return self.current

    def load(self, tenant: str, version: str) -> Models:
        self.loads.append(version)
        if version in self.broken:
            raise ValueError("not a model")
        return replace(Models.priors(), version=version, content=self.spaces.get(version))


@pytest.fixture
def store() -> Store:
    return MemoryStore()


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """Looked at on every call."""
    monkeypatch.setattr(module, "MODEL_LOOK_SECONDS", 0.0)
    return Shelf()


@pytest.fixture
def tenants(store: Store, shelf: Shelf) -> Iterator[Tenants]:
    made = Tenants(store, current_model=shelf.name, load_models=shelf.load, patience_seconds=30.0)
    yield made
    made.close()


def test_a_tenant_nobody_has_heard_of_has_an_empty_catalogue(tenants: Tenants, store: Store) -> None:
    bundle = tenants.bundle("nobody")
    assert (bundle.catalog.question_count, bundle.model_version) == (0, "priors")
    assert store.tenants() == []


def test_what_does_not_change_is_built_once(tenants: Tenants, store: Store) -> None:
    fill(store, "q-1")
    first = tenants.bundle("default")
    assert tenants.bundle("default") is first
    assert tenants.bundle("other") is not first


def test_a_changed_catalogue_is_seen_by_the_next_call(tenants: Tenants, store: Store) -> None:
    for number in range(5):
        fill(store, f"q-{number}")
        assert f"q-{number}" in tenants.bundle("default").catalog.question_row


def test_lookups_of_likes_outlive_their_bundle(tenants: Tenants, store: Store) -> None:
    fill(store, "q-1")
    recents = LearnerState.empty().recent[np.newaxis]
    for _ in range(3):
        likes_of(recents, tenants.bundle("default").serving, 0)
    assert tenants.likes() == (2, 1)
    fill(store, "q-2")
    likes_of(recents, tenants.bundle("default").serving, 0)
    assert tenants.likes() == (2, 2)


def test_a_new_model_is_taken_up_without_building_the_catalogue_again(
    tenants: Tenants, store: Store, shelf: Shelf
) -> None:
    fill(store, "q-1")
    before = tenants.bundle("default")
    shelf.current = "v1"
    after = tenants.bundle("default")
    assert (after.model_version, after.model_failed) == ("v1", False)
    assert after.catalog is before.catalog
    fill(store, "q-2")
    assert tenants.bundle("default").model_version == "v1"
    assert shelf.loads == ["v1"]
    shelf.current = None
    assert tenants.bundle("default").model_version == "priors"


def test_who_must_not_wait_leaves_what_changed_to_the_next_who_may(
    tenants: Tenants, store: Store, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "q-1")
    with pytest.raises(WouldWait):
        tenants.bundle("default", may_wait=False)
    tenants.bundle("default")
    assert tenants.bundle("default", may_wait=False).model_version == "priors"
    shelf.current = "v1"
    with pytest.raises(WouldWait):
        tenants.bundle("default", may_wait=False)
    # Names of models are looked at now and then only: this must be such a time.
    monkeypatch.setattr(module, "MODEL_LOOK_SECONDS", 3_600.0)
    assert tenants.bundle("default").model_version == "v1"
    fill(store, "q-2")
    with pytest.raises(WouldWait):
        tenants.bundle("default", may_wait=False)
    assert (
        tenants.bundle("default").catalog.version == tenants.bundle("default", may_wait=False).catalog.version
    )


def test_of_two_content_spaces_the_one_that_is_served_is_there(
    store: Store, tenants: Tenants, shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(store, "q-1", "q-2")
    own = tenants.bundle("default").serving.questions.content
    assert (
        own == embed_questions([Concept("count", 0)], [Question(f"q-{n}", n - 1, (0,)) for n in (1, 2)], 2)
    ).all()
    trained = np.eye(2, WIDTH, dtype=np.float32)
    shelf.spaces["spacious"] = trained
    for version, served in (("spacious", trained), ("plain", own), ("spacious", trained)):
        shelf.current = version
        bundle = tenants.bundle("default")
        assert bundle.model_version == version
        assert (bundle.serving.questions.content == served).all()
        assert bundle.catalog.content.any() == (version == "plain"), "worked out only when it is served"
    fill(store, "q-3")
    content = tenants.bundle("default").serving.questions.content
    assert content.shape == (3, WIDTH)
    assert not content[2].any(), "newer than the training"


def test_a_model_that_cannot_be_used_leaves_the_one_before(
    tenants: Tenants, store: Store, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    fill(store, "q-1")
    shelf.current = "v1"
    tenants.bundle("default")
    shelf.current, shelf.broken = "v2", {"v2"}
    bundle = tenants.bundle("default")
    assert (bundle.model_version, bundle.model_failed) == ("v1", True)
    assert "v2 cannot be used" in caplog.text
    tenants.bundle("default")
    assert shelf.loads == ["v1", "v2"]
    shelf.current = "v3"
    bundle = tenants.bundle("default")
    assert (bundle.model_version, bundle.model_failed) == ("v3", False)


def test_a_model_that_cannot_be_used_at_first_leaves_priors(tenants: Tenants, shelf: Shelf) -> None:
    shelf.current, shelf.broken = "v1", {"v1"}
    bundle = tenants.bundle("default")
    assert (bundle.model_version, bundle.model_failed) == ("priors", True)


def test_a_pointer_that_cannot_be_read_changes_nothing(tenants: Tenants, store: Store, shelf: Shelf) -> None:
    fill(store, "q-1")
    shelf.current = "v1"
    first = tenants.bundle("default")
    shelf.pointer_broken = True
    assert tenants.bundle("default") is first
    fill(store, "q-2")
    assert tenants.bundle("default").model_version == "v1"


def test_the_tenant_asked_for_longest_ago_makes_room(
    tenants: Tenants, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_TENANTS", 2)
    a, b = tenants.bundle("a"), tenants.bundle("b")
    assert tenants.bundle("a") is a
    tenants.bundle("c")
    assert tenants.bundle("a") is a
    assert tenants.bundle("b") is not b


def test_many_threads_see_what_was_committed_before(tenants: Tenants, store: Store) -> None:
    fill(store, "q-0")
    failures: list[str] = []
    committed = [0]

    def look() -> None:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            known = committed[0]
            if f"q-{known}" not in tenants.bundle("default").catalog.question_row:
                failures.append(f"q-{known}")

    crew = [threading.Thread(target=look) for _ in range(4)]
    for thread in crew:
        thread.start()
    for number in range(1, 20):
        fill(store, f"q-{number}")
        committed[0] = number
        time.sleep(0.02)
    for thread in crew:
        thread.join()
    assert failures == []


def test_threads_that_ask_first_together_build_once(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(store, "q-1")
    built: list[int] = []
    build = build_catalog

    def counted(*args: object, **more: object) -> object:
        built.append(1)
        time.sleep(0.05)
        return build(*args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "build_catalog", counted)
    tenants = Tenants(store)
    found: list[object] = []
    crew = [threading.Thread(target=lambda: found.append(tenants.bundle("default"))) for _ in range(6)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(PATIENCE_SECONDS)
    assert len(found) == 6
    assert sum(built) == 1
    tenants.close()


def test_a_store_that_is_gone_is_no_fault_of_the_server(store: Store, tenants: Tenants) -> None:
    store.close()
    with pytest.raises(StoreUnavailable):
        tenants.bundle("default")


def test_every_tenant_is_ready_before_its_first_call(store: Store, shelf: Shelf, tenants: Tenants) -> None:
    fill(store, "q-1")
    fill(store, "q-2", tenant="other")
    shelf.current = "v1"
    tenants.prepare()
    built = len(shelf.loads)
    assert built == 2
    assert tenants.bundle("other").catalog.question_row.keys() == {"q-2"}
    assert len(shelf.loads) == built


def test_a_tenant_that_cannot_be_made_ready_does_not_keep_the_others_from_it(
    store: Store, tenants: Tenants, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    fill(store, "q-1", tenant="a")
    fill(store, "q-2", tenant="b")
    whole = tenants.bundle

    def bundle(tenant: str, *, fresh: bool = False) -> module.Bundle:
        if tenant == "a":
            raise StoreUnavailable("a is not to be had")
        return whole(tenant, fresh=fresh)

    monkeypatch.setattr(tenants, "bundle", bundle)
    tenants.prepare()
    assert "tenant a cannot be made ready" in caplog.text
    assert whole("b").catalog.question_row.keys() == {"q-2"}

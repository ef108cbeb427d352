"""What a worker serves each tenant from: catalogue and models, made ready once, kept up to date. Answers nobody."""

import itertools
import logging
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from engine.catalog import Catalog, build_catalog
from engine.content import WIDTH
from engine.labels import Labels
from engine.learner import LearnerModel, QuestionConcepts
from engine.serving import Models, Serving, prepare
from engine.types import I4, U1
from server import errors
from server.admission import WouldWait
from server.answer_facts import FactSource
from server.call import Call
from server.logs import log
from server.patience import PATIENCE_SECONDS, Patience, Wait
from store import catalogs
from store.api import Partition, Store

MODEL_LOOK_SECONDS = 1.0
"""How often to look whether training has pointed at another model."""
MOST_TENANTS = 64
"""Tenants kept ready; the one that was asked for longest ago makes room."""

_LOG = logging.getLogger("genie.tenants")


class Titles(NamedTuple):
    """Names of concepts by row as bytes, one after another."""

    data: U1
    starts: I4
    """(nc + 1,) where each begins."""
    longest: int

    @classmethod
    def of(cls, titles: Sequence[str]) -> "Titles":
        """Lay names end to end."""
        texts = [title.encode() for title in titles]
        starts = np.zeros(len(texts) + 1, np.int32)
        sizes = np.fromiter(map(len, texts), np.int32, len(texts))
        np.cumsum(sizes, out=starts[1:])
        # The byte at the end keeps the array from being empty, which would be another kind of array.
        return cls(np.frombuffer(b"".join(texts) + b"\x00", np.uint8), starts, int(sizes.max(initial=0)))


@dataclass(frozen=True, slots=True)
class Bundle:
    """One catalogue version with one model version."""

    serving: Serving
    facts: FactSource
    model_failed: bool = False
    """A trained model was there but could not be used; the one before, or priors, stand in."""
    names: Labels = field(init=False)
    """Ids of questions, with those of their concepts: a memo of `services.question_names`."""
    titles: "Titles" = field(init=False)
    serial: int = field(default_factory=itertools.count().__next__)
    """A number that no other bundle of this process has."""

    def __post_init__(self) -> None:
        """Lay out what replies are written with."""
        object.__setattr__(self, "names", Labels(len(self.catalog.question_ids)))
        object.__setattr__(self, "titles", Titles.of(self.catalog.titles))

    @property
    def catalog(self) -> Catalog:
        """The catalogue."""
        return self.serving.catalog

    def concept_id(self, row: int) -> str:
        """Id of a concept; empty for one that was deleted, or is newer than this bundle."""
        ids = self.serving.catalog.concept_ids
        return ids[row] if row < len(ids) else ""

    @property
    def learner_model(self) -> LearnerModel:
        """The learner model, with the catalogue's medians."""
        return self.serving.learner

    @property
    def question_concepts(self) -> QuestionConcepts:
        """Concepts of each question, as the learner model reads them."""
        return self.serving.question_concepts

    @property
    def model_version(self) -> str:
        """The models' version; "priors" when nothing was trained."""
        return self.serving.models.version


@dataclass(slots=True)
class _Entry:
    bundle: Bundle
    catalog_version: int
    model_version: str | None
    looked_at: float
    """When the model's pointer was last read, on the monotonic clock."""
    trained: bool
    """Whether the model has a content space of its own, and the catalogue has none."""
    patience: Patience
    """Of calls, with the builds that follow."""


class _Build(NamedTuple):
    """A bundle that is being made."""

    entry: "Future[_Entry]"
    wait: Wait
    """Of calls that can be served from the one before."""


class Tenants:
    """Bundles by tenant; thread-safe.

    A bundle is rebuilt when the store's catalogue version or the current model has changed, by one thread at a time.
    Small catalogues are ready before the call that noticed goes on, so that it sees every change committed before; how
    long calls wait for larger ones, and for one change after another, `server.patience` bounds.
    """

    def __init__(
        self,
        store: Store,
        *,
        current_model: Callable[[str], str | None] = lambda tenant: None,
        load_models: Callable[[str, str], Models] = lambda tenant, version: Models.priors(),
        patience_seconds: float = PATIENCE_SECONDS,
        most_waiting: int = 4,
    ) -> None:
        """`current_model(tenant)` names the trained version in use, `load_models(tenant, version)` maps it.

        `most_waiting` calls may wait longer than patience lasts, for what cannot be served without.
        """
        self._store = store
        self._current_model = current_model
        self._load_models = load_models
        self._patience_seconds = patience_seconds
        self._most_waiting = most_waiting
        self._long_waits = threading.Semaphore(most_waiting)
        self._lock = threading.Lock()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._builds: dict[str, _Build] = {}
        self.hits = 0
        """Calls that found their bundle ready."""
        self.misses = 0
        self._likes_before = (0, 0)
        """Hits and misses of likes in bundles that are served no more."""
        self._builder = ThreadPoolExecutor(1, thread_name_prefix="catalogue")

    def prepare(self) -> None:
        """Make every tenant's bundle before the first call waits for it; one that fails is left to its calls."""
        for tenant in self._store.tenants()[:MOST_TENANTS]:
            try:
                self.bundle(tenant)
            except Exception:
                _LOG.exception("tenant %s cannot be made ready", tenant)

    def of(self, call: Call, *, fresh: bool = False) -> Bundle:
        """What to serve a call from, see `bundle`."""
        return self.bundle(call.tenant, fresh=fresh, may_wait=call.may_wait, until=call.deadline)

    def bundle(
        self, tenant: str, *, fresh: bool = False, may_wait: bool = True, until: float = math.inf
    ) -> Bundle:
        """What to serve the tenant from now. With `fresh`, or without one before, wait for the newest.

        Raises StoreError when the catalogue cannot be read; WouldWait when a call that may not wait here should wait
        elsewhere; TimeoutError past `until` on the monotonic clock, ServerOverloaded when too many wait already.
        """
        with self._store.read(Partition(tenant)) as reader:
            catalog_version = catalogs.read_counts(reader).version
        with self._lock:
            entry, changing = self._entries.get(tenant), tenant in self._builds
            if entry is not None:
                self._entries.move_to_end(tenant)
        current = entry is not None and entry.catalog_version == catalog_version and not changing
        if entry is not None and current and not self._model_changed(tenant, entry):
            self.hits += 1
            return entry.bundle
        if entry is None and not may_wait:
            raise WouldWait
        if entry is None or fresh:
            found = self._newest(tenant, catalog_version, until)
        else:
            found = self._soon(tenant, catalog_version, entry, may_wait, until)
        self.misses += 1
        return found.bundle

    def _newest(self, tenant: str, catalog_version: int, until: float) -> _Entry:
        """An entry of this version of the catalogue at least."""
        built = self._waited_for(self._under_way(tenant), until)
        if built.catalog_version < catalog_version:
            # That build had begun before this call and missed the last change; the next one cannot.
            built = self._waited_for(self._under_way(tenant), until)
        return built

    def _waited_for(self, build: _Build, until: float) -> _Entry:
        try:
            return build.entry.result(min(_left(until), self._patience_seconds))
        except TimeoutError:
            if time.monotonic() >= until:
                raise
        if not self._long_waits.acquire(blocking=False):
            # Each of them holds a thread, and other tenants need some, too.
            raise errors.ServerOverloaded(limit=self._most_waiting)
        try:
            return build.entry.result(_left(until))
        finally:
            self._long_waits.release()

    def _soon(self, tenant: str, catalog_version: int, entry: _Entry, may_wait: bool, until: float) -> _Entry:
        """The same if it is there soon, else the newest that is there."""
        for _ in range(2):
            build = self._under_way(tenant)
            if not may_wait:
                if build.wait.put_aside():
                    raise WouldWait
                return entry
            try:
                entry = build.entry.result(min(_left(until), build.wait.left()))
            except TimeoutError:
                return entry
            if entry.catalog_version >= catalog_version:
                break
        return entry

    def ready(self) -> dict[str, Bundle]:
        """The bundles that are ready now, by tenant."""
        with self._lock:
            return {tenant: entry.bundle for tenant, entry in self._entries.items()}

    def likes(self) -> tuple[int, int]:
        """How often what a learner likes was remembered, and how often it was worked out."""
        with self._lock:
            found = self._likes_before
            for entry in self._entries.values():
                found = _added(found, entry.bundle)
        return found

    def close(self) -> None:
        """End the building thread."""
        self._builder.shutdown(wait=True, cancel_futures=True)

    def _under_way(self, tenant: str) -> _Build:
        """The build that is under way for the tenant, or a new one."""
        with self._lock:
            build = self._builds.get(tenant)
            if build is None:
                old = self._entries.get(tenant)
                patience = Patience(self._patience_seconds) if old is None else old.patience
                entry = self._builder.submit(self._rebuild, tenant, patience)
                build = self._builds[tenant] = _Build(entry, patience.wait())
            return build

    def _keep(self, tenant: str, entry: _Entry) -> None:
        with self._lock:
            replaced = [self._entries.pop(tenant, None)]
            self._entries[tenant] = entry
            while len(self._entries) > MOST_TENANTS:
                replaced.append(self._entries.popitem(last=False)[1])
            for old in replaced:
                if old is not None:
                    self._likes_before = _added(self._likes_before, old.bundle)

    def _model_changed(self, tenant: str, entry: _Entry) -> bool:
        now = time.monotonic()
        if now - entry.looked_at < MODEL_LOOK_SECONDS:
            return False
        entry.looked_at = now
        return self._model_name(tenant, entry.model_version) != entry.model_version

    def _model_name(self, tenant: str, before: str | None) -> str | None:
        """The current model's name; an unreadable pointer leaves things as they are."""
        try:
            return self._current_model(tenant)
        except Exception:
            _LOG.exception("the pointer to the current model cannot be read")
            return before

    def _rebuild(self, tenant: str, patience: Patience) -> _Entry:
        with self._lock:
            old = self._entries.get(tenant)
        try:
            entry = self._build(tenant, old, patience)
            self._keep(tenant, entry)
            return entry
        finally:
            with self._lock:
                build = self._builds.pop(tenant)
            build.wait.end()

    def _build(self, tenant: str, old: _Entry | None, patience: Patience) -> _Entry:
        started = time.monotonic()
        with self._store.read(Partition(tenant)) as reader:
            records = catalogs.load_catalog(reader)
        version = self._model_name(tenant, None if old is None else old.model_version)
        models, failed = self._models(tenant, version, old)
        # Of the catalogue's own content space and a trained one, one is served; the other is not worked out.
        trained = models.content is not None
        if old is not None and old.catalog_version == records.version and old.trained == trained:
            catalog = old.bundle.catalog
        else:
            nowhere = np.zeros((len(records.question_ids), WIDTH), np.float32) if trained else None
            catalog = build_catalog(
                records.concepts, records.questions, version=records.version, embeddings=nowhere
            )
        serving = prepare(catalog, models)
        bundle = Bundle(serving, FactSource.of(catalog, models.learner), failed)
        log(
            _LOG,
            logging.INFO,
            "catalogue ready",
            tenant=tenant,
            catalog_version=records.version,
            model_version=models.version,
            questions=len(records.questions),
            duration_ms=round((time.monotonic() - started) * 1e3, 1),
        )
        return _Entry(bundle, records.version, version, started, trained, patience)

    def _models(self, tenant: str, version: str | None, old: _Entry | None) -> tuple[Models, bool]:
        if old is not None and old.model_version == version:
            return old.bundle.serving.models, old.bundle.model_failed
        if version is None:
            return Models.priors(), False
        try:
            return self._load_models(tenant, version), False
        except Exception:
            _LOG.exception("model %s cannot be used; the one before stays", version)
            return (Models.priors() if old is None else old.bundle.serving.models), True


def _left(until: float) -> float:
    """Seconds left until a moment on the monotonic clock, as many as a thread can wait."""
    return min(max(until - time.monotonic(), 0.0), threading.TIMEOUT_MAX)


def _added(lookups: tuple[int, int], bundle: Bundle) -> tuple[int, int]:
    likes = bundle.serving.likes
    return lookups[0] + likes.hits, lookups[1] + likes.misses

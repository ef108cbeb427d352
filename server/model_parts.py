"""Trained models as the parts of a version on disk, and back. Trains nothing."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from engine.collaborative import CollaborativeModel
from engine.learner import IncompatibleModel, LearnerModel
from engine.neighbours import NeighbourIndex
from engine.serving import Models
from engine.types import F8
from server.models import ModelDirectory, ModelError, ModelParts, StoredModel
from store.api import Partition, Store
from store.catalogs import read_memory_sets

_LEARNER = "learner"
_COLLABORATIVE = "collaborative"
_CONTENT = "content"
_POPULARITY = "popularity"
_ITEMS = "items.faiss"


class ModelUnreadable(ModelError):
    """The files are whole, but this Genie cannot use what they hold; train anew."""


def parts_of(models: Models) -> ModelParts:
    """What is to be written of trained models."""
    arrays, metadata = models.learner.save()
    named: dict[str, Any] = {f"{_LEARNER}.{name}": array for name, array in arrays.items()}
    if models.collaborative is not None:
        saved = models.collaborative.save()
        named |= {f"{_COLLABORATIVE}.{name}": array for name, array in saved.items()}
    if models.content is not None:
        named[_CONTENT] = models.content
    if models.popularity is not None:
        named[_POPULARITY] = models.popularity
    blobs = {} if models.items is None else {_ITEMS: models.items.to_bytes()}
    return ModelParts(named, blobs, {_LEARNER: metadata})


def models_of(stored: StoredModel, memory_sets: F8 | None = None) -> Models:
    """The models of a version; arrays stay mapped.

    `memory_sets` (sets, 21) are the tenant's FSRS weights as the store holds them: the log refers to them by number,
    also to those that were added after this version was trained.

    Raises:
        ModelUnreadable: a part is missing, or of another format than this Genie reads.
    """
    version = stored.manifest.version
    try:
        learner = LearnerModel.load(stored.group(_LEARNER), stored.manifest.metadata[_LEARNER])
        collaborative = stored.group(_COLLABORATIVE)
        items = stored.blob(_ITEMS) if _ITEMS in stored.manifest.files else None
        models = Models(
            learner=_with_sets(dataclasses.replace(learner, version=version), memory_sets),
            collaborative=CollaborativeModel.load(collaborative) if collaborative else None,
            items=None if items is None else NeighbourIndex.from_bytes(items),
            content=stored.arrays.get(_CONTENT),
            popularity=stored.arrays.get(_POPULARITY),
            version=version,
        )
    except (IncompatibleModel, KeyError, ValueError, RuntimeError) as error:
        raise ModelUnreadable(f"model {version} cannot be used: {error}; train anew") from error
    return models


def load_models(directory: ModelDirectory, store: Store, version: str | None = None) -> Models:
    """The models of a version, or of the current one, or priors when nothing was trained. Raises ModelError."""
    chosen = version or directory.current()
    if chosen is None:
        return prior_models(store, directory.tenant)
    return models_of(directory.open(chosen), _memory_sets(store, directory.tenant))


def prior_models(store: Store, tenant: str) -> Models:
    """What there is before any training, with the memory sets that the tenant's log may refer to."""
    priors = Models.priors()
    return dataclasses.replace(priors, learner=_with_sets(priors.learner, _memory_sets(store, tenant)))


def _memory_sets(store: Store, tenant: str) -> F8:
    with store.read(Partition(tenant)) as reader:
        return read_memory_sets(reader)


def model_source(
    data_directory: Path, store: Store
) -> tuple[Callable[[str], str | None], Callable[[str, str], Models]]:
    """(the name of a tenant's current version, what maps a version) as a worker asks for them."""

    def current(tenant: str) -> str | None:
        return ModelDirectory(data_directory, tenant).current()

    def load(tenant: str, version: str) -> Models:
        return load_models(ModelDirectory(data_directory, tenant), store, version)

    return current, load


def _with_sets(learner: LearnerModel, memory_sets: F8 | None) -> LearnerModel:
    if memory_sets is None or np.array_equal(memory_sets, learner.memory_sets):
        return learner
    if len(memory_sets) <= learner.memory_set:
        raise IncompatibleModel(
            f"it uses memory set {learner.memory_set}, the store holds {len(memory_sets)}: it is of another store"
        )
    return dataclasses.replace(learner, memory_sets=_read_only(memory_sets))


def _read_only(array: F8) -> F8:
    view = np.ascontiguousarray(array).view()
    view.flags.writeable = False
    return view

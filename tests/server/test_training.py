"""Training from the log: a version that predicts better is taken into use, a worse one is refused with the figures."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.learner import DEFAULT_WEIGHTS, LearnerModel
from engine.learner.rows import TrainingLog
from engine.learner.training import TooLittleData, train
from engine.serving import Models
from engine.types import F4
from server import training
from server.data_tables import ANSWERS, QUESTIONS
from server.importing import Import
from server.model_parts import ModelUnreadable, load_models, model_source, models_of, parts_of
from server.models import ModelBusy, ModelDirectory, ModelError
from server.training import Score, TrainingReport, gather, is_judge, train_models
from store.api import Partition, Store
from store.catalogs import append_memory_set, read_memory_sets
from store.learners import read_answers
from store.memory_store import MemoryStore
from store.replay import replay
from tests.server import data_world
from tests.server.data_world import NOW, new_import, write_world


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = MemoryStore()
    rows = data_world.answers(learners=120, each=25)
    new_import(opened).files(write_world(tmp_path_factory.mktemp("files"), rows))
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def trained(store: Store, tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelDirectory, TrainingReport]:
    directory = ModelDirectory(tmp_path_factory.mktemp("data"), "default")
    # Forced: on so few held-out answers whether random data beats priors is chance (docs/models.md).
    return directory, train_models(store, directory, now=NOW, force=True)


def test_training_writes_a_version_and_makes_it_current(
    store: Store, trained: tuple[ModelDirectory, TrainingReport]
) -> None:
    directory, report = trained
    assert report.refused == ""
    assert directory.current() == report.version
    assert report.previous == ""
    candidate, priors = report.scores
    assert (candidate.model, priors.model) == ("candidate", "priors")
    assert candidate.log_loss != priors.log_loss
    assert report.held_out_answers >= training.FEWEST_JUDGED
    manifest = directory.manifest(report.version)
    assert manifest.data["learners"] == 120
    assert manifest.data["fitted_answers"] + report.held_out_answers == 120 * 25
    assert manifest.metrics["held_out"]["candidate"]["log_loss"] == candidate.log_loss
    assert manifest.created_at == "2027-01-15T08:00:00Z"
    assert manifest.libraries["numpy"] == np.__version__

    models = load_models(directory, store)
    assert models.version == models.learner.version == report.version
    assert models.collaborative is not None
    assert models.items is not None
    assert models.content is not None
    assert len(models.items) == 12
    assert models.content.shape == (12, 64)


def test_models_are_fitted_to_the_difficulties_of_the_catalogue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MemoryStore()
    files = write_world(tmp_path, data_world.answers(learners=20, each=12))
    rows = [{**row, "difficulty": n / 20 if n % 3 else ""} for n, row in enumerate(data_world.questions())]
    new_import(store).files({**files, QUESTIONS: data_world.write_csv(files[QUESTIONS], rows)})
    seen: list[list[float]] = []

    def watched(log: TrainingLog, *, difficulty: F4, **rest: Any) -> Any:
        seen.append(difficulty.tolist())
        return train(log, difficulty=difficulty, **rest)

    monkeypatch.setattr(training, "train", watched)
    train_models(store, ModelDirectory(tmp_path, "default"), now=NOW, force=True)
    expected = [n / 20 if n % 3 else math.nan for n in range(12)]
    assert seen == [pytest.approx(expected, nan_ok=True)]


def test_the_same_log_and_seed_give_the_same_models(
    store: Store, trained: tuple[ModelDirectory, TrainingReport], tmp_path: Path
) -> None:
    directory, report = trained
    again = ModelDirectory(tmp_path, "default")
    second = train_models(store, again, now=NOW, force=True)
    assert again.manifest(second.version).files == directory.manifest(report.version).files


def test_a_worse_model_is_refused_unless_forced(
    store: Store, trained: tuple[ModelDirectory, TrainingReport], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, report = trained
    before = directory.versions()

    def worse(*_: object) -> list[Score]:
        return [Score("candidate", 0.60, 0.7, 0.0), Score(report.version, 0.59, 0.7, 0.0)]

    with monkeypatch.context() as patched:
        patched.setattr(training, "judge", worse)
        refused = train_models(store, directory, now=NOW)
        assert "log loss is 0.6000" in refused.refused
        assert f"that of {report.version}, which is in use, 0.5900" in refused.refused
        assert refused.version == ""
        assert directory.versions() == before
        assert directory.current() == report.version
        forced = train_models(store, directory, now=NOW, force=True)
    assert forced.refused == ""
    assert directory.current() == forced.version
    assert forced.previous == report.version
    directory.point(report.version)


def test_judges_are_never_trained_on(store: Store) -> None:
    gathered = gather(store, "default")
    names = [f"u-{n:03d}" for n in range(120)]
    judges = sum(map(is_judge, names))
    assert 0 < judges < 20
    assert gathered.judges.learners == judges
    assert gathered.log.learners == 120 - judges
    assert gathered.log.answers.size == 25 * (120 - judges)
    assert gathered.log.answers.offsets[-1] == len(gathered.log.answers.concept)


def test_a_log_too_long_for_memory_is_thinned_by_whole_learners(store: Store) -> None:
    whole = gather(store, "default")
    thinned = gather(store, "default", most_answers=1_500)
    answers = thinned.log.answers.size + thinned.judges.answers.size
    assert 300 < answers <= 1_500
    assert answers % 25 == 0
    assert thinned.learners == whole.learners == 120


def test_too_little_data_is_said(tmp_path: Path) -> None:
    empty = MemoryStore()
    with pytest.raises(TooLittleData):
        train_models(empty, ModelDirectory(tmp_path, "default"), now=NOW)
    paths = write_world(tmp_path / "files", data_world.answers(learners=2, each=5))
    new_import(empty).files(paths)
    with pytest.raises(TooLittleData, match="at least"):
        train_models(empty, ModelDirectory(tmp_path, "default"), now=NOW)
    assert ModelDirectory(tmp_path, "default").versions() == []
    empty.close()


def test_one_training_at_a_time(store: Store, tmp_path: Path) -> None:
    directory = ModelDirectory(tmp_path, "default")
    with directory.exclusively(), pytest.raises(ModelBusy):
        train_models(store, directory, now=NOW)


def test_a_damaged_current_model_stops_the_comparison_but_not_force(
    store: Store, trained: tuple[ModelDirectory, TrainingReport], tmp_path: Path
) -> None:
    directory = ModelDirectory(tmp_path, "default")
    first = train_models(store, directory, now=NOW, force=True)
    (directory.path / first.version / "learner.dense.npy").write_bytes(b"")
    with pytest.raises(ModelError, match="in use cannot be read"):
        train_models(store, directory, now=NOW)
    forced = train_models(store, directory, now=NOW, force=True)
    assert directory.current() == forced.version != first.version


def test_with_nothing_trained_there_are_priors(store: Store, tmp_path: Path) -> None:
    models = load_models(ModelDirectory(tmp_path, "default"), store)
    assert models.version == Models.priors().version
    assert models.collaborative is None


def test_models_survive_the_disk(tmp_path: Path) -> None:
    directory = ModelDirectory(tmp_path, "default")
    with directory.exclusively():
        manifest = directory.write(
            parts_of(Models.priors()), created_at="", data={}, metrics={}, libraries={}
        )
    models = models_of(directory.open(manifest.version))
    priors = LearnerModel.priors()
    for name, array in models.learner.weights._asdict().items():
        np.testing.assert_array_equal(array, getattr(priors.weights, name))
    assert models.items is None


def test_parts_that_this_version_cannot_use_are_named(tmp_path: Path) -> None:
    directory = ModelDirectory(tmp_path, "default")
    parts = parts_of(Models.priors())
    parts.metadata["learner"]["format"] = 99
    with directory.exclusively():
        manifest = directory.write(parts, created_at="", data={}, metrics={}, libraries={})
    with pytest.raises(ModelUnreadable, match="train anew"):
        models_of(directory.open(manifest.version))


def test_memory_sets_of_the_store_come_with_every_version(
    trained: tuple[ModelDirectory, TrainingReport], tmp_path: Path
) -> None:
    directory, report = trained
    other = MemoryStore()
    other.update(Partition("default"), lambda tx: append_memory_set(tx, np.linspace(0.1, 2.0, 21)))
    models = load_models(directory, other, report.version)
    assert models.learner.memory_sets.shape == (2, 21)
    assert models.learner.memory_set == 0
    other.close()


def test_fitted_memory_weights_are_kept_in_the_store_under_the_number_that_answers_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = np.asarray(DEFAULT_WEIGHTS) * 1.01
    monkeypatch.setattr(training, "fit_memory", lambda reviews, seed: (fitted, {"fitted": 1.0}))
    own = MemoryStore()
    paths = write_world(tmp_path / "files", data_world.answers(learners=30, each=20))
    new_import(own).files(paths)
    directory = ModelDirectory(tmp_path, "default")
    for _ in range(2):
        train_models(own, directory, now=NOW)
        with own.read(Partition("default")) as reader:
            np.testing.assert_array_equal(read_memory_sets(reader), [DEFAULT_WEIGHTS, fitted])
    models = load_models(directory, own)
    assert models.learner.memory_set == 1
    assert models.learner.weights.constants[2] == fitted[20]

    more = [dict(row, answer_id=f"more-{n}") for n, row in enumerate(data_world.answers(learners=3, each=5))]
    work = Import(own, "default", models.learner, now=NOW, origin=data_world.ORIGIN + 1e6)
    work.files({ANSWERS: data_world.write_csv(tmp_path / "more.csv", more)})
    with own.read(Partition("default", "u-001")) as reader:
        assert read_answers(reader).batch.memory_set.tolist() == [0] * 20 + [1] * 5
    assert replay(own, "default").differing == 0
    own.close()


def test_workers_are_told_what_is_current(
    store: Store, trained: tuple[ModelDirectory, TrainingReport]
) -> None:
    directory, report = trained
    current, load = model_source(directory.path.parents[1], store)
    assert current("default") == report.version
    assert current("nobody") is None
    assert load("default", report.version).version == report.version


@pytest.mark.data
def test_training_on_a_slice_of_a_real_data_set_beats_priors(tmp_path: Path) -> None:
    real = MemoryStore()
    new_import(real).files(data_world.write_slice("assist2009", tmp_path, 8_000))
    report = train_models(real, ModelDirectory(tmp_path, "default"), now=NOW)
    candidate, priors = report.scores
    assert candidate.auc > priors.auc + 0.02
    assert candidate.log_loss < priors.log_loss - 0.02
    real.close()

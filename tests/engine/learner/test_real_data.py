"""The model on a slice of real answers, where the data sets are at hand."""

import numpy as np
import pytest

from bench.learner_data import data_folder, load
from engine.learner import LearnerModel
from engine.learner.evaluate import OURS, evaluate, stream
from engine.learner.metrics import auc, log_loss
from engine.learner.regression import TrainSettings

FOLDER = data_folder() / "assist2009"
pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not FOLDER.exists(), reason=f"no data set at {FOLDER}: set GENIE_DATA"),
]


def test_predicts_real_learners() -> None:
    data = load(FOLDER, most_learners=100)
    found = evaluate(
        data.log,
        data.concepts,
        seed=0,
        progress=lambda stage, done: None,
        by_time=True,
        with_baselines=False,
        settings=TrainSettings(iterations=25, closing_iterations=3, threads=1),
    )
    ours = found.measure(OURS)
    constant = np.full(len(found.target), found.target.mean())
    assert ours["auc"] > 0.7
    assert ours["log_loss"] < log_loss(found.target, constant) - 0.03
    assert ours["calibration_error"] < 0.05


def test_priors_alone_already_order_real_answers() -> None:
    data = load(FOLDER, most_learners=60)
    p = stream(data.log, data.concepts, LearnerModel.priors())
    assert np.isfinite(p).all()
    assert auc(data.log.answers.correct.astype(np.float64), p) > 0.6

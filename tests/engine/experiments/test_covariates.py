"""What came before an experiment, against a recount of the answers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.experiments.covariates import BEFORE_DAYS, covariates
from engine.learner import LearnerState
from tests.engine.test_habits import START, practised


def test_somebody_new_has_done_nothing() -> None:
    assert covariates(LearnerState.empty(), 20_000) == {
        "practice_minutes": 0.0,
        "mastery_gain": 0.0,
        "activity": 0.0,
        "accuracy": 0.5,
    }


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.integers(0, 90), st.integers(1, 60).map(float), min_size=1, max_size=25),
    st.integers(-3, 60),
)
def test_the_week_that_ends_with_today_counts(minutes: dict[int, float], later: int) -> None:
    last = max(minutes)
    today = last + later
    found = covariates(practised(minutes), START + today)
    recent = [spent for day, spent in minutes.items() if today - BEFORE_DAYS < day <= today]
    assert found["activity"] == len(recent)
    assert found["practice_minutes"] == pytest.approx(sum(recent), abs=0.5)
    assert found["mastery_gain"] == len(recent), "one answer a day"


def test_accuracy_is_of_the_whole_history() -> None:
    days = dict.fromkeys(range(8), 5.0)
    found = covariates(practised(days, correct=[1, 1, 1, 0, 1, 1, 0, 0]), START + 7)
    assert found["accuracy"] == pytest.approx((5 + 1) / (8 + 2))
    assert np.isfinite(list(found.values())).all()

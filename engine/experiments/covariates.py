"""What a learner did before meeting an experiment, for CUPED. From the learner's state alone; estimates nothing."""

from collections.abc import Mapping
from typing import Final

import numpy as np

from engine.learner.days import DAYS
from engine.learner.state import LearnerState

BEFORE_DAYS: Final = 7
"""As long as the windows of the built-in metrics: what foretells a week best is the week before."""


def covariates(state: LearnerState, today: int) -> Mapping[str, float]:
    """A number for each source of a metric that the recommender feeds, from what came before now.

    `today` is the learner's local day (days since 1970-01-01). Over the `BEFORE_DAYS` days that end with it:
    practice_minutes in minutes, mastery_gain as answers given (what mastery grows from), activity as days with
    an answer. accuracy is the share of right answers of the learner's whole history, drawn to one half by two
    imagined answers. A learner without history has 0, 0, 0 and one half.
    """
    header = state.header[0]
    last = int(header["last_day"])
    # The ring holds DAYS days up to the last one with an answer.
    first = max(today - BEFORE_DAYS, last - DAYS) + 1
    slots = np.arange(first, min(today, last) + 1) % DAYS if state.applied else np.empty(0, np.int64)
    answers = header["day_answers"][slots]
    return {
        "practice_minutes": float(header["day_seconds"][slots].sum(dtype=np.int64)) / 60.0,
        "mastery_gain": float(answers.sum(dtype=np.int64)),
        "activity": float(np.count_nonzero(answers)),
        "accuracy": (float(header["correct"]) + 1.0) / (float(header["applied"]) + 2.0),
    }

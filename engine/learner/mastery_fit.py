"""Calibrates mastery: how much of the ability filter and of what is not recalled the next answers bear out."""

from typing import Final

import numpy as np

from engine.learner.features import DENSE_NAMES
from engine.learner.model import PRIOR_MASTERY
from engine.types import F4, F8

PRIOR_ANSWERS: Final = 200.0
"""Answers that the priors are worth."""
LEAST: Final = np.array([-3.0, 0.1, -4.0, 0.0])
MOST: Final = np.array([3.0, 3.0, -1.0, 3.0])
"""Bounds of offset and of the weights of filter, forgetting and run: the signs that make mastery what it is.

Some forgetting is kept where the data shows none (a log without times has no gaps): mastery has to fade."""
STEPS: Final = 30
MOST_FITTED: Final = 200_000

_EXPECTED: Final = DENSE_NAMES.index("expected_slow")
_FORGOTTEN: Final = DENSE_NAMES.index("concept_forgotten")
_RUN: Final = DENSE_NAMES.index("concept_run")


def mastery_inputs(dense: F4) -> F8:
    """Return (n, 4) ones, the slow filter's expectation, what is not recalled and the run, from rows (n, N_DENSE).

    The same as `engine.learner.view.mastery_of` reads from the state, for questions of one concept, but for what a
    wrong answer leaves unrecalled; for several concepts, the means over them stand in.
    """
    table = np.empty((len(dense), 4))
    table[:, 0], table[:, 1], table[:, 2], table[:, 3] = (
        1.0,
        dense[:, _EXPECTED],
        dense[:, _FORGOTTEN],
        dense[:, _RUN],
    )
    return table


def fit_mastery(dense: F4, correct: F4) -> F8:
    """Return (4,) parameters of mastery from training rows (n, N_DENSE), unscaled, and outcomes (n,).

    Penalised maximum likelihood by projected Newton steps; the penalty pulls to `PRIOR_MASTERY` as PRIOR_ANSWERS
    answers would. At most MOST_FITTED rows are used, evenly spread.
    """
    chosen = slice(None, None, max(len(dense) // MOST_FITTED, 1))
    x, y = mastery_inputs(dense[chosen]), correct[chosen].astype(np.float64)
    prior = np.array(PRIOR_MASTERY)
    pull = 0.25 * PRIOR_ANSWERS * np.maximum((x * x).mean(axis=0), 1e-3)
    w = prior.copy()
    for _ in range(STEPS):
        p = 1.0 / (1.0 + np.exp(-(x @ w)))
        slope = x.T @ (p - y) + pull * (w - prior)
        curve = (x.T * (p * (1.0 - p))) @ x + np.diag(pull)
        # A parameter held at its bound, which the slope would push further out, stays there for this step.
        free = ~(((w <= LEAST) & (slope > 0.0)) | ((w >= MOST) & (slope < 0.0)))
        if not free.any():
            break
        step = np.zeros(4)
        step[free] = np.linalg.solve(curve[np.ix_(free, free)], slope[free])
        new = np.clip(w - step, LEAST, MOST)
        if np.abs(new - w).max() < 1e-9:
            break
        w = new
    return w

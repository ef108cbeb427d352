"""Where a learner stands among the factors and in content space, and what lies nearest. Recommends nothing.

What a learner likes depends on the ring of recent questions alone, not on the hour: its weights are those at the last
answer. So it is remembered under the ring itself, and an answer, by changing the ring, leaves the old entry behind.
"""

import numpy as np

from engine.collaborative import FOLD_STEPS, WIDTH, as_liking, fold_in
from engine.learner.score import read_only
from engine.learner.state import Records
from engine.scoring import tastes
from engine.serving import Likes, Serving
from engine.types import U4

_NO_ROWS: U4 = read_only(np.zeros(0, np.uint32))


def likes_of(recent: Records, serving: Serving, quota: int) -> Likes:
    """Return what a ring of recent questions (RING,) says, with the `quota` nearest rows; `serving` remembers it."""
    key = quota, recent.tobytes()
    known = serving.likes.find(key)
    if known is None:
        known = _likes(read_only(recent), serving, quota)
        serving.likes.keep(key, known)
    return known


def _likes(recent: Records, serving: Serving, quota: int) -> Likes:
    rows = np.empty(recent.shape[0], np.uint32)
    confidence = np.empty(recent.shape[0], np.float32)
    profile = np.empty(WIDTH, np.float32)
    newest = float(recent["at"].max())
    count = tastes(recent, serving.questions.content, newest, rows, confidence, profile)
    index = serving.models.items
    if serving.models.collaborative is None or count == 0:
        return Likes(np.zeros(WIDTH, np.float32), profile, _NO_ROWS)
    factor = fold_in(serving.questions.factors, serving.gram, rows[:count], confidence[:count], FOLD_STEPS)
    as_liking(serving.questions.factors, rows[:count], factor)
    if index is None or quota == 0:
        return Likes(factor, profile, _NO_ROWS)
    return Likes(factor, profile, read_only(index.nearest(factor, quota)))

"""Where a learner stands among the factors and in content space, and what lies nearest. Recommends nothing.

What a learner likes depends on the ring of recent questions alone, not on the hour: its weights are those at the last
answer. So it is remembered under the ring itself, and an answer, by changing the ring, leaves the old entry behind.
"""

import numpy as np

from engine.bound import Bound
from engine.collaborative import FOLD_STEPS, WIDTH, as_liking, fold_in
from engine.jit import kernel, lean_kernel, prefetch
from engine.learner.score import read_only
from engine.learner.state import Records
from engine.probing import probe
from engine.scoring import tastes
from engine.serving import Likes, Serving
from engine.types import F4, I8, NO_ROW

FLOATS_A_LINE = 16
"""Of a cache."""

_FIRST = np.zeros(1, np.int64)


def likes_of(recents: Records, serving: Serving, quota: int) -> Likes:
    """Return what rings of recent questions (n, RING) say, with the `quota` nearest rows; `serving` remembers it."""
    memo = serving.likes
    if len(recents) == 1:
        key = quota, _name(recents)
        likes = memo.find(key)
        if likes is None:
            likes = _room(1, quota)
            fill_likes(serving.bound, read_only(recents), _FIRST, likes)
            memo.keep(key, _frozen(likes))
        return likes
    keys = [(quota, _name(recent)) for recent in recents]
    found = [memo.find(key) for key in keys]
    likes = _room(len(keys), quota)
    missing = [place for place, known in enumerate(found) if known is None]
    if missing:
        fill_likes(serving.bound, read_only(recents), np.array(missing), likes)
    for place, known in enumerate(found):
        if known is not None:
            for part, kept in zip(likes, known, strict=True):
                part[place] = kept[0]
        else:
            # In memory of its own: one entry must not keep that of all others.
            one = slice(place, place + 1)
            own = Likes(likes.factor[one].copy(), likes.profile[one].copy(), likes.near[one].copy())
            memo.keep(keys[place], _frozen(own))
    return _frozen(likes)


def _name(recent: Records) -> int:
    """Return what a ring is remembered under: 64 bits stand for it, as they do for a state where pools are kept."""
    return hash(recent.tobytes())


def _room(count: int, quota: int) -> Likes:
    return Likes(
        np.empty((count, WIDTH), np.float32),
        np.empty((count, WIDTH), np.float32),
        np.empty((count, quota), np.uint32),
    )


def _frozen(likes: Likes) -> Likes:
    """Return the likes themselves, read-only from now on."""
    for part in likes:
        part.setflags(write=False)
    return likes


@lean_kernel
def _ask_for_row(vectors: F4, row: int) -> None:
    """Have a vector brought near that will be read soon, if there is one."""
    if row < vectors.shape[0]:
        for component in range(0, WIDTH, FLOATS_A_LINE):
            prefetch(vectors, row * WIDTH + component)


@kernel
def fill_likes(bound: Bound, recents: Records, places: I8, likes: Likes) -> None:
    """Fill likes for the rings recents (n, RING) at `places` (m,)."""
    factors = bound.questions.factors
    rows = np.empty(recents.shape[1], np.uint32)
    confidence = np.empty(recents.shape[1], np.float32)
    for place in places:
        recent = recents[place]
        newest = recent[0].at
        for j in range(recent.shape[0]):
            newest = max(newest, recent[j].at)
            _ask_for_row(bound.questions.content, recent[j].question)
            _ask_for_row(factors, recent[j].question)
        count = tastes(recent, bound.questions.content, float(newest), rows, confidence, likes.profile[place])
        factor, near = likes.factor[place], likes.near[place]
        factor[:] = 0.0
        near[:] = NO_ROW
        if count > 0 and factors.shape[0] > 0:
            factor[:] = fold_in(factors, bound.gram, rows[:count], confidence[:count], FOLD_STEPS)
            as_liking(factors, rows[:count], factor)
            if near.shape[0] > 0:
                probe(bound.lists, factor, bound.probes, near)

"""What kernels read is held by its reference, and let go with it."""

import gc
import weakref

from engine.policy import BUILT_IN
from engine.recommend import RecommendQuery, recommend
from engine.serving import prepare
from tests import worlds


def test_arrays_live_as_long_as_the_reference_to_them() -> None:
    base = worlds.served(worlds.at_random(3))
    served = prepare(base.catalog, base.models)
    recommend(
        RecommendQuery(seed=1), worlds.someone(served, 3), served, BUILT_IN["hybrid_v1"], now=worlds.NOON
    )
    cards, shelves = weakref.ref(served.questions.cards), weakref.ref(served.questions.shelf_logit)
    bound = served.bound
    del served
    gc.collect()
    assert cards() is not None
    assert shelves() is not None
    del bound
    gc.collect()
    assert cards() is None
    assert shelves() is None

"""Answers of many learners at once come out as one learner's after the other, to the bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.learner import AnswersOutOfOrder, LearnerState, absorb
from engine.learner.crowd import Crowd, absorb_crowd
from engine.types import I8, AnswerBatch
from tests.engine.learner.world import answers, batch, random_model


def joined(parts: list[AnswerBatch]) -> tuple[AnswerBatch, I8]:
    """Batches one after the other, and where each begins."""
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in AnswerBatch._fields
        if name != "offsets"
    }
    shifts = np.cumsum([0, *(len(part.concept) for part in parts)])
    offsets = [part.offsets[:-1] + shift for part, shift in zip(parts, shifts, strict=False)]
    whole = np.concatenate([*offsets, shifts[-1:]]).astype(np.int32)
    return AnswerBatch(offsets=whole, **columns), np.cumsum([0, *(part.size for part in parts)])


def crowd_of(states: list[LearnerState]) -> Crowd:
    """States side by side."""
    return Crowd(
        np.concatenate([state.header for state in states]),
        np.concatenate([state.concepts for state in states]),
        np.cumsum([0, *(len(state.concepts) for state in states)]),
        np.concatenate([state.recent for state in states]),
    )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(0, 12), min_size=1, max_size=6))
def test_many_at_once_are_each_as_alone(seed: int, sizes: list[int]) -> None:
    rng = np.random.default_rng(seed)
    model = random_model(rng)
    histories = [answers(rng, size + int(rng.integers(0, 8))) for size in sizes]
    before, parts = [], []
    for history, size in zip(histories, sizes, strict=True):
        split = len(history) - size
        state = LearnerState.empty()
        before.append(absorb(state, batch(history[:split]), model).state if split else state)
        parts.append(batch(history[split:]))
    whole, bounds = joined(parts)
    done = absorb_crowd(crowd_of(before), whole, bounds, model)
    for i, (state, part) in enumerate(zip(before, parts, strict=True)):
        alone = absorb(state, part, model)
        mine = done.crowd.state(i)
        for name in ("header", "concepts", "recent"):
            assert getattr(mine, name).tobytes() == getattr(alone.state, name).tobytes(), name
        own = slice(int(bounds[i]), int(bounds[i + 1]))
        pairs = slice(int(whole.offsets[own.start]), int(whole.offsets[own.stop]))
        for name in ("predicted", "streak", "milestone"):
            np.testing.assert_array_equal(getattr(done, name)[own], getattr(alone, name))
        for name in ("mastery_before", "crossed"):
            np.testing.assert_array_equal(getattr(done, name)[pairs], getattr(alone, name))
        np.testing.assert_array_equal(done.batch.mastery[pairs], alone.batch.mastery)
        np.testing.assert_array_equal(done.batch.mastery_sd[pairs], alone.batch.mastery_sd)
    np.testing.assert_array_equal(done.crowd.concepts["row"][done.place], whole.concept)


def test_an_answer_older_than_the_newest_is_refused() -> None:
    rng = np.random.default_rng(3)
    model = random_model(rng)
    history = answers(rng, 6)
    late = absorb(LearnerState.empty(), batch(history), model).state
    whole, bounds = joined([batch(history[3:]), batch(history[:1])])
    with pytest.raises(AnswersOutOfOrder):
        absorb_crowd(crowd_of([LearnerState.empty(), late]), whole, bounds, model)

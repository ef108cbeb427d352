"""Made-up answers of a learner, as the services would resolve them."""

import numpy as np

from engine.types import AnswerBatch
from store.answers import NewAnswers

START = 1_760_000_000.0
DAY = 86_400.0


def made_answers(
    n: int,
    *,
    seed: int = 0,
    start: float = START,
    prefix: str = "a",
    shuffled: bool = False,
    concepts: int = 12,
) -> NewAnswers:
    """`n` answers over some weeks: own concepts with weight 1, encompassed ones below, ids `prefix`-0 and on."""
    rng = np.random.default_rng(seed)
    times = start + np.cumsum(rng.exponential(0.2 * DAY, n))
    times[rng.random(n) < 0.1] = times[0] if n else 0.0
    times = np.sort(times)
    if shuffled:
        rng.shuffle(times)
    counts = rng.integers(1, 4, n)
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    concept = np.concatenate([rng.choice(concepts, count, replace=False) for count in counts] or [[]])
    weight = np.full(len(concept), 0.3, np.float32)
    weight[offsets[:-1]] = 1.0
    correct = (rng.random(n) < 0.7).astype(np.uint8)
    batch = AnswerBatch(
        question=rng.integers(0, 50, n).astype(np.uint32),
        correct=correct,
        answered_at=times,
        base_logit=rng.normal(0.5, 1.0, n).astype(np.float32),
        grade=np.where(correct == 1, rng.integers(2, 5, n), 1).astype(np.uint8),
        duration_ms=rng.integers(0, 90_000, n).astype(np.uint32),
        hints=rng.integers(0, 3, n).astype(np.uint8),
        local_day=(times // DAY).astype(np.int32),
        memory_set=np.zeros(n, np.uint16),
        offsets=offsets,
        concept=concept.astype(np.uint32),
        weight=weight,
        mastery=np.full(len(concept), np.nan, np.float32),
        mastery_sd=np.full(len(concept), np.nan, np.float32),
    )
    return NewAnswers(
        batch,
        [f"{prefix}-{i}" for i in range(n)],
        ["s-1" if i % 2 else "" for i in range(n)],
        ["r-é" if i % 5 == 0 else "" for i in range(n)],
        rng.integers(0, 4, n).astype(np.uint8),
        np.ones(n, np.uint8),
        start + 400 * DAY,
    )


def part(answers: NewAnswers, chosen: list[int]) -> NewAnswers:
    """Some of the answers, in the order of `chosen`."""
    old = answers.batch
    pairs = [range(old.offsets[i], old.offsets[i + 1]) for i in chosen]
    flat = np.array([pair for span in pairs for pair in span], np.intp)
    index = np.array(chosen, np.intp)
    offsets = np.concatenate(([0], np.cumsum([len(span) for span in pairs]))).astype(np.int32)
    by_pair = {name: getattr(old, name)[flat] for name in ("concept", "weight", "mastery", "mastery_sd")}
    by_answer = {
        name: getattr(old, name)[index] for name in old._fields if name != "offsets" and name not in by_pair
    }
    return answers._replace(
        batch=AnswerBatch(offsets=offsets, **by_answer, **by_pair),
        answer_id=[answers.answer_id[i] for i in chosen],
        session_id=[answers.session_id[i] for i in chosen],
        recommendation_id=[answers.recommendation_id[i] for i in chosen],
        device=answers.device[index],
        timed=answers.timed[index],
    )

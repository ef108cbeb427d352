"""Slow, obvious twins of the kernels that score and draw, and of what they know of a learner's tastes."""

import math
from typing import Any

import numpy as np

from engine.collaborative import CONFIDENCE
from tests.naive_recommend import Array, chance, in_steps, listed


def leaned(predicted: float, standing: float, easier: float, evidence: float) -> float:
    """Return the mean, in log odds, of the model's chance and the concept's own, by how little the model has seen."""
    share = 0.75 / (1.0 + evidence)
    own = math.log(standing / (1.0 - standing)) + easier
    z = (1.0 - share) * math.log(predicted / (1.0 - predicted)) + share * own
    return 1.0 / (1.0 + math.exp(-z))


def terms(
    questions: Any,
    rows: list[dict[str, float]],
    question: int,
    p: float,
    met: dict[int, float],
    shown: set[int],
    take_up: list[float],
    factor: Array,
    profile: Array,
    asked: dict[str, float],
) -> dict[str, float]:
    """Return every term of one candidate; `met` maps a recent question to hours since, `take_up` has one a source."""
    own = listed(questions.concept_offsets, questions.concept_rows, question)
    chosen = questions.exercise_set[question]
    start, end = questions.exercise_offsets[chosen], questions.exercise_offsets[chosen + 1]
    exercised = [
        (int(questions.exercise_rows[e]), float(questions.exercise_weights[e])) for e in range(start, end)
    ]
    gain = math.prod(1.0 - e * (p * rows[c]["RIGHT"] + (1.0 - p) * rows[c]["WRONG"]) for c, e in exercised)
    cost = math.prod(1.0 - e * rows[c]["RETENTION"] for c, e in exercised)
    liked = 0.0
    if question < len(questions.factors):
        liked = min(
            1.0, max(0.0, float(np.dot(in_steps(factor, 32767), in_steps(questions.factors[question], 127))))
        )
    seconds = float(questions.seconds[question])
    length = min(1.0, seconds / 180.0)
    fit = min(1.0, asked["available"] / seconds) if asked["available"] > 0 else 1.0
    effort = 0.5 * (1.0 - p) + 0.5 * length
    again = 0.5 ** (met[question] / 24.0) if question in met else 0.0
    zone = math.exp(-0.5 * ((p - asked["target"]) / (0.25 if p < asked["target"] else 0.12)) ** 2)
    return {
        "zone": zone,
        "gain": (1.0 - gain) * (0.2 + 0.8 * zone),
        "retention": 1.0 - cost,
        "readiness": min(rows[c]["READY"] for c in own),
        "objective": max(rows[c]["TOWARDS"] for c in own),
        "collaborative": max(rows[c]["FOLLOWS"] for c in own) * (0.5 + 0.5 * liked),
        "content": min(
            1.0, max(0.0, float(np.dot(in_steps(profile, 32767), in_steps(questions.content[question], 127))))
        ),
        "context": fit * (1.0 - asked["fatigue"] * effort) * (1.0 - 0.5 * asked["small"] * length),
        "engagement": sum(take_up) / len(take_up),
        "popularity": float(questions.popularity[question]),
        "repetition": max(again, 0.5) if question in shown else again,
        "diversity": 0.0,
    }


def draw(
    scores: list[float],
    concepts: list[int],
    review: list[bool],
    penalty: float,
    temperature: float,
    seed: int,
    count: int,
) -> list[tuple[int, float, float, float]]:
    """Return (candidate, sameness, chance, score) rank by rank."""
    left = list(range(len(scores)))
    drawn: list[tuple[int, float, float, float]] = []
    for rank in range(count):
        above = [i for i, *_ in drawn]
        same = {i: sameness(i, above, concepts, review) for i in left}
        now = {i: scores[i] - penalty * same[i] for i in left}
        best = max(now.values())
        if temperature == 0.0:
            pick, odds = next(i for i in left if now[i] == best), 1.0
        else:
            mass = {i: math.exp((now[i] - best) / temperature) for i in left}
            total = sum(mass.values())
            point = chance(seed, 7919 + rank) * total
            pick = left[-1]
            for i in left:
                point -= mass[i]
                if point < 0.0:
                    pick = i
                    break
            odds = mass[pick] / total
        drawn.append((pick, same[pick], odds, now[pick]))
        left.remove(pick)
    return drawn


def sameness(i: int, above: list[int], concepts: list[int], review: list[bool]) -> float:
    """Return the value of `diversity` of a candidate under those drawn before."""
    among = sum(concepts[i] == concepts[j] for j in above)
    run = len(above) >= 2 and review[above[-1]] == review[above[-2]] == review[i]
    return 1.0 - 0.5**among * (0.75 if run else 1.0)


def best_left(
    scores: list[float], concepts: list[int], review: list[bool], penalty: float, drawn: list[int]
) -> float:
    """Return the best score left after a draw, minus infinity when nothing is."""
    left = [i for i in range(len(scores)) if i not in drawn]
    return max((scores[i] - penalty * sameness(i, drawn, concepts, review) for i in left), default=-math.inf)


def fold_in(factors: Array, gram: Array, rows: Array, confidence: Array) -> Array:
    """Return the minimiser by solving the normal equations."""
    known = [i for i, row in enumerate(rows) if row < len(factors)]
    system = np.array(gram, np.float64)
    target = np.zeros(len(gram))
    for i in known:
        y = np.array(factors[rows[i]], np.float64)
        system += float(confidence[i]) * np.outer(y, y)
        target += (1.0 + float(confidence[i])) * y
    return np.linalg.solve(system, target)


def tastes(recent: Array, content: Array, now: float) -> tuple[dict[int, float], Array]:
    """Return (confidence by question, unit profile) from a learner's recent questions."""
    weights = {
        int(r["question"]): CONFIDENCE * 0.5 ** ((now - float(r["at"])) / (14 * 86400.0))
        for r in recent
        if r["question"] != 0xFFFFFFFF
    }
    profile = sum((w * content[q].astype(np.float64) for q, w in weights.items()), np.zeros(content.shape[1]))
    length = float(np.linalg.norm(profile))
    return weights, profile / length if length else profile

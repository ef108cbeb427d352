"""Slow, obvious twins of what is read off other learners: where one stands, what followed, where that leads."""

import math
from typing import Any


def standing(answers: list[list[int]]) -> dict[int, float]:
    """Return how much each concept counts after these answers, the concepts of each."""
    weights: dict[int, float] = {}
    for age, concepts in enumerate(reversed(answers)):
        for concept in concepts:
            weights.setdefault(concept, 1.0 / (1.0 + age / 10.0))
    return weights


def followed(just: list[int], ahead: list[tuple[list[int], bool]]) -> dict[int, float]:
    """Return the value of each concept turned to in the answers ahead, (concepts, right) each."""
    outcomes: dict[int, list[bool]] = {}
    for concepts, right in ahead[:400]:
        for concept in concepts:
            if concept not in just:
                outcomes.setdefault(concept, []).append(right)
    return {
        concept: (0.5 + 0.5 * sum(told[:10]) / len(told[:10])) / (1.0 + rank / 3.0)
        for rank, (concept, told) in enumerate(outcomes.items())
    }


def follow(peers: Any, touched: Any, applied: int, size: int) -> list[float]:
    """Return how strongly others' practice leads to each concept."""
    known = len(peers.place)
    weights = {
        int(r["row"]): 1.0 / (1.0 + (applied - 1 - int(r["last_step"])) / 10.0)
        for r in touched
        if r["attempts"] > 0
    }
    led = [0.0] * size
    for concept, weight in weights.items():
        if concept < known:
            entries = slice(peers.beside_offsets[concept], peers.beside_offsets[concept + 1])
            for other, cosine in zip(peers.beside_rows[entries], peers.beside_values[entries], strict=True):
                if other < size:
                    led[other] += 0.1 * weight / sum(weights.values()) * float(cosine)
    places = [weight * peers.place[c].astype(float) for c, weight in weights.items() if c < known]
    x = [sum(component) for component in zip(*places, strict=True)]
    length = math.sqrt(sum(component * component for component in x))
    near = sorted(
        (
            (sum(a * float(b) for a, b in zip(x, centre, strict=True)) / length, cell)
            for cell, centre in enumerate(peers.centre.T)
            if length
        ),
        key=lambda found: (-found[0], found[1]),
    )
    near = [(cosine**8, cell) for cosine, cell in near[:4] if cosine > 0.0]
    for strength, cell in near:
        entries = slice(peers.next_offsets[cell], peers.next_offsets[cell + 1])
        for other, value in zip(peers.next_rows[entries], peers.next_values[entries], strict=True):
            if other < size:
                led[other] += strength / sum(strength for strength, _ in near) * float(value)
    return [min(1.0, value) for value in led]

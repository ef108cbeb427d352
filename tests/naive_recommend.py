"""Slow, obvious twins of the kernels that find candidates: lists and dictionaries, right by reading."""

import math
from typing import Any

import numpy as np

from engine.policy import SOURCES
from tests import naive_peers

Array = Any
DUE, NEARLY, FULLY = 0.9, 0.70, 0.85


def chance(seed: int, counter: int) -> float:
    """Return a SplitMix64 draw in whole numbers modulo 2^64."""
    mask = (1 << 64) - 1
    z = (seed + (counter + 1) * 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    z ^= z >> 31
    return (z >> 11) / 2**53


def listed(offsets: Array, rows: Array, index: int) -> list[int]:
    """Return one list of a CSR structure."""
    return [int(row) for row in rows[offsets[index] : offsets[index + 1]]]


def in_steps(vector: Array, steps: int) -> Array:
    """Return a vector in whole steps, so many for its largest component: 127 on a card, 32767 of a learner."""
    step = float(np.abs(vector).max()) / steps
    exact = np.asarray(vector, np.float64)
    return np.floor(exact / step + 0.5) * step if step else exact


def distances(offsets: Array, rows: Array, start: int) -> dict[int, int]:
    """Return the least number of steps to everything reached from `start`."""
    known = {start: 0}
    edge = [start]
    while edge:
        edge = [
            further
            for here in edge
            for further in listed(offsets, rows, here)
            if known.setdefault(further, known[here] + 1) == known[here] + 1
        ]
        edge = [row for row in dict.fromkeys(edge) if known[row] > 0]
    return known


def readiness(
    needs: dict[int, list[tuple[int, bool]]], mastery: Array, mastered: Array, attempts: Array
) -> tuple[list[float], list[float]]:
    """Return (proven, ready) by repeating the definition until nothing changes."""
    size = len(mastery)
    proven = [1.0 if mastered[c] else (float(mastery[c]) if attempts[c] else 0.0) for c in range(size)]
    changed = True
    while changed:
        changed = False
        for c in range(size):
            for need, hard in needs[c]:
                if hard and proven[c] >= NEARLY and proven[need] < proven[c]:
                    proven[need] = proven[c]
                    changed = True
    ready = []
    for c in range(size):
        hard_ones = [proven[need] for need, hard in needs[c] if hard]
        soft_ones = [ease(proven[need]) for need, hard in needs[c] if not hard]
        value = 0.0 if any(p < NEARLY for p in hard_ones) else min(map(ease, hard_ones), default=1.0)
        ready.append(value * (0.2 + 0.8 * sum(soft_ones) / len(soft_ones)) if soft_ones else value)
    return proven, ready


def ease(proven: float) -> float:
    """Return how easy a prerequisite makes what needs it."""
    return min(1.0, max(0.0, (proven - 0.5) / (FULLY - 0.5)))


def recall_after(days: float, stability: float, w: Array) -> float:
    """Return FSRS-6 retrievability."""
    factor = 0.9 ** (-1.0 / w[20]) - 1.0
    return float((1.0 + factor * days / stability) ** -w[20])


def remembering(recall: float, stability: float, difficulty: float, grade: int, w: Array) -> float:
    """Return the rise of recall a week ahead by a review now."""
    from engine.learner.memory import review

    factor = 0.9 ** (-1.0 / w[20]) - 1.0
    elapsed = stability / factor * (recall ** (-1.0 / w[20]) - 1.0)
    after, _ = review(stability, difficulty, elapsed, grade, w)
    return max(0.0, recall_after(7.0, after, w) - recall_after(elapsed + 7.0, stability, w))


def learning(mastery: float, factor: float) -> float:
    """Return the share of the largest rise that odds growing by `factor` give."""

    def rise(m: float, by: float) -> float:
        odds = m / (1.0 - m) * by
        return odds / (1.0 + odds) - m

    most = 1.35**0.5
    return rise(mastery, factor) / rise(1.0 / (1.0 + most), 1.35)


def known_after(known: float, right: bool) -> float:
    """Return Bayes' rule for a concept that is known or not: guess .2, slip .1."""
    if_known, if_not = (0.9, 0.2) if right else (0.1, 0.8)
    return known * if_known / (known * if_known + (1.0 - known) * if_not)


def known_by(outcomes: list[bool]) -> float:
    """Return the chance that a concept is known after these answers, oldest first."""
    known = 0.2
    for right in outcomes:
        known = known_after(known, right)
        known = known + 0.1 * (1.0 - known)
    return known


def evidence_of(outcomes: list[bool]) -> float:
    """Return how much likelier these answers are of a concept that can be learned than of guesses alone."""
    states = {True: 0.2, False: 0.8}  # joint chance of being known and of the answers so far
    guesses = 1.0
    for right in outcomes:
        known = states[True] * (0.9 if right else 0.1)
        unknown = states[False] * (0.2 if right else 0.8)
        states = {True: known + 0.1 * unknown, False: 0.9 * unknown}
        guesses *= 0.2 if right else 0.8
    return min(max(sum(states.values()) / guesses, 0.05), 20.0)


def promise(known: float, mastery: float, factor: float) -> float:
    """Return the geometric mean of what all-or-none and gradual learning leave to learn."""
    return math.sqrt((1.0 - known) * (1.0 - mastery) * learning(mastery, factor) ** 0.5)


def standing_of(
    arrays: Any, touched: Array, view: Array, counts: Array, mastered: Array
) -> tuple[dict[int, float], list[float], list[float], dict[int, list[int]]]:
    """Return by concept the chance that answers tell of, how far it is proven, how ready for it, and what it lacks."""
    size = len(view)
    needs = {
        c: [
            (int(arrays.need_rows[e]), bool(arrays.need_hard[e]))
            for e in range(arrays.need_offsets[c], arrays.need_offsets[c + 1])
        ]
        for c in range(size)
    }
    mastery = view[:, 0]
    answers = {
        int(r["row"]): [digit == "1" for digit in bin(int(r["pattern"]))[3:]]
        for r in touched
        if r["attempts"] > 0
    }
    kept = {c: 1.0 if math.isnan(view[c, 2]) else float(view[c, 2]) for c in answers}
    told = {c: known_by(answers[c]) * kept[c] for c in answers}
    speaks = [0.7 * told[c] + 0.3 * float(mastery[c]) * kept[c] if c in told else 0.0 for c in range(size)]
    proven, ready = readiness(needs, speaks, mastered, counts[:, 0])
    for c in answers:
        if any(hard for _, hard in needs[c]) and ready[c] > 0.0:
            ratio = evidence_of(answers[c]) * min(ready[c], 0.95) / (1.0 - min(ready[c], 0.95))
            ready[c] = ratio / (1.0 + ratio)
    lacking = {c: [n for n, hard in needs[c] if hard and proven[n] < NEARLY] for c in range(size)}
    return told, proven, ready, lacking


def wanted_by(
    arrays: Any,
    c: int,
    row: dict[str, float],
    profile: Array,
    asked: dict[str, float],
    recall: float,
    attempts: int,
    mastered: bool,
) -> dict[str, tuple[bool, float]]:
    """Return for each source whether it wants the concept, and how much."""
    due = recall < DUE
    fresh = not mastered
    luck = chance(int(asked["seed"]), c)
    near = float(np.dot(in_steps(profile, 32767), arrays.centroid[c] * float(arrays.centroid_step[c])))
    gain = asked["target"] * row["RIGHT"] + (1.0 - asked["target"]) * row["WRONG"]
    return {
        "review": (due and attempts > 0, row["RETENTION"]),
        "frontier": (fresh, gain),
        "objective": (row["TOWARDS"] > 0.0 and (due or fresh), row["TOWARDS"]),
        "collaborative": (row["FOLLOWS"] > 0.0, row["FOLLOWS"]),
        "content": (near > 0.0, near),
        "exploration": (fresh and attempts < 3, luck),
        "random": (True, luck),
        "start": (asked["history"] == 0, float(arrays.importance[c])),
        "fill": (True, float(arrays.importance[c])),
    }


def survey(
    arrays: Any,
    touched: Array,
    view: Array,
    counts: Array,
    mastered: Array,
    peers: Any,
    w: Array,
    profile: Array,
    asked: dict[str, float],
) -> tuple[list[dict[str, float]], dict[str, list[float]]]:
    """Return (a dictionary a concept, wishes of each source by concept)."""
    size = len(view)
    told, proven, ready, lacking = standing_of(arrays, touched, view, counts, mastered)
    objective = int(asked["objective"])
    steps = distances(arrays.need_offsets, arrays.need_rows, objective) if objective >= 0 else {}
    led = naive_peers.follow(peers, touched, int(asked["history"]), size)
    rows: list[dict[str, float]] = []
    wishes: dict[str, list[float]] = {source: [-1.0] * size for source in SOURCES}
    for c in range(size):
        waiting = [d for d in range(size) if c in lacking[d]]
        unlock = min(1.0, sum(float(arrays.importance[d]) / len(lacking[d]) for d in waiting))
        m = min(max(float(view[c, 0]), 0.001), 0.999)
        recall, stability, difficulty = (float(x) for x in view[c, 2:5])
        chance_known = told.get(c, 0.2)
        gains = [ready[c] * promise(chance_known, m, factor) for factor in (1.35, 1.105)]
        cost = 0.0
        if not math.isnan(recall):
            gains = [
                1.0
                - (1.0 - gain)
                * (1.0 - 0.5 * chance_known * remembering(recall, stability, difficulty, grade, w))
                for gain, grade in zip(gains, (3, 1), strict=True)
            ]
            known = 1.0 if mastered[c] else (int(counts[c, 1]) + 0.5) / (int(counts[c, 0]) + 1.0)
            cost = min(1.0, known) * (1.0 - recall) / (1.0 - recall + 1.0 - DUE)
        worth = 0.5 + 0.5 * max(float(arrays.importance[c]), unlock)
        towards = 0.0
        if c in steps:
            towards = 1.0 - 0.5 * steps[c] / max(1, *steps.values())
            towards *= 1.0 if proven[c] < FULLY else 0.5
        follows = led[c]
        standing = m
        if c in told:
            success = 0.2 + 0.7 * told[c]
            level = 0.3 * math.log(m / (1.0 - m)) + 0.7 * math.log(success / (1.0 - success))
            standing = 1.0 / (1.0 + math.exp(-level))
        row = {
            "READY": ready[c], "RIGHT": worth * gains[0], "WRONG": worth * gains[1], "RETENTION": cost,
            "TOWARDS": towards, "FOLLOWS": follows, "STANDING": standing, "UNLOCKS": len(waiting),
            "STEPS": steps.get(c, -1),
        }  # fmt: skip
        rows.append(row)
        if arrays.active[c] and ready[c] > 0.0:
            wanted = wanted_by(arrays, c, row, profile, asked, recall, int(counts[c, 0]), bool(mastered[c]))
            for source, (applies, value) in wanted.items():
                if applies:
                    wishes[source][c] = value
    return rows, wishes


class Gathering:
    """Candidates in order, each with the sources that proposed it and the concept it stands for."""

    def __init__(self, questions: Any, ready: list[float], blocked: set[int]) -> None:
        self.questions = questions
        self.ready = ready
        self.blocked = blocked
        self.rows: list[int] = []
        self.sources: dict[int, set[str]] = {}
        self.concepts: dict[int, int] = {}
        self.counts = dict.fromkeys(SOURCES, 0)

    def offer(self, row: int, source: str, concept: int | None) -> None:
        """Take in a question unless there is a reason not to."""
        if row in self.sources:
            if source not in self.sources[row]:
                self.sources[row].add(source)
                self.counts[source] += 1
            return
        own = listed(self.questions.concept_offsets, self.questions.concept_rows, row)
        if row in self.blocked or not self.questions.active[row] or not own:
            return
        if all(self.ready[c] > 0.0 for c in own):
            self.rows.append(row)
            self.sources[row] = {source}
            self.concepts[row] = own[0] if concept is None else concept
            self.counts[source] += 1

    def walk(self, shelf: list[int], up: int, source: str, count: int, concept: int | None) -> None:
        """Offer from `up` outwards, first above, until `count` more are counted."""
        above, below = shelf[up:], shelf[:up][::-1]
        order: list[int] = []
        while above or below:
            if above:
                order.append(above.pop(0))
            if below:
                order.append(below.pop(0))
        goal = self.counts[source] + count
        for row in order:
            if self.counts[source] >= goal:
                return
            self.offer(row, source, concept)

    def from_concepts(
        self,
        arrays: Any,
        standing: list[float],
        wishes: list[float],
        source: str,
        quota: int,
        target: float,
        seed: int,
    ) -> None:
        """Offer questions of the concepts that the source wants most."""
        few = quota if source in ("random", "fill") else math.ceil(quota / 4)
        order = [c for c in sorted(range(len(wishes)), key=lambda c: (-wishes[c], c)) if wishes[c] >= 0.0]
        chosen = order[: min(64, few)]
        if not chosen:
            return
        each = max(1 if source == "random" else 4, math.ceil(quota / len(chosen)))
        goal = self.counts[source] + quota
        for c in chosen:
            offsets = self.questions.shelf_offsets
            shelf = listed(offsets, self.questions.shelf_rows, c)
            logits = [float(x) for x in self.questions.shelf_logit[offsets[c] : offsets[c + 1]]]
            luck = chance(seed, 1000003 * (SOURCES.index(source) + 1) + c)
            up = int(luck * len(shelf))
            if source != "random":
                m = standing[c]
                wanted = (
                    math.log(target / (1 - target)) - math.log(m / (1 - m)) + float(arrays.median_logit[c])
                )
                close = [i for i, z in enumerate(logits) if wanted - 0.25 <= z < wanted + 0.25]
                above = [i for i, z in enumerate(logits) if z >= wanted - 0.25]
                first = (close or above or [len(shelf) - 1])[0]
                up = first + int(luck * len(close))
            self.walk(shelf, up, source, min(each, goal - self.counts[source]), c)


def gather(
    arrays: Any,
    questions: Any,
    ready: list[float],
    standing: list[float],
    wishes: dict[str, list[float]],
    quotas: dict[str, int],
    neighbours: list[int],
    blocked: set[int],
    target: float,
    seed: int,
    wanted: int,
) -> Gathering:
    """Return the candidates of every source in turn."""
    found = Gathering(questions, ready, blocked)
    for source in SOURCES:
        quota = quotas[source]
        if source == "fill" and len(found.rows) < wanted:
            quota = 2 * wanted
        if quota and source in ("collaborative", "popular"):
            rows = neighbours if source == "collaborative" else [int(row) for row in questions.popular]
            found.walk(rows, 0, source, quota, None)
            quota -= found.counts[source]
        if quota > 0:
            found.from_concepts(arrays, standing, wishes[source], source, quota, target, seed)
    return found

"""The learner model said slowly: whole histories kept, every sum taken anew. Twin of the kernels in engine.learner."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

SETTINGS = ({"v_global": 0.6, "v_concept": 0.8, "q_global": 0.002, "q_concept": 0.02},
            {"v_global": 1.0, "v_concept": 1.5, "q_global": 0.01, "q_concept": 0.1})  # fmt: skip
NAMES = ("slow", "fast")
SCALES = {"10min": 600, "4h": 4 * 3600, "2d": 2 * 86400, "20d": 20 * 86400}
RING = 40


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def recall(days: float, stability: float, w: list[float]) -> float:
    factor = 0.9 ** (-1 / w[20]) - 1
    return float((1 + factor * days / stability) ** -w[20])


def review(
    stability: float, difficulty: float, days: float, grade: int, w: list[float]
) -> tuple[float, float]:
    def first(g: int) -> float:
        return w[4] - math.exp(w[5] * (g - 1)) + 1

    if stability == 0:
        return max(w[grade - 1], 0.001), min(max(first(grade), 1), 10)
    if days < 1:
        growth = math.exp(w[17] * (grade - 3 + w[18])) * stability ** -w[19]
        after = stability * (growth if grade == 1 else max(1, growth))
    elif grade == 1:
        forgot = math.exp((1 - recall(days, stability, w)) * w[14])
        after = w[11] * difficulty ** -w[12] * ((stability + 1) ** w[13] - 1) * forgot
        after = min(after, stability / math.exp(w[17] * w[18]))
    else:
        rise = math.exp(w[8]) * (11 - difficulty) * stability ** -w[9]
        rise *= math.exp((1 - recall(days, stability, w)) * w[10]) - 1
        after = stability * (1 + rise * {2: w[15], 3: 1, 4: w[16]}[grade])
    damped = difficulty - w[6] * (grade - 3) * (10 - difficulty) / 9
    return max(after, 0.001), min(max(w[7] * first(4) + (1 - w[7]) * damped, 1), 10)


@dataclass
class Answer:
    question: int
    correct: int
    at: float
    base: float
    grade: int
    pairs: list[tuple[int, float]]
    day: int = 0
    seconds: float = 0.0

    @property
    def own(self) -> list[int]:
        return [concept for concept, weight in self.pairs if weight >= 1]


@dataclass
class Memory:
    stability: float = 0.0
    difficulty: float = 0.0
    at: int = 0

    def practise(self, weight: float, at: int, grade: int, w: list[float]) -> None:
        before = self.stability
        days = max(at - self.at, 0) // 86400
        stability, difficulty = review(before, self.difficulty, days, grade, w)
        if weight >= 1:
            self.stability, self.difficulty, self.at = stability, difficulty, at
        elif before == 0:
            if grade > 1:
                self.stability, self.difficulty, self.at = stability * weight, difficulty, at
        else:
            if grade > 1 or stability < before:
                self.stability = math.exp((1 - weight) * math.log(before) + weight * math.log(stability))
                self.difficulty += weight * (difficulty - self.difficulty)
            if grade > 1 and at > self.at:
                self.at += math.floor(weight * (at - self.at))


@dataclass
class Learner:
    """Everything is read off `history`, but for what only a recursion can say: filters, memories and streaks."""

    w: list[float]
    history: list[Answer] = field(default_factory=list)
    level: list[float] = field(default_factory=lambda: [0.0, 0.0])
    variance: list[float] = field(default_factory=lambda: [s["v_global"] for s in SETTINGS])
    concept_level: dict[tuple[int, int], float] = field(default_factory=dict)
    concept_variance: dict[tuple[int, int], float] = field(default_factory=dict)
    memory: dict[int, Memory] = field(default_factory=dict)
    question_memory: dict[int, Memory] = field(default_factory=dict)
    streak: int = 0
    longest: int = 0
    freezes: int = 0
    freezes_spent: int = 0
    last_day: int | None = None

    def of(self, j: int, concept: int) -> tuple[float, float]:
        start = SETTINGS[j]["v_concept"]
        return self.concept_level.get((j, concept), 0.0), self.concept_variance.get((j, concept), start)

    def answer(self, a: Answer) -> None:
        for j, setting in enumerate(SETTINGS):
            k = max(len(a.own), 1)
            z = self.level[j] + sum(self.of(j, c)[0] for c in a.own) / k + a.base
            spread = self.variance[j] + sum(self.of(j, c)[1] for c in a.own) / k**2
            p = sigmoid(z)
            w = p * (1 - p)
            damp = 1 + w * spread
            for concept, weight in a.pairs:
                mean, v = self.of(j, concept)
                gain = v / k if weight >= 1 else v * weight
                share = 1 / k if weight >= 1 else weight
                self.concept_level[j, concept] = mean + gain * (a.correct - p) / damp
                self.concept_variance[j, concept] = v - gain**2 * w / damp + setting["q_concept"] * share
            v = self.variance[j]
            self.level[j] += v * (a.correct - p) / damp
            self.variance[j] = v - v**2 * w / damp + setting["q_global"]
        for concept, weight in a.pairs:
            self.memory.setdefault(concept, Memory()).practise(weight, math.floor(a.at), a.grade, self.w)
        if a.question not in self.question_memory:
            self.question_memory[a.question] = Memory()
        self.question_memory[a.question].practise(1.0, math.floor(a.at), a.grade, self.w)
        self.practise_day(a.day, a.at)
        self.history.append(a)
        for question in list(self.question_memory):
            if question not in self.remembered():
                del self.question_memory[question]

    def practise_day(self, day: int, at: float) -> None:
        if self.last_day is not None and day <= self.last_day:
            return
        missed = 0 if self.last_day is None else day - self.last_day - 1
        # Nobody misses a day in less than 24 hours, give or take the hour that clocks go forward.
        while missed and at - self.history[-1].at < missed * 86400 - 3600:
            missed -= 1
        if missed <= self.freezes:
            self.freezes -= missed
            self.freezes_spent += missed
            self.streak += 1
        else:
            self.streak = 1
        if self.streak % 7 == 0 or self.streak in (30, 60, 100, 365):
            self.freezes = min(self.freezes + 1, 2)
        self.longest = max(self.longest, self.streak)
        self.last_day = day

    def remembered(self) -> set[int]:
        """The questions a ring of 40 still holds: the most recently met ones."""
        met: list[int] = []
        for a in reversed(self.history):
            if a.question not in met:
                met.append(a.question)
        return set(met[:RING])

    def features(
        self, now: float, concepts: list[int], question: int, base: float, evidence: float
    ) -> dict[str, float]:
        """Named features of a question; the mean over its concepts."""
        f = self.global_features(now)
        each = [self.concept_features(c, now) for c in concepts] or [self.concept_features(-1, now)]
        for name in each[0]:
            f[name] = sum(e[name] for e in each) / len(each)
        k = max(len(concepts), 1)
        f["base"] = base
        f["question_evidence"] = math.log1p(evidence)
        for j, name in enumerate(NAMES):
            z = base + self.level[j] + sum(self.of(j, c)[0] for c in concepts) / k
            spread = self.variance[j] + sum(self.of(j, c)[1] for c in concepts) / k**2
            f[f"expected_{name}"] = z / math.sqrt(1 + 0.35 * spread)
        if question in self.remembered():
            f |= self.question_features(question, now)
        return f

    def global_features(self, now: float) -> dict[str, float]:
        h = self.history
        f = {"bias": 1.0}
        for j, name in enumerate(NAMES):
            f[f"ability_{name}"] = self.level[j]
            f[f"ability_sd_{name}"] = math.sqrt(self.variance[j])
        f |= windows("", h, (0.5, 0.8, 0.95, 0.99), 1.5) | counts("", h, now, [a.at for a in h])
        f["gap"] = math.log1p(now - h[-1].at) if h else 0.0
        session = 0
        for i, a in enumerate(h):
            session = session + 1 if i and a.at - h[i - 1].at <= 1800 else 1
        f["session_answers"] = math.log1p(session)
        f["run"] = run(h)
        return f

    def concept_features(self, concept: int, now: float) -> dict[str, float]:
        mine = [a for a in self.history if concept in a.own]
        f = {}
        for j, name in enumerate(NAMES):
            mean, v = self.of(j, concept)
            f[f"concept_ability_{name}"], f[f"concept_sd_{name}"] = mean, math.sqrt(v)
        f |= windows("concept_", mine, (0.4, 0.7, 0.9), 1.0)
        f |= counts("concept_", mine, now, [math.floor(a.at) for a in mine])
        f["concept_gap"] = math.log1p(now - math.floor(mine[-1].at)) if mine else 0.0
        implied = sum(any(c == concept and weight < 1 for c, weight in a.pairs) for a in self.history)
        f["concept_implied"] = math.log1p(implied)
        memory = self.memory.get(concept, Memory())
        if memory.stability > 0:
            f["concept_forgotten"] = 1 - recall(max(now - memory.at, 0) / 86400, memory.stability, self.w)
            f["concept_stability"] = math.log1p(memory.stability)
            f["concept_difficulty"] = (memory.difficulty - 5) / 5
        else:
            f |= {"concept_forgotten": 0.0, "concept_stability": 0.0, "concept_difficulty": 0.0}
        steps = len(self.history) - max(
            (i for i, a in enumerate(self.history) if concept in a.own), default=0
        )
        f["concept_new"] = float(not mine)
        f["concept_last"] = (2 * mine[-1].correct - 1) if mine else 0.0
        f["concept_steps"] = math.log1p(steps) if mine else 0.0
        f["concept_run"] = run(mine)
        just_now = bool(mine) and concept in self.history[-1].own[:4]
        f["concept_just_now"] = float(just_now)
        for name in ("last", "steps", "run"):
            f[f"concept_{name}_just_now"] = f[f"concept_{name}"] * just_now
        return f

    def question_features(self, question: int, now: float) -> dict[str, float]:
        met = [(i, a) for i, a in enumerate(self.history) if a.question == question]
        kept = [a for i, a in met if i >= self.kept_since(question)]
        i, last = met[-1]
        steps = len(self.history) - i
        outcome = 2 * last.correct - 1
        elapsed = now - math.floor(last.at)
        stability = self.question_memory[question].stability
        return {
            "question_last": outcome,
            "question_seen": math.log1p(min(len(kept), 255)),
            "question_right": math.log1p(min(sum(a.correct for a in kept), 255)),
            "question_steps": math.log1p(steps),
            "question_gap": math.log1p(elapsed),
            "question_forgotten": 1 - recall(elapsed / 86400, stability, self.w),
            "question_just_now": float(steps <= 1),
            "question_last_just_now": outcome * float(steps <= 1),
        }

    def kept_since(self, question: int) -> int:
        """The answer number since which the ring has held a question without a break."""
        since = 0
        others: set[int] = set()
        for i, a in enumerate(self.history):
            if a.question == question:
                since = i if len(others) >= RING else since
                others = set()
            else:
                others.add(a.question)
        return since


def windows(prefix: str, h: list[Answer], decays: tuple[float, ...], prior: float) -> dict[str, float]:
    f = {}
    for d in decays:
        weight = [d ** (len(h) - 1 - i) for i in range(len(h))]
        held = sum(weight) + prior
        f[f"{prefix}residual_{d}"] = (
            sum(x * (a.correct - sigmoid(a.base)) for x, a in zip(weight, h, strict=True)) / held
        )
        f[f"{prefix}outcome_{d}"] = (
            sum(x * (2 * a.correct - 1) for x, a in zip(weight, h, strict=True)) / held
        )
    return f


def counts(prefix: str, h: list[Answer], now: float, at: list[float]) -> dict[str, float]:
    right = sum(a.correct for a in h)
    f = {f"{prefix}right": math.log1p(right), f"{prefix}wrong": math.log1p(len(h) - right)}
    for name, scale in SCALES.items():
        fade = [math.exp(-(now - t) / scale) for t in at]
        f[f"{prefix}right_{name}"] = math.log1p(sum(x * a.correct for x, a in zip(fade, h, strict=True)))
        f[f"{prefix}tried_{name}"] = math.log1p(sum(fade))
    return f


def run(h: list[Answer]) -> float:
    """Signed log of how many answers in a row, up to the last, had the same outcome."""
    if not h:
        return 0.0
    n = 0
    for a in reversed(h):
        if a.correct != h[-1].correct:
            break
        n += 1
    return math.log1p(n) if h[-1].correct else -math.log1p(n)


def pattern(h: list[Answer], n: int) -> int:
    """The last n outcomes as bits behind a leading 1."""
    bits = 1
    for a in h[-n:]:
        bits = bits * 2 + a.correct
    return bits


def pair_hash(kind: int, first: int, second: int) -> int:
    mask = 2**64 - 1
    x = ((first << 32) ^ second ^ ((kind + 1) * 0x9E3779B97F4A7C15)) & mask
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & mask
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & mask
    return x ^ (x >> 31)


def pairs_of(learner: Learner, question: int, concepts: list[int]) -> list[int]:
    """Keys of the pair features of a question."""
    h = learner.history
    how = 0
    if question in learner.remembered():
        i = max(i for i, a in enumerate(h) if a.question == question)
        how = 1 + h[i].correct + (2 if i == len(h) - 1 else 0)
    first = [a for a in h if concepts and concepts[0] in a.own]
    keys = [
        pair_hash(0, question, how),
        pair_hash(1, question, pattern(first, 2)),
        pair_hash(2, question, pattern(h, 2)),
    ]
    if h:
        keys.append(pair_hash(3 + h[-1].correct, question, h[-1].question))
        if h[-1].own:
            keys.append(pair_hash(5 + h[-1].correct, concepts[0] if concepts else 0xFFFFFFFF, h[-1].own[0]))
    return keys

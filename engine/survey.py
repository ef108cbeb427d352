"""One look over every concept for one learner: what it would gain, what forgetting costs, which source wants
it.

Knows nothing of single questions. Work a call grows with the number of concepts, never with that of
questions.
"""

from typing import Final

import numpy as np

from engine.graph import FULLY_READY, NEARLY_MASTERED, readiness, spread
from engine.jit import kernel
from engine.learner.memory import days_until, retrievability, review
from engine.learner.state import Records
from engine.peers import Peers, follow
from engine.policy import SOURCES
from engine.serving import ConceptArrays
from engine.types import F4, F8, I4, NO_ROW, U1, U4

REVIEW, FRONTIER, OBJECTIVE, COLLABORATIVE, CONTENT, EXPLORATION, POPULAR, RANDOM, START, FILL = range(
    len(SOURCES)
)

# Columns of the survey, one row a concept; every value in [0, 1] but the last two.
READY, RIGHT, WRONG, RETENTION, TOWARDS, FOLLOWS, STANDING, UNLOCKS, STEPS = range(9)
SURVEY_WIDTH: Final = 9

# Places in the settings of one call.
NOW, TARGET, RECALL_TARGET, OBJECTIVE_ROW, AVAILABLE_S, FATIGUE, SMALL_SCREEN, HISTORY = range(8)
SETTINGS_WIDTH: Final = 8

LEARN_RIGHT = 1.35
"""Factor on the odds of mastery from one right answer: e^0.3, the middle of published PFA fits (Pavlik et al.
2009)."""

LEARN_WRONG = 1.105
"""Factor on the odds of mastery from one wrong answer and its correction: e^0.1."""

KNOWN_AT_FIRST = 0.2
GUESS = 0.2
SLIP = 0.1
LEARN = 0.1
"""Bayesian knowledge tracing (Corbett and Anderson 1995): chance that a concept is known before the first answer, of a
right answer without knowing it and a wrong one with, and of learning it at an answer. Customary values, not fitted."""

KNOWN_SHARE = 0.7
"""Weight of K, the chance that a concept is known by its last answers, against mastery, in what speaks for it."""

SUREST = 0.95
"""Most that is believed of a concept's prerequisites before its own answers say whether it can be learned at all."""

LEAST_EVIDENCE = 0.05
MOST_EVIDENCE = 20.0
"""Bounds of the likelihood ratio by which a concept's answers speak for or against its prerequisites."""

HELD_SHARE = 0.5
"""Weight of what a review keeps, against what practice teaches, in the expected gain."""

HORIZON_DAYS = 7.0
"""How far ahead recall is looked at when the gain of a review is weighed."""

RARELY = 3
"""A concept met fewer times than this is open to exploration."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


@kernel
def chance(seed: int, counter: int) -> float:
    """Return draw number `counter` of a seed, uniform on [0, 1): SplitMix64 (Steele, Lea and Flood 2014)."""
    z = np.uint64(seed) + (np.uint64(counter) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) / 9007199254740992.0


@kernel
def learning(mastery: float, factor: float) -> float:
    """Return the rise of `mastery` when its odds grow by `factor`, over the largest rise that factor can
    give.
    """
    rise = mastery * factor / (mastery * factor + 1.0 - mastery) - mastery
    root = np.sqrt(LEARN_RIGHT)
    return float(rise * (root + 1.0) / (root - 1.0))


@kernel
def known_after(known: float, right: bool) -> float:
    """Return the chance that a concept was known at an answer, given its outcome."""
    hit = known * (1.0 - SLIP if right else SLIP)
    return hit / (hit + (1.0 - known) * (GUESS if right else 1.0 - GUESS))


@kernel
def known_by(pattern: int) -> tuple[float, float]:
    """Return (K, evidence) from a concept's last answers, bits behind a leading 1, the newest lowest.

    K is the chance that the concept is known after them. Evidence is how much likelier they are when it can be learned
    than when it cannot, because what it rests on is not known, and all were guesses: a ratio held to LEAST_EVIDENCE
    and MOST_EVIDENCE, 1 without answers.
    """
    known = KNOWN_AT_FIRST
    evidence = 1.0
    place = 7
    while place > 0 and (pattern >> place) & 1 == 0:
        place -= 1
    for bit in range(place - 1, -1, -1):
        right = (pattern >> bit) & 1 == 1
        guessed = GUESS if right else 1.0 - GUESS
        evidence *= (known * ((1.0 - SLIP) if right else SLIP) + (1.0 - known) * guessed) / guessed
        known = known_after(known, right)
        known += (1.0 - known) * LEARN
    return known, min(max(evidence, LEAST_EVIDENCE), MOST_EVIDENCE)


@kernel
def remembering(recall: float, stability: float, difficulty: float, grade: int, w: F8) -> float:
    """Return how much recall `HORIZON_DAYS` ahead rises by a review of this FSRS grade now, against none; ≥
    0.
    """
    elapsed = days_until(stability, recall, w[20])
    left = retrievability(elapsed + HORIZON_DAYS, stability, w[20])
    after, _ = review(stability, difficulty, elapsed, grade, w)
    return max(0.0, retrievability(HORIZON_DAYS, after, w[20]) - left)


@kernel
def _unlocking(concepts: ConceptArrays, proven: F8, missing: I4, unlock: F8, out: F4) -> None:
    """Fill `missing` (hard prerequisites still lacking), `unlock` and out[:, UNLOCKS] by concept.

    unlock[c] = min(1, Σ importance(d) / missing(d)) over the closed concepts d that lack c.
    """
    for d in range(proven.shape[0]):
        missing[d] = 0
        for edge in range(concepts.need_offsets[d], concepts.need_offsets[d + 1]):
            if concepts.need_hard[edge] == 1 and proven[concepts.need_rows[edge]] < NEARLY_MASTERED:
                missing[d] += 1
    for c in range(proven.shape[0]):
        total = 0.0
        count = 0
        if proven[c] < NEARLY_MASTERED:
            for edge in range(concepts.open_offsets[c], concepts.open_offsets[c + 1]):
                d = concepts.open_rows[edge]
                if concepts.open_hard[edge] == 1 and missing[d] > 0:
                    total += concepts.importance[d] / missing[d]
                    count += 1
        unlock[c] = min(1.0, total)
        out[c, UNLOCKS] = count


@kernel
def _towards(concepts: ConceptArrays, objective: int, proven: F8, out: F4) -> None:
    """Fill out[:, TOWARDS] and out[:, STEPS] for the objective's prerequisite closure; STEPS is −1 outside
    it.

    TOWARDS is 1 − ½ · steps / (most steps) for what is not proven yet, half of that for what is, 0 outside.
    """
    distance = np.full(proven.shape[0], -1, np.int32)
    queue = np.empty(proven.shape[0], np.uint32)
    count = spread(concepts.need_offsets, concepts.need_rows, objective, NO_ROW, distance, queue)
    farthest = max(1, distance[queue[count - 1]])
    for position in range(count):
        c = queue[position]
        out[c, STEPS] = distance[c]
        share = 1.0 - 0.5 * distance[c] / farthest
        out[c, TOWARDS] = share if proven[c] < FULLY_READY else 0.5 * share


@kernel
def _speaking(touched: Records, view: F8, attempts: U4, known: F8, evidence: F8, speaks: F8) -> None:
    """Fill what answers say of the concepts practised, each (nc,): known and evidence by `known_by`, K as far as it is
    recalled; speaks, the mean of K and mastery by KNOWN_SHARE, likewise.
    """
    for i in range(touched.shape[0]):
        c = touched[i].row
        if c < known.shape[0] and attempts[c] > 0:
            chance_known, evidence[c] = known_by(int(touched[i].pattern))
            recall = 1.0 if np.isnan(view[c, 2]) else view[c, 2]
            known[c] = chance_known * recall
            speaks[c] = (KNOWN_SHARE * chance_known + (1.0 - KNOWN_SHARE) * view[c, 0]) * recall


@kernel
def _doubt(concepts: ConceptArrays, touched: Records, evidence: F8, ready: F8) -> None:
    """Let the answers to a practised concept raise or lower the readiness of it, by Bayes' rule.

    Who keeps failing what they should be ready for lacks something that it rests on. Concepts without hard
    prerequisites are left alone.
    """
    for i in range(touched.shape[0]):
        c = touched[i].row
        if touched[i].attempts == 0 or c >= ready.shape[0] or ready[c] <= 0.0:
            continue
        for edge in range(concepts.need_offsets[c], concepts.need_offsets[c + 1]):
            if concepts.need_hard[edge] == 1:
                prior = min(ready[c], SUREST)
                ready[c] = prior * evidence[c] / (prior * evidence[c] + 1.0 - prior)
                break


@kernel
def promise(known: float, mastery: float, factor: float) -> float:
    """Return what practice can teach, 0 to 1, for K as recalled, mastery, and the growth of its odds by an answer.

    The geometric mean of what two theories leave to learn: all-or-none learning, 1 - K (an answer teaches what is not
    known yet with a constant chance, whatever its outcome), and gradual growth, (1 - mastery)·√learning.
    """
    return float(np.sqrt((1.0 - known) * (1.0 - mastery) * np.sqrt(learning(mastery, factor))))


@kernel
def survey(
    concepts: ConceptArrays,
    touched: Records,
    view: F8,
    counts: U4,
    mastered: U1,
    peers: Peers,
    memory: F8,
    profile: F4,
    settings: F8,
    seed: int,
    out: F4,
    wishes: F4,
) -> None:
    """Look at every concept once for one learner; fills out (nc, SURVEY_WIDTH) and wishes (sources, nc).

    `touched` are the state's concept records; `view` (nc, 9), `counts` (nc, 4) and `mastered` (nc,) are what
    `engine.learner.view.view_concepts` fills. `peers` is what is known of other learners, `memory` (21,) are FSRS
    weights, `profile` (64,) the learner's place in content space. out holds, by column:

    - READY from `engine.graph.readiness`, on the mean of K, the chance that the concept is known by its last answers
      (`known_by`), and mastery, as far as recalled: a prior alone opens nothing, two right answers do; then as the
      concept's own answers speak for or against it (`_doubt`)
    - RIGHT and WRONG, the gain of practising it with either outcome: 1 − (1 − READY·promise)(1 − ½·K·remembering),
      times ½ + ½·max(importance, unlock); see `promise` and `remembering`
    - RETENTION, what forgetting costs: held · (1 − R) / (1 − R + 1 − R*), held being 1 when mastered, else
      (right + ½)/(tried + 1)
    - TOWARDS and STEPS, the objective; FOLLOWS, how strongly others' practice leads there (`engine.peers.follow`);
      STANDING, the chance on its median question by K and mastery in log odds, as KNOWN_SHARE says; UNLOCKS, how many
      closed concepts wait for it

    A wish is how much a source wants a concept, negative when not at all.
    """
    size = view.shape[0]
    mastery = view[:, 0].copy()
    attempts = counts[:, 0].copy()
    known = np.full(size, KNOWN_AT_FIRST)
    evidence = np.ones(size)
    speaks = mastery.copy()
    _speaking(touched, view, attempts, known, evidence, speaks)
    proven = np.empty(size)
    ready = np.empty(size)
    readiness(
        concepts.need_offsets, concepts.need_rows, concepts.need_hard, concepts.order,
        speaks, mastered, attempts, proven, ready,
    )  # fmt: skip
    _doubt(concepts, touched, evidence, ready)
    out[:, TOWARDS] = 0.0
    out[:, STEPS] = -1.0
    unlock = np.empty(size)
    _unlocking(concepts, proven, np.empty(size, np.int32), unlock, out)
    led = np.empty(size, np.float32)
    follow(peers, touched, int(settings[HISTORY]), led)
    if settings[OBJECTIVE_ROW] >= 0:
        _towards(concepts, int(settings[OBJECTIVE_ROW]), proven, out)
    for c in range(size):
        m = min(max(mastery[c], 0.001), 0.999)
        recall = view[c, 2]
        if ready[c] <= 0.0 and attempts[c] == 0 and np.isnan(recall):
            # Closed and never met: nothing can be gained or lost. Of most catalogues, most concepts are so.
            out[c, READY] = out[c, RIGHT] = out[c, WRONG] = out[c, RETENTION] = 0.0
            out[c, FOLLOWS] = led[c]
            out[c, STANDING] = m
            continue
        right = ready[c] * promise(known[c], m, LEARN_RIGHT)
        wrong = ready[c] * promise(known[c], m, LEARN_WRONG)
        cost = 0.0
        standing = m
        if not np.isnan(recall):
            share = HELD_SHARE * known[c]
            right = 1.0 - (1.0 - right) * (
                1.0 - share * remembering(recall, view[c, 3], view[c, 4], 3, memory)
            )
            wrong = 1.0 - (1.0 - wrong) * (
                1.0 - share * remembering(recall, view[c, 3], view[c, 4], 1, memory)
            )
            held = 1.0 if mastered[c] == 1 else (counts[c, 1] + 0.5) / (attempts[c] + 1.0)
            cost = min(1.0, held) * (1.0 - recall) / (2.0 - recall - settings[RECALL_TARGET])
        if attempts[c] > 0:
            success = GUESS + known[c] * (1.0 - SLIP - GUESS)
            odds = (m / (1.0 - m)) ** (1.0 - KNOWN_SHARE) * (success / (1.0 - success)) ** KNOWN_SHARE
            standing = odds / (1.0 + odds)
        worth = 0.5 + 0.5 * max(concepts.importance[c], unlock[c])
        out[c, READY] = ready[c]
        out[c, RIGHT] = worth * right
        out[c, WRONG] = worth * wrong
        out[c, RETENTION] = cost
        out[c, FOLLOWS] = led[c]
        out[c, STANDING] = standing
    _wish(concepts, view[:, 2].copy(), attempts, mastered, profile, settings, seed, out, wishes)


@kernel
def _wish(
    concepts: ConceptArrays,
    recall: F8,
    attempts: U4,
    mastered: U1,
    profile: F4,
    settings: F8,
    seed: int,
    out: F4,
    wishes: F4,
) -> None:
    """Fill wishes (sources, nc) from the survey; a closed or empty concept is wanted by nobody."""
    size = recall.shape[0]
    near = np.zeros(size, np.float32)
    # By component, not by concept: sums that need no reordering are what the compiler can vectorise.
    for j in range(profile.shape[0]):
        if profile[j] != 0.0:
            for c in range(size):
                near[c] += profile[j] * concepts.centroid[j, c]
    wishes[:] = -1.0
    for c in range(size):
        if concepts.active[c] == 0 or out[c, READY] <= 0.0:
            continue
        gain = settings[TARGET] * out[c, RIGHT] + (1.0 - settings[TARGET]) * out[c, WRONG]
        luck = chance(seed, c)
        due = recall[c] < settings[RECALL_TARGET]
        if due and attempts[c] > 0:
            wishes[REVIEW, c] = out[c, RETENTION]
        if mastered[c] == 0:
            wishes[FRONTIER, c] = gain
            if attempts[c] < RARELY:
                wishes[EXPLORATION, c] = luck
        if out[c, TOWARDS] > 0.0 and (due or mastered[c] == 0):
            wishes[OBJECTIVE, c] = out[c, TOWARDS]
        if out[c, FOLLOWS] > 0.0:
            wishes[COLLABORATIVE, c] = out[c, FOLLOWS]
        if settings[HISTORY] == 0.0:
            wishes[START, c] = concepts.importance[c]
        if near[c] > 0.0:
            wishes[CONTENT, c] = near[c]
        wishes[RANDOM, c] = luck
        wishes[FILL, c] = concepts.importance[c]

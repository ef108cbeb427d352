"""One look over the open concepts for one learner: what each would gain, what forgetting costs, which source wants it.

Knows nothing of single questions. Work a call grows with the number of concepts, never with that of questions.
"""

from typing import Final

import numpy as np

from engine.cards import FINE_STEPS, alike, coarsen
from engine.graph import FULLY_READY, spread
from engine.guide import Guide, follow
from engine.jit import kernel, lean_kernel
from engine.learner.memory import (
    MINIMUM_STABILITY,
    SECONDS_A_DAY,
    Forgetting,
    forgetting,
    recalled,
    stability_after,
)
from engine.learner.score import Weights
from engine.learner.state import Records
from engine.learner.update import Record
from engine.learner.view import Standing, doubt_of_new, stand, stand_new
from engine.openness import Openness, opened, room_for
from engine.policy import SOURCES
from engine.serving import ConceptArrays
from engine.types import F4, F8, I4, NO_ROW

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


@lean_kernel
def chance(seed: int, counter: int) -> float:
    """Return draw number `counter` of a seed, uniform on [0, 1): SplitMix64 (Steele, Lea and Flood 2014)."""
    z = np.uint64(seed) + (np.uint64(counter) + np.uint64(1)) * _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    z = z ^ (z >> np.uint64(31))
    return float(z >> np.uint64(11)) / 9007199254740992.0


@lean_kernel
def learning(mastery: float, factor: float) -> float:
    """Return the rise of `mastery` when its odds grow by `factor`, over the largest rise that factor can
    give.
    """
    rise = mastery * factor / (mastery * factor + 1.0 - mastery) - mastery
    root = np.sqrt(LEARN_RIGHT)
    return float(rise * (root + 1.0) / (root - 1.0))


@lean_kernel
def known_after(known: float, right: bool) -> float:
    """Return the chance that a concept was known at an answer, given its outcome."""
    hit = known * (1.0 - SLIP if right else SLIP)
    return hit / (hit + (1.0 - known) * (GUESS if right else 1.0 - GUESS))


@lean_kernel
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


@lean_kernel
def remembering(
    elapsed: float, stability: float, difficulty: float, recall: float, w: F8, f: Forgetting
) -> tuple[float, float]:
    """Return how much recall `HORIZON_DAYS` ahead rises by a review now, right or wrong, against none; each ≥ 0.

    `elapsed` are the days since the last review, `recall` the chance after them; right and wrong are the FSRS grades 3
    and 1.
    """
    decay = w[20]
    left = recalled(elapsed + HORIZON_DAYS, stability, decay, f.factor)
    right = max(stability_after(stability, difficulty, elapsed, 3, recall, w, f), MINIMUM_STABILITY)
    wrong = max(stability_after(stability, difficulty, elapsed, 1, recall, w, f), MINIMUM_STABILITY)
    return (
        max(0.0, recalled(HORIZON_DAYS, right, decay, f.factor) - left),
        max(0.0, recalled(HORIZON_DAYS, wrong, decay, f.factor) - left),
    )


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


@lean_kernel
def _speaking(touched: Records, view: F8, known: F8, evidence: F8, proof: F8, rows: I4) -> int:
    """Fill what answers say of the concepts touched, each (k,), and rows (k,); returns how many are in the catalogue.

    known and evidence are `known_by`'s, K as far as it is recalled; proof is 1 when mastered, 0 without answers, else
    the mean of K and mastery by KNOWN_SHARE, likewise.
    """
    for i in range(touched.shape[0]):
        c = touched[i].row
        if c >= view.shape[0]:
            return int(i)
        rows[i] = c
        known[i], evidence[i], proof[i] = KNOWN_AT_FIRST, 1.0, 0.0
        if touched[i].attempts > 0:
            chance_known, evidence[i] = known_by(int(touched[i].pattern))
            recall = 1.0 if np.isnan(view[c, 2]) else view[c, 2]
            known[i] = chance_known * recall
            proof[i] = (KNOWN_SHARE * chance_known + (1.0 - KNOWN_SHARE) * view[c, 0]) * recall
        if touched[i].mastered == 1:
            proof[i] = 1.0
    return int(touched.shape[0])


@lean_kernel
def _doubt(concepts: ConceptArrays, touched: Records, evidence: F8, ready: F8) -> None:
    """Let the answers to a practised concept raise or lower the readiness of it, by Bayes' rule.

    Who keeps failing what they should be ready for lacks something that it rests on. Concepts without hard
    prerequisites are left alone.
    """
    for i in range(evidence.shape[0]):
        c = touched[i].row
        if touched[i].attempts > 0 and ready[c] > 0.0 and concepts.missing[c] > 0:
            prior = min(ready[c], SUREST)
            ready[c] = prior * evidence[i] / (prior * evidence[i] + 1.0 - prior)


@lean_kernel
def promise(known: float, mastery: float, factor: float) -> float:
    """Return what practice can teach, 0 to 1, for K as recalled, mastery, and the growth of its odds by an answer.

    The geometric mean of what two theories leave to learn: all-or-none learning, 1 - K (an answer teaches what is not
    known yet with a constant chance, whatever its outcome), and gradual growth, (1 - mastery)·√learning.
    """
    return float(np.sqrt((1.0 - known) * (1.0 - mastery) * np.sqrt(learning(mastery, factor))))


@kernel
def survey(
    concepts: ConceptArrays,
    guide: Guide,
    header: Records,
    touched: Records,
    weights: Weights,
    memory: F8,
    profile: F4,
    settings: F8,
    seed: int,
    standing: Standing,
    out: F4,
    wishes: F4,
) -> None:
    """Look at every concept that is open, or was touched, once for one learner; fills standing, out and wishes.

    `header` (1,) and `touched` (k,) are the state's records, `weights` the learner model's, `guide` is what is known of
    other learners, `memory` (21,) are the FSRS weights in use, `profile` (64,) the learner's place in content space.
    out (nc, SURVEY_WIDTH) holds, by column:

    - READY from `engine.graph.readiness`, on the mean of K, the chance that the concept is known by its last answers
      (`known_by`), and mastery, as far as recalled: a prior alone opens nothing, two right answers do; then as the
      concept's own answers speak for or against it (`_doubt`)
    - RIGHT and WRONG, the gain of practising it with either outcome: 1 − (1 − READY·promise)(1 − ½·K·remembering),
      times ½ + ½·max(importance, unlock); see `promise` and `remembering`
    - RETENTION, what forgetting costs: held · (1 − R) / (1 − R + 1 − R*), held being 1 when mastered, else
      (right + ½)/(tried + 1)
    - TOWARDS and STEPS, the objective; FOLLOWS, how strongly others' practice leads there (`engine.guide.follow`);
      STANDING, the chance on its median question by K and mastery in log odds, as KNOWN_SHARE says; UNLOCKS, how many
      closed concepts wait for it

    Concepts that are neither open nor touched have 0 in all columns but TOWARDS and STEPS, and no standing. A wish,
    wishes (sources, nc), is how much a source wants a concept, negative when not at all; those of closed and of empty
    concepts are left as they are.
    """
    stand(header, touched, weights, settings[NOW], standing)
    size = out.shape[0]
    known, evidence = np.empty(touched.shape[0]), np.empty(touched.shape[0])
    proof, rows = np.empty(touched.shape[0]), np.empty(touched.shape[0], np.int32)
    count = _speaking(touched, standing.floats, known, evidence, proof, rows)
    found = room_for(size)
    opened(concepts, rows[:count], proof[:count], found)
    _doubt(concepts, touched, evidence[:count], found.ready)
    led = np.empty(size, np.float32)
    follow(guide, touched, int(settings[HISTORY]), led)
    out[:] = 0.0
    _look(concepts, header, touched, known, found, weights, memory, led, settings, standing, out)
    if settings[OBJECTIVE_ROW] >= 0:
        _towards(concepts, int(settings[OBJECTIVE_ROW]), found.proven, out)
    _wish(concepts, standing, profile, settings, seed, out, wishes)


@lean_kernel
def _look(
    concepts: ConceptArrays,
    header: Records,
    touched: Records,
    known: F8,
    found: Openness,
    weights: Weights,
    memory: F8,
    led: F4,
    settings: F8,
    standing: Standing,
    out: F4,
) -> None:
    """Fill out, zero before, but for TOWARDS; STEPS is −1 throughout."""
    rates, doubt = forgetting(memory), doubt_of_new(header[0], weights)
    for c in range(out.shape[0]):
        out[c, STEPS] = -1.0
        at = standing.place[c]
        if at >= 0:
            _touched(concepts, touched[at], known[at], found, memory, rates, settings, standing, c, out[c])
        elif found.ready[c] > 0.0:
            stand_new(header[0], c, weights, doubt, standing.floats, standing.counts)
            _untouched(concepts, found, standing.floats[c, 0], c, out[c])
        else:
            continue
        out[c, FOLLOWS] = led[c]
        out[c, UNLOCKS] = found.waiting[c]


@lean_kernel
def _touched(
    concepts: ConceptArrays,
    record: Record,
    known: float,
    found: Openness,
    memory: F8,
    rates: Forgetting,
    settings: F8,
    standing: Standing,
    c: int,
    row: F4,
) -> None:
    """Fill READY to RETENTION and STANDING of a touched concept; known is K as far as it is recalled."""
    m = min(max(standing.floats[c, 0], 0.001), 0.999)
    ready = found.ready[c]
    right = ready * promise(known, m, LEARN_RIGHT)
    wrong = ready * promise(known, m, LEARN_WRONG)
    recall = standing.floats[c, 2]
    if not np.isnan(recall):
        share = HELD_SHARE * known
        elapsed = max(settings[NOW] - record.review_at, 0.0) / SECONDS_A_DAY
        if_right, if_wrong = remembering(
            elapsed, standing.floats[c, 3], standing.floats[c, 4], recall, memory, rates
        )
        right = 1.0 - (1.0 - right) * (1.0 - share * if_right)
        wrong = 1.0 - (1.0 - wrong) * (1.0 - share * if_wrong)
        held = 1.0 if record.mastered == 1 else (record.correct + 0.5) / (record.attempts + 1.0)
        row[RETENTION] = min(1.0, held) * (1.0 - recall) / (2.0 - recall - settings[RECALL_TARGET])
    row[STANDING] = m
    if record.attempts > 0:
        success = GUESS + known * (1.0 - SLIP - GUESS)
        by_mastery, by_answers = np.log(m / (1.0 - m)), np.log(success / (1.0 - success))
        row[STANDING] = 1.0 / (1.0 + np.exp(-(by_mastery + KNOWN_SHARE * (by_answers - by_mastery))))
    worth = 0.5 + 0.5 * max(concepts.importance[c], found.unlock[c])
    row[READY] = ready
    row[RIGHT] = worth * right
    row[WRONG] = worth * wrong


@lean_kernel
def _untouched(concepts: ConceptArrays, found: Openness, mastery: float, c: int, row: F4) -> None:
    """Fill READY to WRONG and STANDING of an open concept that was never touched."""
    m = min(max(mastery, 0.001), 0.999)
    worth = found.ready[c] * (0.5 + 0.5 * max(concepts.importance[c], found.unlock[c]))
    row[READY] = found.ready[c]
    row[RIGHT] = worth * promise(KNOWN_AT_FIRST, m, LEARN_RIGHT)
    row[WRONG] = worth * promise(KNOWN_AT_FIRST, m, LEARN_WRONG)
    row[STANDING] = m


@kernel
def _wish(
    concepts: ConceptArrays,
    standing: Standing,
    profile: F4,
    settings: F8,
    seed: int,
    out: F4,
    wishes: F4,
) -> None:
    """Fill wishes (sources, nc) of the open concepts from the survey; a closed or empty concept is wanted by nobody."""
    fine = np.empty(profile.shape[0], np.int16)
    step = coarsen(profile, FINE_STEPS, fine)
    for c in range(out.shape[0]):
        if concepts.active[c] == 0 or out[c, READY] <= 0.0:
            continue
        attempts = standing.counts[c, 0]
        mastered = standing.mastered[c] == 1
        gain = settings[TARGET] * out[c, RIGHT] + (1.0 - settings[TARGET]) * out[c, WRONG]
        near = step * concepts.centroid_step[c] * alike(fine, concepts.centroid[c])
        luck = chance(seed, c)
        due = standing.floats[c, 2] < settings[RECALL_TARGET]
        wanted = not mastered or due
        wishes[REVIEW, c] = out[c, RETENTION] if due and attempts > 0 else -1.0
        wishes[FRONTIER, c] = -1.0 if mastered else gain
        wishes[OBJECTIVE, c] = out[c, TOWARDS] if out[c, TOWARDS] > 0.0 and wanted else -1.0
        wishes[COLLABORATIVE, c] = out[c, FOLLOWS] if out[c, FOLLOWS] > 0.0 else -1.0
        wishes[CONTENT, c] = near if near > 0.0 else -1.0
        wishes[EXPLORATION, c] = luck if not mastered and attempts < RARELY else -1.0
        wishes[POPULAR, c] = -1.0
        wishes[RANDOM, c] = luck
        wishes[START, c] = concepts.importance[c] if settings[HISTORY] == 0.0 else -1.0
        wishes[FILL, c] = concepts.importance[c]

"""What the model sees of a learner's state before an answer: named numbers and hashed pairs. Knows no weights."""

import math
from typing import Final

import numpy as np

from engine.jit import lean_kernel
from engine.learner.memory import SECONDS_A_DAY, recall_factor, recalled, retrievability
from engine.learner.state import (
    CONCEPT_WINDOWS,
    FILTERS,
    GLOBAL_WINDOWS,
    LAST_CONCEPTS,
    TIME_SCALES,
)
from engine.learner.update import (
    CONCEPT_DECAY,
    CONCEPT_VARIANCE,
    GLOBAL_DECAY,
    TIME_SCALE_S,
    Record,
    widen,
)
from engine.types import F8, NO_ROW, AnswerBatch

_WINDOWS = ("0.5", "0.8", "0.95", "0.99")
_CONCEPT_WINDOWS = ("0.4", "0.7", "0.9")
_SCALES = ("10min", "4h", "2d", "20d")

GLOBAL_NAMES: Final = (
    "bias",
    "ability_slow",
    "ability_fast",
    "ability_sd_slow",
    "ability_sd_fast",
    *(f"residual_{w}" for w in _WINDOWS),
    *(f"outcome_{w}" for w in _WINDOWS),
    "right",
    "wrong",
    *(f"right_{s}" for s in _SCALES),
    *(f"tried_{s}" for s in _SCALES),
    "gap",
    "session_answers",
    "run",
)
"""Features of the learner as a whole; logs are log(1 + x), times in seconds."""

CONCEPT_NAMES: Final = (
    "concept_ability_slow",
    "concept_ability_fast",
    "concept_sd_slow",
    "concept_sd_fast",
    *(f"concept_residual_{w}" for w in _CONCEPT_WINDOWS),
    *(f"concept_outcome_{w}" for w in _CONCEPT_WINDOWS),
    "concept_right",
    "concept_wrong",
    *(f"concept_right_{s}" for s in _SCALES),
    *(f"concept_tried_{s}" for s in _SCALES),
    "concept_gap",
    "concept_forgotten",
    "concept_stability",
    "concept_difficulty",
    "concept_implied",
    "concept_last",
    "concept_steps",
    "concept_run",
    "concept_new",
    "concept_last_just_now",
    "concept_steps_just_now",
    "concept_run_just_now",
    "concept_just_now",
)
"""Features of one concept; a question has the mean over its concepts."""

QUESTION_NAMES: Final = (
    "base",
    "expected_slow",
    "expected_fast",
    "question_evidence",
    "question_last",
    "question_seen",
    "question_right",
    "question_steps",
    "question_gap",
    "question_forgotten",
    "question_just_now",
    "question_last_just_now",
)
"""Features of a question and of what its concepts add up to."""

N_GLOBAL: Final = len(GLOBAL_NAMES)
N_CONCEPT: Final = len(CONCEPT_NAMES)
N_QUESTION: Final = len(QUESTION_NAMES)
N_DENSE: Final = N_GLOBAL + N_CONCEPT + N_QUESTION
DENSE_NAMES: Final = GLOBAL_NAMES + CONCEPT_NAMES + QUESTION_NAMES

OWN_NAMES: Final = (
    "own",
    "own_right",
    "own_wrong",
    "own_residual_0.8",
    "own_residual_0.95",
    "own_concept_residual_0.7",
    "own_level",
    *(f"own_last_two_{bits}" for bits in range(8)),
)
"""Features with a weight a concept: a bias, the concept's counts, the learner's and the concept's form, the fast
filter's level, and the concept's last two outcomes as bits behind a leading 1."""

N_OWN: Final = len(OWN_NAMES)
N_OWN_VALUES: Final = 6
"""Those between the bias and the outcomes."""

_ABILITY: Final = GLOBAL_NAMES.index("ability_slow")
_ABILITY_FAST: Final = GLOBAL_NAMES.index("ability_fast")
_FORM: Final = GLOBAL_NAMES.index("residual_0.8")
_LONG_FORM: Final = GLOBAL_NAMES.index("residual_0.95")
_CONCEPT_LEVEL: Final = CONCEPT_NAMES.index("concept_ability_fast")
_CONCEPT_FORM: Final = CONCEPT_NAMES.index("concept_residual_0.7")
_CONCEPT_RIGHT: Final = CONCEPT_NAMES.index("concept_right")
_CONCEPT_WRONG: Final = CONCEPT_NAMES.index("concept_wrong")

N_CONCEPT_PATTERNS: Final = 32
N_GLOBAL_PATTERNS: Final = 64
N_PAIRS: Final = 5
PAIR_NAMES: Final = (
    "question met before",
    "question after the concept's last two",
    "question after the last two",
    "question after the last question",
    "concept after the last concept",
)

SHRINK = 0.35
"""How strongly variance pulls the expected log odds to zero: z/√(1 + 0.35*S), after MacKay's approximation (π/8)."""
GLOBAL_PRIOR_COUNT = 1.5
CONCEPT_PRIOR_COUNT = 1.0
QUESTION_RATE_STRENGTH = 4.0
CONCEPT_RATE_STRENGTH = 20.0
"""Pseudo-answers that hold a question's success rate to its concepts', and a concept's to the tenant's."""


LOG_COUNTS: Final = np.array([math.log1p(float(count)) for count in range(256)])
"""log(1 + n) of small counts, which most are."""


@lean_kernel
def log_count(count: int) -> float:
    """log(1 + n) of a count n ≥ 0."""
    return float(LOG_COUNTS[count]) if 0 <= count < LOG_COUNTS.shape[0] else math.log1p(float(count))


@lean_kernel
def log_run(run: int) -> float:
    """Signed log(1 + n) of n right or, negative, wrong answers in a row."""
    return math.copysign(log_count(abs(run)), float(run))


@lean_kernel
def window_count(decay: float, n: int) -> float:
    """Weights of n answers in a window that keeps `decay` of its sum a step."""
    return (1.0 - decay**n) / (1.0 - decay)


@lean_kernel
def asked_at(header: Record, batch: AnswerBatch, i: int) -> float:
    """When the question of answer `i` was put: the time taken before the answer, but not before the learner's last one.

    Features are as of this moment, in training and online, as a slate's are. As of the answer, the gap since the last
    one would hold the time taken, and who takes long is more often wrong: the answer would foretell itself.
    """
    at = batch.answered_at[i]
    taken_s = batch.duration_ms[i] / 1000.0
    return float(max(at - taken_s, min(header.last_at, at)) if header.applied > 0 else at - taken_s)


@lean_kernel
def global_features(header: Record, now: float, out: F8) -> None:
    """Fill out[:N_GLOBAL] with the learner's features as of `now` (epoch seconds)."""
    n = widen(header.applied)
    elapsed = max(now - header.last_at, 0.0) if n > 0 else 0.0
    out[0] = 1.0
    at = 1
    for j in range(FILTERS):
        out[at + j] = header.mean[j]
        out[at + FILTERS + j] = math.sqrt(header.variance[j])
    at += 2 * FILTERS
    for j in range(GLOBAL_WINDOWS):
        count = window_count(GLOBAL_DECAY[j], n) + GLOBAL_PRIOR_COUNT
        out[at + j] = header.residual[j] / count
        out[at + GLOBAL_WINDOWS + j] = header.outcome[j] / count
    at += 2 * GLOBAL_WINDOWS
    out[at] = math.log1p(float(header.correct))
    out[at + 1] = math.log1p(float(n - header.correct))
    at += 2
    for j in range(TIME_SCALES):
        keep = math.exp(-elapsed / TIME_SCALE_S[j])
        out[at + j] = math.log1p(header.hits[j] * keep)
        out[at + TIME_SCALES + j] = math.log1p(header.tries[j] * keep)
    at += 2 * TIME_SCALES
    out[at] = math.log1p(elapsed)
    out[at + 1] = math.log1p(float(header.session_answers))
    out[at + 2] = math.copysign(math.log1p(abs(float(header.run))), float(header.run))


@lean_kernel
def new_concept_features(out: F8) -> None:
    """Fill out[:N_CONCEPT] for a concept the learner has not touched."""
    out[:N_CONCEPT] = 0.0
    for j in range(FILTERS):
        out[FILTERS + j] = math.sqrt(CONCEPT_VARIANCE[j])
    out[N_CONCEPT - 5] = 1.0


@lean_kernel
def was_last(header: Record, row: int) -> bool:
    """Whether the last answer exercised concept `row`."""
    found = False
    for i in range(LAST_CONCEPTS):
        found |= header.last_concept[i] == row
    return found


@lean_kernel
def recall_of(concept: Record, now: float, decay: float, factor: float) -> float:
    """Chance that a concept is recalled at `now`, NaN where memory has not started; `factor` is `recall_factor`'s."""
    if concept.stability > 0.0:
        return recalled((now - concept.review_at) / SECONDS_A_DAY, float(concept.stability), decay, factor)
    return math.nan


@lean_kernel
def concept_features(header: Record, concept: Record, now: float, decay: float, out: F8) -> None:
    """Fill out[:N_CONCEPT] with one touched concept's features as of `now`; `decay` is FSRS's w20."""
    recalled_features(header, concept, now, recall_of(concept, now, decay, recall_factor(decay)), out)


@lean_kernel
def recalled_features(header: Record, concept: Record, now: float, recall: float, out: F8) -> None:
    """As `concept_features`, with the chance of recall at hand, which is `recall_of`'s."""
    n = widen(concept.attempts)
    elapsed = max(now - concept.last_at, 0.0) if n > 0 else 0.0
    out[:N_CONCEPT] = 0.0
    for j in range(FILTERS):
        out[j] = concept.mean[j]
        out[FILTERS + j] = math.sqrt(concept.variance[j])
    at = 2 * FILTERS
    for j in range(CONCEPT_WINDOWS):
        count = window_count(CONCEPT_DECAY[j], n) + CONCEPT_PRIOR_COUNT
        out[at + j] = concept.residual[j] / count
        out[at + CONCEPT_WINDOWS + j] = concept.outcome[j] / count
    at += 2 * CONCEPT_WINDOWS
    out[at] = log_count(widen(concept.correct))
    out[at + 1] = log_count(n - widen(concept.correct))
    at += 2
    for j in range(TIME_SCALES):
        keep = math.exp(-elapsed / TIME_SCALE_S[j])
        out[at + j] = math.log1p(concept.hits[j] * keep)
        out[at + TIME_SCALES + j] = math.log1p(concept.tries[j] * keep)
    at += 2 * TIME_SCALES
    out[at] = math.log1p(elapsed)
    if concept.stability > 0.0:
        out[at + 1] = 1.0 - recall
        out[at + 2] = math.log1p(float(concept.stability))
        out[at + 3] = (concept.difficulty - 5.0) / 5.0
    out[at + 4] = log_count(widen(concept.implied))
    at += 5
    if n == 0:
        out[at + 3] = 1.0
        return
    last = 2.0 * (concept.pattern & 1) - 1.0
    steps = log_count(widen(header.applied) - widen(concept.last_step))
    run = log_run(widen(concept.run))
    out[at] = last
    out[at + 1] = steps
    out[at + 2] = run
    if was_last(header, concept.row):
        out[at + 4] = last
        out[at + 5] = steps
        out[at + 6] = run
        out[at + 7] = 1.0


@lean_kernel
def own_values(whole: F8, concept: F8, out: F8) -> None:
    """Fill out[:N_OWN_VALUES] from the learner's features `whole` and a concept's features `concept`."""
    out[0] = concept[_CONCEPT_RIGHT]
    out[1] = concept[_CONCEPT_WRONG]
    out[2] = whole[_FORM]
    out[3] = whole[_LONG_FORM]
    out[4] = concept[_CONCEPT_FORM]
    out[5] = whole[_ABILITY_FAST] + concept[_CONCEPT_LEVEL]


@lean_kernel
def question_slope(whole: F8) -> float:
    """What the weight "slope" of a question multiplies: the learner's slow ability, from the features `whole`."""
    return float(whole[_ABILITY])


@lean_kernel
def question_features(
    header: Record,
    met: Record,
    known: bool,
    base: float,
    evidence: float,
    level: F8,
    spread: F8,
    now: float,
    decay: float,
    out: F8,
) -> None:
    """Fill out[:N_QUESTION].

    `met` is the question's record in the ring, `known` whether it is there at all. `base` is its base logit,
    `evidence` how many answers it rests on. `level` and `spread`, shape (FILTERS,): summed means and variances of both
    filters over learner and concepts.
    """  # fmt: skip
    out[:N_QUESTION] = 0.0
    out[0] = base
    for j in range(FILTERS):
        out[1 + j] = (base + level[j]) / math.sqrt(1.0 + SHRINK * spread[j])
    at = 1 + FILTERS
    out[at] = math.log1p(evidence)
    if not known:
        return
    last = 2.0 * met.last - 1.0
    out[at + 1] = last
    out[at + 2] = math.log1p(float(met.seen))
    out[at + 3] = math.log1p(float(met.right))
    steps = float(header.applied) - float(met.step)
    out[at + 4] = math.log1p(steps)
    elapsed = max(now - met.at, 0.0)
    out[at + 5] = math.log1p(elapsed)
    out[at + 6] = 1.0 - retrievability(elapsed / SECONDS_A_DAY, float(met.stability), decay)
    if steps <= 1.0:
        out[at + 7] = 1.0
        out[at + 8] = last


@lean_kernel
def last_outcomes(pattern: int, n: int) -> int:
    """Return the last n outcomes as bits behind a leading 1, fewer when there were fewer."""
    top = 1 << n
    return (pattern & (top - 1)) | top if pattern >= top else pattern


@lean_kernel
def hash_pair(kind: int, first: int, second: int) -> np.uint64:
    """64-bit key of a pair feature, never 0 (the finaliser of SplitMix64, Steele et al. 2014)."""
    x = (
        (np.uint64(first) << np.uint64(32))
        ^ np.uint64(second)
        ^ (np.uint64(kind + 1) * np.uint64(0x9E3779B97F4A7C15))
    )
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = x ^ (x >> np.uint64(31))
    return x if x != np.uint64(0) else np.uint64(1)


@lean_kernel
def how_met(header: Record, met: Record) -> int:
    """Return how a question of the ring was met, 1 to 4: wrong or right, then the same of the answer just before."""
    return 1 + widen(met.last) + (2 if header.applied - met.step <= 1 else 0)


@lean_kernel
def pair_key(
    kind: int, header: Record, met: Record, known: bool, concept_pattern: int, question: int, concept: int
) -> np.uint64:
    """Key of pair feature `kind` (see PAIR_NAMES) for a question and its first concept, 0 where there is none."""
    last = widen(header.pattern & 1)
    if kind == 0:
        return hash_pair(widen(0), question, how_met(header, met) if known else widen(0))
    if kind == 1:
        return hash_pair(widen(1), question, last_outcomes(concept_pattern, 2))
    if kind == 2:
        return hash_pair(widen(2), question, last_outcomes(widen(header.pattern), 2))
    if header.applied == 0:
        return np.uint64(0)
    if kind == 3:
        return hash_pair(3 + last, question, widen(header.last_question))
    if header.last_concept[0] == NO_ROW:
        return np.uint64(0)
    return hash_pair(5 + last, concept, widen(header.last_concept[0]))

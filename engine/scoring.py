"""The score of every candidate as a sum of terms, in one pass. Draws no slate and explains nothing.

Every term lies in [0, 1]; contributions are weight · value, penalties negative; the score is their sum. With p the
predicted success of the question (`lean`), E its exercised concepts with weights e (1 for its own), and capitals the
columns of `engine.survey`:

- zone: exp(−½((p − target)/width)²), width 0.25 below the target and 0.12 above it
- gain: (1 − Π over E of (1 − e·(p·RIGHT + (1 − p)·WRONG))) · (0.2 + 0.8·zone): what is far too easy or too hard
  teaches little
- retention: 1 − Π over E of (1 − e·RETENTION)
- readiness: min over its own concepts of READY
- objective: max over its own concepts of TOWARDS
- collaborative: max over its own concepts of FOLLOWS · (½ + ½·clip(x·y, 0, 1)), with y the question's factor and x the
  learner's, scaled so that x·y = 1 for the best liked of the recent questions
- content: max(0, cosine of the learner's and the question's content vectors); this and x·y in whole steps of the
  vectors (`engine.cards`)
- context: fit · (1 − fatigue·effort) · (1 − ½·small·length), where length = min(1, seconds/180),
  effort = ½(1 − p) + ½·length, fit = min(1, available/seconds) or 1 when the time at hand is not known, fatigue grows
  with the session and late at night (`engine.recommend.fatigue`), and small is 1 on a phone
- engagement: mean over its sources of the chance that learners take up what that source offers in its area
- popularity: as counted
- repetition: ½^(hours since it was last met / 24), at least ½ when shown lately and not taken up
- diversity: 1 − ½^k for the k-th further question of a concept in the slate, more in a run of one kind; set by
  `engine.slate`
"""

import numpy as np

from engine.candidates import Candidates, slot_of
from engine.cards import FINE_STEPS, alike, coarsen, dot
from engine.collaborative import CONFIDENCE
from engine.jit import kernel, lean_kernel
from engine.learner.state import Records
from engine.serving import ConceptArrays, QuestionArrays
from engine.survey import (
    AVAILABLE_S,
    FATIGUE,
    FOLLOWS,
    NOW,
    READY,
    RETENTION,
    RIGHT,
    SMALL_SCREEN,
    STANDING,
    TARGET,
    TOWARDS,
    WRONG,
)
from engine.types import F4, F8, NO_ROW, U4

ZONE, GAIN, KEEP, READINESS, GOAL, COLLABORATION, LIKENESS, CONTEXT, TAKE_UP, POPULARITY, AGAIN, SAME = range(
    12
)
"""Columns of the values, in the order of `engine.policy.TERMS`."""

ZONE_BELOW = 0.25
"""How far below the target a predicted success may lie before `zone` has fallen to e^−½."""
ZONE_ABOVE = 0.12
"""The same above it: what is too easy teaches nothing and bores, what is a little too hard still teaches."""
ANYWAY = 0.2
"""Share of the gain that a question teaches however far its difficulty is from the target."""
LEAN = 0.75
"""Share of the learner's own last answers in the chance of a question that training has never seen."""
LONG_S = 180.0
"""A question of this length is long on a phone or for a tired learner."""
REPEAT_HALF_LIFE_S = 86400.0
SHOWN_REPETITION = 0.5


@lean_kernel
def lean(
    concepts: ConceptArrays, questions: QuestionArrays, survey: F4, found: Candidates, predicted: F8
) -> None:
    """Move predicted (n,), the learner model's chances, towards what the last answers to their concepts say.

    In log odds, by the share LEAN / (1 + log(1 + answers that the question's own rate rests on)), towards STANDING
    moved by how much easier the question is than its concept's median one: documented priors are slow to see that a
    concept has been learned, a model that was trained on a question is not.
    """
    for i in range(predicted.shape[0]):
        card = questions.cards[found.cards[i]]
        c = found.concepts[i]
        share = LEAN / (1.0 + card.evidence)
        m = survey[c, STANDING]
        own = np.log(m / (1.0 - m)) + card.base - concepts.median_logit[c]
        p = min(max(predicted[i], 1e-9), 1.0 - 1e-9)
        z = (1.0 - share) * np.log(p / (1.0 - p)) + share * own
        predicted[i] = 1.0 / (1.0 + np.exp(-z))


@lean_kernel
def _practice(questions: QuestionArrays, survey: F4, found: Candidates, predicted: F8, values: F4) -> None:
    """Fill the terms that rest on what questions exercise."""
    no_cost = 1.0
    before = -1
    for i in range(predicted.shape[0]):
        card = questions.cards[found.cards[i]]
        p = predicted[i]
        chosen = card.exercise_set
        no_gain = 1.0
        # Questions of one concept come one after another, and mostly exercise the same.
        again = chosen == before
        before = chosen
        if not again:
            no_cost = 1.0
        for entry in range(questions.exercise_offsets[chosen], questions.exercise_offsets[chosen + 1]):
            c = questions.exercise_rows[entry]
            e = questions.exercise_weights[entry]
            no_gain *= 1.0 - e * (p * survey[c, RIGHT] + (1.0 - p) * survey[c, WRONG])
            if not again:
                no_cost *= 1.0 - e * survey[c, RETENTION]
        ready = 1.0
        goal = 0.0
        follows = 0.0
        for place in range(card.concepts):
            c = (
                card.concept
                if place == 0
                else questions.concept_rows[questions.concept_offsets[found.rows[i]] + place]
            )
            ready = min(ready, survey[c, READY])
            goal = max(goal, survey[c, TOWARDS])
            follows = max(follows, survey[c, FOLLOWS])
        values[i, GAIN] = 1.0 - no_gain
        values[i, KEEP] = 1.0 - no_cost
        values[i, READINESS] = ready
        values[i, GOAL] = goal
        values[i, COLLABORATION] = follows


@kernel
def _taste(
    questions: QuestionArrays, found: Candidates, count: int, factor: F4, profile: F4, values: F4
) -> None:
    """Fill the terms that rest on likeness to what the learner, and others like them, practised.

    `collaborative` holds how strongly others' practice leads to the question's concepts.
    """
    own, theirs = np.empty(factor.shape[0], np.int16), np.empty(factor.shape[0], np.int16)
    step, their_step = coarsen(profile, FINE_STEPS, own), coarsen(factor, FINE_STEPS, theirs)
    for i in range(count):
        card = questions.cards[found.cards[i]]
        liked = min(1.0, max(0.0, their_step * card.factor_step * alike(theirs, card.factor)))
        values[i, COLLABORATION] *= 0.5 + 0.5 * liked
        values[i, LIKENESS] = min(1.0, max(0.0, step * card.content_step * alike(own, card.content)))
        values[i, POPULARITY] = card.popularity


@lean_kernel
def _moment(seconds: float, p: float, settings: F8) -> float:
    """Return how well a question of this length and chance suits the moment."""
    available = settings[AVAILABLE_S]
    fit = min(1.0, available / seconds) if available > 0.0 else 1.0
    length = min(1.0, seconds / LONG_S)
    effort = 0.5 * (1.0 - p) + 0.5 * length
    return float(fit * (1.0 - settings[FATIGUE] * effort) * (1.0 - 0.5 * settings[SMALL_SCREEN] * length))


@lean_kernel
def _repeated(found: Candidates, recent: Records, shown: U4, now: float, values: F4) -> None:
    """Fill `repetition`, from how recently each candidate was met or shown."""
    values[:, AGAIN] = 0.0
    # From the few that were met to the candidates, not the other way: the table of rows is there already.
    for j in range(recent.shape[0]):
        if recent[j].question != NO_ROW:
            known = found.slots[slot_of(found.keys, found.slots, int(recent[j].question))]
            if known >= 0:
                values[known, AGAIN] = 0.5 ** (max(0.0, now - recent[j].at) / REPEAT_HALF_LIFE_S)
    for j in range(shown.shape[0]):
        known = found.slots[slot_of(found.keys, found.slots, int(shown[j]))]
        if known >= 0:
            values[known, AGAIN] = max(values[known, AGAIN], SHOWN_REPETITION)


@kernel
def score(
    concepts: ConceptArrays,
    questions: QuestionArrays,
    survey: F4,
    found: Candidates,
    predicted: F8,
    recent: Records,
    shown: U4,
    factor: F4,
    profile: F4,
    take_up: F4,
    settings: F8,
    weights: F8,
    values: F4,
    scores: F8,
    means: F8,
) -> float:
    """Fill values (n, terms), scores (n,) and means (terms,), the mean of each term; returns the mean score.

    `predicted` (n,) chances of success; `factor` and `profile` (64,) the learner's places among collaborative
    factors and in content space, zero when unknown; `take_up` (sources, areas) chances; `weights` (terms,)
    signed; `shown` rows shown lately without being taken up. A score is the float64 sum of weight times the
    float32 values, in order, so that it can be had again from what is stored. `diversity` is left 0.
    """
    means[:] = 0.0
    mean = 0.0
    _practice(questions, survey, found, predicted, values)
    _taste(questions, found, predicted.shape[0], factor, profile, values)
    _repeated(found, recent, shown, settings[NOW], values)
    for i in range(predicted.shape[0]):
        value = values[i]
        p = predicted[i]
        away = (p - settings[TARGET]) / (ZONE_BELOW if p < settings[TARGET] else ZONE_ABOVE)
        value[ZONE] = np.exp(-0.5 * away * away)
        value[GAIN] *= ANYWAY + (1.0 - ANYWAY) * value[ZONE]
        value[CONTEXT] = _moment(questions.cards[found.cards[i]].seconds, p, settings)
        area = concepts.area[found.concepts[i]]
        sources = found.sources[i]
        chance = 0.0
        count = 0
        for source in range(take_up.shape[0]):
            if sources & (1 << source) != 0:
                chance += take_up[source, area]
                count += 1
        value[TAKE_UP] = chance / count
        value[SAME] = 0.0
        total = 0.0
        for term in range(weights.shape[0]):
            total += weights[term] * value[term]
            means[term] += value[term]
        scores[i] = total
        mean += total / predicted.shape[0]
    for term in range(weights.shape[0]):
        means[term] /= max(1, predicted.shape[0])
    return mean


@kernel
def tastes(recent: Records, content: F4, now: float, rows: U4, confidence: F4, profile: F4) -> int:
    """Read the learner's recent questions; fills rows and confidence (RING,) and profile (64,), returns how
    many.

    Confidence in a question is CONFIDENCE · ½^(days since / 14): what is recent says more. The profile is the unit
    mean of their content vectors under the same weights, zero without history.
    """
    profile[:] = 0.0
    count = 0
    for i in range(recent.shape[0]):
        row = recent[i].question
        if row == NO_ROW:
            continue
        weight = np.float32(CONFIDENCE * 0.5 ** (max(0.0, now - recent[i].at) / (14.0 * 86400.0)))
        rows[count] = row
        confidence[count] = weight
        count += 1
        if row < content.shape[0]:
            for j in range(profile.shape[0]):
                profile[j] += weight * content[row, j]
    length = np.sqrt(dot(profile, profile))
    if length > 0.0:
        for j in range(profile.shape[0]):
            profile[j] /= length
    return count

"""Drawing lots among scored candidates, with exact propensities. Finds no candidate and no term."""

from typing import Final

import numpy as np

from engine.jit import kernel
from engine.learner.state import Records
from engine.survey import chance
from engine.types import F4, F8, I8

LOT: Final = np.dtype(
    [("odds", "f8"), ("score", "f8"), ("concept", "u4"), ("review", "u1"), ("unusual", "u1")], align=True
)
"""What a draw reads of one candidate.

`score`: before `diversity` takes anything. `odds`: exp((score − best score)/temperature), 0 at temperature 0. `review`:
1 when the review source proposed it. `unusual`: 1 when its concept is none that a learner without history is shown.
"""

RUN_DISCOUNT = 0.75
"""A third item in a row of one kind, review or new, counts as this much less different."""

LEAST_LIFT = 1e-9
"""Terms that together lift an item no more than this over the average candidate do not explain it."""

_SEED_STEP = 7919
"""Draws of the slate take counters from here on, so that they are not the survey's."""

_LEAST_ODDS = 1e-200
"""Odds that sum to less than this are worked out anew, against the best score that is left."""

_TAKEN = -1


@kernel
def share_of(times: int, in_run: bool) -> float:
    """Return the value of `diversity` for a candidate whose concept was drawn `times` times; `in_run`: it would be the
    third of its kind in a row, or a later one.
    """
    return 1.0 - 0.5**times * (RUN_DISCOUNT if in_run else 1.0)


@kernel
def draw(
    lots: Records,
    penalty: float,
    temperature: float,
    seed: int,
    chosen: I8,
    sameness: F4,
    propensity: F8,
    final: F8,
) -> float:
    """Draw `len(chosen)` ≤ n lots without replacement; returns the best score left, −inf when none is.

    Rank by rank, candidate i is drawn with chance exp(s_i/τ) / Σ exp(s_j/τ) over those left, s being its score plus
    `penalty` (the signed weight of `diversity`, ≤ 0) times its value: this is what Gumbel top-k draws (Plackett-Luce;
    Kool, van Hoof and Welling 2019), but it stays exact when what was drawn changes the scores of the rest. Fills
    chosen, sameness (value of `diversity`), propensity (that chance) and final (s), each (k,). Temperature 0 takes the
    best, ties by candidate number, with propensity 1.

    Only as many values of `diversity` can occur as there are ranks, twice, so exp(s/τ) is the product of the
    candidate's own odds, known before, and one of these few factors.
    """
    n = lots.shape[0]
    times = np.zeros(n, np.int64)
    below = np.empty(n)
    fades = np.empty((2, chosen.shape[0] + 1))
    if temperature > 0.0:
        for drawn in range(fades.shape[1]):
            fades[0, drawn] = np.exp(penalty * share_of(drawn, False) / temperature)
            fades[1, drawn] = np.exp(penalty * share_of(drawn, True) / temperature)
    near = temperature > 0.0
    run = 0
    kind = -1
    for rank in range(chosen.shape[0]):
        risky = kind if run >= 2 else -1
        pick = 0
        odds = 1.0
        if near:
            total = _sum(lots, times, fades, risky, below)
            near = total >= _LEAST_ODDS
            if near:
                pick = _first_above(below, chance(seed, _SEED_STEP + rank) * total)
                in_run = int(lots[pick].review == risky)
                odds = lots[pick].odds * fades[in_run, times[pick]] / total
        if not near:
            best = best_left(lots, times, penalty, risky)
            luck = chance(seed, _SEED_STEP + rank)
            pick, odds = _against(lots, times, penalty, risky, best, temperature, luck, below)
        share = share_of(times[pick], lots[pick].review == risky)
        chosen[rank] = pick
        sameness[rank] = share
        propensity[rank] = odds
        final[rank] = lots[pick].score + penalty * share
        own = int(lots[pick].review)
        run = run + 1 if own == kind else 1
        kind = own
        for i in range(n):
            if lots[i].concept == lots[pick].concept and times[i] != _TAKEN:
                times[i] += 1
        times[pick] = _TAKEN
    return best_left(lots, times, penalty, kind if run >= 2 else -1)


@kernel
def _sum(lots: Records, times: I8, fades: F8, risky: int, below: F8) -> float:
    """Fill below (n,) with the sums of odds up to and with each lot; returns that of all."""
    total = 0.0
    for i in range(lots.shape[0]):
        if times[i] != _TAKEN:
            total += lots[i].odds * fades[int(lots[i].review == risky), times[i]]
        below[i] = total
    return total


@kernel
def _first_above(below: F8, value: float) -> int:
    """Return the first place whose sum exceeds `value` < the last one; what adds nothing to the sum is never it."""
    start = 0
    end = below.shape[0] - 1
    # Rounding may have made the value as large as the sum: then the last one that added to it.
    if value >= below[end]:
        value = np.nextafter(below[end], 0.0)
    while start < end:
        middle = (start + end) // 2
        if below[middle] > value:
            end = middle
        else:
            start = middle + 1
    return start


@kernel
def best_left(lots: Records, times: I8, penalty: float, risky: int) -> float:
    """Return the best score, less what `diversity` takes, of the lots that are left; −inf without any."""
    best = -np.inf
    for i in range(lots.shape[0]):
        if times[i] != _TAKEN:
            best = max(best, lots[i].score + penalty * share_of(times[i], lots[i].review == risky))
    return best


@kernel
def _against(
    lots: Records,
    times: I8,
    penalty: float,
    risky: int,
    best: float,
    temperature: float,
    luck: float,
    below: F8,
) -> tuple[int, float]:
    """Return (the lot drawn, its chance) where odds against the best of all would be lost to rounding."""
    total = 0.0
    for i in range(lots.shape[0]):
        if times[i] != _TAKEN:
            score = lots[i].score + penalty * share_of(times[i], lots[i].review == risky)
            if temperature <= 0.0 and score == best:
                return i, 1.0
            if temperature > 0.0:
                total += np.exp((score - best) / temperature)
        below[i] = total
    pick = _first_above(below, luck * total)
    score = lots[pick].score + penalty * share_of(times[pick], lots[pick].review == risky)
    return pick, np.exp((score - best) / temperature) / total

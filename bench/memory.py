"""Is the memory model any good? FSRS-6 on real flashcard reviews in time order, and against the reference package.

Prints one JSON object a line. The reviews are cut into six parts by time; each of the last five is predicted from what
came before it. Only reviews a day or more after the one before count.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.learner_data import data_folder, find, read_csv
from engine.learner.memory import DEFAULT_WEIGHTS, SECONDS_A_DAY, schedule
from engine.learner.memory_fit import Reviews, fit_memory, recall_of
from engine.learner.metrics import log_loss
from engine.types import F8

PARTS = 6


def say(metric: str, value: float, bar: str = "", holds: bool | None = None) -> None:
    """Print one result."""
    print(
        json.dumps({"bench": "memory", "metric": metric, "value": value, "bar": bar, "holds": holds}),
        flush=True,
    )


def read_reviews(path: Path) -> Reviews:
    """Return the reviews of a file with card_id, review_rating and review_time."""
    rows = read_csv(path)
    cards: dict[str, int] = {}
    card = np.array([cards.setdefault(r["card_id"], len(cards)) for r in rows])
    at = np.array([datetime.fromisoformat(r["review_time"]).timestamp() for r in rows])
    order = np.lexsort((at, card))
    grade = np.array([int(r["review_rating"]) for r in rows], np.uint8)[order]
    offsets = np.concatenate(([0], np.cumsum(np.bincount(card)))).astype(np.int64)
    return Reviews(offsets, grade, at[order])


def history(reviews: Reviews) -> dict[str, np.ndarray]:
    """Return, for each review, days since the last, the number of reviews, right and wrong ones before it."""
    n = len(reviews.grade)
    out = {name: np.zeros(n) for name in ("days", "number", "right", "wrong")}
    for first, last in zip(reviews.offsets[:-1], reviews.offsets[1:], strict=True):
        good = (reviews.grade[first:last] > 1).astype(float)
        out["days"][first + 1 : last] = np.floor(np.diff(reviews.at[first:last]) / SECONDS_A_DAY)
        out["number"][first:last] = np.arange(last - first)
        out["right"][first:last] = np.cumsum(good) - good
        out["wrong"][first:last] = np.cumsum(1 - good) - (1 - good)
    return out


def sm2(reviews: Reviews) -> np.ndarray:
    """Return SM-2's recall: 0.9^(days/interval), intervals and ease as Wozniak published them (1990)."""
    p = np.full(len(reviews.grade), np.nan)
    quality = {1: 1, 2: 3, 3: 4, 4: 5}
    for first, last in zip(reviews.offsets[:-1], reviews.offsets[1:], strict=True):
        ease, interval, repetition = 2.5, 1.0, 0
        for i in range(first, last):
            if i > first:
                p[i] = 0.9 ** (math.floor((reviews.at[i] - reviews.at[i - 1]) / SECONDS_A_DAY) / interval)
            q = quality[int(reviews.grade[i])]
            if q >= 3:
                interval = (1.0, 6.0)[repetition] if repetition < 2 else interval * ease
                repetition += 1
            else:
                interval, repetition = 1.0, 0
            ease = max(1.3, ease + 0.1 - (5 - q) * (0.08 + (5 - q) * 0.02))
    return p


def half_life(h: dict[str, np.ndarray], y: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Return half-life regression (Settles and Meeder 2016): 2^(-days/2^(b·x)), x = 1, √(1+right), √(1+wrong)."""
    x = np.stack([np.ones(len(y)), np.sqrt(1 + h["right"]), np.sqrt(1 + h["wrong"])], axis=1)

    def predict(b: np.ndarray, use: np.ndarray) -> np.ndarray:
        return np.asarray(
            np.clip(2.0 ** (-h["days"][use] / 2.0 ** np.clip(x[use] @ b, -6, 14)), 1e-4, 1 - 1e-4)
        )

    def loss(b: F8) -> float:
        return log_loss(y[fitted], predict(b, fitted)) + 1e-3 * float(b @ b)

    found = minimize(loss, np.array([3.0, 0.3, -0.3]))
    return predict(found.x, np.ones(len(y), bool))


def rmse_bins(y: np.ndarray, p: np.ndarray, h: dict[str, np.ndarray]) -> float:
    """RMSE between mean outcome and mean prediction over bins of log days, log reviews and log lapses, by count."""
    bins = np.stack(
        [np.floor(np.log(np.maximum(h[k], 1e-9) + (k != "days")) / 1.0) for k in ("days", "number", "wrong")]
    )
    _, place = np.unique(bins, axis=1, return_inverse=True)
    n = np.bincount(place)
    gap = np.bincount(place, weights=y) / n - np.bincount(place, weights=p) / n
    return float(np.sqrt(np.sum(n * gap**2) / n.sum()))


def on_reviews(path: Path) -> None:
    """Predict every part from what came before it, by every model."""
    reviews = read_reviews(path)
    h, y, counted = history(reviews), (reviews.grade > 1).astype(float), reviews.counted()
    cuts = np.quantile(reviews.at[counted], np.linspace(0, 1, PARTS + 1))
    names = ("constant", "sm2", "half_life", "fsrs6_defaults", "genie")
    p = {name: np.full(len(y), np.nan) for name in names}
    p["sm2"], p["fsrs6_defaults"] = sm2(reviews), recall_of(reviews, DEFAULT_WEIGHTS)
    tested = np.zeros(len(y), bool)
    for part in range(1, PARTS):
        now = counted & (reviews.at >= cuts[part]) & (reviews.at <= cuts[part + 1]) & ~tested
        past = counted & (reviews.at < cuts[part])
        tested |= now
        p["constant"][now] = y[past].mean()
        p["half_life"][now] = half_life(h, y, past)[now]
        weights, _ = fit_memory(reviews, seed=0, until=float(cuts[part]))
        p["genie"][now] = recall_of(reviews, weights)[now]
    say("reviews_tested", float(tested.sum()))
    slice_h = {k: v[tested] for k, v in h.items()}
    losses = {name: log_loss(y[tested], np.clip(p[name][tested], 1e-4, 1 - 1e-4)) for name in names}
    for name in names:
        say(f"rmse_bins_{name}", rmse_bins(y[tested], p[name][tested], slice_h))
        if name != "genie":
            say(f"log_loss_{name}", losses[name], "genie ≤ this", losses["genie"] <= losses[name])
    say("log_loss_genie", losses["genie"])


def against_reference(histories: int) -> None:
    """Walk random histories beside the `fsrs` package: intervals exact, stability and difficulty to 1e-4."""
    try:
        import fsrs
    except ImportError:
        print("fsrs is not installed: pip install fsrs to compare with the reference", file=sys.stderr)
        return
    rng = np.random.default_rng(7)
    scheduler = fsrs.Scheduler(enable_fuzzing=False)
    start = datetime(2024, 1, 1, tzinfo=UTC)
    wrong, worst = 0, 0.0
    for _ in range(histories):
        n = int(rng.integers(1, 20))
        grades = rng.choice(np.array([1, 2, 3, 4], np.uint8), n, p=[0.2, 0.15, 0.5, 0.15])
        at = np.cumsum(
            rng.choice([30.0, 600.0, 9000.0, 86400.0, 2.5e5, 1e6, 2e7], n) * rng.integers(1, 4, n)
        ).astype(np.float64)
        s, d, r, interval = np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.int64)
        schedule(grades, at, DEFAULT_WEIGHTS, 0.9, s, d, r, interval)
        card = fsrs.Card()
        for i in range(n):
            moment = start + timedelta(seconds=float(at[i]))
            card, _ = scheduler.review_card(card, fsrs.Rating(int(grades[i])), moment)
            wrong += int((card.due - moment).total_seconds() != interval[i])
            worst = max(worst, float(abs(card.stability - s[i])), float(abs(card.difficulty - d[i])))
    say("reference_histories", float(histories))
    say("reference_interval_differences", float(wrong), "0", wrong == 0)
    say("reference_largest_difference", worst, "<= 1e-4", worst <= 1e-4)


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=data_folder() / "anki-reviews")
    parser.add_argument("--quick", action="store_true", help="fewer random histories")
    options = parser.parse_args()
    against_reference(300 if options.quick else 10_000)
    if not options.data.exists():
        print(f"no reviews at {options.data}: set GENIE_DATA", file=sys.stderr)
        return
    on_reviews(find(options.data, "reviews"))


if __name__ == "__main__":
    main()

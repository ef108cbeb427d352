"""Is the date of a goal any good? Chances said of mastering k more concepts in time, against what then happened.

python -m bench.goal_dates [--quick]

A learner's log is cut at the end of every week; what is forecast from the four weeks before is held against the days
after, as far as the log goes: "k further concepts, net of those lost, within so many days". On the simulated classroom
of the demo and on real answers with times. Parameters of `engine.forecast` were chosen with these very figures.
"""

import argparse
import json
from collections.abc import Iterator
from itertools import pairwise, product
from pathlib import Path

import numpy as np

from bench.learner_data import data_folder
from bench.output import emit
from engine.forecast import WINDOW_DAYS, forecast
from engine.history import DayHistory, every_day
from engine.learner import LearnerModel
from engine.types import F8
from server.data_tables import ANSWERS, QUESTIONS
from server.demo.story import fill
from server.importing import Import
from server.services.progress import whole_history
from store.api import Store
from store.memory_store import MemoryStore
from store.replay import training_log

BENCH = "goal_dates"
TENANT = "default"
NOW = 1_750_000_000.0
CONCEPTS = (1, 3, 6)
HORIZONS = (7, 14, 28)
BANDS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
LEAST_IN_BAND = 200
MOST_OFF = 0.05


def main() -> int:
    """Run and report; the exit status says whether the bars hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the simulated classroom only, a tenth of it")
    options = parser.parse_args()
    store = MemoryStore()
    fill(store, TENANT, now=NOW)
    holds = report("classroom", store, every=10 if options.quick else 1, quick=options.quick)
    if options.quick:
        return 0 if holds else 1
    source = data_folder() / "algebra2005"
    if not source.is_dir():
        print(json.dumps({"bench": BENCH, "skipped": f"{source} is not there; set GENIE_DATA"}))
        return 0 if holds else 1
    return 0 if report("algebra2005", imported(source), every=1, quick=False) and holds else 1


def imported(source: Path) -> Store:
    """A data set, as it is without training."""
    store = MemoryStore()
    files = {QUESTIONS: source / "questions.csv.gz", ANSWERS: source / "answers.csv.gz"}
    Import(store, TENANT, LearnerModel.priors(), now=NOW).files(files)
    return store


def report(data: str, store: Store, *, every: int, quick: bool) -> bool:
    """Print what was said and what was; whether the bars hold."""
    found = np.array(list(forecasts(store, every)))
    if not len(found):
        return emit(BENCH, "forecasts", 0, bar=">= 1", data=data)
    kind, said, was = found[:, 0], found[:, 1], found[:, 2]
    brier = float(np.mean((said - was) ** 2))
    base = sum(float(np.sum((was[kind == k].mean() - was[kind == k]) ** 2)) for k in np.unique(kind))
    base /= len(found)
    # Base rates are of the very outcomes, so 1 is no shame; see docs/learner-insight.md.
    emit(BENCH, "brier_over_that_of_base_rates", brier / base, brier=brier, data=data)
    holds = [_calibrated("off", said, was, data, quick=quick)]
    for low, high in pairwise(BANDS):
        inside = (said >= low) & ((said < high) | (high == 1.0))
        if inside.sum() >= LEAST_IN_BAND:
            name = f"off_from_{low:.1f}_to_{high:.1f}"
            holds.append(_calibrated(name, said[inside], was[inside], data, quick=quick))
    return all(holds)


def _calibrated(metric: str, said: F8, was: F8, data: str, *, quick: bool) -> bool:
    mean, true = float(said.mean()), float(was.mean())
    bar = "" if quick else f"<= {MOST_OFF}"
    return emit(BENCH, metric, abs(mean - true), bar=bar, said=mean, was=true, forecasts=len(said), data=data)


def forecasts(store: Store, every: int) -> Iterator[tuple[float, float, float]]:
    """(which concepts and horizon, chance said, whether it came true) over every `every`-th learner and all weeks."""
    kinds = {kind: float(place) for place, kind in enumerate(product(CONCEPTS, HORIZONS))}
    for number, (_, log) in enumerate(training_log(store, TENANT)):
        if number % every:
            continue
        history = whole_history(log)
        first, last = int(history.day[0]), int(history.day[-1])
        for cut in range(first + 7, last - 6, 7):
            reached = _reached(history, cut, last)
            window = every_day(history, max(first, cut + 1 - WINDOW_DAYS), cut)
            for concepts in CONCEPTS:
                found = forecast(concepts, window.answers, int(window.mastered.sum() - window.lost.sum()))
                for days in HORIZONS:
                    if found is not None and days <= last - cut:
                        came = float(reached[days - 1] >= concepts)
                        yield kinds[concepts, days], found.chance_within(days), came


def _reached(history: DayHistory, cut: int, last: int) -> F8:
    """The most concepts mastered, net, by the end of each day after `cut`."""
    after = every_day(history, cut + 1, last)
    return np.maximum.accumulate(np.cumsum(after.mastered - after.lost)).astype(np.float64)


if __name__ == "__main__":
    raise SystemExit(main())

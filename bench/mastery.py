"""Does the learner model predict real answers? Five folds by learner, beside published models in the same run.

Prints one JSON object a line, then a table on stderr. With --plots, writes calibration and learning curves as SVG.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.learner_data import DataSet, data_folder, load
from engine.learner import LearnerModel, LearnerState, absorb
from engine.learner.charts import evaluation_charts
from engine.learner.evaluate import MEASURES, OURS, Evaluation, evaluate, folds_by_learner, stream
from engine.learner.metrics import auc
from engine.learner.regression import TrainSettings
from engine.learner.rows import part_of
from engine.learner.training import train

BARS = {"assist2009": 0.790, "algebra2005": 0.841}
CALIBRATION_BAR = 0.015
TRAIN_MINUTES_BAR = 5.0
SHARES = (0.05, 0.1, 0.25, 0.5, 1.0)
SEED = 0


def say(metric: str, value: float, bar: str = "", holds: bool | None = None) -> None:
    """Print one result."""
    line = {"bench": "mastery", "metric": metric, "value": round(value, 5), "bar": bar, "holds": holds}
    print(json.dumps(line), flush=True)


def tell(stage: str, done: float) -> None:
    """Show progress on stderr, but for the single steps of a fit."""
    if stage != "fitting":
        print(f"  {time.monotonic():9.1f} s  {stage}", file=sys.stderr, flush=True)


def report(name: str, found: Evaluation, bars: bool) -> None:
    """Print every measure of every model and slice, then a table."""
    for model in found.predictions:
        for part, where in found.slices().items():
            for measure, value in found.measure(model, where).items():
                bar, holds = "", None
                if bars and model == OURS and part == "all":
                    if measure == "auc" and name in BARS:
                        bar, holds = f">= {BARS[name]}", value >= BARS[name]
                    elif measure == "calibration_error":
                        bar, holds = f"<= {CALIBRATION_BAR}", value <= CALIBRATION_BAR
                say(f"{name}.{model}.{part}.{measure}", value, bar, holds)
    for low, answers, value in found.curve(OURS):
        say(f"{name}.{OURS}.auc_after_{low}_answers", value)
        say(f"{name}.answers_after_{low}_answers", answers)
    print(f"\n{name:12s} {'AUC':>7s} {'logloss':>8s} {'ECE':>7s} {'RMSE':>7s}  first   new", file=sys.stderr)
    for model in found.predictions:
        whole = found.measure(model)
        slices = [
            found.measure(model, where)["auc"] for part, where in found.slices().items() if part != "all"
        ]
        figures = " ".join(f"{whole[m]:7.4f}" for m in MEASURES)
        print(f"{model:12s} {figures}  " + " ".join(f"{s:.4f}" for s in slices), file=sys.stderr)


def plots(name: str, found: Evaluation, folder: Path) -> None:
    """Write the calibration plot and the curve by answers given."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, chart in evaluation_charts(name, found).items():
        (folder / f"{kind}-{name}.svg").write_text(chart, encoding="utf-8")


def curve_by_data(data: DataSet, settings: TrainSettings) -> None:
    """Print AUC on one fold by the share of the other folds' learners trained on."""
    fold = folds_by_learner(data.log.learners, 5, SEED)
    tested = data.log.take(np.flatnonzero(fold == 0))
    others = np.flatnonzero(fold != 0)
    for share in SHARES:
        some = data.log.take(others[: max(int(share * len(others)), 12)])
        model, _ = train(some, seed=SEED, version="curve", progress=tell, settings=settings)
        p = stream(tested, data.concepts, model)
        say(
            f"{data.name}.auc_trained_on_{some.answers.size}_answers",
            auc(tested.answers.correct.astype(float), p),
        )
    none = stream(tested, data.concepts, LearnerModel.priors())
    say(f"{data.name}.auc_with_priors", auc(tested.answers.correct.astype(float), none))


def one_training(data: DataSet, settings: TrainSettings) -> None:
    """Train on everything once: minutes, memory, and warm re-training."""
    start = time.monotonic()
    model, metrics = train(data.log, seed=SEED, version="whole", progress=tell, settings=settings)
    minutes = (time.monotonic() - start) / 60
    full = data.name == "assist2009" and data.log.answers.size > 250_000
    say(
        f"{data.name}.train_minutes",
        minutes,
        f"<= {TRAIN_MINUTES_BAR}" if full else "",
        minutes <= 5 if full else None,
    )
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    say(f"{data.name}.peak_memory_gb", gigabytes, "<= 2" if full else "", gigabytes <= 2 if full else None)
    say(f"{data.name}.held_out_log_loss", metrics["log_loss"])
    start = time.monotonic()
    train(data.log, seed=SEED, version="again", previous=model, progress=tell, settings=settings)
    say(f"{data.name}.warm_train_minutes", (time.monotonic() - start) / 60)
    speed(data, model)


def speed(data: DataSet, model: LearnerModel) -> None:
    """Time one answer, prediction and update together, against the slow twin on the same answers."""
    from tests.naive_learner import Answer, Learner

    sizes = np.diff(data.log.learner_offsets)
    number = int(np.argmin(np.abs(sizes - 300)))
    batch = data.log.learner(number)
    batch = part_of(batch, 0, min(batch.size, 300))
    absorb(LearnerState.empty(), batch, model)
    rounds = 20
    start = time.perf_counter()
    for _ in range(rounds):
        absorb(LearnerState.empty(), batch, model)
    kernel_us = (time.perf_counter() - start) / rounds / batch.size * 1e6
    learner = Learner([float(w) for w in model.memory_sets[0]])
    start = time.perf_counter()
    for i in range(batch.size):
        own = [int(c) for c in batch.concept[batch.offsets[i] : batch.offsets[i + 1]]]
        a = Answer(int(batch.question[i]), int(batch.correct[i]), float(batch.answered_at[i]), 0.0, int(batch.grade[i]),
                   [(c, 1.0) for c in own])  # fmt: skip
        learner.features(a.at, own, a.question, a.base, 0.0)
        learner.answer(a)
    slow_us = (time.perf_counter() - start) / batch.size * 1e6
    say(f"{data.name}.update_and_predict_us", kernel_us, "<= 10", kernel_us <= 10)
    say(f"{data.name}.slow_twin_over_kernel", slow_us / kernel_us, ">= 50", slow_us >= 50 * kernel_us)


def main() -> None:
    """Run the bench."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "sets", nargs="*", default=["assist2009", "algebra2005"], help="folders in the import format"
    )
    parser.add_argument("--quick", action="store_true", help="few learners, two folds, few steps")
    parser.add_argument(
        "--time-split", action="store_true", help="train on the first 80 %% in time, test on the rest"
    )
    parser.add_argument("--curve", action="store_true", help="also AUC by amount of training data")
    parser.add_argument("--train", action="store_true", help="also one training on everything, timed")
    parser.add_argument("--plots", type=Path, help="folder for SVG plots")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    settings = TrainSettings(threads=options.threads)
    if options.quick:
        settings = dataclasses.replace(settings, iterations=30, closing_iterations=5)
    for name in options.sets:
        folder = Path(name) if "/" in name else data_folder() / name
        if not folder.exists():
            print(f"no data set at {folder}: set GENIE_DATA", file=sys.stderr)
            continue
        data = load(folder, 60 if options.quick else 0)
        found = evaluate(
            data.log, data.concepts, seed=SEED, progress=tell, folds=2 if options.quick else 5,
            by_time=options.time_split, timed=data.timed, settings=settings,
        )  # fmt: skip
        report(data.name, found, bars=not options.quick and not options.time_split)
        if options.plots:
            plots(data.name, found, options.plots)
        if options.curve:
            curve_by_data(data, settings)
        if options.train:
            one_training(data, settings)


if __name__ == "__main__":
    main()

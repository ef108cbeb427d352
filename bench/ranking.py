"""Which concept will a learner practise next? Real logs, beside popularity, `implicit` ALS and item-item neighbours.

python -m bench.ranking [SET ...] [--quick] [--sweep] [--report DIR]. Sets are folders below GENIE_DATA, assist2009 and
algebra2005 unless said; one that is absent is passed over, saying so.

Learners are split into five parts. The first only chooses the rivals' settings; each of the others is tested once, with
models trained on all learners but that part. A tested learner is cut at eight moments, .1 to .9 of its answers; the
ranking sees what came before and is measured on the concepts that come after: `next`, those practised next, and `new`,
those practised next for the first time. With `later`, models are trained on the first 80 % of everybody's answers and
learners are cut there. Intervals are bootstrapped over learners.
"""

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bench.bar_chart import bar_chart
from bench.learner_data import DataSet, data_folder, load
from bench.output import emit
from bench.ranking_cases import (
    DEPTH,
    Case,
    Measured,
    cases_of,
    histories,
    interactions,
    interval,
    joined,
    measure,
)
from bench.ranking_ours import Ours
from bench.ranking_rivals import Fit, Rival, chosen, rivals
from bench.ranking_sweep import report_sweep
from engine.learner.rows import TrainingLog, part_of
from engine.types import F4, F8, I8, AnswerBatch

BENCH = "ranking"
SETS = ("assist2009", "algebra2005")
TASKS = ("next", "new")
PARTS = 5
MOMENTS: F8 = np.linspace(0.1, 0.9, 8)
FIRST_SHARE = 0.8
SEED = 0
ROUNDS = 1000
BAR = ">= 1.0"
PARTS_OF_OURS = frozenset({"peers_only", "factors_only"})
"""In the table, but not in the plot."""

QUESTION_CASES = 3
"""Moments a learner at which questions are ranked: there are many of them."""


class Split(NamedTuple):
    """Learners to train on and cases to test."""

    trained: I8
    cases: list[Case]


def splits(
    data: DataSet, parts: I8, moments: F8, *, folds: int, questions: bool
) -> tuple[Split, list[Split]]:
    """Return the split that chooses settings, then those that are tested."""
    everybody = np.arange(data.log.learners)
    made = [
        Split(
            everybody[parts != part], cases_of(data, everybody[parts == part], moments, questions=questions)
        )
        for part in range(1 + folds)
    ]
    # Settings are chosen without a look at anybody who is tested in the first fold either.
    aside = Split(everybody[parts > 1], made[0].cases)
    return aside, made[1:]


def first_part(data: DataSet, share: float) -> DataSet:
    """Return the data with only the first share of each learner's answers."""
    offsets = data.log.learner_offsets
    kept = np.floor(share * np.diff(offsets)).astype(np.int64)
    parts = [part_of(data.log.learner(number), 0, int(size)) for number, size in enumerate(kept)]
    pairs = np.cumsum([0, *(part.offsets[-1] for part in parts)])
    ends = [part.offsets[1:] + start for part, start in zip(parts, pairs, strict=False)]
    columns: list[Any] = [np.concatenate(column) for column in zip(*parts, strict=True)]
    columns[AnswerBatch._fields.index("offsets")] = np.concatenate([[0], *ends]).astype(np.int32)
    batch = AnswerBatch._make(columns)
    return data._replace(log=TrainingLog(np.concatenate(([0], np.cumsum(kept))), batch))


def settled(data: DataSet, rival: Rival, split: Split, width: int, *, questions: bool) -> tuple[str, Fit]:
    """Return the rival's settings with the best recall on the learners set apart, over both tasks."""
    counts = interactions(data, split.trained, width, questions=questions)
    known = histories(data, split.cases, width, questions=questions)

    def value(fit: Fit) -> float:
        scores = fit(counts).scores(known)
        return sum(float(measure(split.cases, scores, task).recall.mean()) for task in TASKS)

    return chosen(rival, value)


def set_apart(data: DataSet) -> Split:
    """Return the split on which settings are chosen; nobody of it is tested."""
    parts = np.random.default_rng(SEED).permutation(np.arange(data.log.learners) % PARTS)
    return splits(data, parts, MOMENTS, folds=0, questions=False)[0]


def concepts(data: DataSet, *, quick: bool) -> dict[str, dict[str, list[Measured]]]:
    """Rank concepts in every fold; measures by the name of what ranks and by task."""
    folds = 1 if quick else PARTS - 1
    parts = np.random.default_rng(SEED).permutation(np.arange(data.log.learners) % PARTS)
    aside, tested = splits(data, parts, MOMENTS[::4] if quick else MOMENTS, folds=folds, questions=False)
    width = int(data.concepts.concepts.max()) + 1
    fits = {
        rival.name: settled(data, rival, aside, width, questions=False)
        for rival in rivals(quick=quick, questions=False)
    }
    found: dict[str, dict[str, list[Measured]]] = {}
    for split in tested:
        counts = interactions(data, split.trained, width, questions=False)
        known = histories(data, split.cases, width, questions=False)
        scores = Ours.trained(data, split.trained, seed=SEED).rankings(split.cases)
        scores |= {name: fit(counts).scores(known) for name, (_, fit) in fits.items()}
        collect(found, split.cases, scores)
    for name, (told, _) in fits.items():
        if told:
            print(f"{data.name}: {name} with {told}", file=sys.stderr)
    return found


def later(data: DataSet, *, quick: bool) -> dict[str, dict[str, list[Measured]]]:
    """Train on the first part of everybody's answers, rank what comes after; settings chosen on what came before."""
    width = int(data.concepts.concepts.max()) + 1
    everybody = np.arange(data.log.learners)
    early = first_part(data, FIRST_SHARE)
    earlier = first_part(data, FIRST_SHARE**2)
    aside = Split(everybody, cases_of(early, everybody, np.array([FIRST_SHARE])))
    cases = cases_of(data, everybody, np.array([FIRST_SHARE]))
    scores = Ours.trained(early, everybody, seed=SEED).rankings(cases)
    counts = interactions(early, everybody, width, questions=False)
    known = histories(data, cases, width, questions=False)
    for rival in rivals(quick=quick, questions=False):
        before = interactions(earlier, everybody, width, questions=False)
        then = histories(early, aside.cases, width, questions=False)

        def value(fit: Fit, before: "object" = before, then: "object" = then) -> float:
            ranked = fit(before).scores(then)  # type: ignore[arg-type]  # scipy's matrices have no common type
            return sum(float(measure(aside.cases, ranked, task).recall.mean()) for task in TASKS)

        scores[rival.name] = chosen(rival, value)[1](counts).scores(known)
    found: dict[str, dict[str, list[Measured]]] = {}
    collect(found, cases, scores)
    return found


def questions(data: DataSet, *, quick: bool) -> dict[str, dict[str, list[Measured]]]:
    """Rank unpractised questions in one fold: ours is what the FAISS index gives."""
    parts = np.random.default_rng(SEED).permutation(np.arange(data.log.learners) % PARTS)
    moments = MOMENTS[:: len(MOMENTS) // QUESTION_CASES]
    aside, tested = splits(data, parts, moments, folds=1, questions=True)
    split, width = tested[0], data.concepts.offsets.shape[0] - 1
    counts = interactions(data, split.trained, width, questions=True)
    known = histories(data, split.cases, width, questions=True)
    ours = Ours.trained(data, split.trained, seed=SEED)
    found: dict[str, dict[str, list[Measured]]] = {}
    by_index = np.stack([ours.nearest(case, DEPTH) for case in split.cases])
    collect(found, split.cases, {"ours": by_index}, tasks=("new",))
    for rival in rivals(quick=quick, questions=True):
        told, fit = settled(data, rival, aside, width, questions=True)
        collect(found, split.cases, {rival.name: fit(counts).scores(known)}, tasks=("new",))
        print(f"{data.name}: questions, {rival.name} with {told}", file=sys.stderr)
    return found


def collect(
    found: dict[str, dict[str, list[Measured]]],
    cases: list[Case],
    scores: dict[str, F4],
    tasks: tuple[str, ...] = TASKS,
) -> None:
    """Measure rankings and add them to what was found."""
    for name, values in scores.items():
        for task in tasks:
            found.setdefault(name, {}).setdefault(task, []).append(measure(cases, values, task))


def report(
    name: str,
    found: dict[str, dict[str, list[Measured]]],
    rows: list[dict[str, object]],
    *,
    rounds: int,
    bars: bool,
) -> bool:
    """Print every figure with its interval, and the ratio to `implicit` ALS; whether the bars hold."""
    held = True
    for task in found["ours"]:
        whole = {ranker: joined(tasks[task]) for ranker, tasks in found.items()}
        for ranker, measured in whole.items():
            count = len(measured.recall)
            for of in ("recall", "ndcg"):
                value, low, high = interval(measured, of, seed=SEED, rounds=rounds)
                metric, low, high = f"{name}.{task}.{ranker}.{of}_at_10", round(low, 4), round(high, 4)
                emit(BENCH, metric, round(value, 4), low=low, high=high, cases=count)
                row = {"set": name, "task": task, "ranker": ranker, "of": of, "value": value}
                rows.append({**row, "low": low, "high": high})
        for of in ("recall", "ndcg"):
            value, low, high = interval(
                whole["ours"], of, rival=whole["implicit_als"], seed=SEED, rounds=rounds
            )
            bar = BAR if bars and of == "recall" else ""
            metric = f"{name}.{task}.ours_over_implicit_als_{of}_at_10"
            held &= emit(BENCH, metric, round(value, 4), bar=bar, low=round(low, 4), high=round(high, 4))
    return held


def write_report(folder: Path, rows: list[dict[str, object]]) -> None:
    """Write the figures as a Markdown table, and recall as a plot a set."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["| set | task | ranking | recall@10 | nDCG@10 |", "|---|---|---|---|---|"]
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        figures = " | ".join(
            f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})" for row in (first, second)
        )
        lines.append(f"| {first['set']} | {first['task']} | {first['ranker']} | {figures} |")
    (folder / "ranking.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for name in dict.fromkeys(str(row["set"]) for row in rows):
        own = [row for row in rows if row["set"] == name and row["of"] == "recall"]
        groups = list(dict.fromkeys(str(row["task"]) for row in own))
        bars = {
            str(ranker): [
                (float(str(row["value"])), float(str(row["low"])), float(str(row["high"])))
                for row in own
                if row["ranker"] == ranker
            ]
            for ranker in dict.fromkeys(row["ranker"] for row in own)
            if ranker not in PARTS_OF_OURS
        }
        chart = bar_chart(bars, groups, title=f"{name}: recall@10 and 95 % intervals")
        (folder / f"ranking-{name.replace(' ', '-')}.svg").write_text(chart, encoding="utf-8")


def main() -> None:
    """Run it and report; the exit code is 1 when a bar does not hold."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("sets", nargs="*", default=list(SETS), help="folders in the import format")
    options.add_argument("--quick", action="store_true", help="few learners, one fold, no choice of settings")
    options.add_argument("--report", type=Path, help="folder for a table and plots")
    options.add_argument(
        "--sweep", action="store_true", help="instead: what is kept of other learners, by recall"
    )
    asked = options.parse_args()
    rounds = 100 if asked.quick else ROUNDS
    held, rows = True, list[dict[str, object]]()
    for name in asked.sets:
        folder = Path(name) if "/" in name else data_folder() / name
        if not folder.exists():
            print(f"no data set at {folder}: set GENIE_DATA", file=sys.stderr)
            continue
        data = load(folder, 120 if asked.quick else 0)
        if asked.sweep:
            report_sweep(BENCH, data, *set_apart(data))
            continue
        found = concepts(data, quick=asked.quick)
        held &= report(data.name, found, rows, rounds=rounds, bars=not asked.quick)
        if not asked.quick:
            held &= report(f"{data.name} later", later(data, quick=False), rows, rounds=rounds, bars=True)
        if not asked.quick or name == SETS[0]:
            told = questions(data, quick=asked.quick)
            held &= report(f"{data.name} questions", told, rows, rounds=rounds, bars=False)
    if asked.report is not None:
        write_report(asked.report, rows)
    raise SystemExit(0 if held else 1)


if __name__ == "__main__":
    main()

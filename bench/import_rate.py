"""How fast `genie import` takes in a real data set on one core, and with how much memory.

The command runs in a process of its own, pinned to one core, into a new store on disk; its kernels were compiled by a
first small import, as on any machine that has run Genie before. Afterwards the import is repeated, which must record
nothing, and every record is rebuilt from the log. Without the data it measures nothing, and says so.
"""

import argparse
import csv
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.learner_data import data_folder
from bench.output import emit

BENCH = "import_rate"
LEAST_RATE = 20_000
MOST_MEGABYTES = 1_000
QUICK_ANSWERS = 5_000
WARM_ANSWERS = 50


def write_synthetic(folder: Path, answers: int) -> Path:
    """Random answers, a hundred a learner, and the questions they are of."""
    rng = random.Random(1)
    folder.mkdir()
    with (folder / "questions.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("question_id", "concept_ids"))
        writer.writerows((f"q{n}", f"c{n % 50}") for n in range(500))
    with (folder / "answers.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("answer_id", "learner_id", "question_id", "correct"))
        writer.writerows(
            (f"a{n}", f"u{n // 100}", f"q{rng.randrange(500)}", int(rng.random() < 0.7))
            for n in range(answers)
        )
    return folder


def genie(*arguments: str) -> tuple[dict[str, Any], float]:
    """A command's JSON result and its wall time in seconds, the interpreter's start included."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "server", *arguments, "--json"], stdout=subprocess.PIPE, check=True
    )
    record: dict[str, Any] = json.loads(done.stdout)
    return record, time.perf_counter() - started


def main() -> int:
    """Run and report; the exit status says whether the bars hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="assist2009", help="name of the data set")
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_ANSWERS:,} made-up answers, no bar on the rate"
    )
    options = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(prefix="genie-import-") as scratch:
        root = Path(scratch)
        warm = write_synthetic(root / "warm", WARM_ANSWERS)
        genie("import", str(warm), "--data-directory", str(root / "warm-store"))
        source = (
            write_synthetic(root / "files", QUICK_ANSWERS) if options.quick else data_folder() / options.data
        )
        if not source.is_dir():
            print(json.dumps({"bench": BENCH, "skipped": f"{source} is not there; set GENIE_DATA"}))
            return 0
        return 0 if measure(source, root / "store", quick=options.quick) else 1


def measure(source: Path, store: Path, *, quick: bool) -> bool:
    """Import, import again, replay; whether every bar holds."""
    place = ("--data-directory", str(store))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    first, wall_s = genie("import", str(source), *place)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    megabytes = after.ru_maxrss / 1024
    recorded = first["answers_recorded"]
    again, again_s = genie("import", str(source), *place)
    replayed, replay_s = genie("replay", *place)
    differing = sum(report["differing"] for report in replayed["tenants"].values())
    facts = {"data": source.name, "answers": recorded}
    rate_bar = "" if quick else f">= {LEAST_RATE}"
    holds = [
        emit(BENCH, "cpu_microseconds_per_answer", cpu_s / recorded * 1e6, **facts),
        emit(BENCH, "answers_per_second", recorded / wall_s, bar=rate_bar, seconds=wall_s, **facts),
        emit(BENCH, "answers_per_second_without_start", recorded / first["seconds"], **facts),
        emit(BENCH, "peak_megabytes", megabytes, bar=f"<= {MOST_MEGABYTES}", **facts),
        emit(BENCH, "recorded_by_a_repeat", again["answers_recorded"], bar="== 0", seconds=again_s, **facts),
        emit(BENCH, "records_unlike_their_log", differing, bar="== 0", seconds=replay_s, **facts),
    ]
    return all(holds)


if __name__ == "__main__":
    raise SystemExit(main())

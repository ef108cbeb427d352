"""A bench on two git revisions of this repository, in turns on one machine: each figure's ratio with its interval.

Each revision is checked out beside the other, with this one's virtual environment. A revision must have the bench. The
interval is that of the mean log ratio of the rounds, by Student's t, at 95 %.

    python -m bench.compare main HEAD --rounds 5 -- serve --brief --only throughput
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from scipy import stats

from bench.output import emit
from bench.report import read

ROOT = Path(__file__).parents[1]
CONFIDENCE = 0.95


@contextmanager
def checked_out(revision: str, folder: Path) -> Iterator[Path]:
    """A revision's files, in a work tree of its own that is removed afterwards."""
    place = folder / revision.replace("/", "_")
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", place, revision], cwd=ROOT, check=True)
    try:
        yield place
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", place], cwd=ROOT, check=True)


def figures(place: Path, bench: Sequence[str]) -> dict[str, float]:
    """One run's figures by name; those that come several times are told apart by the facts that are words."""
    name, *options = bench
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{name}", *options],
        cwd=place,
        env={**os.environ, "PYTHONPATH": f"{place}{os.pathsep}{place / 'protos'}"},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    found = {}
    for line in read(done.stdout.splitlines()):
        words = [
            str(value)
            for key, value in line.items()
            if isinstance(value, str) and key not in ("bench", "bar")
        ]
        if isinstance(line["value"], int | float):
            found[" ".join(words)] = float(line["value"])
    return found


def ratio(before: Sequence[float], after: Sequence[float]) -> tuple[float, float, float]:
    """(after ÷ before, its lower and upper bound) of figures above 0, paired by round."""
    logs = np.log(np.asarray(after) / np.asarray(before))
    mean = float(logs.mean())
    if len(logs) < 2:
        return float(np.exp(mean)), 0.0, float("inf")
    reach = float(stats.t.ppf(0.5 + CONFIDENCE / 2, len(logs) - 1) * logs.std(ddof=1) / np.sqrt(len(logs)))
    return float(np.exp(mean)), float(np.exp(mean - reach)), float(np.exp(mean + reach))


def main() -> int:
    """Run and report."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("before", help="a git revision")
    parser.add_argument("after", help="another")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("bench", nargs="+", help="name of the bench and its options, after --")
    options = parser.parse_args()
    runs: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])
    with (
        tempfile.TemporaryDirectory(prefix="genie-compare-") as name,
        checked_out(options.before, Path(name) / "before") as before,
        checked_out(options.after, Path(name) / "after") as after,
    ):
        for number in range(options.rounds):
            # Who begins changes from round to round, so that a drift favours neither.
            for which in (0, 1) if number % 2 == 0 else (1, 0):
                runs[which].append(figures((before, after)[which], options.bench))
    shared = [key for key in runs[0][0] if all(run.get(key, 0.0) > 0.0 for run in runs[0] + runs[1])]
    for key in shared:
        value, low, high = ratio([run[key] for run in runs[0]], [run[key] for run in runs[1]])
        interval = [round(low, 4), round(high, 4)] if options.rounds > 1 else None
        emit("compare", key, round(value, 4), interval=interval, rounds=options.rounds)
    if not shared:
        print(json.dumps({"bench": "compare", "metric": "shared_figures", "value": 0}))
    return 0 if shared else 1


if __name__ == "__main__":
    raise SystemExit(main())

"""What `genie report weekly` costs: reports on 10,000 learners on one core, and whether their sums are right.

python -m bench.reports [--quick] [--learners N] [--answers N]

The store is on disk: 1,000 concepts, 100 answers a learner over eight weeks. Writing both files is timed as CPU time of
one thread, since that is what a core has to give; the sums are compared with a count kept while the answers were made.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

from bench.output import emit
from bench.report_world import NOW, TENANT, Recount, make
from engine.warmup import warm_up
from genie.v1 import report_pb2
from server.reporting import write_reports
from server.services.reports import WEEK_SPAN, Period
from server.tenants import Tenants
from store.stores import open_stores

BENCH = "reports"
MOST_SECONDS = 30.0
LEARNERS = 10_000
QUICK_LEARNERS = 60


def main() -> int:
    """Run and report; the exit status says whether the bars hold."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--learners", type=int, default=LEARNERS)
    parser.add_argument("--answers", type=int, default=100, help="of each learner")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_LEARNERS} learners, no bar on time")
    options = parser.parse_args()
    learners = QUICK_LEARNERS if options.quick else options.learners
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory(prefix="genie-reports-") as scratch:
        counted = make(Path(scratch) / "store", learners, options.answers, options.seed)
        return 0 if measure(Path(scratch), learners, counted, quick=options.quick) else 1


def measure(scratch: Path, learners: int, counted: Recount, *, quick: bool) -> bool:
    """Write the reports once; whether every bar holds."""
    warm_up()
    jsonl, page = scratch / "week.jsonl", scratch / "week.html"
    stores = open_stores(scratch / "store")
    tenants = Tenants(stores.state)
    try:
        bundle = tenants.bundle(TENANT)
        period = Period.over(NOW, "UTC", WEEK_SPAN)
        began, wall = time.process_time(), time.perf_counter()
        written = write_reports(
            stores.state, TENANT, bundle, period, now=NOW, jsonl=jsonl, page=page, title="Weekly report"
        )
        cpu_s, wall_s = time.process_time() - began, time.perf_counter() - wall
    finally:
        tenants.close()
        stores.close()
    bar = "" if quick else f"<= {MOST_SECONDS}"
    facts = {
        "learners": learners,
        "megabytes": jsonl.stat().st_size / 1e6,
        "page_megabytes": page.stat().st_size / 1e6,
    }
    holds = [
        emit(BENCH, "cpu_seconds", cpu_s, bar=bar, wall_seconds=wall_s, **facts),
        emit(BENCH, "cpu_milliseconds_per_learner", cpu_s / learners * 1e3),
        emit(BENCH, "lines_missing", learners - _lines(jsonl), bar="== 0"),
        emit(BENCH, "sums_that_differ", _differences(written.report, counted), bar="== 0"),
    ]
    return all(holds)


def _lines(path: Path) -> int:
    """Lines of a file, each a report."""
    with path.open() as lines:
        return len({json.loads(line)["learnerId"] for line in lines})


def _differences(report: report_pb2.TenantReport, counted: Recount) -> int:
    """Sums of the report on all learners that are not those counted."""
    practice = report.practice
    found = (
        report.active_learners_count,
        practice.active_days_count,
        practice.answers_count,
        practice.correct_count,
        practice.practice_duration.ToMilliseconds(),
        sum(day.answers_count for day in report.days),
    )
    expected = (
        counted.active,
        counted.active_days,
        counted.answers,
        counted.correct,
        counted.milliseconds,
        counted.answers,
    )
    return sum(mine != theirs for mine, theirs in zip(found, expected, strict=True))


if __name__ == "__main__":
    raise SystemExit(main())

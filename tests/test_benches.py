"""Every bench runs at its smallest size, so that none can rot. What is timed is not judged here; what is right is."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = {"compare", "report"}
"""These run no bench of their own; their tests are in tests/bench."""
BENCHES = sorted(
    path.stem
    for path in (ROOT / "bench").glob("*.py")
    if '__name__ == "__main__"' in path.read_text() and path.stem not in TOOLS
)
BY_END_TO_END = {"consistency", "crash", "drain"}
"""Their small versions are in test_end_to_end.py, which shares one server."""
TIMED = {
    "engine",
    "experiment_watchers",
    "experiments",
    "import_rate",
    "ingest",
    "metrics_cost",
    "overload",
    "serve",
    "tracing",
}
"""These have bars on time, which a busy machine may miss."""
BARS = {
    "serve": {
        "recommend_over_floor",
        "p99_over_floor",
        "batch_over_unary",
        "two_workers_over_one",
        "p50_growth_learners",
        "start_seconds",
        "private_megabytes",
        "store_read_p95_ms",
    },
    "ingest": {"answers_over_commits"},
    "engine": {"recommend_growth", "update_kernel_over_naive"},
    "overload": {"goodput_over_peak", "failed_otherwise", "recovered_over_peak"},
}
"""Rows of docs/performance.md's table: each is told, held or missed, under this name."""


@pytest.mark.processes
@pytest.mark.parametrize("bench", sorted(set(BENCHES) - BY_END_TO_END))
def test_bench_runs_and_prints_its_figures(bench: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"bench.{bench}", "--quick"],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos'}",
            "GENIE_BENCH_CACHE": str(ROOT / ".cache" / "worlds"),
        },
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    if "is not installed" in done.stderr:
        pytest.skip(done.stderr.strip())
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == 0 or (bench in TIMED and done.returncode == 1), done.stdout + done.stderr
    figures = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not figures and "GENIE_DATA" in done.stdout + done.stderr:
        pytest.skip("the bench needs a data set that is not here")
    assert figures
    assert all({"bench", "metric", "value"} <= set(figure) for figure in figures)
    assert {figure["metric"] for figure in figures if figure.get("bar")} >= BARS.get(bench, set())


def test_small_versions_elsewhere_are_of_benches_that_exist() -> None:
    assert set(BENCHES) >= BY_END_TO_END | TIMED | BARS.keys()

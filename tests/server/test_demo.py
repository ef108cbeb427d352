"""The demo that `make run` starts: the whole story, from an empty directory, with a real server."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from server.cli import demo
from tests.waiting import PATIENCE_SECONDS

ROOT = Path(__file__).parents[2]


@pytest.mark.processes
def test_the_story_is_told_from_an_empty_directory_and_again_from_a_filled_one(tmp_path: Path) -> None:
    first = _demo(tmp_path)
    assert "Imported 79 concepts" in first
    assert "Trained model v0001" in first
    for told in (
        "What next?",
        "A wrong answer to ",
        "mastery of ",
        "streak now ",
        "And now?",
        "median ",
        "Try next",
    ):
        assert told in first
    assert "examples.client" in first
    assert "grpcurl" in first
    assert "genie recommend" in first
    assert "Using the classroom" in _demo(tmp_path)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(("given", "option"), [(["PORT=50151"], " --port=50151"), ([], "")])
def test_make_run_takes_a_port(given: list[str], option: str) -> None:
    environment = {"PATH": os.environ["PATH"], "PORT": "3000"}
    done = subprocess.run(
        ["make", "--dry-run", "run", *given],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1].rstrip() == f".venv/bin/genie demo{option}"


def _demo(directory: Path) -> str:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "server",
            "demo",
            "--once",
            "--port=0",
            f"--data-directory={directory / 'demo'}",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.processes
def test_a_demo_that_is_told_to_end_takes_its_server_along(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "server", "demo", "--port=0", f"--data-directory={tmp_path / 'demo'}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith("Starting a server")
            (server,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            process.terminate()
            assert process.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
            assert not Path(f"/proc/{server}").exists()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_the_demo_unless_they_are_ignored(number: signal.Signals) -> None:
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(SystemExit) as ended, demo._ended_by_signals():
            signal.raise_signal(number)
        assert ended.value.code == 128 + number
        assert signal.getsignal(number) is signal.SIG_DFL
        signal.signal(number, signal.SIG_IGN)
        with demo._ended_by_signals():
            assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)

"""`genie demo`: everything at once on the bundled curriculum. The story itself is told by `server.demo.story`."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import click
import grpc
from rich.console import Console

from server.cli.client import is_serving
from server.config import ConfigurationError
from server.demo.story import POLICIES, Story, fill, is_filled
from server.models import ModelDirectory
from server.port import reserve_port
from server.training import train_models
from store.stores import open_stores

TENANT = "default"
START_SECONDS = 300.0
"""The first start compiles the kernels, which takes half a minute on one core."""
STOP_SECONDS = 40.0
HOST = "127.0.0.1"


@click.command(name="demo")
@click.option(
    "--port", type=click.IntRange(0, 65_535), default=50_051, show_default=True, help="Port to serve on."
)
@click.option(
    "--data-directory",
    type=click.Path(path_type=Path),
    default=Path(".genie/demo"),
    show_default=True,
    help="Where the demo keeps its data; delete it to begin anew.",
)
@click.option("--once", is_flag=True, help="Stop after the story instead of serving on.")
def command(port: int, data_directory: Path, once: bool) -> None:
    """Serve a bundled curriculum with a simulated classroom, and tell a learner's story on screen."""
    console = Console()
    try:
        held, _, chosen = reserve_port(HOST, port)
    except ConfigurationError as error:
        raise click.ClickException(f"{error}; choose another port: --port, or make run PORT=…") from None
    held.close()
    with _ended_by_signals(), _server(data_directory, chosen) as (process, log_path):
        console.print(
            f"Starting a server on {HOST}:{chosen} (the first start compiles its kernels: half a minute)"
        )
        _prepare(data_directory, console)
        _wait(process, chosen, log_path)
        with grpc.insecure_channel(f"{HOST}:{chosen}") as channel:
            try:
                learner_id = Story(channel, console).tell()
            except grpc.RpcError as error:
                raise click.ClickException(
                    f"a call failed: {error}; the server's log is {log_path}"
                ) from None
        _next_steps(console, chosen, learner_id)
        if not once:
            console.print("\nServing on. Ctrl-C stops it.")
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()


def _prepare(data_directory: Path, console: Console) -> None:
    stores = open_stores(data_directory)
    try:
        if is_filled(stores.state, TENANT):
            console.print(f"Using the classroom in {data_directory} from last time")
            return
        with console.status("Importing the curriculum and a simulated classroom"):
            report = fill(stores.state, TENANT, now=time.time())
        console.print(
            f"Imported {report.concepts.created} concepts, {report.questions.created} questions, "
            f"{report.learners.created} learners and {report.answers_recorded:,} answers "
            f"in {report.seconds:.1f} s"
        )
        with console.status("Training on them"):
            trained = train_models(stores.state, ModelDirectory(data_directory, TENANT), now=time.time())
        console.print(
            f"Trained model {trained.version or trained.previous}: on answers of learners it never saw, "
            + ", ".join(f"{score.model} AUC {score.auc:.3f}" for score in trained.scores)
        )
    finally:
        stores.close()


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end this process as an error would, and so its server; unless they are ignored."""

    def end(number: int, _: object) -> None:
        sys.exit(128 + number)

    numbers = (signal.SIGTERM, signal.SIGHUP)
    heard = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _server(data_directory: Path, port: int) -> "Iterator[tuple[subprocess.Popen[bytes], Path]]":
    """A `genie serve` of its own process group, drained at the end."""
    data_directory.mkdir(parents=True, exist_ok=True)
    log_path = data_directory / "server.log"
    settings = [f"--host={HOST}", f"--port={port}", f"--data-directory={data_directory}"]
    policies = data_directory / "policies.toml"
    policies.write_text(POLICIES)
    settings += [f"--policies-file={policies}", f"--start-seconds={START_SECONDS:.0f}", "--log-format=json"]
    with log_path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "server", "serve", *settings],
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={name: value for name, value in os.environ.items() if not name.startswith("GENIE_")},
        )
        try:
            yield process, log_path
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait(process: "subprocess.Popen[bytes]", port: int, log_path: Path) -> None:
    """Return when the server is SERVING. Raises ClickException when it ends or takes too long."""
    limit = time.monotonic() + START_SECONDS
    while time.monotonic() < limit and process.poll() is None:
        if is_serving(f"{HOST}:{port}"):
            return
        time.sleep(0.1)
    raise click.ClickException(f"the server did not start; its log is {log_path}")


def _next_steps(console: Console, port: int, learner_id: str) -> None:
    target = f"{HOST}:{port}"
    option = "" if target == "127.0.0.1:50051" else f" --target {target}"
    python = Path(sys.executable)
    here = Path.cwd()
    shown = python.relative_to(here) if python.is_relative_to(here) else python
    console.rule("Try next")
    call = f'{{"learner_id": "{learner_id}", "limit": 3}}'
    steps = (
        f"{shown} -m examples.client{option}",
        f"grpcurl -plaintext -d '{call}' {target} genie.v1.RecommendationService/Recommend",
        f"{shown.parent / 'genie'} recommend {learner_id}{option}",
    )
    for step in steps:
        console.print(f"  {step}", soft_wrap=True, highlight=False)

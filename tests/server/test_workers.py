"""The supervisor with real worker processes: a killed one is replaced, drains and restarts fail no call."""

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pytest
from google.protobuf.wrappers_pb2 import StringValue

from server.config import ConfigurationError
from server.port import reserve_port
from server.workers import EXIT_CONFIGURATION, MOST_FAILED_STARTS, Supervisor
from tests.server.echo import EchoClient
from tests.waiting import PATIENCE_SECONDS, eventually

ROOT = Path(__file__).parents[2]

RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{}],
                "retryPolicy": {
                    "maxAttempts": 5,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "1s",
                    "backoffMultiplier": 2,
                    # A stopping gRPC server cancels calls it had not handed to a thread: grpc/grpc#41785.
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ]
    }
)

pytestmark = pytest.mark.processes


class Served:
    """A `genie serve` of the echo service and the log lines it wrote."""

    def __init__(self, *options: str, **environment: str) -> None:
        self.lines: list[dict[str, object]] = []
        self.text: list[str] = []
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "server", "serve", "--port=0", "--log-format=json"),
                *("--access-log-ratio=0", "--assemble=tests.server.echo:assemble", *options),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos'}", **environment},
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr:
            for line in self.process.stderr:
                self.text.append(line)
                with contextlib.suppress(ValueError):
                    # A line of a stack may be a number.
                    if isinstance(event := json.loads(line), dict):
                        self.lines.append(event)

    def events(self, event: str) -> list[dict[str, object]]:
        """Lines logged so far with this event."""
        return [line for line in list(self.lines) if line.get("event") == event]

    def wait(self, holds: Callable[[], object]) -> None:
        """Wait until `holds`, and say what was logged when it never does."""
        eventually(holds, told=lambda: "".join(self.text))

    @property
    def address(self) -> str:
        """Where it listens, once all workers serve."""
        self.wait(lambda: self.events("serving") or self.process.poll() is not None)
        return str(self.events("serving")[0]["address"])

    def finish(self) -> int:
        """The exit code, after the last log line was read."""
        try:
            return self.process.wait(PATIENCE_SECONDS)
        finally:
            # A worker without its supervisor ends by itself.
            self.process.kill()
            self._reader.join(PATIENCE_SECONDS)


@contextlib.contextmanager
def served(*options: str, **environment: str) -> Iterator[Served]:
    """A server that is gone when the block ends."""
    server = Served(*options, **environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.process.terminate()
        server.finish()


class Load:
    """Threads that call without pause, each over a connection of its own."""

    def __init__(self, address: str, threads: int = 3) -> None:
        self.pids: Counter[int] = Counter()
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(address,), daemon=True) for _ in range(threads)
        ]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _call(self, address: str) -> None:
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.service_config", RETRIES),
            # A listener that closes resets the connections it had not accepted: connect again before the
            # attempts above are used up (gRPC would wait a second).
            ("grpc.initial_reconnect_backoff_ms", 50),
        ]
        with grpc.insecure_channel(address, options) as channel:
            say = EchoClient(channel).say
            while not self._stop.is_set():
                try:
                    self.pids[int(say(StringValue(value="pid"), timeout=PATIENCE_SECONDS).value)] += 1
                except grpc.RpcError as error:
                    self.failures.append(str(error))

    def stop(self) -> None:
        """End the load and wait for its last calls."""
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE_SECONDS)


def test_a_killed_worker_is_replaced_and_the_port_keeps_answering() -> None:
    with served("--workers=2") as server, Load(server.address) as load:
        first = {int(str(line["pid"])) for line in server.events("worker serves")}
        victim = min(first)
        server.wait(lambda: sum(load.pids.values()) > 50)
        os.kill(victim, signal.SIGKILL)
        server.wait(lambda: len(server.events("worker serves")) == 3)
        before = sum(load.pids.values())
        server.wait(lambda: sum(load.pids.values()) > before + 50)
        load.stop()
        assert load.failures == []
        (death,) = server.events("a worker died")
        assert (death["pid"], death["how"], death["served"]) == (victim, "SIGKILL", True)


def test_a_worker_that_hangs_says_where_and_is_replaced() -> None:
    with served("--workers=2", "--hang-seconds=5") as server, Load(server.address) as load:
        with grpc.insecure_channel(server.address) as channel:
            client = EchoClient(channel)
            victim = int(client.say(StringValue(value="pid")).value)
            hung = client.say.future(StringValue(value="hang"))
            server.wait(lambda: len(server.events("worker serves")) == 3)
            assert hung.code() == grpc.StatusCode.UNAVAILABLE
        (line,) = server.events("a worker hangs")
        assert line["pid"] == victim
        assert 5.0 <= float(str(line["silent_seconds"])) < PATIENCE_SECONDS
        (death,) = server.events("a worker died")
        assert (death["pid"], death["how"]) == (victim, "SIGKILL")
        assert any("Current thread" in text or "most recent call first" in text for text in server.text)
        assert any("echo.py" in text and "in say" in text for text in server.text)
        before = sum(load.pids.values())
        server.wait(lambda: sum(load.pids.values()) > before + 50)
        load.stop()
        # What waited in the worker that hung ends with it, and is tried again elsewhere.
        assert load.failures == []


def test_a_worker_that_wakes_up_in_time_lives_on() -> None:
    with served("--hang-seconds=5") as server:
        assert server.address
        (pid,) = (int(str(line["pid"])) for line in server.events("worker serves"))
        os.kill(pid, signal.SIGSTOP)
        server.wait(lambda: server.events("a worker hangs"))
        os.kill(pid, signal.SIGCONT)
        server.wait(lambda: server.events("a worker runs again") or server.events("a worker died"))
        assert not server.events("a worker died")
        server.process.send_signal(signal.SIGUSR1)
        with grpc.insecure_channel(server.address) as channel:
            assert EchoClient(channel).say(StringValue(value="pid")).value == str(pid)


def test_a_worker_that_hangs_holds_up_no_stop() -> None:
    with served("--hang-seconds=5", "--drain-seconds=120") as server:
        assert server.address
        (pid,) = (int(str(line["pid"])) for line in server.events("worker serves"))
        os.kill(pid, signal.SIGSTOP)
        server.wait(lambda: server.events("a worker hangs"))
        server.process.terminate()
        assert server.finish() == 0
        assert not server.events("draining took too long: killing a worker")


def test_a_pause_of_all_processes_is_nobodys_hang() -> None:
    with served("--workers=2", "--hang-seconds=5") as server:
        assert server.address
        pids = [server.process.pid, *(int(str(line["pid"])) for line in server.events("worker serves"))]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(7.0)
        # The supervisor first: it must not take the others' silence for theirs.
        os.kill(pids[0], signal.SIGCONT)
        time.sleep(1.0)
        for pid in pids[1:]:
            os.kill(pid, signal.SIGCONT)
        time.sleep(6.0)
        assert not server.events("a worker hangs")
        with grpc.insecure_channel(server.address) as channel:
            assert EchoClient(channel).say(StringValue(value="back")).value == "back"


def test_sighup_replaces_every_worker_under_load_and_no_call_fails() -> None:
    with served("--workers=2") as server, Load(server.address) as load:
        first = {line["pid"] for line in server.events("worker serves")}
        server.wait(lambda: sum(load.pids.values()) > 50)
        server.process.send_signal(signal.SIGHUP)
        server.wait(lambda: server.events("all workers are replaced"))
        served_by = set(load.pids)
        server.wait(lambda: set(load.pids) - first)
        load.stop()
        assert load.failures == []
        assert served_by & first
        events = [str(line["event"]) for line in server.lines]
        serves = [index for index, event in enumerate(events) if event == "worker serves"]
        drains = [index for index, event in enumerate(events) if event == "draining"]
        assert len(serves) == 4
        assert serves[2] < drains[0] < serves[3] < drains[1], "one at a time, the new one before the old"


def test_sigterm_finishes_the_calls_in_flight(tmp_path: Path) -> None:
    with served() as server, grpc.insecure_channel(server.address) as channel:
        client = EchoClient(channel)
        assert client.say(StringValue(value="ready")).value == "ready"
        slow = [client.say.future(StringValue(value=f"hold {tmp_path}")) for _ in range(4)]
        server.wait(lambda: len(list(tmp_path.glob("call-*"))) == 4)
        server.process.send_signal(signal.SIGTERM)
        server.wait(lambda: server.events("draining"))
        (tmp_path / "go").touch()
        assert [call.result().value for call in slow] == [f"hold {tmp_path}"] * 4
        assert server.finish() == 0
        (stopped,) = server.events("stopped")
        assert (stopped["calls"], stopped["unfinished"]) == (5, 0)


def test_workers_drain_when_their_supervisor_is_killed() -> None:
    with served("--workers=2") as server:
        assert server.address
        pids = [int(str(line["pid"])) for line in server.events("worker serves")]
        server.process.kill()
        server.finish()
        server.wait(lambda: len(server.events("stopped")) == 2)
        server.wait(lambda: not any(_alive(pid) for pid in pids))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_workers_that_never_start_make_the_supervisor_give_up() -> None:
    with served(ECHO_FAILS="1") as server:
        assert server.finish() == 1
        assert len(server.events("a worker died")) == 5
        assert "told to fail" in "".join(server.text)
        (line,) = server.events("workers cannot start; giving up: see the lines above for the cause")
        assert line["failed_starts"] == 5


def test_settings_that_only_a_worker_can_judge_end_it_at_once(tmp_path: Path) -> None:
    missing = tmp_path / "none.pem"
    with served(f"--tls-certificate-file={missing}", f"--tls-key-file={missing}") as server:
        assert server.finish() == EXIT_CONFIGURATION
        assert len(server.events("a worker died")) == 1
        assert f"tls_certificate_file is {missing}, which cannot be read" in "".join(server.text)


def test_a_wrong_setting_is_refused_before_anything_starts() -> None:
    with served("--threads=many") as server:
        assert server.finish() == EXIT_CONFIGURATION
        text = "".join(server.text)
        assert text == (
            "genie: threads (from option --threads) is 'many'; must be a whole number from 1 to 256\n"
        )


def test_a_failed_replacement_leaves_the_old_worker_serving(tmp_path: Path) -> None:
    file = tmp_path / "genie.toml"
    file.write_text("threads = 2\n")
    with served(f"--config={file}") as server, Load(server.address, threads=1) as load:
        server.wait(lambda: load.pids)
        file.write_text("threads = 0\n")
        server.process.send_signal(signal.SIGHUP)
        server.wait(lambda: server.events("a replacement did not come up: the old workers stay"))
        before = sum(load.pids.values())
        server.wait(lambda: sum(load.pids.values()) > before + 20)
        load.stop()
        assert load.failures == []
        assert len(load.pids) == 1
        assert "threads (from file" in "".join(server.text)


def test_a_supervisor_that_can_start_no_process_keeps_its_workers_and_tries_again() -> None:
    failed = "a worker cannot be started"
    with served("--workers=2") as server, Load(server.address) as load:
        supervisor = server.process.pid
        files = resource.prlimit(supervisor, resource.RLIMIT_NOFILE)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (3, files[1]))
        server.process.send_signal(signal.SIGHUP)
        server.wait(lambda: server.events("a replacement did not come up: the old workers stay"))
        assert len(server.events(failed)) == 1
        os.kill(int(str(server.events("worker serves")[0]["pid"])), signal.SIGKILL)
        server.wait(lambda: len(server.events(failed)) > MOST_FAILED_STARTS + 1)
        before = sum(load.pids.values())
        server.wait(lambda: sum(load.pids.values()) > before + 20)
        resource.prlimit(supervisor, resource.RLIMIT_NOFILE, files)
        server.wait(lambda: len(server.events("worker serves")) == 3)
        server.process.send_signal(signal.SIGHUP)
        server.wait(lambda: server.events("all workers are replaced"))
        load.stop()
        assert load.failures == []
        assert all("Too many open files" in str(line["why"]) for line in server.events(failed))


def test_a_supervisor_without_workers_gives_up_when_it_can_start_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    supervisor = Supervisor(
        workers=2,
        command=lambda slot, control: ["/no/such/interpreter"],
        start_seconds=PATIENCE_SECONDS,
        drain_seconds=0.0,
    )
    assert supervisor.run() == 1
    assert "workers cannot start; giving up" in caplog.text


def test_a_port_that_is_taken_is_refused() -> None:
    held, host, port = reserve_port("127.0.0.1", 0)
    with held, socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen()
        with pytest.raises(
            ConfigurationError, match=f"cannot listen on 127.0.0.1:{port}: Address already in use"
        ):
            reserve_port("127.0.0.1", port)


def test_addresses_that_are_not_ours_are_refused() -> None:
    for host in ("203.0.113.7", "no.such.host.invalid", "a..b", f"{'a' * 70}.example"):
        with pytest.raises(ConfigurationError, match="cannot listen on"):
            reserve_port(host, 0)

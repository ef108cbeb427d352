"""A real server of two worker processes: reads its own writes, restarts without failing a call, survives kill -9."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import consistency, crash, drain
from bench.live import LiveServer
from store.replay import replay
from store.stores import open_stores

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """One server for all tests of this file."""
    found = LiveServer(tmp_path_factory.mktemp("genie"), workers=2)
    yield found
    if found.running:
        found.kill()


@pytest.fixture
def server(live: LiveServer) -> LiveServer:
    """It, serving, whatever the test before has left of it."""
    if not live.running:
        live.start()
    return live


def test_a_slate_reflects_every_acknowledged_answer(server: LiveServer) -> None:
    tally = consistency.run(server, operations=200, learners=5, threads=4, seed=7)
    assert tally.violations == []
    assert tally.answers + tally.slates == 200
    assert min(tally.answers, tally.slates) > 50


def test_a_rolling_restart_fails_no_call(server: LiveServer) -> None:
    before = set(server.worker_pids())
    load = drain.run(server, restarts=1, threads=2)
    assert load.failures == []
    assert load.calls > 20
    assert not before & set(server.worker_pids())


def test_a_crash_loses_nothing_and_doubles_nothing(server: LiveServer) -> None:
    findings = crash.run(server, rounds=1, threads=3, seed=5)
    assert (findings.lost, findings.duplicated, findings.differing, findings.refused) == ([], [], [], [])
    assert findings.answers > 20
    stores = open_stores(server.data_directory)
    try:
        # The learners of the tests before are in there too.
        report = replay(stores.state, crash.TENANT)
    finally:
        stores.close()
    assert report.differing == 0
    assert report.answers >= findings.answers


def test_the_check_after_a_crash_can_fail(tmp_path: Path) -> None:
    stores = open_stores(tmp_path)
    findings = crash.Findings()
    answer = crash.Answer(answer_id="a", learner_id="nobody")
    try:
        crash.inspect(stores.state, [crash.Ledger(acknowledged={"a": answer})], findings)
    finally:
        stores.close()
    assert findings.lost == ["nobody: answer a"]

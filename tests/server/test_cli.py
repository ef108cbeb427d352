"""The command line: help without weight, settings as options, and what the doctor finds."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from engine.types import LearnerProfile
from server.app import Assembly, Genie
from server.cli import program
from server.config import Settings, settings_info
from server.experiments.spool import SPOOL
from server.port import reserve_port
from server.workers import EXIT_CONFIGURATION
from store.api import Partition, Table
from store.learners import create_profile
from store.stores import EXPERIMENTS, open_stores
from store.tallies import SECONDS_A_DAY, Tally, tally
from tests.store.experiments_world import write_an_experiment

ROOT = Path(__file__).parents[2]


def run(*arguments: str, **environment: str | None) -> Result:
    return CliRunner().invoke(program, arguments, env=environment)


def diagnosis(*arguments: str, **environment: str | None) -> tuple[int, dict[str, list[str]]]:
    """Exit code of `genie doctor`, and what it saw by state."""
    result = run("doctor", "--json", *arguments, **environment)
    report = json.loads(result.stdout)
    assert report["healthy"] == (result.exit_code == 0)
    found: dict[str, list[str]] = {"ok": [], "warning": [], "problem": []}
    for finding in report["findings"]:
        found[finding["state"]].append(f"{finding['about']}: {finding['seen']}")
        assert (finding["state"] == "ok") == (finding["advice"] == "")
    return result.exit_code, found


def fill(directory: Path, tenant: str) -> None:
    """A store in which something belongs to the tenant."""
    stores = open_stores(directory)
    stores.state.update(Partition(tenant), lambda tx: tx.put(Table.META, b"x", b"y"))
    stores.close()


def test_help_names_the_commands_and_loads_none_of_them() -> None:
    code = (
        "import sys; from server.cli import program\n"
        "try: program(['--help'])\n"
        "except SystemExit: pass\n"
        "assert not {'grpc', 'numpy', 'numba', 'rich'} & set(sys.modules)"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "serve" in shown
    assert "doctor" in shown
    assert "worker" not in shown


def test_serve_help_lists_every_setting_with_variable_and_bound() -> None:
    shown = " ".join(run("serve", "--help").stdout.split())
    for info in settings_info():
        assert info.option in shown
        assert f"[{info.variable};" in shown


def test_an_unknown_command_or_option_is_refused() -> None:
    assert "No such command" in run("sevre").stderr
    assert run("serve", "--prot=1").exit_code == 2


def test_wrong_settings_are_all_named() -> None:
    result = run("serve", "--port=x", "--threads=0", GENIE_WORKERS="none")
    assert result.exit_code == EXIT_CONFIGURATION
    assert [line.split()[1] for line in result.stderr.splitlines()] == ["workers", "port", "threads"]


def test_the_doctor_on_a_fresh_machine(tmp_path: Path) -> None:
    code, found = diagnosis("--port=0", f"--data-directory={tmp_path}/new")
    assert code == 0
    assert "store: not there yet; the first start creates it" in found["ok"]
    assert not (tmp_path / "new").exists(), "the doctor changes nothing"


def test_the_doctor_on_wrong_settings() -> None:
    code, found = diagnosis("--port=70000", GENIE_TREADS="1")
    assert code == 1
    assert "settings: port (from option --port) is '70000'; must be" in found["problem"][0]


def test_the_doctor_on_policies_that_cannot_be_read(tmp_path: Path) -> None:
    arguments = ("--port=0", f"--data-directory={tmp_path}")
    for wrong in (f"--policies-file={tmp_path}/none.toml", "--default-policy=hybrid_v9"):
        code, found = diagnosis(*arguments, wrong)
        assert code == 1
        assert any(problem.startswith("policies: ") for problem in found["problem"])


def test_the_doctor_names_stray_variables_and_exposure(tmp_path: Path) -> None:
    arguments = ("--port=0", "--host=0.0.0.0", "--workers=256", f"--data-directory={tmp_path}")
    code, found = diagnosis(*arguments, GENIE_TREADS="1")
    assert code == 0
    warned = "\n".join(found["warning"])
    assert "GENIE_TREADS is no setting; did you mean GENIE_THREADS?" in warned
    assert "TLS: off, and 0.0.0.0 can be reached" in warned
    assert "processors: 256 workers" in warned


def test_the_doctor_on_a_taken_port(tmp_path: Path) -> None:
    held, _, port = reserve_port("127.0.0.1", 0)
    with held:
        code, found = diagnosis(f"--port={port}", f"--data-directory={tmp_path}")
    assert code == 1
    assert any("Address already in use" in problem for problem in found["problem"])


def test_the_doctor_recognises_a_running_server(tmp_path: Path) -> None:
    settings = Settings(port=0, data_directory=tmp_path)
    genie = Genie(settings, lambda *_: Assembly(services=()))
    port = genie.start()
    try:
        code, found = diagnosis(f"--port={port}", f"--data-directory={tmp_path}")
    finally:
        genie.drain(notice=False)
    assert code == 0
    assert f"port: a server is serving at 127.0.0.1:{port}" in found["ok"]


def test_the_doctor_looks_into_the_store(tmp_path: Path) -> None:
    fill(tmp_path, "north")
    code, found = diagnosis("--port=0", f"--data-directory={tmp_path}")
    assert code == 0
    assert any(seen.startswith("store: ") and "can be written" in seen for seen in found["ok"])
    assert "catalogue of north: 0 concepts, 0 questions" in found["warning"]
    assert any(seen.startswith("model of north: none trained") for seen in found["ok"])


def test_the_doctor_recounts_when_told_to(tmp_path: Path) -> None:
    stores = open_stores(tmp_path)
    profile = LearnerProfile("ann", "Ann", created_at=SECONDS_A_DAY * 20_000.0)
    stores.state.update(Partition("north", "ann"), lambda tx: create_profile(tx, profile))
    stores.close()
    arguments = ("--port=0", f"--data-directory={tmp_path}")
    _, found = diagnosis(*arguments, "--recount")
    assert "counts of north: 1 learners recounted: every count is what the log holds" in found["ok"]
    stores = open_stores(tmp_path)
    stores.state.update(Partition("north"), lambda tx: tally(tx, 20_000, Tally.ANSWERS, 5))
    stores.close()
    _, found = diagnosis(*arguments, "--recount")
    assert "counts of north: 1 counts differ from what the log holds" in found["warning"]
    _, found = diagnosis(*arguments)
    assert not any(seen.startswith("counts of") for states in found.values() for seen in states)


def test_the_doctor_on_a_damaged_store_and_model(tmp_path: Path) -> None:
    fill(tmp_path, "default")
    (tmp_path / "models" / "default").mkdir(parents=True)
    (tmp_path / "models" / "default" / "current").write_text("nonsense")
    code, found = diagnosis("--port=0", f"--data-directory={tmp_path}")
    assert code == 1
    assert any(problem.startswith("model of default: ") for problem in found["problem"])
    (tmp_path / "state" / "format.json").write_text("{")
    code, found = diagnosis("--port=0", f"--data-directory={tmp_path}")
    assert code == 1
    assert any(problem.startswith("store: ") for problem in found["problem"])


def test_the_doctor_and_replay_on_a_store_that_lost_its_data(tmp_path: Path) -> None:
    fill(tmp_path, "default")
    (tmp_path / "state" / "data.mdb").unlink()
    code, found = diagnosis("--port=0", f"--data-directory={tmp_path}")
    assert code == 1
    assert any("data.mdb is missing: restore a backup" in problem for problem in found["problem"])
    replayed = run("replay", f"--data-directory={tmp_path}")
    assert replayed.exit_code == 1
    assert "data.mdb is missing" in replayed.stderr
    assert not (tmp_path / "state" / "data.mdb").exists()


def test_the_doctor_and_replay_on_an_interrupted_restore(tmp_path: Path) -> None:
    fill(tmp_path, "default")
    (tmp_path / "state").rename(tmp_path / "state.replaced")
    (tmp_path / "state.restoring").mkdir()
    code, found = diagnosis("--port=0", f"--data-directory={tmp_path}")
    assert code == 1
    assert any("an interrupted restore" in problem for problem in found["problem"])
    for command in (["replay"], ["backup", str(tmp_path / "copy")]):
        told = run(*command, f"--data-directory={tmp_path}")
        assert told.exit_code == 1
        assert "an interrupted restore" in told.stderr
    assert not (tmp_path / "state").exists()


def test_the_doctor_and_replay_outlive_a_file_that_was_cut_a_little(tmp_path: Path) -> None:
    stores = open_stores(tmp_path)
    for number in range(40):
        learner = Partition("default", f"learner-{number:02d}")
        profile = LearnerProfile(learner.learner_id, "x" * 3_000, created_at=SECONDS_A_DAY * 20_000.0)
        stores.state.update(learner, lambda tx, profile=profile: create_profile(tx, profile))  # type: ignore[misc]
    stores.close()
    data = tmp_path / "state" / "data.mdb"
    # The two pages at the front, which say what there is; all others are missing.
    os.truncate(data, 8_192)
    code, found = diagnosis("--port=0", f"--data-directory={tmp_path}")
    assert code == 1
    assert any(seen.startswith("store: the store's file is damaged") for seen in found["problem"])
    assert any(seen.startswith("serving store: ") for seen in found["ok"])
    replayed = run("replay", "--json", f"--data-directory={tmp_path}")
    assert replayed.exit_code == 1
    assert "the store's file is damaged" in replayed.stderr
    assert "the store's file is damaged" in json.loads(replayed.stdout)["error"]


def test_the_doctor_on_the_store_of_shown_recommendations(tmp_path: Path) -> None:
    arguments = ("--port=0", f"--data-directory={tmp_path}")
    fill(tmp_path, "default")
    serving = tmp_path / "serving"
    before = {path.name: path.read_bytes() for path in serving.iterdir() if "mdb" not in path.name}
    code, found = diagnosis(*arguments)
    assert code == 0
    assert any(seen.startswith("serving store: ") and "can be written" in seen for seen in found["ok"])
    after = {path.name: path.read_bytes() for path in serving.iterdir() if "mdb" not in path.name}
    assert after.keys() == before.keys()
    assert after["format.json"] == before["format.json"]
    (serving / "data.mdb").write_bytes(b"something else" * 1_000)
    kept = (serving / "data.mdb").read_bytes()
    code, found = diagnosis(*arguments)
    assert code == 0
    assert any(seen.startswith("serving store: ") for seen in found["warning"])
    (serving / "format.json").write_text("{")
    code, found = diagnosis(*arguments)
    assert code == 0
    assert "serving store: nothing says that its file is whole" in found["warning"]
    assert (serving / "data.mdb").read_bytes() == kept


def test_the_doctor_looks_into_experiments(tmp_path: Path) -> None:
    held, _, port = reserve_port("127.0.0.1", 0)
    address = f"127.0.0.1:{port}"
    arguments = ("--port=0", f"--data-directory={tmp_path}", f"--experiments-address={address}")
    with held:
        held.listen()
        code, found = diagnosis(*arguments)
        assert code == 0
        assert any(seen.startswith("experiments: ") and address in seen for seen in found["warning"])
    _, found = diagnosis(*arguments, "--experiments=elsewhere")
    assert any(seen.startswith(f"experiments: nobody answers at {address}") for seen in found["warning"])
    _, found = diagnosis(*arguments)
    assert f"experiments: the service starts with the server, at {address}" in found["ok"]
    assert "experiment store: not there yet; the first start creates it" in found["ok"]
    write_an_experiment(tmp_path)
    spool = tmp_path / SPOOL
    spool.mkdir()
    (spool / "1.spool").write_bytes(bytes(100))
    (spool / "2.refused").write_bytes(b"x")
    code, found = diagnosis(*arguments)
    assert code == 0
    assert "experiments of north: 1, of which 1 running" in found["ok"]
    assert any(seen.startswith("spool: 1 files") for seen in found["ok"])
    assert "spool: 1 files of reports were put aside" in found["warning"]
    (tmp_path / EXPERIMENTS / "format.json").write_text("{")
    code, found = diagnosis(*arguments)
    assert code == 1
    assert any(seen.startswith("experiment store: ") for seen in found["problem"])
    assert diagnosis("--port=0", "--experiments=off", f"--data-directory={tmp_path}")[0] == 0


@pytest.mark.parametrize("text", ["", "no certificate"])
def test_the_doctor_on_tls_files_that_cannot_be_used(tmp_path: Path, text: str) -> None:
    file = tmp_path / "file.pem"
    file.write_text(text)
    arguments = ("--port=0", f"--data-directory={tmp_path}", f"--tls-certificate-file={file}")
    code, found = diagnosis(*arguments, f"--tls-key-file={file}")
    assert code == 1
    assert any(problem.startswith("TLS: the files cannot be used") for problem in found["problem"])
    assert any("tls_key_file is not" in problem for problem in diagnosis(*arguments)[1]["problem"])


def test_the_doctor_speaks_to_people_too(tmp_path: Path) -> None:
    result = run("doctor", "--port=0", f"--data-directory={tmp_path}", "--host=0.0.0.0")
    assert result.exit_code == 0
    assert "→ set tls_certificate_file" in result.stdout

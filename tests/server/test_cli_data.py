"""The commands on stored data, as a person or a script runs them: results, messages and exit codes."""

import json
import re
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from engine.learner import LearnerState
from server.cli import program
from server.experiments.spool import SPOOL
from store.api import Partition
from store.experiments import list_experiments
from store.learners import write_state
from store.lmdb_store import LmdbStore
from store.stores import EXPERIMENTS, open_stores
from store.tallies import Tally, tally
from tests.server import data_world
from tests.server.data_world import write_world
from tests.store.experiments_world import write_an_experiment

REPOSITORY = Path(__file__).resolve().parents[2]


def genie(*arguments: object, data: Path | None = None) -> Result:
    place = [] if data is None else ["--data-directory", str(data)]
    return CliRunner().invoke(program, [*map(str, arguments), *place], catch_exceptions=False)


def as_json(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with the small world in it."""
    write_world(tmp_path / "files", data_world.answers(learners=30, each=20))
    directory = tmp_path / "data"
    result = genie("import", tmp_path / "files", data=directory)
    assert result.exit_code == 0, result.output
    return directory


def test_import_reads_a_directory_and_says_what_it_did(tmp_path: Path) -> None:
    write_world(tmp_path / "files")
    result = genie("import", tmp_path / "files", data=tmp_path / "data")
    assert result.exit_code == 0
    assert "concepts: 3 new, 0 changed, 0 as they were" in result.output
    assert "answers: 60 recorded, 0 known before" in result.output
    again = as_json(genie("import", tmp_path / "files", "--json", data=tmp_path / "data"))
    assert (again["answers_recorded"], again["answers_known"], again["stopped"]) == (0, 60, "")


def test_import_names_wrong_rows_and_goes_on_when_told(tmp_path: Path) -> None:
    rows = data_world.answers()
    rows[4]["correct"] = "x"
    write_world(tmp_path / "files", rows)
    stopped = genie("import", tmp_path / "files", data=tmp_path / "data")
    assert stopped.exit_code == 1
    assert "answers.csv:6: correct is 'x': must be 0 or 1" in stopped.stderr
    assert "stopped: answers.csv: 1 rows are wrong" in stopped.stderr
    rejects = tmp_path / "rejects.jsonl"
    skipped = genie(
        "import",
        tmp_path / "files",
        "--on-error",
        "skip",
        "--rejects",
        rejects,
        "--json",
        data=tmp_path / "data",
    )
    assert skipped.exit_code == 1
    assert as_json(skipped)["answers_recorded"] == 59
    assert json.loads(rejects.read_text())["answer_id"] == "a-0-4"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a directory, or files of"),
        (["--origin", "yesterday", "."], "must be an RFC 3339 time"),
        (["--tenant", "", "."], "must be 1 to 64 letters"),
        (["--tenant", "north/school", "."], "must be 1 to 64 letters"),
        (["--answers", "nowhere.csv"], "does not exist"),
    ],
)
def test_import_refuses_arguments_that_make_no_sense(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    result = genie("import", *arguments, data=tmp_path / "data")
    assert result.exit_code == 2
    assert message in result.output
    assert not (tmp_path / "data").exists()


def test_import_of_a_directory_without_tables_says_what_it_looked_for(tmp_path: Path) -> None:
    result = genie("import", tmp_path, data=tmp_path / "data")
    assert result.exit_code == 1
    assert "holds none of concepts, questions, learners, answers" in result.stderr


def test_commands_without_a_store_say_so(tmp_path: Path) -> None:
    for arguments in (
        ["export", tmp_path / "out"],
        ["train"],
        ["evaluate"],
        ["replay"],
        ["backup", tmp_path / "b"],
    ):
        result = genie(*arguments, data=tmp_path / "data")
        assert result.exit_code == 1
        assert "there is no store in" in result.stderr
    assert not (tmp_path / "data").exists()


def test_wrong_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENIE_WORKERS", "none")
    result = genie("replay", data=tmp_path)
    assert result.exit_code != 0
    assert "workers" in result.stderr
    monkeypatch.setenv("GENIE_WORKERS", "1")
    monkeypatch.setenv("GENIE_STORE", "memory")
    assert "nothing on disk" in genie("replay", data=tmp_path).stderr


def test_export_and_import_again(data: Path, tmp_path: Path) -> None:
    result = genie("export", tmp_path / "out", "--format", "jsonl", "--json", data=data)
    assert result.exit_code == 0, result.output
    assert as_json(result)["rows"] == {"concepts": 3, "questions": 12, "learners": 30, "answers": 600}
    copied = genie("import", tmp_path / "out", "--json", data=tmp_path / "copy")
    assert as_json(copied)["answers_recorded"] == 600
    named = genie("export", "--answers", tmp_path / "a.csv.gz", data=data)
    assert "answers: 600 rows" in named.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "--answers", "{}/x.csv"),
        ("export", "{}/deep"),
        ("report", "daily", "{}/out"),
        ("import", "{files}", "--rejects", "{}/r.jsonl"),
        ("evaluate", "{files}", "--plots", "{}/plots", "--folds", "2", "--no-baselines"),
    ],
)
def test_what_cannot_be_written_is_named_with_the_cause(
    data: Path, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    taken = tmp_path / "taken"
    taken.write_text("a file")
    filled = [text.format(taken, files=tmp_path / "files") for text in arguments]
    done = genie(*filled, data=data)
    assert done.exit_code == 1
    assert re.search(
        rf"^genie: cannot write {taken}/[\w/.-]+: {taken} is no directory$", done.stderr, re.MULTILINE
    )
    assert taken.read_text() == "a file"


def test_folders_of_files_are_made(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "answers.csv"
    assert genie("export", "--answers", path, data=data).exit_code == 0
    assert path.is_file()


def test_export_of_one_learner(data: Path) -> None:
    record = as_json(genie("export", "--learner", "u-000", data=data))
    assert record["learner"]["time_zone"] == "Pacific/Auckland"
    assert len(record["answers"]) == 20
    unknown = genie("export", "--learner", "nobody", data=data)
    assert unknown.exit_code == 1
    assert "there is no learner 'nobody'" in unknown.stderr
    assert genie("export", data=data).exit_code == 2


def test_train_list_and_use(data: Path) -> None:
    first = as_json(genie("train", "--json", data=data))
    assert first["refused"] == ""
    second = genie("train", "--force", data=data)
    assert second.exit_code == 0, second.output
    assert f"in place of {first['version']}" in second.output
    listed = as_json(genie("train", "--list", "--json", data=data))
    assert next(entry["version"] for entry in listed["versions"]) == first["version"]
    assert listed["current"] != first["version"]
    assert f"* {first['version']}" in genie("train", "--use", first["version"], data=data).output
    unknown = genie("train", "--use", "v0009-00000000", data=data)
    assert unknown.exit_code == 1
    assert "there is no model v0009-00000000" in unknown.stderr


def test_train_with_too_little_data_says_what_is_needed(tmp_path: Path) -> None:
    write_world(tmp_path / "files", data_world.answers(learners=2, each=3))
    genie("import", tmp_path / "files", data=tmp_path / "data")
    result = genie("train", data=tmp_path / "data")
    assert result.exit_code == 1
    assert "too little to learn from" in result.stderr
    assert "nothing was trained yet" in genie("train", "--list", data=tmp_path / "data").output


def test_replay_puts_counts_right(data: Path) -> None:
    stores = open_stores(data)
    stores.state.update(Partition("default"), lambda tx: tally(tx, 20_000, Tally.CORRECT, 3))
    stores.close()
    differs = genie("replay", data=data)
    assert differs.exit_code == 1
    assert "the count of correct on 2024-10-04 differs from what the log holds (by -3)" in differs.stderr
    assert "was put right" in genie("replay", "--write", data=data).stderr
    assert genie("replay", data=data).exit_code == 0


def test_replay_verifies_names_and_repairs(data: Path) -> None:
    assert genie("replay", data=data).exit_code == 0
    stores = open_stores(data)
    empty = LearnerState.empty()
    stores.state.update(Partition("default", "u-003"), lambda tx: write_state(tx, empty))
    stores.close()
    differs = genie("replay", data=data)
    assert differs.exit_code == 1
    assert "the record of 'u-003' differs" in differs.stderr
    repaired = genie("replay", "--write", "--json", "--all-tenants", data=data)
    assert repaired.exit_code == 1
    assert as_json(repaired)["tenants"]["default"]["examples"] == ["u-003"]
    assert genie("replay", data=data).exit_code == 0


def test_backup_and_restore(data: Path, tmp_path: Path) -> None:
    trained = as_json(genie("train", "--json", data=data))
    copy = tmp_path / "backup"
    assert genie("backup", copy, data=data).exit_code == 0
    assert "is not empty" in genie("backup", copy, data=data).stderr
    assert genie("restore", copy, "--verify", data=tmp_path / "new").exit_code == 0
    assert not (tmp_path / "new").exists()
    assert genie("restore", copy, data=tmp_path / "new").exit_code == 0
    assert as_json(genie("train", "--list", "--json", data=tmp_path / "new"))["current"] == trained["version"]
    assert genie("replay", data=tmp_path / "new").exit_code == 0
    refused = genie("restore", copy, data=tmp_path / "new")
    assert refused.exit_code == 1
    assert "already holds" in refused.stderr
    (copy / "state" / "data.mdb").write_bytes(b"damaged")
    damaged = genie("restore", copy, "--force", data=tmp_path / "new")
    assert damaged.exit_code == 1
    assert "damaged" in damaged.stderr
    assert genie("replay", data=tmp_path / "new").exit_code == 0


def test_backups_take_experiments_and_what_is_on_its_way_to_them(data: Path, tmp_path: Path) -> None:
    experiment_id = write_an_experiment(data)
    spool = data / SPOOL
    spool.mkdir()
    for name in ("1-2.spool", "3-4.refused", "5-6.new"):
        (spool / name).write_bytes(name.encode())
    assert genie("backup", tmp_path / "backup", data=data).exit_code == 0
    assert genie("restore", tmp_path / "backup", data=tmp_path / "new").exit_code == 0
    store = LmdbStore(tmp_path / "new" / EXPERIMENTS)
    assert [record.experiment_id for record in list_experiments(store, "north")] == [experiment_id]
    store.close()
    kept = {path.name: path.read_bytes().decode() for path in (tmp_path / "new" / SPOOL).iterdir()}
    assert kept == {"1-2.spool": "1-2.spool", "3-4.refused": "3-4.refused"}
    assert genie("replay", data=tmp_path / "new").exit_code == 0


def test_the_service_of_another_machine_is_backed_up_alone(tmp_path: Path) -> None:
    write_an_experiment(tmp_path / "data")
    assert genie("backup", tmp_path / "backup", data=tmp_path / "data").exit_code == 0
    store = LmdbStore(tmp_path / "data" / EXPERIMENTS)
    refused = genie("restore", tmp_path / "backup", "--force", data=tmp_path / "data")
    assert refused.exit_code == 1
    assert "in use" in refused.stderr
    store.close()
    assert genie("restore", tmp_path / "backup", "--force", data=tmp_path / "data").exit_code == 0


def test_evaluate_on_files_and_on_the_store(data: Path, tmp_path: Path) -> None:
    lines = genie("evaluate", "--folds", 2, "--no-baselines", "--json", data=data).stdout.splitlines()
    figures = [json.loads(line) for line in lines]
    assert {(line["part"], line["model"]) for line in figures} >= {("all", "genie")}
    assert figures[0]["answers"] == 600
    assert 0.0 < figures[0]["log_loss"] < 1.0
    table = genie(
        *("evaluate", tmp_path / "files", "--time-split", "--no-baselines", "--plots", tmp_path / "plots"),
        data=tmp_path / "none",
    )
    assert table.exit_code == 0, table.output
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == ["answers.svg", "calibration.svg"]
    assert "Calibration" in (tmp_path / "plots" / "calibration.svg").read_text()
    assert "all answers" in table.output
    assert not (tmp_path / "none").exists()


@pytest.mark.processes
def test_an_import_killed_at_any_moment_is_finished_by_running_it_again(tmp_path: Path) -> None:
    rows = data_world.answers(learners=400, each=25)
    files = tmp_path / "files"
    write_world(files, rows)
    data = tmp_path / "data"
    command = [sys.executable, "-m", "server", "import", str(files), "--data-directory", str(data)]
    for wait in (0.0, 0.05, 0.1):
        process = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while not (data / "state" / "data.mdb").exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGKILL)
        process.wait()
    report = as_json(genie("import", files, "--json", data=data))
    assert report["answers_recorded"] + report["answers_known"] == 10_000
    assert genie("replay", data=data).exit_code == 0
    counts = as_json(genie("export", "--answers", tmp_path / "out.csv", "--json", data=data))
    assert counts["rows"] == {"answers": 10_000}
    ids = (tmp_path / "out.csv").read_text().splitlines()[1:]
    assert len({line.split(",")[0] for line in ids}) == 10_000


@pytest.mark.data
def test_the_real_path_from_files_to_a_model(tmp_path: Path) -> None:
    data_world.write_slice("assist2009", tmp_path, 6_000)
    data = tmp_path / "data"
    report = as_json(genie("import", tmp_path, "--json", data=data))
    assert (report["answers_recorded"], report["rejected"]) == (6_000, 0)
    trained = as_json(genie("train", "--json", data=data))
    candidate, priors = trained["scores"]
    assert candidate["auc"] > priors["auc"]
    assert genie("replay", data=data).exit_code == 0


def test_reports_are_written_while_a_server_would_run(data: Path, tmp_path: Path) -> None:
    order = ["report", "weekly", str(tmp_path / "out"), "--date", "2024-01-05", "--data-directory", str(data)]
    with closing(open_stores(data)):
        done = subprocess.run(
            [sys.executable, "-m", "server", *order],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    assert "30 learners, 30 of them active" in done.stdout
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["weekly-2024-01-05.html", "weekly-2024-01-05.jsonl"]
    assert len((tmp_path / "out" / names[1]).read_text().splitlines()) == 30
    daily = as_json(genie("report", "daily", tmp_path / "out", "--json", data=data))
    assert daily["learnersCount"] == "30"
    assert "activeLearnersCount" not in daily
    assert len(list((tmp_path / "out").iterdir())) == 4


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("monthly",), "is not one of"),
        (("daily", "--date", "2999-01-01"), "must be from 1970 to tomorrow"),
        (("daily", "--date", "yesterday"), "does not match"),
        (("daily", "--label", "class"), "is not written KEY=VALUE"),
    ],
)
def test_a_report_that_cannot_be_is_refused(
    data: Path, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    done = genie("report", arguments[0], tmp_path / "out", *arguments[1:], data=data)
    assert done.exit_code == 2
    assert told in done.output
    assert not (tmp_path / "out").exists()

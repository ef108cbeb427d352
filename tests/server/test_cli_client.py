"""`genie recommend` and `genie explain` against a real server: tables for people, JSON for programs, clear failures."""

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from genie.v1 import recommendation_service_pb2 as pb
from server.cli import program, recommend
from server.port import reserve_port
from tests.server.core import LEARNER, Core
from tests.server.core import core as serving_core


@pytest.fixture(scope="module")
def core() -> Iterator[Core]:
    with serving_core() as running:
        running.chain("count", "add", "multiply")
        running.record(*(running.answer(f"count-{number}") for number in range(5)))
        yield running


def run(core: Core, *arguments: str) -> Result:
    return CliRunner().invoke(
        program, [*arguments, "--target", f"127.0.0.1:{core.port}"], env={"COLUMNS": "200"}
    )


def test_recommend_shows_questions_with_reasons_and_how_to_ask_why(core: Core) -> None:
    result = run(core, "recommend", LEARNER, "--limit", "3")
    assert result.exit_code == 0, result.output
    assert "hybrid_v1" in result.output
    assert "count" in result.output or "add" in result.output
    assert "genie explain " in result.output


def test_the_command_it_names_asks_the_same_server_for_the_same_tenant(core: Core) -> None:
    own = core.tenant_of("follow-up")
    own.chain("count", "add")
    shown = run(core, "recommend", LEARNER, "--tenant", own.tenant)
    (line,) = (line for line in shown.stdout.splitlines() if line.startswith("Why? "))
    words = shlex.split(line.removeprefix("Why? "))
    assert words[1] == "explain"
    assert shutil.which(words[0]) is not None
    again = CliRunner().invoke(program, words[1:])
    assert again.exit_code == 0, again.output
    assert "Importance: " in again.stdout


def test_why_there_are_fewer_is_said_in_words(core: Core) -> None:
    nothing = run(core, "recommend", LEARNER, "--limit", "1", "--tenant", core.tenant_of("nothing").tenant)
    assert "0 of the 1 wanted: the catalogue holds no questions." in nothing.stdout
    assert "explain" not in nothing.stdout
    few = run(core, "recommend", LEARNER, "--limit", "100")
    assert " of the 100 wanted: no more are open to the learner." in few.stdout


@pytest.mark.parametrize(
    ("enum", "words"),
    [(pb.ShortfallReason, recommend._SHORTFALLS), (pb.DegradedReason, recommend._DEGRADED)],
)
def test_every_reason_has_its_words(enum: Any, words: dict[int, str]) -> None:
    assert {number for number in enum.values() if number} == words.keys()


def test_another_kind_of_server_is_recognised(core: Core) -> None:
    result = CliRunner().invoke(program, ["experiment", "--target", f"127.0.0.1:{core.port}", "list"])
    assert result.exit_code == 1
    assert f"what listens at 127.0.0.1:{core.port} does not know this call" in result.stderr
    assert "--target" in result.stderr


@pytest.mark.parametrize("command", [["recommend", LEARNER], ["experiment", "list"]])
@pytest.mark.parametrize(
    "text", ["", "no certificate", "-----BEGIN CERTIFICATE-----\nxx\n-----END CERTIFICATE-----\n"]
)
def test_roots_that_are_none_are_refused_before_any_call(
    tmp_path: Path, command: list[str], text: str
) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_text(text)
    options = ["--tls-ca-file", str(roots)]
    result = CliRunner().invoke(program, [command[0], *options, *command[1:]], env={"COLUMNS": "300"})
    assert result.exit_code == 2
    assert "holds no PEM certificates" in result.stderr


@pytest.mark.parametrize("command", [["recommend", LEARNER], ["experiment", "list"]])
def test_tenants_that_no_call_can_name_are_refused_before_any(command: list[str]) -> None:
    result = CliRunner().invoke(program, [command[0], "--tenant", "north/school", *command[1:]])
    assert result.exit_code == 2
    assert "must be 1 to 64 letters" in result.stderr


def test_recommend_as_json_is_the_reply(core: Core) -> None:
    reply = json.loads(run(core, "recommend", LEARNER, "--limit", "3", "--json").stdout)
    slate = reply["recommendation"]
    assert slate["learner_id"] == LEARNER
    assert [item["rank"] for item in slate["items"]] == [1, 2, 3]
    assert all(item["main_reason"] for item in slate["items"])


def test_the_same_request_id_shows_the_same_slate(core: Core) -> None:
    first, second = (
        json.loads(run(core, "recommend", LEARNER, "--request-id", "again", "--json").stdout)
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("level", ["simple", "detailed", "technical"])
def test_explain_tells_more_at_each_level(core: Core, level: str) -> None:
    slate = json.loads(run(core, "recommend", LEARNER, "--json").stdout)["recommendation"]
    question = slate["items"][1]["question_id"]
    result = run(core, "explain", slate["recommendation_id"], question, "--level", level)
    assert result.exit_code == 0, result.output
    assert f"Why {question} for {LEARNER}?" in result.output
    assert ("contribution" in result.output) == (level != "simple")
    assert ("propensity" in result.output) == (level == "technical")


def test_a_refused_call_ends_with_the_servers_words_and_reason(core: Core) -> None:
    result = run(core, "recommend", LEARNER, "--policy", "oracle_v9")
    assert result.exit_code == 1
    assert "oracle_v9" in result.stderr
    assert "hybrid_v1" in result.stderr
    assert "[UNKNOWN_POLICY]" in result.stderr
    result = run(core, "explain", "no-such-slate")
    assert "[RECOMMENDATION_NOT_FOUND]" in result.stderr


def test_where_nobody_listens_the_error_says_what_to_do() -> None:
    held, _, port = reserve_port("127.0.0.1", 0)
    held.close()
    result = CliRunner().invoke(program, ["recommend", LEARNER, "--target", f"127.0.0.1:{port}"])
    assert result.exit_code == 1
    assert "genie serve" in result.stderr

"""`genie recommend` and `genie explain` against a real server: tables for people, JSON for programs, clear failures."""

import json
from collections.abc import Iterator

import pytest
from click.testing import CliRunner, Result

from server.cli import program
from server.workers import reserve_port
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

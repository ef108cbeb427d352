"""Log lines: JSON for machines, text for people, safe with hostile values, and who called."""

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest

from server.logs import CALL_FACTS, JsonFormatter, TextFormatter, configure, log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("genie")
    handlers, level, our_level = list(root.handlers), root.level, ours.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)


def lines(style: str, level: str = "info") -> tuple[io.StringIO, logging.Logger]:
    stream = io.StringIO()
    configure(level=level, style=style, worker=2, stream=stream)
    return stream, logging.getLogger("genie.test")


def test_a_json_line_holds_event_and_facts() -> None:
    stream, logger = lines("json")
    log(logger, logging.WARNING, "store is full", used_bytes=12, path="/a b")
    line = json.loads(stream.getvalue())
    assert line["level"] == "warning"
    assert line["event"] == "store is full"
    assert (line["used_bytes"], line["path"], line["worker"]) == (12, "/a b", 2)
    assert line["time"].endswith("Z")


def test_facts_of_the_call_are_on_every_line() -> None:
    stream, logger = lines("json")
    token = CALL_FACTS.set({"correlation_id": "c-1", "tenant": "t-1"})
    try:
        logger.info("plain %s", "message")
    finally:
        CALL_FACTS.reset(token)
    line = json.loads(stream.getvalue())
    assert (line["event"], line["correlation_id"], line["tenant"]) == ("plain message", "c-1", "t-1")


def test_hostile_values_stay_on_their_line() -> None:
    hostile = 'a"b\n{"level":"error"}\x1b[31m\u2028'
    for style in ("json", "text"):
        stream, logger = lines(style)
        log(logger, logging.INFO, "event", value=hostile)
        text = stream.getvalue()
        assert len(text.splitlines()) == 1
        assert "\x1b" not in text
        if style == "json":
            assert json.loads(text)["value"] == hostile


def test_a_stack_is_part_of_the_line() -> None:
    record = logging.LogRecord("genie.x", logging.ERROR, __file__, 1, "failed", None, None)
    try:
        raise ValueError("cause")
    except ValueError:
        record.exc_info = sys.exc_info()
    assert "ValueError: cause" in json.loads(JsonFormatter(None).format(record))["exception"]
    assert "ValueError: cause" in TextFormatter(None).format(record).splitlines()[-1]


def test_text_is_short_and_names_its_facts() -> None:
    stream, logger = lines("text")
    log(logger, logging.INFO, "call", code="OK", duration_ms=1.23456, reason="two words")
    assert stream.getvalue().endswith('call  worker=2  code=OK  duration_ms=1.235  reason="two words"\n')


def test_auto_is_json_when_nobody_watches() -> None:
    stream, logger = lines("auto")
    logger.info("x")
    assert json.loads(stream.getvalue())["event"] == "x"


def test_levels_hold_for_us_and_libraries_are_heard_from_warning_on() -> None:
    stream, logger = lines("json", level="warning")
    logger.info("quiet")
    log(logger, logging.INFO, "quiet", expensive=1)
    logging.getLogger("some.library").info("quiet")
    assert stream.getvalue() == ""
    logging.getLogger("some.library").warning("loud")
    logger.warning("loud")
    assert len(stream.getvalue().splitlines()) == 2

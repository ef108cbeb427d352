"""Log lines: JSON for machines, text for people, safe with hostile values, and who called."""

import io
import json
import logging
import sys
import threading
from collections.abc import Iterator

import pytest

from server.logs import CALL_FACTS, JsonFormatter, TextFormatter, configure, log, log_call
from tests.waiting import eventually


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


CALL = {"method": "/genie.v1.S/M", "tenant": "t-1", "correlation_id": 'c"1\\'}


def test_the_line_of_a_call_is_the_one_that_logging_would_write() -> None:
    stream, _ = lines("json")
    assert log_call(**CALL, seconds=0.0123456)
    token = CALL_FACTS.set(
        {"correlation_id": CALL["correlation_id"], "tenant": CALL["tenant"], "method": CALL["method"]}
    )
    try:
        log(logging.getLogger("genie.access"), logging.INFO, "call", code="OK", duration_ms=12.346)
    finally:
        CALL_FACTS.reset(token)
    by_hand, by_logging = (json.loads(line) for line in stream.getvalue().splitlines())
    assert by_hand.pop("time") <= by_logging.pop("time")
    assert list(by_hand.items()) == list(by_logging.items())


def test_lines_of_calls_come_before_the_lines_after_them_and_none_is_lost() -> None:
    stream, logger = lines("json")

    def call_often() -> None:
        for _ in range(500):
            log_call(**CALL, seconds=0.0)
            logger.info("between")

    crew = [threading.Thread(target=call_often) for _ in range(4)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    logger.info("last")
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert (events.count("call"), events.count("between"), events[-1]) == (2_000, 2_000, "last")


def test_lines_of_calls_are_written_without_another_line() -> None:
    stream, _ = lines("json")
    log_call(**CALL, seconds=0.0)
    eventually(stream.getvalue)
    assert json.loads(stream.getvalue())["event"] == "call"


def test_calls_are_logged_the_usual_way_as_text_and_for_other_listeners() -> None:
    lines("text")
    assert not log_call(**CALL, seconds=0.0)
    lines("json")
    logging.getLogger().addHandler(logging.NullHandler())
    assert not log_call(**CALL, seconds=0.0)


def test_lines_of_calls_obey_the_level() -> None:
    stream, logger = lines("json", level="warning")
    assert log_call(**CALL, seconds=0.0)
    logger.warning("loud")
    assert len(stream.getvalue().splitlines()) == 1

"""Log lines as JSON, or as text on a terminal, each with the call it belongs to. Logs nothing itself."""

import json
import logging
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache
from typing import TextIO

CALL_FACTS: ContextVar[Mapping[str, object] | None] = ContextVar("call_facts", default=None)
"""Facts of the call being served (correlation id, tenant, method), put on every line logged meanwhile."""

ROOT = "genie"
"""Parent of every logger of this program; other libraries' lines go the same way from WARNING on."""

_worker: int | None = None
_ENCODE = json.JSONEncoder(default=str, check_circular=False).encode
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:/+-@")


def log(logger: logging.Logger, level: int, event: str, /, **facts: object) -> None:
    """Log `event` (a fixed sentence) with facts as fields of their own, so that lines can be searched."""
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={"facts": facts})


def configure(*, level: str, style: str, worker: int | None = None, stream: TextIO | None = None) -> None:
    """Send every log line of this process to `stream` (standard error): style "json", "text" or "auto"."""
    global _worker
    _worker = worker
    # No line shows these, and looking them up for every line takes time.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    target = sys.stderr if stream is None else stream
    as_text = style == "text" or (style == "auto" and target.isatty())
    handler = logging.StreamHandler(target)
    handler.setFormatter(TextFormatter(worker) if as_text else JsonFormatter(worker))
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(level.upper())


def worker_number() -> int | None:
    """The number of this worker, as `configure` was told."""
    return _worker


class _Formatter(logging.Formatter):
    def __init__(self, worker: int | None) -> None:
        super().__init__()
        self._worker = worker

    def facts(self, record: logging.LogRecord) -> dict[str, object]:
        """What is known beside time, level and message, the line's own facts last."""
        found: dict[str, object] = {} if self._worker is None else {"worker": self._worker}
        found.update(CALL_FACTS.get() or {})
        found.update(getattr(record, "facts", {}))
        if record.exc_info:
            found["exception"] = self.formatException(record.exc_info)
        return found


class JsonFormatter(_Formatter):
    """One JSON object a line: time (UTC), level, logger, event, then the facts."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as one line of JSON without line breaks inside."""
        line: dict[str, object] = {
            "time": f"{_second(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        line.update(self.facts(record))
        return _ENCODE(line)


class TextFormatter(_Formatter):
    """A line for people: local time, level, event, facts as name=value; a stack trace on lines of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text; values with unusual characters are quoted and escaped."""
        moment = datetime.fromtimestamp(record.created)
        facts = self.facts(record)
        trace = facts.pop("exception", "")
        shown = "  ".join(f"{name}={_quoted(value)}" for name, value in facts.items())
        line = f"{moment:%H:%M:%S} {record.levelname:<7} {record.getMessage()}"
        return "\n".join(part for part in (f"{line}  {shown}" if shown else line, str(trace)) if part)


@lru_cache(maxsize=4)
def _second(epoch_seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(epoch_seconds))


def _quoted(value: object) -> str:
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    return text if text and _PLAIN.issuperset(text) else json.dumps(text)

"""Log lines as JSON, or as text on a terminal, each with the call it belongs to. Logs nothing itself."""

import json
import logging
import sys
import threading
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

FLUSH_SECONDS = 0.05
"""How long the line of a successful call may wait to be written with others; every other line is written at once."""

_worker: int | None = None
_calls: "_CallLines | None" = None
_ACCESS = "genie.access"
_quoted_json = json.encoder.encode_basestring_ascii
_ENCODE = json.JSONEncoder(default=str, check_circular=False).encode
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.:/+-@")


def log(logger: logging.Logger, level: int, event: str, /, **facts: object) -> None:
    """Log `event` (a fixed sentence) with facts as fields of their own, so that lines can be searched."""
    if logger.isEnabledFor(level):
        logger.log(level, event, extra={"facts": facts})


def configure(*, level: str, style: str, worker: int | None = None, stream: TextIO | None = None) -> None:
    """Send every log line of this process to `stream` (standard error): style "json", "text" or "auto"."""
    global _worker, _calls
    _worker = worker
    # No line shows these, and looking them up for every line takes time.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    target = sys.stderr if stream is None else stream
    as_text = style == "text" or (style == "auto" and target.isatty())
    lines = _Lines(target)
    handler = logging.StreamHandler(lines)
    handler.setFormatter(TextFormatter(worker) if as_text else JsonFormatter(worker))
    _calls = None if as_text else _CallLines(lines, handler, worker)
    root = logging.getLogger()
    for old in list(root.handlers):
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    logging.getLogger(ROOT).setLevel(level.upper())


def log_call(*, method: str, tenant: str, correlation_id: str, seconds: float) -> bool:
    """Log a call that ended OK as a line of JSON; False when lines are not JSON, or go elsewhere too: use `log`.

    The line is the one that `log` would write, without the machinery that would take ten times as long as the text.
    `tenant` and `method` are names that need no escapes.
    """
    calls = _calls
    return calls is not None and calls.write(method, tenant, correlation_id, seconds)


def worker_number() -> int | None:
    """The number of this worker, as `configure` was told."""
    return _worker


class _Lines:
    """A stream whose writer decides what waits: `add` leaves a line for a while, `flush` writes all there is."""

    def __init__(self, target: TextIO) -> None:
        self._target = target
        self._waiting: list[str] = []
        self._writing = threading.Lock()
        self._filled = threading.Event()
        self._flusher: threading.Thread | None = None

    def write(self, text: str) -> None:
        self._waiting.append(text)

    def add(self, line: str) -> None:
        """Leave a line to be written within `FLUSH_SECONDS`."""
        self._waiting.append(line)
        if not self._filled.is_set():
            self._wake()

    def flush(self) -> None:
        with self._writing:
            # Others go on appending meanwhile: what is taken out is counted first.
            count = len(self._waiting)
            text = "".join(self._waiting[:count])
            del self._waiting[:count]
            self._target.write(text)
            self._target.flush()

    def _wake(self) -> None:
        with self._writing:
            if self._flusher is None:
                self._flusher = threading.Thread(target=self._run, name="log-flush", daemon=True)
                self._flusher.start()
        self._filled.set()

    def _run(self) -> None:
        while True:
            self._filled.wait()
            time.sleep(FLUSH_SECONDS)
            self._filled.clear()
            try:
                self.flush()
            except (OSError, ValueError):
                # Nobody reads the lines any more: serving goes on.
                self._waiting.clear()


class _CallLines:
    """Lines of successful calls, put together by hand."""

    def __init__(self, lines: _Lines, handler: logging.Handler, worker: int | None) -> None:
        self._lines = lines
        self._handlers = [handler]
        self._root = logging.getLogger()
        self._logger = logging.getLogger(_ACCESS)
        self._worker = "" if worker is None else f', "worker": {worker}'

    def write(self, method: str, tenant: str, correlation_id: str, seconds: float) -> bool:
        """Write one unless lines have other readers too; whether it was taken care of."""
        if self._root.handlers != self._handlers or self._logger.handlers:
            return False
        if self._logger.isEnabledFor(logging.INFO):
            now = time.time()
            self._lines.add(
                f'{{"time": "{_second(int(now))}.{int(now % 1.0 * 1e3):03d}Z", "level": "info", "logger": "{_ACCESS}", '
                f'"event": "call"{self._worker}, "correlation_id": {_quoted_json(correlation_id)}, '
                f'"tenant": "{tenant}", "method": "{method}", "code": "OK", "duration_ms": {seconds * 1e3:.3f}}}\n'
            )
        return True


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

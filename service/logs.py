"""Write the log of the service to standard error: one line for each event, as a JSON object or as text for people.

log_event_table.py is the table of events. No line contains a payload or a secret. Control characters are escaped, so no
client can forge a line. A disk that is full, or a pipe that is closed, loses lines and never stops the service.
"""

import json
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import IO, Final, Literal

import orjson

from service.errors import SoftstepError
from service.log_event_table import EVENTS
from service.log_events import logger

LogFormat = Literal["json", "text"]

# The message of any other exception may repeat a value of a request.
SAFE_EXCEPTIONS: Final = (SoftstepError, OSError)


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        event, fields = _event_of(record)
        members = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": event,
            "message": record.getMessage(),
            "process": record.process,
            **fields,
        }
        if record.exc_info and record.exc_info[1]:
            members["exception"] = format_exception(record.exc_info[1])
        return dump_line(members)


class TextFormatter(logging.Formatter):
    """Formats a record as text for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; a traceback follows on further lines."""
        _, fields = _event_of(record)
        request = f" (request {fields['request_id']})" if "request_id" in fields else ""
        line = text_line(record.created, record.levelname.lower(), f"{record.getMessage()}{request}")
        return f"{line}\n{format_exception(record.exc_info[1])}" if record.exc_info and record.exc_info[1] else line


def _event_of(record: logging.LogRecord) -> tuple[str, Mapping[str, object]]:
    """Return the event and the fields of a record; those of a package's record are made here."""
    event: str | None = getattr(record, "event", None)
    return ("library", {"logger": record.name}) if event is None else (event, getattr(record, "fields", {}))


def dump_line(members: Mapping[str, object]) -> str:
    """Return a JSON object without a line break, also of text that is not valid Unicode."""
    try:
        return orjson.dumps(members, str).decode()
    except TypeError:  # a path with bytes that are no UTF-8
        return json.dumps(members, default=str)


def text_line(seconds: float, level: str, message: str) -> str:
    """Return a line for people, with local time."""
    escaped = message.encode("unicode_escape").decode()
    return f"{datetime.fromtimestamp(seconds):%H:%M:%S} {level:7} {escaped}"  # noqa: DTZ006


def format_exception(error: BaseException) -> str:
    """Return the traceback of an exception and of its causes, the first cause first.

    The message of an exception is left out unless it is known to hold no value of a request.
    """
    parts: list[str] = []
    current: BaseException | None = error
    while current is not None:
        kind = type(current)
        message = f": {current}" if isinstance(current, SAFE_EXCEPTIONS) else ""
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        parts.append("".join([*traceback.format_tb(current.__traceback__), name, message]))
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return "\nThen:\n".join(reversed(parts))


class LineWriter:
    """Writes lines to a stream by one system call each, so that lines of several processes never mix.

    A buffer would keep what a full disk refuses, and raise its error again when the process exits.

    Args:
        stream: Standard output or error; None if the process was started without it.
    """

    def __init__(self, stream: IO[str] | None) -> None:
        self._descriptor: int | None = None
        self._is_torn = False  # the last line was written in part
        with suppress(OSError):  # the stream is not a file
            self._descriptor = None if stream is None else stream.fileno()

    def write(self, line: str) -> None:
        """Write a line; discard it, or the rest of it, if that fails."""
        if self._descriptor is None:
            return
        data = f"{line}\n".encode(errors="backslashreplace")
        if self._is_torn:
            data = b"\n" + data
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(self._descriptor, view) :]
        except OSError:
            self._is_torn = len(view) < len(data) or self._is_torn
        else:
            self._is_torn = False


class LineHandler(logging.Handler):
    """Writes the formatted records of all loggers."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        """Write the line of a record, also of one whose arguments do not fit its message."""
        try:
            line = self.format(record)
        except (TypeError, ValueError, KeyError):
            record.args = None
            line = self.format(record)
        self._writer.write(line)


class AccessLog:
    """Writes one line for each response, without the detour over a log record.

    Args:
        log_format: The format of the lines.
    """

    def __init__(self, log_format: LogFormat) -> None:
        self._writer = LineWriter(sys.stderr)
        self._as_json = log_format == "json"
        self._message = EVENTS["access"].message
        self._process = os.getpid()
        self._second = -1
        self._time = ""  # of that second, without its milliseconds

    def write(self, fields: Mapping[str, object]) -> None:
        """Write the line of a response; `fields` are those of the event `access`, and the request's id."""
        message = self._message.format_map(fields if fields["route"] else {**fields, "route": "-"})
        if not self._as_json:
            self._writer.write(text_line(time.time(), "info", f"{message} in {fields['duration_ms']} ms"))
            return
        members = {
            "time": self._timestamp(),
            "level": "info",
            "event": "access",
            "message": message,
            "process": self._process,
            **fields,
        }
        self._writer.write(dump_line(members))

    def _timestamp(self) -> str:
        """Return the time; the text of a second is made once, because that takes longer than the rest of a line."""
        milliseconds = time.time_ns() // 1_000_000
        second, rest = divmod(milliseconds, 1000)
        if second != self._second:
            self._second, self._time = second, f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"
        return f"{self._time}.{rest:03}+00:00"


def configure_logging(log_format: LogFormat) -> None:
    """Send the records of all loggers, warnings and uncaught exceptions to standard error."""
    handler = LineHandler(LineWriter(sys.stderr))
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("softstep").setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda hook: logger.event("uncaught_exception", exc_info=hook.exc_value)
    sys.unraisablehook = lambda hook: logger.event("uncaught_exception", exc_info=hook.exc_value)


def _log_uncaught(_kind: type[BaseException], error: BaseException, _frames: TracebackType | None) -> None:
    logger.event("uncaught_exception", exc_info=error)

"""How the service speaks to standard error: one line for each event, as JSON or as text.

No line holds a payload or a secret. Control characters are escaped, so that no client can forge a line.
"""

import json
import logging
import sys
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """Writes a record as one JSON object: time, level, logger, message, process, and the trace of an exception."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        event = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event)


class TextFormatter(logging.Formatter):
    """Writes a record for a person to read."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; an exception follows on lines of its own."""
        message = record.getMessage().encode("unicode_escape").decode()
        line = f"{datetime.fromtimestamp(record.created):%H:%M:%S} {record.levelname.lower():7} {message}"  # noqa: DTZ006
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def without_query(record: logging.LogRecord) -> bool:
    """Cut the query off the path of an access line: it may hold a secret. The line has client, method and path."""
    if isinstance(record.args, tuple) and len(record.args) > 2:  # noqa: PLR2004
        client, method, path, *rest = record.args
        record.args = (client, method, str(path).partition("?")[0], *rest)
    return True


def set_up(*, as_json: bool, access: bool) -> None:
    """Send every logger's records to standard error; the access log is silent unless asked for."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("softstep").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    uvicorn_access = logging.getLogger("uvicorn.access")
    uvicorn_access.setLevel(logging.INFO)
    uvicorn_access.addFilter(without_query)
    uvicorn_access.propagate = access

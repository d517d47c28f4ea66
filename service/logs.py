"""Write the log of the service to standard error: one line for each event, as JSON or as text.

No line contains a payload or a secret. Control characters are escaped, so no client can forge a line.
"""

import json
import logging
import sys
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object: time, level, logger, message, process, and the traceback if there is one."""

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
    """Formats a record as text for people."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record; a traceback follows on further lines."""
        message = record.getMessage().encode("unicode_escape").decode()
        line = f"{datetime.fromtimestamp(record.created):%H:%M:%S} {record.levelname.lower():7} {message}"  # noqa: DTZ006
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def remove_query(record: logging.LogRecord) -> bool:
    """Remove the query from the path of an access record, because it may contain a secret; keep the record."""
    if isinstance(record.args, tuple) and len(record.args) > 2:  # noqa: PLR2004  # client, method, path
        client, method, path, *rest = record.args
        record.args = (client, method, str(path).partition("?")[0], *rest)
    return True


def configure_logging(*, as_json: bool, access: bool) -> None:
    """Send the records of all loggers to standard error; those of the access log only if `access` is true."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if as_json else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("softstep").setLevel(logging.INFO)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    uvicorn_access = logging.getLogger("uvicorn.access")
    uvicorn_access.setLevel(logging.INFO)
    uvicorn_access.addFilter(remove_query)
    uvicorn_access.propagate = access

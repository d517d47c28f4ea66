"""Write events to the log; log_event_table.py has all of them."""

import logging
import sys
from contextvars import ContextVar
from typing import Final

from service.log_event_table import EVENTS

# The id of the request that this task or thread works on.
REQUEST_ID: Final[ContextVar[str | None]] = ContextVar("request_id", default=None)


class EventLogger:
    """Writes the events of the table to the log."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("softstep")

    def event(self, event: str, /, *, exc_info: BaseException | None = None, **fields: object) -> None:
        """Write an event.

        Args:
            event: A name of `EVENTS`.
            exc_info: An exception whose traceback the line has.
            fields: The fields of the event, and `request_id` if the line is about a request of another task.
        """
        row = EVENTS[event]
        request_id = REQUEST_ID.get()
        if request_id is not None:
            fields.setdefault("request_id", request_id)
        extra = {"event": event, "fields": fields}
        self._logger.log(row.level, row.message.format_map(fields), exc_info=exc_info, extra=extra)

    def exception(self, event: str, /, **fields: object) -> None:
        """Write an event with the traceback of the exception that is handled now."""
        self.event(event, exc_info=sys.exception(), **fields)


logger: Final = EventLogger()

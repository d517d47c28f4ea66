"""Log why feedback is not stored, without a line for each request.

A reason is logged at once, and then once a minute with the number of events that were refused since the line before.
"""

from service.errors import LogError, LogFullError
from service.log_events import logger
from service.log_limit import LineLimit


class RefusalLog:
    """Logs refusals of feedback. One thread uses an object.

    Attributes:
        is_open: Whether feedback was refused, and no line says yet that it is accepted again.
    """

    def __init__(self) -> None:
        self.is_open = False
        self._limit = LineLimit()
        self._counts: dict[str, int] = {}  # by reason: the events that no line has reported

    def note_refused(self, error: LogError, count: int) -> None:
        """Note that some feedback events were refused for a reason of the log."""
        self.is_open = True
        reason = str(error)
        count += self._counts.get(reason, 0)
        is_due = self._limit.is_due(reason)
        self._counts[reason] = 0 if is_due else count
        if not is_due:
            return
        if isinstance(error, LogFullError):
            logger.event("feedback_refused", count=count, reason=reason, code=error.code)
        else:
            logger.event("feedback_not_written", count=count, reason=reason, code=error.code, exc_info=error)

    def note_written(self) -> None:
        """Note that feedback was written; log it if no reason was logged within the last minute."""
        if self._limit.is_quiet():
            logger.event("feedback_accepted", count=sum(self._counts.values()))
            self.is_open = False
            self._counts.clear()

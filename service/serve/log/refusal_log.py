"""Log why feedback is not stored, without a line for each request.

A reason is logged at once, and then once a minute with the number of events that were refused since the line before.
"""

import time
from typing import Final

from service.errors import LogError, LogFullError
from service.log_events import logger

# One line a minute shows that the fault lasts, and does not fill the disk that may be full.
PAUSE_SECONDS: Final = 60.0


class RefusalLog:
    """Logs refusals of feedback. One thread uses an object.

    Attributes:
        is_open: Whether feedback was refused, and no line says yet that it is accepted again.
    """

    def __init__(self) -> None:
        self.is_open = False
        self._counts: dict[str, int] = {}  # by reason: the events that no line has reported
        self._due: dict[str, float] = {}  # by reason: when the next line may come

    def note_refused(self, error: LogError, count: int) -> None:
        """Note that some feedback events were refused for a reason of the log."""
        self.is_open = True
        reason, now = str(error), time.monotonic()
        count += self._counts.get(reason, 0)
        is_due = now >= self._due.get(reason, now)
        self._counts[reason] = 0 if is_due else count
        if not is_due:
            return
        self._due[reason] = now + PAUSE_SECONDS
        if isinstance(error, LogFullError):
            logger.event("feedback_refused", count=count, reason=reason, code=error.code)
        else:
            logger.event("feedback_not_written", count=count, reason=reason, code=error.code, exc_info=error)

    def note_written(self) -> None:
        """Note that feedback was written; log it if no reason was logged within the last minute."""
        if time.monotonic() >= max(self._due.values()):
            logger.event("feedback_accepted", count=sum(self._counts.values()))
            self.is_open = False
            self._counts.clear()
            self._due.clear()

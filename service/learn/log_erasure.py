"""Remove what was forgotten from the log: at once, or beside the learning if the log is shared.

The table of a long log in PostgreSQL takes minutes to vacuum, and another replica may hold the lock that it needs. So a
thread with a connection of its own does that, one run after another, and each run is for all streams.
"""

import time
from collections.abc import Callable
from contextlib import closing
from threading import Thread
from typing import Final

from service.errors import LogError
from service.learn.retry_delay import RetryDelay
from service.log_events import logger
from service.log_limit import LineLimit
from service.store.log.feedback_log import FeedbackLog


class LogErasure:
    """The removals of forgotten payloads from one log. One thread uses an object, that of the learner.

    Args:
        log: The learner's own object of the log.
        open_log: Opens another object of the log, if it is shared; None if it is not.
    """

    def __init__(self, log: FeedbackLog, open_log: Callable[[], FeedbackLog] | None) -> None:
        self._log: Final = log
        self._open_log: Final = open_log
        self._thread: Thread | None = None
        self._error: Exception | None = None  # of the last run
        self._begun = self._done = self._wanted = 0  # the numbers of runs
        self._delay: Final = RetryDelay()
        self._lines: Final = LineLimit()

    def request(self) -> int:
        """Have the log erase all that is forgotten now.

        Returns:
            The number of the run that does so, for `is_done`.

        Raises:
            LogError: The log is not shared, and cannot be rewritten now.
        """
        if self._open_log is None:
            self._log.erase_forgotten()
            self._done += 1
            return self._done
        self._wanted = self._begun + 1  # the current one may have read the table already
        return self._wanted

    def is_done(self, run: int) -> bool:
        """Return whether a run, or one that came after it, has ended well; begin the next run if it is due."""
        if self._open_log is not None:
            self._advance(self._open_log, time.monotonic())
        return self._done >= run

    def _advance(self, open_log: Callable[[], FeedbackLog], now: float) -> None:
        if self._thread is not None:
            if self._thread.is_alive():
                return
            self._thread = None
            self._take_result(now)
        if self._done < self._wanted and now >= self._delay.due:
            self._begun += 1
            self._thread = Thread(target=self._run, args=(open_log,), name="erasure", daemon=True)
            self._thread.start()

    def _take_result(self, now: float) -> None:
        error = self._error
        if error is None:
            self._done = self._begun
            self._delay.record_success()
            return
        self._delay.record_failure(str(error), now)
        if not isinstance(error, LogError):
            raise error
        if self._lines.is_due(str(error)):
            logger.event("not_erased_yet", reason=str(error))

    def _run(self, open_log: Callable[[], FeedbackLog]) -> None:
        try:
            with closing(open_log()) as log:
                log.erase_forgotten()
            self._error = None
        except Exception as error:  # noqa: BLE001  # the learner raises it
            self._error = error

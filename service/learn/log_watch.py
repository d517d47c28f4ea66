"""Decide when the learner looks at the log again.

Workers of the same service wake the learner after each commit. So a log to which only they append is looked at then,
and otherwise only in case a wakeup was lost. Commits of other machines come without a wakeup. A shared log is looked at
every few milliseconds while events come or a request waits for one, and otherwise ten times a second. Those pauses are
random, so that the looks of many replicas do not coincide.
"""

import random
from collections.abc import Callable
from typing import Final

# Longest pause between two looks at a log of one service, in case a notification was lost with a worker.
POLL_SECONDS: Final = 0.5
# Pauses between two looks at a shared log: a look costs its server 25 us (measured by hand).
BUSY_SECONDS: Final = 0.005
IDLE_SECONDS: Final = 0.1
# A shared log counts as busy for so long after an event was read.
ACTIVE_SECONDS: Final = 1.0


class LogWatch:
    """The times of the looks at one log. All times are of one monotonic clock, in seconds.

    Args:
        is_shared: Whether other machines append too.
        draw: Returns a random number from 0 to 1.
    """

    def __init__(self, *, is_shared: bool, draw: Callable[[], float] = random.random) -> None:
        self._is_shared: Final = is_shared
        self._draw: Final = draw
        self._looked = 0.0
        self._idle_seconds = IDLE_SECONDS
        self._active_until = 0.0

    def note_look(self, now: float, *, has_events: bool) -> None:
        """Note that a look began at a time, and whether it has found events."""
        self._looked = now
        self._idle_seconds = IDLE_SECONDS * (0.5 + self._draw())
        if has_events:
            self._active_until = now + ACTIVE_SECONDS

    def seconds_until_look(self, now: float, *, is_awaited: bool) -> float:
        """Return the pause until the next look without a wakeup.

        Args:
            now: The time.
            is_awaited: Whether a request waits for an event.
        """
        if not self._is_shared:
            return POLL_SECONDS
        pause = BUSY_SECONDS if is_awaited or now < self._active_until else self._idle_seconds
        return max(0.0, self._looked + pause - now)

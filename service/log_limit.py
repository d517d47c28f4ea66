"""Limit how often a fault that lasts is logged: at once, then once a minute."""

import time
from typing import Final

# One line a minute shows that a fault lasts, and does not fill a disk that may be full.
PAUSE_SECONDS: Final = 60.0


class LineLimit:
    """Knows when each reason may be logged again. One thread uses an object."""

    def __init__(self) -> None:
        self._due: dict[str, float] = {}

    def is_due(self, reason: str) -> bool:
        """Return whether a reason may be logged now; if so, its next pause begins."""
        now = time.monotonic()
        if now < self._due.get(reason, now):
            return False
        self._due[reason] = now + PAUSE_SECONDS
        return True

    def is_quiet(self) -> bool:
        """Return whether no reason was logged within the last pause."""
        return time.monotonic() >= max(self._due.values(), default=0.0)

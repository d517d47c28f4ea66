"""The delay before a stream whose learning failed is tried again."""

from typing import Final

DELAY_SECONDS: Final = 0.1
DELAY_SECONDS_MAX: Final = 5.0


class RetryDelay:
    """A delay that doubles with each failure in a row. All times are of one monotonic clock, in seconds.

    Args:
        longest: The longest delay.

    Attributes:
        reason: Why the last attempt failed, without a path or a name; None if it succeeded.
        due: When to try again.
    """

    def __init__(self, longest: float = DELAY_SECONDS_MAX) -> None:
        self._longest: Final = longest
        self.reason: str | None = None
        self.due = 0.0
        self._seconds = 0.0

    def record_failure(self, reason: str, now: float) -> None:
        """Start a delay, twice as long as the last one."""
        self.reason = reason
        self._seconds = min(max(2 * self._seconds, DELAY_SECONDS), self._longest)
        self.due = now + self._seconds

    def record_success(self) -> None:
        """Reset the delay."""
        self.reason, self._seconds = None, 0.0

"""A clock that moves when it is set, in place of the module `time`."""


class SetClock:
    """A clock that begins at 100 seconds.

    Attributes:
        now: The time in seconds.
    """

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        """Return the time."""
        return self.now

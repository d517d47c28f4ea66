"""The errors of a log that does not continue what was read from it before, a branch of the tree in errors.py."""

from service.errors import LogDamagedError


class LogForkedError(LogDamagedError):
    """The log has another event where one was read before: its chain and the one that was followed have parted."""


class LogEndsEarlierError(LogDamagedError):
    """The log ends before an event that was read before: it may be an older copy, which may still catch up."""


class BaseForgottenError(LogDamagedError):
    """The state of a BASE has been forgotten since the events were read that say which BASE to start from."""

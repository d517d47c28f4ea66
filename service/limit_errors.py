"""The errors of the limits of keys, a branch of the tree in errors.py."""

from service.errors import SoftstepError


class LimitError(SoftstepError):
    """A limit of the sender's key is reached; nothing was stored.

    Args:
        message: The sentence for the sender.
        retry_seconds: When the limit permits more, in whole seconds from now.

    Attributes:
        retry_seconds: As above.
    """

    def __init__(self, message: str, retry_seconds: int) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class RequestLimitError(LimitError, code="too_many_requests"):
    """The key has made as many requests a second as it may."""


class RowLimitError(LimitError, code="too_many_rows"):
    """The key has sent as many rows a second as it may."""


class InFlightLimitError(LimitError, code="too_many_in_flight"):
    """The key has as many requests in progress as it may."""


class FeedbackLimitError(LimitError, code="too_much_feedback"):
    """The key has sent as many feedback events to the model in an hour as it may."""


class ImportanceLimitError(LimitError, code="too_much_importance"):
    """The key has sent as much importance to the model in an hour as it may."""

"""The X-Request-Id of a response: the request's own, or a new one."""

import itertools
import os
from typing import Final, Self

REQUEST_ID_BYTES_MAX: Final = 128


class RecordedNumbers:
    """The numbers of requests, of which the last one is known.

    Attributes:
        last: The last number, or 0.
    """

    def __init__(self) -> None:
        self.last = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> int:
        self.last += 1
        return self.last


class RequestIds:
    """Makes the ids of requests that bring none: a prefix of this process, and a number.

    Attributes:
        series: The prefix.
        numbers: The numbers.
    """

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Start a new series. A forked worker must do this, or two workers would make the same ids."""
        self.series = os.urandom(8).hex().encode()
        self.numbers: itertools.count[int] | RecordedNumbers = itertools.count(1)

    def record_numbers(self) -> RecordedNumbers:
        """Start numbers of which the last one is known; an access log needs that."""
        self.numbers = recorded = RecordedNumbers()
        return recorded


REQUEST_IDS: Final = RequestIds()


def request_id(sent: bytes | None) -> bytes:
    """Return the id of a response: the sent one if it is short, visible ASCII text, else a new one."""
    if sent is not None and 0 < len(sent) <= REQUEST_ID_BYTES_MAX and sent.isascii() and sent.decode().isprintable():
        return sent
    return b"%b-%x" % (REQUEST_IDS.series, next(REQUEST_IDS.numbers))

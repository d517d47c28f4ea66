"""The id that every answer carries: the request's own, or one of ours."""

import itertools
import os
from typing import Final

REQUEST_ID_BYTES_MAX: Final = 128


class RequestIds:
    """The ids of requests that bring none: a name of this process's own, and a number."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Start a new series; a forked worker does this, or two workers would give the same ids."""
        self.series = os.urandom(8).hex().encode()
        self.numbers = itertools.count(1)


REQUEST_IDS: Final = RequestIds()


def request_id(sent: bytes | None) -> bytes:
    """The id to answer with: the one that was sent where it is short visible text, else a new one."""
    if sent is not None and 0 < len(sent) <= REQUEST_ID_BYTES_MAX and sent.isascii() and sent.decode().isprintable():
        return sent
    return b"%b-%x" % (REQUEST_IDS.series, next(REQUEST_IDS.numbers))

"""Ids for events whose client names none: UUIDv7 (RFC 9562), as text, ascending within a process.

    48 bits milliseconds since 1970 | 4 bits 0111 | 12 bits counter | 2 bits 10 | 62 random bits

Ids that ascend with time touch the same few pages of an index, where random ones touch one each.
"""

import secrets
import threading
import time
import uuid

COUNTER_BITS = 12


class IdGenerator:
    """A maker of ids. Each one is greater than the one before, also when the clock steps back.

    The random bits are drawn anew for each id, so that processes forked from one parent never agree on one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0  # milliseconds and counter as one number, so that a full counter runs into the next millisecond

    def next_id(self, now_ms: int) -> bytes:
        """The next id: 36 ASCII characters such as 0190163d-8694-739b-aea5-966c26f8ad91.

        Args:
            now_ms: Milliseconds since 1970.
        """
        with self._lock:
            self._last = max(now_ms << COUNTER_BITS, self._last + 1)
            milliseconds, counter = divmod(self._last, 1 << COUNTER_BITS)
        high = milliseconds << 16 | 0x7000 | counter
        return str(uuid.UUID(int=high << 64 | 0b10 << 62 | secrets.randbits(62))).encode()


_ids = IdGenerator()


def new_id() -> bytes:
    """An id that nobody else has, greater than every earlier one of this process."""
    return _ids.next_id(time.time_ns() // 1_000_000)

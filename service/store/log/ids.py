"""Ids of version 7 (UUIDv7, RFC 9562) for events.

    48 bits milliseconds since 1970 | 4 bits 0111 | 12 bits a | 2 bits 10 | 62 random bits

`new_id` is for events whose client names none: `a` is a counter, so that the ids of a process ascend. Ids that ascend
with time touch the same few pages of an index, where random ids touch one each. `random_ids` is for feedback tokens:
`a` is random, so that an id tells nothing but its time.
"""

import os
import secrets
import threading
import time
from typing import Final

COUNTER_BITS: Final = 12
ID_BYTES: Final = 16
TIME_BYTES: Final = 6
RANDOM_BYTES: Final = ID_BYTES - TIME_BYTES
VERSION_AND_VARIANT: Final = 0x7 << 76 | 0b10 << 62


class IdGenerator:
    """A generator of ascending ids; each is greater than the one before, even if the clock steps back.

    The random bits are drawn for each id, so that processes forked from one parent never generate the same id.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0  # milliseconds and counter as one number, so that a full counter runs into the next millisecond

    def next_id(self, now_ms: int) -> bytes:
        """Return the next id, 36 ASCII characters such as 0190163d-8694-739b-aea5-966c26f8ad91.

        Args:
            now_ms: Milliseconds since 1970.
        """
        with self._lock:
            self._last = max(now_ms << COUNTER_BITS, self._last + 1)
            milliseconds, counter = divmod(self._last, 1 << COUNTER_BITS)
        number = milliseconds << 80 | counter << 64 | VERSION_AND_VARIANT | secrets.randbits(62)
        return id_text(number.to_bytes(ID_BYTES))


def random_ids(count: int, now_ms: int) -> list[bytes]:
    """Return ids of one moment, 16 bytes each, with 74 random bits (RFC 9562, section 5.7).

    Args:
        count: The number of ids.
        now_ms: Milliseconds since 1970.
    """
    fixed, random = now_ms << 80 | VERSION_AND_VARIANT, os.urandom(RANDOM_BYTES * count)
    numbers = [int.from_bytes(random[at : at + RANDOM_BYTES]) for at in range(0, len(random), RANDOM_BYTES)]
    return [(fixed | (bits >> 68) << 64 | bits & (1 << 62) - 1).to_bytes(ID_BYTES) for bits in numbers]


def id_text(id_: bytes) -> bytes:
    """Return the text of an id of 16 bytes, 36 ASCII characters."""
    digits = id_.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}".encode()


_generator = IdGenerator()


def new_id() -> bytes:
    """Return an id that nothing else has, greater than every earlier one of this process."""
    return _generator.next_id(time.time_ns() // 1_000_000)

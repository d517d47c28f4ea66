"""Ids of calls that write, made before their first try, so that a retry counts once.

An id is a UUID of version 7 (RFC 9562, section 5.7): its first 48 bits are milliseconds since 1970, so that ids of one
time are neighbors in the index of the service; 74 bits are random.
"""

from __future__ import annotations

import os
import time

VERSION_AND_VARIANT = 0x7 << 76 | 0b10 << 62
# All bits but those of time, version and variant.
RANDOM_BITS = 0xFFF << 64 | (1 << 62) - 1


def new_id() -> str:
    """Return a new id, 36 ASCII characters such as 0190163d-8694-739b-aea5-966c26f8ad91."""
    random = int.from_bytes(os.urandom(10), "big") & RANDOM_BITS
    digits = f"{time.time_ns() // 1_000_000 << 80 | VERSION_AND_VARIANT | random:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def id_of_part(event_id: str, part: int) -> str:
    """Return the id of one part of a call that is sent as several events, from 0: id, id/2, id/3 and so on."""
    return event_id if part == 0 else f"{event_id}/{part + 1}"

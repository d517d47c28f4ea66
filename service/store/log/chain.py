"""The chain of hashes through a stream: each event's hash holds the one before it, so none can change unnoticed."""

import hashlib
import struct
from collections.abc import Iterable
from typing import Final

from service.errors import LogDamagedError
from service.store.log.events import Position, hash_event, hash_payload

SEAL_BYTES: Final = 8


# An event as it is stored: seq, kind, id, time_ms, payload, hash, and its seal, which is the salt, or the digest itself
# where the payload was forgotten. A bare tuple, for a start follows a long chain of them.
Link = tuple[int, int, bytes, int, bytes | None, bytes, bytes]


def check_chain(since: Position, links: Iterable[Link]) -> Position:
    """Follows the chain from a position that is known to be good.

    Args:
        since: Where the links begin: the position just before the first of them.
        links: The stored events that follow, by seq.

    Returns:
        The position of the last of them, or `since` where there is none.

    Raises:
        LogDamagedError: One is missing or is not what was written.
    """
    expected, hash_ = since
    for seq, kind, id_, time_ms, payload, written, seal in links:
        expected += 1
        if seq != expected:
            raise LogDamagedError(f"the feedback log has no event {expected} where one was written; restore a backup")
        try:
            hash_ = hash_event(hash_, seq, kind, id_, time_ms, seal if payload is None else hash_payload(seal, payload))
        except (TypeError, struct.error):
            # A flipped bit can make a text of bytes, or a number that no event has.
            hash_ = b""
        if hash_ != written:
            raise LogDamagedError(f"event {seq} of the feedback log is not what was written; restore a backup")
    return Position(expected, hash_)


def check_event(before: bytes, event: Link) -> None:
    """Holds one event against the hash of the one before it; raises LogDamagedError where it is not as written."""
    check_chain(Position(event[0] - 1, before), [event])


def add_checksum(content: bytes) -> bytes:
    """Bytes with 8 bytes of their checksum behind them, for what stands in no chain."""
    return content + hashlib.sha256(content).digest()[:SEAL_BYTES]


def strip_checksum(content: object) -> bytes:
    """The bytes that were sealed; raises LogDamagedError where they are not what was written."""
    if not isinstance(content, bytes) or add_checksum(content[:-SEAL_BYTES]) != content:
        raise LogDamagedError("a table of the feedback log is not what was written; restore a backup")
    return content[:-SEAL_BYTES]

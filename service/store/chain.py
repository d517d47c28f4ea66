"""The chain of hashes through a stream: each event's hash holds the one before it, so none can change unnoticed."""

import hashlib
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from service.errors import LogDamagedError
from service.store.feedback import Event, Position, digest, link

SEAL_BYTES: Final = 8


class Link(NamedTuple):
    """An event as it is stored, with what its digest is checked by.

    Attributes:
        event: The event.
        seal: The salt, or the digest itself where the payload was forgotten.
    """

    event: Event
    seal: bytes


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
    seq, hash_ = since
    for event, seal in links:
        seq += 1
        if event.seq != seq:
            raise LogDamagedError(f"the feedback log has no event {seq} where one was written")
        try:
            sealed = seal if event.payload is None else digest(seal, event.payload)
            hash_ = link(hash_, seq, event.kind, event.id, event.time_ms, sealed)
        except (TypeError, struct.error):
            # A flipped bit can make a text of bytes, or a number that no event has.
            hash_ = b""
        if hash_ != event.hash:
            raise LogDamagedError(f"event {seq} of the feedback log is not what was written; restore a backup")
    return Position(seq, hash_)


def sealed(content: bytes) -> bytes:
    """Bytes with 8 bytes of their checksum behind them, for what stands in no chain."""
    return content + hashlib.sha256(content).digest()[:SEAL_BYTES]


def unsealed(content: object) -> bytes:
    """The bytes that were sealed; raises LogDamagedError where they are not what was written."""
    if not isinstance(content, bytes) or sealed(content[:-SEAL_BYTES]) != content:
        raise LogDamagedError("a table of the feedback log is not what was written; restore a backup")
    return content[:-SEAL_BYTES]

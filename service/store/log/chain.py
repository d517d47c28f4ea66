"""The chain of hashes of a stream: each event's hash covers the one before it, so every change is detected."""

import hashlib
import struct
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final

from service.chain_errors import LogEndsEarlierError, LogForkedError
from service.errors import LogDamagedError
from service.store.log.events import Position, hash_event, hash_payload

CHECKSUM_BYTES: Final = 8

# A stored event: seq, kind, id, time_ms, payload, hash, actor and seal. The seal is the salt, or the digest itself if
# the payload was forgotten. A bare tuple, because a start checks long chains of them.
Link = tuple[int, int, bytes, int, bytes | None, bytes, bytes, bytes]
PAYLOAD_OF: Final = itemgetter(4)


def check_chain(since: Position, links: Iterable[Link]) -> Position:
    """Check the chain after a position that is known to be good.

    Args:
        since: The position just before the first link.
        links: The stored events that follow, by seq.

    Returns:
        The position of the last link, or `since` if there is none.

    Raises:
        LogDamagedError: An event is missing or differs from what was written.
    """
    expected, hash_ = since
    for seq, kind, id_, time_ms, payload, stored_hash, actor, seal in links:
        expected += 1
        if seq != expected:
            raise LogDamagedError(f"the feedback log has lost event {expected}; restore a backup")
        try:
            digest = seal if payload is None else hash_payload(seal, payload)
            hash_ = hash_event(hash_, seq, kind, id_, time_ms, digest, actor)
        except (TypeError, struct.error):
            # A flipped bit can turn bytes into a text, or produce a number or a length that no event has.
            hash_ = b""
        if hash_ != stored_hash:
            raise LogDamagedError(f"event {seq} of the feedback log is damaged; restore a backup")
    return Position(expected, hash_)


def check_continues(since: Position, found: Sequence[Link], genesis: bytes, last_seq: int) -> Sequence[Link]:
    """Check that a stream contains a position that was read before, and check the chain from there.

    Args:
        since: The position; seq 0 with the genesis if nothing was read.
        found: The stored events from `since.seq` on, that one included.
        genesis: The genesis of the stream; needed if `since.seq` is 0.
        last_seq: The seq of the last event of the stream when `found` was read; needed if nothing was found.

    Returns:
        The events after the position.

    Raises:
        LogEndsEarlierError: The stream ends before the position.
        LogForkedError: The stream has another event there.
        LogDamagedError: An event is missing or differs from what was written.
    """
    if since.seq == 0:
        if genesis != since.hash:
            raise LogForkedError("the feedback log has another stream of this number than the one that was read before")
        links = found
    elif not found and last_seq < since.seq:
        raise LogEndsEarlierError(f"the feedback log ends before event {since.seq}, which was read from it before")
    elif not found or found[0][0] != since.seq:
        raise LogDamagedError(f"the feedback log has lost event {since.seq}; restore a backup")
    elif found[0][5] != since.hash:
        raise LogForkedError(f"the feedback log has another event {since.seq} than the one that was read before")
    else:
        links = found[1:]
    check_chain(since, links)
    return links


def check_event(previous: bytes, event: Link) -> None:
    """Check one event against the hash of the one before it.

    Raises:
        LogDamagedError: It differs from what was written.
    """
    check_chain(Position(event[0] - 1, previous), [event])


def add_checksum(content: bytes) -> bytes:
    """Append 8 bytes of checksum to bytes that are in no chain."""
    return content + hashlib.sha256(content).digest()[:CHECKSUM_BYTES]


def strip_checksum(content: object) -> bytes:
    """Verify the checksum of bytes from `add_checksum`, and return them without it.

    Raises:
        LogDamagedError: They differ from what was written.
    """
    if not isinstance(content, bytes) or add_checksum(content[:-CHECKSUM_BYTES]) != content:
        raise LogDamagedError("a table of the feedback log is damaged; restore a backup")
    return content[:-CHECKSUM_BYTES]

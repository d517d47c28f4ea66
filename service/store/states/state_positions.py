"""Which positions a log must have for a state to belong to it; learn/stream_position.py writes them."""

from collections.abc import Mapping
from typing import Any

from service.chain_errors import LogForkedError
from service.store.log.events import Position, Stream
from service.store.log.feedback_log import FeedbackLog


def dependencies(seq: int, fields: Mapping[str, Any]) -> list[Position]:
    """Return the positions that a log must have for a state at a seq to belong to it, that of the state first.

    Args:
        seq: The seq.
        fields: The fields of a file.

    Raises:
        KeyError, TypeError, ValueError: A field is missing or is no position.
    """
    own = Position(seq, bytes.fromhex(fields["hash"]))
    if "heeded" not in fields:
        return [own]
    heeded_seq, heeded_hash = fields["heeded"]
    return [own, Position(int(heeded_seq), bytes.fromhex(heeded_hash))]


def contains_position(log: FeedbackLog, stream: Stream, position: Position) -> bool:
    """Return whether a stream has a position.

    Raises:
        LogEndsEarlierError: It ends before it.
        LogDamagedError: The event there is missing.
    """
    try:
        log.read_checked(stream.number, position, 0)
    except LogForkedError:
        return False
    return True

"""Copy a log from one backend to another: the same events with the same seqs, seals and hashes.

The copy can be interrupted at any point and continued. Its streams have the numbers of the source, so that files which
name a stream stay valid. Nothing reads the copy as a log before `LogTarget.finish`.

A forgotten event is copied as it is stored: without its payload, with its digest as the seal. Events may be forgotten
in the source while a copy is interrupted; what it has of them is forgotten before it is finished.
"""

import hashlib
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from service.errors import LogDamagedError
from service.store.log.chain import Link, check_chain
from service.store.log.events import SEQ_BITS, Event, Position, Stream
from service.store.log.lineage import Lineage, lineage_change
from service.store.log.log_rows import Row, StreamHead

# Events of one transaction: few enough to be written in less than a second, and enough for speed.
COPY_EVENTS: Final = 4096
# Payload bytes at which the next transaction gets fewer events.
COPY_BYTES: Final = 8 << 20


class LogContents(Protocol):
    """A log as of one moment.

    Attributes:
        secret: The secret of the hash of ids, 16 bytes.
    """

    secret: bytes

    def read_heads(self) -> list[StreamHead]:
        """Return the heads of all streams, by number."""

    def read_links(self, stream: int, after: int, limit: int) -> list[Link]:
        """Return at most `limit` events with seqs greater than `after`, by seq, unchecked."""

    def read_admin_events(self, stream: Stream) -> list[Event]:
        """Return the events of a stream but FEEDBACK, by seq, each checked against the hash of the one before it."""


class LogTarget(Protocol):
    """A log that is being written. No method is called by two threads at once."""

    def begin(self, secret: bytes, streams: Sequence[Stream]) -> dict[int, Position]:
        """Begin a copy of these streams, or continue one.

        Returns:
            The position up to which the events of each stream are there, if any are, by number.

        Raises:
            LogUnavailableError: The log has other events.
        """

    def clear(self) -> None:
        """Delete all events that were copied."""

    def insert(self, stream: Stream, rows: Sequence[Row]) -> None:
        """Write events of a stream, which follow those that are there."""

    def forget(self, positions: Sequence[int]) -> int:
        """Delete the payloads and salts of events that still have them; return how many had."""

    def read_copied(self, stream: int, after: int, limit: int) -> list[Link]:
        """Return at most `limit` events that were copied, as `LogContents.read_links` does."""

    def finish(self, heads: Sequence[StreamHead]) -> None:
        """Let the copy be a log, with these heads of its streams."""


class CopyStep(NamedTuple):
    """Progress of a copy.

    Attributes:
        action: What is done: "copying" or "verifying".
        events: The number of events that are done.
        total: The number of events of the log.
    """

    action: str
    events: int
    total: int


class CopyResult:
    """The outcome of a copy.

    Attributes:
        heads: The heads of the source.
        continued: The number of events that an earlier run had copied.
        forgotten: The number of events that were forgotten since an earlier run had copied them.
    """

    def __init__(self) -> None:
        self.heads: list[StreamHead] = []
        self.continued = 0
        self.forgotten = 0


def copy_log(source: LogContents, target: LogTarget, result: CopyResult) -> Iterator[CopyStep]:
    """Copy a log, check the chains of both, and finish the copy.

    Args:
        source: The log.
        target: The copy.
        result: The outcome, which is filled.

    Yields:
        The progress.

    Raises:
        LogDamagedError: An event of the source or of the copy is missing or differs from what was written.
        LogError: One of the two cannot be used.
    """
    result.heads = heads = source.read_heads()
    streams = [head.stream for head in heads]
    reached = target.begin(source.secret, streams)
    if not all(_contains(source, number, position) for number, position in reached.items()):
        target.clear()
        reached = target.begin(source.secret, streams)
    result.continued = done = sum(position.seq for position in reached.values())
    total = sum(head.seq for head in heads)
    for head in heads:
        since = reached.get(head.stream.number, Position(0, head.stream.genesis))
        for count in _copy_stream(source, target, head, since):
            done += count
            yield CopyStep("copying", done, total)
        if since.seq > 0:
            result.forgotten += target.forget(_forgotten_positions(source, head.stream))
    done = 0
    for head in heads:
        for count in _verify_copy(target, head):
            done += count
            yield CopyStep("verifying", done, total)
    target.finish(heads)


def identify_source(secret: bytes, streams: Sequence[Stream]) -> list[object]:
    """Return what a copy stores to know its source again, without the secret itself; it can be written as JSON."""
    known = [[number, model, version, genesis.hex(), count] for number, model, version, genesis, count in streams]
    return [hashlib.sha256(secret).hexdigest(), known]


def _contains(source: LogContents, stream: int, position: Position) -> bool:
    links = source.read_links(stream, position.seq - 1, 1)
    return [(link[0], link[5]) for link in links] == [position]


def _copy_stream(source: LogContents, target: LogTarget, head: StreamHead, since: Position) -> Iterator[int]:
    """Copy the events of a stream after a position, and yield how many each transaction has."""
    number, limit = head.stream.number, COPY_EVENTS
    while links := source.read_links(number, since.seq, limit):
        since = check_chain(since, links)
        target.insert(head.stream, [(number << SEQ_BITS | link[0], *link[1:]) for link in links])
        size = sum(len(link[4] or b"") for link in links)
        limit = max(1, min(COPY_EVENTS, len(links) * COPY_BYTES // max(1, size)))
        yield len(links)
    _check_end(head, since)


def _verify_copy(target: LogTarget, head: StreamHead) -> Iterator[int]:
    """Check the chain of a stream in the copy, and yield how many events each step has."""
    since = Position(0, head.stream.genesis)
    while links := target.read_copied(head.stream.number, since.seq, COPY_EVENTS):
        since = check_chain(since, links)
        yield len(links)
    _check_end(head, since)


def _check_end(head: StreamHead, position: Position) -> None:
    if position != (head.seq, head.hash):
        name = f"{head.stream.model}/{head.stream.version}"
        raise LogDamagedError(f"{name} ends at event {position.seq} in place of {head.seq}; restore a backup")


def _forgotten_positions(source: LogContents, stream: Stream) -> list[int]:
    """Return the positions of feedback that was forgotten, and of the bases and corrections that went with it."""
    lineage = Lineage(map(lineage_change, source.read_admin_events(stream)))
    seqs = lineage.forgotten | lineage.forgotten_bases | lineage.forgotten_corrections
    return [stream.number << SEQ_BITS | seq for seq in sorted(seqs)]

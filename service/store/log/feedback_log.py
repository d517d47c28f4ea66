"""The interface of the feedback log, and the reads that every backend shares."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from service.store.log.events import Draft, Event, EventLocation, Outcome, Position, Stream, StreamState
from service.store.log.lineage import Lineage, lineage_change


class FeedbackLog(Protocol):
    """What every backend does. One thread at a time uses one object; several processes may each have their own.

    All methods raise a `LogError` where the log cannot do it now; `append` says which in its own words.
    """

    def open_stream(self, model: str, version: int, genesis: bytes, n_classes: int) -> Stream:
        """The stream of a model version, made where there is none.

        Returns:
            The stream as it was first opened: its genesis differs from the argument where the version's files do.
        """

    def list_streams(self) -> list[Stream]:
        """All streams, by number."""

    def stream_state(self, stream: int) -> StreamState:
        """Where a stream stands. Raises StreamGoneError where it was purged."""

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """Writes drafts in one transaction, and returns when it is on disk.

        Returns:
            For each draft, in order, its location, or the error for which it alone was refused: LogFullError for
            feedback if the disk is too full, while admin calls still fit.

        Raises:
            LogUnavailableError: It cannot be opened, or another process held it for too long; nothing was written.
            OutcomeUnknownError: The disk failed; drafts may be written or not. A retry with the same ids tells.
        """

    def position_after_append(self, stream: int) -> tuple[Stream, Position]:
        """A stream that an outcome of the last `append` names, and where it stands since then; from memory."""

    def read_events(self, stream: int, after: int, limit: int) -> list[Event]:
        """The events with after < seq, at most `limit` of them, by seq. No read lasts beyond the call."""

    def read_payloads(self, stream: int, since: Position, limit: int) -> tuple[list[bytes | None], Position]:
        """The payloads of the events behind a position, None where one was forgotten: what a long fold needs, in bulk.

        Returns:
            The payloads, and the position of the last of their events: the chain from `since` up to there is checked.

        Raises:
            LogDamagedError: An event is missing or is not what was written.
        """

    def read_admin_events(self, stream: int) -> list[Event]:
        """Every event that is no FEEDBACK, by seq; each is held against the hash of the one before it.

        Raises:
            LogDamagedError: One is not what was written.
        """

    def find_ids(self, model: str, ids: Sequence[bytes]) -> dict[bytes, EventLocation]:
        """Where the events with these ids are; ids that no event of the model has are left out."""

    def verify_chain(self, stream: int, since: Position, rows: int) -> Iterator[Position]:
        """Checks the chain behind a position that is known to be good, and yields after each `rows` events.

        Yields:
            The position up to which the chain holds; a later call may go on from there.

        Raises:
            LogDamagedError: An event is missing or is not what was written.
        """

    def purge_stream(self, stream: int) -> None:
        """Deletes a stream with its events and ids; its number is not given again."""

    def write_copy(self, path: Path) -> None:
        """Writes a whole copy of the log, as of one moment, to a file that does not exist."""

    def close(self) -> None:
        """Lets go of files; the object cannot be used any more."""


def read_event(log: FeedbackLog, stream: int, seq: int) -> Event | None:
    """Return one event of a stream, or None if the stream has no event with this seq."""
    events = log.read_events(stream, seq - 1, 1) if seq > 0 else []
    return events[0] if events else None


def read_position(log: FeedbackLog, stream: Stream, seq: int) -> Position | None:
    """Return where a seq stands in the stream's chain, or None if there is no such event."""
    if seq == 0:
        return Position(0, stream.genesis)
    event = read_event(log, stream.number, seq)
    return None if event is None else Position(seq, event.hash)


def read_lineage(log: FeedbackLog, stream: int) -> Lineage:
    """Return a stream's lineage, as all its admin events make it."""
    return Lineage(map(lineage_change, log.read_admin_events(stream)))

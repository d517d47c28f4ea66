"""The interface of the feedback log, and the reads that all backends share.

Invariants of every backend:
    (model, id) names one event as long as the log exists, across the versions of a model. Ids of rolled-back and
    forgotten events stay used; only a purge of the stream frees them.
    A seq is never reused, even if its event is forgotten.
    A forgotten event keeps everything but its payload and salt. The digest stays, so the chain can still be verified.
    All drafts of one `append` are written in one transaction, and each is accepted or refused by itself.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Protocol

from service.errors import LogDamagedError
from service.store.log.events import Draft, Event, EventLocation, EventPreview, Outcome, Position, Stream, StreamState
from service.store.log.lineage import Lineage, lineage_change
from service.store.log.shared_facts import SharedFacts
from service.store.log.shared_files import ReadFiles, SharedFiles
from service.store.log.shared_snapshots import SharedSnapshots
from service.store.log.shared_states import SharedStates


class FeedbackLog(Protocol):
    """The methods of a backend. One thread at a time uses an object; each process has its own.

    All methods raise a `LogError` if the log cannot be used now; `append` names the errors that matter there.

    Attributes:
        is_shared: Whether other machines append too, so that some commits come without a wakeup.
    """

    is_shared: ClassVar[bool]

    @property
    def files(self) -> SharedFiles | None:
        """The files that the machines of a shared log have in common; None if it is not shared."""

    @property
    def states(self) -> SharedStates | None:
        """The states that they compare; None if it is not shared."""

    @property
    def facts(self) -> SharedFacts | None:
        """The facts that they agree on; None if it is not shared."""

    @property
    def snapshots(self) -> SharedSnapshots | None:
        """The snapshots that learners pass on; None if it is not shared."""

    def begin(self) -> bool:
        """Finish what an interrupted process has left; call it once at a start of the service, before the first fork.

        Returns:
            Whether a log of an earlier release was upgraded.

        Raises:
            LogUnsafeError: The log has a schema that this release cannot use.
        """

    def open_stream(
        self, model: str, version: int, genesis: bytes, n_classes: int, read_files: ReadFiles | None = None
    ) -> Stream:
        """Return the stream of a model version, and create it if it is missing.

        Args:
            model: The model's name.
            version: The version's number.
            genesis: What its chain begins with.
            n_classes: The number of classes of its artifact.
            read_files: Returns the files of its artifact, which a shared log keeps in the same transaction.

        Returns:
            The stream as it was first opened: its genesis differs from the argument if the version's files do.
        """

    def list_streams(self) -> list[Stream]:
        """Return all streams, by number."""

    def stream_state(self, stream: int) -> StreamState:
        """Return the state of a stream.

        Raises:
            StreamGoneError: The stream was purged.
        """

    def append(self, drafts: Sequence[Draft]) -> list[Outcome]:
        """Write drafts in one transaction, and return when it is on disk.

        Returns:
            For each draft, in order, its location, or the error for which it alone was refused: LogFullError for
            feedback if the disk is too full, while admin calls still fit.

        Raises:
            LogUnavailableError: The log cannot be opened, or another process held it for too long; nothing was written.
            OutcomeUnknownError: The disk failed; drafts may be written or not. A retry with the same ids finds out.
        """

    def position_after_append(self, stream: int) -> tuple[Stream, Position]:
        """Return a stream that an outcome of the last `append` names, and its end since then, from memory."""

    def read_events(self, stream: int, after: int, limit: int) -> list[Event]:
        """Return at most `limit` events with seqs greater than `after`, by seq. No read lasts beyond the call."""

    def read_checked(self, stream: int, since: Position, limit: int) -> list[Event]:
        """Return at most `limit` events after a position that was read before, by seq, each following from the last.

        Args:
            stream: The stream's number.
            since: The position; seq 0 with the genesis if nothing was read.
            limit: How many.

        Raises:
            LogEndsEarlierError: The stream ends before the position.
            LogForkedError: The stream has another event there.
            LogDamagedError: An event is missing or differs from what was written.
        """

    def moved_streams(self) -> set[int] | None:
        """Return the numbers of the streams that may have new events since the last call; None if all may."""

    def read_previews(self, stream: int, before: int, limit: int, *, admin_only: bool = False) -> list[EventPreview]:
        """Return at most `limit` events with seqs smaller than `before`, newest first, without long payloads.

        Args:
            stream: The stream's number.
            before: The seq before which they are.
            limit: How many, so that the work is bounded.
            admin_only: Whether to leave out FEEDBACK.
        """

    def current_lineage(self, stream: int) -> Lineage:
        """Return the lineage of a stream now. It is this object's own, which reads new admin events alone.

        Raises:
            LogDamagedError: As for `read_admin_events`.
        """

    def read_payloads(self, stream: int, since: Position, limit: int) -> tuple[list[bytes | None], Position]:
        """Return the payloads after a position, in bulk for a long fold; None for those that were forgotten.

        Returns:
            The payloads, and the position of the last of their events: the chain from `since` up to there is checked.

        Raises:
            LogDamagedError: An event is missing or differs from what was written.
        """

    def read_admin_events(self, stream: int) -> list[Event]:
        """Return all events but FEEDBACK, by seq, each checked against the hash of the one before it.

        Raises:
            LogDamagedError: An event differs from what was written.
        """

    def last_admin_seq(self, stream: int) -> int:
        """Return the seq of the last event that is not FEEDBACK, unchecked, or 0 if there is none."""

    def find_ids(self, model: str, ids: Sequence[bytes]) -> dict[bytes, EventLocation]:
        """Return the locations of the events with these ids, each with the kind of event that has removed it.

        Ids that no event of the model has are left out.
        """

    def verify_chain(self, stream: int, since: Position, rows: int) -> Iterator[Position]:
        """Check the chain after a position that is known to be good.

        Yields:
            After each `rows` events, the position up to which the chain is checked; a later call may continue there.

        Raises:
            LogDamagedError: An event is missing or differs from what was written.
        """

    def purge_stream(self, stream: int) -> None:
        """Delete a stream with its events and ids; its number is not reused."""

    def finish_purges(self) -> None:
        """Delete what interrupted purges have left, in short transactions."""

    def check_file(self) -> None:
        """Check the files of the log as a whole, where the backend can; it takes a while.

        Raises:
            LogDamagedError: One is damaged.
        """

    def tidy(self) -> None:
        """Keep the log's files small; a learner calls it now and then."""

    def erase_forgotten(self) -> None:
        """Remove the payloads of forgotten events from the log's files, where deleting them has left copies.

        Raises:
            LogUnavailableError: Another process reads them for too long.
        """

    def write_copy(self, path: Path) -> None:
        """Write a complete copy of the log, as of one moment, to a file that does not exist."""

    def close(self) -> None:
        """Close the files; the object cannot be used afterwards."""


def read_event(log: FeedbackLog, stream: int, seq: int) -> Event | None:
    """Return one event of a stream, or None if the stream has no event with this seq."""
    events = log.read_events(stream, seq - 1, 1) if seq > 0 else []
    return events[0] if events else None


def read_position(log: FeedbackLog, stream: Stream, seq: int) -> Position | None:
    """Return the position of a seq in the stream's chain, or None if there is no such event."""
    if seq == 0:
        return Position(0, stream.genesis)
    event = read_event(log, stream.number, seq)
    return None if event is None else Position(seq, event.hash)


def read_verified_payload(log: FeedbackLog, stream: Stream, seq: int) -> bytes | None:
    """Return the payload of an event whose hash follows from that of the event before it; None if it was forgotten.

    Raises:
        LogDamagedError: The event is missing or altered.
    """
    since = read_position(log, stream, seq - 1)
    payloads = [] if since is None else log.read_payloads(stream.number, since, 1)[0]
    if not payloads:
        raise LogDamagedError(f"event {seq} of the feedback log is missing")
    return payloads[0]


def read_lineage(log: FeedbackLog, stream: int) -> Lineage:
    """Return a stream's lineage according to all its admin events."""
    return Lineage(map(lineage_change, log.read_admin_events(stream)))

"""The complete audit of a log, for the command line: everything derived is derived again and compared."""

from collections.abc import Iterator, Sequence

from service.errors import LogDamagedError
from service.store.log.events import Event, Kind, Position, Stream
from service.store.log.feedback_log import FeedbackLog, read_lineage
from service.store.log.lineage import Lineage, lineage_change


def audit_log(log: FeedbackLog, rows: int) -> Iterator[tuple[Stream, Position]]:
    """Check each stream's chain, the index of ids, and the effects of admin events on the stream.

    Args:
        log: Any log; others may write to it meanwhile.
        rows: Events between two yields.

    Yields:
        The stream, and how far it is checked.

    Raises:
        LogDamagedError: Something differs from what was written.
    """
    for stream in log.list_streams():
        for position in audit_stream(log, stream, rows):
            yield stream, position


def audit_stream(log: FeedbackLog, stream: Stream, rows: int) -> Iterator[Position]:
    """Check one stream as `audit_log` does, and yield how far it is checked."""
    _check_state(log, stream)
    forgotten = _read_forgotten(log, stream)
    since = 0
    for position in log.verify_chain(stream.number, Position(0, stream.genesis), rows):
        events = log.read_events(stream.number, since, position.seq - since)
        _check_ids(log, stream, events)
        forgotten = _check_forgotten(log, stream, events, forgotten)
        since = position.seq
        yield position


def _check_forgotten(log: FeedbackLog, stream: Stream, events: Sequence[Event], known: set[int]) -> set[int]:
    """Check that exactly the forgotten events have no rows; return the seqs that are forgotten by now."""
    if any(event.seq in known and event.payload is not None for event in events):
        raise LogDamagedError("an event that was forgotten still has its rows; restore a backup")
    without_rows = {event.seq for event in events if event.payload is None}
    if not without_rows <= known:
        # They may have been forgotten since the audit began.
        known = _read_forgotten(log, stream)
        if not without_rows <= known:
            raise LogDamagedError("an event has lost its rows though nothing forgot it; restore a backup")
    return known


def _read_forgotten(log: FeedbackLog, stream: Stream) -> set[int]:
    lineage = read_lineage(log, stream.number)
    return lineage.forgotten | lineage.forgotten_bases | lineage.forgotten_corrections


def _check_ids(log: FeedbackLog, stream: Stream, events: Sequence[Event]) -> None:
    locations = log.find_ids(stream.model, [event.id for event in events])
    for event in events:
        location = locations.get(event.id)
        if location is None or (location.stream, location.seq) != (stream.number, event.seq):
            raise LogDamagedError(f"event {event.seq} of the feedback log is not found by its id; restore a backup")


def _check_state(log: FeedbackLog, stream: Stream) -> None:
    state = log.stream_state(stream.number)
    admin_events = log.read_admin_events(stream.number)
    changes = [lineage_change(event) for event in admin_events if event.seq <= state.seq]
    lineage = Lineage(changes)
    epoch = sum(change.kind == Kind.FORGET for change in changes)
    n_classes = lineage.n_classes(state.seq, stream.n_classes)
    class_changes = [
        change.seq for change in changes if lineage.class_set(change.seq) != lineage.class_set(change.seq - 1)
    ]
    if (max(class_changes, default=0), n_classes, epoch) != (state.class_epoch, state.n_classes, state.epoch):
        raise LogDamagedError("the state of a stream contradicts its admin events; restore a backup")

"""The whole truth of a log, for the command line: everything that is derived is derived again."""

from collections.abc import Iterator, Sequence

from service.errors import LogDamagedError
from service.store.log.events import Event, Kind, Position, Stream
from service.store.log.feedback_log import FeedbackLog, read_lineage
from service.store.log.lineage import Lineage, lineage_change


def audit_log(log: FeedbackLog, rows: int) -> Iterator[tuple[Stream, Position]]:
    """Checks each stream's chain, that each event is found by its id, and what admin events made of the stream.

    Args:
        log: Any log; nobody need be kept from writing to it.
        rows: Events between two yields.

    Yields:
        The stream, and how far it is checked.

    Raises:
        LogDamagedError: Something is not what was written.
    """
    for stream in log.list_streams():
        for position in audit_stream(log, stream, rows):
            yield stream, position


def audit_stream(log: FeedbackLog, stream: Stream, rows: int) -> Iterator[Position]:
    """The same of one stream; yields how far it is checked."""
    _check_state(log, stream)
    forgotten = _forgotten(log, stream)
    since = 0
    for position in log.verify_chain(stream.number, Position(0, stream.genesis), rows):
        events = log.read_events(stream.number, since, position.seq - since)
        _check_ids(log, stream, events)
        forgotten = _check_forgotten(log, stream, events, forgotten)
        since = position.seq
        yield position


def _check_forgotten(log: FeedbackLog, stream: Stream, events: Sequence[Event], known: set[int]) -> set[int]:
    """Checks that events have rows unless they were forgotten, and none then; returns what is forgotten by now."""
    if any(event.seq in known and event.payload is not None for event in events):
        raise LogDamagedError("an event that was forgotten still has its rows; restore a backup")
    gone = {event.seq for event in events if event.payload is None}
    if not gone <= known:
        # They may have been forgotten since the audit began.
        known = _forgotten(log, stream)
        if not gone <= known:
            raise LogDamagedError("an event has lost its rows though nothing forgot it; restore a backup")
    return known


def _forgotten(log: FeedbackLog, stream: Stream) -> set[int]:
    lineage = read_lineage(log, stream.number)
    return lineage.forgotten | lineage.forgotten_bases


def _check_ids(log: FeedbackLog, stream: Stream, events: Sequence[Event]) -> None:
    places = log.find_ids(stream.model, [event.id for event in events])
    for event in events:
        place = places.get(event.id)
        if place is None or (place.stream, place.seq) != (stream.number, event.seq):
            raise LogDamagedError(f"event {event.seq} of the feedback log is not found by its id; restore a backup")


def _check_state(log: FeedbackLog, stream: Stream) -> None:
    state = log.stream_state(stream.number)
    turns = [lineage_change(event) for event in log.read_admin_events(stream.number) if event.seq <= state.seq]
    lineage = Lineage(turns)
    epoch = sum(turn.kind == Kind.FORGET for turn in turns)
    n_classes = lineage.n_classes(state.seq, stream.n_classes)
    moves = (turn.seq for turn in turns if lineage.class_set(turn.seq) != lineage.class_set(turn.seq - 1))
    if (max(moves, default=0), n_classes, epoch) != (state.class_epoch, state.n_classes, state.epoch):
        raise LogDamagedError("a stream of the feedback log does not stand where its events led; restore a backup")

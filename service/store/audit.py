"""The whole truth of a log, for the command line: everything that is derived is derived again."""

from collections.abc import Iterator

from service.errors import LogDamagedError
from service.store.feedback import FeedbackLog, Kind, Position, Stream
from service.store.lineage import Lineage, turn_of


def audit(log: FeedbackLog, rows: int) -> Iterator[tuple[Stream, Position]]:
    """Checks each stream's chain, that each event is found by its id, and what admin events made of the stream.

    Args:
        log: Any log; nobody need be kept from writing to it.
        rows: Events between two yields.

    Yields:
        The stream, and how far it is checked.

    Raises:
        LogDamagedError: Something is not what was written.
    """
    for stream in log.streams():
        _check_state(log, stream)
        since = 0
        for position in log.verify(stream.number, Position(0, stream.genesis), rows):
            _check_ids(log, stream, since, position.seq)
            since = position.seq
            yield stream, position


def _check_ids(log: FeedbackLog, stream: Stream, after: int, seq: int) -> None:
    events = log.read(stream.number, after, seq - after)
    places = log.find(stream.model, [event.id for event in events])
    for event in events:
        place = places.get(event.id)
        if place is None or (place.stream, place.seq) != (stream.number, event.seq):
            raise LogDamagedError(f"event {event.seq} of the feedback log is not found by its id; restore a backup")


def _check_state(log: FeedbackLog, stream: Stream) -> None:
    state = log.state(stream.number)
    turns = [turn_of(event) for event in log.admin(stream.number) if event.seq <= state.seq]
    lineage = Lineage(turns)
    epoch = sum(turn.kind == Kind.FORGET for turn in turns)
    n_classes = lineage.n_classes(state.seq, stream.n_classes)
    moves = (turn.seq for turn in turns if lineage.class_set(turn.seq) != lineage.class_set(turn.seq - 1))
    if (max(moves, default=0), n_classes, epoch) != (state.class_epoch, state.n_classes, state.epoch):
        raise LogDamagedError("a stream of the feedback log does not stand where its events led; restore a backup")

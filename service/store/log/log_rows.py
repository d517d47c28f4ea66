"""The rows of the log in memory: stored events, and the heads of streams while a batch is admitted."""

from collections.abc import MutableMapping
from dataclasses import dataclass

from service.store.log.events import SEQ_BITS, SEQ_MAX, EventLocation, Stream, StreamState
from service.store.log.lineage import Lineage

# An event as backends write it: position (stream << 40 | seq), kind, id, time_ms, payload, hash, seal. The payload is
# None if it was forgotten; the seal is the salt until then, and the digest afterwards. A bare tuple: one is made for
# every event, and a named one costs more than the statement that writes it.
Row = tuple[int, int, bytes, int, bytes | None, bytes, bytes]
Name = tuple[str, bytes]  # of a model, and the id of one of its events
RowsByName = MutableMapping[Name, Row]


@dataclass(slots=True)
class StreamHead:
    """The state of a stream while a batch is admitted; the batch changes it.

    Attributes:
        stream: The stream.
        seq: Its last seq.
        hash: That event's hash, or the genesis.
        class_epoch: As in StreamState.
        n_classes: As in StreamState.
        epoch: As in StreamState.
        lineage: Its lineage, read when an admin event first needs it.
    """

    stream: Stream
    seq: int
    hash: bytes
    class_epoch: int
    n_classes: int
    epoch: int
    lineage: Lineage | None = None

    def state(self) -> StreamState:
        """Return the same as an immutable record."""
        return StreamState(self.seq, self.hash, self.class_epoch, self.n_classes, self.epoch)


def duplicate_of(row: Row) -> EventLocation:
    """Return the location of a stored event, as the outcome of a retry."""
    position, is_forgotten = row[0], row[4] is None
    return EventLocation(position >> SEQ_BITS, position & SEQ_MAX, duplicate=True, forgotten=is_forgotten)

"""The rows of the log in memory: stored events, and the heads of streams while a batch is admitted."""

from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass

from service.store.log.events import SEQ_BITS, SEQ_MAX, EventLocation, Stream, StreamState
from service.store.log.lineage import Lineage, LineageChange
from service.store.log.removals import removed_by

# An event as backends write it: position (stream << 40 | seq), kind, id, time_ms, payload, hash, actor, seal. The
# payload is None if it was forgotten; the seal is the salt until then, and the digest afterwards. A bare tuple: one is
# made for every event, and a named one costs more than the statement that writes it.
Row = tuple[int, int, bytes, int, bytes | None, bytes, bytes, bytes]
Name = tuple[str, bytes]  # of a model, and the id of one of its events
RowsByName = MutableMapping[Name, Row]
# Reads the effects of a stream's admin events after a seq.
ReadChanges = Callable[[int, int], Iterable[LineageChange]]


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
        lineage: Its lineage, read when an admin event or a duplicate first needs it.
        lineage_seq: The seq up to which the lineage has all admin events.
    """

    stream: Stream
    seq: int
    hash: bytes
    class_epoch: int
    n_classes: int
    epoch: int
    lineage: Lineage | None = None
    lineage_seq: int = 0

    def state(self) -> StreamState:
        """Return the same as an immutable record."""
        return StreamState(self.seq, self.hash, self.class_epoch, self.n_classes, self.epoch)

    def read_lineage(self, read_changes: ReadChanges) -> Lineage:
        """Return the lineage with all admin events up to `seq`; those that it has already are not read again."""
        if self.lineage is None:
            self.lineage = Lineage()
        if self.lineage_seq < self.seq:
            for change in read_changes(self.stream.number, self.lineage_seq):
                self.lineage.add(change)
            self.lineage_seq = self.seq
        return self.lineage


def duplicate_of(row: Row, head: StreamHead, read_changes: ReadChanges) -> EventLocation:
    """Return the location of a stored event of a stream, as the outcome of a retry."""
    position, kind, payload = row[0], row[1], row[4]
    seq = position & SEQ_MAX
    removal = removed_by(head.read_lineage(read_changes), head.seq, seq, kind, is_erased=payload is None)
    return EventLocation(position >> SEQ_BITS, seq, duplicate=True, removed_by=removal)

"""Describe where in its stream a state is, as checkpoints and snapshots store it.

stream        the stream's number
genesis       the stream's genesis, in hex
hash          the hash of the last event that the state covers, in hex
epoch         the number of FORGET events up to that event
class_epoch   the seq of the last event up to it that changed the class set; 0 if none did
turns         the number of admin events that were known
heeded        the seq and the hash, in hex, of the last admin event that the state may heed; absent if it is not later
              than the event that the state covers

A state belongs to a log that has the hash at both seqs (store/states/state_positions.py).
"""

from typing import Any, Final

from service.store.log.events import Kind, Position, Stream
from service.store.log.lineage import Lineage

CLASS_CHANGES: Final = (Kind.CLASSES, Kind.ROLLBACK)


class StreamPosition:
    """Fields that describe positions of one stream.

    Args:
        stream: The stream.
        lineage: Its lineage, which may grow.
    """

    def __init__(self, stream: Stream, lineage: Lineage) -> None:
        self._stream: Final = stream
        self._lineage: Final = lineage
        self._class_changes: list[int] = []
        self._known = 0  # changes of the lineage that were looked at

    def epoch(self, seq: int) -> int:
        """Return the number of FORGET events up to a seq."""
        return self._lineage.epoch(seq)

    def fields(self, position: Position, heeded: Position) -> dict[str, Any]:
        """Return the fields of a state that covers the events up to a position.

        Args:
            position: The position.
            heeded: The position of the last admin event that was known.
        """
        self._find_class_changes()
        is_ahead = heeded.seq > position.seq
        return {
            "stream": self._stream.number,
            "genesis": self._stream.genesis.hex(),
            "hash": position.hash.hex(),
            "epoch": self.epoch(position.seq),
            "class_epoch": max((seq for seq in self._class_changes if seq <= position.seq), default=0),
            "turns": len(self._lineage.changes),
            **({"heeded": [heeded.seq, heeded.hash.hex()]} if is_ahead else {}),
        }

    def _find_class_changes(self) -> None:
        """Look at the changes that are new: comparing class sets takes longer the more of them there are."""
        lineage = self._lineage
        for change in lineage.changes[self._known :]:
            if change.kind in CLASS_CHANGES and lineage.class_set(change.seq) != lineage.class_set(change.seq - 1):
                self._class_changes.append(change.seq)
        self._known = len(lineage.changes)

"""Find the checkpoint that a fold continues from."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from service.errors import ArtifactError, SnapshotError
from service.learn.event_fold import EventFold
from service.learn.stream_history import History
from service.learn.timeline import runs_between, timeline_corrections
from service.store.artifact.artifact import Artifact
from service.store.log.events import Stream
from service.store.log.feedback_log import FeedbackLog
from service.store.log.lineage import Lineage, segments_contain
from service.store.states.snapshots import read_snapshot
from service.store.states.state_folder import list_seqs
from service.store.states.state_positions import contains_position, dependencies


class StoredFold(NamedTuple):
    """The content of a checkpoint.

    Attributes:
        seq: The seq of its state.
        fold: The state.
        history: Its history, or None if an earlier release wrote it.
    """

    seq: int
    fold: EventFold
    history: History | None


class StoredFolds:
    """The checkpoints of one stream.

    Args:
        stream: The stream.
        artifact: The artifact that it is bound to.
        log: The log that holds its events.
        lineage: Its lineage, which may grow.
        folder: The folder of its checkpoints.
    """

    def __init__(self, stream: Stream, artifact: Artifact, log: FeedbackLog, lineage: Lineage, folder: Path) -> None:
        self._stream = stream
        self._log = log
        self._artifact = artifact
        self._lineage = lineage
        self._folder = folder

    def find(self, first: EventFold, seq: int, corrections: Mapping[int, int] | None = None) -> StoredFold | None:
        """Return the newest checkpoint that state(seq) continues from.

        Args:
            first: What state(seq) would be folded from without checkpoints. A checkpoint of another base is never
                used: it has another fold version, or contains a removed event.
            seq: The seq.
            corrections: The corrections of the timeline up to seq, if the history must continue too.
        """
        for stored in reversed(list_seqs(self._folder)):
            if stored <= seq and self._leads_to(stored, seq, corrections):
                found = self._read(first, stored, with_history=corrections is not None)
                if found is not None:
                    return found
        return None

    def _leads_to(self, stored: int, seq: int, corrections: Mapping[int, int] | None) -> bool:
        lineage = self._lineage
        if not lineage.continues(seq, stored):
            return False
        if corrections is None:
            return True
        known = {event: correct for event, correct in corrections.items() if event <= stored}
        return runs_between(lineage, stored, seq) is not None and known == timeline_corrections(lineage, stored)

    def _read(self, first: EventFold, seq: int, *, with_history: bool) -> StoredFold | None:
        """Read a checkpoint; return None if it cannot be used, or contains an event that was removed or lost since."""
        contained = ((0, seq),) if with_history else self._lineage.segments(seq)
        try:
            snapshot = read_snapshot(self._folder / str(seq))
            fields = snapshot.fields
            later = [change for change in self._lineage.changes[fields["turns"] :] if change.excluded]
            if fields["genesis"] != self._stream.genesis.hex() or any(
                segments_contain(contained, removed) for change in later for removed in change.excluded
            ):
                return None
            if not all(contains_position(self._log, self._stream, one) for one in dependencies(seq, fields)):
                return None
            fold, history = EventFold.from_checkpoint(first.artifact, snapshot), None
            if with_history and "history" in fields:
                history = History.from_checkpoint(self._artifact, fields["history"], snapshot.arrays)
        except (SnapshotError, ArtifactError, KeyError, TypeError, ValueError):
            return None
        return StoredFold(seq, fold, history)

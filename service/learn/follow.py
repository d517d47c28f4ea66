"""Follow one stream: which events to fold next, and how to get back to a state when the lineage changes.

    following   fold the events after `seq` as they are committed
    refolding   at a start, after a rollback, and when folded events were forgotten, skipped or corrected: make
                state(seq) again from the newest checkpoint on the way to it, and only then look at the events after seq

store/log/lineage.py decides which events a state is made of, event_fold.py what they do. Nothing here reads a clock. A
checkpoint may be written at any event, because it holds all that the fold needs to continue.
"""

from bisect import bisect_right
from collections import deque
from itertools import takewhile
from operator import itemgetter
from typing import Any, Final

from service.errors import ArtifactError, LogDamagedError, SnapshotError
from service.learn.event_fold import EventFold, RowLosses
from service.learn.fold_upgrade import first_fold
from service.learn.stream_position import StreamPosition
from service.store.artifact.artifact import Artifact
from service.store.directory.data_directory import StreamFolder
from service.store.log.correction_payload import correct_payload
from service.store.log.events import Event, Kind, Position, Stream
from service.store.log.feedback_log import FeedbackLog, read_lineage, read_position, read_verified_payload
from service.store.log.lineage import Lineage, lineage_change, segments_after, segments_contain
from service.store.states.snapshots import read_snapshot, write_snapshot
from service.store.states.state_folder import list_seqs

KIND_OF: Final = itemgetter(Event._fields.index("kind"))
# Events that may change what was folded before.
REVISIONS: Final = frozenset((Kind.CORRECT, Kind.FORGET, Kind.ROLLBACK, Kind.SKIP))
# Events whose state the fold may move to, past one that cannot be folded.
DETOURS: Final = frozenset((Kind.CORRECT, Kind.ROLLBACK))


class Follower:
    """The fold of one stream, which follows its log.

    Args:
        stream: The stream.
        artifact: The artifact that the stream is bound to.
        log: The log that holds its events.
        folder: The folder of its checkpoints and snapshots.

    Attributes:
        fold: The state; while refolding, a state on the way to `seq`.
        seq: The last event that is folded; while refolding, the target.
        hash: The hash of that event.
    """

    def __init__(self, stream: Stream, artifact: Artifact, log: FeedbackLog, folder: StreamFolder) -> None:
        self.stream: Final = stream
        self.folder: Final = folder
        self._artifact: Final = artifact
        self._log: Final = log
        self.lineage: Final = read_lineage(log, stream.number)
        self._positions: Final = StreamPosition(stream, self.lineage)
        self._bypassed: set[int] = set()  # removed by an event that is not folded yet
        self._segments: deque[tuple[int, int]] = deque()  # still to refold
        self._corrections: dict[int, int] = {}  # of the refolding: corrected events, each with the seq of its CORRECT
        self._corrected_seqs: list[int] = []
        self._refold_events = 0  # of the whole refolding
        self.fold: EventFold = first_fold(stream, artifact, log, self.lineage, None)
        self.seq, self.hash = self._last_position()
        self._scored_seq = self.seq  # the losses of rows up to here were returned
        self._start_refolding()

    @property
    def is_refolding(self) -> bool:
        """Whether the fold is on its way to `seq`."""
        return bool(self._segments)

    @property
    def refold_progress(self) -> float:
        """The share of the refolding that is done, from 0 to 1."""
        left = sum(hi - lo for lo, hi in self._segments)
        return 1 - left / self._refold_events if self._refold_events else 1.0

    @property
    def read_after(self) -> int:
        """The seq after which the next event is read."""
        return self._segments[0][0] if self._segments else self.seq

    @property
    def excluded(self) -> set[int]:
        """The seqs that no state contains."""
        return self.lineage.forgotten | self.lineage.skipped | self._bypassed

    @property
    def epoch(self) -> int:
        """The number of FORGET events up to `seq`."""
        return self._positions.epoch(self.seq)

    @property
    def position(self) -> Position:
        """The position of the last event that is folded."""
        return Position(self.seq, self.hash)

    def position_fields(self) -> dict[str, Any]:
        """Return the fields that describe the position in checkpoints and snapshots."""
        return self._positions.fields(self.position)

    def cause_of(self, seq: int) -> int:
        """Return the event whose fault it is if an event cannot be folded: the CORRECT that its labels are from."""
        return self._corrections.get(seq, seq) if self._segments else seq

    def read_next(self, limit: int) -> list[Event]:
        """Read the next events for `fold_batch`, at most `limit`; while refolding, a corrected event is read alone.

        Raises:
            LogDamagedError: An event that was folded before is missing or altered. A start checks the chain only after
                the newest checkpoint, and a refolding may begin long before it.
        """
        if not self._segments:
            return self._log.read_events(self.stream.number, self.seq, limit)
        lo, hi = self._segments[0]
        at = bisect_right(self._corrected_seqs, lo)
        stop = self._corrected_seqs[at] if at < len(self._corrected_seqs) else hi + 1
        events = self._log.read_events(self.stream.number, lo, max(1, min(limit, hi - lo, stop - lo - 1)))
        since = read_position(self._log, self.stream, lo)
        if not events or since is None:
            raise LogDamagedError(f"event {lo + 1} of the feedback log is missing")
        for position in self._log.verify_chain(self.stream.number, since, len(events)):
            if position.hash != events[-1].hash:
                raise LogDamagedError(f"two reads of event {position.seq} of the feedback log differ")
            break
        return events

    def fold_batch(self, events: list[Event]) -> list[RowLosses]:
        """Fold events that `read_next` returned; stop early after an event that may change what others have done.

        Returns:
            The losses of rows that were folded for the first time.
        """
        if self._segments:
            return self._refold(events)
        kinds = set(map(KIND_OF, events))
        if kinds == {Kind.FEEDBACK}:
            return self._fold_run(events)
        if events[0].kind == Kind.CORRECT:
            self._apply_correction(events[0])
            return []
        if events[0].kind in REVISIONS:
            self._apply_removal(events[0])
            return []
        run = list(takewhile(lambda event: event.kind not in REVISIONS, events))
        self._add_changes(run)
        return self._fold_run(run)

    def _fold_run(self, events: list[Event]) -> list[RowLosses]:
        losses = self.fold.fold_events(self._included(events))
        self.seq, self.hash = events[-1].seq, events[-1].hash
        self._scored_seq = self.seq
        return losses

    def _included(self, events: list[Event]) -> list[Event]:
        excluded = self.excluded
        return [event for event in events if event.seq not in excluded] if excluded else events

    def bypass(self, seq: int) -> bool:
        """Look in the later events for a way around an event that cannot be folded.

        If a later event removes it, it is left out from now on. If a rollback or a correction leads to a state without
        it, or with other labels of it, the fold moves to the last one that does.

        Returns:
            Whether there is a way; if so, call `read_next` again.
        """
        admin = self._log.read_admin_events(self.stream.number)
        lineage = Lineage(map(lineage_change, admin))
        if seq in lineage.forgotten | lineage.skipped:
            self._bypassed.add(seq)
            return True
        for event in reversed(admin):
            if event.seq <= max(self.seq, seq):
                break
            labels = lineage.corrections(event.seq).get(seq) if lineage.contains(event.seq, seq) else -1
            if event.kind in DETOURS and labels != self._corrections.get(seq):
                self._add_changes(admin)
                self.seq, self.hash = event.seq, event.hash
                self._start_refolding()
                return True
        return False

    def _add_changes(self, events: list[Event]) -> bool:
        """Add the admin events to the lineage; return whether any was new."""
        known = self.lineage.changes[-1].seq if self.lineage.changes else 0
        new = [event for event in events if event.kind != Kind.FEEDBACK and event.seq > known]
        for event in new:
            self.lineage.add(lineage_change(event))
        return bool(new)

    def _apply_removal(self, event: Event) -> None:
        """Move past an event that may remove others; refold if the state contains what it removes."""
        folded = self.lineage.segments(self.seq)
        # An event that the lineage knew already was heeded when the removed events were folded.
        is_new = self._add_changes([event])
        is_removed = is_new and any(segments_contain(folded, seq) for seq in lineage_change(event).excluded)
        self.seq, self.hash = event.seq, event.hash
        if is_removed or event.kind == Kind.ROLLBACK:
            self._start_refolding()

    def _apply_correction(self, event: Event) -> None:
        """Move past a CORRECT; if the state contains its event, refold to the last CORRECT that the log has now.

        So one refolding applies all corrections that wait.
        """
        self._add_changes([event])
        is_corrected = not self.lineage.continues(event.seq, self.seq)
        if is_corrected:
            admin = self._log.read_admin_events(self.stream.number)
            self._add_changes(admin)
            event = [one for one in admin if one.kind == Kind.CORRECT][-1]
        self.seq, self.hash = event.seq, event.hash
        if is_corrected:
            self._start_refolding()

    # Refolding

    def _last_position(self) -> Position:
        """Return how far the learner before this one came, as its files say; later events are folded as usual."""
        last = self._log.stream_state(self.stream.number).seq
        # Not before the newest base: earlier states belong to another fold and cannot be published again.
        known = [self.lineage.newest_base_seq, *list_seqs(self.folder.checkpoints), *list_seqs(self.folder.snapshots)]
        seq = max(seq for seq in known if seq <= last)
        return read_position(self._log, self.stream, seq) or Position(0, self.stream.genesis)

    def _start_refolding(self) -> None:
        """Go back to the newest checkpoint on the way to state(seq), and note the events from there on."""
        base = self.lineage.base_of_state(self.seq)
        self.fold = first_fold(self.stream, self._artifact, self._log, self.lineage, base)
        start = 0 if base is None else base.target
        for seq in reversed(list_seqs(self.folder.checkpoints)):
            fold = self._read_checkpoint(seq) if seq <= self.seq else None
            if fold is not None:
                self.fold, start = fold, seq
                break
        self._segments = deque(segments_after(self.lineage.segments(self.seq), start))
        self._corrections = self.lineage.corrections(self.seq)
        self._corrected_seqs = sorted(self._corrections)
        self._refold_events = sum(hi - lo for lo, hi in self._segments)

    def _read_checkpoint(self, seq: int) -> EventFold | None:
        """Return the fold of a checkpoint, or None if it is not on the way to `self.seq` or contains a removed event.

        A checkpoint of another base than `self.fold` started from is never returned: it has another fold version, or
        contains a removed event.
        """
        if not self.lineage.continues(self.seq, seq):
            return None
        folded = self.lineage.segments(seq)
        try:
            snapshot = read_snapshot(self.folder.checkpoints / str(seq))
            fields = snapshot.fields
            if fields["genesis"] != self.stream.genesis.hex():
                return None
            later = [change for change in self.lineage.changes[fields["turns"] :] if change.excluded]
            if any(segments_contain(folded, removed) for change in later for removed in change.excluded):
                return None
            return EventFold.from_checkpoint(self.fold.artifact, snapshot)
        except (SnapshotError, ArtifactError, KeyError):
            return None

    def _refold(self, events: list[Event]) -> list[RowLosses]:
        """Fold events again, and some for the first time if the refolding leads beyond what was folded."""
        losses = self.fold.fold_events(map(self._corrected, self._included(events)))
        last, scored = events[-1].seq, self._scored_seq
        _, hi = self._segments.popleft()
        if last < hi:
            self._segments.appendleft((last, hi))
        self._scored_seq = max(scored, last)
        return [RowLosses(rows.seqs[new], rows.losses[new]) for rows in losses if (new := rows.seqs > scored).any()]

    def _corrected(self, event: Event) -> Event:
        """Return an event with the labels that it has in the state."""
        seq = self._corrections.get(event.seq)
        if seq is None or event.payload is None:
            return event
        # Without a payload the CORRECT was forgotten just now, and with it the event.
        correction = read_verified_payload(self._log, self.stream, seq)
        return event._replace(payload=None if correction is None else correct_payload(event.payload, correction))

    def write_checkpoint(self) -> None:
        """Write the state to the folder of checkpoints, synced to disk; not while refolding.

        Raises:
            OSError: The disk failed.
        """
        fields, arrays = self.fold.checkpoint_contents()
        fields |= self.position_fields()
        write_snapshot(self.folder.checkpoints, self.seq, fields, arrays, durable=True)

"""Follow one stream: which events to fold next, and how to get back to a state when the lineage changes.

    following   fold the events after `seq` as they are committed
    refolding   at a start, after a rollback, and when folded events were forgotten, skipped or corrected: make
                state(seq) again from the newest checkpoint on the way to it, and only then look at the events after seq

The history (stream_history.py) goes on through a rollback. Otherwise a refolding makes it again, along the timeline of
the stream (timeline.py). After an event that cannot be folded, and that a later event leads around, it starts again.

store/log/lineage.py decides which events a state is made of, event_fold.py what they do. Nothing here reads a clock. A
checkpoint may be written at any event, because it holds all that the fold needs to continue.
"""

from itertools import takewhile
from operator import itemgetter
from typing import Any, Final

from service.learn.event_fold import EventFold, RowLosses
from service.learn.fold_upgrade import first_fold, refuse_later_fold
from service.learn.followed_chain import FollowedChain
from service.learn.refolding import Refolding
from service.learn.stored_folds import StoredFolds
from service.learn.stream_history import History
from service.learn.stream_position import StreamPosition
from service.learn.timeline import Run, cut_runs, runs_between, timeline_corrections
from service.store.artifact.artifact import Artifact
from service.store.directory.data_directory import StreamFolder
from service.store.log.correction_payload import correct_payload
from service.store.log.events import Event, Kind, Position, Stream
from service.store.log.feedback_log import FeedbackLog, read_position, read_verified_payload
from service.store.log.lineage import Lineage, LineageChange, lineage_change, segments_after
from service.store.states.snapshots import write_snapshot
from service.store.states.state_folder import list_seqs

KIND_OF: Final = itemgetter(Event._fields.index("kind"))
# Events that may change what was folded before.
REVISIONS: Final = frozenset((Kind.CORRECT, Kind.FORGET, Kind.ROLLBACK, Kind.SKIP))
# Events that are not folded with those before them. A release that cannot fold what follows a BASE stops there.
BOUNDARIES: Final = REVISIONS | {Kind.BASE}
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
        artifact: As given.
        fold: The state; while refolding, a state on the way to `seq`.
        seq: The last event that is folded; while refolding, the target.
        hash: The hash of that event.
        history: How the rows were answered.
    """

    def __init__(self, stream: Stream, artifact: Artifact, log: FeedbackLog, folder: StreamFolder) -> None:
        self.stream: Final = stream
        self.folder: Final = folder
        self.artifact: Final = artifact
        self._log: Final = log
        self._chain: Final = FollowedChain(stream, log)
        self.lineage: Final = Lineage(map(lineage_change, self._chain.read_admin()))
        self._positions: Final = StreamPosition(stream, self.lineage)
        self._bypassed: set[int] = set()  # removed by an event that is not folded yet
        self._stored: Final = StoredFolds(stream, artifact, log, self.lineage, folder.checkpoints)
        self._refolding: Refolding | None = None
        self.fold: EventFold = first_fold(stream, artifact, log, self.lineage, None)
        self.seq, self.hash = self._last_position()
        self._scored_seq = self.seq  # the losses of rows up to here were returned
        self.history = History(artifact, 0)
        self._chain.check(self.heeded)  # the position was read after the lineage
        self._refold_timeline()

    @property
    def is_refolding(self) -> bool:
        """Whether the fold is on its way to `seq`."""
        return self._refolding is not None

    @property
    def refold_progress(self) -> float:
        """The share of the refolding that is done, from 0 to 1."""
        return 1.0 if self._refolding is None else self._refolding.progress

    @property
    def read_after(self) -> int:
        """The seq after which the next event is read."""
        return self.seq if self._refolding is None else self._refolding.run.lo

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

    @property
    def heeded(self) -> Position:
        """The position of the last admin event that the state may heed."""
        return self._chain.heeded

    def position_fields(self) -> dict[str, Any]:
        """Return the fields that describe the position in checkpoints and snapshots."""
        return self._positions.fields(self.position, self.heeded)

    def cause_of(self, seq: int) -> int:
        """Return the event whose fault it is if an event cannot be folded: the CORRECT that its labels are from."""
        return seq if self._refolding is None else self._refolding.corrections.get(seq, seq)

    def read_next(self, limit: int) -> list[Event]:
        """Read the next events for `fold_batch`, at most `limit`; while refolding, a corrected event is read alone.

        Raises:
            LogDamagedError: As for `FollowedChain`. After LogEndsEarlierError this may be called again; after
                LogForkedError make a new follower.
        """
        if self._refolding is None:
            return self._chain.read_after(self.position, limit)
        return self._chain.read_again(self._refolding.run.lo, self._refolding.events_to_read(limit), self.position)

    def fold_batch(self, events: list[Event]) -> list[RowLosses]:
        """Fold events that `read_next` returned; stop early after an event that may change what others have done.

        Returns:
            The losses of rows that were folded for the first time.
        """
        if self._refolding is not None:
            return self._refold(self._refolding, events)
        if set(map(KIND_OF, events)) == {Kind.FEEDBACK}:
            return self._fold_run(events)
        if events[0].kind == Kind.CORRECT:
            self._apply_correction(events[0])
            return []
        if events[0].kind in REVISIONS:
            self._apply_removal(events[0])
            return []
        run = [events[0], *takewhile(lambda event: event.kind not in BOUNDARIES, events[1:])]
        self._add_changes(run)
        return self._fold_run(run)

    def _fold_run(self, events: list[Event]) -> list[RowLosses]:
        self.fold.history = self.history
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
        admin = self._chain.read_admin(self.position)
        lineage = Lineage(map(lineage_change, admin))
        if seq in lineage.forgotten | lineage.skipped:
            self._bypassed.add(seq)
            return True
        for event in reversed(admin):
            if event.seq <= max(self.seq, seq):
                break
            labels = lineage.corrections(event.seq).get(seq) if lineage.contains(event.seq, seq) else -1
            if event.kind in DETOURS and labels != self._corrected_by(seq):
                self._add_changes(admin)
                self.seq, self.hash = event.seq, event.hash
                self.history = History(self.artifact, event.seq)
                self._refold_lineage()
                return True
        return False

    def _add_changes(self, events: list[Event]) -> bool:
        """Add the admin events to the lineage; return whether any was new."""
        known = self.lineage.changes[-1].seq if self.lineage.changes else 0
        changes = [lineage_change(event) for event in events if event.kind != Kind.FEEDBACK and event.seq > known]
        refuse_later_fold(changes)
        for change in changes:
            self.lineage.add(change)
        return bool(changes)

    def _apply_removal(self, event: Event) -> None:
        """Move past an event that may remove others; refold if the state or the history contains what it removes."""
        # An event that the lineage knew already was heeded when the removed events were folded.
        is_new = self._add_changes([event])
        is_removed = is_new and any(seq <= self.seq for seq in lineage_change(event).excluded)
        relabels = timeline_corrections(self.lineage, self.seq) != timeline_corrections(self.lineage, event.seq)
        self.seq, self.hash = event.seq, event.hash
        if is_removed or relabels:
            self._refold_timeline()
        elif event.kind == Kind.ROLLBACK:
            self._refold_lineage()

    def _apply_correction(self, event: Event) -> None:
        """Move past a CORRECT; if the state contains its event, refold to the last CORRECT that the log has now.

        So one refolding applies all corrections that wait.
        """
        self._add_changes([event])
        is_corrected = not self.lineage.continues(event.seq, self.seq)
        if is_corrected:
            admin = self._chain.read_admin(Position(event.seq, event.hash))
            self._add_changes(admin)
            event = [one for one in admin if one.kind == Kind.CORRECT][-1]
        self.seq, self.hash = event.seq, event.hash
        if is_corrected:
            self._refold_timeline()

    # Refolding

    def _last_position(self) -> Position:
        """Return how far the learner before this one came, as its files say; later events are folded as usual."""
        last = self._log.stream_state(self.stream.number).seq
        # Not before the newest base: earlier states belong to another fold and cannot be published again.
        known = [self.lineage.newest_base_seq, *list_seqs(self.folder.checkpoints), *list_seqs(self.folder.snapshots)]
        seq = max((seq for seq in known if seq <= last), default=0)  # none if the log has lost the base since
        return read_position(self._log, self.stream, seq) or Position(0, self.stream.genesis)

    def _refold_lineage(self) -> None:
        """Go back to the newest checkpoint on the way to state(seq), and note the events of its lineage from there."""
        base, first = self._first_fold()
        found = self._stored.find(first, self.seq)
        start, fold = (0 if base is None else base.target, first) if found is None else (found.seq, found.fold)
        runs = [Run(lo, lo, hi) for lo, hi in segments_after(self.lineage.segments(self.seq), start)]
        self._start_refolding(Refolding(fold, runs, self.lineage.corrections(self.seq), None))

    def _refold_timeline(self) -> None:
        """Go back to the newest checkpoint whose history goes on, and note all events from there on."""
        base, first = self._first_fold()
        corrections = timeline_corrections(self.lineage, self.seq)
        found = self._stored.find(first, self.seq, corrections)
        start, fold = (0 if base is None else base.target, first) if found is None else (found.seq, found.fold)
        origin = self.lineage.newest_base_seq if found is None else found.seq
        runs = runs_between(self.lineage, start, self.seq)
        if runs is None:  # back to before the base that the fold starts from, and forward again
            self.history = History(self.artifact, self.seq)
            self._refold_lineage()
            return
        self.history = (found and found.history) or History(self.artifact, origin)
        self._start_refolding(Refolding(fold, cut_runs(runs, self.history.origin), corrections, self.history))

    def _first_fold(self) -> tuple[LineageChange | None, EventFold]:
        """Return the base that state(seq) is folded from, or None, and the fold that it starts with."""
        base = self.lineage.base_of_state(self.seq)
        return base, first_fold(self.stream, self.artifact, self._log, self.lineage, base)

    def _start_refolding(self, refolding: Refolding) -> None:
        self.fold = refolding.fold
        self._refolding = None if refolding.is_done else refolding

    def _refold(self, refolding: Refolding, events: list[Event]) -> list[RowLosses]:
        """Fold events again, and some for the first time if the refolding leads beyond what was folded."""
        last, scored = events[-1].seq, self._scored_seq
        corrected = map(self._corrected, self._included(events))
        losses = refolding.fold_batch(lambda fold: fold.fold_events(corrected), last)
        self._start_refolding(refolding)
        self._scored_seq = max(scored, last)
        return [rows.take(new) for rows in losses if (new := rows.seqs > scored).any()]

    def _corrected_by(self, seq: int) -> int | None:
        """Return the seq of the CORRECT whose labels an event has in the refolding, or None."""
        return None if self._refolding is None else self._refolding.corrections.get(seq)

    def _corrected(self, event: Event) -> Event:
        """Return an event with the labels that it has in the state."""
        seq = self._corrected_by(event.seq)
        if seq is None or event.payload is None:
            return event
        # Without a payload the CORRECT was forgotten just now, and with it the event.
        correction = read_verified_payload(self._log, self.stream, seq)
        if correction is None:
            self._chain.heed_forgets(self._log.read_events(self.stream.number, event.seq - 1, 1))
        return event._replace(payload=None if correction is None else correct_payload(event.payload, correction))

    def write_checkpoint(self) -> None:
        """Write the state and the history to the folder of checkpoints, synced to disk; not while refolding.

        Raises:
            OSError: The disk failed.
        """
        fields, arrays = self.fold.checkpoint_contents()
        fields |= self.position_fields() | {"history": self.history.fields(), "history_sha256": self.history.sha256()}
        write_snapshot(self.folder.checkpoints, self.seq, fields, arrays | self.history.tensors(), durable=True)

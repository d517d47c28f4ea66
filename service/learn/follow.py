"""Following one stream: where its fold stands, what is to be folded next, and the way back when the lineage turns.

    following   events behind `seq` are folded as they come
    refolding   at a start, after a rollback, and after folded events were forgotten or skipped: state(seq) is made
                from the newest checkpoint that is on its way, and only then events behind it are looked at

The fold does not read the clock, and nothing here decides what a state is: store/log/lineage.py says which events it is
made of, fold.py what they do. A checkpoint may be taken at any event, for it holds all that the fold goes on from.
"""

from collections import deque
from itertools import takewhile
from operator import itemgetter
from typing import Any, Final

from service.errors import ArtifactError, LogDamagedError, SnapshotError
from service.learn.event_fold import EventFold, RowLosses
from service.learn.fold_upgrade import first_fold
from service.store.artifact.artifact import Artifact
from service.store.directory.data_directory import StreamFolder
from service.store.log.events import Event, Kind, Position, Stream
from service.store.log.feedback_log import FeedbackLog, read_position
from service.store.log.lineage import (
    Lineage,
    LineageChange,
    Segments,
    lineage_change,
    segments_after,
    segments_begin_with,
    segments_contain,
)
from service.store.states.snapshots import list_seqs, read_snapshot, write_snapshot

KIND_OF: Final = itemgetter(Event._fields.index("kind"))
# Events that change the lineage, and with it perhaps what was folded already.
TURNS: Final = frozenset((Kind.FORGET, Kind.ROLLBACK, Kind.SKIP))


class Follower:
    """One stream's fold.

    Args:
        stream: The stream.
        artifact: What it is bound to.
        log: Where its events are.
        folder: Where its checkpoints are.

    Attributes:
        fold: The state; while refolding, one that is on its way.
        seq: The event up to which it is folded, or the target of the refolding.
        hash: The hash of that event, which chains it to all before it.
    """

    def __init__(self, stream: Stream, artifact: Artifact, log: FeedbackLog, folder: StreamFolder) -> None:
        self.stream: Final = stream
        self.folder: Final = folder
        self._artifact: Final = artifact
        self._log: Final = log
        self.lineage = Lineage()
        self._class_moves: list[int] = []
        self._passed: set[int] = set()  # events of which it is known before its time that a later one puts them out
        for event in log.read_admin_events(stream.number):
            self._add_turn(lineage_change(event))
        self._ahead: deque[tuple[int, int]] = deque()
        self._length = 0  # events of the whole refolding, for its progress
        self.fold = EventFold(artifact)
        self.seq, self.hash = self._reached()
        self._begin()

    @property
    def is_refolding(self) -> bool:
        """Whether the fold is on its way to `seq`."""
        return bool(self._ahead)

    @property
    def refold_progress(self) -> float:
        """The share of the refolding that is done."""
        left = sum(hi - lo for lo, hi in self._ahead)
        return 1 - left / self._length if self._length else 1.0

    @property
    def read_after(self) -> int:
        """The seq behind which the next event is to be folded."""
        return self._ahead[0][0] if self._ahead else self.seq

    @property
    def excluded(self) -> set[int]:
        """The seqs that no state holds any more."""
        return self.lineage.forgotten | self.lineage.skipped | self._passed

    @property
    def epoch(self) -> int:
        """The number of forgets up to `seq`."""
        return sum(turn.kind == Kind.FORGET and turn.seq <= self.seq for turn in self.lineage.changes)

    def read_next(self, limit: int) -> list[Event]:
        """The next events that are to be folded or to be turned at, at most that many.

        Raises:
            LogDamagedError: An event that was folded before is missing, or is not what was written. A start has checked
                the chain behind the newest checkpoint alone, and a refolding may begin long before that.
        """
        if not self._ahead:
            return self._log.read_events(self.stream.number, self.seq, limit)
        lo, hi = self._ahead[0]
        events = self._log.read_events(self.stream.number, lo, min(limit, hi - lo))
        since = read_position(self._log, self.stream, lo)
        if not events or since is None:
            raise LogDamagedError(f"the feedback log has no event {lo + 1} where one was written")
        for position in self._log.verify_chain(self.stream.number, since, len(events)):
            if position.hash != events[-1].hash:
                raise LogDamagedError(f"event {position.seq} of the feedback log is read now one way, now another")
            break
        return events

    def fold_batch(self, events: list[Event]) -> list[RowLosses]:
        """Move on by events that `read_next` gave; stops early, behind an event that turns the lineage.

        Returns:
            The events that were folded for the first time, with the losses of their rows.
        """
        if self._ahead:
            self._refold(events)
            return []
        kinds = set(map(KIND_OF, events))
        if kinds == {Kind.FEEDBACK}:
            return self._run(events)
        if events[0].kind in TURNS:
            self._turn(events[0])
            return []
        run = list(takewhile(lambda event: event.kind not in TURNS, events))
        self._learn_turns(run)
        return self._run(run)

    def _run(self, events: list[Event]) -> list[RowLosses]:
        scored = self.fold.fold_events(self._present(events))
        self.seq, self.hash = events[-1].seq, events[-1].hash
        return scored

    def _present(self, events: list[Event]) -> list[Event]:
        """Those events that no later one puts out."""
        out = self.excluded
        return [event for event in events if event.seq not in out] if out else events

    def bypass(self, seq: int) -> bool:
        """Find a way past an event that cannot be folded, in what came behind it.

        Where a later event puts it out, it is left out already when its turn comes. Where a rollback leads to a state
        that is not made of it, the fold moves to the last such rollback.

        Returns:
            Whether there is one; what is next is to be asked for again then.
        """
        admin = self._log.read_admin_events(self.stream.number)
        lineage = Lineage(map(lineage_change, admin))
        if seq in lineage.forgotten | lineage.skipped:
            self._passed.add(seq)
            return True
        for event in reversed(admin):
            if event.seq <= max(self.seq, seq):
                break
            if event.kind == Kind.ROLLBACK and not lineage.contains(event.seq, seq):
                self._learn_turns(admin)
                self.seq, self.hash = event.seq, event.hash
                self._begin()
                return True
        return False

    def _learn_turns(self, events: list[Event]) -> bool:
        """Let the lineage know the admin events among those that were read; returns whether it knew any less."""
        known = self.lineage.changes[-1].seq if self.lineage.changes else 0
        new = [event for event in events if event.kind != Kind.FEEDBACK and event.seq > known]
        for event in new:
            self._add_turn(lineage_change(event))
        return bool(new)

    def _add_turn(self, turn: LineageChange) -> None:
        self.lineage.add(turn)
        if self.lineage.class_set(turn.seq) != self.lineage.class_set(turn.seq - 1):
            self._class_moves.append(turn.seq)

    def _turn(self, event: Event) -> None:
        """Move past an event that turns the lineage, and begin to refold where the state holds what it must not."""
        held = self.lineage.segments(self.seq)
        # What the lineage knew before was left out already when its turn came.
        is_new = self._learn_turns([event])
        must_go = is_new and any(segments_contain(held, seq) for seq in lineage_change(event).excluded)
        self.seq, self.hash = event.seq, event.hash
        if must_go or event.kind == Kind.ROLLBACK:
            self._begin()

    # Back and forth

    def _reached(self) -> Position:
        """How far the process before this one has come, as its files tell; what came after is folded as it comes."""
        last = self._log.stream_state(self.stream.number).seq
        # From the newest base on: states before it were another fold's, and none is told anew under their seqs.
        kept = [self.lineage.newest_base_seq, *list_seqs(self.folder.checkpoints), *list_seqs(self.folder.snapshots)]
        seq = max(seq for seq in kept if seq <= last)
        return read_position(self._log, self.stream, seq) or Position(0, self.stream.genesis)

    def _begin(self) -> None:
        """Go back to the newest checkpoint on the way to state(seq), and fold on from there."""
        wanted, base = self.lineage.segments(self.seq), self.lineage.base_of_state(self.seq)
        self.fold = first_fold(self.stream, self._artifact, self._log, base)
        start = 0 if base is None else base.target
        for seq in reversed(list_seqs(self.folder.checkpoints)):
            fold = self._restored(seq, wanted) if seq <= self.seq else None
            if fold is not None:
                self.fold, start = fold, seq
                break
        self._ahead = deque(segments_after(wanted, start))
        self._length = sum(hi - lo for lo, hi in self._ahead)

    def _restored(self, seq: int, wanted: Segments) -> EventFold | None:
        """The fold of a checkpoint, where its events are the first ones of those that are wanted, and none is out.

        It began as `self.fold` does: a base that counts for the one state and not for the other has another fold, or
        an event that is out.
        """
        held = self.lineage.segments(seq)
        if not segments_begin_with(wanted, held, seq):
            return None
        try:
            snapshot = read_snapshot(self.folder.checkpoints / str(seq))
            fields = snapshot.fields
            if fields["genesis"] != self.stream.genesis.hex():
                return None
            late = [turn for turn in self.lineage.changes[fields["turns"] :] if turn.excluded]
            if any(segments_contain(held, out) for turn in late for out in turn.excluded):
                return None
            return EventFold.from_checkpoint(self.fold.artifact, snapshot)
        except (SnapshotError, ArtifactError, KeyError):
            return None

    def _refold(self, events: list[Event]) -> None:
        self.fold.fold_events(self._present(events))
        _, hi = self._ahead.popleft()
        if events[-1].seq < hi:
            self._ahead.appendleft((events[-1].seq, hi))

    # Keeping

    def write_checkpoint(self) -> None:
        """Write the state where a restart goes on from; not while refolding.

        Raises:
            OSError: The disk refuses.
        """
        fields, arrays = self.fold.checkpoint_contents()
        write_snapshot(self.folder.checkpoints, self.seq, {**fields, **self.position_fields()}, arrays, durable=True)

    def position_fields(self) -> dict[str, Any]:
        """Where the fold stands, as a checkpoint and a snapshot say it."""
        return {
            "stream": self.stream.number,
            "genesis": self.stream.genesis.hex(),
            "hash": self.hash.hex(),
            "epoch": self.epoch,
            "class_epoch": max((seq for seq in self._class_moves if seq <= self.seq), default=0),
            "turns": len(self.lineage.changes),
        }

    def position(self) -> Position:
        """The event up to which everything is folded."""
        return Position(self.seq, self.hash)

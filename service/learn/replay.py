"""Replaying a stream: state(n) for any n, from the bound artifact and the log alone.

What is published or kept in a checkpoint is derived; this is what it is derived from. Events are read and folded in
bulk, so that 10^6 of them take seconds: their payloads alone are read, joined, and given to the kernels as one array.
A state may be asked for after another one, and the fold goes on where the lineage of the one begins with the other's.

    state(n) is gone where an event of E(n) was forgotten behind n: what was is not to be had any more
    state(n) is another release's where n lies before the newest base, or where this one has not taken over yet
"""

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from service.errors import EarlierReleaseError, LogDamagedError, SoftstepError, UnknownSeqError
from service.learn.event_fold import EventFold
from service.learn.fold_upgrade import first_fold, fold_of
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import FOLD_VERSION
from service.store.log.events import Kind, Position, Stream
from service.store.log.feedback_log import FeedbackLog, read_lineage, read_position
from service.store.log.lineage import LineageChange, Segments, segments_after, segments_begin_with

BATCH_EVENTS_MAX: Final = 8192
BATCH_BYTES: Final = 16 << 20  # of payloads that are held at one time, or one payload where it is larger
FIRST_EVENTS: Final = 16
CLASS_TURNS: Final = (Kind.CLASSES, Kind.ROLLBACK)


class ForgottenError(SoftstepError):
    """The state was made of an event that is forgotten now, so nobody can make it again."""


class ReplayProgress(NamedTuple):
    """How far a replay is: the events that are folded, of all that this one folds."""

    events: int
    total: int


class StreamReplay:
    """The fold of one stream at any seq.

    Args:
        stream: The stream.
        artifact: What it is bound to.
        log: Where its events are.

    Attributes:
        fold: The state.
        seq: The event up to which it is folded; negative where a replay broke off.
        lineage: The stream's lineage, as it was when this object was made.

    Raises:
        ArtifactError: The stream is another artifact's, or a later release's.
    """

    def __init__(self, stream: Stream, artifact: Artifact, log: FeedbackLog) -> None:
        self.stream: Final = stream
        self._artifact: Final = artifact
        self._log: Final = log
        self.last: Final = log.stream_state(stream.number).seq
        self.lineage: Final = read_lineage(log, stream.number)
        is_ours = fold_of(stream, artifact, self.lineage) == FOLD_VERSION
        self._since: Final = self.lineage.newest_base_seq if is_ours else self.last + 1
        self._turns: Final = [turn.seq for turn in self.lineage.changes]
        self._out: Final = sorted(self.lineage.forgotten | self.lineage.skipped)
        self._batch = FIRST_EVENTS
        self.seq = 0
        self.fold = EventFold(artifact)
        self._base: LineageChange | None = None  # what the fold began from
        self._checked = Position(0, stream.genesis)  # how far the chain is known to hold

    def fold_to(self, seq: int) -> Iterator[ReplayProgress]:
        """Move to a state; it is there when the iterator ends.

        Yields:
            How far it is, after each batch.

        Raises:
            UnknownSeqError: The stream has no such event.
            ForgottenError: The state cannot be had any more.
            EarlierReleaseError: An earlier release made the state.
            LogDamagedError: An event is missing or is not what was written.
        """
        self._refuse(seq)
        wanted, base = self.lineage.segments(seq), self.lineage.base_of_state(seq)
        start, self.seq = self.seq, -1  # the fold is of no seq until the end is reached
        if start < 0 or base != self._base or not segments_begin_with(wanted, self.lineage.segments(start), start):
            self.fold, self._base = first_fold(self.stream, self._artifact, self._log, base), base
            start = 0 if base is None else base.target
        ahead = segments_after(wanted, start)
        total = sum(hi - lo for lo, hi in ahead)
        done = 0
        for lo, hi in self._runs(ahead):
            self._take(lo, hi)
            done += hi - lo
            yield ReplayProgress(done, total)
        self.seq = seq

    def position_fields(self) -> dict[str, Any]:
        """Where the fold stands, as a checkpoint and a snapshot say it."""
        turns = self.lineage.changes
        moves = (turn.seq for turn in turns if turn.seq <= self.seq and self._moves_classes(turn))
        return {
            "stream": self.stream.number,
            "genesis": self.stream.genesis.hex(),
            "hash": self.position().hash.hex(),
            "epoch": sum(turn.kind == Kind.FORGET and turn.seq <= self.seq for turn in turns),
            "class_epoch": max(moves, default=0),
            "turns": len(turns),
        }

    def position(self) -> Position:
        """The event up to which everything is folded, with the hash that chains it to all before it."""
        return position_at(self._log, self.stream, self.seq)

    def _refuse(self, seq: int) -> None:
        if not 0 <= seq <= self.last:
            raise UnknownSeqError(f"the stream has the seqs 0 to {self.last}")
        if 0 < seq < self._since:
            raise EarlierReleaseError(f"an earlier release made that state; use a seq from {self._since} on")
        for turn in self.lineage.changes:
            if (
                turn.kind == Kind.FORGET
                and turn.seq > seq
                and any(self.lineage.contains(seq, one) for one in turn.excluded)
            ):
                raise ForgottenError(f"event {turn.seq} forgot an event of that state; ask for seq {turn.seq} or later")

    def _moves_classes(self, turn: LineageChange) -> bool:
        is_able = turn.kind in CLASS_TURNS
        return is_able and self.lineage.class_set(turn.seq) != self.lineage.class_set(turn.seq - 1)

    def _runs(self, segments: Segments) -> Iterator[tuple[int, int]]:
        """The segments (lo, hi] cut before and behind each admin event, and into batches."""
        for lo, hi in segments:
            for end in (*(cut for seq in _within(self._turns, lo, hi) for cut in (seq - 1, seq)), hi):
                while lo < end:
                    step = min(end, lo + self._batch)
                    yield lo, step
                    lo = step  # noqa: PLW2901  # what is left of the segment

    def _take(self, lo: int, hi: int) -> None:
        """Fold the events of (lo, hi]: feedback alone, or one admin event."""
        if self._checked.seq != lo:
            self._checked = position_at(self._log, self.stream, lo)
        payloads, self._checked = self._log.read_payloads(self.stream.number, self._checked, hi - lo)
        if len(payloads) != hi - lo:
            raise LogDamagedError(f"the feedback log has no event {lo + len(payloads) + 1} where one was written")
        for seq in reversed(_within(self._out, lo, hi)):
            del payloads[seq - lo - 1]
        present = [payload for payload in payloads if payload is not None]
        if len(present) != len(payloads):
            raise ForgottenError("an event was forgotten while it was replayed; ask again")
        if not present:
            return
        self._batch = max(1, min(2 * self._batch, BATCH_EVENTS_MAX, BATCH_BYTES // max(map(len, present))))
        if _within(self._turns, lo, hi):
            self.fold.fold_events(self._log.read_events(self.stream.number, lo, 1))
        else:
            self.fold.fold_payloads(present)


def _within(ascending: list[int], lo: int, hi: int) -> list[int]:
    """The seqs of (lo, hi]."""
    return ascending[bisect_right(ascending, lo) : bisect_right(ascending, hi)]


def position_at(log: FeedbackLog, stream: Stream, seq: int) -> Position:
    """The place of an event in its stream's chain; raises LogDamagedError where there is no such event."""
    position = read_position(log, stream, seq)
    if position is None:
        raise LogDamagedError(f"the feedback log has no event {seq} where one was written")
    return position

"""Replay a stream: state(n) for any n, from the bound artifact and the log alone.

Snapshots and checkpoints are derived; a replay makes again what they were derived from. Payloads are read and folded in
bulk, so that 10^6 events take seconds. After one state another can be made; the fold continues if nothing that comes
after the old one changes what is folded there (`Lineage.continues`). Other folds may take the same events in the same
pass (variant_fold.py).

Some states cannot be made:

    an event of E(n) was forgotten after n           ForgottenError
    n is before the newest BASE, or this release has
    not taken over the stream yet                    EarlierReleaseError: another release made the state
"""

from bisect import bisect_right
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from service.errors import EarlierReleaseError, LogDamagedError, SoftstepError, UnknownSeqError
from service.learn.fold_upgrade import current_fold_version, first_fold
from service.learn.stream_position import StreamPosition
from service.store.artifact.artifact import Artifact
from service.store.artifact.fingerprint import OLDEST_FOLD_VERSION
from service.store.log.correction_payload import correct_payload
from service.store.log.events import Event, Kind, Position, Stream
from service.store.log.feedback_log import FeedbackLog, read_position, read_verified_payload
from service.store.log.lineage import Lineage, LineageChange, Segments, lineage_change, segments_after

BATCH_EVENTS_MAX: Final = 8192
BATCH_BYTES: Final = 16 << 20  # of payloads in memory at one time; a larger payload is a batch of its own
FIRST_BATCH_EVENTS: Final = 16


class ForgottenError(SoftstepError):
    """The state contained an event that was forgotten since, so it cannot be made again."""


class ReplayProgress(NamedTuple):
    """The progress of a replay: the number of folded events, and of all events to fold."""

    events: int
    total: int


class EventBatch(NamedTuple):
    """Consecutive events of a state: feedback only, or one admin event.

    Attributes:
        seqs: The seq of each feedback event.
        payloads: The payload of each feedback event, with the labels that it has in the state.
        admin: The admin event, or None.
        progress: The progress of the replay once the batch is folded.
    """

    seqs: list[int]
    payloads: list[bytes]
    admin: Event | None
    progress: ReplayProgress


class StreamReplay:
    """The fold of one stream at any seq.

    Args:
        stream: The stream.
        artifact: The artifact that the stream is bound to.
        log: The log that holds its events.

    Attributes:
        fold: The state.
        seq: The last event that is folded; negative after a replay that did not finish.
        last: The last seq of the stream when this object was made.
        lineage: The lineage of the stream at that time.
        since: The first seq, besides 0, whose state this release can make.

    Raises:
        ArtifactError: The stream belongs to another artifact, or a later release began or took it over.
    """

    def __init__(self, stream: Stream, artifact: Artifact, log: FeedbackLog) -> None:
        self.stream: Final = stream
        self._artifact: Final = artifact
        self._log: Final = log
        self.last: Final = log.stream_state(stream.number).seq
        admin = log.read_admin_events(stream.number)
        self.lineage: Final = Lineage(map(lineage_change, admin))
        self._heeded: Final = Position(admin[-1].seq, admin[-1].hash) if admin else Position(0, stream.genesis)
        is_ours = current_fold_version(stream, artifact, self.lineage) >= OLDEST_FOLD_VERSION
        self.since: Final = self.lineage.newest_base_seq if is_ours else self.last + 1
        self._admin_seqs: Final = [change.seq for change in self.lineage.changes]
        removed = self.lineage.forgotten | self.lineage.skipped | self.lineage.forgotten_corrections
        self._excluded: Final = sorted(removed)
        self._corrections: dict[int, int] = {}  # of the state: corrected events, each with the seq of its CORRECT
        self._corrected: list[int] = []
        self._positions: Final = StreamPosition(stream, self.lineage)
        self._batch = FIRST_BATCH_EVENTS
        self.seq = 0
        self.fold = first_fold(stream, artifact, log, self.lineage, None)
        self._base: LineageChange | None = None  # the base that the fold started from
        self._verified = Position(0, stream.genesis)  # the chain is verified up to here

    @property
    def position(self) -> Position:
        """The position of the last event that is folded."""
        return position_at(self._log, self.stream, self.seq)

    def position_fields(self) -> dict[str, Any]:
        """Return the fields that describe the position in checkpoints and snapshots."""
        return self._positions.fields(self.position, self._heeded)

    def fold_to(self, seq: int) -> Iterator[ReplayProgress]:
        """Make state(seq); it is complete when the iterator ends.

        Yields:
            The progress, after each batch.

        Raises:
            UnknownSeqError: The stream has no such event.
            ForgottenError: The state contained an event that was forgotten since.
            EarlierReleaseError: Another release made the state.
            LogDamagedError: An event is missing or altered.
        """
        for batch in self.read_batches(seq):
            if batch.admin is None:
                self.fold.fold_payloads(batch.payloads)
            else:
                self.fold.fold_events([batch.admin])
            yield batch.progress

    def events_between(self, start: int, seq: int) -> int:
        """Return the number of events that are folded to make state(seq) after state(start)."""
        lineage = self.lineage
        base = lineage.base_of_state(seq)
        if base != lineage.base_of_state(start) or not lineage.continues(seq, start):
            start = 0 if base is None else base.target
        return _count_events(segments_after(lineage.segments(seq), start))

    def read_batches(self, seq: int, *, without_forgotten: bool = False) -> Iterator[EventBatch]:
        """Set `fold` to the state that state(seq) continues from, and return the events between the two in batches.

        The caller folds each batch before it takes the next. When the iterator ends, the state counts as complete.

        Args:
            seq: The seq.
            without_forgotten: Whether to leave out events of the state that were forgotten since, in place of an error.

        Raises:
            UnknownSeqError: As for `fold_to`, with all its other errors.
        """
        self._check_available(seq)
        if not without_forgotten:
            self._check_not_forgotten(seq)
        base = self.lineage.base_of_state(seq)
        start, self.seq = self.seq, -1  # until the end the fold is of no seq
        if start < 0 or base != self._base or not self.lineage.continues(seq, start):
            self.fold = first_fold(self.stream, self._artifact, self._log, self.lineage, base)
            self._base = base
            start = 0 if base is None else base.target
        self._corrections = self.lineage.corrections(seq)
        self._corrected = sorted(self._corrections)
        return self._read_segments(segments_after(self.lineage.segments(seq), start), seq)

    def _read_segments(self, segments: Segments, seq: int) -> Iterator[EventBatch]:
        total = _count_events(segments)
        events = 0
        for lo, hi in self._batches(segments):
            events += hi - lo
            yield self._read_batch(lo, hi, ReplayProgress(events, total))
        self.seq = seq

    def _check_available(self, seq: int) -> None:
        if not 0 <= seq <= self.last:
            raise UnknownSeqError(f"the stream has the seqs 0 to {self.last}")
        if 0 < seq < self.since:
            raise EarlierReleaseError(f"an earlier release made that state; ask for seq {self.since} or later")

    def _check_not_forgotten(self, seq: int) -> None:
        for change in self.lineage.changes:
            is_later = change.kind == Kind.FORGET and change.seq > seq
            if is_later and any(self.lineage.contains(seq, forgotten) for forgotten in change.excluded):
                later = change.seq
                raise ForgottenError(f"event {later} forgot an event of that state; ask for seq {later} or later")

    def _batches(self, segments: Segments) -> Iterator[tuple[int, int]]:
        """Cut segments (lo, hi] into batches, with each admin event in a batch of its own."""
        for lo, hi in segments:
            for end in (*(cut for seq in _between(self._admin_seqs, lo, hi) for cut in (seq - 1, seq)), hi):
                while lo < end:
                    cut = min(end, lo + self._batch)
                    yield lo, cut
                    lo = cut  # noqa: PLW2901  # what is left of the segment

    def _read_batch(self, lo: int, hi: int, progress: ReplayProgress) -> EventBatch:
        """Read and verify the events of (lo, hi]: feedback only, or one admin event."""
        if self._verified.seq != lo:
            self._verified = position_at(self._log, self.stream, lo)
        payloads, self._verified = self._log.read_payloads(self.stream.number, self._verified, hi - lo)
        if len(payloads) != hi - lo:
            raise LogDamagedError(f"event {lo + len(payloads) + 1} of the feedback log is missing")
        seqs = list(range(lo + 1, hi + 1))
        for seq in _between(self._corrected, lo, hi):
            payloads[seq - lo - 1] = self._corrected_payload(seq, payloads[seq - lo - 1])
        for seq in reversed(_between(self._excluded, lo, hi)):
            del payloads[seq - lo - 1], seqs[seq - lo - 1]
        present = [payload for payload in payloads if payload is not None]
        if len(present) != len(payloads):
            raise ForgottenError("an event was forgotten during the replay; ask again")
        if present:
            self._batch = max(1, min(2 * self._batch, BATCH_EVENTS_MAX, BATCH_BYTES // max(map(len, present))))
        if present and _between(self._admin_seqs, lo, hi):
            (admin,) = self._log.read_events(self.stream.number, lo, 1)
            return EventBatch([], [], admin, progress)
        return EventBatch(seqs, present, None, progress)

    def _corrected_payload(self, seq: int, payload: bytes | None) -> bytes | None:
        """Return the payload of an event with the labels of its CORRECT, or None if one of them was forgotten."""
        correction = read_verified_payload(self._log, self.stream, self._corrections[seq])
        return None if payload is None or correction is None else correct_payload(payload, correction)


def _count_events(segments: Segments) -> int:
    return sum(hi - lo for lo, hi in segments)


def _between(ascending: list[int], lo: int, hi: int) -> list[int]:
    """Return the seqs of (lo, hi]."""
    return ascending[bisect_right(ascending, lo) : bisect_right(ascending, hi)]


def position_at(log: FeedbackLog, stream: Stream, seq: int) -> Position:
    """Return the position of an event; seq 0 is the genesis.

    Raises:
        LogDamagedError: The log has no such event.
    """
    position = read_position(log, stream, seq)
    if position is None:
        raise LogDamagedError(f"event {seq} of the feedback log is missing")
    return position

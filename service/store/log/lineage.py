"""The lineage E(n) of a stream: the events that a state is made of, according to the admin events.

    E(0) = ()
    FEEDBACK, CLASSES, CONFIGURE n    E(n) = E(n-1) + (n)
    ROLLBACK n to s                   E(n) = E(s)
    FORGET n, SKIP n, BASE n          E(n) = E(n-1)

    state(n) = the fold of E(n) in order, without the events that were forgotten or skipped, whenever that was

E(n) is stored as ascending half-open segments (lo, hi], so that it stays short whatever the number of events.

**Bases.** A BASE n with seq s contains the state that the fold of an earlier release made of E(s). If E(m) begins with
E(s), then state(m) is that state and the fold of what comes after s; so what is served does not jump when the fold
changes. If an event of E(s) is forgotten or skipped later, the base includes an excluded event and is no longer used:
the state is that of an older base, or of the artifact, and of all events since. The newest BASE divides the stream: an
earlier release made the states of the seqs before it, and this release cannot make them again.
"""

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from service.errors import UnknownSeqError
from service.store.log.admin_payloads import (
    fold_of_base,
    parse_base,
    parse_classes,
    parse_forget,
    parse_forgotten_bases,
    parse_seq,
)
from service.store.log.events import Event, Kind

Segments = tuple[tuple[int, int], ...]


class LineageChange(NamedTuple):
    """The effect of one admin event on the lineage and on the class set.

    Attributes:
        seq: Its seq.
        kind: Its kind.
        target: ROLLBACK: the seq to return to; BASE: the seq of its state, 0 if it was forgotten.
        excluded: FORGET and SKIP: the seqs that are left out from then on.
        classes: CLASSES: the number of classes that are added.
        bases: FORGET: the seqs of the BASE events that are forgotten with the others.
        fold: BASE: the version of the fold that continues from it.
        known_changes: BASE: the number of the stream's admin events that its state took into account.
    """

    seq: int
    kind: int
    target: int = 0
    excluded: tuple[int, ...] = ()
    classes: int = 0
    bases: tuple[int, ...] = ()
    fold: int = 0
    known_changes: int = 0


def lineage_change(event: Event) -> LineageChange:
    """Return the effect of an admin event.

    Raises:
        PayloadError: Its payload is not valid for its kind.
    """
    seq, kind, payload = event.seq, event.kind, event.payload or b""
    match kind:
        case Kind.ROLLBACK:
            return LineageChange(seq, kind, target=parse_seq(payload))
        case Kind.FORGET:
            return LineageChange(seq, kind, excluded=parse_forget(payload), bases=parse_forgotten_bases(payload))
        case Kind.SKIP:
            return LineageChange(seq, kind, excluded=(parse_seq(payload),))
        case Kind.CLASSES:
            return LineageChange(seq, kind, classes=len(parse_classes(payload)))
        case Kind.BASE:
            target, known_changes = (0, 0) if event.payload is None else parse_base(payload)
            fold = fold_of_base(event.id)
            return LineageChange(seq, kind, target=target, fold=fold, known_changes=known_changes)
    return LineageChange(seq, kind)


class Lineage:
    """The lineage of one stream at every seq, according to the admin events that are known so far.

    Args:
        changes: The effects of its admin events, by ascending seq; `add` appends further ones.

    Attributes:
        changes: All effects that were added.
        forgotten: The seqs of the forgotten events, BASE events aside.
        skipped: The seqs of the skipped events.
        bases: The effects of the BASE events.
        forgotten_bases: The seqs of the forgotten BASE events.
    """

    def __init__(self, changes: Iterable[LineageChange] = ()) -> None:
        self.changes: list[LineageChange] = []
        self.forgotten: set[int] = set()
        self.skipped: set[int] = set()
        self.bases: list[LineageChange] = []
        self.forgotten_bases: set[int] = set()
        # For each change the closed segments at its seq; the open one after it extends to any n.
        self._starts: list[int] = [0]
        self._closed: list[Segments] = [()]
        for change in changes:
            self.add(change)

    def add(self, change: LineageChange) -> None:
        """Add a change of a greater seq than those before."""
        closed = self._segments_at(change)
        self.changes.append(change)
        self._starts.append(change.seq)
        self._closed.append(closed)
        if change.kind == Kind.FORGET:
            self.forgotten.update(change.excluded)
            self.forgotten_bases.update(change.bases)
        elif change.kind == Kind.BASE:
            self.bases.append(change)
        elif change.kind == Kind.SKIP:
            self.skipped.update(change.excluded)

    def segments(self, n: int) -> Segments:
        """Return E(n) as ascending segments (lo, hi], forgotten and skipped events included.

        Raises:
            UnknownSeqError: n is negative.
        """
        if n < 0:
            raise UnknownSeqError("a seq must not be negative")
        at = bisect_right(self._starts, n) - 1
        return _append_segment(self._closed[at], self._starts[at], n)

    def seqs(self, n: int) -> list[int]:
        """Return the seqs of the events that state(n) is folded from, in order."""
        excluded = self.forgotten | self.skipped
        return [seq for lo, hi in self.segments(n) for seq in range(lo + 1, hi + 1) if seq not in excluded]

    def contains(self, n: int, seq: int) -> bool:
        """Return whether an event is in E(n), forgotten or not."""
        return segments_contain(self.segments(n), seq)

    def base_of_state(self, n: int) -> LineageChange | None:
        """Return the newest BASE event that state(n) can be folded from, or None if that is the artifact."""
        wanted = self.segments(n)
        for base in reversed(self.bases):
            included = self.segments(base.target)
            if segments_begin_with(wanted, included, base.target) and base.seq not in self.forgotten_bases:
                later = (seq for change in self.changes[base.known_changes :] for seq in change.excluded)
                if not any(segments_contain(included, seq) for seq in later):
                    return base
        return None

    def bases_containing(self, seqs: Iterable[int]) -> tuple[int, ...]:
        """Return the seqs of the BASE events whose states were made of any of these events."""
        wanted, found = set(seqs), []
        for base in self.bases:
            included = self.segments(base.target)
            excluded = {seq for change in self.changes[: base.known_changes] for seq in change.excluded}
            is_affected = any(segments_contain(included, seq) for seq in wanted - excluded)
            if base.seq not in self.forgotten_bases and is_affected:
                found.append(base.seq)
        return tuple(found)

    @property
    def newest_base_seq(self) -> int:
        """The seq of the newest BASE event, 0 without any; an earlier release made the states between 0 and it."""
        return self.bases[-1].seq if self.bases else 0

    def class_set(self, n: int) -> tuple[int, ...]:
        """Return the seqs of the CLASSES events in E(n); equal results mean equal class sets."""
        return tuple(
            change.seq
            for change in self.changes
            if change.kind == Kind.CLASSES and change.seq <= n and self.contains(n, change.seq)
        )

    def n_classes(self, n: int, at_start: int) -> int:
        """Return the number of classes at n, for a stream that began with `at_start` classes."""
        members = set(self.class_set(n))
        return at_start + sum(change.classes for change in self.changes if change.seq in members)

    def _segments_at(self, change: LineageChange) -> Segments:
        before = self.segments(change.seq - 1)
        match change.kind:
            case Kind.ROLLBACK:
                return self.segments(change.target)
            case Kind.FORGET | Kind.SKIP | Kind.BASE:
                return before
        return _append_segment(before, change.seq - 1, change.seq)


def segments_contain(segments: Segments, seq: int) -> bool:
    """Return whether an event is in one of the segments."""
    return any(lo < seq <= hi for lo, hi in segments)


def segments_begin_with(segments: Segments, start: Segments, seq: int) -> bool:
    """Return whether segments begin with those of E(seq), that is, have the same events up to seq."""
    return start == tuple((lo, min(hi, seq)) for lo, hi in segments if lo < seq)


def segments_after(segments: Segments, seq: int) -> Segments:
    """Return the part of segments after a seq."""
    return tuple((max(lo, seq), hi) for lo, hi in segments if hi > seq)


def _append_segment(closed: Segments, lo: int, hi: int) -> Segments:
    """Append (lo, hi] to segments, and join it to the last one if they meet."""
    if lo == hi:
        return closed
    if closed and closed[-1][1] == lo:
        return (*closed[:-1], (closed[-1][0], hi))
    return (*closed, (lo, hi))

"""The lineage E(n) of a stream: the events that a state is made of, according to the admin events.

    E(0) = ()
    FEEDBACK, CLASSES, CONFIGURE, CORRECT n    E(n) = E(n-1) + (n)
    ROLLBACK n to s                            E(n) = E(s)
    FORGET n, SKIP n, BASE n                   E(n) = E(n-1)

    state(n) = the fold of E(n) in order, without the events that were forgotten or skipped, whenever that was; an
               event has the labels of the last CORRECT of it in E(n), or else its own

E(n) is stored as ascending half-open segments (lo, hi], so that it stays short whatever the number of events.

**Corrections.** A CORRECT n changes no state before n, and a rollback to before n undoes it. The fold can continue from
state(c) to state(n) if E(n) begins with E(c) and no CORRECT of E(n) after c corrects an event of E(c); see `continues`.

**Bases.** A BASE n with seq s contains the state that the fold of an earlier release made of E(s). If E(m) begins with
E(s), then state(m) is that state and the fold of what comes after s; so what is served does not jump when the fold
changes. If an event of E(s) is forgotten or skipped later, the base includes an excluded event and is no longer used:
the state is that of an older base, or of the artifact, and of all events since. The newest BASE divides the stream: an
earlier release made the states of the seqs before it, and this release cannot make them again. A correction changes no
base: an event that is part of a base keeps the labels that it had there.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Collection, Iterable
from operator import attrgetter
from typing import Final, NamedTuple

from service.errors import UnknownSeqError
from service.store.log.admin_payloads import (
    fold_of_base,
    parse_base,
    parse_classes,
    parse_forget,
    parse_forgotten_bases,
    parse_forgotten_corrections,
    parse_seq,
)
from service.store.log.correction_payload import parse_correction
from service.store.log.events import Event, Kind

SEQ_OF: Final = attrgetter("seq")

Segments = tuple[tuple[int, int], ...]


class LineageChange(NamedTuple):
    """The effect of one admin event on the lineage and on the class set.

    Attributes:
        seq: Its seq.
        kind: Its kind.
        target: ROLLBACK: the seq to return to; BASE: the seq of its state, 0 if it was forgotten; CORRECT: the seq
            of the corrected event, 0 if it was forgotten.
        excluded: FORGET and SKIP: the seqs that are left out from then on.
        classes: CLASSES: the number of classes that are added.
        bases: FORGET: the seqs of the BASE events that are forgotten with the others.
        corrections: FORGET: the seqs of the CORRECT events that are forgotten with the others.
        fold: BASE: the version of the fold that continues from it.
        known_changes: BASE: the number of the stream's admin events that its state took into account.
    """

    seq: int
    kind: int
    target: int = 0
    excluded: tuple[int, ...] = ()
    classes: int = 0
    bases: tuple[int, ...] = ()
    corrections: tuple[int, ...] = ()
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
            change = LineageChange(seq, kind, target=parse_seq(payload))
        case Kind.FORGET:
            bases, corrections = parse_forgotten_bases(payload), parse_forgotten_corrections(payload)
            change = LineageChange(seq, kind, excluded=parse_forget(payload), bases=bases, corrections=corrections)
        case Kind.SKIP:
            change = LineageChange(seq, kind, excluded=(parse_seq(payload),))
        case Kind.CLASSES:
            change = LineageChange(seq, kind, classes=len(parse_classes(payload)))
        case Kind.BASE:
            target, known_changes = (0, 0) if event.payload is None else parse_base(payload)
            fold = fold_of_base(event.id)
            change = LineageChange(seq, kind, target=target, fold=fold, known_changes=known_changes)
        case Kind.CORRECT:
            change = LineageChange(seq, kind, target=0 if event.payload is None else parse_correction(payload).seq)
        case _:
            change = LineageChange(seq, kind)
    return change


class Lineage:
    """The lineage of one stream at every seq, according to the admin events that are known so far.

    Args:
        changes: The effects of its admin events, by ascending seq; `add` appends further ones.

    Attributes:
        changes: All effects that were added.
        forgotten: The seqs of the forgotten events, BASE events aside.
        skipped: The seqs of the skipped events.
        rollbacks: The effects of the ROLLBACK events.
        bases: The effects of the BASE events.
        forgotten_bases: The seqs of the forgotten BASE events.
        forgotten_corrections: The seqs of the forgotten CORRECT events.
    """

    def __init__(self, changes: Iterable[LineageChange] = ()) -> None:
        self.changes: list[LineageChange] = []
        self.forgotten: set[int] = set()
        self.skipped: set[int] = set()
        self.rollbacks: list[LineageChange] = []
        self.bases: list[LineageChange] = []
        self.forgotten_bases: set[int] = set()
        self.forgotten_corrections: set[int] = set()
        self._forgets: list[int] = []
        self._corrections: list[LineageChange] = []
        self._class_events: list[LineageChange] = []
        # For each change that does not extend E the closed segments at its seq; the open one after it extends to any n.
        self._starts: list[int] = [0]
        self._closed: list[Segments] = [()]
        for change in changes:
            self.add(change)

    def add(self, change: LineageChange) -> None:
        """Add a change of a greater seq than those before."""
        self.changes.append(change)
        match change.kind:
            case Kind.ROLLBACK:
                self.rollbacks.append(change)
                self._close_segments(change.seq, self.segments(change.target))
            case Kind.FORGET:
                self.forgotten.update(change.excluded)
                self.forgotten_bases.update(change.bases)
                self.forgotten_corrections.update(change.corrections)
                self._forgets.append(change.seq)
                self._close_segments(change.seq, self.segments(change.seq - 1))
            case Kind.SKIP:
                self.skipped.update(change.excluded)
                self._close_segments(change.seq, self.segments(change.seq - 1))
            case Kind.BASE:
                self.bases.append(change)
                self._close_segments(change.seq, self.segments(change.seq - 1))
            case Kind.CORRECT:
                self._corrections.append(change)
            case Kind.CLASSES:
                self._class_events.append(change)

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

    def forgotten_after(self, n: int) -> set[int]:
        """Return the seqs of the events that were forgotten after n; state(n) was made when they were still known."""
        later = self.changes[bisect_right(self.changes, n, key=SEQ_OF) :]
        return {seq for change in later if change.kind == Kind.FORGET for seq in change.excluded}

    def is_admin_event(self, seq: int) -> bool:
        """Return whether one of the changes has this seq."""
        at = bisect_left(self.changes, seq, key=SEQ_OF)
        return at < len(self.changes) and self.changes[at].seq == seq

    def epoch(self, n: int) -> int:
        """Return the number of FORGET events up to n."""
        return bisect_right(self._forgets, n)

    def corrections(self, n: int, wanted: Collection[int] | None = None) -> dict[int, int]:
        """Return the corrected events of E(n), each with the seq of the last CORRECT of it in E(n).

        Args:
            n: The seq.
            wanted: The only events to look for, or None for all.
        """
        segments = self.segments(n)
        found = self._corrections[: bisect_right(self._corrections, n, key=SEQ_OF)]
        corrections = [one for one in found if one.target and (wanted is None or one.target in wanted)]
        return {one.target: one.seq for one in corrections if segments_contain(segments, one.seq)}

    def corrections_of(self, seqs: Iterable[int]) -> tuple[int, ...]:
        """Return the seqs of the CORRECT events of any of these events, in any lineage, without those forgotten."""
        wanted = set(seqs)
        found = (one.seq for one in self._corrections if one.target in wanted)
        return tuple(seq for seq in found if seq not in self.forgotten_corrections)

    def continues(self, n: int, c: int) -> bool:
        """Return whether the fold of state(n) continues from state(c): nothing after c changes what is folded there."""
        wanted, base = self.segments(n), self.base_of_state(n)
        if not segments_begin_with(wanted, self.segments(c), c):
            return False
        start = 0 if base is None else base.target  # the events up to here keep the labels that they have in the base
        later = self._corrections[bisect_right(self._corrections, c, key=SEQ_OF) :]
        return not any(start < one.target <= c and segments_contain(wanted, one.seq) for one in later)

    def is_undone(self, n: int, seq: int) -> bool:
        """Return whether a rollback between an event and event n has led to a state before it; seq is at most n.

        Of FEEDBACK, CLASSES and CONFIGURE this is the opposite of `contains`. It also holds for a ROLLBACK itself.
        """
        for rollback in reversed(self.rollbacks):
            if rollback.seq <= seq:
                break
            if rollback.seq <= n:
                n = rollback.target
                if n < seq:
                    return True
        return False

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
        return tuple(one.seq for one in self._class_events if one.seq <= n and self.contains(n, one.seq))

    def n_classes(self, n: int, at_start: int) -> int:
        """Return the number of classes at n, for a stream that began with `at_start` classes."""
        members = set(self.class_set(n))
        return at_start + sum(change.classes for change in self._class_events if change.seq in members)

    def _close_segments(self, seq: int, closed: Segments) -> None:
        """Note E(seq) as closed segments; the events after seq extend it."""
        self._starts.append(seq)
        self._closed.append(closed)


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
